"""The node types found from Ray and cluster files are those that exist or may be added."""

from pathlib import Path

import pytest
import yaml
from ray.core.generated import autoscaler_pb2, common_pb2

from pipeline.cluster import ray_state
from pipeline.cluster.nodes import Demand, NodeKind, kinds_of_config, label_fits
from pipeline.cluster.ray_state import autoscaler_at_work, infeasible_of, kinds_up


def test_nodes_that_are_alike_are_one_kind_and_dead_ones_are_none() -> None:
    nodes = [
        {
            "Alive": alive,
            "Resources": {"CPU": 4.0, "node:10.0.0.1": 1.0, **gpu},
            "Labels": {"ray.io/node-id": str(index)},
        }
        for index, (alive, gpu) in enumerate([(True, {"GPU": 1.0}), (True, {"GPU": 1.0}), (True, {}), (False, {})])
    ]
    assert [(kind.gpus, kind.count) for kind in kinds_up(nodes)] == [(1.0, 2), (0.0, 1)]


def test_a_cluster_file_tells_which_nodes_may_come_and_how_many(repository: Path) -> None:
    config = yaml.safe_load((repository / "cluster.yaml").read_text(encoding="utf-8"))
    kinds = kinds_of_config(config)
    assert "gpu" in {kind.name for kind in kinds}
    assert "head" not in {kind.name for kind in kinds}
    assert all(0 < kind.count <= config["max_workers"] for kind in kinds)


@pytest.mark.parametrize(
    ("cpus", "gpus", "demand", "places"),
    [
        (8, 2, Demand(cpus=1, gpus=1), 2),
        (8, 2, Demand(cpus=1, gpus=0.5), 4),
        (8, 2, Demand(cpus=1, gpus=0.4), 4),  # two a GPU: a fraction never spans two
        (2, 2, Demand(cpus=1, gpus=0.25), 2),
        (8, 3, Demand(cpus=1, gpus=2), 1),
        (8, 0, Demand(cpus=1, gpus=1), 0),
        (2, 0, Demand(cpus=0.66, gpus=0), 3),
    ],
)
def test_a_node_has_as_many_places_as_ray_would_find(cpus: float, gpus: float, demand: Demand, places: int) -> None:
    assert NodeKind("node", {"CPU": cpus, "GPU": gpus}, {}, 1).places(demand) == places


@pytest.mark.parametrize(
    ("value", "wanted", "fits"),
    [
        ("spot", "spot", True),
        ("spot", "!spot", False),
        (None, "spot", False),
        (None, "!spot", True),
        ("a", "in(a,b)", True),
        ("c", "!in(a, b)", True),
        ("b", "!in(a, b)", False),
    ],
)
def test_labels_fit_as_in_rays_selectors(value: str | None, wanted: str, fits: bool) -> None:
    assert label_fits(value, wanted) is fits


class NothingReported:
    """A head on which no autoscaler has written anything."""

    def internal_kv_get(self, key: bytes, namespace: bytes | None) -> bytes | None:
        """No value under any key."""
        return None


@pytest.mark.parametrize("second_version", [True, False])
def test_the_head_knows_of_an_autoscaler_that_has_not_reported_yet(
    monkeypatch: pytest.MonkeyPatch, second_version: bool
) -> None:
    reply_class = autoscaler_pb2.GetClusterStatusReply  # type: ignore[attr-defined]  # made at run time
    monkeypatch.setattr(ray_state, "_gcs_client", NothingReported)
    monkeypatch.setattr(ray_state, "_cluster_status", reply_class)
    monkeypatch.setattr("ray.autoscaler.v2.utils.is_autoscaler_v2", lambda **_: second_version)
    assert autoscaler_at_work() is second_version


def test_a_request_that_the_autoscaler_can_never_meet_equals_the_demand_of_the_replica() -> None:
    reply_class = autoscaler_pb2.GetClusterStatusReply  # type: ignore[attr-defined]  # made at run time
    reply = reply_class()
    request = reply.autoscaling_state.infeasible_resource_requests.add()
    for name, amount in {
        "GPU": 4.0,
        "CPU": 0.87,
        "accelerator_type:H100": 0.001,
    }.items():  # as Ray 2.60 writes an actor's request
        request.resources_bundle[name] = amount
    selector = request.label_selectors.add()
    for key, operator, values in (("market", "NOT_IN", ["spot"]), ("zone", "IN", ["b", "a"])):
        part = selector.label_constraints.add()
        part.label_key, part.operator = key, getattr(common_pb2, f"LABEL_OPERATOR_{operator}")
        part.label_values.extend(values)
    demand = Demand(cpus=0.87, gpus=4, accelerator="H100", labels={"market": "!spot", "zone": "in(a, b)"})
    assert infeasible_of(reply_class.FromString(reply.SerializeToString())) == [demand.request]
