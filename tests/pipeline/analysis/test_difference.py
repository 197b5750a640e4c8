"""Two output folders are joined row by row whatever their cuts, or compared as distributions."""

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file, save_file

from jobs.checkpoints.make_random import make_random
from models.boundary import Head
from pipeline.analysis.changes import LabelChanges, SpanChanges, VectorChanges
from pipeline.analysis.dataset import Dataset
from pipeline.analysis.difference import difference
from pipeline.analysis.join import Join
from pipeline.errors import SpecError
from tests.conftest import S3Server
from tests.pipeline.outputs import demo_job
from tests.pipeline.run_here import run_here
from tests.upgrade.half_written import NAMES, HalfWritten, VersionedStore, versioned_store

pytestmark = pytest.mark.torch


def rows_of(output: str) -> dict[tuple[str, int], dict[str, Any]]:
    """All rows of an output, by source and row."""
    return {(row["source"], row["row"]): row for row in ds.dataset(f"{output}/data").to_table().to_pylist()}


def test_rows_are_joined_one_by_one_whatever_the_cut(demo_output: str, short_output: str) -> None:
    a, b = rows_of(demo_output), rows_of(short_output)
    found = difference(demo_output, short_output)
    assert (found.joined, found.only_a, found.only_b) == (len(a), 0, 0)
    intents = found.tasks[0].changes
    assert isinstance(intents, LabelChanges)
    pairs = [(a[place]["intents_label"], b[place]["intents_label"]) for place in a]
    assert intents.flipped == sum(one != other for one, other in pairs) > 0
    assert all(intents.confusion[pair] == pairs.count(pair) for pair in pairs)
    assert intents.shift.total == pytest.approx(
        sum(b[place]["intents_score"] - a[place]["intents_score"] for place in a)
    )

    def entities(row: dict[str, Any]) -> set[tuple[str, int, int]]:
        return {(one["entity_group"], one["start"], one["end"]) for one in row["entities_entities"] or ()}

    spans = found.tasks[1].changes
    assert isinstance(spans, SpanChanges)
    kept = sum(len(entities(a[place]) & entities(b[place])) for place in a)
    assert sum(counts["kept"] for counts in spans.counts.values()) == kept
    assert spans.flipped == sum(entities(a[place]) != entities(b[place]) for place in a) > 0

    def answers(row: dict[str, Any]) -> object:
        masks = row["masks_masks"]
        best = masks if masks is None else [mask["fills"][0]["token_str"] for mask in masks]
        return row["intents_label"], entities(row), best

    assert found.flipped == sum(answers(a[place]) != answers(b[place]) for place in a)
    assert found.flips == found.flipped / found.joined
    assert found.settings["model.max_length"] == (256, 12)
    assert "model.dtype" not in found.settings
    assert "only A has the task questions" in found.notes
    best = found.tasks[0].examples[0]
    assert best.flipped
    assert best.texts == {"text": a[best.source, best.row]["text"]}
    assert best.a["label"] != best.b["label"]
    sizes = [example.size for example in found.tasks[0].examples if example.flipped]
    assert sizes == sorted(sizes, reverse=True)
    assert not found.tasks[0].gaps


def test_an_output_is_no_different_from_itself(demo_output: str) -> None:
    found = difference(demo_output, demo_output)
    assert (found.flips, dict(found.settings), found.notes) == (0, {}, ())
    assert all(not task.examples and task.changes.shift.largest == 0 for task in found.tasks)


def test_other_rows_are_compared_as_distributions(demo_output: str, other_output: str) -> None:
    found = difference(demo_output, other_output)
    assert (found.joined, found.flips) == (0, None)
    gaps = {(task.names[0], gap.of): gap for task in found.tasks for gap in task.gaps}
    assert gaps["intents", "labels"].n_a == found.only_a
    assert gaps["intents", "labels"].n_b == found.only_b == 130
    assert {of for name, of in gaps if name == "intents"} == {
        "rows without an answer", "labels", "score", "characters of a text", "tokens of a text", "unknown tokens",
    }  # fmt: skip
    assert gaps["intents", "unknown tokens"].value == 0  # byte-level BPE has none
    assert gaps["intents", "characters of a text"].n_b == 130
    assert any("no row in common" in note for note in found.notes)


def test_rows_of_changed_files_and_of_other_files_are_not_joined(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    job: dict[str, Any] = {"urls": [str(folder)], "tasks": {"intents": "text-classification"}}
    for name, texts in (("a", ["pay my bill", "hello"]), ("b", ["one", "two", "three"])):
        pq.write_table(pa.table({"text": texts}), folder / f"{name}.parquet")
    one = demo_job(tmp_path / "one", **job)
    pq.write_table(pa.table({"text": ["pay my bill", "hello", "later"]}), folder / "a.parquet")
    os.utime(folder / "a.parquet", (2e9, 2e9))
    pq.write_table(pa.table({"text": ["new"]}), folder / "c.parquet")
    two = demo_job(tmp_path / "two", **job)
    found = difference(one, two)
    assert (found.joined, found.only_a, found.only_b, found.flipped) == (3, 2, 4, 0)
    assert [uri.rpartition("/")[2] for uri in found.changed_files] == ["a.parquet"]
    assert "files that changed between the runs are not joined: 1" in " ".join(found.notes)


def test_folders_without_a_common_task_are_refused(demo_output: str, tmp_path: Path) -> None:
    make_random(folder=tmp_path / "m", head="encoder")
    (tmp_path / "in.txt").write_text("a\n")
    run_here(
        input=str(tmp_path / "in.txt"),
        model={"checkpoint": str(tmp_path / "m"), "dtype": "float32"},
        task="feature-extraction",
        output=str(tmp_path / "out"),
        resources={"gpus": 0},
    )
    with pytest.raises(
        SpecError, match="no task in common: A has intents, entities, masks, questions, B has feature-extraction"
    ):
        difference(demo_output, str(tmp_path / "out"))


def shaken(weights: Path) -> None:
    """Change a checkpoint's weights a little."""
    random = np.random.default_rng(0)
    tensors = load_file(weights)
    save_file(
        {name: (one + random.normal(0, 0.1, one.shape)).astype(one.dtype) for name, one in tensors.items()}, weights
    )


HEADS: list[tuple[Head, Any]] = [
    ("encoder", {"name": "feature-extraction", "pooling": "mean"}),
    ("encoder", {"name": "feature-extraction", "pooling": "none"}),
    ("causal-lm", "text-scoring"),
    ("multiple-choice", "multiple-choice"),
    ("sequence-classification", {"name": "text-classification", "threshold": 0.3}),
]


@pytest.mark.parametrize(
    ("head", "task"), HEADS, ids=["vectors", "vectors of tokens", "scores", "choices", "several labels"]
)
def test_the_other_tasks_are_compared_on_two_checkpoints(head: Head, task: Any, tmp_path: Path) -> None:
    texts = ["It rained all day.", "The street was wet.", "", "Nobody came to the station."]
    choices = [["yes", "no", "perhaps not"]] * 4
    pq.write_table(pa.table({"text": texts, "prompt": texts, "choices": choices}), tmp_path / "in.parquet")
    outputs = []
    for seed in (0, 1):
        make_random(folder=tmp_path / f"m{seed}", head=head)
        if seed:
            shaken(tmp_path / f"m{seed}" / "model.safetensors")
        job = {
            "input": str(tmp_path / "in.parquet"),
            "model": {"checkpoint": str(tmp_path / f"m{seed}"), "dtype": "float32"},
        }
        outputs.append(str(tmp_path / f"out{seed}"))
        run_here(**job, task=task, output=outputs[-1], resources={"gpus": 0}, limits={"error_share": 1.0})
    found = difference(*outputs)
    (only,) = found.tasks
    assert only.changes.rows == 3  # an empty text is answered by neither
    assert only.changes.shift.rows == 3
    assert 0 < only.changes.flipped == found.flipped
    assert set(found.settings) == {"model.checkpoint", "checkpoint digest"}
    if isinstance(only.changes, VectorChanges):
        assert only.changes.cosines.largest > 0.1
    assert only.examples[0].size > 0
    shutil.rmtree(tmp_path / "m0")
    assert difference(*outputs).flipped == found.flipped  # the checkpoint is not needed


@pytest.mark.storage
def test_outputs_on_s3_are_joined_too(s3_server: S3Server, short_output: str, demo_output: str) -> None:
    import s3fs

    bucket = s3_server.make_bucket()
    store = s3fs.S3FileSystem()
    for name, output in (("a", demo_output), ("b", short_output)):
        store.put(output, f"{bucket}/{name}", recursive=True)
    there, here = difference(f"{bucket}/a", f"{bucket}/b"), difference(demo_output, short_output)
    assert (there.flipped, there.joined) == (here.flipped, here.joined)
    assert [example.texts for example in there.tasks[0].examples] == [
        example.texts for example in here.tasks[0].examples
    ]


@pytest.fixture(scope="module")
def store(s3_server: S3Server) -> Any:
    with versioned_store(s3_server.endpoint) as versioned:
        yield versioned


@pytest.mark.storage
@pytest.mark.parametrize("name", NAMES)
def test_half_written_folders_of_older_versions_are_read(name: str, store: VersionedStore) -> None:
    folder = HalfWritten.load(name)
    store.put(folder, folder.before)
    try:
        stored = Dataset(folder.url)
        rows = sum(entry.rows for entry in stored.shards)
        join = Join(a=stored, b=stored, columns_a={"row": stored.own("row")}, columns_b={"row": stored.own("row")})
        assert sum(pair.a.num_rows for pair in join.pairs()) == rows > 0
        found = difference(folder.url, folder.url)
        assert (found.joined, found.flipped, found.only_a, found.only_b) == (rows, 0, 0, 0)
    finally:
        store.empty(folder)
