"""A value that a file stores once and repeats in every row: every row is answered in bounded memory, in parts that are planned
before they are written."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from pipeline import run
from pipeline.output.folder import OutputFolder
from pipeline.output.plan import newest
from pipeline.output.report import Report
from pipeline.output.verify import verify
from pipeline.reading import source
from pipeline.reading.formats import parquet
from pipeline.reading.source import Reading, read_bundles
from pipeline.shards import CutRule, Shard, parts_of, shard_key
from pipeline.spec.job_spec import JobSpec
from pipeline.spec.settings import override
from tests.pipeline.bad_run import annotate, job_values
from tests.pipeline.small import FINGERPRINT, file_at

ROWS = 200
LONG = 1 << 20
"""Bytes of one value where only reading is looked at."""
ROOM = 100 << 20
"""Memory that decoding may take, of rows that take 200 MB."""
LESS_LONG = 1 << 15
LIMIT = 8 * LESS_LONG
"""What the rows of one shard may take here."""
SCHEMA = pa.schema([("text", pa.string()), ("body", pa.string())])
POOLS: list[pa.MemoryPool] = []
"""Kept as long as an array of theirs may live."""


@pytest.fixture(autouse=True)
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "DECODED_BYTES", LIMIT)
    monkeypatch.setattr(source, "DECODED_TO_CUT", 0)


@pytest.fixture
def arrow_memory() -> Iterator[pa.MemoryPool]:
    """A pool that counts what Arrow holds from now on."""
    before = pa.default_memory_pool()
    pool = pa.proxy_memory_pool(before)
    POOLS.append(pool)
    pa.set_memory_pool(pool)
    yield pool
    pa.set_memory_pool(before)


def columns(layout: str, long: int) -> dict[str, Any]:
    """A short text and a long value in every row, stored in some way."""
    body = pa.DictionaryArray.from_arrays(pa.array(np.zeros(ROWS, np.int32)), pa.array(["x" * long]))
    return {
        "text": [f"text {row}" for row in range(ROWS)],
        "body": body if layout != "list" else pa.ListArray.from_arrays(pa.array(np.arange(ROWS + 1)), body),
    }


def write(path: Path, layout: str, long: int = LESS_LONG) -> None:
    path.parent.mkdir(exist_ok=True)
    table = pa.table(columns(layout, long))
    if path.suffix == ".parquet":
        pq.write_table(table, path, store_schema=layout == "dictionary")
    else:
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table)
    assert path.stat().st_size < 2 * long


def job(folder: Path, **settings: object) -> JobSpec:
    return JobSpec.parse(override(values=job_values(folder), flags=list(settings.items())))


def reading(**settings: Any) -> Reading:
    rule = CutRule(2_048, 1_000_000)
    return Reading(schema=SCHEMA, required=(), rule=rule, fingerprint=FINGERPRINT, line_bytes=1_000, **settings)


def whole_shard(path: Path) -> Shard:
    file = file_at(path)
    key = shard_key(file=file, first=0, stop=ROWS, fingerprint=FINGERPRINT)
    return Shard(file=file, first=0, stop=ROWS, key=key, size=1_000)


def rows_of(folder: Path) -> list[int]:
    found = ds.dataset(folder / "out/data", format="parquet").to_table(columns=["row", "label", "error"])
    assert found["error"].null_count == found.num_rows
    assert found["label"].null_count == 0
    return sorted(found["row"].to_pylist())


def test_a_shard_that_is_too_large_says_where_to_cut_it_in_little_memory(
    tmp_path: Path, arrow_memory: pa.MemoryPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "DECODED_BYTES", 8 * LONG)
    write(tmp_path / "in/a.parquet", "plain", LONG)
    shard = whole_shard(tmp_path / "in/a.parquet")
    ((cut,),) = read_bundles(task=[shard], reading=reading())
    assert cut.rows is None
    assert cut.failure is not None
    assert cut.failure[0] == "too-large"
    parts = parts_of(shard, cut.cuts, fingerprint=FINGERPRINT)
    assert (parts[0].first, parts[-1].stop, len(parts)) == (0, ROWS, len(cut.cuts) + 1)
    read = []
    for bundle in read_bundles(task=parts, reading=reading()):
        assert sum(one.rows.nbytes for one in bundle if one.rows is not None) <= 8 * LONG
        read += [(one.shard, one.rows.num_rows) for one in bundle if one.rows is not None]
    assert read == [(part, part.stop - part.first) for part in parts]
    assert arrow_memory.max_memory() < ROOM


def test_whoever_only_looks_at_rows_reads_the_parts_one_after_the_other_or_the_whole(tmp_path: Path) -> None:
    write(tmp_path / "in/a.parquet", "plain")
    shard = whole_shard(tmp_path / "in/a.parquet")
    parts = [one for bundle in read_bundles(task=[shard], reading=reading(large="parts")) for one in bundle]
    assert [number for one in parts if one.rows is not None for number in one.rows["__row__"].to_pylist()] == list(
        range(ROWS)
    )
    assert len(parts) > 20
    ((whole,),) = read_bundles(task=[shard], reading=reading(large="whole"))
    assert whole.rows is not None
    assert whole.rows.num_rows == ROWS


def test_long_values_after_short_ones_are_decoded_again_in_smaller_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arrow_memory: pa.MemoryPool
) -> None:
    """The first rows promise short ones: the step that takes too much is tried again with fewer rows, and no row is lost."""
    monkeypatch.setattr(parquet, "STEP_BYTES", 32 << 20)
    short, long = 10_000, 60
    values = pa.array(["s", "x" * LONG])
    places = pa.array(np.repeat(np.array([0, 1], np.int32), [short, long]))
    pq.write_table(
        pa.table({"text": pa.DictionaryArray.from_arrays(places, values), "id": range(short + long)}),
        tmp_path / "a.parquet",
        store_schema=False,
    )
    with parquet.opened(str(tmp_path / "a.parquet")) as file:
        found = [batch["id"].to_pylist() for batch in parquet._decoded(file, group=0, columns=["text", "id"])]
    assert [number for batch in found for number in batch] == list(range(short + long))
    assert arrow_memory.max_memory() < ROOM


@pytest.mark.parametrize(
    ("name", "layout"),
    [("a.parquet", "plain"), ("a.parquet", "dictionary"), ("a.parquet", "list"), ("a.arrow", "plain")],
)
def test_every_row_is_answered_and_the_next_run_finds_nothing_to_do(tmp_path: Path, name: str, layout: str) -> None:
    write(tmp_path / "in" / name, layout)
    report = annotate(job(tmp_path))
    assert (report.state, report.total_rows, report.failures) == ("done", ROWS, [])
    assert rows_of(tmp_path) == list(range(ROWS))
    assert len(list((tmp_path / "out/data").iterdir())) > 20
    assert verify(str(tmp_path / "out")).findings == ()
    again = annotate(job(tmp_path))
    assert (again.state, again.total_rows, again.tally.receipts) == ("done", ROWS, [])


def test_a_text_that_repeats_is_answered_in_every_row(tmp_path: Path) -> None:
    text = pa.DictionaryArray.from_arrays(pa.array(np.zeros(ROWS, np.int32)), pa.array(["word " * (LESS_LONG // 8)]))
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"text": text}), tmp_path / "in/a.parquet", store_schema=False)
    report = annotate(job(tmp_path))
    assert (report.state, report.total_rows, len(report.tally.receipts) > 10) == ("done", ROWS, True)
    assert rows_of(tmp_path) == list(range(ROWS))


def test_a_run_that_dies_between_the_parts_resumes_with_the_same_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "in/a.parquet", "plain")
    planned = run.planned_parts

    def dies(*arguments: Any, **keywords: Any) -> Any:
        planned(*arguments, **keywords)
        raise KeyboardInterrupt

    with patch.object(run, "planned_parts", dies):
        assert annotate(job(tmp_path)).state == "interrupted"
    shards = _planned(tmp_path)
    assert len(shards) > 20
    report = annotate(job(tmp_path))
    assert report.state == "done"
    assert {receipt.shard.key for receipt in report.tally.receipts} == {key for _, _, key in shards}
    assert _planned(tmp_path) == shards


def test_an_object_of_the_whole_shard_goes_when_all_its_parts_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written by a driver that had more memory to give, before or after: no row is there twice."""
    write(tmp_path / "in/a.parquet", "plain")
    with monkeypatch.context() as roomy:
        roomy.setattr(source, "DECODED_BYTES", 1 << 30)
        annotate(job(tmp_path))
    (whole,) = (tmp_path / "out/data").iterdir()
    content = whole.read_bytes()
    whole.unlink()
    report = annotate(job(tmp_path))
    assert report.state == "done"
    whole.write_bytes(content)
    assert _verified_after_a_run(tmp_path) == ROWS
    assert not whole.exists()


def _planned(folder: Path) -> tuple[tuple[int, int, str], ...]:
    _, plans = OutputFolder(f"file://{folder}/out").read_plans()
    (file,) = newest(plans).values()
    assert file.shards is not None
    return file.shards


def _verified_after_a_run(folder: Path) -> int:
    report: Report = annotate(job(folder))
    assert verify(str(folder / "out")).findings == ()
    assert rows_of(folder) == list(range(ROWS))
    return report.total_rows
