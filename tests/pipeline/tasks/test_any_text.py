"""Whatever Unicode is in a row, every task gives one row back for it, with offsets that lie in its text."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.boundary import Answers, Ask, Head, Tokens
from tests.pipeline.tasks.conftest import CheckpointOf
from tests.pipeline.tasks.in_process import Model, Row, annotate, job_spec

EXAMPLES = settings(
    max_examples=50,
    deadline=None,
    derandomize=True,
    # The checkpoints are read only, and made once.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
TRICKY = st.sampled_from(
    [
        "👍🏽", "e\u0301", "\r\n", "\t", " ", "  ", "<mask>", "<s>", "</s>", "<pad>", "<unk>", "ﬁ", "\u200b", "\u2028", "\xa0",
        "İ", "\x00", "\ufeff", "नमस्ते", "word", ",", "'t", "👩‍👩‍👧", "\x85",
    ]
)  # fmt: skip
TEXT = st.lists(st.one_of(TRICKY, st.text(max_size=8)), max_size=60).map("".join)
TEXTS = st.lists(st.one_of(st.none(), TEXT), min_size=1, max_size=4)
LABELS: dict[str, int] = {"multiple-choice": 1, "sequence-classification": 4, "token-classification": 5}


def guessing(seed: int) -> Model:
    """A model that answers at random, in the right shapes."""

    def answer(tokens: Tokens, asks: Mapping[str, Ask]) -> Mapping[str, Answers]:
        random = np.random.default_rng(seed)
        return {head: _guess(random, head, ask, tokens) for head, ask in asks.items()}

    return answer


def _guess(random: np.random.Generator, head: str, ask: Ask, tokens: Tokens) -> Answers:
    asked = len(ask.positions_G)
    assert asked == 0 or (ask.positions_G.min() >= 0 and ask.positions_G.max() < len(tokens.input_ids_T))
    assert tokens.lengths_B.max() <= 128
    wide = random.normal(size=(asked, 64)).astype(np.float32)
    if head == "encoder":
        return {"hidden": wide[: len(tokens.cu_seqlens) - 1] if ask.reduce == "mean" else wide}
    if head == "question-answering":
        return {"start_logits": 5 * wide[:, 0], "end_logits": 5 * wide[:, 1]}
    if ask.gold_G is not None:
        return {"log_probs": -np.abs(wide[:, 0])}
    if head == "masked-lm":
        k = ask.top_k or 1
        return {"ids": random.integers(0, 1_000, size=(asked, k), dtype=np.int32), "probs": np.abs(wide[:, :k])}
    return {"logits": wide[:, : LABELS[head]]}


def rows_of(checkpoint_of: CheckpointOf, head: Head, task: object, columns: Mapping[str, Any]) -> list[Row]:
    """Rows answered at random; control characters are read like others."""
    spec = job_spec(
        task=task,
        checkpoint=checkpoint_of(head),
        input={"urls": "in.parquet", "control_characters": "keep"},
    )
    return annotate(spec=spec, columns=columns, model=guessing(len(repr(columns))))


TEXT_TASKS: list[tuple[Head, object]] = [
    ("sequence-classification", {"name": "text-classification", "top_k": "all"}),
    ("encoder", {"name": "feature-extraction", "pooling": "none"}),
    ("causal-lm", "text-scoring"),
    ("masked-lm", "text-scoring"),
]


@pytest.mark.parametrize(("head", "task"), TEXT_TASKS, ids=str)
@EXAMPLES
@given(texts=TEXTS)
def test_every_text_has_its_row(
    checkpoint_of: CheckpointOf, head: Head, task: object, texts: Sequence[str | None]
) -> None:
    rows = rows_of(checkpoint_of, head, task, {"text": pa.array(texts, pa.string())})
    assert [row["text"] for row in rows] == list(texts)
    assert all(
        (row["error"] is not None) == (text is None or not visible(text)) for row, text in zip(rows, texts, strict=True)
    )


def visible(text: str) -> bool:
    """Whether Arrow, and so the job, sees anything but white space."""
    import pyarrow.compute as pc

    return bool(pc.utf8_trim_whitespace(pa.scalar(text)).as_py())


@pytest.mark.parametrize("aggregation", ["none", "simple", "first", "average", "max"])
@pytest.mark.parametrize("word_rule", ["pretokenizer", "hf"])
@EXAMPLES
@given(texts=TEXTS)
def test_entities_lie_in_their_text(
    checkpoint_of: CheckpointOf, aggregation: str, word_rule: str, texts: Sequence[str | None]
) -> None:
    task = {"name": "token-classification", "aggregation": aggregation, "word_rule": word_rule, "ignore_labels": []}
    for row in rows_of(checkpoint_of, "token-classification", task, {"text": pa.array(texts, pa.string())}):
        for entity in row["entities"] or []:
            assert 0 <= entity["start"] <= entity["end"] <= len(row["text"])
            if word_rule == "pretokenizer":
                assert entity["word"] == row["text"][entity["start"] : entity["end"]]
        starts = [entity["start"] for entity in row["entities"] or []]
        assert starts == sorted(starts)


@EXAMPLES
@given(lists=st.lists(st.one_of(st.none(), st.lists(st.one_of(st.none(), TEXT), max_size=5)), min_size=1, max_size=4))
def test_every_word_of_a_list_has_a_label(
    checkpoint_of: CheckpointOf, lists: Sequence[Sequence[str | None] | None]
) -> None:
    task = {"name": "token-classification", "words": True, "add_prefix_space": True, "ignore_labels": []}
    columns = {"words": pa.array(lists, pa.list_(pa.string()))}
    for row, words in zip(rows_of(checkpoint_of, "token-classification", task, columns), lists, strict=True):
        if row["error"] is None:
            assert words is not None
            assert len(row["labels"]) == len(words)
            text = " ".join(word or "" for word in words)
            assert [e["word"] for e in row["entities"]] == [text[e["start"] : e["end"]] for e in row["entities"]]


@pytest.mark.parametrize("sequence", ["text", "hf"])
@EXAMPLES
@given(texts=TEXTS)
def test_fills_replace_a_mask_of_their_text(
    checkpoint_of: CheckpointOf, sequence: str, texts: Sequence[str | None]
) -> None:
    task = {"name": "fill-mask", "top_k": 2, "sequence": sequence, "on_long": "truncate"}
    for row in rows_of(checkpoint_of, "masked-lm", task, {"text": pa.array(texts, pa.string())}):
        for mask in row["masks"] or []:
            assert row["text"][mask["start"] :].startswith("<mask>")
            assert len(mask["fills"]) == 2
            if sequence == "text":
                assert all(fill["sequence"].endswith(row["text"][mask["start"] + 6 :]) for fill in mask["fills"])


@pytest.mark.parametrize("score_mode", ["span", "hf"])
@pytest.mark.parametrize("align", [True, False])
@EXAMPLES
@given(contexts=TEXTS, questions=st.lists(st.one_of(st.none(), TEXT), min_size=4, max_size=4))
def test_answers_lie_in_their_context(
    checkpoint_of: CheckpointOf,
    score_mode: str,
    align: bool,
    contexts: Sequence[str | None],
    questions: Sequence[str | None],
) -> None:
    task = {
        "name": "question-answering", "score_mode": score_mode, "align_to_words": align, "top_k": 3, "max_seq_length": 48,
    }  # fmt: skip
    columns = {
        "context": pa.array(contexts, pa.string()),
        "question": pa.array(questions[: len(contexts)], pa.string()),
    }
    for row in rows_of(checkpoint_of, "question-answering", task, columns):
        if row["error"] is not None:
            continue
        scores = [answer["score"] for answer in row["answers"]]
        assert scores == sorted(scores, reverse=True)
        for answer in row["answers"]:
            assert answer["answer"] == row["context"][answer["start"] : answer["end"]]
        if score_mode == "span":
            assert sum(scores) + row["null_score"] <= 1 + 1e-5


@EXAMPLES
@given(prompts=TEXTS, choices=st.lists(st.lists(st.one_of(st.none(), TEXT), max_size=4), min_size=4, max_size=4))
def test_every_choice_has_a_score(
    checkpoint_of: CheckpointOf, prompts: Sequence[str | None], choices: Sequence[Sequence[str | None]]
) -> None:
    columns = {
        "prompt": pa.array(prompts, pa.string()),
        "choices": pa.array(choices[: len(prompts)], pa.list_(pa.string())),
    }
    for row in rows_of(checkpoint_of, "multiple-choice", "multiple-choice", columns):
        if row["error"] is None:
            assert len(row["scores"]) == len(row["choices"])
            assert abs(sum(row["scores"]) - 1) < 1e-5
            assert row["scores"][row["choice"]] == max(row["scores"])
