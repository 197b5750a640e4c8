"""A trial pass through every head of a model that was just loaded, so that permanent faults show before any row.

On a GPU it also loads what is loaded at first use: attention kernels, cuBLAS, compiled code.

Legend: G asked positions.
"""

from collections.abc import Mapping

import numpy as np

from models.boundary import Answers, Ask, FlatModel, Head, Tokens
from models.config import RobertaPreLayerNormConfig
from models.errors import PrelnError
from models.flat_tokens import LM_HEADS

LENGTHS = (3, 1)
"""Tokens of the sequences that are tried: more than one, and one alone."""


def try_out(model: FlatModel, *, config: RobertaPreLayerNormConfig, kinds: Mapping[str, Head], dtype: str) -> None:
    """Run a small pack through every head. Raises PrelnError for answers that are not finite or of another shape than
    models.boundary defines, and whatever the model raises."""
    tokens, asks = trial_question(config=config, kinds=kinds)
    answers = model(tokens, asks)
    for name, ask in asks.items():
        check_answers(name, answers.get(name, {}), rows=_rows(tokens, ask), dtype=dtype)


def trial_question(*, config: RobertaPreLayerNormConfig, kinds: Mapping[str, Head]) -> tuple[Tokens, dict[str, Ask]]:
    """A pack that any model takes, and a question for each of its heads."""
    limit = max(config.max_position_embeddings - config.pad_token_id - 1, 1)
    lengths = [min(length, limit) for length in LENGTHS]
    known = [number for number in range(min(config.vocab_size, 8)) if number != config.pad_token_id] or [0]
    ids = np.resize(np.array(known, np.int32), sum(lengths))
    causal = all(kind == "causal-lm" for kind in kinds.values())
    tokens = Tokens(ids, np.cumsum([0, *lengths]).astype(np.int32), causal=causal)
    firsts = tokens.cu_seqlens[:-1]
    return tokens, {name: _ask(kind, firsts, known[0]) for name, kind in kinds.items()}


def _ask(kind: Head, firsts_G: np.ndarray, known: int) -> Ask:
    if kind == "masked-lm":
        return Ask(firsts_G, top_k=1)
    if kind in LM_HEADS:
        return Ask(firsts_G, gold_G=np.full(len(firsts_G), known, np.int32))
    return Ask(firsts_G)


def _rows(tokens: Tokens, ask: Ask) -> int:
    return len(tokens.cu_seqlens) - 1 if ask.reduce == "mean" else len(ask.positions_G)


def check_answers(name: str, answers: Answers, *, rows: int, dtype: str) -> None:
    """Refuse answers that are missing, of the wrong length, or not finite."""
    if not answers:
        raise PrelnError(f"{name}: the model gives no answer to a small pack")
    for key, values in answers.items():
        if len(values) != rows:
            raise PrelnError(f"{name}: {key} has {len(values)} rows for {rows} that were asked of a small pack")
        if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
            other = "bfloat16 or float32" if dtype == "float16" else "another checkpoint"
            raise PrelnError(
                f"{name}: {key} is not finite for a small pack in {dtype}: the weights, or this device's arithmetic, are "
                f"broken; try {other}"
            )
