"""Flat tokens and asks in, hidden states of what is asked out: the encoder on packed rows of few static shapes, under XLA.

For a GPU. Sequences lie end to end in rows of one width under a segment mask, rows go in pieces of few sizes, and a layer is
straight-line: no loop, no host wait, nothing of a size that depends on values.
Legend: R rows of a piece, S width of a row, X = slots of all rows, U slots asked by any head, G positions asked by one, H
hidden size.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow import Tensor

from models.boundary import Ask, IntArray, Tokens
from models.config import RobertaPreLayerNormConfig
from models.packed_rows import FEW_ASKED, PIECE_ROWS, asked_slots, gpu_rows, gpu_width, row_inputs, row_pieces
from models.roberta_tf.base import TFRobertaPreLayerNormModel


class RowEncoder:
    """The encoder of a base model; compiled: by XLA, else the same graphs as they are."""

    def __init__(self, base: TFRobertaPreLayerNormModel, *, config: RobertaPreLayerNormConfig, compiled: bool) -> None:
        self.base = base
        self.config = config
        self.compiled = compiled
        self.encode = tf.function(self._encode, jit_compile=compiled, autograph=False, reduce_retracing=False)

    def __call__(self, tokens: Tokens, asks: Mapping[str, Ask]) -> tuple[Tensor, dict[str, IntArray]]:
        """(final hidden states of all that is asked, with more between them; for each head, where its own lie there)."""
        rows = gpu_rows(tokens=tokens, config=self.config)
        inputs = row_inputs(tokens=tokens, rows=rows, config=self.config)
        mark_X = np.zeros(len(rows.sequence_X), np.bool_)
        for ask in asks.values():
            mark_X[rows.slot_T[ask.positions_G]] = True
        place_X = np.empty(len(mark_X), np.int32)
        pieces, before = [], 0
        for row, count in row_pieces(rows=rows.rows, sizes=PIECE_ROWS):
            mine = slice(row * rows.width, (row + count) * rows.width)
            slots_U = asked_slots(mark_X[mine])
            place_X[mine] = before + np.cumsum(mark_X[mine]) - 1
            before += len(slots_U)
            arguments = (*(values[row : row + count] for values in inputs), slots_U)
            pieces.append(self.encode(*map(tf.constant, arguments), causal=tokens.causal))
        return tf.concat(pieces, axis=0), {head: place_X[rows.slot_T[ask.positions_G]] for head, ask in asks.items()}

    def compile_shapes(self, *, causal: bool) -> None:
        """Encode rows of every size once, for few asked and for all, and wait for it."""
        width = gpu_width(self.config)
        for rows in PIECE_ROWS:
            slots_RS = tf.zeros((rows, width), tf.int32)
            for asked in (rows * width // FEW_ASKED, rows * width):
                self.encode(*[slots_RS] * 4, tf.zeros((asked,), tf.int32), causal=causal)[0].numpy()

    def _encode(
        self,
        input_ids_RS: Tensor,
        types_RS: Tensor,
        positions_RS: Tensor,
        sequence_RS: Tensor,
        slots_U: Tensor,
        *,
        causal: bool,
    ) -> Tensor:
        """Final hidden states [U, H] of the asked slots of some rows."""
        embeddings = self.base.embeddings
        hidden_RSH = embeddings.embed(embeddings.word_embeddings(input_ids_RS), types_RS, positions_RS)
        bias_R1SS = segment_bias(sequence_RS, causal=causal, dtype=hidden_RSH.dtype)
        layers = self.base.encoder.layer
        for layer in layers:
            hidden_RSH, _, _ = layer.attention(hidden_RSH, bias_B1SK=bias_R1SS)
            if layer is layers[-1]:
                hidden_RSH = _picked(hidden_RSH, slots_U)
            fed_RSH = layer.narrow(layer.intermediate(hidden_RSH), hidden_RSH)
            hidden_RSH = layer.intermediate.LayerNorm.leave(fed_RSH)
        return self.base.LayerNorm(hidden_RSH if layers else _picked(hidden_RSH, slots_U))


def segment_bias(sequence_RS: Tensor, *, causal: bool, dtype: Any) -> Tensor:
    """[R, 1, S, S], 0 where query and key are of one sequence (and the key not later), else the type's minimum."""
    seen_RSS = tf.equal(sequence_RS[:, :, None], sequence_RS[:, None, :])
    if causal:
        place_S = tf.range(sequence_RS.shape[1])
        seen_RSS = tf.logical_and(seen_RSS, place_S[None, :] <= place_S[:, None])
    return tf.where(seen_RSS, tf.zeros((), dtype), tf.constant(dtype.min, dtype))[:, None]


def _picked(hidden_RSH: Tensor, slots_U: Tensor) -> Tensor:
    return tf.gather(tf.reshape(hidden_RSH, (-1, hidden_RSH.shape[-1])), slots_U)
