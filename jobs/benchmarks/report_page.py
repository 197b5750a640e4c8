"""Writes an output folder of made-up answers through the real sink, and measures `preln report` on it.

    python -m jobs.benchmarks.report_page FOLDER --rows 1000000

The page is written in a process of its own, whose seconds and peak memory are printed.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jobs.checkpoints.make_random import sample_texts
from pipeline.bundle import ShardTables
from pipeline.cluster.placement import Cluster
from pipeline.inference.questions import facts_of
from pipeline.output.columns import output_schema
from pipeline.output.folder import OutputFolder, new_run_id
from pipeline.output.job import FrozenJob
from pipeline.output.plan import make_plan
from pipeline.output.report import Ended
from pipeline.output.settle import close, settle
from pipeline.output.sink import job_footer, write_shard
from pipeline.output.tally import Tally
from pipeline.prepare import open_job
from pipeline.rows import error_array
from pipeline.shards import Shard
from pipeline.spec.job_spec import JobSpec

DEMO = Path(__file__).resolve().parents[1] / "checkpoints" / "demo"
SHARD_ROWS = 65_536
ENTITY_TYPES = ("LOC", "ORG", "PER")

PROGRAM = """
import json, resource, sys, time
began = time.monotonic()
from jobs.report import write_report
write_report(sys.argv[1], into=sys.argv[2])
print(json.dumps({"seconds": time.monotonic() - began, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
"""


def write_folder(folder: Path, *, rows: int) -> Path:
    """A finished output folder of so many rows: two tasks, one row in a hundred with an error."""
    texts = sample_texts()
    generator = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    drawn = pa.array(texts).take(pa.array(generator.integers(0, len(texts), rows)))
    pq.write_table(pa.table({"text": drawn}), folder / "in.parquet")
    spec = JobSpec.parse(
        {
            "input": str(folder / "in.parquet"),
            "model": {"checkpoint": str(DEMO), "dtype": "float32"},
            "tasks": {"intents": "text-classification", "entities": "token-classification"},
            "output": str(folder / "out"),
            "resources": {"gpus": 0},
            "shards": {"rows": SHARD_ROWS, "bytes": 1_000_000_000},
        }
    )
    began, cpu_began = time.monotonic(), time.process_time()
    job, described = open_job(spec=spec, cluster=Cluster(lambda: None))
    output = OutputFolder(job.output)
    output.freeze(job)
    plan = make_plan(folder=output, job=job, described=described)
    run, tally = new_run_id(), Tally()
    output.write_plan(run=run, files=plan.changes)
    for shard in (item for item in plan.work if isinstance(item, Shard)):
        table = answered(job, shard, drawn.slice(shard.first, shard.stop - shard.first), generator)
        facts = {
            "tokens": 20.0 * table.num_rows,
            "replica": 1.0,
            "computing_s": 0.5,
            "waiting_s": 0.1,
            "handling_s": 0.1,
        }
        tables = ShardTables(shard=shard, facts=facts)
        tally.add(write_shard(tables, table, data=output.data, prefix="", footer=job_footer(job)))
    settled = settle(folder=output, tally=tally, run=run, fingerprint=job.fingerprint)
    ended = Ended(folder=output, job=job, plan=plan, tally=tally, run=run, began=began, cpu_began=cpu_began)
    ended.record(state=close(folder=output, settled=settled, before=None, accept_failed=False), settled=settled)
    return folder / "out"


def answered(job: FrozenJob, shard: Shard, texts: pa.Array, generator: np.random.Generator) -> pa.Table:
    """A shard's rows with made-up answers, in the columns of the job's output."""
    rows = len(texts)
    facts = facts_of(job.spec)
    schema = output_schema(schema=job.schema, spec=job.spec, facts=facts)
    labels = pa.array(facts["intents"].labels)
    counts = generator.integers(0, 4, rows)
    entities, found = int(counts.sum()), schema.field("entities_entities").type
    parts = [
        pa.array(ENTITY_TYPES).take(pa.array(generator.integers(0, len(ENTITY_TYPES), entities))),
        pa.array(generator.random(entities, np.float32)),
        pa.array(["Berlin"] * entities),
        pa.array(np.zeros(entities, np.int32)),
        pa.array(np.full(entities, 6, np.int32)),
    ]
    structs = pa.StructArray.from_arrays(parts, fields=list(found.value_type))
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]).astype(np.int32))
    bad = generator.random(rows) < 0.01
    values = {
        "text": texts,
        "source": pa.array([shard.file.uri] * rows),
        "row": pa.array(np.arange(shard.first, shard.stop)),
        "intents_label": labels.take(pa.array(generator.integers(0, len(labels), rows))),
        "intents_score": pa.array(generator.beta(5, 1, rows).astype(np.float32)),
        "entities_entities": pa.ListArray.from_arrays(offsets, structs),
        "truncated": pa.array(generator.random(rows) < 0.02),
        "error": error_array([("empty", "the text is blank") if one else None for one in bad]),
    }
    return pa.table([values[field.name].cast(field.type) for field in schema], schema=schema)


def main() -> None:
    """Write the folder unless it is there, and print what its page took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=1_000_000)
    options = parser.parse_args()
    output = options.folder / "out"
    if not output.exists():
        write_folder(options.folder, rows=options.rows)
    command = [sys.executable, "-c", PROGRAM, str(output), str(options.folder / "report.html")]
    measured = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    print(json.dumps({"rows": options.rows, **measured}))


if __name__ == "__main__":
    main()
