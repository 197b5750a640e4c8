"""Calls a tokenizer with texts, as the reference's tokenizers are called: arrays of ids, masks and offsets.

Legend: B texts, S tokens of the longest.
"""

import importlib
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from tokenizers import Encoding, Tokenizer

Texts = str | Sequence[str] | Sequence[Sequence[str]]
CONVERTERS = {"pt": ("torch", "from_numpy"), "tf": ("tensorflow", "constant"), "jax": ("jax.numpy", "asarray")}


def encode_texts(
    backend: Tokenizer,
    texts: Texts,
    pairs: Texts | None = None,
    *,
    pad_id: int,
    padding: bool | Literal["longest", "max_length"],
    limit: int | None,
    max_length: int | None,
    add_special_tokens: bool,
    words: bool,
    return_tensors: str | None,
) -> dict[str, Any]:
    """input_ids [B, S], attention_mask [B, S] (1 for tokens) and offset_mapping [B, S, 2] (characters of each text).

    limit: cut to so many tokens, of a pair first the longer. words: texts are lists of words. Raises ValueError.
    """
    batch = _batch(texts, words=words)
    second = None if pairs is None else _batch(pairs, words=words)
    if second is not None and len(second) != len(batch):
        raise ValueError(f"{len(batch)} texts and {len(second)} pairs were given; give as many of each")

    given = batch if second is None else list(zip(batch, second, strict=True))
    encodings = backend.encode_batch(given, is_pretokenized=words, add_special_tokens=add_special_tokens)
    kept = [_kept(encoding, limit) for encoding in encodings]
    rows: dict[str, list[Any]] = {
        "input_ids": [[e.ids[i] for i in places] for e, places in zip(encodings, kept, strict=True)],
        "attention_mask": [[1] * len(places) for places in kept],
        "offset_mapping": [[e.offsets[i] for i in places] for e, places in zip(encodings, kept, strict=True)],
    }
    if not padding:
        if return_tensors is not None:
            raise ValueError(f"return_tensors={return_tensors!r} needs padding=True: rows differ in length")
        return dict(rows)
    if padding == "max_length" and max_length is None:
        raise ValueError("padding='max_length' needs max_length=")
    widths = [len(row) for row in rows["input_ids"]]
    width = max([*widths, max_length or 0] if padding == "max_length" else widths, default=0)
    arrays = {
        "input_ids": _padded(rows["input_ids"], (len(batch), width), pad_id),
        "attention_mask": _padded(rows["attention_mask"], (len(batch), width), 0),
        "offset_mapping": _padded(rows["offset_mapping"], (len(batch), width, 2), 0),
    }
    converted = _converter(return_tensors)
    return {name: converted(array) for name, array in arrays.items()}


def _batch(texts: Texts, *, words: bool) -> list[Any]:
    if isinstance(texts, str):
        if words:
            raise ValueError("is_split_into_words=True wants lists of words, and a text was given")
        return [texts]
    batch = list(texts)
    return [batch] if words and batch and isinstance(batch[0], str) else batch


def _kept(encoding: Encoding, limit: int | None) -> list[int]:
    """The places of the tokens that stay: all special ones, and of the texts as many as there is room for, of the longer
    text fewer first, as the reference's `longest_first`."""
    owners = encoding.sequence_ids
    if limit is None or len(owners) <= limit:
        return list(range(len(owners)))
    lengths = [owners.count(0), owners.count(1)]
    room = limit - (len(owners) - sum(lengths))
    if room < 0:
        raise ValueError(f"max_length={limit} leaves no room for the special tokens; raise it by {-room}")
    while sum(lengths) > room:
        lengths[0 if lengths[0] > lengths[1] else 1] -= 1
    kept = []
    for place, owner in enumerate(owners):
        if owner is None or lengths[owner] > 0:
            kept.append(place)
            if owner is not None:
                lengths[owner] -= 1
    return kept


def _padded(rows: list[Any], shape: tuple[int, ...], value: int) -> Any:
    array = np.full(shape, value, np.int64)
    for number, row in enumerate(rows):
        if row:
            array[number, : len(row)] = row
    return array


def _converter(kind: str | None) -> Callable[[Any], Any]:
    if kind in (None, "np"):
        return lambda array: array
    if kind not in CONVERTERS:
        raise ValueError(f"return_tensors is '{kind}'; choose one of np, {', '.join(CONVERTERS)}")
    module, name = CONVERTERS[kind]
    converter: Callable[[Any], Any] = getattr(importlib.import_module(module), name)
    return converter
