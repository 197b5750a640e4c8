"""A wait for room is reported, ends, and ends at once if it can't succeed."""

from collections.abc import Callable

import pytest

from pipeline.cluster.capacity_wait import FIRST_REPORT, NEXT_REPORT, CapacityWait
from pipeline.cluster.nodes import Demand, NodeKind, Nodes, Request
from pipeline.cluster.pool_watch import GRACE, GRACE_OF_THE_FIRST, PoolState, ReplicasLostError, StarvedError, Watched
from pipeline.errors import ResourceError, SpecError

NODES = Nodes(
    up=[NodeKind("head", {"CPU": 2.0}, {}, 1)], to_come=[NodeKind("gpu", {"CPU": 8.0, "GPU": 1.0}, {}, 4)], grows=True
)
DEMAND = Demand(cpus=1.0, gpus=1.0)


class Clock:
    """Time that a test moves forward."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def capacity_wait(
    clock: Clock, said: list[str], refused: Callable[[], list[Request] | None] = list, *, demand: Demand = DEMAND
) -> CapacityWait:
    return CapacityWait(demand=demand, seconds=900, say=said.append, look=lambda: NODES, refused=refused, clock=clock)


def test_a_wait_is_spoken_of_now_and_then_with_what_is_waited_for() -> None:
    clock, said = Clock(), list[str]()
    waiting = capacity_wait(clock, said)
    for _ in range(100):
        waiting.wait()
        clock.now += 1
    assert len(said) == 1 + int((100 - FIRST_REPORT) // NEXT_REPORT)
    assert said[0] == (
        "waiting for a node with room for a replica (1 GPU and 1 CPU); the cluster has 1 x head (2 CPUs) up; up to 4 x gpu "
        "(8 CPUs, 1 GPU) may be started; 895 s of resources.wait left"
    )


def test_a_wait_ends_with_its_reason_and_a_place_in_between_begins_it_anew() -> None:
    clock = Clock()
    waiting = capacity_wait(clock, [])
    waiting.wait()
    clock.now += 800
    waiting.wait()
    waiting.end()
    clock.now += 800
    waiting.wait()
    clock.now += 900
    with pytest.raises(
        ResourceError, match=r"no node had room for a replica \(1 GPU and 1 CPU\) within resources.wait"
    ):
        waiting.wait()


def test_a_wait_in_which_room_is_unknown_says_so_and_ends_too() -> None:
    clock, said = Clock(), list[str]()
    watched = Watched(capacity_wait(clock, said, refused=lambda: None), clock=clock)
    unknown = PoolState(alive=0, starting=None, active=0, lost=0, queued=1, ended=False)
    watched.look(unknown)
    clock.now += FIRST_REPORT
    watched.look(unknown)
    assert said[0].startswith("waiting for a replica to be ready (1 GPU and 1 CPU); the cluster has")
    clock.now += 900
    with pytest.raises(ResourceError, match=r"whether a node had room for one is unknown, within resources.wait"):
        watched.look(unknown)


H100 = Demand(cpus=1.0, gpus=1.0, accelerator="H100")
SPOT = Demand(cpus=1.0, gpus=1.0, labels={"market": "spot"})


@pytest.mark.parametrize("demand", [DEMAND, H100, SPOT, Demand(cpus=0.1, gpus=0.5, labels={"market": "!in(a, b)"})])
def test_what_the_autoscaler_says_can_never_come_is_not_waited_for(demand: Demand) -> None:
    clock = Clock()
    waiting = capacity_wait(clock, [], refused=lambda: [demand.request], demand=demand)
    waiting.wait()
    clock.now += FIRST_REPORT
    with pytest.raises(SpecError, match="no node type for a replica"):
        waiting.wait()


@pytest.mark.parametrize(
    ("own", "of_another_job"),
    [
        (DEMAND, Demand(cpus=1.0, gpus=8.0)),
        (DEMAND, H100),
        (DEMAND, SPOT),
        (H100, DEMAND),
        (SPOT, Demand(cpus=1.0, gpus=1.0, labels={"market": "!spot"})),
        (SPOT, Demand(cpus=1.0, gpus=1.0, labels={"market": "spot", "zone": "a"})),
    ],
)
def test_what_another_job_asks_for_in_vain_ends_no_wait(own: Demand, of_another_job: Demand) -> None:
    clock = Clock()
    waiting = capacity_wait(clock, [], refused=lambda: [of_another_job.request], demand=own)
    waiting.wait()
    clock.now += FIRST_REPORT
    waiting.wait()
    further = Request.of(resources={"CPU": 1.0, "GPU": 1.0, "memory": 1e12})
    assert further != DEMAND.request, "memory that another asks for besides is another request"


def state(*, alive: int, starting: int = 0, active: int = 0, lost: int = 0, queued: int = 0, **more: bool) -> PoolState:
    how = {"ended": False, **more}
    return PoolState(alive=alive, starting=starting, active=active, lost=lost, queued=queued, **how)


def test_a_run_whose_last_shards_wait_for_lost_replicas_is_begun_anew() -> None:
    clock = Clock()
    watched = Watched(capacity_wait(clock, []), clock=clock)
    stuck = state(alive=2, lost=1, active=1)
    watched.look(stuck)
    clock.now += GRACE
    with pytest.raises(ReplicasLostError):
        watched.look(stuck)


@pytest.mark.parametrize(
    "other",
    [
        state(alive=3),
        state(alive=2, lost=1, active=2),
        state(alive=2, lost=1, active=1, queued=1),
        state(alive=0, ended=True),
    ],
)
def test_replicas_that_have_work_or_come_back_are_left_alone(other: PoolState) -> None:
    clock = Clock()
    watched = Watched(capacity_wait(clock, []), clock=clock)
    stuck = state(alive=2, lost=1, active=1)
    for seen in (stuck, other, stuck, other):
        watched.look(seen)
        clock.now += GRACE


def test_a_model_that_loads_slowly_is_no_reason_to_give_up() -> None:
    clock, said = Clock(), list[str]()
    watched = Watched(capacity_wait(clock, said), clock=clock)
    for _ in range(50):
        watched.look(state(alive=0, starting=1))
        clock.now += 100
    assert not said


@pytest.mark.parametrize(("first", "seconds"), [(False, GRACE), (True, GRACE_OF_THE_FIRST)])
def test_of_runs_that_starve_each_other_the_younger_gives_way_first(first: bool, seconds: float) -> None:
    clock = Clock()
    watched = Watched(capacity_wait(clock, []), clock=clock)
    starved = state(alive=2, starved=True, first=first)
    for seen in (starved, state(alive=2, active=1), starved):
        watched.look(seen)
        clock.now += seconds - 1
    watched.look(starved)
    clock.now += 1
    with pytest.raises(StarvedError):
        watched.look(starved)
