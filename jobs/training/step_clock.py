"""How long steps, evaluations and snapshots took in, how long the rest of a training run will take out."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

Part = Literal["step", "evaluation", "snapshot"]
RECENT = 100
"""Steps whose mean counts: batches differ in length, and machines in what else they do."""
FORWARD = 1 / 3
"""The share of a step's time that its forward pass takes, about."""


@dataclass
class StepClock:
    """Measures the parts of a run. evaluation_in_steps: tokens of an evaluation by those of a step, for a guess before the first
    evaluation was measured."""

    evaluation_in_steps: float = 0.0
    clock: Callable[[], float] = time.monotonic
    _first: float | None = field(default=None, init=False)
    _steps: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT), init=False)
    _measured: dict[Part, float] = field(default_factory=dict, init=False)

    @contextmanager
    def measured(self, part: Part) -> Iterator[None]:
        """Measure one step, evaluation or snapshot."""
        began = self.clock()
        yield
        seconds = self.clock() - began
        if part != "step":
            self._measured[part] = seconds
        elif self._first is None:
            self._first = seconds  # with what is compiled and allocated once
        else:
            self._steps.append(seconds)

    def left(self, *, step: int, evaluation: int, snapshot: int) -> float | None:
        """Seconds for so many of each; None before the second step."""
        if not self._steps:
            return None
        each = sum(self._steps) / len(self._steps)
        guess = self.evaluation_in_steps * each * FORWARD
        return (
            step * each
            + evaluation * self._measured.get("evaluation", guess)
            + snapshot * self._measured.get("snapshot", 0.0)
        )
