"""Converts SentencePiece's model (sentencepiece.bpe.model) to the tokenizer.json that the reference makes from it.

The file is a protobuf message of which three fields are read: the pieces, the kind of model and the normaliser's table.
Source: sentencepiece_model.proto; the reference's converters for XLM-RoBERTa and CamemBERT.
"""

import base64
import json
import struct
from collections.abc import Iterator
from typing import Any

from tokenizers import Tokenizer

from models.rust_panic import panics_caught

PIECES, TRAINER, NORMALIZER = 1, 2, 3  # of ModelProto
PIECE, SCORE = 1, 2  # of SentencePiece
MODEL_TYPE, UNIGRAM = 3, 1  # of TrainerSpec
CHARSMAP = 2  # of NormalizerSpec

# How the reference assigns ids: the pieces that come first, and how many of the model's own they replace.
LAYOUTS: dict[str, tuple[list[tuple[str, float]], int]] = {
    "xlm-roberta": ([("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)], 3),
    "camembert": (
        [("<s>NOTUSED", 0.0), ("<pad>", 0.0), ("</s>NOTUSED", 0.0), ("<unk>", 0.0), ("<unk>NOTUSED", -100.0)],
        1,
    ),
}
UNKNOWN_ID = 3
MASK = "<mask>"
SPECIALS = ("<s>", "<pad>", "</s>", "<unk>", MASK)
UNUSED_ENDING = "NOTUSED"  # CamemBERT's unused ids


def tokenizer_json(content: bytes, *, model_type: str) -> bytes:
    """tokenizer.json of a SentencePiece model. model_type: "camembert" has its own layout, all others XLM-RoBERTa's.

    Raises ValueError for anything but a Unigram model of SentencePiece.
    """
    try:
        with panics_caught():
            return _tokenizer_json(content, model_type=model_type)
    except ValueError:
        raise
    except Exception as error:  # fields of another kind than they must be, and what tokenizers raises as bare Exception
        raise ValueError(f"not a SentencePiece model, or damaged ({error!r})") from None


def _tokenizer_json(content: bytes, *, model_type: str) -> bytes:
    pieces: list[tuple[str, float]] = []
    charsmap, kind = b"", UNIGRAM
    for number, value in _fields(content):
        if number == PIECES:
            fields = dict(_fields(value))
            pieces.append((fields[PIECE].decode(), struct.unpack("<f", fields.get(SCORE, bytes(4)))[0]))
        elif number == TRAINER:
            kind = dict(_fields(value)).get(MODEL_TYPE, UNIGRAM)
        elif number == NORMALIZER:
            charsmap = dict(_fields(value)).get(CHARSMAP, b"")
    if not pieces or kind != UNIGRAM:
        raise ValueError("not a Unigram model of SentencePiece")
    first, replaced = LAYOUTS.get(model_type, LAYOUTS["xlm-roberta"])
    vocabulary = [*first, *pieces[replaced:], (MASK, 0.0)]
    made = _tokenizer(vocabulary, charsmap, mask_normalized=model_type != "camembert")
    text = json.dumps(made, ensure_ascii=False, indent=2)
    Tokenizer.from_str(text)  # raises for what the library could not load
    return text.encode()


def _tokenizer(vocabulary: list[tuple[str, float]], charsmap: bytes, *, mask_normalized: bool) -> dict[str, Any]:
    """The contents of tokenizer.json for a Unigram vocabulary: normalizers, Metaspace, and special tokens."""
    id_of = {piece: place for place, (piece, _) in reversed(list(enumerate(vocabulary)))}
    normalizers: list[dict[str, Any]] = [
        {"type": "Strip", "strip_left": False, "strip_right": True},
        {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "▁"},
    ]
    if charsmap:
        table = base64.b64encode(charsmap).decode()
        normalizers.insert(0, {"type": "Precompiled", "precompiled_charsmap": table})
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    begin, end = {"SpecialToken": {"id": "<s>", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}}
    first, second = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    specials = [piece for piece in id_of if piece in SPECIALS or piece.endswith(UNUSED_ENDING)]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": id_of[piece],
                "content": piece,
                "single_word": False,
                "lstrip": piece == MASK,
                "rstrip": False,
                "normalized": piece == MASK and mask_normalized,
                "special": True,
            }
            for piece in sorted(specials, key=lambda piece: id_of[piece])
        ],
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "pre_tokenizer": metaspace,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [begin, first, end],
            "pair": [begin, first, end, end, second, end],
            "special_tokens": {
                piece: {"id": piece, "ids": [id_of[piece]], "tokens": [piece]} for piece in ("<s>", "</s>")
            },
        },
        "decoder": metaspace,
        "model": {"type": "Unigram", "unk_id": UNKNOWN_ID, "vocab": vocabulary, "byte_fallback": False},
    }


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """(field number, value) of a protobuf message: bytes, or an int for a varint."""
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, place = _varint(message, place)
            yield number, value
            continue
        if wire == 2:
            size, place = _varint(message, place)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ValueError("not a SentencePiece model, or cut off")
        if place + size > len(message):
            raise ValueError("not a SentencePiece model, or cut off")
        yield number, message[place : place + size]
        place += size


def _varint(message: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if place >= len(message) or shift > 63:
            raise ValueError("not a SentencePiece model, or cut off")
        byte = message[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return value, place
