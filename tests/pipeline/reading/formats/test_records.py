"""Where records of delimited files end: against a reader of one character at a time, and against what other programs write."""

import csv
import io
from pathlib import Path

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.reading.formats.delimited import delimited_rows, fields_of, open_delimited
from pipeline.reading.formats.records import Dialect, scan
from pipeline.reading.formats.streams import stream_blocks
from pipeline.reading.recount import count_records
from pipeline.shards import CutRule, SourceFile

CASES = Path(__file__).parents[3] / "cases" / "delimited"
COMMA = Dialect(delimiter=",", quoting=True, most_bytes=1_000)
ROOMY = CutRule(rows=1_000, bytes=1_000_000)

TRICKY = st.text(alphabet='",\n\r\tab é', max_size=10)
"""Texts of nothing but what matters to a reader of delimited files."""


def read(
    path: Path,
    *,
    rule: CutRule = ROOMY,
    quote: str = "double",
    line_bytes: int = 1_000_000,
    columns: list[str] | None = None,
) -> pa.Table:
    """The rows of a file as text."""
    source = SourceFile(str(path), path.stat().st_size, "1", "tsv" if path.suffix == ".tsv" else "csv")
    file = open_delimited(source, delimiter=None, quote=quote, most_bytes=line_bytes)
    schema = pa.schema([(name, pa.string()) for name in columns or file.header.names])
    blocks = stream_blocks(
        uri=str(path), compression="none", rule=rule, line_bytes=line_bytes, record_ends=file.record_ends
    )
    table = pa.concat_tables([delimited_rows(block.lines, file=file, schema=schema) for block in blocks])
    counted = count_records(source, delimiter=None, quote=quote, line_bytes=line_bytes)
    assert counted == table.num_rows, "verify counts other records than are read"
    return table


def records_one_by_one(text: str, dialect: Dialect) -> list[str]:
    """The records of a text by the rules as they are written down, a character at a time."""
    records, place, begin = [], 0, 0
    field_start = True
    while place < len(text):
        if field_start and text[place] == '"' and dialect.quoting:
            close = closing(text, place, dialect)
            if close is not None:
                place, field_start = close + 1, False
                continue
        character = text[place]
        field_start = character in (dialect.delimiter, "\n")
        place += 1
        if character == "\n":
            records.append(text[begin:place])
            begin = place
    return records + ([text[begin:]] if begin < len(text) else [])


def closing(text: str, opening: int, dialect: Dialect) -> int | None:
    place = opening + 1
    while place < len(text):
        if text.startswith('""', place):
            place += 2
        elif text[place] == '"':
            behind = text[place + 1 :]
            ends = behind == "" or behind[0] in (dialect.delimiter, "\n") or behind.startswith("\r\n") or behind == "\r"
            near = len(text[opening : place + 1].encode()) <= dialect.most_bytes
            return place if ends and near else None
        else:
            place += 1
    return None


@given(text=st.text(alphabet='",\n\ra', max_size=60), most=st.sampled_from([4, 10, 1_000]))
def test_records_end_where_a_reader_of_one_character_at_a_time_ends_them(text: str, most: int) -> None:
    dialect = Dialect(delimiter=",", quoting=True, most_bytes=most)
    content = text.encode()
    ends = scan(content, dialect, ended=True).ends
    stops = [0, *(int(end) + 1 for end in ends)]
    found = [content[a:b].decode() for a, b in zip(stops, [*stops[1:], len(content)], strict=True) if content[a:b]]
    assert found == records_one_by_one(text, dialect)


@given(text=st.text(alphabet='",\n\ra', max_size=60), seen=st.integers(0, 60), most=st.sampled_from([4, 10, 1_000]))
def test_what_is_known_of_the_first_bytes_stays_true_when_more_are_seen(text: str, seen: int, most: int) -> None:
    dialect = Dialect(delimiter=",", quoting=True, most_bytes=most)
    content = text.encode()
    early = scan(content[:seen], dialect, ended=False).ends.tolist()
    assert early == scan(content, dialect, ended=True).ends.tolist()[: len(early)]


@given(rows=st.lists(st.tuples(TRICKY, TRICKY), min_size=1, max_size=8), per_block=st.integers(1, 3))
def test_what_csv_writes_comes_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], per_block: int
) -> None:
    buffer = io.StringIO()
    csv.writer(buffer, quoting=csv.QUOTE_ALL).writerows([("a", "b"), *rows])
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    path.write_bytes(buffer.getvalue().encode())
    found = read(path, rule=CutRule(rows=per_block, bytes=1_000_000))
    assert [(row["a"], row["b"]) for row in found.to_pylist()] == rows
    assert found["__error__"].null_count == len(rows)


PLAIN = st.text(alphabet='",\nab é', min_size=1, max_size=10).filter(lambda text: bool(text.strip()))


@pytest.mark.parametrize("writer", ["pandas", "polars", "duckdb"])
@given(rows=st.lists(st.tuples(st.integers(0, 9), PLAIN), min_size=1, max_size=6))
def test_records_of_other_programs_come_back(
    tmp_path_factory: pytest.TempPathFactory, writer: str, rows: list[tuple[int, str]]
) -> None:
    path = tmp_path_factory.mktemp(writer) / "a.csv"
    frame = pd.DataFrame(rows, columns=["id", "text"])
    if writer == "pandas":
        frame.to_csv(path, index=False)
    elif writer == "polars":
        pl.DataFrame(rows, schema=["id", "text"], orient="row").write_csv(path)
    else:
        table = pa.table({"id": [row[0] for row in rows], "text": [row[1] for row in rows]})
        with duckdb.connect() as connection:
            connection.register("rows_of_test", table)
            connection.execute(f"COPY (FROM rows_of_test) TO '{path}' (HEADER)")
    found = read(path)
    assert [(row["id"], row["text"]) for row in found.to_pylist()] == [(str(number), text) for number, text in rows]


SOUND = "1,The first row is sound\n"


@given(text=st.text(alphabet='",\ra bé', max_size=20))
def test_without_quoting_no_line_changes_another(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("none") / "a.csv"
    path.write_bytes(f"id,text\n{SOUND}2,{text}\n{SOUND}".encode())
    found = read(path, quote="none")
    sound = found.slice(0, 1).to_pylist() + found.slice(found.num_rows - 1).to_pylist()
    assert found.num_rows == 3
    assert [row["text"] for row in sound] == ["The first row is sound"] * 2


@pytest.mark.parametrize(
    ("field", "read_as"),
    [
        pytest.param('a 12" pizza', 'a 12" pizza', id="inside a field"),
        pytest.param('"Yes" she said', '"Yes" she said', id="closed before anything else"),
        pytest.param('"never closed', '"never closed', id="never closed"),
        pytest.param('""twice" as', '""twice" as', id="an even run before anything else"),
        pytest.param('"', '"', id="alone"),
        pytest.param('"""', '"""', id="three"),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_stray_quote_costs_no_other_record(tmp_path: Path, field: str, read_as: str, end: str) -> None:
    path = tmp_path / "a.csv"
    lines = ["id,text", "1,one", f"2,{field}", "3,three", "4,four", ""]
    path.write_bytes(end.join(lines).encode())
    found = read(path)
    assert found["text"].to_pylist() == ["one", read_as, "three", "four"]
    assert found["__error__"].null_count == 4


def test_a_quote_that_never_closes_within_the_limit_costs_no_record_of_a_long_file(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b'id,text\n1,"never closed\n' + b"2,x\n" * 1_000_000 + b'3,"x"\n')
    found = read(path, line_bytes=10_000)
    assert found.num_rows == 1_000_002
    assert found["text"][0].as_py() == '"never closed'


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        ("inch-mark.tsv", ['A 12" pizza came cold', "The second row is sound", "So is the third"]),
        ("two-inch-marks.tsv", ['A 12" pizza', 'A 15" screen', "The third row is sound"]),
        ("unclosed.csv", ['"Opens and never closes', "The second row is sound", "So is the third"]),
        ("header-only.csv", []),
    ],
)
def test_every_record_of_a_file_that_others_stumbled_over_is_a_row(name: str, texts: list[str]) -> None:
    assert read(CASES / name)["text"].to_pylist() == texts


def test_lines_of_tsv_that_are_records_by_themselves_are_not_one_field(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text('id\ttext\tlabel\n1\t"He went home.\t0\n2\tShe stayed."\t1\n3\t"Both\nleft"\t1\n')
    assert read(path)["text"].to_pylist() == ['"He went home.', 'She stayed."', "Both\nleft"]


def test_what_a_quoted_line_end_means_is_the_formats_own_ambiguity_in_csv(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('id,text\n1,"a\n2,b"\n')
    assert read(path)["text"].to_pylist() == ["a\n2,b"]
    assert read(path, quote="none")["text"].to_pylist() == ['"a', 'b"']


def test_a_carriage_return_inside_a_line_is_part_of_its_text(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b'id,text\r\n1,a\rb\r\n2,"c\rd"\r\n3,e\r\n')
    assert read(path)["text"].to_pylist() == ["a\rb", "c\rd", "e"]
    assert read(path, quote="none")["text"].to_pylist() == ["a\rb", '"c\rd"', "e"]


@given(record=st.text(alphabet='",\n\ra', min_size=1, max_size=12))
def test_the_fields_of_a_record_are_those_of_csv_where_it_is_well_formed(record: str) -> None:
    text = csv_line([record, "x", record])
    assert [value for value, _ in fields_of(text, COMMA)] == [record, "x", record]


def csv_line(fields: list[str]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, quoting=csv.QUOTE_ALL, lineterminator="\n").writerow(fields)
    return buffer.getvalue()
