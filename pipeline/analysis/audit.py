"""An output folder in, whether a random sample of its rows is what recomputing them from the input gives out."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models.boundary import Framework
from pipeline.analysis.binomial import upper_bound
from pipeline.analysis.dataset import Dataset
from pipeline.annotator import Annotator
from pipeline.bundle import ShardTables
from pipeline.cluster.placement import Cluster
from pipeline.errors import OutputError
from pipeline.flow import reading_of
from pipeline.inference.questions import MODEL_LOADER
from pipeline.output.job import FrozenJob
from pipeline.output.plan import newest
from pipeline.output.records import Entry, PlannedFile
from pipeline.prepare import open_job
from pipeline.reading.source import Reading, read_shards, read_stream
from pipeline.shards import Shard, Stream
from pipeline.store.storage import readable

TOLERANCES = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2}
"""How far a score may be from another computation of it in this dtype: absolutely up to 1, relatively beyond.

Measured on 500 texts with the demo checkpoint, each framework against PyTorch in float32: at most 7.4e-6 in float32, which leaves
room for deeper models; in bfloat16 4.4e-2 for scores and 3.9e-2 for vectors, but 0.16 for logits (`function: none`).
"""
EXAMPLES = 10


@dataclass(frozen=True)
class Difference:
    """A sampled row that is not what it should be. column, stored, computed: the first that differ."""

    source: str
    row: int
    column: str
    stored: object
    computed: object


@dataclass(frozen=True)
class Audit:
    """How a sample of rows compares with its recomputation.

    sampled: rows compared. rows: of the folder. framework, dtype: of the recomputation. tolerance: of scores.
    largest: the largest difference of a score in the rows that agree. unread: sampled rows whose input is not as it was, by why.
    bound: the share of wrong rows that the sample rules out to be exceeded, with 95 % confidence.
    """

    rows: int
    sampled: int
    agree: int
    differ: int
    largest: float
    bound: float
    tolerance: float
    framework: str
    dtype: str
    unread: Mapping[str, int]
    differences: Sequence[Difference]


def audit(
    output: str,
    *,
    rows: int = 200,
    seed: int = 0,
    framework: Framework | None = None,
    dtype: str | None = None,
    threads: int = 1,
    gpu: bool = False,
    isolate: bool = True,
) -> Audit:
    """Recompute a random sample of rows from the input, also in another framework or dtype.

    The sample is drawn from all current rows alike. Raises OutputError where the folder has no rows or none can be read again,
    CheckpointError, SpecError, and ResourceError where the model can't be loaded here.
    """
    dataset = Dataset(output)
    if dataset.rows == 0:
        raise OutputError(f"{readable(dataset.folder.url)}: no rows yet; see preln status")
    job = _job_of(dataset)
    spec = job.spec.model_copy(
        update={"model": job.spec.model.model_copy(update={"framework": framework or job.spec.model.framework})}
    )
    computed_in = dtype or job.dtype
    tolerance = max(TOLERANCES[job.dtype], TOLERANCES[computed_in])
    kinds = {answer.column: answer.kind for answer in dataset.answers}
    agree, largest, unread, differences = 0, 0.0, dict[str, int](), list[Difference]()
    annotator = Annotator(spec, dtype=computed_in, threads=threads, gpu=gpu, isolate=isolate, loader=MODEL_LOADER)
    with annotator:
        for entry, stored, read in _sampled(dataset, job=job, rows=rows, seed=seed):
            if isinstance(read, str):
                unread[read] = unread.get(read, 0) + stored.num_rows
                continue
            computed = annotator.annotate_shard(read, schema=job.schema)
            by_row = {row[dataset.own("row")]: row for row in computed.to_pylist()}
            for row in stored.to_pylist():
                number = row[dataset.own("row")]
                found, distance = compare(row, by_row.get(number), kinds=kinds, tolerance=tolerance, own=dataset.own)
                if found is None:
                    agree, largest = agree + 1, max(largest, distance)
                else:
                    differences.append(Difference(entry.uri, number, *found))
    sampled = agree + len(differences)
    if not sampled:
        raise OutputError(f"{readable(dataset.folder.url)}: no sampled row could be read again: {next(iter(unread))}")
    whole = sampled == dataset.rows
    return Audit(
        rows=dataset.rows,
        sampled=sampled,
        agree=agree,
        differ=len(differences),
        largest=largest,
        bound=len(differences) / sampled if whole else upper_bound(wrong=len(differences), sampled=sampled),
        tolerance=tolerance,
        framework=spec.model.framework,
        dtype=computed_in,
        unread=unread,
        differences=differences[:EXAMPLES],
    )


def _job_of(dataset: Dataset) -> FrozenJob:
    """The folder's job as a run resumes it: with the checkpoint's digest checked and the answer versions of its time."""
    spec = dataset.job.spec
    here = spec.model_copy(update={"output": spec.output.model_copy(update={"url": dataset.folder.url})})
    return open_job(spec=here, cluster=Cluster(lambda: None))[0]


def _sampled(
    dataset: Dataset, *, job: FrozenJob, rows: int, seed: int
) -> Iterator[tuple[Entry, pa.Table, ShardTables | str]]:
    """For each shard of which rows are drawn: it, those rows as stored, and as read from the input or why they can't be."""
    generator = np.random.default_rng(seed)
    drawn = np.sort(generator.choice(dataset.rows, size=min(rows, dataset.rows), replace=False))
    starts = np.concatenate([[0], np.cumsum([entry.rows for entry in dataset.shards])])
    current = newest(dataset.folder.read_plans()[1])
    reading = reading_of(job, large="whole")
    for index, entry in enumerate(dataset.shards):
        inside = drawn[(drawn >= starts[index]) & (drawn < starts[index + 1])] - starts[index]
        if not len(inside):
            continue
        batches = [batch for _, batch in dataset.batches(dataset.schema.names, shards=[entry])]
        stored = pa.Table.from_batches(batches).take(pa.array(inside))
        read = _read_again(entry, current.get(entry.uri), reading=reading)
        if isinstance(read, ShardTables):
            assert read.rows is not None
            wanted = pc.is_in(read.rows["__row__"], value_set=stored[dataset.own("row")].combine_chunks())
            read = replace(read, rows=read.rows.filter(wanted))
        yield entry, stored, read


def _read_again(entry: Entry, planned: PlannedFile | None, *, reading: Reading) -> ShardTables | str:
    """A shard's rows from its input file; why not, where the file is gone or not as it was."""
    if planned is None or planned.file.version != entry.version:
        return f"{entry.uri}: the folder has rows of an older version of this file"
    if planned.file.sequential:
        found = (item for item in read_stream(stream=Stream(planned.file, frozenset()), reading=reading))
        read = next((item for item in found if item.failure is not None or item.shard.first == entry.first), None)
    else:
        shard = Shard(planned.file, entry.first, entry.stop, entry.key, size=0, last=entry.last)
        read = next(iter(read_shards(shards=[shard], reading=reading)))
    if read is None or read.rows is None:
        return (
            f"{entry.uri}: its rows from {entry.first} on are not there"
            if read is None
            else (read.failure or ("", ""))[1]
        )
    return read


def compare(
    stored: Mapping[str, Any],
    computed: Mapping[str, Any] | None,
    *,
    kinds: Mapping[str, str],
    tolerance: float,
    own: Any,
) -> tuple[tuple[str, object, object] | None, float]:
    """((column, stored, computed) of the first column that differs or None, the largest difference of a score)."""
    if computed is None:
        return (own("row"), stored[own("row")], None), 0.0
    largest = 0.0
    for name, one in stored.items():
        other = computed[name]
        if name == own("error"):  # a message may have a size or a position of its own computation
            one, other = one and one["reason"], other and other["reason"]
        if kinds.get(name) == "labels":  # equal scores may be in another order
            one, other = _by_label(one), _by_label(other)
        distance = _distance(one, other)
        if distance > (tolerance if name in kinds else 0.0):
            return (name, one, other), largest
        largest = max(largest, distance)
    return None, largest


def _by_label(pairs: Sequence[Mapping[str, Any]] | None) -> object:
    return pairs and {pair["label"]: pair["score"] for pair in pairs}


def _distance(one: Any, other: Any) -> float:
    """0 for equal values; for floats how far they are apart, relatively where they are beyond 1; infinite for what differs."""
    if isinstance(one, float) and isinstance(other, float):
        if one == other or (math.isnan(one) and math.isnan(other)):
            return 0.0
        apart = abs(one - other) / max(1.0, abs(one))
        return math.inf if math.isnan(apart) else apart
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return max((_distance(one[key], other[key]) for key in one), default=0.0)
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return max((_distance(*pair) for pair in zip(one, other, strict=True)), default=0.0)
    return 0.0 if one == other else math.inf
