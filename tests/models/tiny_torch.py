"""Tiny torch models of each head, with inputs and labels."""

from typing import Any

import numpy as np
import torch

import models.roberta_torch as roberta
from tests.models.tiny import padded_ids, tiny_config, token_ids

# Tiny tensors: a second thread only waits, for long where other processes share the cores.
torch.set_num_threads(1)

TOLERANCE = 2e-5  # float32, the same sums in another order


def build(kind: str = "Model", **overrides: Any) -> Any:
    torch.manual_seed(11)
    return getattr(roberta, f"RobertaPreLayerNorm{kind}")(tiny_config(**overrides)).eval()


def ids(*shape: int, seed: int = 0) -> Any:
    return torch.from_numpy(token_ids(*shape, seed=seed))


def inputs(kind: str) -> dict[str, Any]:
    padded, mask = (torch.from_numpy(array) for array in padded_ids())
    if kind == "ForMultipleChoice":
        padded, mask = (torch.stack((array, array.flip(0)), dim=1) for array in (padded, mask))
    return {"input_ids": padded, "attention_mask": mask}


def labels(kind: str) -> dict[str, Any]:
    if kind == "ForQuestionAnswering":
        return {"start_positions": torch.tensor([1, 2, 3]), "end_positions": torch.tensor([2, 3, 3])}
    if kind in ("ForSequenceClassification", "ForMultipleChoice"):
        return {"labels": torch.tensor([0, 1, 1])}
    high = 2 if kind == "ForTokenClassification" else 61
    return {"labels": torch.from_numpy(np.random.default_rng(4).integers(0, high, (3, 9)))}


def near(found: Any, expected: Any, tolerance: float = TOLERANCE) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)
