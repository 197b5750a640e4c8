"""Embedded tokens in, the residual stream after every layer out.

Legend: B batch, S queries, K keys, E encoder tokens, H hidden size, I intermediate size, N heads, L layers.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from models.checks import check_chunks
from models.config import RobertaPreLayerNormConfig
from models.outputs import EncoderOutput
from models.roberta_torch.activations import activation
from models.roberta_torch.attention import RobertaPreLayerNormAttention
from models.roberta_torch.cache import KeyValueCache, LayerCache
from models.roberta_torch.norms import SubLayerNorm


@dataclass(frozen=True, eq=False)
class Attended:
    """What all layers attend by: self-attention's bias, the encoder's states and the bias on them."""

    bias_B1SK: Tensor | None = None
    encoder_states_BEH: Tensor | None = None
    encoder_bias_B1SE: Tensor | None = None


class RobertaPreLayerNormIntermediate(nn.Module):
    """LayerNorm, then the wide half of the feed-forward."""

    def __init__(self, config: RobertaPreLayerNormConfig) -> None:
        super().__init__()
        self.LayerNorm = SubLayerNorm(config)
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation = activation(config.hidden_act)

    def forward(self, hidden_BSH: Tensor) -> Tensor:
        """[B, S, H] -> [B, S, I]."""
        return self.activation(self.dense(self.LayerNorm.enter(hidden_BSH)))


class RobertaPreLayerNormOutput(nn.Module):
    """The narrow half of the feed-forward, dropout and the residual."""

    def __init__(self, config: RobertaPreLayerNormConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.intermediate_size, config.hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, wide_BSI: Tensor, hidden_BSH: Tensor) -> Tensor:
        """([B, S, I], [B, S, H]) -> [B, S, H]."""
        return hidden_BSH + self.dropout(self.dense(wide_BSI))


class RobertaPreLayerNormLayer(nn.Module):
    """Self-attention, cross-attention where the config adds it, feed-forward."""

    def __init__(self, config: RobertaPreLayerNormConfig, *, layer: int) -> None:
        super().__init__()
        self.chunk = config.chunk_size_feed_forward
        self.attention = RobertaPreLayerNormAttention(config, layer=layer)
        if config.add_cross_attention:
            self.crossattention = RobertaPreLayerNormAttention(config, cross=True)
        self.intermediate = RobertaPreLayerNormIntermediate(config)
        self.output = RobertaPreLayerNormOutput(config)

    def forward(
        self,
        hidden_BSH: Tensor,
        attended: Attended,
        head_mask_N11: Tensor | None = None,
        past: LayerCache | None = None,
        *,
        output_attentions: bool = False,
    ) -> tuple[Tensor, Tensor | None, Tensor | None, LayerCache]:
        """(hidden [B, S, H], self probabilities, cross probabilities, keys and values)."""
        hidden_BSH, probs_BNSK, own = self.attention(
            hidden_BSH,
            bias_B1SK=attended.bias_B1SK,
            head_mask_N11=head_mask_N11,
            past=None if past is None else (past.self_key, past.self_value),
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
                output_attentions=output_attentions,
            )
        return (
            self.feed_forward(hidden_BSH),
            probs_BNSK,
            cross_probs_BNSE,
            LayerCache(own[0], own[1], cross[0], cross[1]),
        )

    def feed_forward(self, hidden_BSH: Tensor) -> Tensor:
        """h + W2·act(W1·LN(h)), in pieces of chunk_size_feed_forward tokens if that is set."""
        if self.chunk <= 0:
            return self.intermediate.LayerNorm.leave(self.output(self.intermediate(hidden_BSH), hidden_BSH))
        check_chunks(length=hidden_BSH.shape[1], chunk=self.chunk)
        pieces = hidden_BSH.split(self.chunk, dim=1)
        fed_BSH = torch.cat([self.output(self.intermediate(piece), piece) for piece in pieces], dim=1)
        return self.intermediate.LayerNorm.leave(fed_BSH)


class RobertaPreLayerNormEncoder(nn.Module):
    """The stack of layers."""

    def __init__(self, config: RobertaPreLayerNormConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList([RobertaPreLayerNormLayer(config, layer=i) for i in range(config.num_hidden_layers)])
        self.gradient_checkpointing = bool(getattr(config, "gradient_checkpointing", False))

    def forward(
        self,
        hidden_BSH: Tensor,
        *,
        attended: Attended,
        head_mask_LN11: Tensor | None = None,
        past: KeyValueCache | None = None,
        new_tokens_B: Tensor | None = None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
    ) -> EncoderOutput:
        """new_tokens_B: real tokens of each row in this call; given, a cache is returned.

        hidden_states: L + 1 tensors, the last one before the model's final LayerNorm, as in transformers 4.x (5.x: after it).
        """
        hidden_states = [hidden_BSH]
        attentions, cross_attentions, caches = [], [], []
        for i, layer in enumerate(self.layer):
            arguments = (
                hidden_BSH,
                attended,
                None if head_mask_LN11 is None else head_mask_LN11[i],
                None if past is None else past.layers[i],
            )
            if self.gradient_checkpointing and self.training:
                hidden_BSH, probs, cross_probs, cache = checkpoint(
                    layer, *arguments, use_reentrant=False, output_attentions=output_attentions
                )
            else:
                hidden_BSH, probs, cross_probs, cache = layer(*arguments, output_attentions=output_attentions)
            # Only what is asked for is kept: the rest would stay in memory until the last layer.
            if output_hidden_states:
                hidden_states.append(hidden_BSH)
            if output_attentions:
                attentions.append(probs)
                cross_attentions.append(cross_probs)
            if new_tokens_B is not None:
                caches.append(cache)
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
