"""Files with different schemas give one schema, or one line that says why not."""

import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import SpecError
from pipeline.reading.formats.arrow_types import JSON_TEXT, plain_schema
from pipeline.reading.formats.conform import Carried
from pipeline.reading.formats.jsonl import json_rows
from pipeline.reading.formats.lines import LineBlock
from pipeline.reading.schema import EVERY_COLUMN, Columns, resolve_schema
from pipeline.spec.job_spec import InputSpec
from tests.pipeline.small import file_at, source_file

Records = Sequence[Mapping[str, object]]


def inferred(
    folder: Path,
    *files: Records | bytes,
    fields: Mapping[str, str] | None = None,
    columns: Columns = EVERY_COLUMN,
) -> pa.Schema:
    found = []
    for number, records in enumerate(files):
        path = folder / f"{number}.jsonl"
        content = records if isinstance(records, bytes) else "\n".join(map(json.dumps, records)).encode()
        path.write_bytes(content)
        found.append(file_at(path))
    spec = InputSpec.model_validate({"urls": ["x"], "schema": fields})
    return resolve_schema(spec=spec, files=found, own={}, columns=columns)


def unified(*schemas: pa.Schema) -> pa.Schema:
    named = {f"file:///in/{number}.parquet": schema for number, schema in enumerate(schemas)}
    files = [source_file(uri) for uri in named]
    return resolve_schema(spec=InputSpec(urls=["x"]), files=files, own=named)


def test_columns_stand_in_the_order_in_which_they_first_appear(tmp_path: Path) -> None:
    schema = inferred(tmp_path, [{"b": 1, "a": "x"}], [{"c": True, "a": "y"}])
    assert schema == pa.schema([("b", pa.int64()), ("a", pa.string()), ("c", pa.bool_())])


def test_a_column_that_is_all_null_in_one_file_has_the_type_of_the_other(tmp_path: Path) -> None:
    nulls: Records = [{"a": None}] * 5
    assert inferred(tmp_path, nulls, [{"a": "x"}]) == pa.schema([("a", pa.string())])
    assert inferred(tmp_path, nulls, [{"a": 1.5}]) == pa.schema([("a", pa.float64())])
    assert inferred(tmp_path, nulls, nulls) == pa.schema([("a", pa.string())])


def test_whole_numbers_among_fractions_are_fractions(tmp_path: Path) -> None:
    assert inferred(tmp_path, [{"a": 1}, {"a": 1.5}, {"a": 2}]) == pa.schema([("a", pa.float64())])


MIXED: list[list[object]] = [
    ["x", "y", 5],
    [1, 2, "x", None],
    [True, False, 1],
    [[1], [2], {"b": 1}],
    [[], [[0, 3, "PER"]]],
    [12345678901234567890],
    [0.5, 9007199254740993],
    [{}],
    [{"k": {}}],
]


@pytest.mark.parametrize("values", MIXED, ids=json.dumps)
def test_values_that_no_type_carries_unchanged_are_json_text(tmp_path: Path, values: list[object]) -> None:
    records = [{"a": value, "text": "x"} for value in values]
    schema = inferred(tmp_path, records)
    assert schema.field("a").type == JSON_TEXT
    table = json_rows(LineBlock((tmp_path / "0.jsonl").read_bytes(), 0), schema=schema, carried=Carried(frozenset("a")))
    assert [value and json.loads(value) for value in table["a"].to_pylist()] == values
    assert table["__error__"].null_count == len(values)


def test_in_a_column_that_a_task_reads_the_commonest_type_wins(tmp_path: Path) -> None:
    read = Columns(read=frozenset("a"))
    assert inferred(tmp_path, [{"a": "x"}, {"a": "y"}, {"a": 5}], columns=read) == pa.schema([("a", pa.string())])


def test_a_column_that_is_not_kept_has_no_type(tmp_path: Path) -> None:
    kept = Columns(read=frozenset(["text"]), kept=frozenset(["id"]))
    schema = inferred(tmp_path, [{"id": 1, "text": "x", "a": [1, "x"]}, {"a": {"b": 1}}], columns=kept)
    assert schema == pa.schema([("id", pa.int64()), ("text", pa.string()), ("a", pa.null())])


def test_columns_of_delimited_files_are_text_but_for_those_that_are_declared(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("zip,share,text\n00501,1e5,x\n")
    spec = InputSpec.model_validate({"urls": ["x"], "schema": {"share": "double"}})
    schema = resolve_schema(spec=spec, files=[file_at(tmp_path / "a.csv")], own={})
    assert schema == pa.schema([("zip", pa.string()), ("share", pa.float64()), ("text", pa.string())])


def test_bad_lines_do_not_take_part(tmp_path: Path) -> None:
    content = b'\xef\xbb\xbfnope\n{"a": 1}\n[1, 2]\n{"b": "\\ud800"}\n{"\\ud800": 1}\n\n{"c": "\xff"}\n'
    schema = inferred(tmp_path, content)
    assert schema.field("a").type == pa.int64()
    assert set(schema.names) <= {"a", "b"}


def test_a_gzipped_file_and_one_that_is_broken_are_sampled_as_far_as_they_go(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b'{"a": 1}\n'))
    (tmp_path / "b.jsonl.gz").write_bytes(b"no gzip")
    files = [file_at(tmp_path / "a.jsonl.gz"), file_at(tmp_path / "b.jsonl.gz")]
    schema = resolve_schema(spec=InputSpec(urls=["x"]), files=files, own={})
    assert schema == pa.schema([("a", pa.int64())])


def test_a_long_file_is_sampled_at_its_beginning_by_whole_lines(tmp_path: Path) -> None:
    line = b'{"a": 1, "text": "' + b"x" * 1_000 + b'"}\n'
    schema = inferred(tmp_path, line * 1_500 + b'{"late": 1}\n')
    assert schema.names == ["a", "text"]


def test_declared_columns_are_taken_as_they_are(tmp_path: Path) -> None:
    schema = inferred(tmp_path, [{"a": 1}], fields={"b": "string", "a": "double"})
    assert schema == pa.schema([("b", pa.string()), ("a", pa.float64())])


def test_files_in_which_no_object_is_found_ask_for_a_declaration(tmp_path: Path) -> None:
    for content in (b"nope\n", b"{}\n"):
        with pytest.raises(SpecError, match=r"contain no object to infer columns from; .* set input\.schema"):
            inferred(tmp_path, content)


def test_files_without_a_line_have_no_columns(tmp_path: Path) -> None:
    assert inferred(tmp_path, b"") == pa.schema([])
    assert inferred(tmp_path, b"", [{"a": "x"}]) == pa.schema([("a", pa.string())])


def test_text_files_have_one_column_beside_those_of_others(tmp_path: Path) -> None:
    files = [source_file("file:///in/a.txt", format="text")]
    assert resolve_schema(spec=InputSpec(urls=["x"]), files=files, own={}) == pa.schema([("text", pa.string())])
    both = [*files, source_file("file:///in/b.parquet")]
    own = {"file:///in/b.parquet": pa.schema([("id", pa.int64()), ("text", pa.string())])}
    assert resolve_schema(spec=InputSpec(urls=["x"]), files=both, own=own).names == ["id", "text"]


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        (pa.int32(), pa.int64(), pa.int64()),
        (pa.int64(), pa.float64(), pa.float64()),
        (pa.string(), pa.large_string(), pa.large_string()),
        (pa.null(), pa.string(), pa.string()),
        (pa.dictionary(pa.int8(), pa.string()), pa.string(), pa.string()),
        (pa.null(), pa.null(), pa.string()),
    ],
)
def test_files_that_disagree_a_little_get_the_wider_type(
    one: pa.DataType, other: pa.DataType, both: pa.DataType
) -> None:
    for pair in ((one, other), (other, one)):
        assert unified(*(pa.schema([("a", kind)]) for kind in pair)) == pa.schema([("a", both)])


def test_files_that_disagree_for_good_are_refused_with_the_file_and_the_column() -> None:
    with pytest.raises(
        SpecError, match=r"1\.parquet has columns of different types .*annotate them separately"
    ) as caught:
        unified(pa.schema([("id", pa.int64())]), pa.schema([("id", pa.string())]))
    assert "id" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_files_claims_beyond_arrows_own_types_are_dropped() -> None:
    tensor = pa.fixed_shape_tensor(pa.int8(), [2])
    schema = pa.schema([pa.field("a", tensor, metadata={"k": "v"}), ("b", pa.uuid())], metadata={"pandas": "{}"})
    plain = plain_schema(schema)
    assert plain == pa.schema([("a", pa.list_(pa.int8(), 2)), ("b", pa.uuid())])
    assert plain.metadata is None
    assert plain.field("a").metadata is None


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["x", "y"]), inner, max_size=2),
    max_leaves=5,
)


@given(records=st.lists(st.dictionaries(st.sampled_from(["a", "b"]), VALUES, min_size=1), min_size=1, max_size=6))
def test_any_records_get_a_schema_that_their_own_rows_can_be_read_by(
    tmp_path_factory: pytest.TempPathFactory, records: list[dict[str, object]]
) -> None:
    folder = tmp_path_factory.mktemp("schema")
    try:
        schema = inferred(folder, records)
    except SpecError as error:
        assert "set input.schema" in str(error)  # noqa: PT017 - the only refusal there is, for objects without fields
        return
    carried = Carried(frozenset(schema.names))
    table = json_rows(LineBlock((folder / "0.jsonl").read_bytes(), 0), schema=schema, carried=carried)
    assert [as_json(row, schema) for row in table.select(schema.names).to_pylist()] == [
        {name: of_record(record.get(name), schema.field(name).type) for name in schema.names} for record in records
    ]
    assert not carried.unfit
    assert table["__error__"].null_count == len(records)
    sink = pa.BufferOutputStream()
    pa.parquet.write_table(table.select(schema.names), sink)
    assert pa.parquet.read_table(pa.BufferReader(sink.getvalue())).num_rows == len(records)


def as_json(row: Mapping[str, Any], schema: pa.Schema) -> dict[str, object]:
    """A row as the JSON that it came from, but for fields that are absent there and null here."""
    return {
        name: json.loads(value) if value is not None and schema.field(name).type == JSON_TEXT else without_nulls(value)
        for name, value in row.items()
    }


def without_nulls(value: object) -> object:
    if isinstance(value, dict):
        return {name: without_nulls(inner) for name, inner in value.items() if inner is not None}
    return [without_nulls(inner) for inner in value] if isinstance(value, list) else value


def of_record(value: object, kind: pa.DataType) -> object:
    return value if kind == JSON_TEXT else without_nulls(value)
