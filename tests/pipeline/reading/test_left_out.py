"""A column that is not among the job's columns is reported with the number of its rows, unless left out on purpose."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.flow import reading_of
from pipeline.output.job import FrozenJob
from pipeline.output.sink import Receipt
from pipeline.output.tally import Tally
from pipeline.prepare import open_job
from pipeline.reading.inputs import describe, list_files
from pipeline.reading.schema import SAMPLE_BYTES
from pipeline.reading.source import read_bundles
from pipeline.shards import Stream, Work, cut_bytes, cut_rows
from tests.pipeline.small import OfflineCluster, spec

EARLY, LATE = 9_000, 7


def job_of(folder: Path, **input_keys: object) -> FrozenJob:
    given = spec(source={"urls": [str(folder / "in")], **input_keys}, output=str(folder / "out"))
    return open_job(spec=given, cluster=OfflineCluster())[0]


def left_out(job: FrozenJob) -> dict[str, int]:
    """What a run over all files reports."""
    tally = Tally()
    reading = reading_of(job)
    for item in describe(list_files(job.spec.input, output=job.output).files):
        file = item.file
        work: list[Work] = [Stream(file, frozenset())]
        if item.rows is not None:
            work = [*cut_rows(file=file, rows=item.rows, size=file.size, rule=job.cut, fingerprint=job.fingerprint)]
        elif not file.sequential:
            work = [*cut_bytes(file=file, rule=job.cut, fingerprint=job.fingerprint)]
        for bundle in read_bundles(task=work, reading=reading):
            for shard in bundle:
                assert shard.failure is None
                tally.add(Receipt(shard=shard.shard, state="done", facts=shard.facts))
    return tally.left_out_columns()


def late_column(folder: Path, name: str = "a.jsonl") -> None:
    """JSON lines whose column `late` begins behind the sample."""
    (folder / "in").mkdir(exist_ok=True)
    early = json.dumps({"text": "x" * 150, "meta": {"a": 1}}) + "\n"
    late = (
        json.dumps({"text": "y", "meta": {"a": 1}, "late": 5}) + "\n" + json.dumps({"text": "z", "late": None}) + "\n"
    )
    assert len(early) * EARLY > SAMPLE_BYTES
    (folder / "in" / name).write_text(early * EARLY + late * LATE)


def test_a_json_column_that_begins_behind_the_sample_is_reported(tmp_path: Path) -> None:
    late_column(tmp_path)
    assert left_out(job_of(tmp_path)) == {"late": LATE}


def test_it_is_carried_where_input_schema_declares_it(tmp_path: Path) -> None:
    late_column(tmp_path)
    job = job_of(tmp_path, schema={"text": "string", "late": "int64"})
    assert job.schema.names == ["text", "late"]
    assert left_out(job) == {}, "what a schema does not name is left out on purpose"


def test_what_keep_leaves_out_is_not_reported(tmp_path: Path) -> None:
    late_column(tmp_path)
    assert left_out(job_of(tmp_path, keep=[])) == {}


def test_lines_that_arrow_refuses_are_looked_at_too(tmp_path: Path) -> None:
    late_column(tmp_path)
    with (tmp_path / "in" / "a.jsonl").open("a") as file:
        file.write('no object\n{"text": 5, "late": 1, "later": 2}\n')
    assert left_out(job_of(tmp_path)) == {"late": LATE + 1, "later": 1}


def test_a_file_that_comes_later_may_have_more_columns(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.csv").write_text("text,id\none,1\n")
    job = job_of(tmp_path)
    (tmp_path / "in" / "b.csv").write_text("text,id,mood\none,1,good\ntwo,2,bad\n")
    pq.write_table(pa.table({"text": ["a", "b", "c"], "colour": ["red"] * 3}), tmp_path / "in" / "c.parquet")
    with pa.OSFile(str(tmp_path / "in" / "d.arrow"), "wb") as sink:
        table = pa.table({"text": ["a"], "size": [1]})
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
    assert left_out(job) == {"colour": 3, "mood": 2, "size": 1}


def test_very_many_names_are_counted_together(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jsonl").write_text('{"text": "one"}\n')
    job = job_of(tmp_path)
    (tmp_path / "in" / "a.jsonl").write_text("".join(f'{{"text": "one", "k{n}": 1}}\n' for n in range(500)))
    found = left_out(job)
    assert len(found) == 51
    assert sum(found.values()) == 500
