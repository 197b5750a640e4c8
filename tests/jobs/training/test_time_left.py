"""The time left of a training run counts what is still to come, evaluations and snapshots included."""

import re
from collections.abc import Callable
from typing import Any

import pytest

from jobs.training.spec import TrainSpec
from jobs.training.step_clock import StepClock

pytestmark = pytest.mark.torch

MakeSpec = Callable[..., TrainSpec]


class Clock:
    """A clock that is set by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_time_left_counts_evaluations_before_and_after_the_first_and_leaves_out_the_first_step() -> None:
    clock = Clock()
    steps = StepClock(evaluation_in_steps=30, clock=clock)

    def took(part: Any, seconds: float) -> None:
        with steps.measured(part):
            clock.now += seconds

    took("step", 50.0)  # compiles
    assert steps.left(step=10, evaluation=1, snapshot=1) is None
    took("step", 2.0)
    # A third of 30 steps of 2 seconds, for an evaluation is one pass forward.
    assert steps.left(step=10, evaluation=1, snapshot=1) == pytest.approx(10 * 2 + 20)
    took("evaluation", 7.0)
    took("snapshot", 3.0)
    assert steps.left(step=10, evaluation=2, snapshot=1) == pytest.approx(10 * 2 + 2 * 7 + 3)


@pytest.mark.parametrize(
    ("every", "after", "until", "expected"),
    [(20, 0, 50, 3), (20, 20, 50, 2), (20, 50, 50, 0), (25, 0, 50, 2), (9, 0, 8, 1)],
)
def test_the_last_step_is_always_evaluated(every: int, after: int, until: int, expected: int) -> None:
    from jobs.training.loop import _times

    assert _times(every, after=after, until=until) == expected


def test_a_short_run_is_evaluated_at_its_end_and_knows_its_time_left_from_the_second_step(make_spec: MakeSpec) -> None:
    from jobs.training.loop import Progress
    from jobs.training.run import train

    seen: list[Progress] = []
    history = train(make_spec("text-classification", steps=8), on_progress=seen.append, device="cpu").history
    assert [entry["step"] for entry in history] == [8]
    assert [progress.step for progress in seen] == [*range(1, 9), 8]
    lefts = [progress.seconds_left for progress in seen]
    assert lefts[0] is None
    assert all(left is not None for left in lefts[1:])


def test_the_line_says_at_most_where_training_may_stop_earlier(
    make_spec: MakeSpec, capsys: pytest.CaptureFixture[str]
) -> None:
    from jobs.training.run import train

    train(make_spec("text-classification", steps=40, patience=3), device="cpu")
    first, last = capsys.readouterr().err.splitlines()
    assert re.search(r"^step 20/40  loss \S+  rate \S+  text-classification: loss .* at most \d+ s left$", first)
    assert last.startswith("step 40/40")
    assert "left" not in last
