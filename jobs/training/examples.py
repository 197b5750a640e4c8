"""Rows of a task's data in, token ids with their targets out. Imports no framework."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from jobs.training.records import Record, check_column
from jobs.training.spec import TaskName
from models.tokenizer import CheckpointTokenizer
from pipeline.errors import SpecError

IGNORED = -100
"""Label of a token that is not learnt from."""
Ints: TypeAlias = npt.NDArray[np.int32]
PARTS: Mapping[TaskName, tuple[str, ...]] = {
    "fill-mask": ("text",),
    "text-classification": ("text", "label"),
    "token-classification": ("words", "tags"),
    "question-answering": ("question", "context", "answers"),
    "multiple-choice": ("prompt", "choices", "label"),
}


@dataclass(frozen=True, eq=False)
class Example:
    """One text. rows: its token ids (several for multiple choice).

    target: None (fill-mask), a class id, a number, a vector of zeros and ones, a label a token [S], or (start, end).
    """

    rows: tuple[Ints, ...]
    target: Any = None

    @property
    def length(self) -> int:
        """Tokens of its longest row."""
        return max(len(row) for row in self.rows)


@dataclass(frozen=True)
class Labels:
    """names: in the order of their ids; none where labels are numbers. kind: config.json's problem_type."""

    names: tuple[str, ...] = ()
    kind: str | None = None


NO_LABELS = Labels()


def labels_of(records: Sequence[Record], *, task: TaskName, column: str, wanted: Sequence[str] | None) -> Labels:
    """The labels that a column holds: names (one or a list a row), tags of words, or numbers. Raises SpecError."""
    if task not in ("text-classification", "token-classification"):
        return NO_LABELS
    check_column(records, column=column)
    values = [record.get(column) for record in records]
    listed = [value for value in values if isinstance(value, list)]
    if not listed and all(isinstance(value, float) for value in values):
        return Labels(kind="regression")
    flat = {str(name) for value in values for name in (value if isinstance(value, list) else [value])}
    if wanted is not None and (strange := flat - set(wanted)):
        raise SpecError(f"labels: the data has {sorted(strange)[0]!r}, which is not among those named")
    first = ["O"] if task == "token-classification" and "O" in flat else []
    names = tuple(wanted or [*first, *sorted(flat - set(first))])
    if len(names) < 2:
        raise SpecError(f"the column {column!r} holds only {', '.join(names)}; there is nothing to tell apart")
    if task == "token-classification":
        return Labels(names=names)
    return Labels(names=names, kind="multi_label_classification" if listed else "single_label_classification")


@dataclass(frozen=True, eq=False)
class Examples:
    """What makes examples of one task's rows. columns: part -> column. limit: tokens of a row, specials included."""

    task: TaskName
    tokenizer: CheckpointTokenizer
    limit: int
    columns: Mapping[str, str]
    labels: Labels = NO_LABELS

    def of(self, records: Sequence[Record]) -> list[Example]:
        """All examples; a long text gives several for fill-mask, and its first tokens elsewhere. Raises SpecError."""
        for part in PARTS[self.task]:
            check_column(records, column=self._column(part))
        make = {
            "fill-mask": self._plain,
            "text-classification": self._classified,
            "token-classification": self._tagged,
            "question-answering": self._asked,
            "multiple-choice": self._chosen,
        }[self.task]
        examples = [example for record in records for example in make(record)]
        if not examples:
            raise SpecError(f"no row of {len(records)} has what {self.task} learns from: {', '.join(PARTS[self.task])}")
        return examples

    def _column(self, part: str) -> str:
        return self.columns.get(part, part)

    def _value(self, record: Record, part: str) -> Any:
        return record.get(self._column(part))

    def _cut(self, ids: Sequence[int]) -> Ints:
        kept = ids if len(ids) <= self.limit else [*ids[: self.limit - 1], ids[-1]]
        return np.asarray(kept, np.int32)

    def _plain(self, record: Record) -> list[Example]:
        text = self._value(record, "text")
        if not isinstance(text, str) or not text.strip():
            return []
        ids = self.tokenizer.backend.encode(text, add_special_tokens=False).ids
        pieces = -(-len(ids) // (self.limit - 2))
        return [self._framed(list(part)) for part in np.array_split(np.asarray(ids), pieces)]

    def _framed(self, ids: list[int]) -> Example:
        return Example(rows=(np.asarray([self.tokenizer.bos_id, *ids, self.tokenizer.eos_id], np.int32),))

    def _classified(self, record: Record) -> list[Example]:
        text, label = self._value(record, "text"), self._value(record, "label")
        if not isinstance(text, str) or not text.strip() or label is None:
            return []
        ids = self._cut(self.tokenizer.backend.encode(text).ids)
        if self.labels.kind == "regression":
            return [Example(rows=(ids,), target=float(label))]
        if self.labels.kind == "multi_label_classification":
            hot = np.zeros(len(self.labels.names), np.float32)
            hot[[self._id(name) for name in label]] = 1.0
            return [Example(rows=(ids,), target=hot)]
        return [Example(rows=(ids,), target=self._id(label))]

    def _id(self, label: object) -> int:
        try:
            return self.labels.names.index(str(label))
        except ValueError:
            raise SpecError(
                f"label {str(label)!r} is not among the {len(self.labels.names)} labels of the training data"
            ) from None

    def _tagged(self, record: Record) -> list[Example]:
        """One example of a list of words: the tag of each word at its pieces, nothing at special tokens."""
        words, tags = self._value(record, "words"), self._value(record, "tags")
        if not words:
            return []
        if tags is None or len(words) != len(tags):
            raise SpecError(f"{len(words)} words and {len(tags or ())} tags in a row: {' '.join(words)[:60]!r}")
        encoding = self.tokenizer.backend.encode(words, is_pretokenized=True)
        known, before = [IGNORED] * len(encoding.ids), None
        for place, word in enumerate(encoding.word_ids):
            if word is None:
                continue
            tag = str(tags[word])
            # A word's further pieces go on with its entity, so that texts whose words are cut elsewhere read right too.
            inner = "I-" + tag[2:] if word == before and tag.startswith("B-") else tag
            known[place] = self._id(inner if inner in self.labels.names else tag)
            before = word
        ids = self._cut(encoding.ids)
        target = np.asarray([*known[: len(ids) - 1], IGNORED], np.int64)
        return [Example(rows=(ids,), target=target)]

    def _asked(self, record: Record) -> list[Example]:
        """A question's context window around its first answer; a span of zeros where there is no answer."""
        question, context = self._value(record, "question"), self._value(record, "context")
        answers = self._value(record, "answers")
        if not question or not context or answers is None:
            return []
        texts, starts = list(answers["text"]), list(answers["answer_start"])
        encoding = self.tokenizer.backend.encode(question, context)
        first = encoding.sequence_ids.index(1)
        span = (0, 0)
        if texts:
            begin, end = starts[0], starts[0] + len(texts[0])
            inside = [
                place
                for place in range(first, len(encoding.ids) - 1)
                if encoding.offsets[place][1] > begin and encoding.offsets[place][0] < end
            ]
            if not inside:
                return []
            span = (inside[0], inside[-1])
        return self._window(list(encoding.ids), first=first, span=span)

    def _window(self, ids: list[int], *, first: int, span: tuple[int, int]) -> list[Example]:
        """The question with as much of the context around the answer as fits; nothing where that can't be."""
        room = self.limit - first - 1
        if room <= span[1] - span[0]:
            return []
        begin = first
        if span[1] - first >= room:
            begin = min(max(first, (span[0] + span[1] - room) // 2), len(ids) - 1 - room)
        kept = [*ids[:first], *ids[begin : min(begin + room, len(ids) - 1)], ids[-1]]
        shift = begin - first if span != (0, 0) else 0
        return [Example(rows=(np.asarray(kept, np.int32),), target=(span[0] - shift, span[1] - shift))]

    def _chosen(self, record: Record) -> list[Example]:
        prompt, choices, label = (self._value(record, part) for part in ("prompt", "choices", "label"))
        if not prompt or not choices or label is None:
            return []
        if not 0 <= int(label) < len(choices):
            raise SpecError(f"label {label} is no place among {len(choices)} choices, counted from 0")
        rows = tuple(self._cut(self.tokenizer.backend.encode(prompt, choice).ids) for choice in choices)
        return [Example(rows=rows, target=int(label))]
