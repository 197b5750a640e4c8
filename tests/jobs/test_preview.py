"""`preln annotate --limit`: the first rows as the job would write them, without Ray, and never in the job's output."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import preln as library
from jobs import connect
from jobs.embedded import DEMO
from tests.command import Command, in_this_process
from tests.events import events_of

pytestmark = pytest.mark.torch
TEXTS = ["book a flight to Paris", "", "what is the weather", "set an alarm", "play some jazz"]


@pytest.fixture
def preln(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    def connected() -> None:
        pytest.fail("a preview has connected to Ray")

    monkeypatch.setattr(connect, "connect", connected)
    return in_this_process(monkeypatch, capsys)


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    for name, texts in (("a", TEXTS[:3]), ("b", TEXTS[3:])):
        lines = "".join(json.dumps({"text": text, "id": name}) + "\n" for text in texts)
        (tmp_path / f"{name}.jsonl").write_text(lines)
    flags = ["--task", "text-classification", "--model", str(DEMO / "intents"), "--dtype", "float32"]
    return ["annotate", *flags, "--input", str(tmp_path / "*.jsonl"), "--output", str(tmp_path / "out")]


def test_the_first_rows_are_those_of_the_job_and_nothing_is_written(
    preln: Command, words: list[str], tmp_path: Path
) -> None:
    ended = preln(*words, "--limit", "4", "--into", tmp_path / "look")
    assert ended.code == 0, ended.err
    assert "4 rows written to" in ended.out
    found = pq.read_table(tmp_path / "look" / "rows.parquet")
    assert found.column_names[:2] == ["text", "id"]
    assert {"source", "row", "error"} <= set(found.column_names)
    assert found["text"].to_pylist() == TEXTS[:4]
    expected = library.annotate(
        TEXTS[:4], model=DEMO / "intents", task="text-classification", dtype="float32", device="cpu"
    )
    assert found["label"].to_pylist() == expected["label"].to_pylist()
    assert found["score"].to_pylist() == pytest.approx(expected["score"].to_pylist(), abs=1e-5)
    assert found["error"][1].as_py()["reason"] == "empty"
    assert not (tmp_path / "out").exists()


def test_they_are_printed_as_a_table_or_as_lines_for_machines(preln: Command, words: list[str]) -> None:
    shown = preln(*words, "--limit", "2")
    assert shown.code == 0, shown.err
    assert "book a flight to Paris" in shown.out
    assert "weather" not in shown.out
    rows = events_of(preln(*words, "--limit", "9", "--json").out)
    assert [row["row"]["text"] for row in rows] == TEXTS
    assert {row["event"] for row in rows} == {"row"}


def test_the_job_s_own_folder_is_refused(preln: Command, words: list[str], tmp_path: Path) -> None:
    ended = preln(*words, "--limit", "1", "--into", tmp_path / "out" / "look")
    assert ended.code == 2
    assert "never touches" in ended.err
    assert "give --limit too" in preln(*words, "--into", tmp_path / "look").err
    assert not (tmp_path / "out").exists()
