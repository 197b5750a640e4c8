"""A shard's object has the same bytes each time it is written, and any Parquet reader reads it."""

from pathlib import Path

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from pipeline.bundle import ShardTables
from pipeline.output.sink import Receipt, read_footer, write_shard
from pipeline.rows import error_array
from pipeline.store.folder import Folder
from pipeline.store.storage import join, read_bytes
from tests.pipeline.small import shard, source_file

FILE = source_file("s3://b/in/a.parquet", version="etag-1", size=777)
FOOTER = {"preln": "0.1", "fingerprint": "f", "checkpoint": "s3://b/model"}


def annotated(texts: list[str | None], *, prefix: str = "") -> pa.Table:
    errors = error_array([None if text else ("empty", "column 'text' is null or blank") for text in texts])
    columns = {
        "text": pa.array(texts, pa.string()),
        f"{prefix}source": [FILE.uri] * len(texts),
        f"{prefix}row": pa.array(range(len(texts)), pa.int64()),
        f"{prefix}label": pa.array(["x" if text else None for text in texts], pa.string()),
        f"{prefix}truncated": pa.array([text == "long" for text in texts], pa.bool_()),
        f"{prefix}error": errors,
    }
    return pa.table(columns)


def write(folder: Path, texts: list[str | None], *, first: int = 0, prefix: str = "") -> Receipt:
    given = ShardTables(shard=shard(first, first + len(texts), file=FILE, last=True), facts={"tokens": 12.0})
    table = annotated(texts, prefix=prefix)
    return write_shard(given, table, data=Folder(str(folder)), prefix=prefix, footer=FOOTER)


def object_of(folder: Path, receipt: Receipt) -> bytes:
    return read_bytes(join(str(folder), receipt.shard.key))


def test_the_bytes_of_an_object_follow_from_its_rows_alone(tmp_path: Path) -> None:
    texts = ["a", None, "long", "b" * 1000]
    once, again = write(tmp_path / "one", texts), write(tmp_path / "two", texts)
    assert object_of(tmp_path / "one", once) == object_of(tmp_path / "two", again)
    other = write(tmp_path / "three", ["b", None, "long", "b" * 1000])
    assert object_of(tmp_path / "three", other) != object_of(tmp_path / "one", once)


def test_rows_that_no_parquet_file_holds_fail_their_shard_and_write_nothing(tmp_path: Path) -> None:
    deep = pa.array([1], pa.int64())
    for _ in range(100):
        deep = pa.ListArray.from_arrays(pa.array([0, 1], pa.int32()), deep)
    interval = pa.array([pa.MonthDayNano([1, 2, 3])])
    for name, column in (("deep", deep), ("interval", interval)):
        table = annotated(["a"]).append_column(name, column)
        given = ShardTables(shard=shard(0, 1, file=FILE))
        receipt = write_shard(given, table, data=Folder(str(tmp_path / "data")), prefix="", footer=FOOTER)
        assert (receipt.state, receipt.reason) == ("failed", "unwritable")
        assert FILE.uri in receipt.message
        assert f"column '{name}': " in receipt.message
        assert "input.keep" in receipt.message
        assert not (tmp_path / "data").exists()


def test_chunks_of_a_table_do_not_show_in_its_object(tmp_path: Path) -> None:
    table = annotated(["a", None, "c", "d"])
    chunked = pa.concat_tables([table.slice(0, 1), table.slice(1)])
    given = ShardTables(shard=shard(0, 4, file=FILE))
    contents = []
    for name, content in (("one", table), ("two", chunked)):
        receipt = write_shard(given, content, data=Folder(str(tmp_path / name)), prefix="", footer=FOOTER)
        contents.append(object_of(tmp_path / name, receipt))
    assert contents[0] == contents[1]


def test_the_receipt_counts_what_is_in_the_object(tmp_path: Path) -> None:
    receipt = write(tmp_path, ["a", None, "long", None])
    assert (receipt.state, receipt.rows, receipt.truncated) == ("done", 4, 1)
    assert receipt.errors == {"empty": 2}
    assert receipt.bytes == len(object_of(tmp_path, receipt))
    assert receipt.facts["tokens"] == 12.0
    assert receipt.facts["write_s"] >= 0


def test_a_receipt_passes_through_json(tmp_path: Path) -> None:
    receipt = write(tmp_path, ["a", None])
    assert Receipt.from_json(receipt.to_json()) == receipt
    failed = Receipt(shard=shard(), state="failed", reason="gone", message="file:///é: the file is gone")
    assert Receipt.from_json(failed.to_json()) == failed


def test_the_footer_says_where_the_rows_come_from_and_who_answered_them(tmp_path: Path) -> None:
    receipt = write(tmp_path, ["a", None], first=40)
    footer = read_footer(tmp_path / receipt.shard.key)
    assert footer == {
        **FOOTER,
        "source": FILE.uri,
        "source_version": "etag-1",
        "source_bytes": 777,
        "first": 40,
        "stop": 42,
        "last": True,
        "rows": 2,
        "errors": {"empty": 1},
    }


def test_a_file_that_preln_did_not_write_has_no_such_footer(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), tmp_path / "a.parquet")
    with pytest.raises((KeyError, TypeError)):
        read_footer(tmp_path / "a.parquet")


def test_a_prefix_is_where_the_counts_are_looked_for(tmp_path: Path) -> None:
    receipt = write(tmp_path, ["a", None, "long"], prefix="preln_")
    assert (receipt.errors, receipt.truncated) == ({"empty": 1}, 1)


def test_a_shard_without_rows_is_an_object_too(tmp_path: Path) -> None:
    receipt = write(tmp_path, [])
    assert receipt.rows == 0
    assert pq.read_table(tmp_path / receipt.shard.key).num_rows == 0


def test_pyarrow_pandas_and_duckdb_read_all_objects_by_one_glob(tmp_path: Path) -> None:
    write(tmp_path, ["a", None, "long"])
    write(tmp_path, [None, None], first=3)
    write(tmp_path, [], first=5)
    assert ds.dataset(tmp_path).to_table()["text"].to_pylist() == ["a", None, "long", None, None]
    frame = pd.read_parquet(tmp_path)
    assert frame["label"].notna().sum() == 2
    glob = f"{tmp_path}/*.parquet"
    query = f"select error.reason, count(*) from '{glob}' group by 1 order by 1 nulls first"
    with duckdb.connect() as connection:
        counted = connection.execute(query).fetchall()
    assert counted == [(None, 2), ("empty", 3)]
