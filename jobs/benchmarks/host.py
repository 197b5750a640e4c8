"""Measures how fast the host turns texts into packs and answers into rows, with a stub in place of the GPU.

`python -m jobs.benchmarks.host` measures, for each task, tokens per second and core to encode and to decode, and how long the
stub's device (22 ms for 64k tokens) waited between packs: through the real actor class, supervisor, pipe and child. On a busy
machine that wait is the scheduler's; the CPU time of the actor and of its child, in parts of the device's time, says what a
quiet one would show: each is one Python process, so the device waits if one needs more than 1.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa

from jobs.benchmarks.stub_device import LOADER, LOG_VARIABLE, SECONDS_A_TOKEN
from jobs.benchmarks.texts import corpus
from jobs.checkpoints.make_random import random_tensors, sample_texts, tokenizer_files
from models.boundary import Head
from models.checkpoint_writer import write_checkpoint
from models.config import RobertaPreLayerNormConfig
from models.tensors import ARCHITECTURES
from pipeline.bundle import ShardTables, pack, unpack
from pipeline.decode import annotated
from pipeline.encode import encode_tasks
from pipeline.flow import GPU_BUNDLES
from pipeline.inference.child import LoadOrder
from pipeline.inference.questions import asks_of, facts_of, heads_of
from pipeline.inference.replica import Replica, ReplicaOrder
from pipeline.rows import no_errors
from pipeline.shards import Shard, SourceFile
from pipeline.spec.job_spec import JobSpec

PACK = 65_536
DECODINGS = 4
"""How often one bundle is decoded; the fastest counts, since the first takes its memory new."""
TASKS: Mapping[str, tuple[Head, Mapping[str, Any]]] = {
    "text-classification": ("sequence-classification", {"name": "text-classification"}),
    "fill-mask": ("masked-lm", {"name": "fill-mask", "top_k": 5}),
    "token-classification": ("token-classification", {"name": "token-classification"}),
    "question-answering": ("question-answering", {"name": "question-answering"}),
    "feature-extraction": ("encoder", {"name": "feature-extraction", "pooling": "mean"}),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=80_000)
    parser.add_argument("--bundles", type=int, default=10)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--tasks", default=",".join(TASKS))
    options = parser.parse_args(arguments)
    sample = corpus(lengths="sigma0.9", count=2_000)
    texts = [f"{sample.texts[number % 2_000]} {number}" for number in range(options.texts)]  # equal texts are done once
    columns = [
        "task",
        "tokens",
        "encode, tokens/s a core",
        "decode",
        "idle between packs, median",
        "mean",
        "90 %",
        "packs",
    ]
    columns += ["actor's CPU time / device's", "child's"]
    print("| " + " | ".join(columns) + " |")
    print("|" + " --- |" * len(columns))
    with tempfile.TemporaryDirectory() as root:
        for name in options.tasks.split(","):
            print(row(name, texts, Path(root), bundles=options.bundles, width=options.width), flush=True)


def row(name: str, texts: Sequence[str], root: Path, *, bundles: int, width: int) -> str:
    """One task's line of the table."""
    head, task = TASKS[name]
    folder = root / name
    checkpoint(head, folder, width=width)
    spec = JobSpec.parse({"input": "-", "output": "-", "model": str(folder), "task": task})
    facts = facts_of(spec)
    began = time.process_time()
    each = -(-len(texts) // bundles)
    parts = [texts[first : first + each] for first in range(0, len(texts), each)]
    shards = [encoded(part, number, name, spec, facts) for number, part in enumerate(parts)]
    encoding = time.process_time() - began
    log = root / f"{name}.jsonl"
    os.environ[LOG_VARIABLE] = str(log)
    load = LoadOrder(LOADER, str(folder), "torch", heads_of(spec, facts), "bfloat16", "cuda")
    order = ReplicaOrder(
        load=load, asks=asks_of(spec, facts), batch_tokens=PACK, threads=1, stall=120.0, task=name, gpus=1.0
    )
    replica = Replica(order)
    bundled = [pack([shard]) for shard in shards]
    began = time.process_time()
    try:
        with ThreadPoolExecutor(GPU_BUNDLES) as pool:
            # As in an actor, which gives its answers away: kept, they would take new memory for every bundle.
            rest = [pool.submit(lambda bundle: replica(bundle).num_rows, bundle) for bundle in bundled[:-1]]
            answered = pool.submit(replica, bundled[-1]).result()
            for one in rest:
                one.result()
    finally:
        acting = time.process_time() - began
        replica.close()
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    tokens = sum(line["tokens"] for line in lines)
    (last,) = unpack(answered)
    decodings = []
    for _ in range(DECODINGS):
        began = time.process_time()
        annotated(last, schema=pa.schema([]), spec=spec, facts=facts)
        decodings.append(time.process_time() - began)
    decoded = last.facts["tokens"] / min(decodings)
    idle = sorted(1e3 * line["idle"] for line in lines[1:])
    busy = tokens * SECONDS_A_TOKEN
    child = lines[-1]["cpu"] - lines[0]["cpu"]
    after = busy - lines[0]["tokens"] * SECONDS_A_TOKEN
    ninth = idle[int(0.9 * (len(idle) - 1))]
    return (
        f"| {name} | {tokens:,} | {tokens / encoding:,.0f} | {decoded:,.0f} | {statistics.median(idle):.2f} ms | "
        f"{statistics.mean(idle):.2f} ms | {ninth:.2f} ms | {len(lines)} | {acting / busy:.2f} | {child / after:.2f} |"
    )


def encoded(texts: Sequence[str], number: int, name: str, spec: JobSpec, facts: Any) -> ShardTables:
    """A shard of texts with its windows."""
    count = len(texts)
    columns: dict[str, Any] = {"text": pa.array(texts)}
    if name == "fill-mask":
        columns = {"text": pa.array([f"{text} <mask>" for text in texts])}
    if name == "question-answering":
        columns = {"question": pa.array(["who was it"] * count), "context": pa.array(texts)}
    rows = pa.table({**columns, "__row__": pa.array(range(count)), "__error__": no_errors(count)})
    file = SourceFile(uri="file:///texts", size=0, version="", format="parquet")
    shard = Shard(file=file, first=number * count, stop=(number + 1) * count, key=f"texts-{number}", size=0)
    return ShardTables(shard=shard, rows=rows, tasks=encode_tasks(rows, spec=spec, facts=facts))


def checkpoint(head: Head, folder: Path, *, width: int) -> None:
    """A one-layer checkpoint of this head, of which the stub reads only the sizes."""
    config = RobertaPreLayerNormConfig(
        vocab_size=1_000,
        hidden_size=width,
        num_hidden_layers=1,
        num_attention_heads=width // 64,
        intermediate_size=64,
        max_position_embeddings=514,
        type_vocab_size=1,
        num_labels=2 if head == "question-answering" else 9,
        architectures=[ARCHITECTURES.get(head, "RobertaPreLayerNormModel")],
    )
    tensors = random_tensors(config=config, head=head)
    write_checkpoint(
        url=str(folder), config=config, tensors=tensors, tokenizer_files=tokenizer_files(texts=sample_texts())
    )


if __name__ == "__main__":
    main()
