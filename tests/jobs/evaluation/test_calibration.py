"""Temperatures and thresholds that `preln calibrate` fits, and the numbers that show what they change."""

import numpy as np
import pyarrow as pa
import pytest

from jobs.evaluation.calibration import best_threshold, fit
from jobs.evaluation.confidence import accuracy_at, brier, calibration_error, label_scores, truth_marks
from jobs.evaluation.picture import draw_reliability
from jobs.evaluation.scores import several_labels
from pipeline.errors import SpecError

LABELS = ("a", "b", "c")


def drawn(rows: int, *, hotter: float, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Logits `hotter` times too large, and truths drawn by the right ones."""
    random = np.random.default_rng(seed)
    logits_NL = random.normal(size=(rows, 3)) * 2
    powers_NL = np.exp(logits_NL)
    shares_NL = np.cumsum(powers_NL / powers_NL.sum(axis=1, keepdims=True), axis=1)
    truth_N = (random.random(rows)[:, None] > shares_NL).sum(axis=1).clip(max=2)
    return (logits_NL * hotter).astype(np.float32), np.eye(3, dtype=bool)[truth_N]


@pytest.mark.parametrize("hotter", [0.5, 1.0, 3.0])
def test_the_temperature_that_logits_were_multiplied_by_is_found(hotter: float) -> None:
    logits_NL, truth_NL = drawn(4_000, hotter=hotter)
    found = fit(logits_NL=logits_NL, truth_NL=truth_NL, labels=LABELS, function="softmax", thresholds=False)
    assert found.calibration.temperatures[0] == pytest.approx(hotter, rel=0.08)
    assert found.calibration.thresholds == {}
    assert found.after["ece"] < 0.03
    assert found.after["negative_log_likelihood"] <= found.before["negative_log_likelihood"] + 3e-3, (
        "each half is fitted on the other"
    )
    assert found.notes == ()


def test_several_labels_have_a_temperature_and_a_threshold_each_and_a_rare_one_none() -> None:
    random = np.random.default_rng(5)
    plain_NL = random.normal(size=(4_000, 3)) * 2
    truth_NL = random.random((4_000, 3)) < 1 / (1 + np.exp(-plain_NL))
    truth_NL[:, 2] = np.arange(4_000) < 3
    logits_NL = (plain_NL * np.array([0.5, 2.0, 1.0])).astype(np.float32)
    found = fit(logits_NL=logits_NL, truth_NL=truth_NL, labels=LABELS, function="sigmoid", thresholds=True)
    assert found.calibration.temperatures == pytest.approx((0.5, 2.0, 1.0), rel=0.15)
    assert found.calibration.temperatures[2] == 1.0
    assert set(found.calibration.thresholds) == {"a", "b"}
    assert found.notes == ("fewer than 10 rows with or without the label, so nothing is fitted: c",)


def test_rows_that_do_not_tell_a_temperature_keep_one_and_say_so() -> None:
    truth_NL = np.eye(3, dtype=bool)[np.arange(60) % 3]
    found = fit(logits_NL=truth_NL * 9.0, truth_NL=truth_NL, labels=LABELS, function="softmax", thresholds=False)
    assert found.calibration.temperatures == (1.0,)
    assert "1 is kept" in found.notes[0]


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(SpecError, match="3 rows with an answer and a known label are too few"):
        fit(
            logits_NL=np.zeros((3, 3)),
            truth_NL=np.eye(3, dtype=bool),
            labels=LABELS,
            function="softmax",
            thresholds=False,
        )


def test_the_threshold_of_the_best_f1_lies_between_two_scores() -> None:
    score_N = np.array([0.9, 0.8, 0.3, 0.2])
    assert best_threshold(score_N=score_N, truth_N=np.array([True, True, False, False])) == pytest.approx(0.55)
    assert best_threshold(score_N=np.full(4, 0.7), truth_N=np.array([True, False, True, True])) == pytest.approx(0.35)


def test_numbers_worked_out_by_hand() -> None:
    score_N, right_N = np.array([0.95, 0.95, 0.65, 0.65]), np.array([True, False, True, True])
    assert calibration_error(score_N=score_N, right_N=right_N) == pytest.approx((2 * 0.45 + 2 * 0.35) / 4)
    assert brier(scores_NL=np.array([[0.8, 0.2]]), truth_NL=np.array([[True, False]])) == pytest.approx(0.08)
    # A row without an answer is never covered: 4 answers of 5 rows cover at most 80 %.
    assert accuracy_at(score_N=score_N, right_N=right_N, rows=5, coverages=(0.4, 0.8, 1.0)) == {0.4: 0.5, 0.8: 0.75}


def test_scores_and_truths_come_from_columns_with_errors_and_unknown_labels() -> None:
    pair = pa.struct([("label", pa.string()), ("score", pa.float32())])
    rows = [[{"label": "b", "score": 0.75}, {"label": "a", "score": 0.25}], None]
    scores_NL = label_scores(pa.chunked_array([pa.array(rows, pa.list_(pair))]), labels=("a", "b"))
    assert scores_NL[0].tolist() == [0.25, 0.75]
    assert np.isnan(scores_NL[1]).all()
    truth_NL, known_N = truth_marks(pa.chunked_array([pa.array(["b", "x", None])]), labels=("a", "b"))
    assert truth_NL.tolist() == [[False, True], [False, False], [False, False]]
    assert known_N.tolist() == [True, False, False]
    truth_NL, known_N = truth_marks(pa.chunked_array([pa.array([["b", "a"], [], ["x"]])]), labels=("a", "b"))
    assert truth_NL.tolist() == [[True, True], [False, False], [False, False]]
    assert known_N.tolist() == [True, True, False]


def test_several_labels_a_row_are_scored_by_f1() -> None:
    measured = several_labels([{"a", "b"}, {"a"}, set()], [{"a"}, {"a"}, None])
    assert measured.numbers == {
        "exact_match": pytest.approx(1 / 3),
        "micro_f1": pytest.approx(0.8),
        "macro_f1": pytest.approx(0.5),
    }


def test_the_diagram_is_drawn_and_the_same_each_time() -> None:
    pytest.importorskip("matplotlib")
    logits_NL, truth_NL = drawn(300, hotter=3.0)
    bins = fit(logits_NL=logits_NL, truth_NL=truth_NL, labels=LABELS, function="softmax", thresholds=False).bins
    picture = draw_reliability(bins)
    assert picture is not None
    assert b"<svg" in picture
    assert picture == draw_reliability(bins)
