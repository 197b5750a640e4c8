"""Hidden states of the asked slots and a head in, its NumPy answers out.

Whole vocabularies never leave the device, and are made for a slice of the positions at a time. Softmax in float32.
Slices have power-of-two sizes, so that few shapes are compiled.
Legend: U asked slots, G asked positions, H hidden size, V vocabulary, L labels, K candidate ids, k answers, B sequences.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from models.boundary import Answers, Ask, Head, IntArray
from models.flat_tokens import LM_HEADS
from models.packed_rows import power_of_two
from models.roberta_flax.layers import Array
from models.roberta_flax.weights import Params

LOGITS_AT_ONCE = 32_000_000  # vocabulary scores in memory at a time: 128 MB in float32
POSITIONS_AT_ONCE = 65_536  # of the heads without a vocabulary
LEAST_SLICE = 8


@dataclass(frozen=True, eq=False)
class Slices:
    """Answers on their way from the device. index: each slice's rows of the whole answer; a slice may be longer."""

    index: list[IntArray]
    answers: list[Mapping[str, Array]]


class HeadAnswers:
    """One head: asked slice by slice, collected at the end. module: None for the encoder itself."""

    def __init__(self, *, head: Head, module: nn.Module | None, params: Params) -> None:
        self.head = head
        self.module = module
        self.params = params
        self.at_once = POSITIONS_AT_ONCE
        self.logits = jax.jit(self._logits)
        self.language = jax.jit(self._language, static_argnames=("kept", "ranked"))
        if module is not None and head in LM_HEADS:
            fitting = max(1, LOGITS_AT_ONCE // module.config.vocab_size)
            self.at_once = 1 << (fitting.bit_length() - 1)

    def ask(
        self, *, ask: Ask, hidden_UH: Array, slot_G: IntArray, index_G: IntArray, sequence_G: IntArray | None
    ) -> Slices:
        """Start computing the answers of positions whose hidden states are hidden_UH[slot_G]."""
        if sequence_G is not None:
            sequences, place_G = np.unique(sequence_G, return_inverse=True)
            return Slices([sequences.astype(np.int32)], [self._mean(hidden_UH, slot_G, place_G.astype(np.int32))])
        slices = Slices([], [])
        for first in range(0, max(len(slot_G), 1), self.at_once):
            part = slice(first, first + self.at_once)
            slices.index.append(index_G[part])
            slices.answers.append(self._answer(ask, hidden_UH, slot_G[part], index_G[part]))
        return slices

    def collect(self, *, rows: int, slices: list[Slices]) -> Answers:
        """Fetch what was asked and put it in the order of the asked positions, or of the sequences for a mean."""
        whole: Answers = {}
        for found in slices:
            for index, answers in zip(found.index, found.answers, strict=True):
                for name, values in answers.items():
                    fetched = np.asarray(values)[: len(index)]
                    if name not in whole:
                        whole[name] = np.empty((rows, *fetched.shape[1:]), fetched.dtype)
                    whole[name][index] = fetched
        return whole

    def _answer(self, ask: Ask, hidden_UH: Array, slot_G: IntArray, index_G: IntArray) -> Mapping[str, Array]:
        """A head's arrays at the asked slots, padded to one of few lengths so that JAX compiles few programs."""
        slots = padded(slot_G)
        if self.head not in LM_HEADS:
            return self.logits(self.params, hidden_UH, slots)
        vocabulary = self.module.config.vocab_size  # type: ignore[union-attr]
        choices = vocabulary if ask.candidates_K is None else len(ask.candidates_K)
        return self.language(
            self.params,
            hidden_UH,
            slots,
            None if ask.candidates_K is None else np.asarray(ask.candidates_K, np.int32),
            None if ask.gold_G is None else padded(np.asarray(ask.gold_G, np.int32)[index_G]),
            kept=choices if ask.top_k is None else min(choices, ask.top_k),
            ranked=ask.top_k is not None or ask.candidates_K is not None,
        )

    def _logits(self, params: Params, hidden_UH: Array, slot_G: Array) -> Mapping[str, Array]:
        hidden_GH = hidden_UH[slot_G]
        if self.module is None:
            return {"hidden": hidden_GH.astype(jnp.float32)}
        logits_GL = self._apply(params, SCORES[self.head], hidden_GH).astype(jnp.float32)
        if self.head == "question-answering":
            return {"start_logits": logits_GL[:, 0], "end_logits": logits_GL[:, 1]}
        return {"logits": logits_GL}

    def _language(
        self,
        params: Params,
        hidden_UH: Array,
        slot_G: Array,
        candidates_K: Array | None,
        gold_G: Array | None,
        *,
        kept: int,
        ranked: bool,
    ) -> Mapping[str, Array]:
        logits_GV = self._apply(params, SCORES[self.head], hidden_UH[slot_G]).astype(jnp.float32)
        whole_G = jax.nn.logsumexp(logits_GV, axis=-1)
        answers = {}
        if ranked:
            ranked_GK = logits_GV if candidates_K is None else logits_GV[:, candidates_K]
            best_Gk, places_Gk = jax.lax.top_k(ranked_GK, kept)
            answers["ids"] = places_Gk if candidates_K is None else candidates_K[places_Gk]
            answers["probs"] = jnp.exp(best_Gk - whole_G[:, None])
        if gold_G is not None:
            answers["log_probs"] = jnp.take_along_axis(logits_GV, gold_G[:, None], axis=1)[:, 0] - whole_G
        return answers

    def _mean(self, hidden_UH: Array, slot_G: IntArray, place_G: IntArray) -> Mapping[str, Array]:
        rows = power_of_two(int(place_G.max()) + 1 if len(place_G) else 1, least=LEAST_SLICE)
        # Padded positions are added to a row of their own, which nobody fetches.
        return segment_mean(hidden_UH, padded(slot_G), padded(place_G, fill=rows), rows=rows)

    def _apply(self, params: Params, method: Callable[..., Array], hidden_GH: Array) -> Array:
        assert self.module is not None
        return self.module.apply({"params": params}, hidden_GH, method=method)


def _segment_mean(hidden_UH: Array, slot_G: Array, place_G: Array, *, rows: int) -> Mapping[str, Array]:
    hidden_GH = hidden_UH[slot_G].astype(jnp.float32)
    sum_BH = jax.ops.segment_sum(hidden_GH, place_G, num_segments=rows + 1)[:rows]
    count_B = jax.ops.segment_sum(jnp.ones_like(place_G), place_G, num_segments=rows + 1)[:rows]
    return {"hidden": sum_BH / jnp.maximum(count_B, 1)[:, None]}


segment_mean = jax.jit(_segment_mean, static_argnames="rows")


def padded(values_G: IntArray, *, fill: int = 0) -> IntArray:
    """The values with `fill` behind them up to a power of two."""
    whole = np.full(power_of_two(len(values_G), least=LEAST_SLICE), fill, np.int32)
    whole[: len(values_G)] = values_G
    return whole


def _classifier(module: Any, hidden_GH: Array) -> Array:
    return module.classifier(hidden_GH)


def _pooled_classifier(module: Any, hidden_GH: Array) -> Array:
    return module.classifier(module.roberta_prelayernorm.pooler(hidden_GH))


def _qa_outputs(module: Any, hidden_GH: Array) -> Array:
    return module.qa_outputs(hidden_GH)


def _words(module: Any, hidden_GH: Array) -> Array:
    return module.scores(hidden_GH)


# What each head's module does with hidden states.
SCORES: Mapping[Head, Callable[..., Array]] = {
    "masked-lm": _words,
    "causal-lm": _words,
    "sequence-classification": _classifier,
    "multiple-choice": _pooled_classifier,
    "token-classification": _classifier,
    "question-answering": _qa_outputs,
}
