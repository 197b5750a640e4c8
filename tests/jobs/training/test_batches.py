"""Batches, masks and examples of training data."""

from collections import Counter
from typing import Any

import numpy as np
import pytest

from jobs.embedded import CHECKPOINT
from jobs.training.batches import epoch_batches, masked, padded
from jobs.training.examples import IGNORED, Example, Examples, labels_of
from models.tokenizer import load_tokenizer
from pipeline.errors import SpecError
from tests.jobs.small_training import entities, intents, questions

LENGTHS = {"a": [int(length) for length in np.random.default_rng(0).integers(3, 60, 300)], "b": [7] * 40}


def chosen(epoch: int = 0, seed: int = 0) -> list[tuple[str, tuple[int, ...]]]:
    batches = epoch_batches(LENGTHS, seed=seed, epoch=epoch, tokens=256, repeats={"b": 3})
    return [(batch.task, tuple(batch.members.tolist())) for batch in batches]


def test_an_epoch_has_every_example_as_often_as_asked_and_no_batch_above_its_tokens() -> None:
    counts = Counter((task, member) for task, members in chosen() for member in members)
    assert {counts["a", member] for member in range(300)} == {1}
    assert {counts["b", member] for member in range(40)} == {3}
    assert all(max(LENGTHS[task][m] for m in members) * len(members) <= 256 for task, members in chosen())


def test_batches_depend_on_seed_and_epoch_and_on_nothing_else() -> None:
    assert chosen() == chosen()
    assert chosen(epoch=1) != chosen()
    assert chosen(seed=1) != chosen()


def test_masking_hides_the_share_asked_for_and_never_a_special_token_or_a_pad() -> None:
    rows = [np.asarray([0, *range(5, 5 + length), 2], np.int32) for length in range(40, 90)]
    batch = padded([Example(rows=(row,)) for row in rows], pad_id=1)
    hidden = masked(batch, rate=0.4, mask_id=999, vocabulary=1_000, random=np.random.default_rng(3))
    picked = hidden.labels != IGNORED
    real = (batch.input_ids >= 4) & (batch.attention_mask == 1)
    assert not (picked & ~real).any()
    assert picked.sum() / real.sum() == pytest.approx(0.4, abs=0.03)
    assert (hidden.labels[picked] == batch.input_ids[picked]).all()
    assert (hidden.input_ids[~picked] == batch.input_ids[~picked]).all()
    shares = Counter(
        "mask" if now == 999 else "kept" if now == before else "other"
        for now, before in zip(hidden.input_ids[picked], batch.input_ids[picked], strict=True)
    )
    assert shares["mask"] / picked.sum() == pytest.approx(0.8, abs=0.04)
    assert shares["kept"] / picked.sum() == pytest.approx(0.1, abs=0.04)


def make(task: str, rows: list[dict[str, Any]], *, limit: int = 64, column: str = "label") -> list[Example]:
    tokenizer = load_tokenizer(str(CHECKPOINT), add_prefix_space=task == "token-classification" or None)
    labels = labels_of(rows, task=task, column=column, wanted=None)  # type: ignore[arg-type]
    return Examples(task=task, tokenizer=tokenizer, limit=limit, columns={}, labels=labels).of(rows)  # type: ignore[arg-type]


def test_every_piece_of_a_word_has_its_words_tag_and_only_the_first_begins_an_entity() -> None:
    example = make("token-classification", entities()[:1], column="tags")[0]
    tokenizer = load_tokenizer(str(CHECKPOINT), add_prefix_space=True)
    words = tokenizer.backend.encode(entities()[0]["words"], is_pretokenized=True).word_ids
    names = ["O", "B-LOC", "B-PER", "I-PER"]
    spelt = [None if label == IGNORED else names[label] for label in example.target]
    assert spelt[0] is None
    assert spelt[-1] is None
    assert [tag for tag, word in zip(spelt, words, strict=True) if word == 0] == ["B-PER"] + ["I-PER"] * (
        words.count(0) - 1
    )
    assert {tag for tag, word in zip(spelt, words, strict=True) if word in (2, 3)} == {"O"}


def test_an_answers_tokens_spell_the_answer_also_where_the_context_is_cut() -> None:
    tokenizer = load_tokenizer(str(CHECKPOINT))
    row = questions()[0]
    long = "Many words stand before it. " * 8
    shifted = {**row, "context": long + row["context"] + long}
    shifted["answers"] = {
        "text": row["answers"]["text"],
        "answer_start": [row["answers"]["answer_start"][0] + len(long)],
    }
    for example in make("question-answering", [row, shifted], limit=60):
        start, end = example.target
        assert len(example.rows[0]) <= 60
        assert tokenizer.backend.decode(example.rows[0][start : end + 1].tolist()).strip().startswith("the Spree")


def test_labels_are_names_lists_of_names_or_numbers() -> None:
    assert labels_of(intents(), task="text-classification", column="label", wanted=None).names == ("fruit", "tool")
    several = [{"text": "x", "label": ["b", "a"]}, {"text": "y", "label": ["a"]}]
    found = labels_of(several, task="text-classification", column="label", wanted=None)
    assert (found.names, found.kind) == (("a", "b"), "multi_label_classification")
    assert make("text-classification", several)[0].target.tolist() == [1.0, 1.0]
    numbers = [{"text": "x", "label": 0.5}, {"text": "y", "label": 2.0}]
    assert labels_of(numbers, task="text-classification", column="label", wanted=None).kind == "regression"
    assert labels_of(entities(), task="token-classification", column="tags", wanted=None).names[0] == "O"


def test_a_label_that_is_not_named_and_uneven_tags_are_told() -> None:
    with pytest.raises(SpecError, match="'tool', which is not among those named"):
        labels_of(intents(), task="text-classification", column="label", wanted=["fruit", "animal"])
    with pytest.raises(SpecError, match="2 words and 1 tags"):
        make(
            "token-classification",
            [{"words": ["a"], "tags": ["O"]}, {"words": ["a", "b"], "tags": ["B-X"]}],
            column="tags",
        )
