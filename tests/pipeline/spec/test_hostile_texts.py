"""Job files, configs and records that no program wrote are refused in one line, whatever Python raises for them."""

import shutil
from pathlib import Path

import pytest

from jobs.training.spec import TrainSpec
from models.checkpoint import Checkpoint
from models.errors import CheckpointError
from models.weight_files import INDEX_NAME
from pipeline.errors import OutputError, SpecError
from pipeline.output.status import read_status
from pipeline.output.verify import verify
from pipeline.spec.settings import override, read_yaml
from tests.pipeline.small import CHECKPOINT

DEEP = "[" * 200_000
LONG = '{"vocab_size": ' + "9" * 5_000 + "}"


@pytest.mark.parametrize(
    "text",
    ["a: 2026-99-99", "a: !!timestamp foo", f"a: {'9' * 5_000}", "a: !!binary x", "<<: 5", "a: \x00", "[" * 5_000],
)
def test_yaml_that_python_refuses_in_its_own_way_is_refused_in_one_line(text: str) -> None:
    for read in (read_yaml, TrainSpec.from_yaml, lambda text: override(values={}, settings=[f"a={text}"])):
        with pytest.raises(SpecError) as refused:
            read(text)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("content", [DEEP, LONG, "[1]", "null", '{"identity": {"tasks": 5}, "spec": {"tasks": {}}}'])
def test_a_job_json_of_no_job_is_refused_in_one_line(content: str, tmp_path: Path) -> None:
    (tmp_path / "_job.json").write_text(content)
    for read in (read_status, verify):
        with pytest.raises(OutputError, match=r"_job\.json was not written by preln") as refused:
            read(str(tmp_path))
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("content", [DEEP, LONG])
@pytest.mark.parametrize("name", ["vocab.json", INDEX_NAME, "config.json"])
def test_a_checkpoints_files_of_no_program_are_refused_in_one_line(name: str, content: str, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    shutil.copytree(CHECKPOINT, folder)
    for beside in {"vocab.json": ["tokenizer.json"], INDEX_NAME: ["model.safetensors"]}.get(name, []):
        (folder / beside).unlink()
    (folder / name).write_text(content)
    with pytest.raises(CheckpointError) as refused:
        Checkpoint.open(str(folder)).digest()
    assert "\n" not in str(refused.value)
