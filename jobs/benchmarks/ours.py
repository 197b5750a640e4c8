"""Runs the flat model over packs in the measuring process. Neither Ray nor Arrow is imported.

Legend: N texts, L labels, W windows, H hidden size.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from models.boundary import Ask, DeviceFacts, Dtype, FlatModel, Framework, Head, Tokens
from models.load import load
from pipeline.inference.batching import CPU_BATCH_TOKENS, GPU_BATCH_TOKENS, TokenBudget, budget_between, packs
from pipeline.ragged import offsets_of

Scores = npt.NDArray[np.float32]
BenchTask: TypeAlias = Literal["text-classification", "feature-extraction"]
HEADS: Mapping[BenchTask, Head] = {
    "text-classification": "sequence-classification",
    "feature-extraction": "encoder",
}


def softmax(logits: Scores) -> Scores:
    """Over the last axis."""
    powers: Scores = np.exp(logits - logits.max(axis=-1, keepdims=True))
    scores: Scores = powers / powers.sum(axis=-1, keepdims=True)
    return scores


def scored(answers: Scores, task: BenchTask) -> Scores:
    """What variants are compared by: probabilities of labels, or mean vectors as they are."""
    return softmax(answers) if task == "text-classification" else answers


def budget(device: str, framework: Framework, facts: DeviceFacts) -> TokenBudget:
    """A replica's budget on such a device."""
    return budget_between(CPU_BATCH_TOKENS[framework] if device == "cpu" else GPU_BATCH_TOKENS, facts)


class FlatVariant:
    """The flat model over packs of near-equal lengths: ids in, logits [N, L] out, or the means of all tokens' vectors [N, H].

    compiled: torch: whether norms and activations are compiled; None: as a replica has it.
    """

    def __init__(
        self,
        folder: str,
        *,
        framework: Framework,
        dtype: Dtype,
        device: str,
        task: BenchTask = "text-classification",
        compiled: bool | None = None,
    ) -> None:
        self.name = f"preln, {framework}"
        self.dtype = dtype
        self.framework = framework
        self.head = HEADS[task]
        self.model: FlatModel = load(
            checkpoint=folder, framework=framework, heads=[self.head], dtype=dtype, device=device
        )
        if compiled is not None:
            from models.roberta_torch.flat import FlatRoberta

            assert isinstance(self.model, FlatRoberta), f"{framework} has nothing to compile"
            self.model.compile_parts(wanted=compiled)
            self.name += ", compiled" if self.model.compiled else ", not compiled"
        self.token_budget = budget(device, framework, self.model.try_out())

    def logits(self, ids: Sequence[Sequence[int]]) -> Scores:
        """Every text's logits or vector, in order."""
        lengths_W = np.array([len(one) for one in ids], np.int64)
        found: Scores | None = None
        for chosen in packs(lengths_W=lengths_W, budget=self.token_budget):
            cu_seqlens = offsets_of(lengths_W[chosen]).astype(np.int32)
            flat = np.concatenate([np.asarray(ids[number], np.int32) for number in chosen])
            tokens = Tokens(input_ids_T=flat, cu_seqlens=cu_seqlens)
            ask = Ask(positions_G=cu_seqlens[:-1])
            if self.head == "encoder":
                ask = Ask(positions_G=np.arange(len(flat), dtype=np.int32), reduce="mean")
            (answers,) = self.model(tokens, {self.head: ask})[self.head].values()
            found = np.empty((len(ids), answers.shape[1]), np.float32) if found is None else found
            found[chosen] = answers
        assert found is not None, "there were no texts"
        return found


def flat_variants(
    folder: str, *, framework: Framework, dtype: Dtype, device: str, task: BenchTask
) -> list[FlatVariant]:
    """What a replica runs; on a GPU in torch also without what is compiled, or with it in float32."""
    made = partial(FlatVariant, folder, framework=framework, dtype=dtype, device=device, task=task)
    if framework != "torch" or device == "cpu":
        return [made()]
    return [made(compiled=False), made(compiled=True)]
