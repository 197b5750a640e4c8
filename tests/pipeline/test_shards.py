"""Shards cover the input files once; their names are stable, readable and safe."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.shards import (
    STEM_CHARACTERS,
    CutRule,
    Shard,
    cut_bytes,
    cut_rows,
    into_bundles,
    key_stem,
    shard_key,
)
from tests.pipeline.small import FINGERPRINT, source_file

FILE = source_file("s3://bucket/in/reviews.parquet")
RULES = st.builds(CutRule, rows=st.integers(1, 50), bytes=st.integers(1, 500))


def key(**changes: object) -> str:
    values = {"file": FILE, "first": 0, "stop": 10, "fingerprint": FINGERPRINT, **changes}
    return shard_key(**values)  # type: ignore[arg-type]


def test_the_same_range_of_the_same_file_has_the_same_name_for_ever() -> None:
    # A literal: output folders written by an older release must go on under their names.
    assert key() == key() == "reviews-000000000000-0237fe920a4e7079e2a9877f.parquet"


@pytest.mark.parametrize(
    "changes",
    [
        {"file": replace(FILE, uri="s3://bucket/other/reviews.parquet")},
        {"file": replace(FILE, version="v2")},
        {"file": replace(FILE, format="text")},
        {"file": replace(FILE, compression="gzip")},
        {"first": 1},
        {"stop": 11},
        {"fingerprint": "e" * 32},
    ],
)
def test_another_file_version_range_or_fingerprint_is_another_name(changes: dict[str, object]) -> None:
    assert key(**changes) != key()


def test_a_file_read_as_another_format_has_other_names() -> None:
    assert key(file=replace(FILE, format="text")) != key()
    assert key(file=replace(FILE, compression="gzip")) != key()


@given(first=st.integers(0, 10**12 - 1), later=st.integers(0, 10**12 - 1))
def test_names_sort_by_where_their_rows_are(first: int, later: int) -> None:
    if first < later:
        assert key(first=first) < key(first=later)


@given(name=st.text(max_size=200), folder=st.text(max_size=20))
def test_a_stem_can_neither_climb_out_of_a_folder_nor_hide_a_file(name: str, folder: str) -> None:
    stem = key_stem(f"file:///{folder}/{name}")
    assert stem
    assert len(stem) <= STEM_CHARACTERS
    assert stem[0] not in "._-"
    assert set(stem) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")


@pytest.mark.parametrize(
    ("uri", "stem"),
    [
        ("s3://b/in/part-0001.parquet", "part-0001"),
        ("file:///in/a.b.jsonl.gz", "a_b"),
        ("file:///in/A.TXT.GZ", "A"),
        ("file:///in/..", "input"),
        ("file:///in/.parquet", "input"),
        ("file:///in/_SUCCESS", "SUCCESS"),
        ("file:///in/données été.txt", "donn_es_t"),
        ("file:///in/" + "x" * 300, "x" * STEM_CHARACTERS),
    ],
)
def test_a_stem_is_what_a_person_recognises_of_a_file(uri: str, stem: str) -> None:
    assert key_stem(uri) == stem


@given(rows=st.integers(0, 300), size=st.integers(0, 5_000), rule=RULES)
def test_row_ranges_cover_a_file_exactly_once(rows: int, size: int, rule: CutRule) -> None:
    shards = cut_rows(file=source_file(), rows=rows, size=size, rule=rule, fingerprint=FINGERPRINT)
    assert [row for shard in shards for row in range(shard.first, shard.stop)] == list(range(rows))
    assert all(shard.stop - shard.first <= rule.rows for shard in shards)
    assert len({shard.key for shard in shards}) == len(shards)


@given(size=st.integers(0, 3_000), rule=RULES)
def test_byte_ranges_cover_a_file_exactly_once(size: int, rule: CutRule) -> None:
    shards = cut_bytes(file=source_file(size=size), rule=rule, fingerprint=FINGERPRINT)
    borders = [(shard.first, shard.stop) for shard in shards]
    assert borders == [(first, min(first + rule.bytes, size)) for first in range(0, size, rule.bytes)]


def test_wide_rows_make_shorter_shards() -> None:
    rule = CutRule(rows=1_000, bytes=10_000)
    wide = cut_rows(file=FILE, rows=1_000, size=1_000_000, rule=rule, fingerprint="f")
    narrow = cut_rows(file=FILE, rows=1_000, size=1_000, rule=rule, fingerprint="f")
    assert len(narrow) == 1
    assert {shard.stop - shard.first for shard in wide} == {10}


@given(
    sizes=st.lists(st.tuples(st.integers(1, 400), st.integers(1, 50)), max_size=40), rule=RULES, most=st.integers(1, 8)
)
def test_bundles_hold_every_shard_once_in_order_within_their_bounds(
    sizes: list[tuple[int, int]], rule: CutRule, most: int
) -> None:
    shards = [
        Shard(FILE, 100 * number, 100 * number + rows, key=str(number), size=size)
        for number, (size, rows) in enumerate(sizes)
    ]
    bundles = list(into_bundles(shards=shards, rule=rule, most=most))
    assert [shard for bundle in bundles for shard in bundle] == shards
    for bundle in bundles:
        assert 1 <= len(bundle) <= most
        assert len(bundle) == 1 or sum(shard.size for shard in bundle) <= rule.bytes
        assert len(bundle) == 1 or sum(shard.stop - shard.first for shard in bundle) <= rule.rows


def test_full_shards_of_well_compressed_rows_are_committed_one_by_one() -> None:
    rule = CutRule(rows=2_048, bytes=1_000_000)
    shards = cut_rows(file=FILE, rows=131_072, size=1_000_000, rule=rule, fingerprint="f")
    assert [len(bundle) for bundle in into_bundles(shards=shards, rule=rule, most=64)] == [1] * 64


def test_byte_ranges_of_lines_share_a_bundle_by_their_bytes() -> None:
    rule = CutRule(rows=10, bytes=1_000)
    file = replace(FILE, format="jsonl", size=900)
    shards = [shard for _ in range(3) for shard in cut_bytes(file=file, rule=CutRule(10, 300), fingerprint="f")]
    assert [len(bundle) for bundle in into_bundles(shards=shards, rule=rule, most=64)] == [3, 3, 3]


def test_a_shard_passes_through_json_values() -> None:
    shard = Shard(FILE, 5, 9, key="k", size=100, last=True)
    assert Shard.from_dict(shard.to_dict()) == shard
