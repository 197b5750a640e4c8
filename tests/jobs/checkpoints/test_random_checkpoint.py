"""The embedded sample and random checkpoint are what `make_random` produces."""

import hashlib
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from jobs.checkpoints.make_random import FOLDER, TEXT_LIMIT, make_random, sample_texts
from models.checkpoint import check
from models.tokenizer import load_tokenizer

SAMPLE_TEXTS = 287
LARGEST_FILE = 700_000  # bytes; it is in the repository for good


def digests(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.iterdir())}


def test_the_sample_holds_distinct_texts_that_fit_the_checkpoint() -> None:
    texts = sample_texts()
    assert len(texts) == len(set(texts)) == SAMPLE_TEXTS
    tokenizer = load_tokenizer(str(FOLDER))
    assert max(len(encoding.ids) for encoding in tokenizer.backend.encode_batch(texts)) <= TEXT_LIMIT


def test_the_committed_checkpoint_is_what_its_maker_writes(tmp_path: Path) -> None:
    make_random(folder=tmp_path)
    assert digests(tmp_path) == digests(FOLDER)


def test_the_committed_checkpoint_answers_sequence_classification_and_is_small() -> None:
    checkpoint = check(checkpoint=str(FOLDER), heads=["sequence-classification"], tokenizer=True)
    assert checkpoint.config.num_labels == 4
    assert checkpoint.config.max_tokens == TEXT_LIMIT
    assert (FOLDER / "model.safetensors").stat().st_size < LARGEST_FILE


def test_the_committed_weights_are_finite_and_the_padding_rows_are_zero() -> None:
    tensors = load_file(FOLDER / "model.safetensors")
    assert all(np.isfinite(tensor).all() for tensor in tensors.values())
    words_VH = tensors["roberta_prelayernorm.embeddings.word_embeddings.weight"]
    assert not words_VH[1].any()
    assert words_VH[2:].any(axis=1).all()


def test_the_mask_is_the_last_id_and_swallows_the_blank_before_it() -> None:
    tokenizer = load_tokenizer(str(FOLDER))
    assert tokenizer.mask_id == tokenizer.vocab_size - 1
    ids = tokenizer.backend.encode("A cup of <mask>, please.").ids
    assert tokenizer.mask_id in ids
    assert tokenizer.backend.encode("A cup of<mask>, please.").ids == ids
