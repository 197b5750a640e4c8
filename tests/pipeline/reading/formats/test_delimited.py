"""Delimited files: records that span lines, headers, what is refused, and the same records whatever the cut."""

import csv
import gzip
import io
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest
import zstandard
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


def test_zeros_behind_a_gzip_file_are_padding(tmp_path: Path) -> None:
    path = tmp_path / "a.csv.gz"
    path.write_bytes(packed(b"id,text\n1,one\n", "gzip") + b"\0" * 1_000)
    assert rows(path, rule=ROOMY, compression="gzip")["text"].to_pylist() == ["one"]


def test_a_zstd_window_that_is_too_large_is_answered_with_the_way_out(tmp_path: Path) -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=30, enable_ldm=True)
    path = tmp_path / "a.csv.zst"
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    path.write_bytes(compressor.compress(b"id,text\n1,one\n") + compressor.flush())
    with pytest.raises(SourceError, match=r"--long=27"):
        rows(path, rule=ROOMY, compression="zstd")


def test_a_declared_type_that_would_change_a_value_makes_it_null_and_counts_it(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id,share,text\n00501,1e5,a\n7,12345678901234567890,b\nx,0.50,c\n,,d\n+5,1e999,e\n")
    schema = pa.schema([("id", pa.int64()), ("share", pa.float64()), ("text", pa.string())])
    carried = Carried(frozenset(["id", "share"]))
    table = rows(path, rule=ROOMY, schema=schema, carried=carried)
    assert table["id"].to_pylist() == [None, 7, None, None, None]
    assert table["share"].to_pylist() == [1e5, None, 0.5, None, None]
    assert table["text"].to_pylist() == ["a", "b", "c", "d", "e"]
    assert carried.unfit == {"id": 3, "share": 2}
    assert table["__error__"].null_count == 5


@given(numbers=st.lists(st.from_regex(r"-?(0|[1-9][0-9]{0,25})(\.[0-9]{1,25})?(e[+-]?[0-9]{1,3})?", fullmatch=True)))
def test_a_number_that_is_carried_prints_back(tmp_path_factory: pytest.TempPathFactory, numbers: list[str]) -> None:
    path = tmp_path_factory.mktemp("numbers") / "a.csv"
    path.write_text("number,text\n" + "".join(f"{number},x\n" for number in numbers))
    schema = pa.schema([("number", pa.float64()), ("text", pa.string())])
    table = rows(path, rule=ROOMY, schema=schema, carried=Carried(frozenset(["number"])))
    for written, value in zip(numbers, table["number"].to_pylist(), strict=True):
        # Zeros at the end add nothing to a number.
        digits = max(len("".join(map(str, Decimal(written).as_tuple().digits)).strip("0")), 1)
        if value is not None:
            assert Decimal(f"{value:.{digits - 1}e}") == Decimal(written)
        else:
            assert digits > 15 or abs(Decimal(written).adjusted()) > 300


@pytest.mark.parametrize("quote", ["double", "none"])
@pytest.mark.parametrize("rule", [CutRule(rows=1, bytes=1_000), CutRule(rows=100, bytes=1_000)])
def test_lines_of_white_space_are_nothing_wherever_they_stand(tmp_path: Path, rule: CutRule, quote: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"\xef\xbb\xbf\r\n  \n\nid,text\n \n1,a\n\n\t \r\n2,b\n   \n3,c\n\n ")
    table = rows(path, rule=rule, quote=quote)
    assert (table["id"].to_pylist(), table["text"].to_pylist()) == ([1, 2, 3], ["a", "b", "c"])


def test_a_utf16_file_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("id,text\n1,x\n".encode("utf-16"))
    with pytest.raises(SourceError, match="UTF-16"):
        rows(path, rule=ROOMY)
