"""Replicas follow Ray's own autoscaler up and down; its nodes are processes in a network namespace.

The fake provider always speaks to port 6379 and would stop at nothing that listens there: so it gets a network namespace of
its own, which takes root; elsewhere these tests are skipped, saying so.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.cluster.ray_state import BOOTSTRAP_FILE
from tests.pipeline.on_nodes import STORE_BYTES, sleepy_job, until, whole

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]

MOST = 3
FAKE: dict[str, Any] = {
    "cluster_name": "fake",
    "max_workers": MOST,
    "idle_timeout_minutes": 0.2,
    "upscaling_speed": 100,
    "provider": {
        "type": "fake_multinode",
        "use_node_id_as_ip": True,  # all nodes have the same address
        # With updaters, a node that has not been heard of yet would be repaired by ssh.
        "disable_node_updaters": True,
        "disable_launch_config_check": True,
    },
    "head_node_type": "ray.head.default",
    "available_node_types": {
        "ray.head.default": {"resources": {"CPU": 1}, "node_config": {}, "max_workers": 0},
        "gpu": {
            "resources": {"CPU": 2, "GPU": 1, "object_store_memory": STORE_BYTES},
            "node_config": {},
            "min_workers": 0,
            "max_workers": MOST,
        },
    },
    **{
        key: [] for key in ("setup_commands", "initialization_commands", "head_setup_commands", "worker_setup_commands")
    },
    **{key: [] for key in ("cluster_synced_files", "rsync_exclude", "rsync_filter")},
    **{key: [] for key in ("head_start_ray_commands", "worker_start_ray_commands")},
    **{key: {} for key in ("auth", "docker", "file_mounts")},
    "file_mounts_sync_continuously": False,
}

# The namespace has a loopback and nothing else; its processes end with the shell that holds it.
HOLD_NAMESPACE = "ip link set lo up && echo ready && exec sleep infinity"


class Namespace:
    """A network of its own, a home of its own, and a Ray head in it that may start nodes."""

    def __init__(self, home: Path, repository: Path) -> None:
        self.home, self.repository = home, repository
        self.pid = 0

    def enter(self, *words: str | Path, **variables: str) -> tuple[list[str], dict[str, str]]:
        """A command as run inside, and its environment."""
        environment = {
            **os.environ,
            "HOME": str(self.home),
            "RAY_ADDRESS": "127.0.0.1:6379",
            "PYTHONPATH": str(self.repository),
            "RAY_FAKE_CLUSTER": "1",
            "AUTOSCALER_UPDATE_INTERVAL_S": "1",
            **variables,
        }
        return ["nsenter", f"--net=/proc/{self.pid}/ns/net", *map(str, words)], environment

    def driver(self, file: Path) -> tuple[list[str], dict[str, str]]:
        """The sleepy driver inside."""
        return self.enter(sys.executable, "-m", "tests.pipeline.sleepy_driver", file)

    def gpus(self) -> float:
        """GPUs of the cluster now."""
        program = (
            "import ray; ray.init(logging_level=50, log_to_driver=False); print(ray.cluster_resources().get('GPU', 0))"
        )
        words, environment = self.enter(sys.executable, "-c", program)
        return float(
            subprocess.run(words, env=environment, capture_output=True, text=True, check=True).stdout.split()[-1]
        )


@pytest.fixture(scope="module")
def autoscaled(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Iterator[Namespace]:
    """A head without GPUs, and an autoscaler that may start three nodes with one each."""
    for tool in ("unshare", "nsenter", "ip"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not here: a network namespace can't be made")
    if subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("a network namespace can't be made here; it takes root")
    home = tmp_path_factory.mktemp("autoscaler")
    config = home / BOOTSTRAP_FILE
    config.write_text(yaml.safe_dump(FAKE))
    namespace = Namespace(home, repository)
    with held_namespace() as pid:
        namespace.pid = pid
        ports = ["--port=6379", "--num-cpus=1", f"--object-store-memory={STORE_BYTES}", "--include-dashboard=false"]
        start = ["ray", "start", "--head", "--block", *ports, f"--autoscaling-config={config}", f"--temp-dir={home}/r"]
        words, environment = namespace.enter(Path(sys.executable).parent / start[0], *start[1:])
        environment.pop("RAY_ADDRESS")
        with subprocess.Popen(
            words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        ) as head:
            try:
                until(lambda: _is_up(namespace), process=None)
                yield namespace
            finally:
                head.send_signal(signal.SIGTERM)
                head.wait(60)
                os.killpg(head.pid, signal.SIGKILL) if _alive(head.pid) else None


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def _is_up(namespace: Namespace) -> bool:
    try:
        return namespace.gpus() == 0
    except subprocess.CalledProcessError:
        return False


@contextmanager
def held_namespace() -> Iterator[int]:
    """The id of a process that holds a network namespace."""
    words = ["unshare", "--net", "sh", "-c", HOLD_NAMESPACE]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "ready\n"
        try:
            yield holder.pid
        finally:
            holder.kill()


def events(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines() if line.startswith('{"event')]


def test_replicas_follow_the_autoscaler_from_nothing_up_and_nodes_leave_again(
    autoscaled: Namespace, repository: Path, tmp_path: Path
) -> None:
    job = sleepy_job(tmp_path, shards=120, nap=0.5, wait=300)
    file = tmp_path / "job.yaml"
    file.write_text(job.to_yaml())
    assert autoscaled.gpus() == 0
    words, environment = autoscaled.driver(file)
    run = subprocess.run(
        words, cwd=repository, env=environment, capture_output=True, text=True, timeout=500, check=False
    )
    reported = events(run.stdout)
    assert reported[-1]["event"] == "ended", run.stdout[-2000:] + run.stderr[-2000:]
    assert reported[-1]["state"] == "done"
    assert whole(tmp_path, 120)
    committed = [event["replica"] for event in reported if event["event"] == "committed"]
    first_of_each = [committed.index(replica) for replica in dict.fromkeys(committed)]
    assert len(first_of_each) > 1, "replicas came with the nodes; the first shards were done before the last was up"
    until(lambda: autoscaled.gpus() == 0)


def test_what_no_node_type_can_ever_hold_is_refused_before_anything_starts(
    autoscaled: Namespace, repository: Path, tmp_path: Path
) -> None:
    for resources, said in (({"gpus": 2}, "2 GPUs"), ({"replicas": 4}, "there is room for 3")):
        folder = tmp_path / said.replace(" ", "-")
        folder.mkdir()
        file = folder / "job.yaml"
        file.write_text(sleepy_job(folder, shards=1, nap=0, **resources).to_yaml())
        words, environment = autoscaled.driver(file)
        run = subprocess.run(
            words, cwd=repository, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert run.returncode == 2, run.stdout
        assert said in events(run.stdout)[-1]["words"]
        assert not (folder / "out").exists()


def test_nodes_that_do_not_come_in_time_end_the_run_with_the_reason(
    autoscaled: Namespace, repository: Path, tmp_path: Path
) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(sleepy_job(tmp_path, shards=1, nap=0).model_copy().to_yaml().replace("wait: 60.0", "wait: 0.5"))
    words, environment = autoscaled.driver(file)
    run = subprocess.run(
        words, cwd=repository, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert run.returncode == 1, run.stdout
    words = events(run.stdout)[-1]["words"]
    assert "within resources.wait (0.5 s)" in words
    assert "up to 3 x gpu (2 CPUs, 1 GPU) may be started" in words
