"""A multi-label checkpoint calibrated on labelled rows, and its new folder applied in two frameworks and by `accept`."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import preln
from models.boundary import Framework
from models.checkpoint import Checkpoint
from pipeline.tasks.scores import scored
from tests.command import in_this_process
from tests.pipeline.run_here import commands_run_here
from tests.pipeline.small import CHECKPOINT
from tests.pipeline.test_certification import TEXTS

SCORE_TOLERANCE = 1e-4
"""Between frameworks and batch shapes, on scores in float32: ten times that of other tests, since temperatures down to a tenth
magnify what logits differ by (1.2e-5 measured)."""
HEAT = (0.1, 0.15, 0.25, 0.5)
"""The temperatures that truth is drawn by, one a label."""


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small checkpoint as one whose texts may have several labels."""
    folder = Path(shutil.copytree(CHECKPOINT, tmp_path_factory.mktemp("several") / "plain"))
    fields = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**fields, "problem_type": "multi_label_classification"}))
    return folder


def labels_of(folder: Path) -> tuple[str, ...]:
    """The labels of a checkpoint, in the order of their ids."""
    return tuple(Checkpoint.open(str(folder)).config.id2label.values())


def answered(model: Path, *, framework: Framework = "torch", **options: Any) -> pa.Table:
    """The texts with their answers."""
    more: dict[str, Any] = {"framework": framework, "dtype": "float32", "isolate": False}
    found: pa.Table = preln.annotate(
        pa.table({"text": TEXTS}), model=model, task="text-classification", **more, **options
    )
    return found


def by_label(column: pa.ChunkedArray, *, labels: tuple[str, ...]) -> np.ndarray:
    """[N, L], scores in the order of the labels."""
    rows = [{one["label"]: one["score"] for one in row} for row in column.to_pylist()]
    return np.array([[row[label] for label in labels] for row in rows], np.float32)


@pytest.mark.torch
@pytest.mark.flax
def test_a_calibrated_multi_label_checkpoint_goes_by_the_temperature_and_threshold_of_each_label(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commands_run_here(monkeypatch)
    labels = labels_of(plain)
    logits_NL = by_label(answered(plain, function="none", top_k="all")["scores"], labels=labels)
    random = np.random.default_rng(3)
    truth_NL = random.random(logits_NL.shape) < scored(logits_NL / np.array(HEAT, np.float32), function="sigmoid")
    truth = [[label for label, true in zip(labels, row, strict=True) if true] for row in truth_NL.tolist()]
    pq.write_table(pa.table({"text": TEXTS, "topics": pa.array(truth, pa.list_(pa.string()))}), tmp_path / "in.parquet")
    given = ["--data", tmp_path / "in.parquet", "--gold", "topics", "--dtype", "float32", "--json"]
    preln = in_this_process(monkeypatch, capsys)
    ended = preln("calibrate", "--model", plain, "--output", tmp_path / "new", *given)
    assert ended.code == 0, ended.err
    found = json.loads(ended.out.splitlines()[-1])
    assert (found["function"], len(found["temperatures"]), set(found["thresholds"])) == ("sigmoid", 4, set(labels))
    assert len(set(found["temperatures"])) == 4
    assert found["after"]["ece"] < found["before"]["ece"]

    expected_NL = scored(logits_NL / np.array(found["temperatures"], np.float32), function="sigmoid")
    least_L = np.array([found["thresholds"][label] for label in labels], np.float32)
    clear_NL = np.abs(expected_NL - least_L) > SCORE_TOLERANCE
    assert clear_NL.mean() > 0.99
    for framework in ("torch", "flax"):
        answers = answered(tmp_path / "new", framework=framework, top_k="all")
        np.testing.assert_allclose(by_label(answers["scores"], labels=labels), expected_NL, atol=SCORE_TOLERANCE)
        listed = [{one["label"] for one in row} for row in answers["labels"].to_pylist()]
        listed_NL = np.array([[label in row for label in labels] for row in listed])
        assert ((listed_NL == (expected_NL >= least_L)) | ~clear_NL).all()

    wish = {"error_rate": 0.5, "calibration": str(tmp_path / "in.parquet"), "label": "topics"}
    accepted = answered(tmp_path / "new", accept=wish)
    taken_N = np.array(accepted["accepted"].to_pylist())
    best = accepted["label"].to_pylist()
    right_N = np.array([label in true for label, true in zip(best, truth, strict=True)])
    assert best == [labels[place] for place in expected_NL.argmax(axis=1)]
    assert 0 < taken_N.sum() <= len(TEXTS)
    assert (~right_N[taken_N]).mean() <= 0.5
    assert taken_N.tolist() == (accepted["score"].to_numpy() >= accepted["score"].to_numpy()[taken_N].min()).tolist()
