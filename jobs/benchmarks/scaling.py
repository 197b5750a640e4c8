"""Measures what the driver costs for many replicas and shards: CPU, receipts per second, memory of plans.

    python -m jobs.benchmarks.scaling run --replicas 16 --shards 2000 --nap 0.05     # a Ray of its own, models that sleep
    python -m jobs.benchmarks.scaling plan --shards 1000000                          # no Ray: what a plan takes in memory

The models only sleep, so that one machine can hold as many as it has memory for (about 0.2 GB each), and what is measured
is everything but the model. One JSON object a line comes out.
"""

import json
import logging
import os
import resource
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import ray
import typer

from models.boundary import Answers, Ask, Framework, Head, Tokens
from pipeline import run
from pipeline.cluster.placement import Cluster
from pipeline.output.folder import OutputFolder, new_run_id
from pipeline.output.job import FrozenJob
from pipeline.output.plan import Plan, missing_work, newest
from pipeline.output.records import Entry, PlannedFile
from pipeline.output.sink import Receipt
from pipeline.output.tally import Tally
from pipeline.reading.source import read_tasks
from pipeline.shards import CutRule, SourceFile, cut_rows
from pipeline.spec.job_spec import JobSpec

CHECKPOINT = Path(__file__).resolve().parents[1] / "checkpoints" / "random-tiny"
LOADER = "jobs.benchmarks.scaling:load"
NAP_VARIABLE = "PRELN_BENCH_NAP"
MIB = 1 << 20
RULE = CutRule(rows=65_536, bytes=32_000_000)
FACTS = {"encode_s": 1.0, "decode_s": 1.0, "write_s": 1.0, "tokens": 1.0, "passes": 1.0, "budget_tokens": 1.0}

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


class Sleeper:
    """Sleeps instead of computing."""

    def __init__(self, nap: float) -> None:
        self._nap = nap

    def __call__(self, tokens: Tokens, asks: Mapping[str, Ask]) -> dict[str, Answers]:
        """Zeros, after the nap."""
        time.sleep(self._nap)
        return {head: {"logits": np.zeros((len(ask.positions_G), 4), np.float32)} for head, ask in asks.items()}


def load(*, checkpoint: str, framework: Framework, heads: tuple[Head, ...], dtype: str, device: str) -> Sleeper:  # noqa: ARG001
    """A model that sleeps as long as the environment says; the other arguments are ignored."""
    return Sleeper(float(os.environ[NAP_VARIABLE]))


@dataclass
class Clock:
    """A watcher that records when each receipt came, this process's CPU time by then, and the receipt's replica."""

    times: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    replicas: set[float] = field(default_factory=set)

    def planned(self, job: FrozenJob, plan: Plan) -> None:
        """Nothing to record."""

    def committed(self, receipt: Receipt) -> None:
        """One more."""
        self.times.append(time.monotonic())
        self.cpu.append(time.process_time())
        self.replicas |= {receipt.facts["replica"]} if "replica" in receipt.facts else set()


@app.command("run")
def measure_run(
    replicas: Annotated[int, typer.Option(help="Models that sleep.")] = 16,
    shards: Annotated[int, typer.Option(help="Shards of four rows, each a bundle of its own.")] = 1_000,
    nap: Annotated[float, typer.Option(min=0.001, help="Seconds of sleep a shard.")] = 0.05,
) -> None:
    """Annotate small shards with models that sleep, on logical CPUs, and print what the driver spent."""
    os.environ[NAP_VARIABLE] = str(nap)
    folder = Path(tempfile.mkdtemp(prefix="preln-scaling-"))
    try:
        spec = job_of(folder, shards=shards, replicas=replicas)
        ray.init(
            address="local",
            num_cpus=replicas + 8,
            include_dashboard=False,
            logging_level=logging.ERROR,
            log_to_driver=False,
        )
        clock = Clock()
        report = run.annotate(spec=spec, cluster=Cluster(lambda: None), watcher=clock, loader=LOADER)
        middle = len(clock.times) // 2  # from here on all replicas are at work
        seconds, cpu = clock.times[-1] - clock.times[middle], clock.cpu[-1] - clock.cpu[middle]
        receipts = len(clock.times) - 1 - middle
        print_line(
            state=report.state,
            replicas=replicas,
            replicas_seen=len(clock.replicas),
            shards=len(clock.times),
            nap=nap,
            first_receipt_s=round(report.first_shard or 0.0, 1),
            receipts_per_second=round(receipts / seconds, 1),
            most_possible_per_second=round(replicas / nap, 1),
            driver_cpu_ms_per_receipt=round(1e3 * cpu / receipts, 2),
            driver_cpu_share=round(cpu / seconds, 3),
            driver_peak_mib=peak_mib(),
        )
    finally:
        ray.shutdown()
        shutil.rmtree(folder)


def job_of(folder: Path, *, shards: int, replicas: int) -> JobSpec:
    """A job of so many shards, each in a bundle of its own, so that it costs the driver as much as a large one."""
    source = folder / "in"
    source.mkdir()
    for index in range(shards):
        (source / f"{index:06d}.txt").write_text("".join(f"Row {row} of {index}.\n" for row in range(4)))
    return JobSpec.parse(
        {
            "input": str(source),
            "model": {"checkpoint": str(CHECKPOINT), "dtype": "float32"},
            "task": "text-classification",
            "output": str(folder / "out"),
            "shards": {"rows": 4, "bytes": 100},
            "resources": {"replicas": replicas, "cpus": 1, "gpus": 0},
        }
    )


@app.command("plan")
def measure_plan(
    shards: Annotated[int, typer.Option(help="Shards of the plan.")] = 1_000_000,
    shards_per_file: Annotated[int, typer.Option(help="Shards of each Parquet file.")] = 100,
) -> None:
    """Plan, group and count so many shards as a driver does, in memory and in an output folder, and print the cost."""
    folder = tempfile.mkdtemp(prefix="preln-scaling-")
    output = OutputFolder(folder)
    steps = Steps()
    try:
        planned = planned_files(count=shards // shards_per_file, shards_each=shards_per_file)
        steps.done("cut")
        output.write_plan(run=new_run_id(), files=planned)
        steps.done("write_plan")
        del planned
        _, plans = output.read_plans()
        steps.done("read_plan")
        work = list(missing_work(current=newest(plans).values(), written=frozenset(), entries={}))
        steps.done("missing")
        tasks = list(read_tasks(work=work, rule=RULE))
        steps.done("read_tasks")
        tally = Tally()
        for item in work:
            tally.add(Receipt.from_json(Receipt(shard=item, state="done", rows=RULE.rows, facts=FACTS).to_json()))  # type: ignore[arg-type]
        steps.done("receipts")
        output.write_manifest(run=new_run_id(), entries=map(entry_of, tally.receipts))
        steps.done("write_manifest")
        _, entries = output.read_manifest()
        steps.done("read_manifest")
        left = list(missing_work(current=newest(plans).values(), written=frozenset(entries), entries=entries))
        steps.done("resume")
        stored = sum(file.stat().st_size for file in Path(folder).rglob("*.parquet"))
        print_line(shards=len(work), left=len(left), tasks=len(tasks), stored_mib=stored // MIB, steps=steps.taken)
    finally:
        shutil.rmtree(folder)


def entry_of(receipt: Receipt) -> Entry:
    """The manifest's entry of a shard without errors."""
    shard = receipt.shard
    file = shard.file
    return Entry(shard.key, file.uri, file.version, shard.first, shard.stop, shard.last, receipt.rows, {}, object="v")


def planned_files(*, count: int, shards_each: int) -> list[PlannedFile]:
    """Parquet files as a plan has them."""
    planned = []
    for index in range(count):
        rows = RULE.rows * shards_each
        file = SourceFile(f"s3://bucket/in/part-{index:06d}.parquet", RULE.bytes * shards_each, f"e-{index}", "parquet")
        cuts = cut_rows(file=file, rows=rows, size=file.size, rule=RULE, fingerprint="f" * 32)
        shards = tuple((shard.first, shard.stop, shard.key) for shard in cuts)
        planned.append(PlannedFile(file=file, rows=rows, shards=shards))
    return planned


@dataclass
class Steps:
    """CPU seconds of each step, and the process's peak memory after it."""

    began: float = field(default_factory=time.process_time)
    before: int = field(default_factory=lambda: peak_mib())
    taken: dict[str, dict[str, float]] = field(default_factory=dict)

    def done(self, name: str) -> None:
        """A step has ended."""
        now = time.process_time()
        self.taken[name] = {"cpu_s": round(now - self.began, 1), "peak_mib": peak_mib() - self.before}
        self.began = now


def peak_mib() -> int:
    """This process's peak memory so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def print_line(**numbers: object) -> None:
    """One line."""
    print(json.dumps(numbers), flush=True)


if __name__ == "__main__":
    app()
