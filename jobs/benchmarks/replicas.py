"""Measures tokens per second and CPU use of a job with different numbers of replicas on one machine.

    python -m jobs.benchmarks.replicas --replicas 1 --replicas 2

A classifier of six layers and width 384, random, in float32; the model alone costs so much that all else is small beside it.
A model process's CPU seconds are read at the first receipt and at the last. One JSON object a line comes out.
"""

import json
import logging
import shutil
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import psutil
import ray
import typer

from jobs.checkpoints.make_random import random_config, random_tensors, sample_texts, tokenizer_files
from models.checkpoint_writer import write_checkpoint
from models.config import RobertaPreLayerNormConfig
from pipeline import run
from pipeline.cluster.placement import Cluster
from pipeline.output.job import FrozenJob
from pipeline.output.plan import Plan
from pipeline.output.sink import Receipt
from pipeline.spec.job_spec import JobSpec

SENTENCES = 6
"""Of a text."""
ROWS_A_SHARD = 20
SIZES = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 6, "intermediate_size": 1_536}


@dataclass
class Shares:
    """A watcher that reads the CPU seconds of the replicas' model processes at every receipt."""

    times: list[float] = field(default_factory=list)
    tokens: list[float] = field(default_factory=list)
    seconds: dict[int, list[float]] = field(default_factory=dict)

    def planned(self, job: FrozenJob, plan: Plan) -> None:
        """Nothing to record."""

    def committed(self, receipt: Receipt) -> None:
        """One shard more."""
        self.times.append(time.monotonic())
        self.tokens.append(receipt.facts.get("tokens", 0.0))
        for child in psutil.Process().children(recursive=True):
            with suppress(
                psutil.NoSuchProcess, psutil.ZombieProcess
            ):  # the last shards may come after their replicas have ended
                if "pipeline.inference.child" in child.cmdline():
                    taken = child.cpu_times()
                    self.seconds.setdefault(child.pid, []).append(taken.user + taken.system)


def main(
    replicas: Annotated[list[int] | None, typer.Option(help="How many; may be repeated, each is a run.")] = None,
    rows: Annotated[int, typer.Option(help="Texts of about a hundred tokens.")] = 400,
) -> None:
    """Annotate the same texts with each number of replicas, on a Ray of its own."""
    folder = Path(tempfile.mkdtemp(prefix="preln-replicas-"))
    try:
        make_job(folder, rows=rows)
        ray.init(address="local", include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
        for count in replicas or [1, 2]:
            measure(folder, count)
    finally:
        ray.shutdown()
        shutil.rmtree(folder)


def make_job(folder: Path, *, rows: int) -> None:
    """The checkpoint and the texts."""
    config = RobertaPreLayerNormConfig.from_dict({**random_config().to_dict(), **SIZES})
    texts, draw = sample_texts(), np.random.default_rng(0)
    write_checkpoint(
        url=str(folder / "checkpoint"),
        config=config,
        tensors=random_tensors(config=config, head="sequence-classification"),
        tokenizer_files=tokenizer_files(texts=texts),
    )
    lines = (" ".join(texts[index] for index in draw.integers(len(texts), size=SENTENCES)) for _ in range(rows))
    (folder / "in.jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))


def measure(folder: Path, count: int) -> None:
    """One run, measured from its first receipt to its last, since replicas start before it."""
    size = (folder / "in.jsonl").stat().st_size
    lines = (folder / "in.jsonl").read_text().count("\n")
    spec = JobSpec.parse(
        {
            "input": str(folder / "in.jsonl"),
            "model": {"checkpoint": str(folder / "checkpoint"), "dtype": "float32"},
            "task": "text-classification",
            "output": str(folder / f"out-{count}"),
            "shards": {"rows": ROWS_A_SHARD, "bytes": ROWS_A_SHARD * size // lines},
            "resources": {"replicas": count, "batch_tokens": 4_096},
        }
    )
    cluster, shares = Cluster(lambda: None), Shares()
    placement = cluster.placement(spec)
    report = run.annotate(spec=spec, cluster=cluster, watcher=shares)
    seconds = shares.times[-1] - shares.times[0]
    cpu = [max(taken) - taken[0] for taken in shares.seconds.values()]
    numbers = {
        "state": report.state,
        "replicas": count,
        "cpus_each": placement.cpus,
        "threads_each": placement.threads,
        "seconds": round(seconds, 1),
        "tokens_per_second": round(sum(shares.tokens[1:]) / seconds),
        "cpu_share_of_each": [round(each / seconds, 2) for each in cpu],
        "tokens_per_cpu_second": round(sum(shares.tokens[1:]) / sum(cpu)),
        "load": round(psutil.getloadavg()[0], 1),
    }
    print(json.dumps(numbers), flush=True)


if __name__ == "__main__":
    typer.run(main)
