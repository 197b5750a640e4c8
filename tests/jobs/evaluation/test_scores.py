"""Scores follow the field's own definitions: accuracy, macro-F1, conlleval, SQuAD."""

import math

import numpy as np
import pytest

from jobs.embedded import CHECKPOINT
from jobs.evaluation import scores
from jobs.evaluation.hidden import hide
from models.tokenizer import load_tokenizer


def test_macro_f1_weighs_labels_alike_and_an_unanswered_row_is_wrong() -> None:
    gold = ["a", "a", "a", "a", "b", "b"]
    measured = scores.classification(gold, ["a", "a", "a", "b", "b", None])
    assert measured.numbers["accuracy"] == pytest.approx(4 / 6)
    # a: precision 3/3, recall 3/4; b: 1/2, 1/2; the answer that is none: 0
    assert measured.by_label["a"]["f1"] == pytest.approx(6 / 7)
    assert measured.by_label["b"]["f1"] == pytest.approx(0.5)
    assert measured.numbers["macro_f1"] == pytest.approx((6 / 7 + 0.5 + 0) / 3)
    assert measured.confusion is not None
    assert measured.confusion.labels == ("(no answer)", "a", "b")
    assert measured.confusion.counts_LL[1].tolist() == [0, 3, 1]


def test_labels_that_are_only_answered_count_in_macro_f1_as_in_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    random = np.random.default_rng(0)
    gold, answered = ([f"l{i}" for i in random.integers(0, size, 200)] for size in (5, 7))
    expected = metrics.f1_score(gold, answered, average="macro", zero_division=0)
    assert scores.classification(gold, answered).numbers["macro_f1"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        (["B-PER", "I-PER", "O", "B-LOC"], [("PER", 0, 2), ("LOC", 3, 4)]),
        (["B-PER", "B-PER"], [("PER", 0, 1), ("PER", 1, 2)]),
        (["I-PER", "I-PER", "I-LOC"], [("PER", 0, 2), ("LOC", 2, 3)]),  # no beginning is needed
        (["B-PER", "I-LOC"], [("PER", 0, 1), ("LOC", 1, 2)]),  # another type begins another entity
        (["S-ORG", "B-ORG", "I-ORG", "E-ORG", "I-ORG"], [("ORG", 0, 1), ("ORG", 1, 4), ("ORG", 4, 5)]),
        (["O", "O"], []),
    ],
)
def test_entities_are_cut_out_of_tags_as_seqeval_does(tags: list[str], expected: list[scores.Span]) -> None:
    assert list(scores.spans(tags)) == expected


def test_an_entity_is_right_only_with_its_type_and_both_borders() -> None:
    # The worked example of seqeval's own page: one of two right.
    gold = [["O", "O", "O", "B-MISC", "I-MISC", "I-MISC", "O"], ["B-PER", "I-PER", "O"]]
    answered = [["O", "O", "B-MISC", "I-MISC", "I-MISC", "I-MISC", "O"], ["B-PER", "I-PER", "O"]]
    measured = scores.entities(gold, answered)
    assert measured.numbers["f1"] == pytest.approx(0.5)
    assert measured.by_label["PER"]["f1"] == 1.0
    assert measured.by_label["MISC"]["f1"] == 0.0
    assert scores.entities(gold, [None, answered[1]]).numbers["recall"] == pytest.approx(0.5)


def test_answers_are_compared_without_articles_case_and_punctuation() -> None:
    measured = scores.answers([["The Spree.", "river Spree"], ["in 1998"], ["x"]], ["the spree", "1998", None])
    assert measured.numbers["exact_match"] == pytest.approx(1 / 3)
    assert measured.numbers["f1"] == pytest.approx((1 + 2 / 3 + 0) / 3)


def test_guesses_of_rows_without_answers_count_as_wrong() -> None:
    measured = scores.guesses([[5, 6], [7]], [[[5, 1], [1, 6]], None])
    assert measured.numbers["mask_accuracy"] == pytest.approx(1 / 3)
    assert measured.numbers["mask_accuracy_of_top_5"] == pytest.approx(2 / 3)


def test_perplexity_is_that_of_all_tokens_together() -> None:
    assert scores.perplexity([-math.log(2) * 3, -math.log(8)], [3, 1]).numbers["perplexity"] == pytest.approx(2**1.5)


def test_hidden_tokens_leave_the_others_as_they_were() -> None:
    tokenizer = load_tokenizer(str(CHECKPOINT))
    random = np.random.default_rng(1)
    text = "The museum opens at nine, and the train to the coast leaves an hour later."
    before = tokenizer.backend.encode(text, add_special_tokens=False).ids
    for _ in range(20):
        hidden, truth = hide(text, tokenizer=tokenizer, rate=0.15, random=random)
        if not truth:
            continue
        ids = tokenizer.backend.encode(hidden, add_special_tokens=False).ids
        guesses = iter(truth)
        assert [next(guesses) if token == tokenizer.mask_id else token for token in ids] == before
