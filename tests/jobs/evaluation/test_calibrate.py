"""`preln calibrate` writes a new checkpoint whose scores every way of annotating goes by."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import preln
from jobs.calibrate import score_function
from jobs.cli import app
from jobs.embedded import DEMO
from jobs.evaluation.calibrated_folder import write_calibrated
from models.calibration_file import Calibration
from models.checkpoint import Checkpoint
from models.convert import convert
from models.errors import CheckpointError
from pipeline.errors import SpecError
from tests.pipeline.run_here import commands_run_here
from tests.pipeline.small import CHECKPOINT, spec
from tests.pipeline.test_certification import TEXTS

SCORE_TOLERANCE = 1e-5
"""Between batch shapes, on scores in float32."""


@pytest.mark.torch
def test_a_calibrated_checkpoint_says_how_often_it_is_right(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    commands_run_here(monkeypatch)
    options = {"task": "text-classification", "dtype": "float32", "isolate": False}
    plain = preln.annotate(TEXTS, model=CHECKPOINT, **options)
    random = np.random.default_rng(2)
    # Nine in ten labels are right, while the model's scores are about 0.5.
    labels = [label if random.random() < 0.9 else "random-1" for label in plain["label"].to_pylist()]
    pq.write_table(pa.table({"text": TEXTS, "truth": labels}), tmp_path / "labelled.parquet")
    given = ["--data", str(tmp_path / "labelled.parquet"), "--gold", "truth", "--dtype", "float32", "--json"]
    folder = str(tmp_path / "calibrated")
    result = CliRunner().invoke(app, ["calibrate", "--model", CHECKPOINT, "--output", folder, *given])
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout.splitlines()[-1])
    assert printed["rows"] == len(TEXTS)
    assert printed["after"]["ece"] < printed["before"]["ece"]
    opened = Checkpoint.open(folder)
    assert opened.calibration is not None
    assert list(opened.calibration.temperatures) == printed["temperatures"]
    assert opened.weights_digest() == Checkpoint.open(CHECKPOINT).weights_digest()
    assert opened.digest() != Checkpoint.open(CHECKPOINT).digest()

    logits = preln.annotate(TEXTS, model=folder, function="none", top_k="all", **options)["scores"].to_pylist()
    powers = np.exp(np.array([[one["score"] for one in row] for row in logits]) / printed["temperatures"][0])
    answers = preln.annotate(TEXTS, model=folder, **options)
    assert answers["label"].to_pylist() == plain["label"].to_pylist()
    np.testing.assert_allclose(answers["score"].to_numpy(), powers[:, 0] / powers.sum(axis=1), atol=SCORE_TOLERANCE)


def calibration_of(folder: Path) -> Calibration:
    labels = tuple(Checkpoint.open(str(folder)).config.id2label.values())
    return Calibration(labels=labels, function="softmax", temperatures=(1.5,))


def test_a_head_in_its_new_folder_still_has_its_encoder(tmp_path: Path) -> None:
    shutil.copytree(DEMO, tmp_path / "beside")
    source = tmp_path / "beside" / "intents"
    for into in (tmp_path / "elsewhere", tmp_path / "beside" / "calibrated"):
        write_calibrated(
            source=str(source), destination=str(into), calibration=calibration_of(source), picture=b"<svg/>"
        )
        assert Checkpoint.open(str(into)).weights_digest() == Checkpoint.open(str(source)).weights_digest()
    assert json.loads((into / "config.json").read_text())["base_model_name_or_path"] == "encoder"


def test_a_folder_that_is_taken_is_refused_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "calibration.json").write_text("{}")
    given = ["--model", CHECKPOINT, "--data", "nowhere.parquet", "--output", str(tmp_path)]
    result = CliRunner().invoke(app, ["calibrate", *given])
    assert isinstance(result.exception, CheckpointError)
    assert "holds calibration.json already" in str(result.exception)


def test_a_regression_has_nothing_to_calibrate(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(CHECKPOINT, tmp_path / "numbers"))
    fields = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**fields, "problem_type": "regression"}))
    with pytest.raises(SpecError, match="numbers of a regression"):
        score_function(spec(model=str(folder)))


def test_another_function_than_the_calibrated_one_is_refused_and_thresholds_of_the_job_win(tmp_path: Path) -> None:
    from pipeline.inference.questions import facts_of

    folder = Path(shutil.copytree(CHECKPOINT, tmp_path / "calibrated"))
    labels = tuple(Checkpoint.open(str(folder)).config.id2label.values())
    thresholds = dict(zip(labels, (0.2, 0.3, 0.4, 0.6), strict=True))
    own = Calibration(labels=labels, function="sigmoid", temperatures=(1.0,) * 4, thresholds=thresholds)
    (folder / "calibration.json").write_bytes(own.to_json())

    def least(**options: object) -> list[float] | None:
        job = spec(task={"name": "text-classification", **options}, model=str(folder))
        assert job.task is not None
        assert job.task.name == "text-classification"
        found = job.task.least_scores(facts_of(job)["text-classification"])
        return None if found is None else [round(float(value), 4) for value in found]

    assert least() == [0.2, 0.3, 0.4, 0.6]
    assert least(threshold=0.9) == [0.9] * 4
    assert least(thresholds={labels[0]: 0.7}) == [0.7, 0.3, 0.4, 0.6]
    assert least(function="none") is None
    with pytest.raises(SpecError, match=r"function: the checkpoint's calibration.json is for sigmoid, not softmax"):
        least(function="softmax")


def test_a_conversion_says_that_the_calibration_is_left_behind(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(CHECKPOINT, tmp_path / "calibrated"))
    (folder / "calibration.json").write_bytes(calibration_of(folder).to_json())
    conversion = convert(source=str(folder), destination=str(tmp_path / "new"))
    assert "calibration.json is left behind" in conversion.notes[0]
    assert Checkpoint.open(str(tmp_path / "new")).calibration is None
