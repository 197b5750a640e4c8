"""Embedded tokens in, the residual stream after every layer out.

Legend: B batch, S queries, K keys, E encoder tokens, H hidden size, I intermediate size, N heads, L layers.
"""

from dataclasses import dataclass, replace

import tensorflow as tf
from tensorflow import Tensor

from models.checks import check_chunks
from models.config import RobertaPreLayerNormConfig
from models.outputs import EncoderOutput
from models.roberta_tf.activations import activation
from models.roberta_tf.attention import TFRobertaPreLayerNormAttention
from models.roberta_tf.cache import KeyValueCache, LayerCache
from models.roberta_tf.layers import Block, Dense, Dropout, Seeds
from models.roberta_tf.norms import SubLayerNorm


@dataclass(frozen=True, eq=False)
class Attended:
    """What all layers attend by: self-attention's bias, the encoder's states and the bias on them."""

    bias_B1SK: Tensor | None = None
    encoder_states_BEH: Tensor | None = None
    encoder_bias_B1SE: Tensor | None = None


class TFRobertaPreLayerNormIntermediate(Block):
    """LayerNorm, then the wide half of the feed-forward."""

    def __init__(self, config: RobertaPreLayerNormConfig) -> None:
        super().__init__()
        self.LayerNorm = SubLayerNorm(config)
        self.dense = Dense(config.hidden_size, config.intermediate_size)
        self.activation = activation(config.hidden_act)

    def forward(self, hidden_BSH: Tensor) -> Tensor:
        """[B, S, H] -> [B, S, I]."""
        return self.activation(self.dense(self.LayerNorm.enter(hidden_BSH)))


class TFRobertaPreLayerNormOutput(Block):
    """The narrow half of the feed-forward, dropout and the residual."""

    def __init__(self, config: RobertaPreLayerNormConfig) -> None:
        super().__init__()
        self.dense = Dense(config.intermediate_size, config.hidden_size)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def forward(self, wide_BSI: Tensor, hidden_BSH: Tensor, seeds: Seeds | None = None) -> Tensor:
        """([B, S, I], [B, S, H]) -> [B, S, H]."""
        return hidden_BSH + self.dropout(self.dense(wide_BSI), seeds)


class TFRobertaPreLayerNormLayer(Block):
    """Self-attention, cross-attention where the config adds it, feed-forward."""

    def __init__(self, config: RobertaPreLayerNormConfig, *, layer: int) -> None:
        super().__init__()
        self.chunk = config.chunk_size_feed_forward
        self.attention = TFRobertaPreLayerNormAttention(config, layer=layer)
        if config.add_cross_attention:
            self.crossattention = TFRobertaPreLayerNormAttention(config, cross=True)
        self.intermediate = TFRobertaPreLayerNormIntermediate(config)
        # `output` in files; Keras keeps that name for itself.
        self.narrow = TFRobertaPreLayerNormOutput(config)

    def forward(
        self,
        hidden_BSH: Tensor,
        attended: Attended,
        head_mask_N11: Tensor | None = None,
        past: LayerCache | None = None,
        seeds: Seeds | None = None,
        *,
        output_attentions: bool = False,
    ) -> tuple[Tensor, Tensor | None, Tensor | None, LayerCache]:
        """(hidden [B, S, H], self probabilities, cross probabilities, keys and values)."""
        hidden_BSH, probs_BNSK, own = self.attention(
            hidden_BSH,
            bias_B1SK=attended.bias_B1SK,
            head_mask_N11=head_mask_N11,
            past=None if past is None else (past.self_key, past.self_value),
            seeds=seeds,
            output_attentions=output_attentions,
        )
        cross_probs_BNSE: Tensor | None = None
        cross: tuple[Tensor | None, Tensor | None] = (None, None)
        known_cross = None if past is None else past.cross()
        if attended.encoder_states_BEH is not None or known_cross is not None:
            hidden_BSH, cross_probs_BNSE, cross = self.crossattention(
                hidden_BSH,
                bias_B1SK=attended.encoder_bias_B1SE,
                head_mask_N11=head_mask_N11,
                other_BEH=attended.encoder_states_BEH,
                known_cross=known_cross,
                seeds=seeds,
                output_attentions=output_attentions,
            )
        return (
            self.feed_forward(hidden_BSH, seeds),
            probs_BNSK,
            cross_probs_BNSE,
            LayerCache(own[0], own[1], cross[0], cross[1]),
        )

    def feed_forward(self, hidden_BSH: Tensor, seeds: Seeds | None = None) -> Tensor:
        """h + W2·act(W1·LN(h)), in pieces of chunk_size_feed_forward tokens if that is set."""
        if self.chunk <= 0:
            fed_BSH = self.narrow(self.intermediate(hidden_BSH), hidden_BSH, seeds)
            return self.intermediate.LayerNorm.leave(fed_BSH)
        length = hidden_BSH.shape[1]
        if length is None:
            raise ValueError(
                "config.chunk_size_feed_forward needs sequences of one known length; give the graph's input "
                "signature its length, or set chunk_size_feed_forward=0"
            )
        check_chunks(length=length, chunk=self.chunk)
        pieces = tf.split(hidden_BSH, length // self.chunk, axis=1)
        fed_BSH = tf.concat([self.narrow(self.intermediate(piece), piece, seeds) for piece in pieces], axis=1)
        return self.intermediate.LayerNorm.leave(fed_BSH)


class TFRobertaPreLayerNormEncoder(Block):
    """The stack of layers."""

    def __init__(self, config: RobertaPreLayerNormConfig) -> None:
        super().__init__()
        self.layer = [TFRobertaPreLayerNormLayer(config, layer=i) for i in range(config.num_hidden_layers)]
        self.gradient_checkpointing = bool(getattr(config, "gradient_checkpointing", False))

    def forward(
        self,
        hidden_BSH: Tensor,
        *,
        attended: Attended,
        head_mask_LN11: Tensor | None = None,
        past: KeyValueCache | None = None,
        new_tokens_B: Tensor | None = None,
        seeds: Seeds | None = None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
    ) -> EncoderOutput:
        """new_tokens_B: real tokens of each row in this call; given, a cache is returned.

        hidden_states: L + 1 tensors, the last one before the model's final LayerNorm, as in transformers 4.x (5.x: after it).
        """
        hidden_states = [hidden_BSH]
        attentions, cross_attentions, caches = [], [], []
        for i, layer in enumerate(self.layer):
            head_mask_N11 = None if head_mask_LN11 is None else head_mask_LN11[i]
            layer_past = None if past is None else past.layers[i]
            # Each layer draws from a seed of its own, so that it drops the same when it is computed again.
            seed = None if seeds is None else seeds.draw()
            if self.gradient_checkpointing and seed is not None:
                hidden_BSH, probs, cross_probs = _recomputed(
                    layer,
                    hidden_BSH,
                    attended,
                    head_mask_N11,
                    layer_past,
                    seed,
                    output_attentions=output_attentions,
                )
            else:
                hidden_BSH, probs, cross_probs, cache = layer(
                    hidden_BSH,
                    attended,
                    head_mask_N11,
                    layer_past,
                    None if seed is None else Seeds(seed),
                    output_attentions=output_attentions,
                )
                caches.append(cache)
            hidden_states.append(hidden_BSH)
            attentions.append(probs)
            cross_attentions.append(cross_probs)
        new_cache = None
        if new_tokens_B is not None:
            real_tokens_B = new_tokens_B if past is None else past.real_tokens_B + new_tokens_B
            new_cache = KeyValueCache(layers=tuple(caches), real_tokens_B=real_tokens_B)
        has_cross = output_attentions and any(probs is not None for probs in cross_attentions)
        return EncoderOutput(
            last_hidden_state=hidden_BSH,
            past_key_values=new_cache,
            hidden_states=tuple(hidden_states) if output_hidden_states else None,
            attentions=tuple(attentions) if output_attentions else None,
            cross_attentions=tuple(cross_attentions) if has_cross else None,
        )


def _recomputed(
    layer: TFRobertaPreLayerNormLayer,
    hidden_BSH: Tensor,
    attended: Attended,
    head_mask_N11: Tensor | None,
    past: LayerCache | None,
    seed: Tensor,
    *,
    output_attentions: bool,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """(hidden, self probabilities, cross probabilities) of a layer that is run again in the backward pass.

    Only what is handed to recompute_grad as an argument gets a gradient. The seed makes both runs drop the same.
    """
    given = {"hidden": hidden_BSH, "states": attended.encoder_states_BEH, "head_mask": head_mask_N11}
    names = [name for name, tensor in given.items() if tensor is not None]

    def run(*tensors: Tensor) -> tuple[Tensor, ...]:
        named = dict(zip(names, tensors, strict=True))
        by = replace(attended, encoder_states_BEH=named.get("states"))
        hidden, probs, cross_probs, _ = layer(
            named["hidden"], by, named.get("head_mask"), past, Seeds(seed), output_attentions=output_attentions
        )
        return tuple(tensor for tensor in (hidden, probs, cross_probs) if tensor is not None)

    outputs = tf.recompute_grad(run)(*(given[name] for name in names))
    padded = (*outputs, None, None)
    return padded[0], padded[1], padded[2]
