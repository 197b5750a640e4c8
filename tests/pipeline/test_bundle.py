"""Shards survive the round trip through a dataset row."""

import pyarrow as pa

from pipeline.bundle import ShardTables, pack, unpack
from tests.pipeline.small import rows_table, shard

ROWS = rows_table({"text": ["a", None, "c"], "deep": [{"x": [1]}, None, {"x": []}]})
EMPTY = pa.table({})
ANSWERS = pa.table({"logits": [1.0]})


def described(found: ShardTables) -> tuple[object, ...]:
    tables = {place: (table.schema, table.to_pylist()) for place, table in found.tables()}
    return (found.shard, tables, found.failure, dict(found.facts))


def test_shards_come_out_of_a_row_as_they_went_in() -> None:
    shards = [
        ShardTables(
            shard=shard(0, 3), rows=ROWS, tasks={"ner": {"marks": pa.table({"item": [0]})}}, facts={"read_s": 0.5}
        ),
        ShardTables(shard=shard(3, 9), failure=("gone", "file:///in/a.parquet: the file is gone")),
        ShardTables(shard=shard(9, 9, last=True), rows=ROWS.slice(0, 0)),
        ShardTables(
            shard=shard(9, 12),
            tasks={"ner": {"windows": pa.table({})}, "topics": {"answers": pa.table({"logits": [1.0]})}},
        ),
    ]
    bundle = pack(shards)
    assert bundle.num_rows == 1
    assert [described(found) for found in unpack(bundle)] == [described(given) for given in shards]


def test_several_rows_at_once_give_the_shards_of_all() -> None:
    bundles = [pack([ShardTables(shard=shard(first, first + 1), rows=ROWS)]) for first in range(3)]
    assert [found.shard.first for found in unpack(pa.concat_tables(bundles))] == [0, 1, 2]
    assert [found.shard.first for found in unpack(pa.concat_tables(bundles).slice(1, 2))] == [1, 2]


def test_an_empty_bundle_has_no_shards() -> None:
    assert unpack(pack([])) == []


def test_tables_are_added_and_replaced_and_facts_kept() -> None:
    given = ShardTables(shard=shard(), rows=ROWS, tasks={"ner": {"marks": ROWS}}, facts={"read_s": 1.0})
    found = given.with_(
        tasks={"ner": {"marks": ROWS.slice(1), "windows": ROWS}, "topics": {"marks": ROWS}}, facts={"encode_s": 2.0}
    )
    assert {place: table.num_rows for place, table in found.tables()} == {
        None: 3,
        ("ner", "marks"): 2,
        ("ner", "windows"): 3,
        ("topics", "marks"): 3,
    }
    assert found.facts == {"read_s": 1.0, "encode_s": 2.0}
    assert [place for place, _ in given.tables()] == [None, ("ner", "marks")]
