"""The first steps of every flat model, in NumPy: checks flat tokens and asks, and finds positions and an order.

Legend: B sequences, T packed tokens, G asked positions, K distinct asked positions.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from models.boundary import Ask, Head, IntArray, Tokens
from models.checks import check_length, check_range
from models.config import RobertaPreLayerNormConfig

LM_HEADS: tuple[Head, ...] = ("masked-lm", "causal-lm")


def flat_positions(*, tokens: Tokens, config: RobertaPreLayerNormConfig) -> IntArray:
    """Position of every token, counted per sequence as in RoBERTa: real tokens from P + 1 (P: the pad's id), `<pad>` itself P.

    Raises ValueError for ids outside the vocabulary and for a sequence longer than the model.
    """
    ids_T = tokens.input_ids_T
    check_range(
        name="input_ids", low=int(ids_T.min()), high=int(ids_T.max()), size=config.vocab_size, limit="vocab_size"
    )
    if tokens.token_type_ids_T is not None:
        types_T = tokens.token_type_ids_T
        check_range(
            name="token_type_ids",
            low=int(types_T.min()),
            high=int(types_T.max()),
            size=config.type_vocab_size,
            limit="type_vocab_size",
        )
    real_T = (ids_T != config.pad_token_id).astype(np.int64)
    counted_T = np.cumsum(real_T)
    before_B = counted_T[tokens.cu_seqlens[:-1]] - real_T[tokens.cu_seqlens[:-1]]
    counted_T = counted_T - np.repeat(before_B, tokens.lengths_B)
    longest = tokens.lengths_B if config.position_embedding_type != "absolute" else counted_T
    check_length(tokens=int(longest.max()), config=config)
    return (counted_T * real_T + config.pad_token_id).astype(np.int32)


def check_asks(*, tokens: Tokens, asks: Mapping[str, Ask], kinds: Mapping[str, Head], vocab_size: int) -> None:
    """Refuse asks that this model can't answer: a missing head, positions or ids out of range, nothing asked."""
    total = len(tokens.input_ids_T)
    for head, ask in asks.items():
        if head not in kinds:
            raise ValueError(
                f"head '{head}' is not loaded; this model has {', '.join(kinds)}; name it in load(heads=…)"
            )
        if len(ask.positions_G):
            low, high = int(ask.positions_G.min()), int(ask.positions_G.max())
            check_range(name=f"{head}: positions_G", low=low, high=high, size=total, limit="tokens")
        if kinds[head] in LM_HEADS and ask.top_k is None and ask.candidates_K is None and ask.gold_G is None:
            raise ValueError(f"{head}: nothing is asked; give top_k, candidates_K or gold_G")
        if ask.reduce == "mean" and not len(ask.positions_G):
            raise ValueError(f'{head}: reduce="mean" has no position to average; ask at least <s>')
        if ask.gold_G is not None and len(ask.gold_G) != len(ask.positions_G):
            raise ValueError(f"{head}: {len(ask.gold_G)} gold ids for {len(ask.positions_G)} positions")
        for name, ids in (("gold_G", ask.gold_G), ("candidates_K", ask.candidates_K)):
            if ids is not None and len(ids):
                low, high = int(ids.min()), int(ids.max())
                check_range(name=f"{head}: {name}", low=low, high=high, size=vocab_size, limit="vocab_size")
        if ask.top_k is not None and ask.top_k < 1:
            raise ValueError(f"{head}: top_k is {ask.top_k}; at least 1")


def asked_once(*, places: Mapping[str, IntArray], tokens: int) -> tuple[IntArray, dict[str, IntArray]]:
    """(the positions that any head asks for, ascending and distinct; for each head, which of those are its own).

    A mark for each token and a running sum: a search among the asked ones takes as long as the whole pass on a GPU.
    """
    mark_T = np.zeros(tokens, np.bool_)
    for places_G in places.values():
        mark_T[places_G] = True
    asked_K = np.flatnonzero(mark_T).astype(np.int32)
    if len(asked_K) == tokens:
        return asked_K, {head: places_G.astype(np.int32, copy=False) for head, places_G in places.items()}
    rank_T = np.cumsum(mark_T, dtype=np.int32) - 1
    return asked_K, {head: rank_T[places_G] for head, places_G in places.items()}


def is_all(chosen: IntArray, count: int) -> bool:
    """Whether these are 0 … count - 1 in order, so that indexing with them changes nothing."""
    return len(chosen) == count and bool((chosen == np.arange(count)).all())


@dataclass(frozen=True, eq=False)
class Segments:
    """Asked positions by sequence. counts_B: how many each asked sequence has, in the order of the sequences. order_G: the
    permutation that sorts the positions into that order; None if they are already sorted."""

    counts_B: IntArray
    order_G: IntArray | None


def segments_of(*, tokens: Tokens, ask: Ask) -> Segments:
    """Which positions are averaged together for `reduce="mean"`."""
    sequence_T = np.repeat(np.arange(len(tokens.lengths_B), dtype=np.int32), tokens.lengths_B)
    sequence_G = sequence_T[ask.positions_G]
    counts_B = np.bincount(sequence_G, minlength=len(tokens.lengths_B))
    sorted_already = bool((sequence_G[1:] >= sequence_G[:-1]).all())
    order_G = None if sorted_already else np.argsort(sequence_G, kind="stable").astype(np.int32)
    return Segments(counts_B=counts_B[counts_B > 0].astype(np.int32), order_G=order_G)


def sequence_of_positions(*, tokens: Tokens, ask: Ask) -> IntArray:
    """Which of the sequences that are asked anything, counted from 0 in their order, each asked position belongs to."""
    sequence_T = np.repeat(np.arange(len(tokens.lengths_B), dtype=np.int32), tokens.lengths_B)
    sequence_G = sequence_T[ask.positions_G]
    mark_B = np.zeros(len(tokens.lengths_B), np.bool_)
    mark_B[sequence_G] = True
    return (np.cumsum(mark_B, dtype=np.int32) - 1)[sequence_G]


def length_order(*, lengths_B: IntArray) -> tuple[IntArray, list[tuple[int, int]]]:
    """Sequences ordered so that equal lengths lie side by side: (order_B, runs of (sequences, length))."""
    order_B = np.argsort(lengths_B, kind="stable").astype(np.int32)
    lengths, counts = np.unique(lengths_B, return_counts=True)
    return order_B, [(int(count), int(length)) for count, length in zip(counts, lengths, strict=True)]


def token_order(*, tokens: Tokens, order_B: IntArray) -> IntArray:
    """Flat indices of all tokens with the sequences in another order: `ids_T[token_order]` is the reordered pack."""
    lengths = tokens.lengths_B[order_B]
    starts = tokens.cu_seqlens[:-1][order_B]
    ends = np.cumsum(lengths)
    within_T = np.arange(len(tokens.input_ids_T)) - np.repeat(ends - lengths, lengths)
    return (np.repeat(starts, lengths) + within_T).astype(np.int32)
