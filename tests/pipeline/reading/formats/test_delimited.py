"""Delimited files: records that span lines, headers, what is refused, and the same records whatever the cut."""

import csv
import gzip
import io
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import SourceError
from pipeline.reading.formats.conform import Carried
from pipeline.reading.formats.delimited import delimited_rows, open_delimited
from pipeline.reading.formats.streams import stream_blocks
from pipeline.shards import CutRule, SourceFile

SCHEMA = pa.schema([("id", pa.int64()), ("text", pa.string())])
LINE_BYTES = 10_000


def rows(
    path: Path,
    *,
    rule: CutRule,
    schema: pa.Schema = SCHEMA,
    compression: str = "none",
    delimiter: str | None = None,
    quote: str = "double",
    line_bytes: int = LINE_BYTES,
    carried: Carried | None = None,
) -> pa.Table:
    """All rows of a file, read block by block."""
    kind = "tsv" if ".tsv" in path.name else "csv"
    source = SourceFile(str(path), path.stat().st_size, "1", kind, compression)  # type: ignore[arg-type]
    file = open_delimited(source, delimiter=delimiter, quote=quote, most_bytes=line_bytes)
    blocks = stream_blocks(
        uri=str(path), compression=compression, rule=rule, line_bytes=line_bytes, record_ends=file.record_ends
    )
    tables = [delimited_rows(block.lines, file=file, schema=schema, carried=carried) for block in blocks]
    return pa.concat_tables(tables)


def packed(content: bytes, codec: str) -> bytes:
    """A member of a gzip file, or a frame of a zstd file."""
    return (
        gzip.compress(content, mtime=0) if codec == "gzip" else bytes(pa.compress(content, codec=codec, asbytes=True))
    )


ROOMY = CutRule(rows=1_000, bytes=1_000_000)


@given(
    texts=st.lists(
        st.text(st.characters(codec="utf-8", exclude_characters="\r\x00"), max_size=12), min_size=1, max_size=12
    ),
    per_block=st.integers(1, 4),
)
def test_what_a_csv_writer_writes_comes_back_whatever_the_cut(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], per_block: int
) -> None:
    buffer = io.StringIO()
    writer = csv.writer(buffer, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerow(["id", "text"])
    writer.writerows(enumerate(texts))
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    path.write_bytes(buffer.getvalue().encode())
    whole, parts = rows(path, rule=ROOMY), rows(path, rule=CutRule(rows=per_block, bytes=1_000_000))
    assert whole["text"].to_pylist() == texts
    assert parts.to_pylist() == whole.to_pylist()
    assert whole["__error__"].null_count == len(texts)
    content = path.read_bytes()
    assert all(content[offset : offset + 1] == b'"' for offset in whole["__row__"].to_pylist())


def test_a_record_with_another_number_of_fields_is_an_error_of_its_row(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b'id,text\n1,one\n2\n3,three,more\n\n4,"four\nlines"\nx,five\n6,\xff\n')
    table = rows(path, rule=ROOMY)
    assert table["text"].to_pylist() == ["one", None, None, "four\nlines", "five", None]
    assert table["id"].to_pylist() == [1, None, None, 4, None, None]
    found = [error and error["reason"] for error in table["__error__"].to_pylist()]
    assert found == [None, "malformed-csv", "malformed-csv", None, "wrong-type", "invalid-utf8"]
    assert "1 field, and the header has 2" in table["__error__"][1].as_py()["message"]


def test_tabs_marks_and_crlf_are_understood(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_bytes(b"\xef\xbb\xbfid\ttext\r\n1\ta, b\r\n")
    assert rows(path, rule=ROOMY).select(["id", "text"]).to_pylist() == [{"id": 1, "text": "a, b"}]


@pytest.mark.parametrize("content", [b"", b"id,text\n", b"id,text"])
def test_a_file_without_records_has_no_rows(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    assert rows(path, rule=ROOMY).num_rows == 0


def test_a_column_named_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"text,text\n1,2\n")
    with pytest.raises(SourceError, match="names the column 'text' twice"):
        rows(path, rule=ROOMY)


@pytest.mark.parametrize("codec", ["gzip", "zstd"])
def test_all_members_of_a_compressed_file_are_read(tmp_path: Path, codec: str) -> None:
    path = tmp_path / "a.csv.x"
    pieces = [packed(piece, codec) for piece in (b"id,text\n1,one\n", b"2,two\n")]
    path.write_bytes(b"".join(pieces))
    assert rows(path, rule=ROOMY, compression=codec)["text"].to_pylist() == ["one", "two"]


@pytest.mark.parametrize("codec", ["gzip", "zstd"])
def test_a_compressed_file_that_breaks_off_is_corrupt(tmp_path: Path, codec: str) -> None:
    content = b"id,text\n" + b"".join(b"%d,text %d\n" % (index, index * 7919) for index in range(20_000))
    path = tmp_path / "a.csv.x"
    path.write_bytes(packed(content, codec)[: len(packed(content, codec)) // 2])
    with pytest.raises(SourceError) as caught:
        rows(path, rule=CutRule(rows=100, bytes=100_000), compression=codec)
    assert caught.value.reason == "corrupt"
