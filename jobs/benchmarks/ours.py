"""Token ids in, logits out: the flat model over packs, in the process that measures. Neither Ray nor Arrow is imported.

Legend: N texts, L labels.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from models.boundary import Ask, Dtype, FlatModel, Framework, Head, Tokens
from models.load import load
from pipeline.batching import CPU_BATCH_TOKENS, GPU_BATCH_TOKENS, TokenBudget, packs

Scores = npt.NDArray[np.float32]
HEAD: Head = "sequence-classification"


def softmax(logits: Scores) -> Scores:
    """Over the last axis."""
    powers: Scores = np.exp(logits - logits.max(axis=-1, keepdims=True))
    scores: Scores = powers / powers.sum(axis=-1, keepdims=True)
    return scores


def budget(device: str, framework: Framework) -> TokenBudget:
    """A replica's budget on such a device."""
    if device == "cpu":
        return TokenBudget(tokens=CPU_BATCH_TOKENS[framework])
    first, most = GPU_BATCH_TOKENS
    return TokenBudget(tokens=first, most=most)


class FlatVariant:
    """The flat model over packs of near-equal lengths: ids in, logits [N, L] out."""

    def __init__(self, folder: str, *, framework: Framework, dtype: Dtype, device: str) -> None:
        self.name = f"preln, {framework}"
        self.dtype = dtype
        self.framework = framework
        self.model: FlatModel = load(checkpoint=folder, framework=framework, heads=[HEAD], dtype=dtype, device=device)
        self._budget = budget(device, framework)

    def logits(self, ids: Sequence[Sequence[int]]) -> Scores:
        """Every text's logits, in order."""
        lengths_W = np.array([len(one) for one in ids], np.int64)
        found: Scores | None = None
        for chosen in packs(lengths_W=lengths_W, budget=self._budget):
            cu_seqlens = np.concatenate([[0], np.cumsum(lengths_W[chosen])]).astype(np.int32)
            flat = np.concatenate([np.asarray(ids[number], np.int32) for number in chosen])
            tokens = Tokens(input_ids_T=flat, cu_seqlens=cu_seqlens)
            logits = self.model(tokens, {HEAD: Ask(positions_G=cu_seqlens[:-1])})[HEAD]["logits"]
            found = np.empty((len(ids), logits.shape[1]), np.float32) if found is None else found
            found[chosen] = logits
        assert found is not None, "there were no texts"
        return found
