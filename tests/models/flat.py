"""A head in; its padded class, its flat model, a pack of sequences and what the class answers to it out."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from models.boundary import Ask, Head, Tokens
from models.families import every_family
from models.tensors import ARCHITECTURES
from tests.models.frameworks import CLASSES, Array, Classes

HALF_TOLERANCE = 0.05  # bfloat16 has 8 bits of mantissa
LENGTHS = (5, 9, 2, 9, 30, 5, 1)


def saved(framework: Classes, head: Head, url: object, **overrides: Any) -> Any:
    """A tiny model of a head, also in a checkpoint folder."""
    with every_family():
        model = framework.build(ARCHITECTURES[head].removeprefix("RobertaPreLayerNorm"), **overrides)
    model.save_pretrained(str(url))
    return model


def both(framework: Classes, head: Head, **overrides: Any) -> tuple[Any, Any]:
    """(the padded class, the flat model of its checkpoint), for all tests that do not change them."""
    return _both(framework.name, head, tuple(sorted(overrides.items())))


@functools.cache
def _both(name: str, head: Head, overrides: tuple[tuple[str, Any], ...]) -> tuple[Any, Any]:
    url = f"memory://flat/{name}-{head}-{'-'.join(f'{key}={value}' for key, value in overrides)}"
    model = saved(CLASSES[name], head, url, **dict(overrides))
    return model, CLASSES[name].flat(url, head)


def pack(lengths: Sequence[int] = LENGTHS, *, causal: bool = False) -> Tokens:
    """Random sequences, `<pad>` typed in the text among them."""
    draw = np.random.default_rng(3)
    ids = draw.integers(0, 61, sum(lengths)).astype(np.int32)
    ids[7] = ids[20] = 1
    types = draw.integers(0, 2, sum(lengths)).astype(np.int32)
    return Tokens(ids, np.concatenate(([0], np.cumsum(lengths))).astype(np.int32), types, causal)


def rows(tokens: Tokens) -> list[slice]:
    """Each sequence's tokens."""
    return [slice(a, b) for a, b in zip(tokens.cu_seqlens[:-1], tokens.cu_seqlens[1:], strict=True)]


def everywhere(tokens: Tokens) -> npt.NDArray[np.int32]:
    """Every position, in any order."""
    return np.random.default_rng(5).permutation(len(tokens.input_ids_T)).astype(np.int32)


def hidden(flat: Any, tokens: Tokens, asked: npt.NDArray[np.int32] | None = None) -> Array:
    """The flat encoder's states at some positions, or at all."""
    positions = np.arange(len(tokens.input_ids_T), dtype=np.int32) if asked is None else asked
    found: Array = flat(tokens, {"encoder": Ask(positions)})["encoder"]["hidden"]
    assert found.dtype == np.float32
    return found


def seen_by(framework: Classes, model: Any, tokens: Tokens) -> dict[str, Array]:
    """What the padded class answers to the sequences as rows under a mask, token axes flattened to the pack's."""
    assert tokens.token_type_ids_T is not None
    real = np.arange(tokens.lengths_B.max())[None] < tokens.lengths_B[:, None]
    ids, types = np.ones(real.shape, np.int64), np.zeros(real.shape, np.int64)
    ids[real], types[real] = tokens.input_ids_T, tokens.token_type_ids_T
    batch = {"input_ids": ids, "token_type_ids": types, "attention_mask": real.astype(np.int64)}
    if model.head == "multiple-choice":
        batch = {name: array[:, None] for name, array in batch.items()}
    named = {"return_dict": True} if model.config.torchscript else {}
    answers = framework.program(model)(**batch, **named)
    arrays = {name: np.asarray(value) for name, value in answers.items() if name != "past_key_values"}
    return {name: array[real] if array.shape[:2] == real.shape else array for name, array in arrays.items()}
