"""Packs of two threads at one supervisor: each has its own answers, one after the other; what ends the supervisor ends both."""

import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from models.boundary import Ask, Head
from pipeline.errors import ResourceError
from pipeline.inference import supervisor as supervisor_module
from pipeline.inference.batching import TokenBudget
from pipeline.inference.child import LoadOrder
from pipeline.inference.desk import Desk
from pipeline.inference.passes import Question
from pipeline.inference.supervisor import Supervisor
from tests.pipeline import hostile
from tests.pipeline.hostile import EXIT, RAISE, SEGFAULT
from tests.pipeline.small import tokens_of

HEAD: Head = "sequence-classification"


def supervisor_in(folder: Path) -> Supervisor:
    order = LoadOrder(hostile.LOADER, str(folder), "torch", (HEAD,), "float32")
    return Supervisor(order=order, threads=1, stall=20.0)


class Caller(threading.Thread):
    """A thread with packs of two windows."""

    def __init__(self, desk: Desk, windows: list[list[int]]) -> None:
        super().__init__(daemon=True)
        self.desk, self.windows = desk, windows
        self.found: dict[int, object] = {}
        self.error: BaseException | None = None

    def ask(self, part: Sequence[int]) -> Question:
        tokens = tokens_of([self.windows[window] for window in part])
        return tokens, {HEAD: Ask(positions_G=np.asarray(tokens.cu_seqlens[:-1], np.int32))}

    def run(self) -> None:
        packs = [range(first, min(first + 2, len(self.windows))) for first in range(0, len(self.windows), 2)]
        try:
            for part, reply in self.desk.solve_all(packs, self.ask, TokenBudget(tokens=100)):
                for place, window in enumerate(part):
                    assert window not in self.found
                    answer = reply if isinstance(reply, tuple) else reply[HEAD]["logits"][place].tolist()
                    self.found[window] = answer
        except ResourceError as error:
            self.error = error


def test_each_thread_has_the_answers_of_its_own_windows_whoever_kills_the_child(tmp_path: Path) -> None:
    supervisor = supervisor_in(tmp_path)
    desk = Desk(supervisor)
    try:
        bad = {2: [EXIT, 1], 5: [RAISE]}
        callers = [
            Caller(desk, [bad.get(n, [100 * c + n + 3, c]) if c == 1 else [100 * c + n + 3, c] for n in range(9)])
            for c in range(3)
        ]
        for caller in callers:
            caller.start()
        for number, caller in enumerate(callers):
            caller.join(60)
            assert not caller.is_alive()
            assert sorted(caller.found) == list(range(9))
            for window, answer in caller.found.items():
                ids = caller.windows[window]
                if number == 1 and window in bad:
                    assert isinstance(answer, tuple)
                    assert answer[0] == ("killed-replica" if window == 2 else "exception")
                else:
                    assert answer == [ids[0], sum(ids), len(ids)]
    finally:
        desk.close()
        supervisor.close()


def test_a_supervisor_that_gives_up_tells_every_thread_also_those_that_come_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor_module, "DEATHS_IN_A_ROW", 3)
    supervisor = supervisor_in(tmp_path)
    desk = Desk(supervisor)
    try:
        callers = [Caller(desk, [[SEGFAULT, n] for n in range(4)]) for _ in range(3)]
        for caller in callers[:2]:
            caller.start()
        for caller in callers[:2]:
            caller.join(60)
        callers[2].start()
        callers[2].join(60)
        assert all(isinstance(caller.error, ResourceError) for caller in callers)
    finally:
        desk.close()
        supervisor.close()
