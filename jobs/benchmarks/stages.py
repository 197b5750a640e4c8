"""Runs a job's stages one after the other in the measuring process, without Ray.

Legend: N texts, L labels, H hidden size.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from jobs.benchmarks.ours import TOP_K, Answer, BenchTask, Fills, FlatVariant, Scores, budget
from pipeline.bundle import ShardTables
from pipeline.decode import annotated
from pipeline.encode import encode_tasks
from pipeline.inference.answers import answer_shards
from pipeline.inference.passes import InThisProcess
from pipeline.inference.questions import asks_of, facts_of
from pipeline.rows import no_errors
from pipeline.shards import Shard, SourceFile
from pipeline.spec.job_spec import JobSpec

TASKS: Mapping[BenchTask, Mapping[str, Any]] = {
    "text-classification": {"name": "text-classification", "top_k": "all"},
    "feature-extraction": {"name": "feature-extraction", "pooling": "mean", "normalize": False, "dtype": "float32"},
    "fill-mask": {"name": "fill-mask", "top_k": TOP_K},
}


class PipelineVariant:
    """A job's stages one after the other: texts to windows, packs, answers, labels, vectors or fills."""

    def __init__(self, folder: str, flat: FlatVariant, *, device: str, task: BenchTask) -> None:
        self.name, self.dtype, self.framework = flat.name, flat.dtype, flat.framework
        self._spec = JobSpec.parse({"input": "-", "output": "-", "model": folder, "task": TASKS[task]})
        self._facts = facts_of(self._spec)
        self._supervisor = InThisProcess(flat.model)
        self._budget = budget(device, flat.framework, flat.model.try_out())

    def scores(self, texts: Sequence[str]) -> Answer:
        """Every label's probability for every text, its vector or its fills, in order."""
        count = len(texts)
        columns = {"text": pa.array(texts), "__row__": pa.array(range(count)), "__error__": no_errors(count)}
        rows = pa.table(columns)
        file = SourceFile(uri="file:///texts", size=0, version="", format="parquet")
        shard = ShardTables(
            shard=Shard(file=file, first=0, stop=count, key="texts", size=0),
            rows=rows,
            tasks=encode_tasks(rows, spec=self._spec, facts=self._facts),
        )
        asks = asks_of(self._spec, self._facts)
        (answered,) = answer_shards(shards=[shard], asks=asks, budget=self._budget, supervisor=self._supervisor)
        table = annotated(answered, schema=pa.schema([("text", pa.string())]), spec=self._spec, facts=self._facts)
        if "embedding" in table.column_names:
            vectors_N = table["embedding"].combine_chunks()
            vectors: Scores = vectors_N.flatten().to_numpy().reshape(count, -1)
            return vectors
        if "masks" in table.column_names:
            fills = table["masks"].combine_chunks().flatten().field("fills").flatten()
            token_Nk, score_Nk = (fills.field(name).to_numpy().reshape(count, TOP_K) for name in ("token", "score"))
            return Fills(token_Nk, score_Nk)
        found = [{one["label"]: one["score"] for one in row} for row in table["scores"].to_pylist()]
        return np.array(
            [[row[label] for label in self._facts[self._spec.task_name].labels] for row in found], np.float32
        )
