"""The data that the demo recipe trains on, and the data that it holds out."""

import json
from pathlib import Path

import pytest

from jobs.checkpoints.demo_recipe.data import write_demo_data
from jobs.checkpoints.demo_recipe.questions import PER_TEXT, ask, ask_all

TEXT = (
    "Marie Curie (born 7 November 1867) was a physicist and chemist. The Eiffel Tower was built in 1889. "
    "The bridge is located in Prague. The series has seven long books. The opera was composed by Giuseppe Verdi."
)


def test_the_rules_ask_what_the_text_answers() -> None:
    made = {(row["rule"], row["question"]): row["answers"]["text"][0] for row in ask(TEXT)}
    assert made["born", "When was Marie Curie born?"] == "7 November 1867"
    assert made["year", "When was the Eiffel Tower built?"] == "1889"
    assert made["place", "Where is the bridge located?"] == "Prague"
    assert made["agent", "Who composed the opera?"] == "Giuseppe Verdi"
    assert made["count", "How many long books the series has?"] == "seven"
    assert made["definition", "What was Marie Curie?"] == "a physicist and chemist"


def test_every_answer_stands_in_its_context_where_it_is_said_to() -> None:
    rows = ask_all([TEXT, "Nothing here can be asked", TEXT], seed=1)
    assert 1 <= len(rows) <= 2 * PER_TEXT
    for row in rows:
        (text,), (start,) = row["answers"]["text"], row["answers"]["answer_start"]
        assert row["context"][start : start + len(text)] == text
    assert rows == ask_all([TEXT, "Nothing here can be asked", TEXT], seed=1)


def test_what_is_reported_on_is_never_learnt_from(shared: Path, tmp_path: Path) -> None:
    hashes = write_demo_data(source=shared / "data", glosses=None, into=tmp_path, seed=1)

    def bare(name: str, column: str = "text") -> set[str]:
        lines = (tmp_path / name).read_text(encoding="utf-8").splitlines()
        return {"".join(json.loads(line)[column].split()) for line in lines}

    plain = bare("texts.jsonl")
    assert not plain & bare("introductions-test.jsonl")
    assert not plain & bare("entities-test.jsonl")
    assert not bare("questions.jsonl", "context") & bare("questions-test.jsonl", "context")
    assert not bare("questions.jsonl", "context") & bare("introductions-test.jsonl")
    counts = {name: len((tmp_path / name).read_text("utf-8").splitlines()) for name in hashes}
    assert counts["intents.jsonl"] == 15_000
    assert counts["intents-test.jsonl"] == 4_500
    assert counts["entities.jsonl"] == 2_001 + 3_394
    assert counts["entities-test.jsonl"] == counts["entities-text-test.jsonl"] == 2_077
    assert 0.95 * counts["entities.jsonl"] < counts["entities-text.jsonl"] < counts["entities.jsonl"]
    assert not bare("entities-text.jsonl") & bare("entities-test.jsonl")
    assert not bare("entities-text-unseen.jsonl") & bare("entities-test.jsonl")
    for line in (tmp_path / "entities-text.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        for one in row["entities"]:
            assert row["text"][one["start"] : one["end"]].strip() == row["text"][one["start"] : one["end"]] != ""
    assert counts["questions-test.jsonl"] == 1_190


def test_pictures_are_svg_and_the_same_for_the_same_numbers() -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install 'preln[train]'")
    from jobs.evaluation.picture import draw_confusion
    from jobs.evaluation.scores import classification
    from jobs.training.curve import draw_curve

    history = [{"step": step, "train_loss": 1 / step, "evaluation": {"a": {"loss": 2 / step}}} for step in (1, 2, 3)]
    label = r"$\frac$"  # no formula
    confusion = classification([label, "b", "b"], [label, "b", label]).confusion
    assert confusion is not None
    for draw in (lambda: draw_curve(history), lambda: draw_confusion(confusion)):
        drawn = draw()
        assert drawn is not None
        assert b"<svg" in drawn
        assert draw() == drawn
