"""Plans, manifests, runs and _SUCCESS read back as they were written."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.bundle import ShardTables
from pipeline.output import ledger
from pipeline.output.ledger import Entry, PlannedFile, Success
from pipeline.output.sink import DATA, Receipt, write_shard
from pipeline.rows import error_array
from pipeline.shards import Shard
from pipeline.store.storage import delete, join, put
from tests.pipeline.small import shard, source_file

KNOWN = PlannedFile(file=source_file("s3://b/a.parquet"), rows=20, shards=((0, 10, "a-0"), (10, 20, "a-1")))
STREAM = PlannedFile(file=source_file("s3://b/b.txt.gz", format="text", compression="gzip"), rows=None, shards=None)
BROKEN = PlannedFile(file=source_file("s3://b/c.parquet"), rows=None, shards=None, failure="s3://b/c.parquet: corrupt")
EMPTY_FILE = PlannedFile(file=source_file("s3://b/d.parquet", size=0), rows=0, shards=())
ENTRY = Entry("a-0", "s3://b/a.parquet", "v1", 0, 10, False, 10, {"empty": 2, "nan": 1})


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.storage)])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(request.getfixturevalue("s3_bucket")) + "/out" if request.param == "s3" else str(tmp_path / "out")


def written(output: str, *, first: int = 0, rows: int = 3, last: bool = False) -> Receipt:
    """A shard's object, and its receipt."""
    errors = error_array([("empty", "why"), *[None] * (rows - 1)])
    table = pa.table({"truncated": [False] * rows, "error": errors})
    given = ShardTables(shard=shard(first, first + rows, last=last))
    return write_shard(given, table, output=output, prefix="", provenance={})


def test_an_empty_folder_says_nothing(output: str) -> None:
    assert ledger.read_plans(output) == (None, [])
    assert ledger.read_manifest(output) == (None, {})
    assert ledger.written_keys(output) == frozenset()
    assert ledger.read_last_run(output) is None
    assert ledger.read_success(output) is None
    ledger.withdraw_success(output)


def test_plans_read_back_from_the_oldest_to_the_newest(output: str) -> None:
    files = [KNOWN, STREAM, BROKEN, EMPTY_FILE]
    runs = [ledger.new_run_id() for _ in range(3)]
    assert runs == sorted(runs), "later runs sort behind earlier ones"
    names = [ledger.write_plan(output, run=run, files=[files[number]]) for number, run in enumerate(runs[:2])]
    names.append(ledger.write_plan(output, run=runs[2], files=files))
    assert ledger.read_plans(output) == (names[-1], [[KNOWN], [STREAM], files])


def test_two_runs_of_one_moment_have_two_names() -> None:
    assert len({ledger.new_run_id() for _ in range(100)}) == 100


def test_the_newest_manifest_is_the_one_that_counts(output: str) -> None:
    other = Entry("b-0", "s3://b/b.txt.gz", "v1", 0, 99, True, 5, {})
    ledger.write_manifest(output, run="20260101T000000.000000Z-a", entries=[ENTRY])
    newest = ledger.write_manifest(output, run="20260102T000000.000000Z-a", entries=[ENTRY, other])
    assert ledger.read_manifest(output) == (newest, {"a-0": ENTRY, "b-0": other})


def test_empty_texts_are_no_errors_and_totals_count_both() -> None:
    assert ENTRY.error_rows == 1
    rows, bad, reasons = ledger.totals([ENTRY, ENTRY])
    assert (rows, bad, dict(reasons)) == (20, 2, {"empty": 4, "nan": 2})


def test_written_keys_are_the_whole_objects_under_data(output: str) -> None:
    receipt = written(output)
    put(join(output, DATA, ".preln-host.1.half"), b"half")
    put(join(output, DATA, "notes.txt"), b"of somebody else")
    assert ledger.written_keys(output) == frozenset({receipt.shard.key})


def test_what_no_manifest_names_is_known_by_its_footer(output: str) -> None:
    first, second = written(output), written(output, first=3, last=True)
    ledger.write_manifest(output, run=ledger.new_run_id(), entries=[ledger.entry_of(first)])
    keys = ledger.written_keys(output)
    found = ledger.known_entries(output, written=keys)
    assert found == {receipt.shard.key: ledger.entry_of(receipt) for receipt in (first, second)}
    assert found[second.shard.key].last


def test_a_manifest_does_not_bring_back_what_was_deleted(output: str) -> None:
    first, second = written(output), written(output, first=3)
    entries = [ledger.entry_of(first), ledger.entry_of(second)]
    ledger.write_manifest(output, run=ledger.new_run_id(), entries=entries)
    delete([join(output, DATA, first.shard.key)])
    found = ledger.known_entries(output, written=ledger.written_keys(output))
    assert list(found) == [second.shard.key]


def test_objects_that_preln_did_not_write_are_passed_over(tmp_path: Path) -> None:
    output = str(tmp_path)
    receipt = written(output)
    pq.write_table(pa.table({"a": [1]}), tmp_path / DATA / "foreign.parquet")
    put(join(output, DATA, "broken.parquet"), b"no Parquet")
    found = ledger.entries_from_footers(output, [*ledger.written_keys(output), "gone.parquet"])
    assert [entry.key for entry in found] == [receipt.shard.key]


def test_the_last_run_is_the_newest_record(output: str) -> None:
    ledger.write_run(output, run="20260101T000000.000000Z-a", record={"state": "interrupted"})
    ledger.write_run(output, run="20260102T000000.000000Z-a", record={"state": "done", "rows": 5})
    assert ledger.read_last_run(output) == {"state": "done", "rows": 5}


def test_success_reads_back_and_can_be_withdrawn(output: str) -> None:
    success = Success("plan", "manifest", 2, 3, 4, 1, accepted_failures=("file:///é: the file is gone",))
    ledger.write_success(output, success)
    assert ledger.read_success(output) == success
    ledger.withdraw_success(output)
    assert ledger.read_success(output) is None


def test_many_plans_and_entries_are_still_one_read_each(tmp_path: Path) -> None:
    entries = [Entry(f"k-{n}", "s3://b/a", "v", n, n + 1, False, 1, {}) for n in range(5_000)]
    ledger.write_manifest(str(tmp_path), run="r", entries=entries)
    assert list(ledger.read_manifest(str(tmp_path))[1].values()) == entries
    shards = tuple((number, number + 1, f"k-{number}") for number in range(5_000))
    planned = PlannedFile(file=source_file(), rows=5_000, shards=shards)
    ledger.write_plan(str(tmp_path), run="r", files=[planned])
    assert ledger.read_plans(str(tmp_path)) == ("r.parquet", [[planned]])


def test_an_entry_of_a_receipt_is_that_of_its_footer(output: str) -> None:
    receipt = written(output, first=7, last=True)
    assert isinstance(receipt.shard, Shard)
    assert ledger.entries_from_footers(output, [receipt.shard.key]) == [ledger.entry_of(receipt)]
