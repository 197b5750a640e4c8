"""Rows that crash, hang or raise are identified, and all others are answered.

The children are real processes, with a model of NumPy that does what a window's first token says.
"""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from models.boundary import Ask, Device, Head
from pipeline.errors import ResourceError, RowError
from pipeline.inference import supervisor as supervisor_module
from pipeline.inference.batching import TokenBudget
from pipeline.inference.child import LoadOrder
from pipeline.inference.child_process import DEATHS_ALONE, SIGKILLS_ALONE
from pipeline.inference.passes import Question
from pipeline.inference.supervisor import Supervisor
from tests.pipeline import device_model, hostile
from tests.pipeline.hostile import EXIT, FULL, HANG, KILLED_ALWAYS, KILLED_ONCE, MEMORY, POISONED, RAISE, SEGFAULT
from tests.pipeline.small import tokens_of

HEAD: Head = "sequence-classification"
STALL = 5.0
"""Seconds before a child counts as hung; far more than a start takes."""
SHORT_STALL = 1.5

GOOD = [[5, 6, 7], [8, 9], [10], [11, 12, 13, 14], [15, 16], [17]]


def order(folder: Path) -> LoadOrder:
    return LoadOrder(loader=hostile.LOADER, checkpoint=str(folder), framework="torch", heads=(HEAD,), dtype="float32")


@pytest.fixture(params=[1, 2], ids=["one-in-flight", "two-in-flight"])
def supervisor(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Supervisor]:
    supervisor = Supervisor(order=order(tmp_path), threads=1, stall=STALL, in_flight=request.param)
    yield supervisor
    supervisor.close()


def cut(windows: int, each: int | None) -> list[list[int]]:
    """Window numbers in packs of so many; None: all in one."""
    numbers = list(range(windows))
    return [numbers[first : first + (each or windows)] for first in range(0, windows, each or windows)]


def solved(
    supervisor: Supervisor, windows: Sequence[Sequence[int]], packs: int | None = None
) -> dict[int, RowError | list[float]]:
    """For each window its error, or its answers; each is told exactly once."""

    def ask(part: Sequence[int]) -> Question:
        tokens = tokens_of([windows[window] for window in part])
        return tokens, {HEAD: Ask(positions_G=np.asarray(tokens.cu_seqlens[:-1], np.int32))}

    found: dict[int, RowError | list[float]] = {}
    for part, reply in supervisor.solve_all(cut(len(windows), packs), ask):
        for number, window in enumerate(part):
            assert window not in found
            found[window] = reply if isinstance(reply, tuple) else reply[HEAD]["logits"][number].tolist()
    assert sorted(found) == list(range(len(windows)))
    return found


def right(window: Sequence[int]) -> list[float]:
    return [window[0], sum(window), len(window)]


def check(
    supervisor: Supervisor,
    windows: Sequence[Sequence[int]],
    guilty: Mapping[int, tuple[str, str]],
    packs: int | None = None,
) -> None:
    """Windows are answered right but for the guilty, whose errors have that reason and say that."""
    for number, reply in solved(supervisor, windows, packs).items():
        if number in guilty:
            reason, said = guilty[number]
            assert reply[0] == reason
            assert said in str(reply[1])
        else:
            assert reply == right(windows[number])


def test_a_pack_of_harmless_rows_is_answered_in_one_pass(supervisor: Supervisor) -> None:
    check(supervisor, GOOD, {})
    assert supervisor.seconds.children == 1
    assert supervisor.seconds.starting > 0


@pytest.mark.parametrize("place", [0, 2, len(GOOD)])
def test_a_row_that_crashes_the_process_is_named_with_its_signal(supervisor: Supervisor, place: int) -> None:
    windows = [*GOOD[:place], [SEGFAULT, 1], *GOOD[place:]]
    check(supervisor, windows, {place: ("killed-replica", f"SIGSEGV) {DEATHS_ALONE} times, alone")})


def test_several_killers_in_one_pack_first_and_last_among_them_are_all_named(supervisor: Supervisor) -> None:
    windows = [[SEGFAULT, 1], *GOOD[:3], [EXIT], *GOOD[3:], [RAISE, 2], [SEGFAULT]]
    guilty = {
        0: ("killed-replica", "SIGSEGV"),
        4: ("killed-replica", "exit status 3"),
        8: ("exception", "RuntimeError: no kernel for this text (hostile.py:"),
        9: ("killed-replica", "SIGSEGV"),
    }
    check(supervisor, windows, guilty)


def test_a_pack_of_one_killer_ends_with_its_name(supervisor: Supervisor) -> None:
    check(supervisor, [[EXIT]], {0: ("killed-replica", "exit status 3")})
    check(supervisor, GOOD, {})


def test_a_row_that_hangs_is_named_and_does_not_hold_up_the_others(tmp_path: Path) -> None:
    supervisor = Supervisor(order=order(tmp_path), threads=1, stall=SHORT_STALL)
    try:
        check(supervisor, [GOOD[0], [HANG, 3], GOOD[1]], {1: ("killed-replica", "hung: no answer in")})
    finally:
        supervisor.close()


def test_a_row_that_raises_is_found_by_halving_without_a_new_process(supervisor: Supervisor) -> None:
    windows = [[RAISE], *GOOD, [RAISE, 5]]
    check(supervisor, windows, {0: ("exception", "RuntimeError"), 7: ("exception", "RuntimeError")})
    assert supervisor.seconds.children == 1


def test_a_row_too_large_for_the_memory_alone_is_named_so(supervisor: Supervisor) -> None:
    check(supervisor, [*GOOD, [MEMORY]], {6: ("out-of-memory", "MemoryError: out of device memory")})


def test_a_pack_too_large_for_the_memory_is_halved_until_it_fits(supervisor: Supervisor) -> None:
    check(supervisor, [[FULL, number] for number in range(11)], {})
    assert supervisor.seconds.children == 1


def test_a_sigkill_that_comes_once_blames_no_row(supervisor: Supervisor) -> None:
    check(supervisor, [GOOD[0], [KILLED_ONCE], GOOD[1]], {})
    assert supervisor.seconds.children == 2


def test_a_sigkill_from_outside_while_idle_is_not_noticed_by_any_row(supervisor: Supervisor) -> None:
    check(supervisor, GOOD, {})
    process = supervisor._process
    assert process is not None
    process.kill()
    process.wait()
    check(supervisor, GOOD, {})


def test_a_row_that_is_killed_whenever_it_is_alone_is_named(supervisor: Supervisor) -> None:
    windows = [GOOD[0], [KILLED_ALWAYS], GOOD[1]]
    check(supervisor, windows, {1: ("killed-replica", f"SIGKILL) {SIGKILLS_ALONE} times, alone")})


def test_a_device_that_is_lost_costs_a_process_and_not_the_rows_after_it(supervisor: Supervisor) -> None:
    said = "CUDA error: device-side assert triggered"
    check(supervisor, [GOOD[0], [POISONED], GOOD[1]], {1: ("killed-replica", said)})
    assert supervisor.seconds.children == 1 + 1 + DEATHS_ALONE


def test_a_loading_that_fails_in_the_middle_of_the_work_is_tried_again(tmp_path: Path) -> None:
    folder = tmp_path / "stumbles"
    folder.mkdir()
    supervisor = Supervisor(order=order(folder), threads=1, stall=STALL)
    try:
        check(supervisor, [GOOD[0], [KILLED_ONCE], GOOD[1]], {})
    finally:
        supervisor.close()


def test_the_dead_process_is_quoted(tmp_path: Path) -> None:
    (tmp_path / "exits").mkdir()
    supervisor = Supervisor(order=order(tmp_path / "exits"), threads=1, stall=STALL)
    with pytest.raises(ResourceError, match=r"ended while loading .*exits: exit status 7: the driver said: no device"):
        supervisor.start()
    assert supervisor._process is None


def test_a_loader_that_raises_says_why(tmp_path: Path) -> None:
    supervisor = Supervisor(order=order(tmp_path / "raises"), threads=1, stall=STALL)
    with pytest.raises(ResourceError, match=r"could not load .*raises: ValueError: .*no such tensor"):
        supervisor.start()
    assert supervisor._process is None


def test_a_loader_that_is_not_there_says_which(tmp_path: Path) -> None:
    wrong = LoadOrder(
        loader="models.load:lode", checkpoint=str(tmp_path), framework="torch", heads=(HEAD,), dtype="float32"
    )
    with pytest.raises(ResourceError, match="lode"):
        Supervisor(order=wrong, threads=1, stall=STALL).start()


def test_a_loading_that_hangs_ends(tmp_path: Path) -> None:
    supervisor = Supervisor(order=order(tmp_path / "hangs"), threads=1, stall=SHORT_STALL)
    with pytest.raises(ResourceError, match="hung: no answer in"):
        supervisor.start()


def test_a_replica_that_only_dies_gives_up_rather_than_blame_every_row(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor_module, "DEATHS_IN_A_ROW", 5)
    with pytest.raises(
        ResourceError, match="ended 5 times without answering anything in between, the last time by SIGSEGV"
    ):
        solved(supervisor, [[SEGFAULT, number] for number in range(8)])


def test_good_packs_between_deaths_keep_a_replica_going(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor_module, "DEATHS_IN_A_ROW", 4)
    windows = [[EXIT], [5], [EXIT, 1], [6], [EXIT, 2], [7]]
    check(supervisor, windows, dict.fromkeys((0, 2, 4), ("killed-replica", "exit status 3")))


def test_a_child_dies_with_its_supervisor(tmp_path: Path, repository: Path) -> None:
    program = (
        "import sys, time; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path\n"
        "from tests.pipeline.inference.test_supervisor import Supervisor, order\n"
        "supervisor = Supervisor(order=order(Path(sys.argv[2])), threads=1, stall=30)\n"
        "supervisor.start(); print(supervisor._process.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(repository), str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    deadline = time.monotonic() + STALL
    while time.monotonic() < deadline and _running(child):
        time.sleep(0.02)
    assert not _running(child)


def _running(process: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_an_interrupt_of_the_whole_group_does_not_reach_the_child(supervisor: Supervisor) -> None:
    check(supervisor, GOOD, {})
    process = supervisor._process
    assert process is not None
    process.send_signal(signal.SIGINT)
    check(supervisor, GOOD, {})
    assert supervisor.seconds.children == 1


def test_a_sigkill_in_the_middle_of_a_pass_blames_no_row(supervisor: Supervisor) -> None:
    supervisor.stall = 30
    supervisor.start()
    process = supervisor._process
    assert process is not None
    process.send_signal(signal.SIGSTOP)  # so that the pass is under way when it is killed
    threading.Timer(0.3, process.kill).start()
    check(supervisor, GOOD, {})
    assert supervisor.seconds.children == 2


MISDEEDS = {
    SEGFAULT: ("killed-replica", f"SIGSEGV) {DEATHS_ALONE} times, alone"),
    EXIT: ("killed-replica", f"exit status 3) {DEATHS_ALONE} times, alone"),
    POISONED: ("killed-replica", "device-side assert triggered"),
    KILLED_ALWAYS: ("killed-replica", f"{SIGKILLS_ALONE} times, alone"),
    RAISE: ("exception", "RuntimeError: no kernel for this text"),
    MEMORY: ("out-of-memory", "MemoryError: out of device memory"),
}


@pytest.fixture
def paired(tmp_path: Path) -> Iterator[Supervisor]:
    supervisor = Supervisor(order=order(tmp_path), threads=1, stall=STALL)
    yield supervisor
    supervisor.close()


@pytest.mark.parametrize(
    ("misdeed", "place"),
    [(EXIT, 0), (EXIT, 3), (SEGFAULT, 5), (POISONED, 4), (KILLED_ALWAYS, 3), (RAISE, 1), (RAISE, 4), (MEMORY, 3)],
)
def test_whichever_of_two_packs_in_flight_holds_the_guilty_row_it_alone_is_blamed(
    paired: Supervisor, misdeed: int, place: int
) -> None:
    windows = [[5 + number, 6] for number in range(6)]
    windows[place] = [misdeed, 1]
    check(paired, windows, {place: MISDEEDS[misdeed]}, packs=2)


@pytest.mark.parametrize(("first", "second"), [(EXIT, SEGFAULT), (MEMORY, EXIT), (EXIT, RAISE)])
def test_guilty_rows_in_both_packs_in_flight_are_both_named(paired: Supervisor, first: int, second: int) -> None:
    windows = [[7, 1], [first], [8], [9, 1], [10], [second, 3], [11]]
    check(paired, windows, {1: MISDEEDS[first], 5: MISDEEDS[second]}, packs=3)


def test_memory_that_runs_out_in_two_packs_in_flight_halves_both_and_the_budget_once(paired: Supervisor) -> None:
    windows = [[FULL, number] for number in range(16)]
    budget = TokenBudget(tokens=16, most=64)

    def ask(part: Sequence[int]) -> Question:
        tokens = tokens_of([windows[window] for window in part])
        return tokens, {HEAD: Ask(positions_G=np.asarray(tokens.cu_seqlens[:-1], np.int32))}

    parts = [list(part) for part, reply in paired.solve_all([range(8), range(8, 16)], ask, budget)]
    assert parts == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15]]
    assert budget.tokens == 8
    assert paired.seconds.children == 1


def test_a_death_with_two_packs_in_flight_asks_the_older_first(paired: Supervisor) -> None:
    assert list(solved(paired, [[KILLED_ONCE, 1], [5], [6]], packs=1)) == [0, 1, 2]
    assert paired.seconds.children == 2


def on_a_device(folder: Path, *, device: Device = "cuda", **more: Any) -> Supervisor:
    load = LoadOrder(
        loader=device_model.LOADER,
        checkpoint=str(folder),
        framework="torch",
        heads=(HEAD,),
        dtype="float32",
        device=device,
    )
    return Supervisor(order=load, threads=1, stall=STALL, **more)


@pytest.mark.parametrize(("in_flight", "waits"), [(1, 0.0), (2, 1.0)])
def test_the_next_pack_is_submitted_before_one_is_answered(tmp_path: Path, in_flight: int, waits: float) -> None:
    supervisor = on_a_device(tmp_path / "patient", in_flight=in_flight)
    try:
        found = solved(supervisor, [[5], [6], [7]], packs=1)
        assert [list(found[number])[2] for number in range(3)] == [waits, waits, 0.0]
    finally:
        supervisor.close()


def test_a_gpu_that_was_promised_and_can_not_be_used_is_an_error_with_the_framework_s_reason(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match=device_model.NO_DRIVER):
        on_a_device(tmp_path / "no-driver").start()
    with pytest.raises(ResourceError, match="should run on 'cuda', but its model runs on 'cpu'"):
        on_a_device(tmp_path / "falls-back").start()


def test_a_child_on_a_cpu_sees_no_gpu_and_one_on_a_gpu_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    for device, seen in (("cpu", ""), ("cuda", "0,1")):
        supervisor = on_a_device(tmp_path, device=cast("Device", device))
        supervisor.start()
        supervisor.close()
        assert supervisor.facts["device"] == device
        assert supervisor.facts["CUDA_VISIBLE_DEVICES"] == seen
        assert supervisor.facts.get("JAX_PLATFORMS") == ("cpu" if device == "cpu" else None)


def test_what_libraries_print_while_loading_is_known_when_the_child_is_ready(tmp_path: Path) -> None:
    supervisor = on_a_device(tmp_path / "talks")
    try:
        supervisor.start()
        assert supervisor.said == ("a library warns: the driver is old",)
        assert solved(supervisor, [[5]]) == {0: right([5])}
    finally:
        supervisor.close()


def test_a_stopped_child_is_replaced_though_the_question_is_larger_than_the_pipe(tmp_path: Path) -> None:
    supervisor = Supervisor(order=order(tmp_path), threads=1, stall=SHORT_STALL)
    try:
        supervisor.start()
        assert supervisor._process is not None
        supervisor._process.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        check(supervisor, [[5, *[6] * 2_000_000]], {})
        assert time.monotonic() - began < STALL + SHORT_STALL
        assert supervisor.seconds.children == 2
    finally:
        supervisor.close()


def test_closing_twice_is_closing_once(supervisor: Supervisor) -> None:
    supervisor.start()
    supervisor.close()
    supervisor.close()
    check(supervisor, GOOD, {})
