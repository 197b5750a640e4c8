"""Specs that can't work are refused before anything starts, in one line that names the fix."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.errors import PrelnError
from pipeline.output.folder import OutputFolder
from pipeline.output.job import CPU_CUT
from pipeline.prepare import absolute, open_job
from pipeline.store.storage import canonical
from tests.pipeline.small import CHECKPOINT, OfflineCluster, spec

COLUMNS = {"id": pa.array([1, 2]), "text": ["a", "b"], "tags": pa.array([["x"], []], pa.list_(pa.string()))}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table(COLUMNS), tmp_path / "in" / "a.parquet")
    return tmp_path


def opened(folder: Path, **keys: object) -> object:
    given = {"source": str(folder / "in"), "output": str(folder / "out"), **keys}
    return open_job(spec=spec(**given), cluster=OfflineCluster())


def refusal(folder: Path, **keys: object) -> str:
    with pytest.raises(PrelnError) as caught:
        opened(folder, **keys)
    message = str(caught.value)
    assert message
    assert "\n" not in message
    assert not (folder / "out").exists(), "a refused job leaves nothing behind"
    return message


def test_a_job_that_can_work_is_opened_without_a_trace(folder: Path) -> None:
    job, described = open_job(
        spec=spec(source=str(folder / "in"), output=str(folder / "out")), cluster=OfflineCluster()
    )
    assert job.schema.names == ["id", "text", "tags"]
    assert (job.dtype, job.cut) == ("float32", CPU_CUT)
    assert [item.rows for item in described] == [2]
    assert not (folder / "out").exists()


def test_a_missing_column_is_answered_with_those_there_are(folder: Path) -> None:
    source = {"urls": str(folder / "in"), "columns": {"text": "body"}}
    message = refusal(folder, source=source)
    assert "reads the column 'body', but the input has id, text, tags; set input.columns.text" in message


def test_a_part_that_the_task_does_not_read_is_answered_with_those_it_reads(folder: Path) -> None:
    source = {"urls": str(folder / "in"), "columns": {"txt": "text"}}
    assert "input.columns.txt: text-classification reads no such part; it reads text" in refusal(folder, source=source)


@pytest.mark.parametrize(("column", "kind"), [("id", "int64"), ("tags", "list")])
def test_a_column_that_is_no_text_is_named_with_its_type(folder: Path, column: str, kind: str) -> None:
    message = refusal(folder, source={"urls": str(folder / "in"), "columns": {"text": column}})
    assert f"the column '{column}' is {kind}" in message


def test_columns_to_keep_must_be_there_and_once(folder: Path) -> None:
    message = refusal(folder, source={"urls": str(folder / "in"), "keep": ["id", "titel"]})
    assert "input.keep: the input has no column 'titel'; it has id, text, tags" in message
    assert "twice" in refusal(folder, source={"urls": str(folder / "in"), "keep": ["id", "id"]})


@pytest.mark.parametrize("name", ["label", "score", "error", "row", "source", "truncated"])
def test_a_column_that_the_output_adds_too_is_refused_with_two_ways_out(folder: Path, name: str) -> None:
    pq.write_table(pa.table({"text": ["a"], name: ["x"]}), folder / "in" / "a.parquet")
    message = refusal(folder)
    assert f"input and output both have a column '{name}'" in message
    assert "output.prefix" in message
    assert "input.keep" in message
    opened(folder, output={"url": str(folder / "out"), "prefix": "preln_"})
    opened(folder, source={"urls": str(folder / "in"), "keep": ["text"]})


def test_an_input_that_matches_nothing_is_named(folder: Path) -> None:
    message = refusal(folder, source=str(folder / "in" / "*.jsonl"))
    assert "input.urls" in message
    assert "*.jsonl matches no file" in message


def test_an_input_of_which_nothing_can_be_read_says_why(folder: Path) -> None:
    (folder / "in" / "a.parquet").write_bytes(b"no Parquet")
    message = refusal(folder)
    assert "no input file can be read" in message
    assert "a.parquet" in message


def test_one_unreadable_file_among_good_ones_refuses_nothing(folder: Path) -> None:
    (folder / "in" / "bad.parquet").write_bytes(b"no Parquet")
    opened(folder)


def test_a_checkpoint_that_is_not_there_is_named(folder: Path) -> None:
    model = {"checkpoint": str(folder / "no-model"), "dtype": "float32"}
    assert "no-model" in refusal(folder, model=model)


def test_a_checkpoint_without_the_head_is_refused(folder: Path) -> None:
    shutil.copytree(CHECKPOINT, folder / "model")
    config = json.loads((folder / "model" / "config.json").read_text())
    config["num_labels"] = 7
    config["id2label"] = {str(number): f"l{number}" for number in range(7)}
    config["label2id"] = {f"l{number}": number for number in range(7)}
    (folder / "model" / "config.json").write_text(json.dumps(config))
    message = refusal(folder, model={"checkpoint": str(folder / "model"), "dtype": "float32"})
    assert "classifier" in message
    assert "7" in message


@pytest.mark.parametrize("gone", ["model.safetensors", "config.json"])
def test_a_checkpoint_that_lacks_a_file_is_refused_with_its_name(folder: Path, gone: str) -> None:
    shutil.copytree(CHECKPOINT, folder / "model")
    (folder / "model" / gone).unlink()
    assert gone in refusal(folder, model={"checkpoint": str(folder / "model"), "dtype": "float32"})


def test_a_checkpoint_without_a_tokenizer_is_refused(folder: Path) -> None:
    shutil.copytree(CHECKPOINT, folder / "model")
    for name in ("tokenizer.json", "vocab.json", "merges.txt"):
        (folder / "model" / name).unlink()
    assert "tokenizer" in refusal(folder, model={"checkpoint": str(folder / "model"), "dtype": "float32"})


def test_a_sequence_limit_beyond_the_model_is_refused(folder: Path) -> None:
    model = {"checkpoint": CHECKPOINT, "dtype": "float32", "max_length": 999}
    assert "model.max_length: 999 tokens are more than" in refusal(folder, model=model)


def test_a_folder_of_another_job_is_refused_and_left_as_it_is(folder: Path) -> None:
    job, _ = open_job(spec=spec(source=str(folder / "in"), output=str(folder / "out")), cluster=OfflineCluster())
    OutputFolder(job.output).freeze(job)
    before = (folder / "out" / "_job.json").read_bytes()
    with pytest.raises(PrelnError, match=r"belongs to another job: .*task\.name is") as caught:
        opened(folder, task="feature-extraction")
    assert "Choose another output" in str(caught.value)
    assert (folder / "out" / "_job.json").read_bytes() == before


def test_a_cut_that_was_fixed_can_not_be_changed(folder: Path) -> None:
    job, _ = open_job(spec=spec(source=str(folder / "in"), output=str(folder / "out")), cluster=OfflineCluster())
    OutputFolder(job.output).freeze(job)
    with pytest.raises(PrelnError, match=rf"shards\.rows was fixed at {CPU_CUT.rows} .* and is 5 here"):
        opened(folder, shards={"rows": 5})
    opened(folder, shards={"rows": CPU_CUT.rows})


def test_a_job_that_goes_on_needs_no_look_at_the_input(folder: Path) -> None:
    job, _ = open_job(spec=spec(source=str(folder / "in"), output=str(folder / "out")), cluster=OfflineCluster())
    OutputFolder(job.output).freeze(job)
    (folder / "in" / "a.parquet").unlink()
    again, described = open_job(
        spec=spec(source=str(folder / "in"), output=str(folder / "out")), cluster=OfflineCluster()
    )
    assert described == []
    assert again == job


def test_a_task_that_answers_with_much_makes_smaller_shards(folder: Path) -> None:
    job, _ = open_job(
        spec=spec(
            source=str(folder / "in"),
            output=str(folder / "out"),
            task={"name": "feature-extraction", "pooling": "none"},
        ),
        cluster=OfflineCluster(),
    )
    assert job.cut.rows < CPU_CUT.rows


def test_local_paths_are_made_absolute_and_urls_are_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    found = absolute(spec(source=["in", f"file://{folder}/in"], output="out"))
    assert found.input.urls == [canonical(str(folder / "in"))] * 2
    assert found.output.url == f"file://{folder}/out"
