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

from models.boundary import Answers, Ask, DeviceFacts, Done, Dtype, Head, IntArray, Pending, Tokens
from models.config import RobertaPreLayerNormConfig
from models.families import every_family
from models.flat_tokens import (
    asked_once,
    check_asks,
    flat_positions,
    is_all,
    length_order,
    segments_of,
    token_order,
)
from models.named_heads import NamedHead, encoder_config
from models.roberta_torch.base import RobertaPreLayerNormModel
from models.roberta_torch.causal_lm import RobertaPreLayerNormForCausalLM
from models.roberta_torch.classification import (
    RobertaPreLayerNormForMultipleChoice,
    RobertaPreLayerNormForQuestionAnswering,
    RobertaPreLayerNormForSequenceClassification,
    RobertaPreLayerNormForTokenClassification,
)
from models.roberta_torch.device import claim_device, device_facts
from models.roberta_torch.encoder import RobertaPreLayerNormLayer
from models.roberta_torch.flat_attention import GroupAttention, VarlenAttention, no_varlen
from models.roberta_torch.flat_copies import Fetching, fetched, indices_on
from models.roberta_torch.flat_heads import answer_head
from models.roberta_torch.flat_layers import MKL_TOKENS, FlatLayer, mkl_is_faster
from models.roberta_torch.flat_parts import TokenParts, compiled_parts
from models.roberta_torch.masked_lm import RobertaPreLayerNormForMaskedLM
from models.roberta_torch.pretrained import RobertaPreLayerNormPreTrainedModel
from models.roberta_torch.weights import dtype_of, fill, neutral_parameters, without_values
from models.trial import try_out

CLASSES: Mapping[Head, type[RobertaPreLayerNormPreTrainedModel]] = {
    "masked-lm": RobertaPreLayerNormForMaskedLM,
    "causal-lm": RobertaPreLayerNormForCausalLM,
    "sequence-classification": RobertaPreLayerNormForSequenceClassification,
    "multiple-choice": RobertaPreLayerNormForMultipleChoice,
    "token-classification": RobertaPreLayerNormForTokenClassification,
    "question-answering": RobertaPreLayerNormForQuestionAnswering,
}
ROWS_STEP = 32
"""oneDNN writes its bfloat16 code anew for every number of rows, for a tenth of a pass' time: a few numbers will do."""
ROWS_FROM = 512
"""Passes of fewer tokens are rare, and a step is a large part of them."""


def load_flat(*, heads: Mapping[str, NamedHead], dtype: Dtype, device: str | None) -> "FlatRoberta":
    """The encoder once, with every head asked for, in this type on this device (None: a GPU if there is one)."""
    place = claim_device(device)
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
    with without_values(), every_family():
        if head == "encoder":
            return base or RobertaPreLayerNormModel(config, add_pooling_layer=False)
        model = CLASSES[head](config)
    if base is not None:
        base.pooler = base.pooler or cast("RobertaPreLayerNormModel", model.base_model).pooler
        model.roberta_prelayernorm = base
        model.tie_weights()
    return model


class FlatRoberta:
    """One encoder and its heads; answers depend on a sequence alone, not on those packed beside it.

    compiled: whether norms and activations are compiled; None: on CUDA in half precision.
    """

    def __init__(
        self,
        *,
        config: RobertaPreLayerNormConfig,
        base: RobertaPreLayerNormModel,
        heads: Mapping[str, RobertaPreLayerNormPreTrainedModel],
        kinds: Mapping[str, Head],
        device: torch.device,
        compiled: bool | None = None,
    ) -> None:
        self.config = config
        self.base = base
        layers = [cast("RobertaPreLayerNormLayer", layer) for layer in base.encoder.layer]
        norms_after = [*(layer.attention.LayerNorm for layer in layers[1:]), base.LayerNorm]
        self.norm_before = layers[0].attention.LayerNorm.enter if layers else base.LayerNorm
        self.layers = [
            FlatLayer(layer, norm_after=norm, last=layer is layers[-1])
            for layer, norm in zip(layers, norms_after, strict=False)  # without layers there is one norm
        ]
        self.heads = heads
        self.kinds = kinds
        self.device = device
        absolute = config.position_embedding_type == "absolute"
        half_on_cuda = device.type == "cuda" and base.dtype in (torch.bfloat16, torch.float16)
        self.no_varlen = no_varlen(config, dtype=base.dtype, device=device)
        self.varlen = self.no_varlen is None
        self.whole_vectors = device.type == "cpu" and absolute
        packed = any(layer.widen.packed is not None for layer in self.layers)
        self.steps = packed and base.dtype == torch.bfloat16
        self.compiled: TokenParts | None = None
        self.compile_parts(wanted=half_on_cuda if compiled is None else compiled)

    def compile_parts(self, *, wanted: bool) -> None:
        """Compile norms and activations, where PyTorch can; or don't use what was compiled."""
        self.compiled = None
        if wanted and self.layers:
            layer = self.layers[0]
            self.compiled = compiled_parts(
                activation=layer.activation, norm=layer.norm_before_widening, bias_I=layer.widen.bias_O
            )

    def __call__(self, tokens: Tokens, asks: Mapping[str, Ask]) -> Mapping[str, Answers]:
        """One encoder pass for all heads asked; answers in the order of each `Ask.positions_G`.

        Raises ValueError for heads not loaded, positions or ids out of range, and sequences longer than the model.
        """
        return self.submit(tokens, asks).result()

    @torch.inference_mode()
    def submit(self, tokens: Tokens, asks: Mapping[str, Ask]) -> Pending:
        """The same without a wait for the device: on CUDA the answers are still on their way."""
        check_asks(tokens=tokens, asks=asks, kinds=self.kinds, vocab_size=self.config.vocab_size)
        order_B, groups = length_order(lengths_B=tokens.lengths_B)
        order_T = token_order(tokens=tokens, order_B=order_B)
        place_T = np.empty_like(order_T)
        place_T[order_T] = np.arange(len(order_T), dtype=order_T.dtype)
        places = {head: place_T[ask.positions_G] for head, ask in asks.items()}
        asked_K, ranks = asked_once(places=places, tokens=len(order_T))
        hidden_KH = self.encode(tokens, order_T, groups, asked_K)
        answers: dict[str, dict[str, Tensor]] = {}
        for head, ask in asks.items():
            means = segments_of(tokens=tokens, ask=ask) if ask.reduce == "mean" else None
            rank_G = ranks[head] if means is None or means.order_G is None else ranks[head][means.order_G]
            asked_GH = hidden_KH if is_all(rank_G, len(asked_K)) else hidden_KH[self.to_device(rank_G)]
            answers[head] = answer_head(
                model=self.heads[head],
                head=self.kinds[head],
                ask=ask,
                hidden_GH=asked_GH,
                counts_B=None if means is None else self.to_device(means.counts_B),
                to_device=self.to_device,
            )
        return self.to_host(answers)

    def to_host(self, answers: Mapping[str, Mapping[str, Tensor]]) -> Pending:
        """The only way back from the device, and the only wait."""
        if self.device.type == "cuda":
            return Fetching(answers, device=self.device)
        return Done(fetched(answers))

    def try_out(self) -> DeviceFacts:
        """A small pack answered by every head, and what this runs on. Where PyTorch's kernel for all sequences fails, those
        of equal lengths are batched from now on."""
        kinds, dtype = self.kinds, str(self.base.dtype).removeprefix("torch.")
        try:
            try_out(self, config=self.config, kinds=kinds, dtype=dtype)
        except Exception as error:  # an older PyTorch knows other arguments, a driver other reasons
            if not self.varlen:
                raise
            self.varlen, self.no_varlen = False, f"varlen_attn failed: {' '.join(str(error).split())[:200]}"
            try_out(self, config=self.config, kinds=kinds, dtype=dtype)
        attention = "varlen" if self.varlen else f"groups of equal lengths ({self.no_varlen})"
        prepacked = any(layer.widen.packed is not None for layer in self.layers)
        compiled = self.compiled is not None
        facts = {**device_facts(self.device), "attention": attention, "compiled": compiled, "prepacked": prepacked}
        if self.device.type == "cpu" and mkl_is_faster():
            facts["best_tokens"] = MKL_TOKENS
        return facts

    def probe(self) -> None:
        """Compute something on the device, and wait for it."""
        torch.ones(8, device=self.device).sum().item()

    def encode(self, tokens: Tokens, order_T: IntArray, groups: list[tuple[int, int]], asked_K: IntArray) -> Tensor:
        """Final hidden states [K, H] of the asked ones among tokens in `order_T`: runs of (sequences, length) alike.

        What follows attention in the last layer is computed for those alone; its queries too, where each sequence is
        asked for its first token and nothing else.
        """
        firsts, asked = self.asks_firsts(tokens, groups, asked_K), len(asked_K)
        if self.steps and len(order_T) >= ROWS_FROM:
            order_T, asked_K = stepped(order_T), stepped(asked_K)
        positions_T = flat_positions(tokens=tokens, config=self.config)
        types_T = np.zeros_like(order_T) if tokens.token_type_ids_T is None else tokens.token_type_ids_T
        embeddings = self.base.embeddings
        words_TH = embeddings.word_embeddings(self.to_device(tokens.input_ids_T[order_T]))
        hidden_TH = embeddings.embed(words_TH, self.to_device(types_T[order_T]), self.to_device(positions_T[order_T]))
        # Where everything is asked nothing is gathered.
        kept_K = None if is_all(asked_K, len(order_T)) else self.to_device(asked_K)
        if self.varlen:
            varlen = VarlenAttention(groups, causal=tokens.causal, to_device=self.to_device)
            return self.through_layers(hidden_TH, varlen, kept_K, firsts=firsts)
        for whole_vectors in (True, False) if self.whole_vectors else (False,):
            attend = GroupAttention(groups, causal=tokens.causal, whole_vectors=whole_vectors)
            final_KH = self.through_layers(hidden_TH, attend, kept_K, firsts=firsts)
            # Once more where a nan may be a neighbour's.
            if not attend.whole_vectors or not final_KH.isnan().any():
                break
        return final_KH[:asked]

    def through_layers(
        self, hidden_TH: Tensor, attend: GroupAttention | VarlenAttention, kept_K: Tensor | None, *, firsts: bool
    ) -> Tensor:
        """[K, H] after the last LayerNorm, from embedded tokens [T, H]; kept_K: which to keep, all where it is None."""
        normed_TH: Tensor = self.norm_before(hidden_TH)
        for layer in self.layers[:-1]:
            context_TA = attend(layer.attention, *layer.parts(normed_TH))
            hidden_TH, normed_TH = layer.feed(hidden_TH, context_TA, self.compiled)
        if not self.layers:
            return normed_TH if kept_K is None else normed_TH[kept_K]
        layer = self.layers[-1]
        if firsts:
            context_KA = attend(layer.attention, *layer.parts(normed_TH, kept_K), firsts=True)
        else:
            context_KA = attend(layer.attention, *layer.parts(normed_TH))
            context_KA = context_KA if kept_K is None else context_KA[kept_K]
        return layer.feed(hidden_TH if kept_K is None else hidden_TH[kept_K], context_KA, self.compiled)[1]

    def asks_firsts(self, tokens: Tokens, groups: list[tuple[int, int]], asked_K: IntArray) -> bool:
        """Whether the asked ones are the first token of every sequence, which may see all of it."""
        if tokens.causal or self.config.position_embedding_type != "absolute":
            return False
        lengths_B = np.repeat([length for _, length in groups], [count for count, _ in groups])
        return np.array_equal(asked_K, np.cumsum(lengths_B) - lengths_B)

    def to_device(self, values: IntArray) -> Tensor:
        """Indices on the model's device; nothing waits for the copy."""
        return indices_on(self.device, values)


def stepped(indices: IntArray) -> IntArray:
    """Indices and, up to the next multiple of ROWS_STEP, the first one again, whose answers nobody reads."""
    return np.concatenate([indices, np.repeat(indices[:1], -len(indices) % ROWS_STEP)])
