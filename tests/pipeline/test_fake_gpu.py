"""A Ray that says it has a GPU, on a machine that has none: no job is computed on the CPU instead, without a word."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]

REASONS = {"torch": "can't use a GPU", "tensorflow": "can't use it", "flax": "can't use it"}


def run_jobs(folder: Path, repository: Path, *wanted: str) -> dict[str, Any]:
    """How each job ended, by its name."""
    if Path("/dev/nvidia0").exists():
        pytest.skip("there is a GPU here")
    frameworks = [name for name in wanted if importlib.util.find_spec({"flax": "jax"}.get(name, name))]
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    command = [sys.executable, "-m", "tests.pipeline.fake_gpu_run", str(folder), *frameworks]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=repository, check=False)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert done.returncode == 0, done.stderr[-2_000:]
    return {line["name"]: line for line in lines}


@pytest.fixture(scope="module")
def ended(repository: Path, tmp_path_factory: pytest.TempPathFactory, ray_environment: Path) -> dict[str, Any]:
    return run_jobs(tmp_path_factory.mktemp("fake-gpu"), repository, "torch", "flax")


def ends_with_the_framework_s_reason_before_any_row(framework: str, ended: dict[str, Any]) -> None:
    if f"{framework}-float32" not in ended:
        pytest.skip(f"{framework} is not installed")
    report = ended[f"{framework}-float32"]
    assert report["kind"] in ("RunFailed", "ResourceError"), report
    assert REASONS[framework] in report["words"]
    assert report["code"] == 1
    assert report["objects"] == 0


@pytest.mark.parametrize("framework", ["torch", "flax"])
def test_a_job_that_was_promised_a_gpu_ends_with_the_framework_s_reason_before_any_row(
    ended: dict[str, Any], framework: str
) -> None:
    ends_with_the_framework_s_reason_before_any_row(framework, ended)


# In every run of the tests, tests/models/test_devices.py shows that TensorFlow refuses with this reason.
@pytest.mark.slow
def test_a_job_of_tensorflow_that_was_promised_a_gpu_ends_with_its_reason_before_any_row(
    repository: Path, tmp_path: Path, ray_environment: Path
) -> None:
    ends_with_the_framework_s_reason_before_any_row("tensorflow", run_jobs(tmp_path, repository, "tensorflow"))


def test_auto_asks_the_framework_itself_before_the_folder_is_begun(ended: dict[str, Any]) -> None:
    if "torch-auto" not in ended:
        pytest.skip("torch is not installed")
    report = ended["torch-auto"]
    assert report["kind"] == "ResourceError", report
    assert REASONS["torch"] in report["words"]


def test_the_run_s_record_and_status_say_what_the_models_ran_on(ended: dict[str, Any]) -> None:
    for name, device in (("stub-gpu", "cuda"), ("stub-cpu", "cpu")):
        report = ended[name]
        assert report["state"] == "done", report
        assert report["objects"] >= 1
        (runs_on,) = report["runs_on"]
        assert runs_on["device"] == device
        assert runs_on["name"] == "made up"
        assert runs_on["replicas"] == 1
        assert report["status"] == report["runs_on"]


def test_a_replica_without_a_gpu_sees_none_and_one_with_half_a_gpu_keeps_to_its_half(ended: dict[str, Any]) -> None:
    (on_cpu,), (on_gpu,) = ended["stub-cpu"]["runs_on"], ended["stub-gpu"]["runs_on"]
    assert on_cpu["CUDA_VISIBLE_DEVICES"] == ""
    assert on_gpu["CUDA_VISIBLE_DEVICES"] == "0"
    assert on_gpu["PRELN_GPU_SHARE"] == "0.5"
    assert on_gpu["XLA_PYTHON_CLIENT_MEM_FRACTION"] == "0.45"


def test_a_worker_whose_ray_sets_no_visible_gpu_knows_the_one_it_was_given(ended: dict[str, Any]) -> None:
    assert (ended["set"]["assigned"], ended["set"]["visible"]) == (None, "0")
    assert (ended["not-set"]["assigned"], ended["not-set"]["visible"]) == (["0"], None)
