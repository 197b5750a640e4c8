"""Measures variants in shuffled rounds in one process: median speeds, compared answers, peaks.

The clock is the process's CPU time where one thread runs (others on the machine then cost little), else the wall's.
"""

import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

PEAK_REPEATS = 6
TOLERANCE = {"float32": 1e-4, "bfloat16": 5e-2, "float16": 2e-2}
"""How far a probability may be from the unpadded float32 ones."""


@dataclass
class Measured:
    """One variant. seconds: of its rounds. off: the largest distance of a probability from the reference's."""

    name: str
    dtype: str
    framework: str
    tokens: int
    operations: float
    seconds: list[float] = field(default_factory=list)
    off: float = 0.0

    @property
    def rate(self) -> float:
        """Real tokens a second."""
        return self.tokens / statistics.median(self.seconds)

    @property
    def flops(self) -> float:
        """Floating-point operations a second that the texts need at least."""
        return self.operations / statistics.median(self.seconds)


Answer = Callable[[Any], Any]


def clock(*, threads: int, device: str) -> Callable[[], float]:
    """CPU time of the process for one thread, wall time otherwise."""
    return time.process_time if threads == 1 and device == "cpu" else time.perf_counter


def least_operations(lengths: Sequence[int], *, layers: int, width: int) -> float:
    """Floating-point operations of the layers' products and attention for real tokens: nothing for padding, nothing left out."""
    counts = np.asarray(lengths, np.float64)
    return float(layers * (24.0 * width**2 * counts.sum() + 4.0 * width * (counts**2).sum()))


def in_rounds(
    variants: Sequence[tuple[Any, Answer]],
    *,
    inputs: Any,
    reference: Any,
    tokens: int,
    operations: float,
    rounds: int,
    now: Callable[[], float],
    peaks: dict[tuple[str, str], tuple[Callable[[], None], float]],
    say: Callable[[str], None] = lambda _: None,
) -> tuple[list[Measured], dict[tuple[str, str], float]]:
    """Every variant measured `rounds` times after a warm-up, and the peak of each (framework, dtype) in between.

    reference: probabilities [N, L]. Raises RuntimeError where a variant answers something else.
    say: called with what is measured and what was found, turn by turn.
    """
    measured = [Measured(one.name, one.dtype, one.framework, tokens, operations) for one, _ in variants]
    for number, (measurement, (_, answer)) in enumerate(zip(measured, variants, strict=True), start=1):
        say(f"warming up {number} of {len(measured)}: {measurement.name} {measurement.dtype}")
        measurement.off = float(np.abs(np.asarray(answer(inputs)) - reference).max())
        if measurement.off > TOLERANCE.get(measurement.dtype, 1.0):
            raise RuntimeError(
                f"{measurement.name} ({measurement.dtype}) answers something else: off by {measurement.off:.3g}"
            )
    rates: dict[tuple[str, str], list[float]] = {key: [] for key in peaks}
    for once, _ in peaks.values():
        once()

    def turn_of(measurement: Measured, answer: Answer) -> None:
        began = now()
        answer(inputs)
        measurement.seconds.append(max(now() - began, 1e-9))
        turns_done = sum(len(one.seconds) for one in measured)
        rate = measurement.tokens / measurement.seconds[-1]
        say(
            f"{turns_done} of {rounds * len(measured)}: {measurement.name} {measurement.dtype}, {rate:,.0f} tokens/s "
            f"(median so far {measurement.rate:,.0f})"
        )

    def peak_of(key: tuple[str, str]) -> None:
        once, work = peaks[key]
        began = now()
        for _ in range(PEAK_REPEATS):
            once()
        rates[key].append(PEAK_REPEATS * work / (now() - began))

    turns = [partial(turn_of, measurement, answer) for measurement, (_, answer) in zip(measured, variants, strict=True)]
    turns += [partial(peak_of, key) for key in peaks]
    shuffled = random.Random(0)  # noqa: S311 -- an order, not a secret
    for _ in range(rounds):
        for turn in shuffled.sample(turns, k=len(turns)):
            turn()
    return measured, {key: statistics.median(values) for key, values in rates.items()}
