"""The tokenizer of a checkpoint folder: RoBERTa's ids, templates and offsets, from either set of files."""

import shutil
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from models.errors import CheckpointError
from models.tokenizer import CheckpointTokenizer, load_tokenizer
from tests.models import golden

TINY = golden.annotation_checkpoint("fill-mask")
TEXTS = ("Paris is the <mask> of France.", "", " é\tx  y", "<s>x</s>", "naïve — 東京 🙂", "a\n\nb<pad>")


@pytest.fixture(scope="module")
def roberta(data: Path) -> CheckpointTokenizer:
    return load_tokenizer(str(data / "roberta-tokenizer"))


def test_roberta_s_words_have_their_published_ids(roberta: CheckpointTokenizer) -> None:
    assert roberta.backend.encode("Hello world").ids == [0, 31414, 232, 2]
    assert roberta.backend.encode("A", "B").ids == [0, 250, 2, 2, 387, 2]
    assert (roberta.mask_id, roberta.model_max_length) == (50264, None)
    assert max(roberta.backend.get_vocab().values()) == 50264
    assert (roberta.bos_id, roberta.pad_id, roberta.eos_id, roberta.unk_id) == (0, 1, 2, 3)


def test_the_mask_eats_the_blank_before_it_and_spans_its_own_characters(roberta: CheckpointTokenizer) -> None:
    encoded = roberta.backend.encode("France is <mask>.")
    place = encoded.ids.index(50264)
    assert encoded.ids[place - 1] == 16
    assert encoded.offsets[place][1] == 16


def test_offsets_leave_out_the_leading_space(roberta: CheckpointTokenizer) -> None:
    assert roberta.backend.encode("Hello world").offsets == [(0, 0), (0, 5), (6, 11), (0, 0)]


def test_special_tokens_typed_in_a_text_are_recognised(roberta: CheckpointTokenizer) -> None:
    assert roberta.backend.encode("<s>x</s>").ids == [0, 0, 1178, 2, 2]


@pytest.mark.parametrize("text", TEXTS)
def test_vocabulary_and_merges_give_the_same_as_tokenizer_json(text: str, tmp_path: Path) -> None:
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        shutil.copy(TINY / name, tmp_path)
    whole, built = load_tokenizer(str(TINY)).backend.encode(text), load_tokenizer(str(tmp_path)).backend.encode(text)
    assert whole.ids == built.ids
    assert whole.offsets == built.offsets


def test_a_prefix_space_can_be_asked_for() -> None:
    plain, spaced = load_tokenizer(str(TINY)), load_tokenizer(str(TINY), add_prefix_space=True)
    assert spaced.backend.encode("is").ids == plain.backend.encode(" is").ids != plain.backend.encode("is").ids
    assert not plain.add_prefix_space
    assert spaced.add_prefix_space


def test_nothing_is_cut_or_padded_and_the_limit_is_told() -> None:
    tokenizer = load_tokenizer(str(TINY))
    assert tokenizer.model_max_length == 60
    assert len(tokenizer.backend.encode("is " * 200).ids) > 200


def test_a_folder_without_tokenizer_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no tokenizer"):
        load_tokenizer(str(tmp_path))
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"is not JSON|refuses"):
        load_tokenizer(str(tmp_path))


# Called as the reference's


def test_texts_become_ids_masks_and_offsets(roberta: CheckpointTokenizer) -> None:
    texts = ["Hello world", "", "A naïve text of more words"]
    found = roberta(texts)
    assert list(found) == ["input_ids", "attention_mask", "offset_mapping"]
    width = found["input_ids"].shape[1]
    assert found["offset_mapping"].shape == (3, width, 2)
    for number, text in enumerate(texts):
        alone = roberta.backend.encode(text)
        length = len(alone.ids)
        assert found["input_ids"][number].tolist() == alone.ids + [1] * (width - length)
        assert found["attention_mask"][number].tolist() == [1] * length + [0] * (width - length)
        assert found["offset_mapping"][number, :length].tolist() == [list(pair) for pair in alone.offsets]
    assert roberta("Hello world")["input_ids"].tolist() == [[0, 31414, 232, 2]]
    assert roberta("A", "B")["input_ids"].tolist() == [[0, 250, 2, 2, 387, 2]]
    assert roberta([])["input_ids"].shape == (0, 0)
    assert roberta(texts, padding=False)["input_ids"][1] == [0, 2]
    assert roberta(texts, padding="max_length", max_length=32)["input_ids"].shape == (3, 32)
    assert roberta("Hello", add_special_tokens=False)["input_ids"].tolist() == [[31414]]


def test_a_long_text_is_cut_only_if_asked_and_of_a_pair_the_longer(roberta: CheckpointTokenizer) -> None:
    long = "one two three four five six seven eight"
    assert roberta(long)["input_ids"].shape == (1, 10)
    cut = roberta([long, "one"], truncation=True, max_length=5)["input_ids"]
    backend = load_tokenizer_backend(roberta)
    backend.enable_truncation(5)
    assert cut[0].tolist() == backend.encode(long).ids
    backend.enable_truncation(9)
    found = roberta(long, "one two", truncation=True, max_length=9)["input_ids"]
    assert found[0].tolist() == backend.encode(long, "one two").ids
    with pytest.raises(ValueError, match="no room for the special tokens"):
        roberta(long, truncation=True, max_length=1)
    with pytest.raises(ValueError, match="needs max_length="):
        roberta(long, truncation=True)


def load_tokenizer_backend(tokenizer: CheckpointTokenizer) -> Tokenizer:
    """A copy that a test may set up as it likes."""
    return Tokenizer.from_str(tokenizer.backend.to_str())


@pytest.mark.torch
def test_tensors_of_a_framework_can_be_asked_for(roberta: CheckpointTokenizer) -> None:
    import torch

    found = roberta(["Hello world", "Hello"], return_tensors="pt")
    assert all(isinstance(tensor, torch.Tensor) for tensor in found.values())
    with pytest.raises(ValueError, match="return_tensors is 'mx'"):
        roberta("Hello", return_tensors="mx")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="needs padding=True"):
        roberta(["Hello world", "Hello"], padding=False, return_tensors="np")


def test_lists_of_words_are_taken_where_words_begin_with_a_space() -> None:
    spaced = load_tokenizer(str(TINY), add_prefix_space=True)
    words = [["Paris", "is", "big"], ["one"]]
    found = spaced(words, is_split_into_words=True)
    whole = spaced.backend.encode(words[0], is_pretokenized=True)
    assert found["input_ids"][0].tolist()[: len(whole.ids)] == whole.ids
    with pytest.raises(ValueError, match="add_prefix_space=True"):
        load_tokenizer(str(TINY))(words, is_split_into_words=True)
