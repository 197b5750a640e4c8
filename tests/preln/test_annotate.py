"""`preln.annotate`: texts and tables in memory in, the answers of a job out."""

import json
import shutil
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import preln
from jobs.embedded import DEMO

TEXTS = ["book a table for two", "", None, "what is the weather in Paris", "book a table for two"]
INTENTS: dict[str, Any] = {
    "model": DEMO / "intents",
    "task": "text-classification",
    "dtype": "float32",
    "device": "cpu",
}


@pytest.fixture(scope="module")
def intents() -> Iterator[preln.Model]:
    with preln.load(**INTENTS) as model:
        yield model


def test_a_list_of_texts_comes_back_as_an_arrow_table_with_an_answer_a_row(intents: preln.Model) -> None:
    found = intents(TEXTS)
    assert isinstance(found, pa.Table)
    assert found.column_names == ["text", "label", "score", "truncated", "error"]
    rows = found.to_pylist()
    assert [row["error"] and row["error"]["reason"] for row in rows] == [None, "empty", "empty", None, None]
    assert rows[0]["label"] == rows[4]["label"]
    assert rows[0]["score"] == rows[4]["score"]


def test_frames_come_back_as_what_they_were(intents: preln.Model) -> None:
    pandas = pd.DataFrame({"text": TEXTS, "thing": [object() for _ in TEXTS]}, index=[7, 7, 1, 2, 3])
    found = intents(pandas)
    assert isinstance(found, pd.DataFrame)
    assert list(found.index) == [7, 7, 1, 2, 3]
    assert list(found["thing"]) == list(pandas["thing"])
    polars = intents(pl.DataFrame({"text": TEXTS, "n": range(5)}))
    assert isinstance(polars, pl.DataFrame)
    table = intents(pa.table({"text": TEXTS, "n": list(range(5))}))
    assert (
        table["label"].to_pylist() == polars["label"].to_list() == [None if pd.isna(x) else x for x in found["label"]]
    )
    assert table["n"].to_pylist() == polars["n"].to_list()


def test_dicts_series_and_columns_are_taken_too(intents: preln.Model) -> None:
    expected = intents(TEXTS)["label"].to_pylist()
    assert intents([{"id": i, "text": text} for i, text in enumerate(TEXTS)])["label"].to_pylist() == expected
    assert intents(pd.Series(TEXTS))["label"].to_pylist() == expected
    assert intents({"text": TEXTS})["label"].to_pylist() == expected
    assert intents(pa.array(TEXTS))["label"].to_pylist() == expected
    assert intents([]).num_rows == 0


def test_a_value_that_is_no_text_is_the_error_of_its_row(intents: preln.Model) -> None:
    rows = intents([{"text": "good"}, {"text": 5}, {"text": "a \ud800 b"}, {"other": "x"}]).to_pylist()
    assert [row["error"] and row["error"]["reason"] for row in rows] == [None, "wrong-type", "invalid-utf8", "empty"]


def test_what_can_not_work_is_one_line(intents: preln.Model) -> None:
    for data, words in (
        ("one text", "one text"),
        (pa.table({"body": TEXTS}), "'text'"),
        (pd.DataFrame({"body": TEXTS}), "'text'"),
        (pa.table({"text": TEXTS, "label": TEXTS}), "prefix"),
        (["a", {"text": "b"}], "mixes"),
        (5, "int"),
        (
            pl.DataFrame({"text": ["a"], "id": pl.Series([2**100], dtype=pl.Int128)}),
            "column 'id' can't become an Arrow",
        ),
        ({"text": ["a"], "id": [2**100]}, "column 'id' can't become an Arrow column"),
        (pd.DataFrame({"text": ["a", 2**100]}), "column 'text' can't become an Arrow column"),
    ):
        with pytest.raises(preln.PrelnError, match=words) as caught:
            intents(data)
        assert "\n" not in str(caught.value)
    with pytest.raises(preln.PrelnError, match="top_kk"):
        preln.load(DEMO / "intents", task="text-classification", top_kk=1)
    with pytest.raises(preln.PrelnError, match="no task is named"):
        preln.load(DEMO, tasks={"intents": "text-classification"}, top_k=1)


def test_several_heads_answer_at_once_and_a_list_fills_every_tasks_column() -> None:
    tasks = {
        "intents": "text-classification",
        "entities": "token-classification",
        "questions": {"name": "question-answering", "question": "Where?", "allow_null": True},
    }
    found = preln.annotate(TEXTS, model=DEMO, tasks=tasks, dtype="float32", device="cpu", keep=[])
    assert {"intents_label", "entities_entities", "questions_answers", "error"} <= set(found.column_names)
    assert "text" not in found.column_names


def test_in_this_process_the_answers_are_the_same(intents: preln.Model) -> None:
    with preln.load(**INTENTS, isolate=False) as model:
        assert model(TEXTS).equals(intents(TEXTS))


def test_several_threads_take_turns(intents: preln.Model) -> None:
    expected = intents(TEXTS)
    found: list[pa.Table] = []
    threads = [threading.Thread(target=lambda: found.append(intents(TEXTS))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(one.equals(expected) for one in found)
    assert len(found) == 4


def test_an_interrupt_ends_the_models_process_and_the_next_call_starts_another(
    intents: preln.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor = intents._annotator._supervisor
    expected, before = intents(TEXTS), supervisor.seconds.children
    with monkeypatch.context() as patch:
        patch.setattr(supervisor, "_receive", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            intents(TEXTS)
    assert intents(TEXTS).equals(expected)
    assert supervisor.seconds.children == before + 1


def test_importing_preln_imports_neither_ray_nor_a_framework() -> None:
    code = "import sys, preln; preln.annotate; print([m for m in ('ray', 'torch', 'tensorflow', 'jax') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_folder_of_the_users_with_our_name_is_named_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "__init__.py").touch()
    root = Path(preln.__file__).resolve().parents[1]
    code = f"import sys; sys.path.append({str(root)!r}); import preln"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    last = done.stderr.strip().splitlines()[-1]
    assert str(tmp_path / "models") in last
    assert str(root / "models") in last


def test_labels_that_are_read_as_plain_names_are_said_once(tmp_path: Path) -> None:
    model = shutil.copytree(DEMO / "entities", tmp_path / "entities")
    shutil.copytree(DEMO / "encoder", tmp_path / "encoder")
    config = json.loads((model / "config.json").read_text())
    names = {str(number): f"N{number}" for number in range(len(config["id2label"]))}
    config |= {"id2label": names, "label2id": {name: int(number) for number, name in names.items()}}
    (model / "config.json").write_text(json.dumps(config))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(2):
            preln.annotate(TEXTS, model=model, task="token-classification", device="cpu")
    (said,) = [str(warning.message) for warning in caught]
    assert "(N0, N1, N2, ...) read as plain names" in said
