"""The rows of an output in, how one task's labels and scores and the texts' lengths are distributed out, in bounded memory."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.analysis.answers import SCORE_OF, Floats, answered, columns_of, labels, scores
from pipeline.analysis.dataset import Dataset
from pipeline.analysis.distributions import SAMPLE, Gap, labels_gap, numbers_gap, share_gap
from pipeline.analysis.lookup import tables
from pipeline.analysis.lottery import Lowest, uniform
from pipeline.errors import PrelnError
from pipeline.inference.questions import facts_of
from pipeline.reading.text_columns import is_text, plain_text
from pipeline.spec.named_tasks import NamedTask

TEXTS = 1_000
"""Texts of each side that are tokenized."""


@dataclass
class Profile:
    """One task's rows of one output. numbers: name -> a random sample of it. tokens, unknown: of the texts that were tokenized,
    None where the texts or the tokenizer are not there."""

    rows: int = 0
    answered: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    has_labels: bool = True
    numbers: dict[str, Floats] = field(default_factory=dict)
    tokens: int | None = None
    unknown: int | None = None
    notes: list[str] = field(default_factory=list)


def profile(stored: Dataset, task: NamedTask, *, text: str | None, seed: int = 0) -> Profile:
    """text: the column whose lengths count, if the output carries it."""
    found = Profile()
    columns = columns_of(task, names=stored.schema.names)
    sample, texts = Lowest(SAMPLE), Lowest(TEXTS)
    places = {"source": stored.own("source"), "row": stored.own("row")}
    for entry, table in tables(stored, [*places.values(), *columns.values(), *([text] if text else ())]):
        answers = {name: table[column].combine_chunks() for name, column in columns.items()}
        row = table[places["row"]].combine_chunks()
        rank = uniform(seed=seed, source=entry.uri, rows_R=row.to_numpy(), stream="profile")
        keys = {"source": table[places["source"]].combine_chunks(), "row": row, "rank": pa.array(rank)}
        found.rows += table.num_rows
        found.answered += int(answered(answers).sum())
        named = labels(answers)
        found.has_labels = named is not None
        if named is not None:
            for item in pc.value_counts(named):
                found.labels[item["values"].as_py()] += item["counts"].as_py()
        _add(sample, SCORE_OF[task.task.name], scores(answers), keys)
        if text is not None:
            content, _ = plain_text(table[text].combine_chunks(), text)
            _add(sample, "characters of a text", _lengths(content), keys)
            texts.add(
                pa.table({**keys, "text": content, "group": _repeated("", table.num_rows)}).filter(content.is_valid())
            )
    kept = sample.rows()
    if kept is not None:
        for name in sample.counts:
            found.numbers[name] = kept.filter(pc.equal(kept["group"], name))["value"].to_numpy()
    drawn = texts.rows()
    if drawn is not None:
        _tokenize(found, drawn["text"].to_pylist(), stored, task)
    return found


def _add(sample: Lowest, name: str, values: Floats, keys: Mapping[str, pa.Array]) -> None:
    known = pa.array(~np.isnan(values))
    table = pa.table({**keys, "value": pa.array(values), "group": _repeated(name, len(values))}).filter(known)
    if table.num_rows:
        sample.add(table)


def _lengths(texts: pa.Array) -> Floats:
    return np.asarray(pc.utf8_length(texts).cast(pa.float64()).to_numpy(zero_copy_only=False), np.float64)


def _repeated(value: str, count: int) -> pa.Array:
    return pa.array([value]).take(pa.array(np.zeros(count, np.int32)))


def _tokenize(found: Profile, texts: list[str], stored: Dataset, task: NamedTask) -> None:
    """Count the tokens of some texts, and the unknown ones among them, by the output's own tokenizer."""
    try:
        tokenizer = facts_of(stored.job.spec)[task.name].tokenizer
    except (PrelnError, ValueError) as error:
        found.notes.append(f"token counts are not known: {error}")
        return
    ids = [encoding.ids for encoding in tokenizer.backend.encode_batch(texts, add_special_tokens=False)]
    found.numbers["tokens of a text"] = np.array([len(one) for one in ids], np.float64)
    found.tokens = sum(map(len, ids))
    found.unknown = sum(one.count(tokenizer.unk_id) for one in ids)


def carried_text(a: Dataset, b: Dataset, task_a: NamedTask, task_b: NamedTask) -> tuple[str | None, str | None]:
    """The columns of the task's longest part, where both outputs carry them as text; else None for both."""
    part = "context" if task_a.task.name == "question-answering" else task_a.task.parts()[0].name
    columns = task_a.column(part), task_b.column(part)
    for stored, column in zip((a, b), columns, strict=True):
        if column not in stored.schema.names or not is_text(stored.schema.field(column).type):
            return None, None
    return columns


def gaps(a: Profile, b: Profile) -> list[Gap]:
    """How far apart two outputs are, in everything that both have."""
    found = [share_gap((a.rows - a.answered, a.rows), (b.rows - b.answered, b.rows), of="rows without an answer")]
    if a.has_labels and b.has_labels:
        found.append(labels_gap(a.labels, b.labels, of="labels"))
    found += [numbers_gap(a.numbers[name], b.numbers[name], of=name) for name in a.numbers if name in b.numbers]
    if a.tokens and b.tokens:
        found.append(share_gap((a.unknown or 0, a.tokens), (b.unknown or 0, b.tokens), of="unknown tokens"))
    return [gap for gap in found if gap is not None]
