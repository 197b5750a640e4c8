"""Specs and the resources of a cluster in; proof that replicas are placed where they fit, and that others are refused, out."""

from functools import cached_property

import pytest

from pipeline import cluster as cluster_module
from pipeline.cluster import READ_CPUS, Cluster, best_dtype
from pipeline.errors import ResourceError
from tests.pipeline.small import spec


class Pretended(Cluster):
    """A cluster of one node, told rather than asked."""

    def __init__(self, *, cpus: float, gpus: float = 0.0) -> None:
        super().__init__(lambda: None)
        self._told = {"CPU": cpus, "GPU": gpus}

    @cached_property
    def resources(self) -> dict[str, float]:
        """As told."""
        return self._told

    @cached_property
    def node_cpus(self) -> float:
        """All on one node."""
        return self._told["CPU"]


@pytest.mark.parametrize(("cpus", "replicas"), [(1, 1), (2, 1), (2, 2), (4, 2), (4, 4), (16, 4), (64, 1)])
def test_replicas_on_cpus_leave_room_to_read_and_all_fit(cpus: float, replicas: int) -> None:
    placement = Pretended(cpus=cpus).placement(spec(resources={"replicas": replicas}))
    assert (placement.smallest, placement.largest, placement.gpus) == (replicas, replicas, 0)
    assert placement.cpus * replicas + READ_CPUS <= cpus
    assert placement.threads >= 1


def test_a_single_replica_uses_all_threads_of_its_node() -> None:
    assert Pretended(cpus=8).placement(spec(resources={"replicas": 1})).threads == 8
    assert Pretended(cpus=8).placement(spec(resources={"replicas": 4})).threads == 2
    assert Pretended(cpus=8).placement(spec(resources={"replicas": 1, "cpus": 3})).threads == 3


def test_a_replica_takes_a_gpu_where_there_are_some_and_what_is_asked_for_elsewhere() -> None:
    with_gpus = Pretended(cpus=8, gpus=2)
    assert with_gpus.gpus_each(spec(resources={})) == 1
    assert with_gpus.gpus_each(spec(resources={"gpus": 0})) == 0
    assert with_gpus.gpus_each(spec(resources={"gpus": 0.5})) == 0.5
    assert Pretended(cpus=8).gpus_each(spec(resources={})) == 0
    placement = with_gpus.placement(spec(resources={"replicas": {"min": 1, "max": 4}, "gpus": 0.5}))
    assert (placement.smallest, placement.largest, placement.gpus, placement.cpus) == (1, 4, 0.5, 1.0)


@pytest.mark.parametrize(
    ("resources", "said"),
    [
        ({"gpus": 1}, "1 replicas with 1 GPUs each need 1, and Ray has 0; set resources.gpus or resources.replicas"),
        ({"gpus": 0, "cpus": 4}, "1 replicas with 4 CPUs each, and 0.5 to read with, need 4.5 CPUs, and Ray has 4"),
        ({"gpus": 0, "cpus": 1, "replicas": 4}, "need 4.5 CPUs, and Ray has 4"),
    ],
)
def test_a_demand_that_can_never_be_met_is_refused_with_what_there_is(resources: dict[str, object], said: str) -> None:
    with pytest.raises(ResourceError) as caught:
        Pretended(cpus=4).placement(spec(resources=resources))
    assert said in str(caught.value)


def test_a_dtype_that_is_named_is_taken_without_asking_anybody() -> None:
    model = {"checkpoint": "m", "dtype": "float16"}
    assert Pretended(cpus=1).resolve_dtype(spec(model=model)) == "float16"


@pytest.mark.parametrize(
    ("flags", "dtype"),
    [({"avx512_bf16", "sse"}, "bfloat16"), ({"amx_bf16"}, "bfloat16"), ({"avx512f"}, "float32"), (set(), "float32")],
)
def test_bfloat16_is_best_where_a_cpu_has_instructions_for_it(
    monkeypatch: pytest.MonkeyPatch, flags: set[str], dtype: str
) -> None:
    monkeypatch.setattr(cluster_module, "_cpu_flags", lambda: flags)
    assert best_dtype("torch", False) == dtype
    assert best_dtype("flax", False) == "float32"


def test_a_gpu_that_can_not_be_asked_computes_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert best_dtype("torch", True) == "float32"
