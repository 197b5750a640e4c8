"""Replicas are placed where they fit; demands that fit nowhere are refused."""

import pytest

from pipeline.cluster import placement as cluster_module
from pipeline.cluster.device_probe import gpu_dtype
from pipeline.cluster.nodes import NodeKind, Nodes
from pipeline.cluster.placement import READ_CPUS, best_dtype
from pipeline.errors import ResourceError, SpecError
from tests.pipeline.small import FixedCluster, spec


def kind(cpus: float, gpus: float = 0.0, count: int = 1, name: str = "node", **more: float | str) -> NodeKind:
    """Nodes with so much of each; words in `more` are labels, numbers further resources."""
    resources = {"CPU": cpus, **({"GPU": gpus} if gpus else {})}
    resources |= {key.replace("accelerator_", "accelerator_type:"): float(v) for key, v in more.items() if _number(v)}
    return NodeKind(name, resources, {key: str(value) for key, value in more.items() if not _number(value)}, count)


def _number(value: float | str) -> bool:
    return not isinstance(value, str)


def one_node(cpus: float, gpus: float = 0.0) -> FixedCluster:
    return FixedCluster(Nodes(up=[kind(cpus, gpus)]))


def cloud(*to_come: NodeKind, head: float = 0.0) -> FixedCluster:
    """A head node, and an autoscaler that may start others."""
    return FixedCluster(Nodes(up=[kind(head, name="head")], to_come=to_come, grows=True))


@pytest.mark.parametrize(("cpus", "replicas"), [(1, 1), (2, 1), (2, 2), (4, 2), (4, 4), (16, 4), (64, 1)])
def test_replicas_on_cpus_leave_room_to_read_and_all_fit(cpus: float, replicas: int) -> None:
    placement = one_node(cpus).placement(spec(resources={"replicas": replicas}))
    assert (placement.smallest, placement.largest, placement.gpus) == (replicas, replicas, 0)
    assert placement.cpus * replicas + READ_CPUS <= cpus
    assert placement.threads >= 1


def test_a_single_replica_uses_all_threads_of_its_node() -> None:
    assert one_node(8).placement(spec(resources={"replicas": 1})).threads == 8
    assert one_node(8).placement(spec(resources={"replicas": 4})).threads == 2
    assert one_node(8).placement(spec(resources={"replicas": 1, "cpus": 3})).threads == 3


def test_replicas_without_gpus_are_sized_by_the_cores_of_their_nodes() -> None:
    def default(*nodes: NodeKind) -> tuple[int, int, float, int]:
        placement = FixedCluster(Nodes(up=nodes)).placement(spec(resources={"gpus": 0}))
        return placement.smallest, placement.largest, placement.cpus, placement.threads

    assert default(kind(2)) == (1, 1, 1.0, 2)
    assert default(kind(8, count=3)) == (1, 3, 7.0, 8)
    assert default(kind(64)) == (1, 8, 7.87, 8)
    # A head without CPUs for work counts for nothing, and replicas of the small node's size fit on the large one too.
    assert default(kind(0), kind(4), kind(16)) == (1, 6, 3.0, 4)


def test_a_replica_takes_a_gpu_where_there_are_some_and_what_is_asked_for_elsewhere() -> None:
    with_gpus = one_node(8, 2)
    assert with_gpus.gpus_each(spec(resources={})) == 1
    assert with_gpus.gpus_each(spec(resources={"gpus": 0})) == 0
    assert with_gpus.gpus_each(spec(resources={"gpus": 0.5})) == 0.5
    assert one_node(8).gpus_each(spec(resources={})) == 0
    placement = with_gpus.placement(spec(resources={"replicas": {"min": 1, "max": 4}, "gpus": 0.5}))
    assert (placement.smallest, placement.largest, placement.gpus, placement.cpus) == (1, 4, 0.5, 1.0)


def test_there_is_one_replica_a_gpu_where_the_job_says_nothing() -> None:
    nodes = Nodes(up=[kind(2, name="head"), kind(8, 2), kind(16, 1), kind(4)])
    placement = FixedCluster(nodes).placement(spec(resources={}))
    assert (placement.smallest, placement.largest, placement.initial, placement.gpus) == (1, 3, 3, 1.0)
    halves = FixedCluster(nodes).placement(spec(resources={"gpus": 0.5}))
    assert (halves.largest, halves.gpus) == (6, 0.5)


def test_the_gpus_of_a_node_never_take_the_cpus_that_reading_needs() -> None:
    placement = one_node(4, 4).placement(spec(resources={}))
    assert placement.largest == 4
    assert placement.cpus * 4 + READ_CPUS <= 4


def test_the_pool_may_grow_to_all_that_an_autoscaler_may_start() -> None:
    cluster = cloud(kind(8, 1, count=5, name="gpu"), kind(16, count=9, name="cpu"))
    placement = cluster.placement(spec(resources={}))
    assert (placement.smallest, placement.largest, placement.initial, placement.gpus) == (1, 5, 1, 1.0)
    wanted = cluster.placement(spec(resources={"replicas": {"min": 2, "max": 50}}))
    assert (wanted.smallest, wanted.largest) == (2, 5)
    on_cpus = cluster.placement(spec(resources={"gpus": 0}))
    assert on_cpus.largest >= 9


def test_an_accelerator_and_labels_choose_the_node() -> None:
    a10g = kind(8, 1, 2, "a10g", accelerator_A10G=1, market="spot")
    h100 = kind(16, 8, 1, "h100", accelerator_H100=1, market="on-demand")
    both = FixedCluster(Nodes(up=[a10g, h100]))
    assert both.placement(spec(resources={})).largest == 10
    asked = both.placement(spec(resources={"accelerator": "H100"}))
    assert asked.largest == 8
    assert asked.options["accelerator_type"] == "H100"
    assert both.placement(spec(resources={"labels": {"market": "spot"}})).largest == 2
    assert both.placement(spec(resources={"labels": {"market": "!spot"}})).largest == 8
    assert both.placement(spec(resources={"labels": {"market": "in(spot, on-demand)"}})).largest == 10
    with pytest.raises(
        SpecError, match=r"an accelerator L4 can never be placed: there is room for 0\. The cluster has 2 x"
    ):
        both.placement(spec(resources={"accelerator": "L4"}))


@pytest.mark.parametrize(
    ("resources", "said"),
    [
        (
            {"gpus": 1},
            "1 replica with 1 GPU and 1 CPU can never be placed: there is room for 0. The cluster has 1 x node",
        ),
        (
            {"gpus": 0, "cpus": 4},
            "1 replica with 4 CPUs each, plus 0.5 for reading, need 4.5 CPUs, but the cluster has 4",
        ),
        ({"gpus": 0, "cpus": 8}, "1 replica with 8 CPUs can never be placed"),
        ({"gpus": 0, "cpus": 1, "replicas": 5}, "5 replicas with 1 CPU each can never be placed: there is room for 4"),
        ({"gpus": 0, "cpus": 1, "replicas": 4}, "need 4.5 CPUs, but the cluster has 4"),
    ],
)
def test_a_demand_that_can_never_be_met_is_refused_with_what_there_is(resources: dict[str, object], said: str) -> None:
    with pytest.raises(SpecError) as caught:
        one_node(4).placement(spec(resources=resources))
    assert said in str(caught.value)


def test_a_demand_that_no_node_type_of_an_autoscaler_can_meet_is_refused_too() -> None:
    cluster = cloud(kind(8, 1, count=5, name="gpu"))
    with pytest.raises(SpecError, match=r"there is room for 5.* up to 5 x gpu \(8 CPUs, 1 GPU\) may be started"):
        cluster.placement(spec(resources={"replicas": 6}))
    with pytest.raises(SpecError, match="1 replica with 1 GPU and 9 CPUs can never be placed"):
        cluster.placement(spec(resources={"gpus": 1, "cpus": 9}))


def test_where_nobody_knows_which_nodes_may_come_nothing_is_refused_before_it_was_tried() -> None:
    unknown = FixedCluster(Nodes(up=[kind(2)], grows=True))
    placement = unknown.placement(spec(resources={"gpus": 1, "replicas": {"min": 1, "max": 7}}))
    assert (placement.smallest, placement.largest, placement.gpus) == (1, 7, 1)
    assert unknown.placement(spec(resources={"accelerator": "A100"})).gpus == 1


def test_where_nobody_knows_which_nodes_may_come_the_job_must_say_whether_replicas_have_gpus() -> None:
    unknown = FixedCluster(Nodes(up=[kind(0, name="head")], grows=True))
    for question in (unknown.gpus_each, unknown.placement):
        with pytest.raises(
            SpecError, match=r"resources\.gpus is not set.*Write `gpus: 1` under resources.*or `gpus: 0`"
        ):
            question(spec(resources={}))
    for gpus in (0, 0.5, 1):
        assert unknown.placement(spec(resources={"gpus": gpus})).gpus == gpus
    # As soon as one is up, the cluster has shown what it is.
    assert FixedCluster(Nodes(up=[kind(0), kind(7, 1)], grows=True)).placement(spec(resources={})).gpus == 1


def test_a_ray_that_does_not_say_whether_it_may_grow_is_not_taken_for_one_that_does_not() -> None:
    unknown = FixedCluster(Nodes(up=[kind(2)], grows=None))
    assert str(unknown.nodes).endswith("; whether more may be started is unknown")
    with pytest.raises(SpecError, match=r"preln can't tell which nodes this version of Ray may add.*`gpus: 0` for"):
        unknown.placement(spec(resources={}))
    assert unknown.placement(spec(resources={"gpus": 0, "replicas": {"min": 1, "max": 7}})).largest == 7


def test_a_dtype_that_is_named_is_taken_without_asking_anybody() -> None:
    model = {"checkpoint": "m", "dtype": "float16"}
    assert one_node(1).resolve_dtype(spec(model=model)) == "float16"


@pytest.mark.parametrize(
    ("flags", "dtype"),
    [({"avx512_bf16", "sse"}, "bfloat16"), ({"amx_bf16"}, "bfloat16"), ({"avx512f"}, "float32"), (set(), "float32")],
)
def test_bfloat16_is_best_where_a_cpu_has_instructions_for_it(
    monkeypatch: pytest.MonkeyPatch, flags: set[str], dtype: str
) -> None:
    monkeypatch.setattr(cluster_module, "_cpu_flags", lambda: flags)
    assert best_dtype("torch", False) == (dtype, None)
    assert best_dtype("flax", False) == ("float32", None)


@pytest.mark.torch
def test_a_gpu_that_the_framework_can_not_use_is_an_error_with_its_reason() -> None:
    if torch_sees_a_gpu():
        pytest.skip("there is a GPU here")
    with pytest.raises(ResourceError, match=r"PyTorch .* can't use a GPU: "):
        best_dtype("torch", True)


def torch_sees_a_gpu() -> bool:
    import torch

    return bool(torch.cuda.is_available())


@pytest.mark.parametrize(
    ("name", "capability", "dtype", "said"),
    [
        ("NVIDIA H100", "9.0", "bfloat16", None),
        ("NVIDIA A10G", "8.6", "bfloat16", None),
        ("Tesla T4", "7.5", "float32", "float16 is about 8 times as fast"),
        ("Tesla P100", "6.0", "float32", None),
    ],
)
def test_auto_is_what_a_gpu_multiplies_natively_and_says_what_is_faster(
    name: str, capability: str, dtype: str, said: str | None
) -> None:
    found, remark = gpu_dtype({"device": "cuda", "name": name, "capability": capability})
    assert found == dtype
    assert (remark is None) == (said is None)
    assert said is None or (remark and said in remark and name in remark)


def test_more_gpus_than_a_replica_uses_are_refused() -> None:
    with pytest.raises(SpecError, match="2 for a replica, which computes on one"):
        one_node(8, 4).placement(spec(resources={"gpus": 2}))
