"""Runs the flat model over packs in the measuring process. Neither Ray nor Arrow is imported.

Legend: N texts, L labels, W windows, H hidden size, V vocabulary, k answers a mask.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from models.boundary import Ask, DeviceFacts, Dtype, FlatModel, Framework, Head, Tokens
from models.load import load
from models.tokenizer import load_tokenizer
from pipeline.inference.batching import CPU_BATCH_TOKENS, GPU_BATCH_TOKENS, TokenBudget, budget_between, packs
from pipeline.ragged import offsets_of

Scores = npt.NDArray[np.float32]
BenchTask: TypeAlias = Literal["text-classification", "feature-extraction", "fill-mask"]
HEADS: Mapping[BenchTask, Head] = {
    "text-classification": "sequence-classification",
    "feature-extraction": "encoder",
    "fill-mask": "masked-lm",
}
VOCABULARY = 50_265
"""Of the random masked LM: RoBERTa's, which is most of the cost of its head."""
TOP_K = 5
"""Tokens that are asked for the mask of each text."""


@dataclass(frozen=True, eq=False)
class Fills:
    """The most probable tokens for the one mask of each text, best first: their ids and probabilities [N, k].

    As an array: the probability of every token [N, V], those below the k-th raised to it. Two answers then differ by no more
    than the models' probabilities do, also where two tokens are so close that either may be the k-th.
    """

    ids_Nk: npt.NDArray[Any]
    probs_Nk: Scores

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Scores:
        dense_NV = np.repeat(self.probs_Nk.min(axis=1, keepdims=True), VOCABULARY, axis=1)
        np.put_along_axis(dense_NV, self.ids_Nk.astype(np.int64), self.probs_Nk, axis=1)
        return dense_NV if dtype is None else dense_NV.astype(dtype)


Answer: TypeAlias = Scores | Fills
"""Of all texts: logits or probabilities of labels [N, L], vectors [N, H], or fills."""


def softmax(logits: Scores) -> Scores:
    """Over the last axis."""
    powers: Scores = np.exp(logits - logits.max(axis=-1, keepdims=True))
    scores: Scores = powers / powers.sum(axis=-1, keepdims=True)
    return scores


def scored(answers: Answer, task: BenchTask) -> Answer:
    """What variants are compared by: probabilities of labels, or mean vectors and fills as they are."""
    return softmax(np.asarray(answers)) if task == "text-classification" else answers


def budget(device: str, framework: Framework, facts: DeviceFacts) -> TokenBudget:
    """A replica's budget on such a device."""
    return budget_between(CPU_BATCH_TOKENS[framework] if device == "cpu" else GPU_BATCH_TOKENS, facts)


class FlatVariant:
    """The flat model over packs of near-equal lengths: ids in, logits [N, L] out, the means of all tokens' vectors [N, H], or
    the fills of each text's mask.

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
        self._mask_id = load_tokenizer(folder).mask_id
        if compiled is not None:
            from models.roberta_torch.flat import FlatRoberta

            assert isinstance(self.model, FlatRoberta), f"{framework} has nothing to compile"
            self.model.compile_parts(wanted=compiled)
            self.name += ", compiled" if self.model.compiled else ", not compiled"
        self.token_budget = budget(device, framework, self.model.try_out())

    def logits(self, ids: Sequence[Sequence[int]]) -> Answer:
        """Every text's logits, vector or fills, in order."""
        lengths_W = np.array([len(one) for one in ids], np.int64)
        found: dict[str, npt.NDArray[Any]] = {}
        for chosen in packs(lengths_W=lengths_W, budget=self.token_budget):
            cu_seqlens = offsets_of(lengths_W[chosen]).astype(np.int32)
            flat = np.concatenate([np.asarray(ids[number], np.int32) for number in chosen])
            tokens = Tokens(input_ids_T=flat, cu_seqlens=cu_seqlens)
            ask = Ask(positions_G=cu_seqlens[:-1])
            if self.head == "encoder":
                ask = Ask(positions_G=np.arange(len(flat), dtype=np.int32), reduce="mean")
            if self.head == "masked-lm":
                ask = Ask(positions_G=np.flatnonzero(flat == self._mask_id).astype(np.int32), top_k=TOP_K)
            for name, values in self.model(tokens, {self.head: ask})[self.head].items():
                found.setdefault(name, np.empty((len(ids), values.shape[1]), values.dtype))[chosen] = values
        assert found, "there were no texts"
        if self.head == "masked-lm":
            return Fills(found["ids"], found["probs"])
        (answers,) = found.values()
        return answers


def flat_variants(
    folder: str, *, framework: Framework, dtype: Dtype, device: str, task: BenchTask
) -> list[FlatVariant]:
    """What a replica runs; on a GPU in torch also without what is compiled, or with it in float32."""
    made = partial(FlatVariant, folder, framework=framework, dtype=dtype, device=device, task=task)
    if framework != "torch" or device == "cpu":
        return [made()]
    return [made(compiled=False), made(compiled=True)]
