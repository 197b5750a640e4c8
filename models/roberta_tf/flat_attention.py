"""Queries, keys and values of flat tokens in, contexts of the same tokens out: attention group by group, in one graph.

A group is a number of sequences, run as one batch: of equal length (nothing is padded or copied), or of like length
(padded to the longest, for devices that want few large products). The graph is the same for any number of groups.
Legend: T packed tokens, R groups, X slots of all groups (pads among them), C sequences and S slots of one group, A = heads
x width of one head.
"""

from typing import NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow import Tensor

from models.roberta_tf.attention import TFRobertaPreLayerNormSelfAttention, attention_bias

# A padded group's longest sequence is at most 1/8 longer than its shortest, and short ones share groups of 16 slots.
GROWTH = 8
SHORTEST_STEP = 16


class Groups(NamedTuple):
    """counts_R, lengths_R: each group's sequences and slots a sequence. slots_X: the token of each slot; real_X: no pad.

    Tokens lie in the groups' order. Without padding slots_X and real_X are empty.
    """

    counts_R: Tensor
    lengths_R: Tensor
    slots_X: Tensor
    real_X: Tensor


def equal_groups(runs: list[tuple[int, int]]) -> Groups:
    """A group for every (sequences, length)."""
    counts_R, lengths_R = np.array(runs, dtype=np.int32).T
    return Groups(
        counts_R=tf.constant(counts_R),
        lengths_R=tf.constant(lengths_R),
        slots_X=tf.zeros((0,), tf.int32),
        real_X=tf.zeros((0,), tf.bool),
    )


def padded_groups(runs: list[tuple[int, int]]) -> Groups:
    """Few groups of like length, each padded to its longest; runs come shortest first."""
    buckets: list[list[int]] = []
    for count, length in runs:
        if not buckets or length > _widest(buckets[-1][0]):
            buckets.append([])
        buckets[-1].extend([length] * count)
    slots, real = [], []
    first = 0
    for lengths in buckets:
        lengths_C = np.array(lengths)
        starts_C = first + np.cumsum(lengths_C) - lengths_C
        within_S = np.arange(lengths_C[-1])
        real_CS = within_S < lengths_C[:, None]
        slots.append(np.where(real_CS, starts_C[:, None] + within_S, starts_C[:, None]).reshape(-1))
        real.append(real_CS.reshape(-1))
        first += int(lengths_C.sum())
    return Groups(
        counts_R=tf.constant([len(lengths) for lengths in buckets], tf.int32),
        lengths_R=tf.constant([lengths[-1] for lengths in buckets], tf.int32),
        slots_X=tf.constant(np.concatenate(slots).astype(np.int32)),
        real_X=tf.constant(np.concatenate(real)),
    )


def _widest(shortest: int) -> int:
    return max(shortest + shortest // GROWTH, -(-shortest // SHORTEST_STEP) * SHORTEST_STEP)


class GroupAttention:
    """Attention of every group through the seed classes' own, as a loop inside the graph."""

    def __init__(self, groups: Groups, *, causal: bool, padded: bool) -> None:
        self.groups = groups
        self.causal = causal
        self.padded = padded

    def __call__(
        self, attention: TFRobertaPreLayerNormSelfAttention, query_TA: Tensor, key_TA: Tensor, value_TA: Tensor
    ) -> Tensor:
        width = query_TA.shape[-1]
        runs = tf.shape(self.groups.counts_R)[0]
        contexts = tf.TensorArray(query_TA.dtype, size=runs, element_shape=(None, width), infer_shape=False)

        def attend_group(group: Tensor, first: Tensor, contexts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            """Attention within one group: sequences of equal length (or padded to it), as one batch."""
            count, length = self.groups.counts_R[group], self.groups.lengths_R[group]
            last = first + count * length
            heads = (
                attention.split_heads(tf.reshape(self.take(part, first, last), (count, length, width)))
                for part in (query_TA, key_TA, value_TA)
            )
            context_CSA, _ = attention.attend(
                *heads,
                bias_B1SK=self.bias(first, count, length, query_TA) if self.padded else None,
                causal=self.causal and not self.padded,
            )
            return group + 1, last, contexts.write(group, tf.reshape(context_CSA, (-1, width)))

        _, _, contexts = tf.while_loop(
            lambda group, *_: group < runs, attend_group, (tf.constant(0), tf.constant(0), contexts)
        )
        context_XA = tf.ensure_shape(contexts.concat(), (None, width))
        return tf.boolean_mask(context_XA, self.groups.real_X) if self.padded else context_XA

    def take(self, part_TA: Tensor, first: Tensor, last: Tensor) -> Tensor:
        """The rows of one group's slots."""
        return tf.gather(part_TA, self.groups.slots_X[first:last]) if self.padded else part_TA[first:last]

    def bias(self, first: Tensor, count: Tensor, length: Tensor, like: Tensor) -> Tensor:
        """What hides a padded group's pads, and later tokens in a decoder."""
        mask_CS = tf.reshape(self.groups.real_X[first : first + count * length], (count, length))
        bias = attention_bias(mask=mask_CS, queries=length, keys=length, causal=self.causal, like=like)
        assert bias is not None
        return bias
