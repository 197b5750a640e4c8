"""Queries, keys and values of flat tokens in, contexts of the same tokens out: attention group by group, in one graph.

For a CPU. A group is a number of sequences of equal length, run as one batch: nothing is padded or copied. The graph is the
same for any number of groups.
Legend: T packed tokens, R groups, C sequences and S slots of one group, A = heads x width of one head.
"""

from typing import NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow import Tensor

from models.roberta_tf.attention import TFRobertaPreLayerNormSelfAttention


class Groups(NamedTuple):
    """counts_R, lengths_R: each group's sequences, and tokens a sequence. Tokens lie in the groups' order."""

    counts_R: Tensor
    lengths_R: Tensor


def equal_groups(runs: list[tuple[int, int]]) -> Groups:
    """A group for every (sequences, length)."""
    counts_R, lengths_R = np.array(runs, dtype=np.int32).T
    return Groups(counts_R=tf.constant(counts_R), lengths_R=tf.constant(lengths_R))


class GroupAttention:
    """Attention of every group through the seed classes' own, as a loop inside the graph."""

    def __init__(self, groups: Groups, *, causal: bool) -> None:
        self.groups = groups
        self.causal = causal

    def __call__(
        self, attention: TFRobertaPreLayerNormSelfAttention, query_TA: Tensor, key_TA: Tensor, value_TA: Tensor
    ) -> Tensor:
        width = query_TA.shape[-1]
        runs = tf.shape(self.groups.counts_R)[0]
        contexts = tf.TensorArray(query_TA.dtype, size=runs, element_shape=(None, width), infer_shape=False)

        def attend_group(group: Tensor, first: Tensor, contexts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            """Attention within one group: sequences of equal length, as one batch."""
            count, length = self.groups.counts_R[group], self.groups.lengths_R[group]
            last = first + count * length
            heads = (
                attention.split_heads(tf.reshape(part[first:last], (count, length, width)))
                for part in (query_TA, key_TA, value_TA)
            )
            context_CSA, _ = attention.attend(*heads, causal=self.causal)
            return group + 1, last, contexts.write(group, tf.reshape(context_CSA, (-1, width)))

        _, _, contexts = tf.while_loop(
            lambda group, *_: group < runs, attend_group, (tf.constant(0), tf.constant(0), contexts)
        )
        return tf.ensure_shape(contexts.concat(), (None, width))
