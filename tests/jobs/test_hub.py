"""Models of the Hub in jobs, from a server of its API on loopback: `hf://org/name`, and what a bare name says."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import preln
from models.checkpoint import Checkpoint
from models.errors import CheckpointError
from models.load import load
from tests.hub_server import Hub, serving

pytest.importorskip("huggingface_hub", reason="the extra hub is not installed")
TEXTS = ["book a table for two", "", "what is the weather in Paris"]


@pytest.fixture(scope="module")
def hub(repository: Path) -> Iterator[Hub]:
    with serving({"somebody/intents": {"main": repository / "jobs/checkpoints/random-tiny"}}) as hub:
        yield hub


def preln_at(hub: Hub, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command, in a folder, with that Hub."""
    variables = {"HF_ENDPOINT": hub.url, "HF_HOME": str(folder / "hf"), "PRELN_CACHE": str(folder / "cache")}
    return subprocess.run(
        [sys.executable, "-m", "jobs", *arguments],
        cwd=folder,
        env={**os.environ, **variables, "PYTHONPATH": str(Path(preln.__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=170,
    )


def job(folder: Path, model: str) -> list[str]:
    (folder / "in.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    flags = ["--task", "text-classification", "--model", model, "--input", "in.jsonl", "--output", "out"]
    return [*flags, "--set", "resources.gpus=0", "--dtype", "float32"]


def test_a_bare_name_of_the_hub_says_how_to_write_it(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = r"somebody/intents: no such checkpoint folder; .* write hf://somebody/intents \(pip install 'preln\[hub\]'\)"
    done = preln_at(hub, tmp_path, "plan", *job(tmp_path, "somebody/intents"))
    assert done.returncode == 2
    assert done.stderr.startswith(
        "preln: somebody/intents: no such checkpoint folder; if it is a model of the Hugging Face"
    )
    assert "write hf://somebody/intents (pip install 'preln[hub]')" in done.stderr
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=said):
        preln.annotate(TEXTS, model="somebody/intents", task="text-classification")
    with pytest.raises(CheckpointError, match=said):
        Checkpoint.open("somebody/intents")
    with pytest.raises(CheckpointError, match=said):
        load(checkpoint="somebody/intents", heads=["encoder"])
    (tmp_path / "somebody" / "intents").mkdir(parents=True)
    with pytest.raises(CheckpointError, match="no such checkpoint folder, or it is empty"):
        Checkpoint.open("somebody/intents")


@pytest.mark.ray
@pytest.mark.torch
def test_a_job_answers_with_a_model_of_the_hub_as_with_its_folder(hub: Hub, tmp_path: Path, repository: Path) -> None:
    """The same rows, and a second run that finds nothing to do."""
    flags = job(tmp_path, "hf://somebody/intents")
    done = preln_at(hub, tmp_path, "annotate", *flags)
    assert done.returncode == 0, done.stderr
    rows = pq.read_table(tmp_path / "out" / "data").select(["label", "score"])
    here = preln.annotate(
        TEXTS,
        model=repository / "jobs/checkpoints/random-tiny",
        task="text-classification",
        dtype="float32",
        device="cpu",
    )
    assert rows["label"].to_pylist() == here["label"].to_pylist()
    assert rows["score"].to_pylist() == pytest.approx(here["score"].to_pylist(), abs=1e-5, nan_ok=True)
    again = preln_at(hub, tmp_path, "annotate", *flags)
    assert again.returncode == 0, again.stderr
    missing = preln_at(hub, tmp_path, "plan", *job(tmp_path, "hf://somebody/nothing"))
    assert missing.returncode == 2
    assert missing.stderr.startswith("preln: hf://somebody/nothing: no such checkpoint folder")
