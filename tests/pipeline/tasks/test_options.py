"""What each option of each task does to the answer, on the embedded random checkpoints."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from models.boundary import Answers, Ask, Head, Tokens
from pipeline.tasks import TokenClassification
from pipeline.tasks.tags import Tags
from tests.pipeline.small import only_facts, only_task
from tests.pipeline.tasks.conftest import CheckpointOf
from tests.pipeline.tasks.in_process import Model, Row, annotate, job_spec

TEXT = "Ada Lovelace wrote to Charles Babbage, and he answered."
CLOSE = 1e-5


def answers(checkpoint_of: CheckpointOf, head: Head, task: Mapping[str, Any], **columns: Any) -> list[Row]:
    """The rows of columns, from a random checkpoint."""
    return annotate(spec=job_spec(task=dict(task), checkpoint=checkpoint_of(head)), columns=columns)


def only(checkpoint_of: CheckpointOf, head: Head, task: Mapping[str, Any], **values: Any) -> Row:
    """The one row of one value a column."""
    (row,) = answers(checkpoint_of, head, task, **{name: pa.array([value]) for name, value in values.items()})
    assert row["error"] is None
    return row


def test_labels_over_their_thresholds_are_listed_best_first(checkpoint_of: CheckpointOf) -> None:
    head: Head = "sequence-classification"
    task = {"name": "text-classification", "function": "sigmoid", "top_k": "all"}
    scores = {s["label"]: s["score"] for s in only(checkpoint_of, head, task, text=TEXT)["scores"]}
    best, second, *_ = scores
    row = only(checkpoint_of, head, {**task, "threshold": 0.0, "thresholds": {best: scores[best] + 0.01}}, text=TEXT)
    assert [label["label"] for label in row["labels"]] == [label for label in scores if label != best]
    assert row["label"] == best
    assert row["labels"][0] == {"label": second, "score": scores[second]}


def test_a_single_label_checkpoint_lists_labels_only_when_asked(checkpoint_of: CheckpointOf) -> None:
    row = only(checkpoint_of, "sequence-classification", {"name": "text-classification"}, text=TEXT)
    assert "labels" not in row
    assert "scores" not in row


def test_a_pair_is_read_as_one(checkpoint_of: CheckpointOf) -> None:
    task = {"name": "text-classification"}
    head: Head = "sequence-classification"
    alone, pair = (
        only(checkpoint_of, head, task, text=TEXT),
        only(checkpoint_of, head, task, text=TEXT, text_pair="No."),
    )
    assert alone["score"] != pair["score"]


def test_the_checkpoint_says_what_the_spec_leaves_open(checkpoint_of: CheckpointOf) -> None:
    facts = only_facts(job_spec(task="token-classification", checkpoint=checkpoint_of("token-classification")))
    parameters = {"token-classification": {"aggregation_strategy": "max"}}
    facts.config.task_specific_params = parameters
    try:
        assert TokenClassification().resolved_aggregation(facts) == "max"
        assert TokenClassification(aggregation="simple").resolved_aggregation(facts) == "simple"
    finally:
        del facts.config.task_specific_params


def test_pooling_of_the_listed_vectors_gives_the_pooled_one(checkpoint_of: CheckpointOf) -> None:
    task = {"name": "feature-extraction"}
    every = np.array(only(checkpoint_of, "encoder", {**task, "pooling": "none"}, text=TEXT)["embedding"])
    mean = only(checkpoint_of, "encoder", {**task, "pooling": "mean"}, text=TEXT)["embedding"]
    first = only(checkpoint_of, "encoder", {**task, "pooling": "cls"}, text=TEXT)["embedding"]
    np.testing.assert_allclose(every.mean(axis=0), mean, atol=CLOSE)
    np.testing.assert_allclose(every[0], first, atol=CLOSE)


@pytest.mark.parametrize("pooling", ["mean", "none"])
def test_normalized_vectors_have_length_one_and_half_the_bytes_when_asked(
    checkpoint_of: CheckpointOf, pooling: str
) -> None:
    task = {"name": "feature-extraction", "pooling": pooling, "normalize": True, "dtype": "float16"}
    vectors = np.atleast_2d(only(checkpoint_of, "encoder", task, text=TEXT)["embedding"])
    np.testing.assert_allclose(np.linalg.norm(vectors.astype(np.float32), axis=1), 1, atol=2e-3)
    (field,) = only_task(job_spec(task=task, checkpoint="x")).task.fields(
        only_facts(job_spec(task=task, checkpoint=checkpoint_of("encoder")))
    )
    assert "halffloat" in str(field.type)


def test_a_target_is_found_with_or_without_its_space_and_named(checkpoint_of: CheckpointOf) -> None:
    text = "It is <mask> time of day."
    task = {"name": "fill-mask", "targets": ["the", " the", "a"], "top_k": 9}
    (mask,) = only(checkpoint_of, "masked-lm", task, text=text)["masks"]
    assert mask["start"] == 6
    assert {fill["target"]: fill["token_str"] for fill in mask["fills"]} == {"the": " the", "a": " a"}
    assert {fill["sequence"] for fill in mask["fills"]} == {"It is the time of day.", "It is a time of day."}


def test_a_targets_score_is_its_share_of_the_whole_vocabulary(checkpoint_of: CheckpointOf) -> None:
    text = "It is <mask> time of day."
    (mask,) = only(checkpoint_of, "masked-lm", {"name": "fill-mask", "top_k": 1_000}, text=text)["masks"]
    of_token = {fill["token"]: fill["score"] for fill in mask["fills"]}
    assert abs(sum(of_token.values()) - 1) < CLOSE
    (few,) = only(checkpoint_of, "masked-lm", {"name": "fill-mask", "targets": ["the"]}, text=text)["masks"]
    assert abs(few["fills"][0]["score"] - of_token[few["fills"][0]["token"]]) < CLOSE


def test_each_mask_is_filled_while_the_others_stay(checkpoint_of: CheckpointOf) -> None:
    row = only(checkpoint_of, "masked-lm", {"name": "fill-mask", "top_k": 1}, text="👍 <mask> and  <mask>!")
    assert [mask["start"] for mask in row["masks"]] == [2, 14]
    first, second = (mask["fills"][0] for mask in row["masks"])
    assert first["sequence"] == f"👍{first['token_str']} and  <mask>!"
    assert second["sequence"] == f"👍 <mask> and{second['token_str']}!"


def test_entities_below_the_least_score_are_left_out(checkpoint_of: CheckpointOf) -> None:
    task = {"name": "token-classification", "ignore_labels": []}
    every = only(checkpoint_of, "token-classification", task, text=TEXT)["entities"]
    least = sorted(entity["score"] for entity in every)[1]
    some = only(checkpoint_of, "token-classification", {**task, "min_score": least}, text=TEXT)["entities"]
    assert some == [entity for entity in every if entity["score"] >= least]


def all_persons(tokens: Tokens, asks: Mapping[str, Ask]) -> Mapping[str, Answers]:
    """A model that takes every token for the beginning of a person."""
    logits_L = np.array([0, 9, 0, 0, 0], np.float32)
    return {head: {"logits": np.tile(logits_L, (len(ask.positions_G), 1))} for head, ask in asks.items()}


@pytest.mark.parametrize(
    ("word_rule", "words"),
    [
        ("pretokenizer", ["He", "met", "Babbage", ",", "didn", "'t", "he", "?"]),
        ("hf", ["He", " met", " Babbage,", " didn't\the?"]),
    ],
)
def test_punctuation_is_no_part_of_a_word_but_by_the_references_rule(
    checkpoint_of: CheckpointOf, word_rule: str, words: list[str]
) -> None:
    task = {"name": "token-classification", "word_rule": word_rule, "aggregation": "average"}
    spec = job_spec(task=task, checkpoint=checkpoint_of("token-classification"))
    text = "He met Babbage, didn't\the?"
    (row,) = annotate(spec=spec, columns={"text": [text]}, model=all_persons)
    assert [entity["word"] for entity in row["entities"]] == words


@pytest.mark.parametrize(
    ("labels", "begins", "ends"),
    [
        (["O", "B-X", "I-X"], {"B-X"}, set()),
        (["O", "B-X", "I-X", "E-X", "S-X"], {"B-X", "S-X"}, {"E-X", "S-X"}),
        (["O", "B-X", "I-X", "L-X", "U-X"], {"B-X", "U-X"}, {"L-X", "U-X"}),
        (["cat", "E-mail"], set(), set()),
    ],
)
def test_prefixes_of_a_scheme_are_read_and_others_are_names(
    labels: list[str], begins: set[str], ends: set[str]
) -> None:
    tags = Tags.of(labels)
    assert {label for label, begin in zip(labels, tags.begins_L, strict=True) if begin} == begins
    assert {label for label, end in zip(labels, tags.ends_L, strict=True) if end} == ends
    assert tags.names == (("O", "X") if "B-X" in labels else ("cat", "E-mail"))


def test_the_best_answer_does_not_depend_on_how_many_are_asked_for(checkpoint_of: CheckpointOf) -> None:
    task = {"name": "question-answering", "question": "Who answered?"}
    one = only(checkpoint_of, "question-answering", task, context=TEXT * 8)
    many = only(checkpoint_of, "question-answering", {**task, "top_k": 5}, context=TEXT * 8)
    assert one["answers"] == many["answers"][:1]
    assert one["null_score"] == many["null_score"]
    assert len({(answer["start"], answer["end"]) for answer in many["answers"]}) == 5


def test_no_answer_competes_only_where_it_is_allowed(checkpoint_of: CheckpointOf) -> None:
    task = {"name": "question-answering", "question": "Who answered?", "top_k": 200}
    without = only(checkpoint_of, "question-answering", task, context=TEXT)
    with_null = only(checkpoint_of, "question-answering", {**task, "allow_null": True}, context=TEXT)
    empty = [answer for answer in with_null["answers"] if answer["answer"] == ""]
    assert empty == [{"answer": "", "score": with_null["null_score"], "start": 0, "end": 0}]
    assert [answer for answer in with_null["answers"] if answer not in empty] == without["answers"]


def test_equal_texts_at_two_places_are_two_answers_unless_as_the_reference(checkpoint_of: CheckpointOf) -> None:
    context = "Ada wrote. Ada wrote."
    task = {"name": "question-answering", "question": "Who?", "top_k": 60, "max_answer_length": 1}
    places = [
        a["start"]
        for a in only(checkpoint_of, "question-answering", task, context=context)["answers"]
        if a["answer"] == "Ada"
    ]
    assert sorted(places) == [0, 11]
    summed = only(checkpoint_of, "question-answering", {**task, "score_mode": "hf"}, context=context)["answers"]
    assert [answer["answer"] for answer in summed].count("Ada") == 1


def test_a_single_span_of_a_single_window_scores_as_in_the_reference(checkpoint_of: CheckpointOf) -> None:
    task = {
        "name": "question-answering",
        "question": "Who?",
        "top_k": 3,
        "max_answer_length": 1,
        "align_to_words": False,
    }
    ours = only(checkpoint_of, "question-answering", task, context="Ada met Charles.")
    theirs = only(checkpoint_of, "question-answering", {**task, "score_mode": "hf"}, context="Ada met Charles.")
    assert [answer["answer"] for answer in ours["answers"]] == [answer["answer"] for answer in theirs["answers"]]
    np.testing.assert_allclose(
        [answer["score"] for answer in ours["answers"]], [answer["score"] for answer in theirs["answers"]], atol=CLOSE
    )
    assert abs(ours["null_score"] - theirs["null_score"]) < CLOSE


def test_equal_choices_have_equal_scores_and_the_first_is_chosen(checkpoint_of: CheckpointOf) -> None:
    row = only(
        checkpoint_of, "multiple-choice", {"name": "multiple-choice"}, prompt=TEXT, choices=["same", "same", "same"]
    )
    assert row["choice"] == 0
    np.testing.assert_allclose(row["scores"], [1 / 3] * 3, atol=CLOSE)


def counting(seen: list[int]) -> Model:
    """A model that notes the length of every sequence and finds every token as likely as one of two."""

    def answer(tokens: Tokens, asks: Mapping[str, Ask]) -> Mapping[str, Answers]:
        seen.extend(tokens.lengths_B.tolist())
        return {
            head: {"log_probs": np.full(len(ask.positions_G), np.log(0.5), np.float32)} for head, ask in asks.items()
        }

    return answer


def test_perplexity_is_that_of_the_tokens_scored(checkpoint_of: CheckpointOf) -> None:
    heads: list[tuple[Head, int | None]] = [("causal-lm", 1), ("masked-lm", None)]
    for head, copies in heads:
        seen: list[int] = []
        spec = job_spec(task="text-scoring", checkpoint=checkpoint_of(head))
        (row,) = annotate(spec=spec, columns={"text": [TEXT]}, model=counting(seen))
        assert abs(row["perplexity"] - 2) < CLOSE
        assert abs(row["log_probability"] - row["tokens"] * np.log(0.5)) < CLOSE
        # Masked: each token but <s> and </s> in a copy of its own. Causal: each token but <s>, in one pass.
        assert len(seen) == (copies or row["tokens"])
        assert set(seen) == {row["tokens"] + (1 if copies else 2)}


def test_a_masked_copy_is_scored_as_fill_mask_scores_the_token(checkpoint_of: CheckpointOf) -> None:
    facts = only_facts(job_spec(task="fill-mask", checkpoint=checkpoint_of("masked-lm")))
    backend = facts.tokenizer.backend
    (word,) = backend.encode(" the", add_special_tokens=False).ids
    (row,) = answers(checkpoint_of, "masked-lm", {"name": "text-scoring"}, text=pa.array([" the"]))
    task = {"name": "fill-mask", "top_k": 1_000}
    (mask,) = only(checkpoint_of, "masked-lm", task, text="<mask>")["masks"]
    score = {fill["token"]: fill["score"] for fill in mask["fills"]}[word]
    assert row["tokens"] == 1
    assert abs(row["log_probability"] - np.log(score)) < 1e-3


def test_equal_rows_are_computed_once_and_answered_each(checkpoint_of: CheckpointOf) -> None:
    seen: list[int] = []
    spec = job_spec(task="text-scoring", checkpoint=checkpoint_of("causal-lm"))
    rows = annotate(spec=spec, columns={"text": [TEXT, "other", TEXT, TEXT]}, model=counting(seen))
    assert len(seen) == 2
    assert rows[0]["log_probability"] == rows[2]["log_probability"] == rows[3]["log_probability"]
