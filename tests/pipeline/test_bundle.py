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


def test_what_a_stage_adds_is_a_column_beside_those_before_which_are_not_written_again() -> None:
    failed = ShardTables(shard=shard(3, 9), failure=("gone", "the file is gone"))
    bundle = pack([ShardTables(shard=shard(0, 3), rows=ROWS), failed, ShardTables(shard=shard(9, 12), rows=ROWS)])
    for name in ("windows", "answers"):
        shards = [found if found.failure else found.with_(tasks={"ner": {name: ANSWERS}}) for found in unpack(bundle)]
        before, bundle = bundle, pack(shards, onto=bundle)
        assert [described(found) for found in unpack(bundle)] == [described(given) for given in shards]
        assert all(bundle[column].equals(before[column]) for column in before.column_names[1:])
    assert bundle.column_names == ["header", "tables_0", "tables_1", "tables_2"]
    assert [len(bundle[column][0]) for column in bundle.column_names[1:]] == [2, 2, 2]


def test_a_table_that_a_stage_replaces_is_the_new_one() -> None:
    bundle = pack([ShardTables(shard=shard(), rows=ROWS, tasks={"ner": {"marks": ROWS}})])
    (found,) = unpack(bundle)
    (again,) = unpack(pack([found.with_(tasks={"ner": {"marks": ANSWERS}})], onto=bundle))
    assert again.tasks["ner"]["marks"].to_pylist() == ANSWERS.to_pylist()
    assert again.rows is not None
    assert again.rows.to_pylist() == ROWS.to_pylist()


def test_shards_that_are_not_all_of_a_bundle_are_written_whole() -> None:
    bundle = pack([ShardTables(shard=shard(first, first + 1), rows=ROWS) for first in range(2)])
    _, second = unpack(bundle)
    alone = pack([second], onto=bundle)
    assert [described(found) for found in unpack(alone)] == [described(second)]
    assert alone.column_names == ["header", "tables_0"]


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
