"""What a task is: the columns it reads, how they become tokens, what it asks of the model, and how answers become columns.

A task is a frozen set of options with methods from arrays to arrays, independent of Ray, shards and
frameworks. It works on *items*: the distinct inputs of a shard whose rows have no error so far.

encode   parts (N items each)        -> Encoding: windows of tokens, and items that turned out not to fit
asks                                 -> which head reads the windows' positions, and what comes back
decode   parts, windows, answers     -> Decoded: one column per field of `fields()`, N items each
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Literal, Self, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import BaseModel, ConfigDict
from tokenizers import Tokenizer

from models.boundary import Answers, Head, HeadAsk
from models.calibration_file import Calibration
from models.config import RobertaPreLayerNormConfig
from models.embedder_folder import Embedder
from models.tokenizer import CheckpointTokenizer
from pipeline.rows import no_errors
from pipeline.tasks.vocabulary import Vocabulary

PartKind: TypeAlias = Literal["text", "texts"]
"""text: one string a row. texts: a list of strings a row."""


@dataclass(frozen=True)
class Part:
    """A column that a task reads: the part it plays (its name in `input.columns`), its kind, and whether it may be absent."""

    name: str
    kind: PartKind = "text"
    required: bool = True


@dataclass(frozen=True, eq=False)
class ModelFacts:
    """What a task may know about the checkpoint: its config, its tokenizer, and how many tokens an input may have.

    embedder: how a sentence-transformers folder makes vectors, for feature-extraction. calibration: of its classifier's scores.
    """

    config: RobertaPreLayerNormConfig
    tokenizer: CheckpointTokenizer
    max_length: int
    embedder: Embedder | None = None
    calibration: Calibration | None = None

    @cached_property
    def labels(self) -> list[str]:
        """Label names in the order of their ids."""
        names: Mapping[int, str] = self.config.id2label
        return [names[index] for index in range(len(names))]

    @cached_property
    def truncating(self) -> Tokenizer:
        """The tokenizer cutting at `max_length`; a copy, since the other does not truncate."""
        backend = Tokenizer.from_str(self.tokenizer.backend.to_str())
        backend.enable_truncation(self.max_length)
        return backend

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The tokenizer's ids and the text each stands for."""
        return Vocabulary(tokenizer=self.tokenizer, size=self.config.vocab_size)

    def task_parameter(self, *, task: str, key: str) -> Any:
        """A value of `task_specific_params` in the checkpoint's config; None if it is not set."""
        params = getattr(self.config, "task_specific_params", None) or {}
        return (params.get(task) or {}).get(key)


@dataclass(frozen=True, eq=False)
class Encoding:
    """Items as windows of tokens.

    windows: a table with `item` int32 (ascending; an item may have several windows or, when it has an error, none),
        `input_ids` list<int32>, `positions` list<int32> (asked positions within the window), `gold` list<int32> where
        gold ids are asked (one a position), `token_type_ids` list<int32> if the checkpoint has segments, and whatever
        columns the task needs again for decoding.
    truncated: [N], where an item was cut to the model's length.
    errors: [N], why an item can't be encoded, null where it can.
    """

    windows: pa.Table
    truncated: npt.NDArray[np.bool_]
    errors: pa.StructArray


@dataclass(frozen=True, eq=False)
class Decoded:
    """Answers of N items: one array a field of `Task.fields`, and errors found while decoding."""

    columns: Sequence[pa.Array]
    errors: pa.StructArray = field(default_factory=lambda: no_errors(0))


class Task(BaseModel, ABC):
    """A task's options and its methods. `answer_version` rises whenever the same input would get another answer."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    answer_version: ClassVar[int] = 1

    later_options: ClassVar[frozenset[str]] = frozenset()
    """Options added after folders had been written: at their default they are not part of a job's identity."""

    def resolved_options(self, facts: ModelFacts) -> dict[str, Any]:
        """Options and other settings that the checkpoint decides."""
        return {}

    restated_options: ClassVar[frozenset[str]] = frozenset()
    """Options that a job's identity has as `resolved_options` states them, instead of as they are written."""

    @property
    def version(self) -> int:
        """The answer version: this one's, or the older one of the output folder that is being finished."""
        return self.answer_version

    def at_version(self, version: object) -> Self:
        """The same task answering as an older version did, if it still can; else itself."""
        return self

    def notes(self, facts: ModelFacts) -> list[str]:
        """What a run says once of how this checkpoint is read."""
        return []

    @abstractmethod
    def parts(self) -> tuple[Part, ...]:
        """The columns it reads; the first one is the text whose absence is `empty`."""

    @abstractmethod
    def heads(self, facts: ModelFacts) -> tuple[Head, ...]:
        """The heads that a checkpoint must have."""

    def rows_weight(self, facts: ModelFacts) -> int:
        """How much heavier a row of this task is than a plain one, in windows or in bytes of answer; default shards are
        smaller by this factor."""
        return 1

    @abstractmethod
    def asks(self, facts: ModelFacts) -> HeadAsk:
        """What the model is asked at each window's positions."""

    @abstractmethod
    def fields(self, facts: ModelFacts) -> list[pa.Field]:
        """The answer columns. Raises SpecError if options and checkpoint don't fit together."""

    @abstractmethod
    def encode(self, parts: Mapping[str, pa.Array], facts: ModelFacts) -> Encoding:
        """Items, one array a part, as windows of tokens."""

    def unasked(self, items: int, facts: ModelFacts) -> list[pa.Array]:
        """The columns of N items that the model was not asked about; nulls by default."""
        return [pa.nulls(items, field.type) for field in self.fields(facts)]

    @abstractmethod
    def decode(
        self, *, parts: Mapping[str, pa.Array], windows: pa.Table, answers: Answers, facts: ModelFacts
    ) -> Decoded:
        """Answers of all windows, in their order, as columns of N items; items with errors may hold anything.

        parts: what `encode` was given. answers: zeros where a window failed.
        """
