"""The jobs and input files of the half-written folders, as values: what `make_folders.py` runs at commit e717816.

Each folder has columns whose reading a later version may change (numbers with leading zeros, `1e5`, mixed JSON types, a
value that does not fit the frozen type), so that a change of the rules shows here.
"""

import gzip
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

BUCKET = "s3://preln-upgrade"
SENTENCES = (
    "The ferry left Bristol <mask> noon.",
    "Anna Okafor sold her <mask> to a friend in Oslo.",
    "",
    "Nobody knew why the <mask> stopped at every village.",
    "Zürich, 東京 and Łódź are <mask> of the same size 🙂.",
    "Rain again.",
    "The committee met twice, <mask> then it met no more, " * 6,
    "A short text without what is asked for.",
    "He paid 12.50 for the <mask> and left.",
    "They were late because the <mask> was closed.",
)
LABELS = {"kind": {"name": "text-classification", "top_k": "all"}}
SEVERAL = {
    "kind": {"name": "text-classification", "top_k": 2},
    "masks": {"name": "fill-mask", "top_k": 2, "no_mask": "empty"},
    "tags": "token-classification",
}


@dataclass(frozen=True)
class Folder:
    """One output folder and how it comes to be half-written.

    job: the spec without input.urls, model and output. head: the checkpoint's folder for a job of one `task`.
    first: input files of the first run, which ends by itself; then: those that are put before the second, which is killed.
    stopped: the first run is stopped by limits.error_rows after its first shards, and not at the end of its input.
    kept: objects that the second run had written when it was killed.
    """

    name: str
    job: Mapping[str, Any]
    first: Mapping[str, bytes]
    then: Mapping[str, bytes] = field(default_factory=dict)
    head: str = ""
    stopped: bool = False
    kept: int = 2


def text(number: int) -> str:
    """The text of a row; neighbouring rows have different ones."""
    return SENTENCES[number % len(SENTENCES)]


def parquet_file(first: int, rows: int, *, text_column: str = "text") -> bytes:
    """Rows with columns of many types, in row groups that no shard's border meets."""
    numbers = range(first, first + rows)
    table = pa.table(
        {
            "id": pa.array(numbers, pa.int32()),
            "zip": pa.array([f"{number:05d}" for number in numbers]),
            "price": pa.array([None if number % 5 == 0 else number / 8 for number in numbers], pa.float64()),
            "seen": pa.array(
                [datetime(2024, 2, 28, tzinfo=UTC) + timedelta(hours=number) for number in numbers],
                pa.timestamp("ms", "UTC"),
            ),
            "topics": pa.array([[f"t{number}", None][: number % 3] for number in numbers], pa.list_(pa.string())),
            "group": pa.array(["ab"[number % 2] for number in numbers]).dictionary_encode(),
            text_column: pa.array([None if number % 11 == 7 else text(number) for number in numbers]),
        }
    )
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=7, compression="zstd")
    return sink.getvalue()


def json_lines(first: int, rows: int) -> bytes:
    """Lines whose types are inferred; some values do not fit them, and some lines are no objects."""
    lines: list[bytes] = []
    for number in range(first, first + rows):
        record: dict[str, Any] = {
            "id": number,
            "ratio": number if number % 2 else number / 4,
            "code": f"{number:04d}",
            "big": 2**53 + number,
            "ok": number % 3 == 0,
            "when": f"2024-03-{number % 28 + 1:02d}",
            "tags": ["x", "1e5"][: number % 3],
            "place": {"lat": number * 1.5, "name": "007"},
            "text": text(number),
        }
        if number % 5 == 1:
            record["code"] = number  # a number where text is expected
        if number % 5 == 3:
            record["id"] = str(number)
            record["unseen"] = {"a": [1]}
        lines.append(json.dumps(record, ensure_ascii=number % 2 == 0).encode())
        if number % 7 == 2:
            lines.append(b'{"id": 5, "text": "cut')
        if number % 9 == 4:
            lines.append(b"")
    return b"\n".join(lines) + b"\n"


def delimited(first: int, rows: int, *, delimiter: str = ",", odd: bool = False) -> bytes:
    """Records whose types are inferred: leading zeros, exponents, dates, quotes; odd: with values that do not fit those
    of the files without."""
    names = ["id", "zip", "ratio", "ok", "when", "note", "text"]
    lines = [delimiter.join(names)]
    for number in range(first, first + rows):
        quoted = text(number).replace('"', '""')
        values = [
            str(number),
            f"{number:05d}",
            "1e5" if number % 4 == 1 else f"{number}.10",
            "true" if number % 2 else "FALSE",
            f"2024-04-{number % 28 + 1:02d}",
            ["", '""', "7", f'"two\nlines{delimiter} here"'][number % 4],
            f'"{quoted}"',
        ]
        if odd and number % 4 == 2:
            values[1] = "N1 9GU"
        if odd and number % 4 == 3:
            values[2], values[4] = "007", "soon"
        lines.append(delimiter.join(values[:-1] if number % 10 == 8 else values))
    return "\r\n".join(lines).encode() + b"\r\n"


def plain_text(first: int, rows: int) -> bytes:
    """Lines of text; some blank, some with Windows line ends, one that is not UTF-8."""
    lines = [text(number).encode() + (b"\r" if number % 4 == 3 else b"") for number in range(first, first + rows)]
    lines[rows // 2] = b"caf\xe9 in the old <mask>"
    return b"\n".join(lines)


def zipped(content: bytes) -> bytes:
    """The same, compressed; no time or name in it."""
    return gzip.compress(content, mtime=0)


def one_task(task: object, **sections: Any) -> dict[str, Any]:
    """A job of `task`, cut into shards of a few rows."""
    return {"task": task, "shards": {"rows": 4, "bytes": 700}, **sections}


def named_tasks(tasks: Mapping[str, Any], **sections: Any) -> dict[str, Any]:
    """A job of `tasks`, cut into shards of a few rows."""
    return {"tasks": dict(tasks), "shards": {"rows": 5, "bytes": 900}, **sections}


FOLDERS: Sequence[Folder] = (
    Folder(
        "parquet-task",
        one_task(LABELS["kind"]),
        head="kind",
        first={"a.parquet": parquet_file(0, 12)},
        then={"b.parquet": parquet_file(12, 17)},
    ),
    Folder(
        "parquet-tasks-two",
        named_tasks(
            {name: SEVERAL[name] for name in ("masks", "kind")},
            input={"columns": {"text": "body"}, "keep": ["body", "id", "price", "year"]},
        ),
        first={"year=2023/a.parquet": parquet_file(0, 10, text_column="body")},
        then={"year=2024/b.parquet": parquet_file(10, 20, text_column="body")},
    ),
    Folder(
        "jsonl-task",
        one_task({"name": "feature-extraction", "pooling": "mean"}, output={"prefix": "preln_"}),
        head="encoder",
        first={"a.jsonl": json_lines(0, 24)},
        stopped=True,
    ),
    Folder(
        "jsonl-tasks-one",
        named_tasks(LABELS),
        first={"a.jsonl": json_lines(0, 9)},
        then={"b.jsonl.gz": zipped(json_lines(9, 18))},
    ),
    Folder(
        "csv-task",
        one_task({"name": "text-classification"}),
        head="kind",
        first={"a.csv": delimited(0, 9)},
        then={"b.csv": delimited(9, 16, odd=True)},
    ),
    Folder(
        "csv-tasks-two",
        named_tasks({name: SEVERAL[name] for name in ("kind", "tags")}, input={"delimiter": ";"}),
        first={"a.csv.gz": zipped(delimited(0, 44, delimiter=";"))},
        stopped=True,
    ),
    Folder(
        "text-tasks-one",
        named_tasks({"masks": {"name": "fill-mask", "top_k": 3, "on_long": "truncate"}}),
        first={"a.txt": plain_text(0, 12)},
        then={"b.txt": plain_text(12, 22)},
        kept=1,
    ),
    Folder(
        "text-tasks-two",
        named_tasks({name: SEVERAL[name] for name in ("tags", "masks")}),
        first={"a.txt.gz": zipped(plain_text(0, 9))},
        then={"b.txt.gz": zipped(plain_text(9, 17)), "c.txt": plain_text(4, 8)},
    ),
    Folder(
        "changed-file",
        one_task({"name": "token-classification", "aggregation": "simple"}),
        head="tags",
        first={"a.parquet": parquet_file(0, 10), "b.jsonl.gz": zipped(json_lines(0, 8))},
        then={"a.parquet": parquet_file(30, 13), "c.txt": plain_text(0, 6)},
    ),
)
