"""Commands print file names that look like markup unchanged."""

import io
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from jobs import annotate, cli, connect
from jobs.progress import ProgressLine
from pipeline import run
from pipeline.output.folder import OutputFolder
from pipeline.output.job import FrozenJob
from pipeline.output.plan import Plan, make_plan
from pipeline.output.report import Ended
from pipeline.output.settle import Settled
from pipeline.output.sink import Receipt
from pipeline.output.tally import Tally
from pipeline.rows import STORED
from pipeline.shards import Stream
from pipeline.store.storage import canonical
from tests.pipeline.small import CHECKPOINT, OfflineCluster, frozen_job, shard, source_file, spec

NAMES = ("part[old].parquet", "x[/b].parquet", "[red]y.parquet")
SECRET = "hunter2"


def command(*words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> tuple[int, str, str]:
    """A command in this process: its exit code and what it printed."""
    monkeypatch.setattr(sys, "argv", ["preln", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return (int(ended.value.code or 0), *capsys.readouterr())


@pytest.fixture
def job(tmp_path: Path) -> FrozenJob:
    (tmp_path / "in").mkdir()
    job = frozen_job(job=spec(source=str(tmp_path / "in"), output=canonical(str(tmp_path / "out"))))
    return OutputFolder(job.output).freeze(job)


def a_plan(*work: Stream) -> Plan:
    return Plan(changes=(), current={}, written=frozenset(), entries={}, work=work, ignored=NAMES, name=None)


def test_the_report_of_a_run_prints_file_names_as_they_are(
    job: FrozenJob, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tally = Tally()
    ended = Ended(
        folder=OutputFolder(job.output), job=job, plan=a_plan(), tally=tally, run="r", began=0.0, cpu_began=0.0
    )
    failures = tuple(f"in/{name}: the file is gone" for name in NAMES)
    report = ended.report(state="failed-shards", settled=Settled(entries={}, failures=failures))
    monkeypatch.setattr(run, "annotate", lambda **_: report)
    monkeypatch.setattr(connect, "this_cluster", OfflineCluster)
    annotate.annotate_spec(job.spec)
    told = capsys.readouterr().out
    assert [name for name in NAMES if f"failed: in/{name}" not in told] == []
    assert [name for name in NAMES if f"unknown format: {name}" not in told] == []


def test_a_stopped_run_tells_the_rows_that_the_limits_count(job: FrozenJob) -> None:
    tally = Tally(rows=500, errors=Counter({"nan": 60, "empty": 7}), earlier_rows=1_500, earlier_bad_rows=50)
    ended = Ended(
        folder=OutputFolder(job.output), job=job, plan=a_plan(), tally=tally, run="r", began=0.0, cpu_began=0.0
    )
    words = io.StringIO()
    report = ended.report(state="too-many-errors", settled=Settled(entries={}))
    annotate.print_report(report, Console(file=words, width=1_000, markup=False))
    assert "Stopped: 110 of 2,000 rows, including earlier runs, have errors" in words.getvalue()


def test_status_and_plan_print_file_names_as_they_are(
    job: FrozenJob, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    record = {"state": "failed-shards", "finished": "2026-01-01", "failed": [f"{name}: gone" for name in NAMES]}
    OutputFolder(job.output).write_run(run="r", record=record)
    code, told, _ = command("status", job.output, capsys=capsys, monkeypatch=monkeypatch)
    assert code == 0
    assert [name for name in NAMES if f"  {name}: gone\n" not in told] == []
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "in" / "a.parquet")
    (tmp_path / "in" / "part[old].doc").write_bytes(b"")
    monkeypatch.setattr(connect, "this_cluster", OfflineCluster)
    flags = {"task": "text-classification", "model": CHECKPOINT, "input": str(tmp_path / "in"), "dtype": "float32"}
    words = [
        word for name, value in {**flags, "output": str(tmp_path / "new")}.items() for word in (f"--{name}", value)
    ]
    code, told, _ = command("plan", *words, capsys=capsys, monkeypatch=monkeypatch)
    assert code == 0
    assert "part[old].doc" in told


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--input", f"s3://user:{SECRET}@bucket/in"], "urls.0: the URL contains credentials"),
        (["--input", "in", "--input-format", "exel"], "format: input should be 'auto', 'parquet'"),
    ],
    ids=["a password", "a format that there is not"],
)
def test_verify_refuses_a_wrong_input_in_one_line_without_its_secret(
    job: FrozenJob, flags: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, err = command("verify", job.output, *flags, capsys=capsys, monkeypatch=monkeypatch)
    assert (code, out) == (2, "")
    (line,) = err.splitlines()
    assert line.startswith(f"preln: {said}")
    assert SECRET not in err


def live_line(job: FrozenJob, planned: Plan, *receipts: Receipt) -> str:
    """What the line on a terminal shows after these receipts."""
    words = io.StringIO()
    with ProgressLine(Console(file=words, force_terminal=True, width=400, markup=False)) as line:
        line.planned(job, planned)
        for receipt in receipts:
            line.committed(receipt)
    return words.getvalue().rpartition("rows/s")[0].rpartition("\r")[2]


def test_how_much_is_left_is_only_told_where_it_is_known(job: FrozenJob, tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a"] * 8}), tmp_path / "in" / "a.parquet")
    counted = make_plan(folder=OutputFolder(job.output), job=job)
    first, _ = [item for item in counted.work if not isinstance(item, Stream)]
    assert "50%" in live_line(job, counted, Receipt(shard=first, state="done", rows=4))
    file = source_file("s3://b/b.jsonl.gz", format="jsonl", compression="gzip", size=1_000)
    streamed = a_plan(Stream(file=file, done=frozenset()))
    decompressed = Receipt(shard=shard(0, 5_000, file=file), state="done", rows=4)
    assert "%" not in live_line(job, streamed, decompressed)
    assert "25%" in live_line(job, streamed, replace(decompressed, facts={STORED: 250.0}))
