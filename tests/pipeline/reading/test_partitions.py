"""Hive-partitioned folders as columns."""

import pyarrow as pa
import pytest

from pipeline.errors import SourceError
from pipeline.reading.partitions import partition_schema, partition_values, with_partitions


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


@pytest.mark.parametrize("value", ["beta", "007", "1.5", "99999999999999999999"])
def test_a_folder_that_is_not_of_the_frozen_type_fails_its_file_and_is_never_another_value(value: str) -> None:
    schema = pa.schema([("text", pa.string()), ("v", pa.int64())])
    table = pa.table({"text": ["a"], "v": pa.nulls(1, pa.int64())}, schema=schema)
    with pytest.raises(
        SourceError, match=rf"the folder 'v={value}' does not fit the column 'v', which is int64.*rename the folder"
    ) as caught:
        with_partitions(table, uri=f"file:///in/v={value}/f.parquet", schema=schema)
    assert caught.value.reason == "unreadable"


def test_a_folder_never_makes_a_value_of_a_type_that_text_is_not_cast_to() -> None:
    schema = pa.schema([("v", pa.list_(pa.string()))])
    table = pa.table({"v": pa.nulls(1, pa.list_(pa.string()))}, schema=schema)
    with pytest.raises(SourceError, match="the folder 'v=1' does not fit the column 'v', which is list"):
        with_partitions(table, uri="file:///in/v=1/f.parquet", schema=schema)
