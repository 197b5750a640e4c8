"""Hive-partitioned folders as columns."""

import pyarrow as pa

from pipeline.partitions import partition_schema, partition_values, with_partitions


def test_folders_named_key_equals_value_are_columns() -> None:
    uri = "s3://bucket/day=2026-11-01/part=7/x=__HIVE_DEFAULT_PARTITION__/a%20b=c%2Fd/file=1.parquet"
    assert partition_values(uri) == {"day": "2026-11-01", "part": "7", "x": None, "a b": "c/d"}


def test_whole_numbers_are_numbers_and_anything_else_is_text() -> None:
    schema = partition_schema(["s3://b/n=1/z=007/t=a/f", "s3://b/n=22/z=8/t=1/f"])
    assert schema == pa.schema([("n", pa.int64()), ("z", pa.string()), ("t", pa.string())])


def test_a_file_of_a_partition_has_its_values_in_every_row_unless_it_has_the_column_itself() -> None:
    schema = pa.schema([("text", pa.string()), ("day", pa.int64()), ("own", pa.string())])
    table = pa.table({"text": ["a", "b"], "day": pa.nulls(2, pa.int64()), "own": ["x", "y"]}, schema=schema)
    found = with_partitions(table, uri="file:///in/day=3/own=z/f.parquet", schema=schema)
    assert found.to_pylist() == [{"text": "a", "day": 3, "own": "x"}, {"text": "b", "day": 3, "own": "y"}]
