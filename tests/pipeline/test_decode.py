"""Every input row comes out once, in order, with its own answer."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.bundle import ShardTables
from pipeline.decode import annotated
from pipeline.encode import encode_rows
from pipeline.errors import RowError
from pipeline.inference.answers import answers_table
from pipeline.inference.questions import facts_of
from pipeline.output.columns import carried_columns, output_schema
from pipeline.rows import error_array
from pipeline.spec.job_spec import JobSpec
from tests.pipeline.small import only_facts, only_task, reasons, rows_table, shard, source_file, spec

SPEC = spec()
LABELS = only_facts(SPEC).labels
HIDDEN = 64
FILE = source_file("s3://b/in/a.parquet")


def logits_for(text: str) -> list[float]:
    """Logits whose largest is that of the label whose number the text's length gives."""
    return [4.0 if label == len(text) % len(LABELS) else 0.0 for label in range(len(LABELS))]


def shard_of(
    columns: Mapping[str, Sequence[object]], *, job: JobSpec, failing: Mapping[str, RowError] | None = None
) -> ShardTables:
    """A shard that has been through encode and infer, the latter made up; failing: texts whose windows have failed."""
    rows = rows_table({name: pa.array(values) for name, values in columns.items()}, first=100)
    facts = only_facts(job)
    marks, windows = encode_rows(rows, task=only_task(job), spec=job, facts=facts)
    texts = [facts.tokenizer.backend.decode(ids) for ids in windows["input_ids"].to_pylist()]
    errors = [(failing or {}).get(text) for text in texts]
    arrays = {"logits": np.array([logits_for(text) for text in texts], np.float32).reshape(-1, len(LABELS))}
    if job.task_name == "feature-extraction":
        arrays = {"hidden": np.array([[len(text)] * HIDDEN for text in texts], np.float32).reshape(-1, HIDDEN)}
    for number, error in enumerate(errors):
        if error:
            next(iter(arrays.values()))[number] = np.nan
    tables = {
        "marks": marks,
        "windows": windows,
        "answers": answers_table(arrays if texts else {}),
        "failures": pa.table({"error": error_array(errors)}),
    }
    return ShardTables(shard=shard(100, 100 + rows.num_rows, file=FILE), rows=rows, tasks={job.task_name: tables})


def decoded(
    columns: Mapping[str, Any], *, job: JobSpec = SPEC, failing: Mapping[str, RowError] | None = None
) -> pa.Table:
    schema = pa.schema([(name, pa.array(values).type) for name, values in columns.items()])
    return annotated(shard_of(columns, job=job, failing=failing), schema=schema, spec=job, facts=facts_of(job))


def test_the_output_has_the_inputs_columns_then_source_row_answers_truncated_and_error() -> None:
    table = decoded({"id": [7, 8], "text": ["abc", "abcd"], "more": [{"deep": 1}, None]})
    assert table.column_names == ["id", "text", "more", "source", "row", "label", "score", "truncated", "error"]
    assert table["source"].to_pylist() == [FILE.uri] * 2
    assert table["row"].to_pylist() == [100, 101]
    assert table["more"].to_pylist() == [{"deep": 1}, None]
    assert table["label"].to_pylist() == [LABELS[3], LABELS[0]]
    expected = np.exp(4) / (np.exp(4) + len(LABELS) - 1)
    np.testing.assert_allclose(table["score"].to_numpy(), expected, rtol=1e-6)


@given(texts=st.lists(st.sampled_from(["a", "bb", "ccc", "dddd", "", " ", None, "x " * 300]), max_size=25))
def test_every_row_is_there_once_in_order_with_its_own_answer(texts: list[str | None]) -> None:
    table = decoded({"text": pa.array(texts, pa.string()).to_pylist() or pa.array([], pa.string())})
    assert table["text"].to_pylist() == texts
    assert table["row"].to_pylist() == list(range(100, 100 + len(texts)))
    for text, row in zip(texts, table.to_pylist(), strict=True):
        if text is None or not text.strip():
            assert (row["error"]["reason"], row["label"], row["score"]) == ("empty", None, None)
        else:
            assert row["error"] is None
            assert row["truncated"] == (len(text) > 100)
            if not row["truncated"]:
                assert row["label"] == LABELS[len(text) % len(LABELS)]


def test_a_failed_window_is_an_error_of_every_row_with_its_text_and_of_no_other() -> None:
    failing = {"bb": ("killed-replica", "killed the replica (SIGSEGV) 2 times, alone")}
    table = decoded({"text": ["a", "bb", "ccc", "bb"]}, failing=failing)
    assert reasons(table["error"]) == [None, "killed-replica", None, "killed-replica"]
    assert table["label"].to_pylist() == [LABELS[1], None, LABELS[3], None]
    assert table["score"].null_count == 2


def test_a_shard_in_which_every_window_failed_has_only_errors() -> None:
    table = decoded({"text": ["a", "bb"]}, failing={"a": ("nan", "why"), "bb": ("nan", "why")})
    assert reasons(table["error"]) == ["nan", "nan"]
    assert table["label"].null_count == 2


def test_a_shard_without_an_answerable_row_has_the_same_schema() -> None:
    nothing = decoded({"text": [*pa.array([None, ""], pa.string()).to_pylist(), "  "]})
    assert nothing.schema.equals(decoded({"text": ["a"]}).schema)
    assert reasons(nothing["error"]) == ["empty"] * 3


def test_the_columns_kept_are_those_named_in_the_order_named() -> None:
    columns = {"id": [1], "text": ["a"], "other": ["x"]}
    chosen = spec(source={"urls": "in", "keep": ["other", "id"]})
    assert decoded(columns, job=chosen).column_names[:3] == ["other", "id", "source"]
    none = spec(source={"urls": "in", "keep": []})
    assert decoded(columns, job=none).column_names[0] == "source"
    assert carried_columns(schema=pa.schema([("a", pa.int8())]), keep=None) == ["a"]


def test_a_prefix_goes_before_every_added_column_and_no_other() -> None:
    chosen = spec(output={"url": "out", "prefix": "preln_"})
    names = decoded({"text": ["a"], "label": ["gold"]}, job=chosen).column_names
    added = ["source", "row", "label", "score", "truncated", "error"]
    assert names == ["text", "label", *(f"preln_{name}" for name in added)]


def test_embeddings_are_lists_of_fixed_size_and_null_where_there_is_an_error() -> None:
    chosen = spec(task={"name": "feature-extraction", "pooling": "cls"})
    table = decoded({"text": ["a", None, "ccc"]}, job=chosen)
    assert table["embedding"].type == pa.list_(pa.float32(), HIDDEN)
    assert table["embedding"].to_pylist() == [[1.0] * HIDDEN, None, [3.0] * HIDDEN]


def test_scores_list_the_best_labels_first() -> None:
    chosen = spec(task={"name": "text-classification", "top_k": 2})
    (scores,) = decoded({"text": ["abc"]}, job=chosen)["scores"].to_pylist()
    assert [entry["label"] for entry in scores] == [LABELS[3], LABELS[0]]
    assert scores[0]["score"] > scores[1]["score"]


@pytest.mark.parametrize("task", ["text-classification", {"name": "feature-extraction"}])
def test_what_is_decoded_has_the_schema_that_was_announced(task: object) -> None:
    chosen = spec(task=task)
    schema = pa.schema([("text", pa.string())])
    assert decoded({"text": ["a"]}, job=chosen).schema.equals(
        output_schema(schema=schema, spec=chosen, facts=facts_of(chosen))
    )
