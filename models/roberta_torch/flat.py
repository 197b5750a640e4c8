"""Flat tokens and asks in, NumPy answers out: the encoder run without padding, behind models.boundary.

Linears run over [T, H]. Attention runs over equal-length groups through the seed classes' own attention, or, on a CUDA
device of compute capability 8 or more in half precision, over all sequences at once through varlen_attn.
Legend: B sequences, T packed tokens, G asked positions, H hidden size, N heads, D width of one head, A = N x D,
V vocabulary, L labels, K asked tokens, each once.
"""

from collections.abc import Mapping
from typing import cast

import numpy as np
import torch
from torch import Tensor

from models.boundary import Answers, Ask, Dtype, Head, IntArray, Tokens
from models.config import RobertaPreLayerNormConfig
from models.flat_tokens import check_asks, flat_positions, length_order, sequence_of_positions, token_order
from models.named_heads import NamedHead, encoder_config
from models.roberta_torch.attention import RobertaPreLayerNormSelfAttention
from models.roberta_torch.base import RobertaPreLayerNormModel
from models.roberta_torch.classification import (
    RobertaPreLayerNormForMultipleChoice,
    RobertaPreLayerNormForQuestionAnswering,
    RobertaPreLayerNormForSequenceClassification,
    RobertaPreLayerNormForTokenClassification,
)
from models.roberta_torch.encoder import RobertaPreLayerNormLayer
from models.roberta_torch.flat_heads import answer_head
from models.roberta_torch.flat_layers import FlatLayer
from models.roberta_torch.language import RobertaPreLayerNormForCausalLM, RobertaPreLayerNormForMaskedLM
from models.roberta_torch.pretrained import RobertaPreLayerNormPreTrainedModel
from models.roberta_torch.weights import dtype_of, fill, neutral_parameters, without_values

CLASSES: Mapping[Head, type[RobertaPreLayerNormPreTrainedModel]] = {
    "masked-lm": RobertaPreLayerNormForMaskedLM,
    "causal-lm": RobertaPreLayerNormForCausalLM,
    "sequence-classification": RobertaPreLayerNormForSequenceClassification,
    "multiple-choice": RobertaPreLayerNormForMultipleChoice,
    "token-classification": RobertaPreLayerNormForTokenClassification,
    "question-answering": RobertaPreLayerNormForQuestionAnswering,
}
VARLEN_CAPABILITY = (8, 0)  # Ampere


def load_flat(*, heads: Mapping[str, NamedHead], dtype: Dtype, device: str | None) -> "FlatRoberta":
    """The encoder once, with every head asked for, in this type on this device (None: a GPU if there is one)."""
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    base: RobertaPreLayerNormModel | None = None
    built: dict[str, RobertaPreLayerNormPreTrainedModel] = {}
    for name, named in sorted(heads.items(), key=lambda item: item[1].head == "encoder"):
        checkpoint = named.checkpoint
        model = built[name] = _build_head(checkpoint.config, named.head, base)
        parameters = neutral_parameters(model, bare=model.bare)
        absent = [tensor for tensor in model.expected_tensors() if parameters[tensor].is_meta]
        fill(model, tensors=checkpoint.stream(absent), bare=model.bare, dtype=dtype_of(dtype), device=place)
        model.tie_weights()
        model.eval().requires_grad_(requires_grad=False)
        base = cast("RobertaPreLayerNormModel", model.base_model)
    assert base is not None, "load() was given no head"
    kinds = {name: named.head for name, named in heads.items()}
    return FlatRoberta(config=encoder_config(heads), base=base, heads=built, kinds=kinds, device=place)


def _build_head(
    config: RobertaPreLayerNormConfig, head: Head, base: RobertaPreLayerNormModel | None
) -> RobertaPreLayerNormPreTrainedModel:
    """The head's class without values, around the encoder that an earlier head brought, if there is one."""
    with without_values():
        if head == "encoder":
            return base or RobertaPreLayerNormModel(config, add_pooling_layer=False)
        model = CLASSES[head](config)
    if base is not None:
        base.pooler = base.pooler or cast("RobertaPreLayerNormModel", model.base_model).pooler
        model.roberta_prelayernorm = base
        model.tie_weights()
    return model


class FlatRoberta:
    """One encoder and its heads; answers depend on a sequence alone, not on those packed beside it."""

    def __init__(
        self,
        *,
        config: RobertaPreLayerNormConfig,
        base: RobertaPreLayerNormModel,
        heads: Mapping[str, RobertaPreLayerNormPreTrainedModel],
        kinds: Mapping[str, Head],
        device: torch.device,
    ) -> None:
        self.config = config
        self.base = base
        self.layers = [
            FlatLayer(cast("RobertaPreLayerNormLayer", layer), last=number == len(base.encoder.layer))
            for number, layer in enumerate(base.encoder.layer, start=1)
        ]
        self.heads = heads
        self.kinds = kinds
        self.device = device
        self.varlen = (
            device.type == "cuda"
            and base.dtype in (torch.bfloat16, torch.float16)
            and config.position_embedding_type == "absolute"
            and torch.cuda.get_device_capability(device) >= VARLEN_CAPABILITY
        )

    @torch.inference_mode()
    def __call__(self, tokens: Tokens, asks: Mapping[str, Ask]) -> Mapping[str, Answers]:
        """One encoder pass for all heads asked; answers in the order of each `Ask.positions_G`.

        Raises ValueError for heads not loaded, positions or ids out of range, and sequences longer than the model.
        """
        check_asks(tokens=tokens, asks=asks, kinds=self.kinds, vocab_size=self.config.vocab_size)
        order_B, groups = length_order(lengths_B=tokens.lengths_B)
        order_T = token_order(tokens=tokens, order_B=order_B)
        place_T = np.empty_like(order_T)
        place_T[order_T] = np.arange(len(order_T), dtype=order_T.dtype)
        asked_K = np.unique(np.concatenate([place_T[ask.positions_G] for ask in asks.values()]))
        hidden_KH = self.encode(tokens, order_T, groups, asked_K)
        answers: dict[str, Answers] = {}
        for head, ask in asks.items():
            asked_GH = hidden_KH[self.to_device(np.searchsorted(asked_K, place_T[ask.positions_G]).astype(np.int32))]
            sequence_G = None
            if ask.reduce == "mean":
                sequence_G = self.to_device(sequence_of_positions(tokens=tokens, ask=ask))
            answers[head] = answer_head(
                model=self.heads[head], head=self.kinds[head], ask=ask, hidden_GH=asked_GH, sequence_G=sequence_G
            )
        return answers

    def encode(self, tokens: Tokens, order_T: IntArray, groups: list[tuple[int, int]], asked_K: IntArray) -> Tensor:
        """Final hidden states [K, H] of the asked ones among tokens in `order_T`: runs of (sequences, length) alike.

        What follows attention in the last layer is computed for those alone; its queries too, where each sequence is
        asked for its first token and nothing else.
        """
        positions_T = flat_positions(tokens=tokens, config=self.config)
        types_T = np.zeros_like(order_T) if tokens.token_type_ids_T is None else tokens.token_type_ids_T
        embeddings = self.base.embeddings
        words_TH = embeddings.word_embeddings(self.to_device(tokens.input_ids_T[order_T]))
        hidden_TH = embeddings.embed(words_TH, self.to_device(types_T[order_T]), self.to_device(positions_T[order_T]))
        attend: _GroupAttention | _VarlenAttention = _GroupAttention(groups, causal=tokens.causal)
        if self.varlen:
            attend = _VarlenAttention(groups, causal=tokens.causal, device=self.device)
        kept_K, firsts = self.to_device(asked_K), self.asks_firsts(tokens, groups, asked_K)
        for layer in self.layers[:-1]:
            hidden_TH = layer.feed(hidden_TH, attend(layer.attention, *layer.parts(hidden_TH)))
        for layer in self.layers[-1:]:
            if firsts:
                context_KA = attend(layer.attention, *layer.parts(hidden_TH, kept_K), firsts=True)
            else:
                context_KA = attend(layer.attention, *layer.parts(hidden_TH))[kept_K]
            hidden_TH = layer.feed(hidden_TH[kept_K], context_KA)
        final_KH: Tensor = self.base.LayerNorm(hidden_TH if self.layers else hidden_TH[kept_K])
        return final_KH

    def asks_firsts(self, tokens: Tokens, groups: list[tuple[int, int]], asked_K: IntArray) -> bool:
        """Whether the asked ones are the first token of every sequence, which may see all of it."""
        if tokens.causal or self.config.position_embedding_type != "absolute":
            return False
        lengths_B = np.repeat([length for _, length in groups], [count for count, _ in groups])
        return np.array_equal(asked_K, np.cumsum(lengths_B) - lengths_B)

    def to_device(self, values: IntArray) -> Tensor:
        """Indices on the model's device; nothing waits for the copy."""
        indices = torch.from_numpy(np.ascontiguousarray(values, dtype=np.int64))
        if self.device.type == "cuda":
            return indices.pin_memory().to(self.device, non_blocking=True)
        return indices


class _GroupAttention:
    """Attention of each run of equal-length sequences as one batch; the runs are views, nothing is padded or copied."""

    def __init__(self, groups: list[tuple[int, int]], *, causal: bool) -> None:
        self.groups = groups
        self.causal = causal

    def __call__(
        self,
        attention: RobertaPreLayerNormSelfAttention,
        query_TA: Tensor,
        key_TA: Tensor,
        value_TA: Tensor,
        *,
        firsts: bool = False,
    ) -> Tensor:
        """Contexts [T, A]; or [B, A] of each sequence's first token, if queries are given of those alone."""
        sizes = [count * length for count, length in self.groups]
        asked = [count for count, _ in self.groups] if firsts else sizes
        contexts = []
        for (count, _), *parts in zip(
            self.groups, query_TA.split(asked), key_TA.split(sizes), value_TA.split(sizes), strict=True
        ):
            heads = (attention.split_heads(part.unflatten(0, (count, -1))) for part in parts)
            context_BSA, _ = attention.attend(*heads, causal=self.causal)
            contexts.append(context_BSA.flatten(0, 1))
        return contexts[0] if len(contexts) == 1 else torch.cat(contexts)


class _VarlenAttention:
    """Attention of all sequences in one kernel, on CUDA in half precision."""

    def __init__(self, groups: list[tuple[int, int]], *, causal: bool, device: torch.device) -> None:
        lengths = np.repeat([length for _, length in groups], [count for count, _ in groups])
        self.longest = int(lengths.max())
        self.cu_seqlens = torch.from_numpy(np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)).to(device)
        self.cu_asked = torch.arange(len(lengths) + 1, dtype=torch.int32, device=device)
        self.window = (-1, 0) if causal else (-1, -1)

    def __call__(
        self,
        attention: RobertaPreLayerNormSelfAttention,
        query_TA: Tensor,
        key_TA: Tensor,
        value_TA: Tensor,
        *,
        firsts: bool = False,
    ) -> Tensor:
        """Contexts [T, A]; or [B, A] of each sequence's first token, if queries are given of those alone."""
        from torch.nn.attention.varlen import varlen_attn

        shape = (attention.heads, attention.head_size)
        context_TND = varlen_attn(
            query_TA.unflatten(-1, shape),
            key_TA.unflatten(-1, shape),
            value_TA.unflatten(-1, shape),
            self.cu_asked if firsts else self.cu_seqlens,
            self.cu_seqlens,
            1 if firsts else self.longest,
            self.longest,
            window_size=self.window,
            num_splits=1,  # the same sum whatever is packed beside a sequence
        )
        return cast("Tensor", context_TND).flatten(1)
