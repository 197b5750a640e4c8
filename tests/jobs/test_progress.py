"""What a run shows from its first second on: on a terminal of 80 columns, in a pipe, and what is left from tokens."""

import io
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from jobs import progress
from jobs.progress import ProgressLine
from jobs.time_left import TimeLeft
from pipeline.cluster.flight import Flight, Gathered
from pipeline.inference.replica_news import Publisher
from pipeline.inference.replica_news import Work as Done
from pipeline.output.plan import Plan
from pipeline.output.sink import Receipt
from pipeline.rows import SKIPPED, STORED
from pipeline.shards import Stream, Work
from tests.pipeline.small import frozen_job, rows_table, shard, source_file, spec, windows_shard

CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f]")
GZIPPED = source_file("s3://b/b.jsonl.gz", format="jsonl", compression="gzip", size=1_000)


class Clock:
    """A clock that is set by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def a_plan(*work: Work) -> Plan:
    return Plan(changes=(), current={}, written=frozenset(), entries={}, work=work, ignored=(), name=None)


def flight(*, tokens: int, known: int, stored: float, rows: int = 100, skipped: float = 0.0) -> Flight:
    """One replica, which holds everything that is not answered."""
    return Flight(
        replicas=1,
        device="cpu in float32",
        seconds=6.0,
        rows=rows,
        tokens=tokens,
        known=Done(rows=rows, tokens=known, stored=stored, skipped=skipped),
    )


def test_time_left_follows_from_tokens_before_any_shard_is_committed() -> None:
    clock = Clock()
    left = TimeLeft(10_000, clock=clock)
    left.flying(Flight())
    assert (left.share, left.seconds) == (None, None)
    clock.now = 50.0  # the model was loading: no part of the rate
    left.flying(flight(tokens=0, known=4_000, stored=1_000))
    clock.now = 60.0
    left.flying(flight(tokens=2_000, known=4_000, stored=1_000))
    # Four tokens a byte make 40,000, of which 2,000 took ten seconds.
    assert left.share == pytest.approx(0.05)
    assert left.seconds == pytest.approx(190)


def test_a_compressed_file_counts_by_the_bytes_that_are_stored_not_by_its_texts() -> None:
    clock = Clock()
    left = TimeLeft(1_000, clock=clock)
    for clock.now, tokens in ((0.0, 0), (10.0, 5_000)):
        left.flying(flight(tokens=tokens, known=5_000, stored=250.0))
    assert left.share == pytest.approx(0.25)
    assert left.seconds == pytest.approx(30)
    text = shard(0, 90_000, file=GZIPPED)
    by_receipts = TimeLeft(1_000, clock=clock)
    by_receipts.committed(Receipt(shard=text, state="done", facts={"tokens": 5_000.0, STORED: 250.0}))
    assert by_receipts.share == pytest.approx(0.25)


def test_what_an_earlier_run_has_written_of_a_compressed_file_is_not_work() -> None:
    left = TimeLeft(1_000, clock=Clock())
    left.flying(flight(tokens=100, known=200, stored=200.0, skipped=600.0))
    assert left.share == pytest.approx(0.25)  # 100 of 400 tokens: 400 bytes of 1,000 were left
    by_receipts = TimeLeft(1_000, clock=Clock())
    facts = {"tokens": 100.0, STORED: 100.0, SKIPPED: 600.0}
    by_receipts.committed(Receipt(shard=shard(0, 9, file=GZIPPED), state="done", facts=facts))
    assert by_receipts.share == pytest.approx(0.25)


def test_the_rate_is_that_of_the_last_minute() -> None:
    clock = Clock()
    left = TimeLeft(100_000, clock=clock)
    for clock.now in map(float, range(0, 600, 5)):
        left.flying(flight(tokens=int(clock.now * 10), known=50_000, stored=50_000))
    fast = left.tokens
    for clock.now in map(float, range(600, 700, 5)):
        fast += 500
        left.flying(flight(tokens=fast, known=50_000, stored=50_000))
    assert left.rate == pytest.approx(100, rel=0.1)


def test_bundles_of_a_replica_count_while_they_are_answered_and_after_it_is_lost_only_what_was_done() -> None:
    clock = Clock()
    publisher = Publisher(run="", number=1.0, device="cpu", seconds=1.0)
    two = [replace(windows_shard([[1, 2]]), rows=rows_table({"text": ["a"] * 5})) for _ in range(2)]
    with publisher.bundle([two[0]]) as on_tokens:
        on_tokens(40, 40)
    with publisher.bundle([replace(two[1], facts={STORED: 7.0})]) as on_tokens:
        on_tokens(60, 20)
        gathered = Gathered(clock=clock)
        gathered.take({"run/1": publisher.news().to_json().encode()})
        seen = gathered.flight()
        assert (seen.replicas, seen.rows, seen.tokens) == (1, 5, 60)
        assert (seen.known.tokens, seen.known.stored) == (100, two[0].shard.size + 7.0)
        clock.now = 20.0
        lost = gathered.flight()
    assert (lost.replicas, lost.rows, lost.tokens, lost.known.tokens) == (0, 0, 40, 40)


@contextmanager
def run_on(console: Console, tmp_path: Path) -> Iterator[ProgressLine]:
    """A progress line of a run over one compressed file, which is half done."""
    job = frozen_job(job=spec(source=str(tmp_path / "in"), output=str(tmp_path / "out")))
    with ProgressLine(console) as line:
        line.phase("starting Ray")
        line.phase("planning")
        line.planned(job, a_plan(Stream(file=GZIPPED, done=frozenset())))
        line.running(Flight(queued=2))
        line.running(flight(tokens=0, known=3_000, stored=500.0, rows=1_234))
        facts = {"tokens": 1_500.0, STORED: 500.0, "budget_tokens": 1_600.0}
        errors = {"empty": 3, "control-characters": 2}
        line.committed(Receipt(shard=shard(file=GZIPPED), state="done", rows=600, errors=errors, facts=facts))
        yield line
        line.settling()


def test_the_live_line_fits_into_80_columns_and_gives_up_the_least_important_first(tmp_path: Path) -> None:
    words = io.StringIO()
    with run_on(Console(file=words, force_terminal=True, width=80, markup=False, soft_wrap=True), tmp_path) as line:
        whole, short, tiny = line.line(), line.line(width=77), line.line(width=20)
        time.sleep(0.5)  # it is drawn four times a second
    assert len(short) <= 77
    assert short.startswith("annotating, ")
    assert "%, 600 rows + 1,234 in flight" in short
    assert "batches" in whole
    assert "batches" not in short
    assert tiny.startswith("annotating, ")
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", words.getvalue())
    drawn = [part for part in re.split(r"[\r\n]", shown) if "annotating, " in part]
    assert drawn
    assert max(map(len, drawn)) <= 80


def test_in_a_pipe_there_is_a_plain_line_every_so_often_also_before_anything_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "QUIET_SECONDS", 0.05)
    words = io.StringIO()
    console = Console(file=words, width=80, markup=False, soft_wrap=True)
    with ProgressLine(console):
        time.sleep(0.4)
    assert words.getvalue().count("planning, 0 s\n") >= 2
    with run_on(console, tmp_path):
        time.sleep(0.4)
    text = words.getvalue()
    assert not CONTROL.search(text)
    assert "Ray started in 0 s\n" in text
    assert "model ready on cpu in float32 in 6 s\n" in text
    assert re.search(
        r"^annotating, 0 s: \d+%, 600 rows \+ 1,234 in flight, .*3 empty, 2 control-characters", text, re.M
    )


def test_a_terminal_that_knows_no_control_characters_gets_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    words = io.StringIO()
    with run_on(Console(file=words, force_terminal=True, width=80, markup=False), tmp_path):
        pass
    assert not CONTROL.search(words.getvalue())
