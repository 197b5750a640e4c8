"""Rows that no model can answer: each is there in the output, with the reason it has, and its neighbours are answered."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pytest

from models.boundary import Head
from pipeline.errors import SpecError
from tests.pipeline.tasks.conftest import CheckpointOf
from tests.pipeline.tasks.in_process import Row, annotate, job_spec, zeros

LONG = "word " * 200
"""More than the 128 tokens of the random checkpoints."""
HUGE = "a" * 2**20
"""1 MB of one word, over limits.text_bytes."""


def answers(checkpoint_of: CheckpointOf, head: Head, task: object, columns: Mapping[str, Any]) -> list[Row]:
    """The rows that a model gives which knows nothing."""
    spec = job_spec(task=task, checkpoint=checkpoint_of(head))
    return annotate(spec=spec, columns=columns, model=zeros(labels=5, hidden=64))


def reasons(rows: Sequence[Row]) -> list[str | None]:
    """The reason of each row's error."""
    return [row["error"] and row["error"]["reason"] for row in rows]


TEXT_TASKS: list[tuple[Head, object]] = [
    ("sequence-classification", "text-classification"),
    ("token-classification", "token-classification"),
    ("encoder", "feature-extraction"),
    ("encoder", {"name": "feature-extraction", "pooling": "none"}),
    ("masked-lm", "fill-mask"),
    ("masked-lm", "text-scoring"),
    ("causal-lm", "text-scoring"),
]


@pytest.mark.parametrize(("head", "task"), TEXT_TASKS, ids=str)
def test_bad_texts_have_their_own_reasons_in_every_task(checkpoint_of: CheckpointOf, head: Head, task: object) -> None:
    good = "a <mask> text"
    rows = answers(checkpoint_of, head, task, {"text": [good, None, "", " \t\n", HUGE, f"{good}\x00", good]})
    assert reasons(rows) == [None, "empty", "empty", "empty", "too-large", "control-characters", None]
    same = [{key: value for key, value in rows[place].items() if key != "row"} for place in (0, -1)]
    assert same[0] == same[1]


@pytest.mark.parametrize(("head", "task"), TEXT_TASKS, ids=str)
def test_a_shard_of_nothing_but_bad_rows_has_all_its_rows(
    checkpoint_of: CheckpointOf, head: Head, task: object
) -> None:
    assert reasons(answers(checkpoint_of, head, task, {"text": [None, "", None]})) == ["empty"] * 3


@pytest.mark.parametrize(
    ("head", "task"),
    [
        ("sequence-classification", {"name": "text-classification"}),
        ("token-classification", {"name": "token-classification"}),
        ("encoder", {"name": "feature-extraction"}),
        ("masked-lm", {"name": "fill-mask"}),
        ("causal-lm", {"name": "text-scoring"}),
    ],
    ids=str,
)
def test_a_text_longer_than_the_model_is_an_error_or_cut_as_the_job_says(
    checkpoint_of: CheckpointOf, head: Head, task: dict[str, Any]
) -> None:
    texts = {"text": [f"<mask> {LONG}", "<mask> short"]}
    refused = answers(checkpoint_of, head, {**task, "on_long": "error"}, texts)
    assert reasons(refused) == ["too-long", None]
    assert "128" in refused[0]["error"]["message"]
    cut = answers(checkpoint_of, head, {**task, "on_long": "truncate"}, texts)
    assert reasons(cut) == [None, None]
    assert [row["truncated"] for row in cut] == [True, False]


def test_fill_mask_says_that_a_text_has_no_mask_and_how_long_a_long_one_is(checkpoint_of: CheckpointOf) -> None:
    rows = answers(checkpoint_of, "masked-lm", "fill-mask", {"text": ["no mask", LONG + "<mask>", "one <mask>"]})
    assert reasons(rows) == ["no-mask", "too-long", None]
    assert "128 is the model's limit" in rows[1]["error"]["message"]


def test_a_mask_behind_the_cut_is_no_mask(checkpoint_of: CheckpointOf) -> None:
    task = {"name": "fill-mask", "on_long": "truncate"}
    assert reasons(answers(checkpoint_of, "masked-lm", task, {"text": [LONG + "<mask>"]})) == ["no-mask"]


def test_question_answering_names_what_is_missing_or_too_long(checkpoint_of: CheckpointOf) -> None:
    context = ["It rains.", None, "", "It rains.", "It rains.", "It rains.", HUGE]
    question = ["Why?", "Why?", "Why?", None, " ", "why " * 200, "Why?"]
    rows = answers(
        checkpoint_of, "question-answering", "question-answering", {"context": context, "question": question}
    )
    wanted = [None, "empty", "empty", "missing-question", "missing-question", "question-too-long", "too-large"]
    assert reasons(rows) == wanted


def test_a_question_that_leaves_little_room_reads_the_context_in_small_windows(checkpoint_of: CheckpointOf) -> None:
    columns = {"context": ["It rains in London and in Paris."], "question": ["a " * 120]}
    rows = answers(checkpoint_of, "question-answering", "question-answering", columns)
    assert reasons(rows) == [None]
    assert len(rows[0]["answers"]) == 1


def test_a_question_in_the_spec_that_leaves_no_room_is_refused(checkpoint_of: CheckpointOf) -> None:
    task = {"name": "question-answering", "question": "why " * 200}
    with pytest.raises(SpecError, match=r"task\.question"):
        answers(checkpoint_of, "question-answering", task, {"context": ["x"]})


def test_multiple_choice_names_what_is_wrong_with_the_choices(checkpoint_of: CheckpointOf) -> None:
    choices = pa.array([["a", "b"], None, [], ["a", None], ["a", " "], ["a\x01"], ["only"]], pa.list_(pa.string()))
    columns = {"prompt": ["p"] * 7, "choices": choices}
    rows = answers(checkpoint_of, "multiple-choice", "multiple-choice", columns)
    wanted = [None, "missing-choices", "no-choices", "blank-choice", "blank-choice", "control-characters", None]
    assert reasons(rows) == wanted
    assert rows[0]["scores"] == [0.5, 0.5]
    assert rows[6]["scores"] == [1.0]


def test_a_prompt_with_one_choice_too_long_is_an_error_of_the_row(checkpoint_of: CheckpointOf) -> None:
    columns = {"prompt": ["p", "p"], "choices": pa.array([["a", LONG], ["a", "b"]])}
    task = {"name": "multiple-choice", "on_long": "error"}
    assert reasons(answers(checkpoint_of, "multiple-choice", task, columns)) == ["too-long", None]
    cut = answers(checkpoint_of, "multiple-choice", "multiple-choice", columns)
    assert [row["truncated"] for row in cut] == [True, False]


def test_lists_of_words_name_the_word_that_is_wrong(checkpoint_of: CheckpointOf) -> None:
    words = pa.array(
        [["Ada", "left"], None, [], ["Ada", ""], ["Ada", None], [" "], ["\x00"], [HUGE]], pa.list_(pa.string())
    )
    task = {"name": "token-classification", "words": True, "add_prefix_space": True}
    rows = answers(checkpoint_of, "token-classification", task, {"words": words})
    assert reasons(rows) == [
        None, "empty", "empty", "empty-word", "null-word", "empty-word", "control-characters", "too-large",
    ]  # fmt: skip
    assert "word 1 of 2" in rows[3]["error"]["message"]


def test_a_null_pair_is_an_error_of_its_row(checkpoint_of: CheckpointOf) -> None:
    columns = {"text": ["a", "a"], "text_pair": ["b", None]}
    rows = answers(checkpoint_of, "sequence-classification", "text-classification", columns)
    assert reasons(rows) == [None, "missing-text_pair"]


@pytest.mark.parametrize(
    ("head", "task", "said"),
    [
        ("sequence-classification", {"name": "text-classification", "top_k": 0}, "top_k"),
        ("sequence-classification", {"name": "text-classification", "thresholds": {"cat": 0.5}}, "no label 'cat'"),
        ("token-classification", {"name": "token-classification", "stride": 126}, "task.stride"),
        ("token-classification", {"name": "token-classification", "words": True}, "add_prefix_space"),
        ("masked-lm", {"name": "fill-mask", "targets": []}, "targets"),
        ("masked-lm", {"name": "fill-mask", "targets": [" "]}, "has no token"),
        ("question-answering", {"name": "question-answering", "top_k": 0}, "top_k"),
        ("question-answering", {"name": "question-answering", "doc_stride": 50, "max_seq_length": 40}, "doc_stride"),
    ],
    ids=str,
)
def test_options_that_can_not_work_are_refused_before_anything_runs(
    checkpoint_of: CheckpointOf, head: Head, task: object, said: str
) -> None:
    with pytest.raises(SpecError, match=said):
        answers(
            checkpoint_of, head, task, {"text": ["a"], "words": pa.array([["a"]]), "context": ["a"], "question": ["b"]}
        )
