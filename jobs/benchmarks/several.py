"""Compares one job of several tasks with one job per task.

`python -m jobs.benchmarks.several --texts 600 --rounds 3` runs the jobs' stages in this process, in shuffled rounds, on one
thread: encoding, packs, the model, decoding. Starting Ray and replicas, which each job of its own pays again, is left out.
"""

import argparse
import random
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from jobs.checkpoints.make_random import sample_texts
from jobs.demo import TASKS
from jobs.embedded import DEMO
from models.boundary import FlatModel
from models.load import load
from pipeline.bundle import ShardTables
from pipeline.decode import annotated
from pipeline.encode import encode_tasks
from pipeline.inference.answers import answer_shards
from pipeline.inference.batching import CPU_BATCH_TOKENS, TokenBudget
from pipeline.inference.passes import InThisProcess
from pipeline.inference.questions import asks_of, facts_of, heads_of
from pipeline.rows import no_errors
from pipeline.shards import Shard, SourceFile
from pipeline.spec.job_spec import JobSpec


@dataclass(frozen=True, eq=False)
class SeveralTasks:
    """A job's stages without Ray."""

    spec: JobSpec
    model: FlatModel

    @classmethod
    def of(cls, tasks: Mapping[str, Any]) -> "SeveralTasks":
        """The job of these tasks of the embedded checkpoint."""
        spec = JobSpec.parse(
            {
                "input": {"urls": "-", "columns": {"context": "text"}},
                "model": {"checkpoint": str(DEMO), "dtype": "float32"},
                "tasks": dict(tasks),
                "output": "-",
            }
        )
        facts = facts_of(spec)
        return cls(spec, load(checkpoint=str(DEMO), heads=heads_of(spec, facts), device="cpu"))

    def run(self, texts: Sequence[str]) -> pa.Table:
        """The annotated rows."""
        count, facts = len(texts), facts_of(self.spec)
        rows = pa.table({"text": pa.array(texts), "__row__": pa.array(range(count)), "__error__": no_errors(count)})
        file = SourceFile(uri="file:///texts", size=0, version="", format="parquet")
        shard = ShardTables(
            shard=Shard(file=file, first=0, stop=count, key="texts", size=0),
            rows=rows,
            tasks=encode_tasks(rows, spec=self.spec, facts=facts),
        )
        (answered,) = answer_shards(
            shards=[shard],
            asks=asks_of(self.spec, facts),
            budget=TokenBudget(tokens=CPU_BATCH_TOKENS["torch"][0]),
            supervisor=InThisProcess(self.model),
        )
        return annotated(answered, schema=pa.schema([("text", pa.string())]), spec=self.spec, facts=facts)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    given = sample_texts()
    texts = [given[number % len(given)] + f" {number}" for number in range(options.texts)]  # equal texts are done once
    jobs = {name: SeveralTasks.of({name: task}) for name, task in TASKS.items()}
    same_text = {name: task for name, task in TASKS.items() if name != "questions"}
    jobs |= {" + ".join(same_text): SeveralTasks.of(same_text), " + ".join(TASKS): SeveralTasks.of(TASKS)}
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for number in range(options.rounds + 1):
        for name in random.Random(number).sample(list(jobs), len(jobs)):  # noqa: S311 -- an order, not a secret
            began = time.process_time()
            jobs[name].run(texts)
            if number:  # the first round warms up
                seconds[name].append(time.process_time() - began)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    print("| job | CPU s | its tasks one by one | saved |\n| --- | --- | --- | --- |")
    for name, value in medians.items():
        apart = sum(medians[part] for part in name.split(" + "))
        print(f"| {name} | {value:.2f} | {apart:.2f} | {1 - value / apart:.0%} |")


if __name__ == "__main__":
    main()
