"""Start and end logits of all windows of all items in, the best spans of each item out, scored across its windows.

A span's score is the probability of its start times that of its end. Both are softmaxes over everything the item could
answer: each token of its context once (at its highest logit among the windows that see it), and no answer at all (`<s>` of
the window that is least sure of no answer, as SQuAD 2 counts it). So the scores of all spans of an item add up to at most 1,
compare across windows, and do not depend on how many are asked for.

Legend: G asked tokens (each window's `<s>`, then its context), R rows: starts of spans, C candidate spans, N items, W windows,
S slots: each token of a context once, and no answer.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.ragged import Integers, run_starts

Logits = npt.NDArray[np.float64]

ROWS_AT_ONCE = 65_536
"""Starts whose spans are in memory at a time."""


@dataclass(frozen=True, eq=False)
class AskedSpans:
    """The tokens that were asked, window by window.

    item_W: ascending. counts_W: tokens of each window, `<s>` included. token_G: number of the token in its context, -1 for
    `<s>`. start_G, end_G: characters that an answer from, or to, this token would begin and end at. allowed_G: whether an
    answer may begin or end here.
    """

    item_W: Integers
    counts_W: Integers
    token_G: Integers
    start_G: Integers
    end_G: Integers
    allowed_G: npt.NDArray[np.bool_]
    items: int

    @property
    def item_G(self) -> npt.NDArray[np.int64]:
        """The item of each token."""
        return np.repeat(self.item_W, self.counts_W)

    @property
    def stop_G(self) -> npt.NDArray[np.int64]:
        """Where the window of each token ends."""
        return np.repeat(np.cumsum(self.counts_W), self.counts_W)


@dataclass(frozen=True, eq=False)
class Spans:
    """Spans by item, best first; log_score_C natural. null_N: the score of no answer."""

    item_C: Integers
    start_C: Integers
    end_C: Integers
    log_score_C: Logits
    null_N: Logits


def best_spans(*, asked: AskedSpans, start_G: Logits, end_G: Logits, longest: int, wanted: int) -> Spans:
    """At most `wanted` spans an item, of at most `longest` tokens; spans of the same characters count once, by the best."""
    start_G, end_G, null_N = normalized(asked, start_G, end_G)
    blocked_G = np.where(asked.allowed_G, 0.0, -np.inf)
    start_G, end_G = start_G + blocked_G, end_G + blocked_G
    candidates = 2 * wanted + 10  # several pieces of a word make the same characters
    rows = np.flatnonzero(asked.allowed_G)
    best_R = np.concatenate(
        [
            _scores(rows[first : first + ROWS_AT_ONCE], asked, start_G, end_G, longest).max(axis=1)
            for first in range(0, len(rows), ROWS_AT_ONCE)
        ]
        or [np.empty(0)]
    )
    rows = rows[_leading(asked.item_G[rows], best_R, candidates)]
    score_C = _scores(rows, asked, start_G, end_G, longest).ravel()
    from_C, to_C = np.repeat(rows, longest), (rows[:, None] + np.arange(longest)).ravel()
    possible = np.flatnonzero(np.isfinite(score_C))
    score_C, from_C, to_C = score_C[possible], from_C[possible], to_C[possible]
    item_C = asked.item_G[from_C]
    lead = _leading(item_C, score_C, candidates)
    item_C, score_C, from_C, to_C = item_C[lead], score_C[lead], from_C[lead], to_C[lead]
    first_C, last_C = asked.start_G[from_C], asked.end_G[to_C]
    order = np.lexsort((-score_C, last_C, first_C, item_C))
    single = order[run_starts(item_C[order], first_C[order], last_C[order])] if len(order) else order
    single = single[_leading(item_C[single], score_C[single], wanted)]
    return Spans(item_C[single], first_C[single], last_C[single], score_C[single], null_N)


def _scores(rows: Integers, asked: AskedSpans, start_G: Logits, end_G: Logits, longest: int) -> Logits:
    """[R, longest], the log score of each span that begins at a row; -inf where it would leave its window."""
    to_RA = rows[:, None] + np.arange(longest)
    inside_RA = to_RA < asked.stop_G[rows][:, None]
    ends_RA = np.where(inside_RA, end_G[np.minimum(to_RA, max(len(end_G) - 1, 0))], -np.inf)
    scores_RA: Logits = start_G[rows][:, None] + ends_RA
    return scores_RA


def _leading(group: Integers, score: Logits, count: int) -> npt.NDArray[np.int64]:
    """Indices of the `count` highest of each group, by group, highest first, equal ones in their order."""
    order = np.lexsort((-score, group))
    if not len(order):
        return order
    begins = np.flatnonzero(run_starts(group[order]))
    rank = np.arange(len(order)) - np.repeat(begins, np.diff(np.append(begins, len(order))))
    return order[rank < count]


def normalized(asked: AskedSpans, start_G: Logits, end_G: Logits) -> tuple[Logits, Logits, Logits]:
    """Log probabilities of start and end, and [N] the probability of no answer; items without windows have none, 0."""
    marks = np.cumsum(asked.counts_W) - asked.counts_W
    null_W = start_G[marks] + end_G[marks]
    order = np.lexsort((null_W, asked.item_W))
    least = marks[order[run_starts(asked.item_W[order])]] if len(order) else marks
    owners = asked.item_G[least]
    slot_N = np.full(asked.items, -1, np.int64)
    np.maximum.at(slot_N, asked.item_G, asked.token_G)
    first_N = np.cumsum(slot_N + 1) - (slot_N + 1)
    slot_G = first_N[asked.item_G] + asked.token_G
    null_N = np.full(asked.items, -np.inf)
    null_N[owners] = 0.0
    normal = []
    for logits_G in (start_G, end_G):
        real = asked.token_G >= 0
        highest_S = np.full(int((slot_N + 1).sum()), -np.inf)
        np.maximum.at(highest_S, slot_G[real], logits_G[real])
        owner_S = np.repeat(np.arange(asked.items), slot_N + 1)
        peak_N = np.full(asked.items, -np.inf)
        np.maximum.at(peak_N, owner_S, highest_S)
        peak_N[owners] = np.maximum(peak_N[owners], logits_G[least])
        peak_N[~np.isfinite(peak_N)] = 0.0
        total_N = np.bincount(owner_S, weights=np.exp(highest_S - peak_N[owner_S]), minlength=asked.items)
        total_N[owners] += np.exp(logits_G[least] - peak_N[owners])
        whole_N = peak_N + np.log(np.maximum(total_N, np.finfo(np.float64).tiny))
        normal.append(logits_G - whole_N[asked.item_G])
        null_N[owners] += logits_G[least] - whole_N[owners]
    return normal[0], normal[1], np.exp(null_N)
