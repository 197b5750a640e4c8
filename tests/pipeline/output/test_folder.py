"""The records of an output folder read back as they were written."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.bundle import ShardTables
from pipeline.errors import OutputError
from pipeline.output.folder import OutputFolder, new_run_id
from pipeline.output.records import Entry, PlannedFile, Success, entry_from_footer, totals
from pipeline.output.sink import Receipt, shard_footer, to_parquet, write_shard
from pipeline.rows import error_array
from pipeline.shards import Shard
from tests.pipeline.small import FINGERPRINT, shard, source_file

KNOWN = PlannedFile(file=source_file("s3://b/a.parquet"), rows=20, shards=((0, 10, "a-0"), (10, 20, "a-1")))
STREAM = PlannedFile(file=source_file("s3://b/b.txt.gz", format="text", compression="gzip"), rows=None, shards=None)
BROKEN = PlannedFile(file=source_file("s3://b/c.parquet"), rows=None, shards=None, failure="s3://b/c.parquet: corrupt")
EMPTY_FILE = PlannedFile(file=source_file("s3://b/d.parquet", size=0), rows=0, shards=())
ENTRY = Entry("a-0", "s3://b/a.parquet", "v1", 0, 10, False, 10, {"empty": 2, "nan": 1})


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.storage)])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> OutputFolder:
    return OutputFolder(
        f"{request.getfixturevalue('s3_bucket')}/out" if request.param == "s3" else str(tmp_path / "out")
    )


def written(output: OutputFolder, *, first: int = 0, rows: int = 3, last: bool = False) -> Receipt:
    """A shard's object, and its receipt."""
    errors = error_array([("empty", "why"), *[None] * (rows - 1)])
    table = pa.table({"truncated": [False] * rows, "error": errors})
    given = ShardTables(shard=shard(first, first + rows, last=last))
    return write_shard(given, table, data=output.data, prefix="", footer={})


def entry_of(receipt: Receipt, output: OutputFolder) -> Entry:
    """The entry that a receipt's object should have."""
    footer = shard_footer(receipt.shard, rows=receipt.rows, errors=receipt.errors)
    return entry_from_footer(footer, key=receipt.shard.key, version=output.objects()[receipt.shard.key])


def known(output: OutputFolder) -> dict[str, Entry]:
    return output.known_entries(objects=output.objects(), fingerprint=FINGERPRINT)


def test_an_empty_folder_says_nothing(output: OutputFolder) -> None:
    assert output.read_plans() == (None, [])
    assert output.read_manifest() == (None, {})
    assert output.written_keys() == frozenset()
    assert output.read_last_run() is None
    assert output.read_success() is None


def test_plans_read_back_from_the_oldest_to_the_newest(output: OutputFolder) -> None:
    files = [KNOWN, STREAM, BROKEN, EMPTY_FILE]
    runs = [new_run_id() for _ in range(3)]
    assert runs == sorted(runs), "later runs sort behind earlier ones"
    names = [output.write_plan(run=run, files=[files[number]]) for number, run in enumerate(runs[:2])]
    names.append(output.write_plan(run=runs[2], files=files))
    assert output.read_plans() == (names[-1], [[KNOWN], [STREAM], files])


def test_two_runs_of_one_moment_have_two_names() -> None:
    assert len({new_run_id() for _ in range(100)}) == 100


def test_the_newest_manifest_is_the_one_that_counts(output: OutputFolder) -> None:
    other = Entry("b-0", "s3://b/b.txt.gz", "v1", 0, 99, True, 5, {})
    output.write_manifest(run="20260101T000000.000000Z-a", entries=[ENTRY])
    newest = output.write_manifest(run="20260102T000000.000000Z-a", entries=[ENTRY, other])
    assert output.read_manifest() == (newest, {"a-0": ENTRY, "b-0": other})


def test_empty_texts_are_no_errors_and_totals_count_both() -> None:
    assert ENTRY.error_rows == 1
    rows, bad, reasons = totals([ENTRY, ENTRY])
    assert (rows, bad, dict(reasons)) == (20, 2, {"empty": 4, "nan": 2})


def test_written_keys_are_the_whole_objects_under_data(output: OutputFolder) -> None:
    receipt = written(output)
    output.data.put(".preln-host.1.half", b"half")
    output.data.put("notes.txt", b"of somebody else")
    assert output.written_keys() == frozenset({receipt.shard.key})


def test_what_no_manifest_names_is_known_by_its_footer(output: OutputFolder) -> None:
    first, second = written(output), written(output, first=3, last=True)
    output.write_manifest(run=new_run_id(), entries=[entry_of(first, output)])
    found = known(output)
    assert found == {receipt.shard.key: entry_of(receipt, output) for receipt in (first, second)}
    assert found[second.shard.key].last


def test_a_manifest_does_not_bring_back_what_was_deleted(output: OutputFolder) -> None:
    first, second = written(output), written(output, first=3)
    entries = [entry_of(first, output), entry_of(second, output)]
    output.write_manifest(run=new_run_id(), entries=entries)
    output.data.delete([first.shard.key])
    found = known(output)
    assert list(found) == [second.shard.key]


def test_objects_that_preln_did_not_write_are_passed_over(tmp_path: Path) -> None:
    output = OutputFolder(str(tmp_path))
    receipt = written(output)
    pq.write_table(pa.table({"a": [1]}), tmp_path / "data" / "foreign.parquet")
    output.data.put("broken.parquet", b"no Parquet")
    found = output.entries_from_footers({**output.objects(), "gone.parquet": "v"}, fingerprint=FINGERPRINT)
    assert list(found) == [receipt.shard.key]


def test_a_footer_without_a_field_is_refused_in_one_line(tmp_path: Path) -> None:
    output = OutputFolder(str(tmp_path))
    output.data.put("a.parquet", to_parquet(pa.table({"a": [1]}), footer={"source": "s3://b/a", "rows": 1}))
    with pytest.raises(OutputError, match=r"a\.parquet: it has no 'version'"):
        output.entries_from_footers({"a.parquet": "v"}, fingerprint=FINGERPRINT)


def test_the_last_run_is_the_newest_record(output: OutputFolder) -> None:
    output.write_run(run="20260101T000000.000000Z-a", record={"state": "interrupted"})
    output.write_run(run="20260102T000000.000000Z-a", record={"state": "done", "rows": 5})
    assert output.read_last_run() == {"state": "done", "rows": 5}


def test_success_reads_back_until_there_is_more_to_do(output: OutputFolder) -> None:
    success = Success("plan", "manifest", 2, 3, 4, 1, accepted_failures=("file:///é: the file is gone",))
    output.write_success(success)
    assert output.read_success() == success
    output.write_plan(run=new_run_id(), files=[KNOWN])
    assert output.read_success() is None


def test_many_plans_and_entries_are_still_one_read_each(tmp_path: Path) -> None:
    output = OutputFolder(str(tmp_path))
    entries = [Entry(f"k-{n}", "s3://b/a", "v", n, n + 1, False, 1, {}) for n in range(5_000)]
    output.write_manifest(run="r", entries=entries)
    assert list(output.read_manifest()[1].values()) == entries
    shards = tuple((number, number + 1, f"k-{number}") for number in range(5_000))
    planned = PlannedFile(file=source_file(), rows=5_000, shards=shards)
    output.write_plan(run="r", files=[planned])
    assert output.read_plans() == ("r.parquet", [[planned]])


def test_an_entry_of_a_receipt_is_that_of_its_footer(output: OutputFolder) -> None:
    receipt = written(output, first=7, last=True)
    assert isinstance(receipt.shard, Shard)
    assert known(output) == {receipt.shard.key: entry_of(receipt, output)}
