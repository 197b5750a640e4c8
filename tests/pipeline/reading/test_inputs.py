"""Each file is listed once with its format, and nothing past its footer is read."""

import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import SpecError
from pipeline.reading.formats.parquet import read_ranges
from pipeline.reading.inputs import describe, list_files, recognised
from pipeline.spec.job_spec import InputSpec
from pipeline.store.storage import FileInfo, canonical, put
from tests.pipeline.small import file_at, source_file

OUTPUT = "file:///nowhere/out"


def listed(*urls: str | Path, wanted: str = "auto", output: str = OUTPUT) -> list[str]:
    spec = InputSpec.model_validate({"urls": [str(url) for url in urls], "format": wanted})
    return [file.uri.rpartition("/")[2] for file in list_files(spec, output=output).files]


@pytest.mark.parametrize(
    ("name", "kind", "compression"),
    [
        ("a.parquet", "parquet", "none"),
        ("a.pq", "parquet", "none"),
        ("A.PARQUET", "parquet", "none"),
        ("a.jsonl", "jsonl", "none"),
        ("a.ndjson", "jsonl", "none"),
        ("a.jsonl.gz", "jsonl", "gzip"),
        ("a.txt", "text", "none"),
        ("a.b.text.gzip", "text", "gzip"),
    ],
)
def test_a_suffix_tells_format_and_compression(name: str, kind: str, compression: str) -> None:
    file = recognised(FileInfo(uri=f"s3://b/in/{name}", size=1, version="v"), wanted="auto")
    assert file is not None
    assert (file.format, file.compression) == (kind, compression)
    assert file.sequential == (compression != "none")


@pytest.mark.parametrize("name", ["README", "a.json", "a.gz", "a.exe", "jsonl", ".parquet.d"])
def test_a_suffix_that_is_not_known_claims_no_file(name: str) -> None:
    assert recognised(FileInfo(uri=f"s3://b/in/{name}", size=1, version="v"), wanted="auto") is None


def test_the_format_asked_for_overrules_the_suffix() -> None:
    for name, compression in (("log", "none"), ("log.parquet", "none"), ("log.gz", "gzip")):
        file = recognised(FileInfo(uri=f"s3://b/in/{name}", size=1, version="v"), wanted="text")
        assert file is not None
        assert (file.format, file.compression) == ("text", compression)


def test_files_are_listed_once_in_the_order_of_the_urls_and_by_name(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt", "sub/c.jsonl"):
        put(str(tmp_path / name), b"x")
    assert listed(tmp_path) == ["a.txt", "b.txt", "c.jsonl"]
    assert listed(tmp_path / "b.txt", tmp_path) == ["b.txt", "a.txt", "c.jsonl"]
    assert listed(tmp_path / "*.txt", f"file://{tmp_path}/a.txt") == ["a.txt", "b.txt"]


def test_files_of_no_known_format_are_named_and_left_out(tmp_path: Path) -> None:
    put(str(tmp_path / "a.txt"), b"x")
    put(str(tmp_path / "README.md"), b"x")
    listing = list_files(InputSpec(urls=[str(tmp_path)]), output=OUTPUT)
    assert [file.uri for file in listing.files] == [canonical(str(tmp_path / "a.txt"))]
    assert listing.ignored == [canonical(str(tmp_path / "README.md"))]


def test_an_output_folder_inside_the_input_is_not_read(tmp_path: Path) -> None:
    put(str(tmp_path / "a.txt"), b"x")
    put(str(tmp_path / "out" / "data" / "a-0-0.parquet"), b"x")
    put(str(tmp_path / "output.txt"), b"x")
    assert listed(tmp_path, output=canonical(str(tmp_path / "out"))) == ["a.txt", "output.txt"]


def test_an_input_that_matches_nothing_is_named(tmp_path: Path) -> None:
    put(str(tmp_path / "a.txt"), b"x")
    for url in (tmp_path / "no.txt", tmp_path / "*.jsonl", tmp_path / "no"):
        with pytest.raises(SpecError, match=r"input\.urls: .* matches no file") as caught:
            listed(tmp_path / "a.txt", url)
        assert str(url) in str(caught.value)


def test_files_none_of_which_is_known_are_answered_with_the_suffixes(tmp_path: Path) -> None:
    put(str(tmp_path / "a.docx"), b"x")
    with pytest.raises(
        SpecError, match=r"none of the 1 file found, such as .*a\.docx, has .*\.parquet.* set input\.format"
    ):
        listed(tmp_path)


def test_a_parquet_file_tells_its_rows_bytes_and_schema(tmp_path: Path) -> None:
    table = pa.table({"id": pa.array(range(1000), pa.int64()), "text": ["the same"] * 1000})
    pq.write_table(table, tmp_path / "a.parquet", compression="zstd", use_dictionary=False)
    (found,) = describe([file_at(tmp_path / "a.parquet")])
    assert found.rows == 1000
    assert found.schema == table.schema
    assert found.failure is None
    assert found.bytes is not None
    assert found.bytes > found.file.size, "bytes count what is decompressed"


def test_lines_are_not_looked_at(tmp_path: Path) -> None:
    (found,) = describe([source_file(f"file://{tmp_path}/gone.jsonl", format="jsonl")])
    assert (found.rows, found.schema, found.failure) == (None, None, None)


def test_a_parquet_file_that_can_not_be_read_says_why_and_the_others_go_on(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "a.parquet")
    (tmp_path / "b.parquet").write_bytes(gzip.compress(b"no Parquet"))
    gone = source_file(f"file://{tmp_path}/gone.parquet")
    good, bad, absent = describe([file_at(tmp_path / "a.parquet"), file_at(tmp_path / "b.parquet"), gone])
    assert good.failure is None
    assert bad.failure is not None
    assert bad.failure.reason == "corrupt"
    assert absent.failure is not None
    assert absent.failure.reason == "gone"


@pytest.mark.parametrize("names", [["text", "text"], ["text", "__row__"], ["__error__"]])
def test_columns_that_could_be_mixed_up_make_a_file_unreadable(tmp_path: Path, names: list[str]) -> None:
    pq.write_table(pa.Table.from_arrays([pa.array(["x"])] * len(names), names=names), tmp_path / "a.parquet")
    (found,) = describe([file_at(tmp_path / "a.parquet")])
    assert found.failure is not None
    assert found.failure.reason == "unreadable"
    assert names[-1] in str(found.failure)


def test_uuids_and_json_stay_what_they_are_and_other_extension_types_are_their_storage(tmp_path: Path) -> None:
    ids = pa.array([b"0" * 16], pa.uuid())
    tensor = pa.fixed_shape_tensor(pa.int8(), [1])
    columns = {
        "id": ids,
        "more": pa.array(["{}"], pa.json_()),
        "list": pa.ListArray.from_arrays([0, 1], ids),
        "struct": pa.StructArray.from_arrays([ids], ["a"]),
        "tensor": pa.ExtensionArray.from_storage(tensor, pa.array([[1]], pa.list_(pa.int8(), 1))),
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    file = file_at(tmp_path / "a.parquet")
    (found,) = describe([file])
    assert found.schema is not None
    assert found.schema.field("id").type == pa.uuid()
    assert found.schema.field("more").type == pa.json_()
    assert not isinstance(found.schema.field("tensor").type, pa.BaseExtensionType)
    (rows,) = read_ranges(uri=file.uri, ranges=[(0, 1)], schema=found.schema)
    assert rows["__error__"].null_count == 1
    assert rows["id"][0].as_py().bytes == b"0" * 16
    text = "30303030-3030-3030-3030-303030303030"
    assert rows["list"].to_pylist() == [f'["{text}"]'], "inside another type Parquet does not hold them"
    assert rows["struct"].to_pylist() == [f'{{"a": "{text}"}}']
    assert rows["tensor"].to_pylist() == [[1]]


def test_a_column_of_uuids_in_a_folder_begun_under_the_first_rules_stays_bytes(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": pa.array([b"0" * 16], pa.uuid())}), tmp_path / "a.parquet")
    schema = pa.schema([("id", pa.binary(16))])
    (rows,) = read_ranges(uri=f"file://{tmp_path}/a.parquet", ranges=[(0, 1)], schema=schema)
    assert rows["id"].to_pylist() == [b"0" * 16]
