"""Tokenizers of the families: the reference's encodings, and SentencePiece models without a tokenizer.json."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from models.convert import convert
from models.errors import CheckpointError
from models.sentencepiece_file import tokenizer_json
from models.tokenizer import load_tokenizer
from tests.models.test_families import FOLDERS, OTHERS

WITH_TOKENIZER = [name for name in OTHERS if (FOLDERS / name / "tokenizer.json").is_file()]
WITH_SENTENCEPIECE = [name for name in OTHERS if (FOLDERS / name / "sentencepiece.bpe.model").is_file()]


def golden_of(family: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDERS / family / "annotations.json").read_text())
    return found


@pytest.mark.parametrize("family", WITH_TOKENIZER)
def test_texts_are_encoded_as_the_reference_encodes_them(family: str) -> None:
    backend = load_tokenizer(str(FOLDERS / family)).backend
    for text, wanted in golden_of(family)["encodings"].items():
        found = backend.encode(text)
        assert found.ids == wanted["input_ids"]
        assert [list(bounds) for bounds in found.offsets] == wanted["offset_mapping"]
        assert found.special_tokens_mask == wanted["special_tokens_mask"]
        assert found.word_ids == wanted["word_ids"]


@pytest.mark.parametrize("family", WITH_TOKENIZER)
def test_the_ids_of_special_tokens_come_from_the_folder(family: str) -> None:
    tokenizer = load_tokenizer(str(FOLDERS / family))
    specials = golden_of(family)["specials"]
    found = {"bos": tokenizer.bos_id, "eos": tokenizer.eos_id, "pad": tokenizer.pad_id, "mask": tokenizer.mask_id}
    assert found == {name: specials[f"{name}_token"][1] for name in found}


@pytest.mark.parametrize("family", WITH_SENTENCEPIECE)
def test_a_sentencepiece_model_becomes_the_tokenizer_that_the_reference_makes_of_it(family: str) -> None:
    model = (FOLDERS / family / "sentencepiece.bpe.model").read_bytes()
    made = json.loads(tokenizer_json(model, model_type=family))
    wanted = json.loads((FOLDERS / family / "tokenizer.json").read_text())
    made_vocabulary, vocabulary = made["model"].pop("vocab"), wanted["model"].pop("vocab")
    assert made == wanted
    assert [piece for piece, _ in made_vocabulary] == [piece for piece, _ in vocabulary]
    assert [score for _, score in made_vocabulary] == pytest.approx([score for _, score in vocabulary], abs=1e-12)


@pytest.mark.parametrize("content", [b"", b"no protobuf", bytes(100), b"\x0a\xff\xff\xff\xff\x0f"])
def test_what_is_no_sentencepiece_model_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match="SentencePiece"):
        tokenizer_json(content, model_type="xlm-roberta")


@pytest.mark.parametrize("family", WITH_SENTENCEPIECE)
def test_a_folder_with_a_sentencepiece_model_alone_is_refused_with_advice_that_works(
    family: str, tmp_path: Path
) -> None:
    folder = tmp_path / "old"
    shutil.copytree(FOLDERS / family / "token-classification", folder)
    shutil.copyfile(FOLDERS / family / "sentencepiece.bpe.model", folder / "sentencepiece.bpe.model")
    with pytest.raises(CheckpointError, match=r"no tokenizer\.json, only sentencepiece\.bpe\.model; `preln convert"):
        load_tokenizer(str(folder))
    convert(source=str(folder), destination=str(tmp_path / "new"))
    backend = load_tokenizer(str(tmp_path / "new")).backend
    for text, wanted in golden_of(family)["encodings"].items():
        assert backend.encode(text).ids == wanted["input_ids"]
