"""What `Dataset` finds in an output folder: current shards, answer columns by kind, rows in a stream."""

from pathlib import Path
from typing import get_args

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.analysis.dataset import KINDS, Dataset
from pipeline.errors import OutputError
from pipeline.inference.questions import MODEL_LOADER
from pipeline.output.folder import OutputFolder
from pipeline.spec.job_spec import JobSpec
from pipeline.tasks import AnyTask
from tests.pipeline import bad_run
from tests.pipeline.small import spec

ROWS = 10


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """A finished output folder of two tasks, by the demo checkpoint, in shards of four rows."""
    folder = tmp_path_factory.mktemp("dataset")
    texts = [None if row == 3 else f"Play song number {row} in Berlin." for row in range(ROWS)]
    pq.write_table(pa.table({"text": texts, "id": list(range(ROWS))}), folder / "in.parquet")
    values = {
        "input": str(folder / "in.parquet"),
        "model": {"checkpoint": str(repository / "jobs/checkpoints/demo"), "dtype": "float32"},
        "tasks": {"intents": "text-classification", "entities": "token-classification"},
        "output": {"url": str(folder / "out"), "prefix": "p_"},
        "resources": {"gpus": 0},
        "shards": {"rows": 4},
    }
    assert bad_run.annotate(JobSpec.parse(values), loader=MODEL_LOADER).state == "done"
    return folder / "out"


@pytest.mark.torch
def test_a_folder_says_its_columns_by_task_and_kind(made: Path) -> None:
    dataset = Dataset(str(made))
    assert [(answer.column, answer.task, answer.field, answer.kind) for answer in dataset.answers] == [
        ("p_intents_label", "intents", "label", "label"),
        ("p_intents_score", "intents", "score", "score"),
        ("p_entities_entities", "entities", "entities", "entities"),
    ]
    assert (dataset.own("row"), dataset.text_columns) == ("p_row", ["text"])


@pytest.mark.torch
def test_rows_come_in_order_in_the_columns_asked_for(made: Path) -> None:
    dataset = Dataset(str(made))
    batches = list(dataset.batches(["id", "p_error.reason"], rows=3))
    assert [batch.num_rows for _, batch in batches] == [3, 1, 3, 1, 2]
    table = pa.Table.from_batches([batch for _, batch in batches])
    assert table["id"].to_pylist() == list(range(ROWS))
    assert table["p_error"].to_pylist()[3] == {"reason": "empty"}
    assert [entry.first for entry, _ in dataset.batches(["id"], shards=dataset.shards[1:])] == [4, 8]


@pytest.mark.torch
def test_shards_without_a_manifest_are_found_and_one_that_vanishes_is_named(made: Path) -> None:
    dataset = Dataset(str(made))
    OutputFolder(str(made))._manifests.delete(OutputFolder(str(made))._manifests.names())
    assert Dataset(str(made)).shards == dataset.shards
    (made / "data" / dataset.shards[1].key).unlink()
    assert Dataset(str(made)).rows == ROWS - 4
    with pytest.raises(OutputError, match=rf"{dataset.shards[1].key}: gone since the folder was listed"):
        list(dataset.batches(["id"]))


def test_a_folder_without_rows_or_job_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"there is no _job\.json"):
        Dataset(str(tmp_path))
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.txt").write_bytes(b"")
    bad_run.annotate(spec(source=str(tmp_path / "in"), output=str(tmp_path / "out")))
    with pytest.raises(OutputError, match="no rows yet"):
        _ = Dataset(str(tmp_path / "out")).schema


def test_every_task_has_its_kinds() -> None:
    assert set(KINDS) == {str(task.model_fields["name"].default) for task in get_args(AnyTask)}
