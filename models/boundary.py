"""Flat tokens and questions in, NumPy answers out: the one interface between pipeline/ and models/.

Legend: B sequences, T packed tokens (all sequences end to end, no padding), G asked positions, L labels, H hidden size,
V vocabulary, K candidate ids, k answers a position.

| head                                     | asks for                          | answers (float32 unless said)        |
| ---------------------------------------- | --------------------------------- | ------------------------------------ |
| sequence-classification, multiple-choice | each sequence's `<s>`             | logits [G, L]                        |
| token-classification                     | any tokens                        | logits [G, L]                        |
| question-answering                       | any tokens                        | start_logits [G], end_logits [G]     |
| masked-lm                                | positions with top_k / candidates | ids int32 [G, k], probs [G, k]       |
| masked-lm, causal-lm                     | positions with gold ids           | log_probs [G]                        |
| encoder                                  | positions                         | hidden [G, H]; reduce="mean": [B, H] |

Heads go by their kind, or, where several of one checkpoint's folders share an encoder, by names (models.named_heads).
A causal LM's gold id is scored by the logits at the position asked: ask the position before the token to be scored.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

IntArray: TypeAlias = npt.NDArray[np.int32]
FloatArray: TypeAlias = npt.NDArray[np.float32]
Answers: TypeAlias = dict[str, npt.NDArray[Any]]

Framework: TypeAlias = Literal["torch", "tensorflow", "flax"]
Head: TypeAlias = Literal[
    "encoder",
    "masked-lm",
    "causal-lm",
    "sequence-classification",
    "multiple-choice",
    "token-classification",
    "question-answering",
]
Dtype: TypeAlias = Literal["float32", "bfloat16", "float16"]
Device: TypeAlias = Literal["cpu", "cuda"]
DeviceFacts: TypeAlias = dict[str, str | int | float | bool]
"""What a model runs on, in plain values: device, name, framework, and what else the framework reports. `best_tokens`, if it is
there: the most tokens of a pass that pay on this device."""


@dataclass(frozen=True, eq=False)
class Tokens:
    """B sequences of token ids laid end to end on one axis of T tokens.

    input_ids_T: ids of all sequences, one after the other.
    cu_seqlens: [B + 1], where each sequence starts; the last entry is T. No sequence is empty.
    token_type_ids_T: segment ids, zeros when None.
    causal: True lets a token see only itself and those before it (a decoder).
    """

    input_ids_T: IntArray
    cu_seqlens: IntArray
    token_type_ids_T: IntArray | None = None
    causal: bool = False

    def __post_init__(self) -> None:
        total = len(self.input_ids_T)
        lengths = np.diff(self.cu_seqlens)
        if len(self.cu_seqlens) < 2 or self.cu_seqlens[0] != 0 or self.cu_seqlens[-1] != total or (lengths < 1).any():
            raise ValueError(
                f"cu_seqlens must rise from 0 to the {total} tokens given, one step a sequence, and has "
                f"{self.cu_seqlens[:3].tolist()}…{self.cu_seqlens[-1:].tolist()}"
            )
        if self.token_type_ids_T is not None and len(self.token_type_ids_T) != total:
            raise ValueError(f"token_type_ids_T has {len(self.token_type_ids_T)} entries for {total} tokens")

    @property
    def lengths_B(self) -> IntArray:
        """Tokens of each sequence."""
        return np.diff(self.cu_seqlens).astype(np.int32)


@dataclass(frozen=True, eq=False)
class Ask:
    """A question to one head: which tokens it reads and what it returns for them.

    positions_G: flat indices into `Tokens.input_ids_T`, in the order in which the answers are wanted.
    top_k: masked-lm: the k most probable ids of each position.
    candidates_K: masked-lm: only these vocabulary ids are ranked; the softmax stays over the whole vocabulary.
    gold_G: masked-lm, causal-lm: one id a position, answered by its log probability.
    reduce: encoder: "mean" averages the asked positions of each sequence that has any, in the order of the sequences.
    """

    positions_G: IntArray
    top_k: int | None = None
    candidates_K: IntArray | None = None
    gold_G: IntArray | None = None
    reduce: Literal["none", "mean"] = "none"


@dataclass(frozen=True)
class HeadAsk:
    """The part of an `Ask` that is the same for every input: all but its positions and gold ids.

    causal: a token sees only those before it. name: what the head is loaded as; None where heads go by their kind.
    """

    head: Head
    top_k: int | None = None
    candidates: tuple[int, ...] | None = None
    reduce: Literal["none", "mean"] = "none"
    causal: bool = False
    name: str | None = None

    @property
    def key(self) -> str:
        """The head's key in the model's answers."""
        return self.name or self.head


class Pending(Protocol):
    """Answers that are being computed."""

    def result(self) -> Mapping[str, Answers]:
        """The answers, once they are there. Raises what the computation raised."""
        ...


@dataclass(frozen=True, eq=False)
class Done:
    """Answers that were computed at once."""

    answers: Mapping[str, Answers]

    def result(self) -> Mapping[str, Answers]:
        """The answers."""
        return self.answers


class FlatModel(Protocol):
    """A model loaded in one framework, answering flat tokens."""

    def __call__(self, tokens: Tokens, asks: Mapping[str, Ask]) -> Mapping[str, Answers]:
        """One encoder pass for all heads asked, by the names under which they were loaded; answers in the order of each
        `Ask.positions_G`."""
        ...

    def submit(self, tokens: Tokens, asks: Mapping[str, Ask]) -> Pending:
        """As a call, but without waiting for the device. Results must be taken in the order in which packs were submitted."""
        ...

    def try_out(self) -> DeviceFacts:
        """Run a small pack through every head, before any row, and return the device's facts. Raises PrelnError if answers
        have other shapes than the table above, or are not finite."""
        ...

    def probe(self) -> None:
        """Compute something small on the device and wait for it. Raises if the device is lost."""
        ...
