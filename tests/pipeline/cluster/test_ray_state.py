"""Ray's private state is read from the Ray that is installed; from another one it is unknown, and one line says so."""

import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray.data import DataContext

from pipeline.cluster import ray_state
from pipeline.cluster.contention import first_of_all, nothing_left_to_read_with, room_now
from pipeline.cluster.pool_watch import look_at_pools
from pipeline.cluster.ray_state import NEWEST, OLDEST
from pipeline.flow import data_context

pytestmark = pytest.mark.ray


@pytest.fixture
def reported(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What ray_state reports during a test, as if nothing had been reported before."""
    monkeypatch.setattr(ray_state, "_reported", set())
    messages = list[str]()
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("preln").addHandler(handler)
    yield messages
    logging.getLogger("preln").removeHandler(handler)


def test_the_pinned_ray_is_the_newest_one_tested_and_the_oldest_allowed_the_oldest(repository: Path) -> None:
    pins = (repository / "constraints.txt").read_text(encoding="utf-8").splitlines()
    (pin,) = [line for line in pins if line.startswith("ray==")]
    assert pin.startswith("ray=={}.{}.".format(*NEWEST))
    assert "ray[data,default]>={}.{},".format(*OLDEST) in (repository / "pyproject.toml").read_text(encoding="utf-8")


class Held:
    """An actor that holds a CPU."""

    def ready(self) -> bool:
        return True


def test_nothing_is_unknown_with_the_installed_ray(local_ray: None, reported: list[str], tmp_path: Path) -> None:
    holder: Any = ray.remote(num_cpus=1)(Held).remote()
    assert ray.get(holder.ready.remote())
    nodes = ray_state.nodes_of_ray(home=tmp_path)
    assert nodes.grows is False
    assert nodes.total("CPU") == ray.cluster_resources()["CPU"]
    assert ray_state.infeasible_requests() == []
    (actor,) = [actor for actor in ray_state.alive_actors() or () if actor.class_name.endswith("Held")]
    assert (actor.job, actor.cpus) == (ray_state.this_job(), 1.0)
    (free,) = ray_state.free_nodes() or []
    assert free["Resources"]["CPU"] == nodes.total("CPU") - 1
    assert ray_state.placed_replicas() == 0
    assert ray_state.task_attempts() is None
    assert reported == []
    ray.kill(holder)


def test_a_task_knows_how_often_its_process_has_ended(local_ray: None, tmp_path: Path) -> None:
    counting: Any = ray.remote(num_cpus=1)(attempts_after_a_death)
    assert ray.get(counting.remote(tmp_path / "deaths")) == 1


def attempts_after_a_death(deaths: Path) -> int | None:
    with deaths.open("a+b") as file:
        file.write(b".")
        started = file.tell()
    if started == 1:
        os._exit(3)
    return ray_state.task_attempts()


def test_ray_data_calls_at_each_step_with_an_executor_whose_pools_are_known(
    local_ray: None, reported: list[str]
) -> None:
    seen = list[ray_state.ActorPool]()

    def step(executor: Any) -> None:
        seen.extend(ray_state.actor_pools(executor) or ())

    with DataContext.current(data_context(watch=step)):
        rows = ray.data.range(4, override_num_blocks=4).map_batches(Doubled, compute=ray.data.ActorPoolStrategy(size=1))
        assert sorted(row["id"] for row in rows.iter_rows()) == [0, 2, 4, 6]
    assert max(pool.running for pool in seen) == 1
    assert max(pool.active for pool in seen) == 1
    assert not seen[0].ended
    assert reported == []


class Doubled:
    """A stage with actors."""

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {"id": batch["id"] * 2}


def test_another_version_of_ray_is_reported_once_and_still_read(
    local_ray: None, reported: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(ray, "__version__", "2.99.1")
    for _ in range(3):
        assert ray_state.nodes_of_ray(home=tmp_path).grows is False
    assert reported == ["preln is tested with Ray 2.55 to 2.60; this is Ray 2.99.1, of which it may know less"]


@pytest.mark.parametrize("version", ["2.55.0", "2.60.0", "2.60.3"])
def test_a_tested_version_is_not_reported(reported: list[str], monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setattr(ray, "__version__", version)
    ray_state.check_version()
    assert reported == []


def test_what_a_ray_without_these_modules_does_not_tell_is_unknown_and_reported_once_each(
    local_ray: None, reported: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    public = {name: getattr(ray, name) for name in ("nodes", "get_runtime_context", "__version__")}
    monkeypatch.setattr(ray_state, "ray", SimpleNamespace(**public, _private=SimpleNamespace()))
    for _ in range(2):
        nodes = ray_state.nodes_of_ray(home=tmp_path)
        assert nodes.grows is None
        assert nodes.has_unknown_types
        assert nodes.total("CPU") > 0, "what Ray's public functions tell is known"
        assert ray_state.infeasible_requests() is None
        assert ray_state.alive_actors() is None
        assert ray_state.free_nodes() is None
        assert ray_state.placed_replicas() is None
        assert room_now() is None
        assert not nothing_left_to_read_with()
        assert not first_of_all("MapWorker(")
        ray_state.silence_worker_output()
    assert len(reported) == 7
    assert reported[0].startswith(
        f"unknown with Ray {ray.__version__}: which node types the autoscaler may start (AttributeError: "
    )
    assert all(line.endswith("; tested with 2.55 to 2.60") for line in reported if line.startswith("unknown"))
    assert reported[-1] == f"Ray {ray.__version__} may print tracebacks of its workers between preln's messages"


def test_a_run_of_a_ray_data_without_these_attributes_is_not_watched_and_says_so(reported: list[str]) -> None:
    assert ray_state.actor_pools(SimpleNamespace()) is None
    look_at_pools("a run that has ended", SimpleNamespace())
    ray_state.call_at_each_step(SimpleNamespace(), print)
    assert [line.partition(" (")[0] for line in reported] == [
        f"unknown with Ray {ray.__version__}: how the replicas of this run are",
        f"unknown with Ray {ray.__version__}: whether replicas of this run are lost or find no node",
    ]


def test_a_ray_data_that_has_moved_its_callbacks_runs_without(
    reported: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray.data._internal.execution.execution_callback", None)
    context = SimpleNamespace(custom_execution_callback_classes=[])
    ray_state.call_at_each_step(context, print)
    assert context.custom_execution_callback_classes == []
    assert len(reported) == 1
