"""Logits in, scores out, in float32; and labels ranked by score.

Legend: G rows, L labels, N items.
"""

from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.tasks.spans import grouped

Floats: TypeAlias = npt.NDArray[np.float32]
Function: TypeAlias = Literal["softmax", "sigmoid", "none"]

LABEL_SCORE = pa.struct([pa.field("label", pa.string()), pa.field("score", pa.float32())])


def scored(logits_GL: npt.NDArray[Any], *, function: Function) -> Floats:
    """Scores [G, L] float32 of logits: softmax over the labels (shifted by the maximum), sigmoid, or as they are."""
    logits_GL = logits_GL.astype(np.float32, copy=False)
    if function == "softmax":
        powers_GL = np.exp(logits_GL - logits_GL.max(axis=1, keepdims=True))
        return np.asarray(powers_GL / powers_GL.sum(axis=1, keepdims=True))
    if function == "sigmoid":
        powers_GL = np.exp(-np.abs(logits_GL))  # never overflows
        return np.where(logits_GL >= 0, 1 / (1 + powers_GL), powers_GL / (1 + powers_GL))
    return logits_GL


def ranked(scores_NL: Floats, *, labels: pa.Array, top_k: int, least_L: Floats | None = None) -> pa.ListArray:
    """The best `top_k` labels of each row, best first, equal ones in the order of their ids; with `least_L` only those
    that reach their label's least score."""
    items = len(scores_NL)
    order_Nk = np.argsort(-scores_NL, axis=1, kind="stable")[:, :top_k]
    best_Nk = np.take_along_axis(scores_NL, order_Nk, axis=1)
    kept_Nk = np.ones_like(best_Nk, bool) if least_L is None else best_Nk >= least_L[order_Nk]
    pairs = pa.StructArray.from_arrays(
        [labels.take(pa.array(order_Nk[kept_Nk])), pa.array(best_Nk[kept_Nk])], fields=list(LABEL_SCORE)
    )
    return grouped(pairs, counts_N=kept_Nk.sum(axis=1) if items else np.zeros(0, np.int64))
