"""Chooses the examples of each batch of each epoch, and pads them to arrays.

Everything is a function of the seed and the number of the epoch or step, so that a resumed run sees what an unbroken one
would have seen. Legend: B batch, S sequence, C choices, E examples.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from jobs.training.examples import IGNORED, Example

POOL = 64
"""Batches' worth of shuffled examples that are sorted by length together: little padding, yet no order over the epoch."""
WIDTH_STEP = 8
"""Batches are as wide as a multiple of this: kernels are made for each shape, and there are fewer of them."""
NEVER_MASKED = 4
"""<s>, <pad>, </s> and <unk> have the ids below this, and are never guessed."""


@dataclass(frozen=True, eq=False)
class Chosen:
    """One batch: a task's name and the examples' numbers."""

    task: str
    members: npt.NDArray[np.int64]


def epoch_batches(
    lengths: Mapping[str, Sequence[int]], *, seed: int, epoch: int, tokens: int, repeats: Mapping[str, int]
) -> list[Chosen]:
    """All batches of an epoch in their order: every example once (`repeats` times), tasks mixed, at most `tokens` each."""
    batches = []
    for number, (task, lengths_E) in enumerate(sorted(lengths.items())):
        for again in range(repeats.get(task, 1)):
            random = np.random.default_rng([seed, epoch, number, again])
            order = random.permutation(len(lengths_E))
            batches += [Chosen(task, members) for members in _cut(order, np.asarray(lengths_E), tokens)]
    mixed = np.random.default_rng([seed, epoch]).permutation(len(batches))
    return [batches[place] for place in mixed]


def _cut(order: npt.NDArray[np.int64], lengths_E: npt.NDArray[np.int64], tokens: int) -> list[npt.NDArray[np.int64]]:
    typical = max(1, tokens // max(1, int(lengths_E.mean())))
    cut = []
    for begin in range(0, len(order), typical * POOL):
        pool = order[begin : begin + typical * POOL]
        pool = pool[np.argsort(lengths_E[pool], kind="stable")]
        start = 0
        for end in range(1, len(pool) + 1):
            if end == len(pool) or (end + 1 - start) * lengths_E[pool[end]] > tokens:
                cut.append(pool[start:end])
                start = end
    return cut


@dataclass(frozen=True, eq=False)
class Padded:
    """input_ids and attention_mask [B, S] ([B, C, S] for choices), and the labels as the head wants them."""

    input_ids: npt.NDArray[np.int64]
    attention_mask: npt.NDArray[np.int64]
    labels: Any


def padded(examples: Sequence[Example], *, pad_id: int) -> Padded:
    """Examples of one task as arrays."""
    width = -(-max(example.length for example in examples) // WIDTH_STEP) * WIDTH_STEP
    rows = [row for example in examples for row in example.rows]
    ids = np.full((len(rows), width), pad_id, np.int64)
    mask = np.zeros_like(ids)
    for place, row in enumerate(rows):
        ids[place, : len(row)], mask[place, : len(row)] = row, 1
    labels = _labels(examples, width)
    choices = len(examples[0].rows)
    if choices > 1:
        shape = (len(examples), choices, width)
        return Padded(ids.reshape(shape), mask.reshape(shape), labels)
    return Padded(ids, mask, labels)


def _labels(examples: Sequence[Example], width: int) -> Any:
    targets = [example.target for example in examples]
    first = targets[0]
    if first is None:
        return None
    if isinstance(first, np.ndarray) and first.dtype == np.int64:
        tags = np.full((len(targets), width), IGNORED, np.int64)
        for place, target in enumerate(targets):
            tags[place, : len(target)] = target
        return tags
    if isinstance(first, float | np.ndarray):
        return np.asarray(targets, np.float32)
    return np.asarray(targets, np.int64)


def masked(batch: Padded, *, rate: float, mask_id: int, vocabulary: int, random: np.random.Generator) -> Padded:
    """The same batch with `rate` of its tokens to be guessed: 8 of 10 hidden, 1 another token, 1 as it was.

    labels: the hidden ids [B, S], IGNORED elsewhere. At least one token is guessed. Source: Devlin et al. 2019, section 3.1.
    """
    ids = batch.input_ids
    eligible = (batch.attention_mask == 1) & (ids >= NEVER_MASKED) & (ids != mask_id)
    picked = eligible & (random.random(ids.shape) < rate)
    if not picked.any() and eligible.any():
        picked[np.unravel_index(random.choice(np.flatnonzero(eligible)), ids.shape)] = True
    fate = random.random(ids.shape)
    changed = np.where(picked & (fate < 0.8), mask_id, ids)
    strange = random.integers(NEVER_MASKED, vocabulary - 1, ids.shape)
    changed = np.where(picked & (fate >= 0.8) & (fate < 0.9), strange, changed)
    return Padded(changed, batch.attention_mask, np.where(picked, ids, IGNORED))
