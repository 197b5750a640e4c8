"""`preln doctor` tells what a job would find here, and fails where one would."""

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from jobs import diagnosis
from jobs.cli import app
from pipeline.inference import supervisor as supervisor_module
from tests.conftest import S3Server

pytestmark = pytest.mark.torch


def diagnose(*words: str) -> tuple[int, dict[str, dict[str, object]]]:
    """The exit code, and findings by what they are about."""
    run = CliRunner().invoke(app, ["doctor", "--json", *words])
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    return run.exit_code, {line["about"]: line for line in lines}


def test_a_machine_that_can_run_jobs_is_described(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "LEAST_DISK_GB", 0.0)
    monkeypatch.setattr(diagnosis, "LEAST_MEMORY_GB", 0.0)
    code, found = diagnose("--framework", "torch", "--cpu", "--storage", str(tmp_path))
    assert code == 0, found
    assert "vectors" in str(found["torch"]["said"])
    assert str(found["torch dtype"]["said"]).startswith("auto is ")
    model = str(found["torch model"]["said"])
    assert "attention groups of equal lengths" in model
    assert "prepacked" in model
    assert found["storage"]["said"] == f"{tmp_path} answers: 0 objects"
    assert {"memory", "disk", "ray"} <= set(found)


def test_a_gpu_that_can_not_be_used_and_a_store_that_is_away_fail_with_the_fix(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    if Path("/dev/nvidia0").exists():
        pytest.skip("there is a GPU here")
    code, found = diagnose("--framework", "torch", "--gpu", "--storage", "s3://no-such-bucket-of-preln/x")
    assert code == 1
    assert found["torch"]["good"] is False
    assert "can't use a GPU" in str(found["torch"]["said"])
    assert "resources.gpus: 0" in str(found["torch"]["fix"])
    assert "torch model" not in found


def test_what_does_not_run_is_said_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "MODEL_LOADER", "models.load:lode")
    finding = diagnosis.try_model("torch", "cpu", "float32")
    assert finding.good is False
    assert "lode" in finding.said
    run = CliRunner().invoke(app, ["doctor", "--framework", "mxnet"])
    assert "mxnet" in str(run.exception)
    assert sys.modules[supervisor_module.__name__]
