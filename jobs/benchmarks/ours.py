"""Runs the flat model over packs in the measuring process. Neither Ray nor Arrow is imported.

Legend: N texts, L labels, W windows.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from models.boundary import Ask, DeviceFacts, Dtype, FlatModel, Framework, Head, Tokens
from models.load import load
from pipeline.inference.batching import CPU_BATCH_TOKENS, GPU_BATCH_TOKENS, TokenBudget, budget_between, packs
from pipeline.ragged import offsets_of

Scores = npt.NDArray[np.float32]
HEAD: Head = "sequence-classification"


def softmax(logits: Scores) -> Scores:
    """Over the last axis."""
    powers: Scores = np.exp(logits - logits.max(axis=-1, keepdims=True))
    scores: Scores = powers / powers.sum(axis=-1, keepdims=True)
    return scores


def budget(device: str, framework: Framework, facts: DeviceFacts) -> TokenBudget:
    """A replica's budget on such a device."""
    return budget_between(CPU_BATCH_TOKENS[framework] if device == "cpu" else GPU_BATCH_TOKENS, facts)


class FlatVariant:
    """The flat model over packs of near-equal lengths: ids in, logits [N, L] out.

    compiled: torch: whether norms and activations are compiled; None: as a replica has it.
    """

    def __init__(
        self, folder: str, *, framework: Framework, dtype: Dtype, device: str, compiled: bool | None = None
    ) -> None:
        self.name = f"preln, {framework}"
        self.dtype = dtype
        self.framework = framework
        self.model: FlatModel = load(checkpoint=folder, framework=framework, heads=[HEAD], dtype=dtype, device=device)
        if compiled is not None:
            from models.roberta_torch.flat import FlatRoberta

            assert isinstance(self.model, FlatRoberta), f"{framework} has nothing to compile"
            self.model.compile_parts(wanted=compiled)
            self.name += ", compiled" if self.model.compiled else ", not compiled"
        self.token_budget = budget(device, framework, self.model.try_out())

    def logits(self, ids: Sequence[Sequence[int]]) -> Scores:
        """Every text's logits, in order."""
        lengths_W = np.array([len(one) for one in ids], np.int64)
        found: Scores | None = None
        for chosen in packs(lengths_W=lengths_W, budget=self.token_budget):
            cu_seqlens = offsets_of(lengths_W[chosen]).astype(np.int32)
            flat = np.concatenate([np.asarray(ids[number], np.int32) for number in chosen])
            tokens = Tokens(input_ids_T=flat, cu_seqlens=cu_seqlens)
            logits = self.model(tokens, {HEAD: Ask(positions_G=cu_seqlens[:-1])})[HEAD]["logits"]
            found = np.empty((len(ids), logits.shape[1]), np.float32) if found is None else found
            found[chosen] = logits
        assert found is not None, "there were no texts"
        return found


def flat_variants(folder: str, *, framework: Framework, dtype: Dtype, device: str) -> list[FlatVariant]:
    """What a replica runs; on a GPU in torch also without what is compiled, or with it in float32."""
    made = partial(FlatVariant, folder, framework=framework, dtype=dtype, device=device)
    if framework != "torch" or device == "cpu":
        return [made()]
    return [made(compiled=False), made(compiled=True)]
