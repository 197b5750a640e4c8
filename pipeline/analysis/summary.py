"""A dataset in, the distributions of its columns out, by one pass over them."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.analysis.dataset import AnswerColumn, Dataset
from pipeline.analysis.histogram import Histogram
from pipeline.output.drift import Drift, ScoreCounts, counted_columns, counts_of, drift_of

EXAMPLES = 3
"""Example rows that are kept for each reason of an error."""


@dataclass
class Distribution:
    """Of one answer column. values: labels, entity types, choices or tokens, counted. numbers: histograms by what they count.

    items: how many values there are in all; more or less than rows where a row has several or none.
    """

    column: AnswerColumn
    values: Counter[str] = field(default_factory=Counter)
    numbers: dict[str, Histogram] = field(default_factory=dict)
    items: int = 0

    def count(self, values: pa.Array) -> None:
        """Count strings or integers; nulls are no values."""
        for pair in pc.value_counts(values.drop_null()).to_pylist():
            self.values[str(pair["values"])] += pair["counts"]
            self.items += pair["counts"]

    def measure(self, what: str, values: pa.Array) -> None:
        """Add to the histogram of this name; nulls are no values."""
        _histogram(self.numbers, what, values)


@dataclass
class Summary:
    """Of a whole dataset. lengths: characters by text column. examples: the first rows with each reason. drift: of scores from
    those of the labelled rows, for tasks with a known error rate."""

    rows: int = 0
    truncated: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    lengths: dict[str, Histogram] = field(default_factory=dict)
    answers: list[Distribution] = field(default_factory=list)
    drift: tuple[Drift, ...] = ()


def summarize(dataset: Dataset) -> Summary:
    """The summary of a dataset. Vectors are not read: nothing in them can be counted."""
    answers = [Distribution(column) for column in dataset.answers if column.kind != "embedding"]
    texts = [name for name in dataset.text_columns if _is_string(dataset.schema.field(name).type)]
    own = {name: dataset.own(name) for name in ("source", "row", "truncated", "error")}
    summary = Summary(answers=answers)
    scores = {name: ScoreCounts() for name in counted_columns(dataset.job)}
    counted = [name for pair in counted_columns(dataset.job).values() for name in pair]
    columns = [*own.values(), *texts, *(one.column.column for one in answers), *counted]
    for _, batch in dataset.batches(list(dict.fromkeys(columns))):
        summary.rows += batch.num_rows
        summary.truncated += batch[own["truncated"]].true_count
        _add_errors(summary, batch, own=own, texts=texts)
        for name in texts:
            _histogram(summary.lengths, name, pc.utf8_length(batch[name]))
        for one in answers:
            _add_answers(one, batch[one.column.column])
        if scores:
            found = counts_of(pa.Table.from_batches([batch]), job=dataset.job)
            scores = {name: counts + found[name] for name, counts in scores.items()}
    summary.drift = drift_of(dataset.job, scores)
    return summary


def _is_string(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _histogram(known: dict[str, Histogram], name: str, values: pa.Array) -> None:
    """Add to the histogram of this name; nulls are no values."""
    histogram = known.setdefault(name, Histogram(whole=pa.types.is_integer(values.type)))
    histogram.add(values.drop_null().to_numpy(zero_copy_only=False))


def _add_errors(summary: Summary, batch: pa.RecordBatch, *, own: Mapping[str, str], texts: list[str]) -> None:
    errors = batch[own["error"]]
    if errors.null_count == len(errors):
        return
    bad = batch.select([own["source"], own["row"], *texts]).filter(errors.is_valid())
    reasons = pc.struct_field(errors.drop_null(), "reason")
    messages = pc.struct_field(errors.drop_null(), "message")
    for pair in pc.value_counts(reasons).to_pylist():
        reason = str(pair["values"])
        summary.errors[reason] += pair["counts"]
        known = summary.examples.setdefault(reason, [])
        missing = EXAMPLES - len(known)
        if missing > 0:
            places = pc.indices_nonzero(pc.equal(reasons, pair["values"])).slice(0, missing)
            for row, message in zip(bad.take(places).to_pylist(), messages.take(places).to_pylist(), strict=True):
                known.append(
                    {
                        "source": row[own["source"]],
                        "row": row[own["row"]],
                        "message": message,
                        "text": " | ".join(str(row[name]) for name in texts if row[name] is not None),
                    }
                )


def _add_answers(one: Distribution, values: pa.Array) -> None:
    kind = one.column.kind
    if kind in ("label", "choice"):
        one.count(values)
    elif kind in ("score", "number"):
        one.measure(one.column.field, values)
    elif kind == "choice_scores":
        one.measure("score of each choice", values.flatten())
    elif kind == "masks":
        _add_masks(one, values)
    else:
        _add_list(one, values)


def _add_list(one: Distribution, values: pa.Array) -> None:
    """labels, entities or answers: structs in lists."""
    items = values.flatten()
    names = {field.name for field in items.type}
    one.measure(f"{one.column.field} in a row", pc.list_value_length(values))
    one.measure("score", pc.struct_field(items, "score"))
    for name in ("label", "entity_group", "entity"):
        if name in names:
            one.count(pc.struct_field(items, name))
    if "answer" in names:
        one.measure("characters of an answer", pc.utf8_length(pc.struct_field(items, "answer")))


def _add_masks(one: Distribution, values: pa.Array) -> None:
    """The best fill of each mask."""
    masks = values.flatten()
    one.measure("masks in a row", pc.list_value_length(values))
    fills = pc.struct_field(masks, "fills")
    filled = fills.filter(pc.greater(pc.list_value_length(fills), 0))
    if len(filled):
        best = pc.list_element(filled, 0)
        one.count(pc.struct_field(best, "token_str"))
        one.measure("score of the best fill", pc.struct_field(best, "score"))
