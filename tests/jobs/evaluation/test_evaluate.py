"""`preln evaluate` scores the answers that `preln annotate` gives."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from jobs.cli import app
from jobs.evaluation.measure import score
from jobs.training.records import read_records
from jobs.training.spec import TrainSpec
from pipeline.errors import SpecError
from tests.jobs.small_training import DATA
from tests.pipeline.run_here import commands_run_here

NAMES = ("text-classification", "token-classification", "question-answering", "fill-mask")


@pytest.mark.torch
def test_four_heads_over_one_encoder_are_measured_by_the_pipeline_itself(
    make_spec: Callable[..., TrainSpec], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    commands_run_here(monkeypatch)
    from jobs.training.run import train

    spec = make_spec(*NAMES, steps=300, learning_rate=5e-3)
    often = {
        name: task.model_copy(update={"repeat": 8 if name == NAMES[0] else 1}) for name, task in spec.tasks.items()
    }
    trained = train(spec.model_copy(update={"tasks": often}), on_progress=lambda progress: None, device="cpu")
    in_training = trained.history[-1]["evaluation"]["text-classification"]["accuracy"]
    assert in_training > 0.7
    for name, number in zip(NAMES, ("accuracy", "f1", "f1", "mask_accuracy"), strict=True):
        folder = tmp_path / f"evaluation-{name}"
        given = ["--task", name, "--model", str(tmp_path / "out" / name), "--data", str(tmp_path / f"{name}.jsonl")]
        result = CliRunner().invoke(app, ["evaluate", *given, "--output", str(folder), "--dtype", "float32", "--json"])
        assert result.exit_code == 0, result.output
        printed = json.loads(result.stdout.splitlines()[-1])
        assert printed["rows_with_errors"] == 0
        rows = read_records(str(folder / "annotated/data"))
        assert printed[number] == score(rows, task=name).numbers[number]
        assert printed["rows"] == len(rows) == len(DATA[name]())
        if name == "text-classification":
            assert printed[number] == pytest.approx(in_training)
            assert printed["accuracy_at_coverage"]["1"] == printed[number]
            assert 0 <= printed["ece"] <= 1
            assert 0 <= printed["brier"] <= 2


def test_what_can_not_be_evaluated_is_told_with_what_can() -> None:
    result = CliRunner().invoke(app, ["evaluate", "--task", "feature-extraction", "--model", "m", "--data", "d"])
    assert isinstance(result.exception, SpecError)
    assert "valid tasks: text-classification" in str(result.exception)


def test_rows_without_the_truth_are_told() -> None:
    with pytest.raises(SpecError, match="no row has a value in the column 'intent'"):
        score([{"text": "x", "predicted_label": "a"}], task="text-classification", gold="intent")
