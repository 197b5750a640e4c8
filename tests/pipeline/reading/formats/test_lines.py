"""Every record of a cut file of lines is read once, at its offset, whatever its bytes are."""

import gzip
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.errors import SourceError
from pipeline.reading.formats.jsonl import json_rows
from pipeline.reading.formats.lines import TEXT_SCHEMA, LineBlock, line_ends, read_block, text_rows
from pipeline.reading.formats.streams import StreamBlock, stream_blocks
from pipeline.shards import CutRule, cut_bytes
from pipeline.store.storage import put
from tests.pipeline.small import file_at, reasons, source_file

LINE_BYTES = 1_000_000
BOM = b"\xef\xbb\xbf"
SCHEMA = pa.schema([("id", pa.int64()), ("text", pa.string()), ("score", pa.float64())])

PIECES = [b"\n", b"\r\n", b"\n\n", b"a", "é".encode(), b"\xff", b"\r", b" ", BOM, b'{"text": "x"}', b'{"id": 1}', b"}"]
FILES = st.lists(st.sampled_from(PIECES) | st.binary(max_size=6), max_size=30).map(b"".join)
JSON_VALUES = st.sampled_from(
    [b"1", b"1.5", b'"x"', b"null", b"true", b"[1]", b"{}", b"1e400", b"NaN", b'"\\ud800"', b'"\xff"', b"9" * 30, b"01"]
)
JSON_LINES = st.one_of(
    st.builds(
        lambda key, value: b'{"%s": %s}' % (key, value), st.sampled_from([b"id", b"text", b"score"]), JSON_VALUES
    ),
    st.sampled_from(
        [b"", b"  ", b"nope", b"[]", b'{"id": 1}{"id": 2}', b' {"id": 3} ', b'{"id":', b"1}", b'{"id": 4}\r']
    ),
)
JSON_FILES = st.lists(JSON_LINES, max_size=12).map(b"\n".join)


def records(table: pa.Table) -> list[tuple[Any, ...]]:
    """Rows that compare equal where they are equal: NaN is."""
    return [tuple(repr(value) for value in row.values()) for row in table.to_pylist()]


def blocks_of(path: Path, *, cut: int, line_bytes: int = LINE_BYTES) -> Iterator[LineBlock]:
    file = file_at(path)
    for shard in cut_bytes(file=file, rule=CutRule(rows=1, bytes=cut), fingerprint="f"):
        yield read_block(uri=file.uri, first=shard.first, stop=shard.stop, size=file.size, line_bytes=line_bytes)


def stream_of(path: Path, *, rows: int, cut: int, line_bytes: int = LINE_BYTES) -> list[StreamBlock]:
    rule = CutRule(rows=rows, bytes=cut)
    return list(
        stream_blocks(uri=str(path), compression="gzip", rule=rule, line_bytes=line_bytes, record_ends=line_ends)
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lines")


def lines_of(content: bytes) -> list[tuple[int, bytes]]:
    """(offset, bytes without line end) of each line, the slow and plain way."""
    found, offset = [], 0
    for line in content.split(b"\n"):
        found.append((offset, line))
        offset += len(line) + 1
    if found[-1][1] == b"":
        found.pop()
    if found and found[0][1].startswith(BOM):
        found[0] = (len(BOM), found[0][1][len(BOM) :])
        if content == BOM:
            found.pop()
    return [(offset, line.removesuffix(b"\r")) for offset, line in found]


@given(content=FILES, cut=st.integers(1, 40))
@example(content=BOM, cut=1)
@example(content=BOM + b"\n", cut=2)
@example(content=b"\n", cut=1)
@example(content=b"abc\r", cut=2)
def test_every_line_of_a_text_file_is_in_one_byte_range_and_at_its_offset(
    folder: Path, content: bytes, cut: int
) -> None:
    path = folder / "a.txt"
    path.write_bytes(content)
    tables = [text_rows(block, schema=TEXT_SCHEMA) for block in blocks_of(path, cut=cut)]
    found = [(row["__row__"], row["text"]) for table in tables for row in table.to_pylist()]
    assert [offset for offset, _ in found] == [offset for offset, _ in lines_of(content)]
    for (_, text), (_, line) in zip(found, lines_of(content), strict=True):
        assert (text is None) == (not _is_utf8(line))
        assert text is None or text.encode() == line


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


@given(content=JSON_FILES, cut=st.integers(1, 60))
def test_a_json_record_is_the_same_whatever_the_cut(folder: Path, content: bytes, cut: int) -> None:
    path = folder / "a.jsonl"
    path.write_bytes(content)
    whole = json_rows(LineBlock(content, 0), schema=SCHEMA)
    parts = [json_rows(block, schema=SCHEMA) for block in blocks_of(path, cut=cut)]
    assert [row for part in parts for row in records(part)] == records(whole)
    rows = whole["__row__"].to_pylist()
    expected = [offset for offset, line in lines_of(content) if line.strip()]
    assert rows == expected


@given(content=FILES, rows=st.integers(1, 5), cut=st.integers(1, 40))
@example(content=b"", rows=1, cut=1)
@example(content=b"a\nb\n", rows=1, cut=1)
def test_every_line_of_a_gzipped_file_is_in_one_block_and_the_last_block_says_so(
    folder: Path, content: bytes, rows: int, cut: int
) -> None:
    path = folder / "a.txt.gz"
    path.write_bytes(gzip.compress(content, compresslevel=1))
    blocks = stream_of(path, rows=rows, cut=cut)
    assert b"".join(block.lines.content for block in blocks) == content
    assert [block.lines.offset for block in blocks] == [0, *(block.lines.stop for block in blocks[:-1])]
    assert [block.last for block in blocks] == [False] * (len(blocks) - 1) + [True]
    assert all(block.lines.content.endswith(b"\n") for block in blocks[:-1])
    assert all(block.lines.content.count(b"\n") <= rows for block in blocks)
    tables = [text_rows(block.lines, schema=TEXT_SCHEMA) for block in blocks]
    assert [row for table in tables for row in table["__row__"].to_pylist()] == [row for row, _ in lines_of(content)]


def test_a_gzipped_file_is_cut_alike_however_its_bytes_arrive(tmp_path: Path) -> None:
    lines = [b"x" * (index % 90) + b"\n" for index in range(60_000)]
    content = b"".join(lines)
    one, many = tmp_path / "one.txt.gz", tmp_path / "many.txt.gz"
    one.write_bytes(gzip.compress(content))
    step = len(lines) // 7
    members = [b"".join(lines[first : first + step]) for first in range(0, len(lines), step)]
    many.write_bytes(b"".join(gzip.compress(member) for member in members))  # members end to end are one gzip file
    cuts = [
        [(block.lines.offset, block.lines.stop) for block in stream_of(path, rows=999, cut=30_000)]
        for path in (one, many)
    ]
    assert cuts[0] == cuts[1]
    assert cuts[0][-1][1] == len(content)
    assert len(cuts[0]) > 60


def test_line_ends_and_a_byte_order_mark_are_no_part_of_a_text() -> None:
    table = text_rows(LineBlock(BOM + b"one\r\n\r\ntwo\n \nthree", 0), schema=TEXT_SCHEMA)
    assert table["text"].to_pylist() == ["one", "", "two", " ", "three"]
    assert table["__row__"].to_pylist() == [3, 8, 10, 14, 16]
    assert table["__error__"].null_count == 5


def test_a_byte_order_mark_inside_a_file_is_text() -> None:
    assert text_rows(LineBlock(BOM + b"one", 7), schema=TEXT_SCHEMA)["text"].to_pylist() == ["\ufeffone"]


def test_other_line_separators_of_unicode_are_text() -> None:
    text = "a\u2028b\u0085c\vd\fe"
    assert text_rows(LineBlock(text.encode(), 0), schema=TEXT_SCHEMA)["text"].to_pylist() == [text]
    line = json.dumps({"text": text}, ensure_ascii=False).encode()
    assert json_rows(LineBlock(line, 0), schema=SCHEMA)["text"].to_pylist() == [text]


def test_a_line_that_is_not_utf8_is_an_error_of_its_row_that_says_where() -> None:
    table = text_rows(LineBlock(b"good\nab\xff\ngood", 0), schema=TEXT_SCHEMA)
    assert table["text"].to_pylist() == ["good", None, "good"]
    assert reasons(table["__error__"]) == [None, "invalid-utf8", None]
    assert "byte 2" in table["__error__"][1].as_py()["message"]


@pytest.mark.parametrize(
    ("line", "reason", "said"),
    [
        (b"nope", "malformed-json", "b'nope'"),
        (b'{"id": 1', "malformed-json", "delimiter"),
        (b"[1, 2]", "malformed-json", "JSON list, not an object"),
        (b"null", "malformed-json", "JSON NoneType, not an object"),
        (b'{"id": 1}{"id": 2}', "malformed-json", "Extra data"),
        (b'{"text": "a\xff"}', "invalid-utf8", "byte 11 of the line"),
        (b'{"text": "\\ud800"}', "invalid-utf8", "column 'text': the text holds a lone surrogate"),
        (b'{"text": 5}', "wrong-type", "column 'text': 5 is no string"),
        (b'{"text": ["a"]}', "wrong-type", "column 'text'"),
        (b'{"id": "x"}', "wrong-type", "column 'id': 'x' is no int64"),
        (b'{"id": 9223372036854775808}', "wrong-type", "column 'id'"),
        (b'{"id": 1.5}', "wrong-type", "column 'id'"),
        (b'{"score": true}', "wrong-type", "column 'score': True is no double"),
        (b"[" * 100_000, "malformed-json", "recursion"),
    ],
)
def test_a_bad_json_line_is_an_error_of_its_own_row_only(line: bytes, reason: str, said: str) -> None:
    good = b'{"id": 7, "text": "fine", "score": 0.5}\n'
    table = json_rows(LineBlock(good + line + b"\n" + good, 0), schema=SCHEMA)
    assert reasons(table["__error__"]) == [None, reason, None]
    assert said in table["__error__"][1].as_py()["message"]
    assert len(table["__error__"][1].as_py()["message"]) <= 500
    assert table["id"].to_pylist()[::2] == [7, 7]
    assert table["text"].to_pylist()[::2] == ["fine", "fine"]


def test_a_value_of_another_type_leaves_the_other_columns_of_its_row() -> None:
    table = json_rows(LineBlock(b'{"id": "x", "text": "kept", "score": 1}', 0), schema=SCHEMA)
    assert table.select(["id", "text", "score"]).to_pylist() == [{"id": None, "text": "kept", "score": 1.0}]


def test_an_object_over_two_lines_is_two_bad_rows() -> None:
    table = json_rows(LineBlock(b'{"id": 1,\n"text": "x"}\n{"id": 2}\n', 0), schema=SCHEMA)
    assert reasons(table["__error__"]) == ["malformed-json", "malformed-json", None]
    assert table["__row__"].to_pylist() == [0, 10, 23]


def test_blank_lines_between_json_records_are_no_rows() -> None:
    for content in (b'\n{"id": 1}\n\n\r\n{"id": 2}\n \t \n', b'\n{"id": 1}\n\n\n{"id": 2}\n\n'):
        table = json_rows(LineBlock(content, 0), schema=SCHEMA)
        assert table["id"].to_pylist() == [1, 2]
        assert table["__error__"].null_count == 2


def test_absent_keys_are_null_and_keys_beyond_the_schema_are_left_out() -> None:
    table = json_rows(LineBlock(b'{"text": "a", "more": {"deep": []}}\n{"id": 3}\n', 0), schema=SCHEMA)
    assert table.column_names == ["id", "text", "score", "__row__", "__error__"]
    assert table.select(["id", "text"]).to_pylist() == [{"id": None, "text": "a"}, {"id": 3, "text": None}]


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (pa.timestamp("ms"), b'"2020-01-01 10:00:00"'),
        (pa.timestamp("us"), b'"2020-01-01T10:00:00Z"'),
        (pa.timestamp("us"), b'"yesterday"'),
        (pa.decimal128(10, 2), b'"1.25"'),
        (pa.decimal128(10, 2), b"1.25"),
        (pa.float64(), b"9" * 25),
        (pa.float64(), b"9" * 400),
        (pa.float64(), b"-" + b"9" * 400),
        (pa.float32(), b"123456789"),
        (pa.list_(pa.float64()), b"[1, %s]" % (b"9" * 25)),
        (pa.struct([("deep", pa.timestamp("s"))]), b'{"deep": "2020-01-01", "more": 1}'),
        (pa.date32(), b"5"),
        (pa.bool_(), b"1"),
        (pa.int64(), b"1.0"),
        (pa.list_(pa.int64()), b"[1.5]"),
        (pa.list_(pa.string()), b'"letters"'),
        (pa.struct([("deep", pa.int64())]), b'{"deep": 1.5}'),
        (pa.binary(), b'"abc"'),
    ],
)
def test_a_value_means_the_same_beside_a_bad_line(kind: pa.DataType, value: bytes) -> None:
    schema = pa.schema([("v", kind)])
    line = b'{"v": %s}\n' % value
    alone = json_rows(LineBlock(line, 0), schema=schema)
    beside = json_rows(LineBlock(line + b"nope\n", 0), schema=schema).slice(0, 1)
    assert records(alone) == records(beside)


def test_infinities_and_nan_are_numbers_as_python_writes_them() -> None:
    table = json_rows(LineBlock(b'{"score": NaN}\n{"score": -Infinity}\n', 0), schema=SCHEMA)
    assert math.isnan(table["score"][0].as_py())
    assert table["score"][1].as_py() == -math.inf


def test_a_line_beyond_the_limit_fails_the_shard_that_holds_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"short\n" + b"x" * 5_000_000 + b"\nshort\n")
    blocks = blocks_of(path, cut=100, line_bytes=100_000)
    with pytest.raises(SourceError, match=r"limits\.line_bytes \(100000\)") as caught:
        next(blocks)
    assert caught.value.reason == "unreadable"
    file = file_at(path)
    inside = read_block(uri=file.uri, first=1_000, stop=1_100, size=file.size, line_bytes=100_000)
    assert inside.content == b"", "what begins before a range is no part of it"
    zipped = tmp_path / "a.txt.gz"
    zipped.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(SourceError, match=r"limits\.line_bytes"):
        stream_of(zipped, rows=10, cut=100, line_bytes=100_000)


@pytest.mark.parametrize("damage", ["cut short", "bad checksum", "no gzip"])
def test_a_broken_gzip_file_is_corrupt_after_the_blocks_that_are_whole(tmp_path: Path, damage: str) -> None:
    content = b"".join(b"line %d\n" % index for index in range(200_000))
    good = gzip.compress(content, compresslevel=1)
    broken = {"cut short": good[: len(good) // 2], "bad checksum": good[:-8] + b"\0" * 8, "no gzip": content}[damage]
    path = tmp_path / "a.txt.gz"
    path.write_bytes(broken)
    blocks: list[StreamBlock] = []
    rule = CutRule(rows=100, bytes=10_000)
    with pytest.raises(SourceError) as caught:
        blocks.extend(
            stream_blocks(uri=str(path), compression="gzip", rule=rule, line_bytes=LINE_BYTES, record_ends=line_ends)
        )
    assert caught.value.reason == "corrupt"
    assert content.startswith(b"".join(block.lines.content for block in blocks))
    assert not any(block.last for block in blocks)
    assert (damage == "no gzip") == (not blocks)


def test_a_file_that_is_gone_says_so(tmp_path: Path) -> None:
    with pytest.raises(SourceError) as plain:
        read_block(uri=str(tmp_path / "no.txt"), first=0, stop=5, size=5, line_bytes=10)
    with pytest.raises(SourceError) as zipped:
        stream_of(tmp_path / "no.txt.gz", rows=1, cut=1)
    assert plain.value.reason == zipped.value.reason == "gone"


@pytest.mark.storage
def test_byte_ranges_and_streams_of_an_object_store_hold_the_same_lines(s3_bucket: str) -> None:
    content = b"".join(b"line %d \xc3\xa9\n" % index for index in range(500))
    put(f"{s3_bucket}/a.txt", content)
    put(f"{s3_bucket}/a.txt.gz", gzip.compress(content))
    plain = [
        read_block(uri=f"{s3_bucket}/a.txt", first=first, stop=first + 1000, size=len(content), line_bytes=LINE_BYTES)
        for first in range(0, len(content), 1000)
    ]
    rule = CutRule(rows=70, bytes=10_000)
    zipped = list(
        stream_blocks(
            uri=f"{s3_bucket}/a.txt.gz", compression="gzip", rule=rule, line_bytes=LINE_BYTES, record_ends=line_ends
        )
    )
    assert b"".join(block.content for block in plain) == content
    assert b"".join(block.lines.content for block in zipped) == content


def test_a_file_that_need_not_exist_is_cut_into_ranges_that_cover_it_once() -> None:
    shards = cut_bytes(file=source_file(size=1001), rule=CutRule(rows=1, bytes=100), fingerprint="f")
    assert [(shard.first, shard.stop) for shard in shards] == [(f, min(f + 100, 1001)) for f in range(0, 1001, 100)]
