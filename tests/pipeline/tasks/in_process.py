"""Runs the flow's stages over rows in this process, without Ray and without a child process."""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from models.boundary import Answers, Ask, FlatModel, Framework, Head, Tokens
from models.load import load
from pipeline.bundle import ShardTables
from pipeline.decode import annotated
from pipeline.encode import encode_tasks
from pipeline.inference.answers import answer_shards
from pipeline.inference.batching import CPU_BATCH_TOKENS, TokenBudget
from pipeline.inference.passes import InThisProcess
from pipeline.inference.questions import asks_of, facts_of
from pipeline.output.columns import output_schema
from pipeline.spec.job_spec import JobSpec
from tests.pipeline.small import rows_table, shard

Row = dict[str, Any]
Model = Callable[[Tokens, Mapping[str, Ask]], Mapping[str, Answers]]


def job_spec(*, task: object, checkpoint: Path | str, **sections: Any) -> JobSpec:
    """A job of this task on this checkpoint. Raises SpecError."""
    values = {"input": "in.parquet", "model": str(checkpoint), "task": task, "output": "out"}
    return JobSpec.parse({**values, **sections})


@lru_cache(maxsize=32)
def loaded(checkpoint: str, framework: Framework, heads: tuple[tuple[str, Head], ...]) -> FlatModel:
    """A model, once a test process. heads: names and kinds; a single one's name is ""."""
    named = [head for _, head in heads] if heads[0][0] == "" else dict(heads)
    return load(checkpoint=checkpoint, framework=framework, heads=named, device="cpu")


def annotate(
    *,
    spec: JobSpec,
    columns: Mapping[str, pa.Array | Sequence[object]],
    framework: Framework = "torch",
    model: Model | None = None,
) -> list[Row]:
    """The output rows of input columns; a fake model may stand for the checkpoint's."""
    facts = facts_of(spec)
    asks = asks_of(spec, facts)
    rows = rows_table(columns)
    schema = pa.schema([field for field in rows.schema if not field.name.startswith("__")])
    output_schema(schema=schema, spec=spec, facts=facts)
    encoded = ShardTables(shard=shard(0, rows.num_rows), rows=rows, tasks=encode_tasks(rows, spec=spec, facts=facts))
    heads = tuple((ask.name or "", ask.head) for ask in asks.values())
    answering = model or loaded(spec.model.checkpoint, framework, heads)
    (answered,) = answer_shards(
        shards=[encoded],
        asks=asks,
        budget=TokenBudget(tokens=CPU_BATCH_TOKENS[framework][0]),
        supervisor=InThisProcess(answering),
    )
    result = annotated(answered, schema=schema, spec=spec, facts=facts)
    assert result.num_rows == rows.num_rows
    found: list[Row] = result.to_pylist()
    return found


def zeros(*, labels: int = 2, hidden: int = 8, k: int = 1) -> Model:
    """A model that knows nothing: answers of the right shapes, all zero."""

    def answer(tokens: Tokens, asks: Mapping[str, Ask]) -> Mapping[str, Answers]:
        return {head: _zeros(head, ask, tokens, labels, hidden, k) for head, ask in asks.items()}

    return answer


def _zeros(head: str, ask: Ask, tokens: Tokens, labels: int, hidden: int, k: int) -> Answers:
    asked = len(ask.positions_G)
    if head == "encoder":
        return {"hidden": np.zeros((len(tokens.cu_seqlens) - 1 if ask.reduce == "mean" else asked, hidden), np.float32)}
    if head == "question-answering":
        return {"start_logits": np.zeros(asked, np.float32), "end_logits": np.zeros(asked, np.float32)}
    if ask.gold_G is not None:
        return {"log_probs": np.zeros(asked, np.float32)}
    if head == "masked-lm":
        return {"ids": np.full((asked, k), 5, np.int32), "probs": np.zeros((asked, k), np.float32)}
    return {"logits": np.zeros((asked, 1 if head == "multiple-choice" else labels), np.float32)}
