"""`annotate --probe`: a few shards spread over the input, a forecast, and a resume that does each row once."""

import gzip
import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from jobs.annotate import forecast_lines
from pipeline.analysis.dataset import Dataset
from pipeline.output.folder import OutputFolder
from pipeline.output.forecast import BEGINNINGS_SPREAD, Range, forecast, ratio, spread
from pipeline.output.plan import Plan
from pipeline.output.sink import Receipt
from pipeline.output.tally import Tally
from pipeline.rows import SKIPPED, STORED
from pipeline.shards import Stream
from tests.command import in_this_process
from tests.pipeline.run_here import commands_run_here
from tests.pipeline.small import CHECKPOINT, shard

ROWS = 400


def plan_of(shards: int) -> Plan:
    """A plan of shards of ten rows."""
    work = [shard(10 * index, 10 * index + 10) for index in range(shards)]
    return Plan(changes=[], current={}, written=frozenset(), entries={}, work=work, ignored=[], name=None)


def tally_of(tokens: list[float], *, seconds: float = 2.0) -> Tally:
    """Receipts of shards of ten rows that one replica has computed, waiting as long again as it computed in the first."""
    tally = Tally()
    for index, count in enumerate(tokens):
        facts = {
            "tokens": count,
            "replica": 1.0,
            "computing_s": seconds,
            "waiting_s": seconds * (index == 0),
            "handling_s": 0.0,
        }
        tally.add(Receipt(shard=shard(10 * index, 10 * index + 10), state="done", rows=10, facts=facts))
    return tally


def test_the_probed_shards_are_spread_over_the_work() -> None:
    work = plan_of(100).work
    assert [work.index(item) for item in spread(work, 4)] == [12, 37, 62, 87]
    assert spread(work, 500) == list(work)
    assert spread([], 3) == []


def test_a_forecast_counts_what_is_left_on_the_replicas_asked_for() -> None:
    found = forecast(plan=plan_of(100), tally=tally_of([100.0, 100.0]), replicas=2, first_shard=12.0)
    assert found.rows == Range(980, 980, 980)  # Parquet says its rows
    assert found.tokens.low < found.tokens.likely == 9_800 < found.tokens.high
    # 2 s for 100 tokens, by two replicas, and 10 s until they were ready.
    assert found.hours.likely * 3600 == pytest.approx(9_800 * 0.02 * 1.05 / 2 + 10)
    assert found.hours.low < found.hours.likely < found.hours.high
    assert found.start_up == 10.0


def test_a_range_is_wider_where_shards_differ() -> None:
    alike, unlike = ratio([10.0] * 4, [100.0] * 4), ratio([10.0] * 4, [40.0, 160.0, 80.0, 120.0])
    assert [alike.low, alike.likely, alike.high] == pytest.approx([9.5, 10.0, 10.5])
    assert unlike.likely == 10.0
    assert unlike.high - unlike.low > 3 * (alike.high - alike.low)
    assert ratio([10.0], [100.0]) == Range(5.0, 10.0, 15.0)


def test_what_is_left_of_a_compressed_file_is_counted_in_its_stored_bytes() -> None:
    file = replace(shard(0, 10).file, format="jsonl", compression="gzip", size=100_000)
    plan = replace(plan_of(0), work=[Stream(file=file, done=frozenset({"before"}))])
    tally = Tally()
    for number in range(3):
        facts = {"tokens": 2_000.0, "replica": 1.0, "computing_s": 1.0, STORED: 1_000.0}
        facts[SKIPPED] = 7_000.0 * (number == 0)  # shards of an earlier run
        receipt = Receipt(shard=replace(shard(number, number + 1), file=file), state="done", rows=100, facts=facts)
        tally.add(replace(receipt, shard=replace(receipt.shard, size=1_000_000)))
    found = forecast(plan=plan, tally=tally, replicas=1, first_shard=1.0)
    assert (found.rows.likely, found.tokens.likely) == pytest.approx((9_000, 180_000))
    assert found.tokens.low == pytest.approx(180_000 * (1 - BEGINNINGS_SPREAD))
    assert "beginnings of files, times 90,000 stored bytes left" in found.grounds["tokens"]


def test_the_money_is_that_of_all_replicas() -> None:
    found = forecast(plan=plan_of(100), tally=tally_of([100.0, 100.0]), replicas=2, first_shard=2.0)
    (line,) = [line for line in forecast_lines(found, price=2.5) if "money" in line]
    assert f"about {found.hours.likely * 2 * 2.5:,.2f}" in line
    assert forecast_lines(None, price=None)[0].startswith("No forecast")


@pytest.mark.torch
def test_a_probe_stops_with_a_forecast_and_the_same_command_does_each_row_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commands_run_here(monkeypatch, replica=True)
    (tmp_path / "in").mkdir()
    texts = [f"Ferry number {row} left. " * (1 + row % 5) for row in range(ROWS)]
    pq.write_table(pa.table({"text": texts}), tmp_path / "in/a.parquet")
    lines = "\n".join(json.dumps({"text": text}) for text in texts[:40])
    (tmp_path / "in/b.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    job = {
        "input": str(tmp_path / "in"),
        "model": {"checkpoint": CHECKPOINT, "dtype": "float32"},
        "task": "text-classification",
        "output": str(tmp_path / "out"),
        "resources": {"gpus": 0, "replicas": 1},
        "shards": {"rows": 20},
    }
    (tmp_path / "job.yaml").write_text(json.dumps(job))
    preln = in_this_process(monkeypatch, capsys)
    ended = preln("annotate", tmp_path / "job.yaml", "--probe", 3, "--price", 2.5)
    assert ended.code == 0, ended.err
    assert "Left after 3 probed shards, on 1 replica:" in ended.out
    assert all(f"  {name} " in ended.out for name in ("rows", "tokens", "hours", "money"))
    assert not (tmp_path / "out/_SUCCESS").exists()
    record = OutputFolder(str(tmp_path / "out")).read_last_run()
    assert record is not None
    assert (record["state"], record["failed"], record["forecast"]["shards"]) == ("probed", [], 3)
    probed = {entry.key for entry in Dataset(str(tmp_path / "out")).shards}
    written = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out/data").iterdir()}
    assert 3 <= len(probed) < 22
    ended = preln("annotate", tmp_path / "job.yaml")
    assert ended.code == 0, ended.err
    assert (tmp_path / "out/_SUCCESS").exists()
    rows = ds.dataset(tmp_path / "out/data").to_table(columns=["source", "row"]).to_pylist()
    assert len(rows) == len({(row["source"], row["row"]) for row in rows}) == ROWS + 40
    assert all((tmp_path / "out/data" / name).stat().st_mtime_ns == at for name, at in written.items())
    ended = preln("annotate", tmp_path / "job.yaml", "--probe", 3)  # nothing is left to probe
    assert (ended.code, "Nothing to do" in ended.out) == (0, True)


@pytest.mark.parametrize(
    ("words", "why"), [(("--price", "2"), "--probe"), (("--probe", "3", "--every", "1h"), "--every")]
)
def test_options_that_do_not_go_together_are_refused(
    words: tuple[str, ...], why: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    preln = in_this_process(monkeypatch, capsys)
    ended = preln("annotate", "--task", "fill-mask", "--model", "m", "--input", "i", "--output", "o", *words)
    assert (ended.code, why in ended.err) == (2, True)
