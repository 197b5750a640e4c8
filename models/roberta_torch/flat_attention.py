"""Queries, keys and values of flat tokens in, what each token attended to out: no sequence is padded or copied.

Legend: B sequences of one length, S tokens of each, W keys read for it, T packed tokens, N heads, D width of one head,
A = N x D.
"""

import importlib.util
from collections.abc import Callable, Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor

from models.boundary import IntArray
from models.config import RobertaPreLayerNormConfig
from models.roberta_torch.attention import RobertaPreLayerNormSelfAttention

VARLEN_CAPABILITY = (8, 0)  # Ampere
VARLEN_WIDTH_STEP, VARLEN_WIDEST = 8, 256  # widths of a head that its kernel takes
VECTOR = 16  # keys that the CPU's kernel takes at once; what is left over it takes one by one, for long


class GroupAttention:
    """Attention of each run of equal-length sequences as one batch of views; rows after the last run attend to nothing.

    whole_vectors: keys are read in whole vectors, those that are a neighbour's weighted with zero: on a CPU half of the
    time of attention in bfloat16. Zero times a neighbour's nan is nan: use it where answers are looked at afterwards.
    """

    def __init__(self, groups: Sequence[tuple[int, int]], *, causal: bool, whole_vectors: bool) -> None:
        self.groups = groups
        self.causal = causal
        self.whole_vectors = whole_vectors and not causal
        self.biases: dict[tuple[int, int], Tensor] = {}

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
        shape = (attention.heads, attention.head_size)
        query_TND, key_TND, value_TND = (part.unflatten(-1, shape) for part in (query_TA, key_TA, value_TA))
        contexts = []
        asked, first = 0, 0
        for count, length in self.groups:
            stop = asked + count * (1 if firsts else length)
            start, width = self.window(first, count, length, len(key_TA))
            last = start + (count - 1) * length + width
            context_BSA, _ = attention.attend(
                query_TND[asked:stop].view(count, -1, *shape).transpose(1, 2),
                key_TND[start:last].unfold(0, width, length).transpose(2, 3),
                value_TND[start:last].unfold(0, width, length).transpose(2, 3),
                bias_B1SK=self.bias(first - start, length, width, query_TA),
                causal=self.causal,
            )
            contexts.append(context_BSA.flatten(0, 1))
            asked, first = stop, first + count * length
        if asked < len(query_TA):
            contexts.append(query_TA.new_zeros(len(query_TA) - asked, query_TA.shape[1]))
        return contexts[0] if len(contexts) == 1 else torch.cat(contexts)

    def window(self, first: int, count: int, length: int, tokens: int) -> tuple[int, int]:
        """(where the first sequence's keys begin, keys of each): whole vectors, reaching into what follows, or precedes."""
        width = -(-length // VECTOR) * VECTOR if self.whole_vectors else length
        if first + (count - 1) * length + width <= tokens:
            return first, width
        start = first + length - width
        return (start, width) if start >= 0 else (first, length)

    def bias(self, before: int, length: int, width: int, like: Tensor) -> Tensor | None:
        """[1, 1, 1, W]: -inf for the keys that are not the sequence's own; None if all are."""
        if width == length:
            return None
        if (before, length) not in self.biases:
            bias_W = like.new_full((width,), -torch.inf)
            bias_W[before : before + length] = 0.0
            self.biases[before, length] = bias_W[None, None, None]
        return self.biases[before, length]


def no_varlen(config: RobertaPreLayerNormConfig, *, dtype: torch.dtype, device: torch.device) -> str | None:
    """Why attention of all sequences in one kernel can't be had here; None where it can."""
    width = config.hidden_size // config.num_attention_heads
    if device.type != "cuda":
        return "not on CUDA"
    if dtype not in (torch.bfloat16, torch.float16):
        return "not in half precision"
    if config.position_embedding_type != "absolute":
        return f"{config.position_embedding_type} positions"
    if torch.version.hip is not None:
        return "ROCm"
    if torch.cuda.get_device_capability(device) < VARLEN_CAPABILITY:
        return "older than Ampere"
    if width % VARLEN_WIDTH_STEP or width > VARLEN_WIDEST:
        return f"heads of width {width}, which is no multiple of {VARLEN_WIDTH_STEP} up to {VARLEN_WIDEST}"
    if importlib.util.find_spec("torch.nn.attention.varlen") is None:
        return f"PyTorch {torch.__version__} has no varlen_attn"
    return None


class VarlenAttention:
    """Attention of all sequences in one kernel, on CUDA in half precision. to_device: int64 indices, without a wait."""

    def __init__(
        self, groups: Sequence[tuple[int, int]], *, causal: bool, to_device: Callable[[IntArray], Tensor]
    ) -> None:
        lengths = np.repeat([length for _, length in groups], [count for count, _ in groups])
        self.longest = int(lengths.max())
        self.cu_seqlens = to_device(np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)).to(torch.int32)
        self.cu_asked = torch.arange(len(lengths) + 1, dtype=torch.int32, device=self.cu_seqlens.device)
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
