"""Hidden states in, hidden states with what each token attended to out: self- and cross-attention, pre-LayerNorm.

Through scaled_dot_product_attention, unless attention maps, head masks or relative positions are asked for.
Legend: B batch, S queries, K keys, H hidden size, N heads, D width of one head, A = N x D, E encoder tokens.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.config import RobertaPreLayerNormConfig
from models.roberta_torch.norms import SubLayerNorm


class RobertaPreLayerNormSelfAttention(nn.Module):
    """Queries, keys and values, and the weighted sum. Cross-attention has keys and values of other states."""

    def __init__(self, config: RobertaPreLayerNormConfig, *, heads: int, position_embedding_type: str) -> None:
        super().__init__()
        self.heads = heads
        self.head_size = config.head_size
        self.position_embedding_type = position_embedding_type
        self.max_position_embeddings = config.max_position_embeddings
        self.dropout_rate = config.attention_probs_dropout_prob
        self.query = nn.Linear(config.hidden_size, heads * self.head_size)
        self.key = nn.Linear(config.hidden_size, heads * self.head_size)
        self.value = nn.Linear(config.hidden_size, heads * self.head_size)
        if position_embedding_type != "absolute":
            self.distance_embedding = nn.Embedding(2 * config.max_position_embeddings - 1, self.head_size)

    def split_heads(self, projected_BSA: Tensor) -> Tensor:
        """[B, S, A] -> [B, N, S, D]."""
        return projected_BSA.unflatten(-1, (self.heads, self.head_size)).transpose(1, 2)

    def attend(
        self,
        query_BNSD: Tensor,
        key_BNKD: Tensor,
        value_BNKD: Tensor,
        *,
        bias_B1SK: Tensor | None = None,
        head_mask_N11: Tensor | None = None,
        causal: bool = False,
        output_attentions: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Context [B, S, A], and the probabilities [B, N, S, K] that multiplied the values if they are asked for.

        bias_B1SK is added to the scores. causal: a token sees those up to itself, without a bias (S equals K).
        """
        dropout = self.dropout_rate if self.training else 0.0
        absolute = self.position_embedding_type == "absolute"
        if bias_B1SK is not None and bias_B1SK.dtype != query_BNSD.dtype:
            # Under autocast the minimum of the wider type would become -inf, and a row that sees nothing nan.
            bias_B1SK = bias_B1SK.clamp(min=torch.finfo(query_BNSD.dtype).min).to(query_BNSD.dtype)
        if absolute and head_mask_N11 is None and not output_attentions:
            context_BNSD = functional.scaled_dot_product_attention(
                query_BNSD, key_BNKD, value_BNKD, attn_mask=bias_B1SK, dropout_p=dropout, is_causal=causal
            )
            return context_BNSD.transpose(1, 2).flatten(2), None
        scores_BNSK = query_BNSD @ key_BNKD.transpose(-1, -2)
        if not absolute:
            scores_BNSK = scores_BNSK + self.relative_scores(query_BNSD, key_BNKD)
        scores_BNSK = scores_BNSK / math.sqrt(self.head_size)
        if causal:
            queries, keys = query_BNSD.shape[2], key_BNKD.shape[2]
            bias_B1SK = attention_bias(mask=None, queries=queries, keys=keys, causal=True, like=query_BNSD)
        if bias_B1SK is not None:
            scores_BNSK = scores_BNSK + bias_B1SK
        probs_BNSK = functional.dropout(torch.softmax(scores_BNSK, dim=-1), p=dropout)
        if head_mask_N11 is not None:
            probs_BNSK = probs_BNSK * head_mask_N11
        context_BNSD = probs_BNSK @ value_BNKD
        return context_BNSD.transpose(1, 2).flatten(2), probs_BNSK if output_attentions else None

    def relative_scores(self, query_BNSD: Tensor, key_BNKD: Tensor) -> Tensor:
        """q·E, and k·E for relative_key_query, with E the embedding of the distance between query and key.

        The queries are the last S of the K tokens. transformers gives every query the last one's distances when there is
        a cache, so that its cached and uncached logits differ.
        """
        queries, keys = query_BNSD.shape[2], key_BNKD.shape[2]
        place_S = torch.arange(keys - queries, keys, device=query_BNSD.device)
        place_K = torch.arange(keys, device=query_BNSD.device)
        distance_SK = place_S[:, None] - place_K[None, :] + self.max_position_embeddings - 1
        distance_SKD = self.distance_embedding(distance_SK)
        scores_BNSK = torch.einsum("bnsd,skd->bnsk", query_BNSD, distance_SKD)
        if self.position_embedding_type == "relative_key_query":
            scores_BNSK = scores_BNSK + torch.einsum("bnkd,skd->bnsk", key_BNKD, distance_SKD)
        return scores_BNSK


class RobertaPreLayerNormSelfOutput(nn.Module):
    """The output projection and its dropout."""

    def __init__(self, config: RobertaPreLayerNormConfig, *, heads: int) -> None:
        super().__init__()
        self.dense = nn.Linear(heads * config.head_size, config.hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, context_BSA: Tensor) -> Tensor:
        """[B, S, A] -> [B, S, H]."""
        hidden_BSH: Tensor = self.dropout(self.dense(context_BSA))
        return hidden_BSH


class RobertaPreLayerNormAttention(nn.Module):
    """LayerNorm, attention, projection, residual: h + Wo·Attn(LN(h))."""

    def __init__(self, config: RobertaPreLayerNormConfig, *, layer: int = 0, cross: bool = False) -> None:
        super().__init__()
        heads = config.num_attention_heads - (0 if cross else len(config.pruned_heads.get(layer, ())))
        positions = "absolute" if cross else config.position_embedding_type
        attention = RobertaPreLayerNormSelfAttention(config, heads=heads, position_embedding_type=positions)
        # The file format's name for it.
        self.add_module("self", attention)
        self.output = RobertaPreLayerNormSelfOutput(config, heads=heads)
        self.LayerNorm = SubLayerNorm(config)

    @property
    def inner(self) -> RobertaPreLayerNormSelfAttention:
        """The module named `self` in files."""
        attention = self._modules["self"]
        assert isinstance(attention, RobertaPreLayerNormSelfAttention)
        return attention

    def forward(
        self,
        hidden_BSH: Tensor,
        *,
        bias_B1SK: Tensor | None = None,
        head_mask_N11: Tensor | None = None,
        other_BEH: Tensor | None = None,
        known_cross: tuple[Tensor, Tensor] | None = None,
        past: tuple[Tensor, Tensor] | None = None,
        output_attentions: bool = False,
    ) -> tuple[Tensor, Tensor | None, tuple[Tensor, Tensor]]:
        """(hidden [B, S, H], probabilities or None, (keys, values) of past and present).

        other_BEH: cross-attention's encoder states, not normalised. known_cross: their keys and values from a cache,
        taken instead. past: keys and values of earlier tokens.
        """
        attention = self.inner
        normed_BSH = self.LayerNorm.enter(hidden_BSH)
        query_BNSD = attention.split_heads(attention.query(normed_BSH))
        if known_cross is not None:
            key_BNKD, value_BNKD = known_cross
        else:
            source = normed_BSH if other_BEH is None else other_BEH
            key_BNKD = attention.split_heads(attention.key(source))
            value_BNKD = attention.split_heads(attention.value(source))
            if past is not None:
                key_BNKD = torch.cat((past[0], key_BNKD), dim=2)
                value_BNKD = torch.cat((past[1], value_BNKD), dim=2)
        context_BSA, probs_BNSK = attention.attend(
            query_BNSD,
            key_BNKD,
            value_BNKD,
            bias_B1SK=bias_B1SK,
            head_mask_N11=head_mask_N11,
            output_attentions=output_attentions,
        )
        hidden_BSH = self.LayerNorm.leave(hidden_BSH + self.output(context_BSA))
        return hidden_BSH, probs_BNSK, (key_BNKD, value_BNKD)

    def prune_heads(self, kept: list[int]) -> None:
        """Keep only these of the present heads (indices into them), cutting the weights."""
        attention = self.inner
        width = attention.head_size
        rows_A = torch.tensor([head * width + i for head in kept for i in range(width)], dtype=torch.long)
        for name in ("query", "key", "value"):
            setattr(attention, name, _cut_linear(getattr(attention, name), rows_A, axis=0))
        self.output.dense = _cut_linear(self.output.dense, rows_A, axis=1)
        attention.heads = len(kept)


def _cut_linear(linear: nn.Linear, kept: Tensor, *, axis: int) -> nn.Linear:
    kept = kept.to(linear.weight.device)
    weight = linear.weight.detach().index_select(axis, kept)
    bias = linear.bias.detach() if axis else linear.bias.detach().index_select(0, kept)
    cut = nn.Linear(weight.shape[1], weight.shape[0], device=weight.device, dtype=weight.dtype)
    cut.weight = nn.Parameter(weight.clone(), requires_grad=linear.weight.requires_grad)
    cut.bias = nn.Parameter(bias.clone(), requires_grad=linear.bias.requires_grad)
    return cut


def causal_mask(queries: int, keys: int, like: Tensor) -> Tensor:
    """[S, K], 1 where a key is the query or before it, else 0; queries are the last S of the K tokens."""
    place_S = torch.arange(keys - queries, keys, device=like.device)
    place_K = torch.arange(keys, device=like.device)
    return (place_K[None, :] <= place_S[:, None]).to(like.dtype)


def attention_bias(*, mask: Tensor | None, queries: int, keys: int, causal: bool, like: Tensor) -> Tensor | None:
    """What is added to the scores, [B, 1, S or 1, K], or None for nothing.

    A [B, K] mask is multiplied by the causal one before the one multiplication by the type's minimum, so that nothing
    overflows; a [B, S, K] mask is used as it is, in a decoder too.
    """
    if mask is None and not causal:
        return None
    if mask is None:
        seen = causal_mask(queries, keys, like)[None, None]
    elif mask.dim() == 3:
        seen = mask.to(like.dtype)[:, None]
    else:
        seen = mask.to(like.dtype)[:, None, None]
        if causal:
            seen = seen * causal_mask(queries, keys, like)
    return (1.0 - seen) * torch.finfo(like.dtype).min
