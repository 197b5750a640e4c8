"""Fixtures for every test: reference data, real texts, a local Ray, an object store.

The servers are started once a test run, on free ports, and stopped at its end.
"""

import gc
import importlib.util
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = REPOSITORY.parent / "shared"
WITHOUT_SHARED = "the full reference data is not at ../shared"
# Two cores are what the tests are sized for; set before any framework is imported, for its children too.
RUN_ENVIRONMENT = {
    "OMP_NUM_THREADS": "2",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TOKENIZERS_PARALLELISM": "false",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Tiny models are compiled hundreds of times and run once each: code that is not optimised is half the work.
    # `XLA_FLAGS= make test` tests the code that users get.
    "XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true "
    "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1",
    # JAX compiles each operation once per shape: kept between test runs, a second run takes a third of the time.
    "JAX_COMPILATION_CACHE_DIR": str(REPOSITORY / ".cache" / "jax"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    # Ray's C++ side reads these two when it is imported, which the first test module does.
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
}
for _name, _value in RUN_ENVIRONMENT.items():
    os.environ.setdefault(_name, _value)

FRAMEWORK_MODULES = {"torch": "torch", "tensorflow": "tensorflow", "flax": "flax"}
RAY_CPUS = 2
RAY_OBJECT_STORE_BYTES = 300 * 1024**2


def pytest_collection_finish() -> None:
    """Three frameworks are a million objects that stay: the garbage collector need not look at them again and again."""
    gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs a framework or a device that is not here, saying which."""
    for marker, module in FRAMEWORK_MODULES.items():
        if item.get_closest_marker(marker) and importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed: pip install -e '.[{marker}]' -c constraints.txt")
    if item.get_closest_marker("gpu") and not _has_cuda():
        pytest.skip("no CUDA device here")


def _has_cuda() -> bool:
    if importlib.util.find_spec("torch") is None:
        return False
    import torch

    return bool(torch.cuda.is_available())


@pytest.fixture(scope="session")
def repository() -> Path:
    """The repository's root."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference data beside the repository, for what the committed samples are too small for."""
    if not SHARED.is_dir():
        pytest.skip(WITHOUT_SHARED)
    return SHARED


@pytest.fixture(scope="session")
def data() -> Path:
    """Real texts with labels, RoBERTa's tokenizer: all of ../shared/data, or the sample of it in tests/data."""
    return SHARED / "data" if SHARED.is_dir() else REPOSITORY / "tests" / "data"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many tests the full reference data would have added."""
    skipped = [report for report in terminalreporter.stats.get("skipped", []) if WITHOUT_SHARED in str(report.longrepr)]
    if not SHARED.is_dir():
        tests = "1 test" if len(skipped) == 1 else f"{len(skipped)} tests"
        terminalreporter.write_line(f"{tests} skipped: {WITHOUT_SHARED}; the others ran on tests/golden and tests/data")


@dataclass(frozen=True)
class S3Server:
    """A running object store that speaks S3; its address and credentials are in the environment as AWS_*."""

    endpoint: str

    def make_bucket(self) -> str:
        """A new, empty bucket, as `s3://name`."""
        import s3fs

        url = f"s3://preln-{secrets.token_hex(6)}"
        s3fs.S3FileSystem(skip_instance_cache=True).mkdir(url)
        return url


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """moto's S3 server in a thread of this process, on a free port."""
    server_module = pytest.importorskip("moto.server", reason="moto is not installed: pip install -e '.[test]'")
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", endpoint)
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        # The machine's own profile must not decide what a test does.
        patch.setenv("AWS_CONFIG_FILE", os.devnull)
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
        try:
            yield S3Server(endpoint=endpoint)
        finally:
            server.stop()


@pytest.fixture
def s3_bucket(s3_server: S3Server) -> str:
    """A new, empty bucket for one test, as `s3://name`."""
    return s3_server.make_bucket()


@pytest.fixture(scope="session")
def ray_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A private home for Ray, also for the commands a test starts; yields it."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        patch.delenv("RAY_ADDRESS", raising=False)
        # Ray's own 15 would starve its workers for minutes beside what else computes here, such as the other half of the tests.
        patch.setenv("RAY_worker_niceness", "0")
        yield home


@pytest.fixture(scope="session")
def local_ray(ray_environment: Path, s3_server: S3Server) -> Iterator[None]:
    """A local Ray of two CPUs, its dashboard off.

    Asks for the object store too: workers inherit the environment of the moment in which Ray starts.
    """
    ray = pytest.importorskip("ray")
    with pytest.MonkeyPatch.context() as patch:
        # Workers import our packages from the repository wherever pytest was started.
        python_path = os.pathsep.join([str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])])
        patch.setenv("PYTHONPATH", python_path)
        ray.shutdown()  # of what a command in this process may have left connected
        ray.init(
            address="local",  # never a cluster that another test, or a person, has started on this machine
            num_cpus=RAY_CPUS,
            include_dashboard=False,
            object_store_memory=RAY_OBJECT_STORE_BYTES,
            log_to_driver=False,
        )
    try:
        yield
    finally:
        ray.shutdown()


@pytest.fixture(scope="session")
def ray_address(local_ray: None) -> str:
    """The local Ray's address, as RAY_ADDRESS of commands that need no Ray of their own: a start takes 15 s of CPU."""
    import ray

    return str(ray.get_runtime_context().gcs_address)
