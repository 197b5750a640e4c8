"""Measures how far a flat model is from the reference's committed answers, by head, framework, dtype and device.

`golden/` holds tiny random models and what transformers 4.57.6 answers with them in float32: for each head three sequences of
nine tokens.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.boundary import Ask, Dtype, FlatModel, Framework, Head, Tokens
from models.load import load

GOLDEN = Path(__file__).parent / "golden"
HEADS: tuple[Head, ...] = (
    "encoder",
    "masked-lm",
    "causal-lm",
    "sequence-classification",
    "token-classification",
    "question-answering",
)
TOLERANCES: dict[Dtype, float] = {"float32": 1e-4, "bfloat16": 0.08, "float16": 0.01}
"""Of the largest value: float32 in another order of sums; 8 and 11 bits of mantissa through three layers."""
Array = npt.NDArray[np.float32]


def distance(
    *,
    head: Head,
    framework: Framework,
    dtype: Dtype,
    device: str,
    prepared: Callable[[FlatModel], None] = lambda _: None,
) -> float:
    """The largest distance of an answer from the reference's, in parts of the largest value there. prepared: what to change
    about the loaded model before it is tried."""
    cases = np.load(GOLDEN / "cases.npz")
    ids_BS = cases[f"{head}/ids"]
    count, length = ids_BS.shape
    tokens = Tokens(
        ids_BS.reshape(-1), np.arange(0, ids_BS.size + 1, length).astype(np.int32), causal=head == "causal-lm"
    )
    model = load(checkpoint=str(GOLDEN / head), framework=framework, heads=[head], dtype=dtype, device=device)
    prepared(model)
    facts = model.try_out()
    assert facts["device"] == device.partition(":")[0]
    pairs: list[tuple[Array, Array]] = []
    everywhere = np.arange(ids_BS.size, dtype=np.int32)
    if head in ("masked-lm", "causal-lm"):
        logits_TV = cases[f"{head}/logits"].reshape(ids_BS.size, -1)
        log_probs_TV = logits_TV - np.log(np.exp(logits_TV).sum(-1, keepdims=True))
        gold_T = np.roll(tokens.input_ids_T, -1)
        found = model(tokens, {head: Ask(everywhere, gold_G=gold_T)})[head]["log_probs"]
        pairs.append((found, log_probs_TV[everywhere, gold_T]))
    else:
        asked = tokens.cu_seqlens[:-1] if head == "sequence-classification" else everywhere
        for name, found in model(tokens, {head: Ask(asked)})[head].items():
            expected = cases[f"{head}/{'last_hidden_state' if name == 'hidden' else name}"]
            pairs.append((found, expected.reshape(found.shape)))
    assert count == 3
    return max(float(np.abs(found - expected).max() / np.abs(expected).max()) for found, expected in pairs)
