"""`preln sample` writes rows for review in three forms, and `preln score` reads each back with its error rate."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from jobs.review import Form, form, label_studio
from pipeline.analysis.predictions import Kind
from pipeline.analysis.review_sample import Drawn, ReviewSample
from pipeline.analysis.reviewed import review
from pipeline.errors import SpecError
from tests.command import Command, in_this_process

ASTRAL = "💩 Ada met\r\nBob in Paris."
PLACES = {"Ada": 2, "Bob": 11, "Paris": 18}


@pytest.fixture
def preln(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    monkeypatch.chdir(tmp_path)
    return in_this_process(monkeypatch, capsys)


def span(word: str, label: str) -> dict[str, Any]:
    start = PLACES[word]
    return {"label": label, "start": start, "end": start + len(word), "text": word}


ANSWERS: dict[Kind, tuple[Any, Any]] = {
    "label": ('good, "or" not', "bad"),
    "labels": (["a", "b"], ["a"]),
    "entities": ([span("Ada", "PER"), span("Paris", "LOC")], [span("Ada", "PER"), span("Bob", "PER")]),
    "answer": ([span("Paris", "answer")], []),
    "choice": (1, 0),
}
"""An answer of each kind, and another."""


def sample_of(kind: Kind, *, rows: int = 20) -> ReviewSample:
    """A sample whose rows all have the first answer."""
    texts: dict[str, Any] = {"text": ASTRAL}
    if kind == "answer":
        texts = {"question": "Where?", "context": ASTRAL}
    if kind == "choice":
        texts = {"prompt": ASTRAL, "choices": ["yes", 'no, "never"']}
    drawn = [Drawn("file:///a.parquet", row, texts, ANSWERS[kind][0], 0.9, "all rows", 5.0) for row in range(rows)]
    return ReviewSample(
        task="the-task",
        kind=kind,
        model="demo f00",
        labels=['good, "or" not', "bad", "a", "b", "PER", "LOC"],
        design="random",
        seed=0,
        population=5 * rows,
        unanswered=0,
        strata={"all rows": 5 * rows},
        rows=drawn,
        read_again=False,
    )


def corrected_lines(content: bytes, kind: Kind, wrong: int) -> bytes:
    """A reviewer's JSON Lines: the first rows corrected, the others marked as seen, but the last, which is left as it was."""
    rows = [json.loads(line) for line in content.decode().splitlines()]
    for number, row in enumerate(rows[:-1]):
        row |= {kind: ANSWERS[kind][1]} if number < wrong else {"reviewed": True}
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def corrected_table(content: bytes, kind: Kind, wrong: int) -> bytes:
    """The same as a spreadsheet saves it: with a mark in front, semicolons and carriage returns."""
    rows = list(csv.DictReader(io.StringIO(content.decode(), newline="")))
    answer = ANSWERS[kind][1]
    for number, row in enumerate(rows[:-1]):
        row |= {kind: answer if kind == "label" else json.dumps(answer)} if number < wrong else {"reviewed": "x"}
    stream = io.StringIO()
    writer = csv.DictWriter(stream, fieldnames=list(rows[0]), delimiter=";", lineterminator="\r\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue().encode("utf-8-sig")


def annotated_tasks(content: bytes, kind: Kind, wrong: int) -> bytes:
    """What Label Studio exports: an annotation for each task, skipped for the last; an older annotation does not count."""
    tasks = json.loads(content)
    for number, task in enumerate(tasks):
        answer = ANSWERS[kind][1] if number < wrong else ANSWERS[kind][0]
        result = label_studio.results(answer, kind=kind)
        older = {"id": 1, "updated_at": "2026-01-01", "result": [], "was_cancelled": False}
        newer = {"id": 2, "updated_at": "2026-01-02", "result": result, "was_cancelled": number == len(tasks) - 1}
        task["annotations"] = [newer] if number == len(tasks) - 1 else [older, newer]
    return json.dumps(tasks).encode()


REVIEWERS: dict[Form, Callable[[bytes, Kind, int], bytes]] = {
    "jsonl": corrected_lines,
    "csv": corrected_table,
    "label-studio": annotated_tasks,
}


@pytest.mark.parametrize("to", ["jsonl", "csv", "label-studio"])
@pytest.mark.parametrize("kind", list(ANSWERS))
def test_what_a_reviewer_corrects_is_counted_in_every_form(kind: Kind, to: Form) -> None:
    if to == "label-studio" and kind == "choice":
        with pytest.raises(SpecError, match="--to jsonl"):
            form.written(sample_of(kind), form=to)
        return
    content = form.written(sample_of(kind), form=to)
    with pytest.raises(SpecError, match="no row was reviewed"):
        review(form.read(content, name="untouched"))
    found = review(form.read(REVIEWERS[to](content, kind, 4), name="reviewed"))
    assert (found.rows, found.open, found.error.reviewed, found.error.wrong) == (20, 1, 19, 4)
    assert found.error.rate == pytest.approx(4 / 19)
    assert found.population == 100


def test_offsets_in_utf16_units_are_recognised_by_their_text_and_impossible_ones_are_reported() -> None:
    tasks = json.loads(form.written(sample_of("entities", rows=3), form="label-studio"))
    for shift, task in zip(
        (0, 1, 3), tasks, strict=True
    ):  # characters; UTF-16 units, of which the first character has two
        regions = [json.loads(json.dumps(region)) for region in task["predictions"][0]["result"]]
        for region in regions:
            region["value"] |= {name: region["value"][name] + shift for name in ("start", "end")}
        task["annotations"] = [{"id": 1, "result": regions}]
    found = review(form.read(json.dumps(tasks).encode(), name="export.json"))
    assert (found.error.reviewed, found.error.wrong) == (2, 0)
    assert found.faults == {"a span is not where its text is": 1}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[]", "it has no rows"),
        (b'[{"data": {"text": "a"}, "annotations": []}]', "have no 'preln' in their data"),
        (b'[{"text": "a", "label": "b"}]', "no JSON export"),
        (b'{"text": "a"}\n', "line 1 has no task, answers"),
        (b'{"text": \n', "line 1 is not JSON"),
        (b"a,b\n1,2\n", "record 1 has no task, answers"),
        (b"\xff\xfe", "byte 0 is not UTF-8"),
    ],
)
def test_a_file_that_is_no_review_is_refused_in_one_line(content: bytes, message: str) -> None:
    with pytest.raises(SpecError, match=f"^f.json: .*{message}"):
        form.read(content, name="f.json")


def test_a_broken_cell_is_reported_and_not_counted() -> None:
    rows = [json.loads(line) for line in form.written(sample_of("entities", rows=4), form="jsonl").splitlines()]
    rows[0]["entities"] = [{"label": "PER", "start": "2", "end": 5}]
    rows[1]["reviewed"] = "yes"
    found = review(form.read("\n".join(map(json.dumps, rows)).encode(), name="f"))
    assert (found.error.reviewed, found.open) == (1, 2)
    assert list(found.faults) == ["the column 'entities' is not a list of spans with label, start and end"]


def test_rows_of_two_samples_are_not_mixed() -> None:
    content = form.written(sample_of("label"), form="jsonl") + form.written(sample_of("label", rows=7), form="jsonl")
    with pytest.raises(SpecError, match="of 2 samples"):
        review(form.read(content, name="f"))


@pytest.mark.parametrize("kind", ["label", "labels", "entities", "answer"])
def test_tasks_have_the_form_that_label_studio_documents(kind: Kind) -> None:
    """https://labelstud.io/guide/predictions: each region names a control tag and an object tag of the interface, and has
    the type and the value of that control; its labels are among those of the control; a span's text is at its offsets."""
    sample = sample_of(kind)
    view = ElementTree.fromstring(label_studio.interface(sample))
    controls = {tag.get("name"): tag for tag in view.iter() if tag.tag in ("Choices", "Labels")}
    objects = {tag.get("name"): tag.get("value") for tag in view.iter("Text")}
    for task in json.loads(form.written(sample, form="label-studio")):
        assert {value.removeprefix("$") for value in objects.values() if value} <= task["data"].keys()
        (prediction,) = task["predictions"]
        assert isinstance(prediction["model_version"], str)
        assert 0 <= prediction["score"] <= 1
        ids = [region["id"] for region in prediction["result"]]
        assert len(set(ids)) == len(ids) > 0
        for region in prediction["result"]:
            control = controls[region["from_name"]]
            assert region["to_name"] == control.get("toName")
            assert region["to_name"] in objects
            assert region["type"] == control.tag.lower()
            value = region["value"]
            assert set(value[region["type"]]) <= {tag.get("value") for tag in control}
            if region["type"] == "labels":
                assert task["data"][region["to_name"]][value["start"] : value["end"]] == value["text"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["label", "labels", "entities", "answer"])
def test_the_sdk_of_label_studio_accepts_the_tasks(kind: Kind) -> None:
    """Not in an extra: with what it needs, the SDK is half a gigabyte. `pip install label-studio-sdk` runs this test."""
    interface = pytest.importorskip("label_studio_sdk.label_interface", reason="label-studio-sdk is not installed")
    sample = sample_of(kind)
    checked = interface.LabelInterface(label_studio.interface(sample).decode())
    checked.validate()
    for task in json.loads(form.written(sample, form="label-studio")):
        assert checked.validate_task({"data": task["data"]})
        assert checked.validate_prediction(task["predictions"][0], return_errors=True) == []


@pytest.mark.torch
def test_a_sample_is_written_reviewed_and_scored_by_commands(preln: Command, demo_output: str, tmp_path: Path) -> None:
    ended = preln("sample", demo_output, "--task", "entities", "--to", "label-studio", "-n", "30", "--by", "stratified")
    assert ended.code == 0, ended.err
    assert "Drew 30 rows of 104" in ended.out
    assert "Strata: (none)" in ended.out
    tasks = json.loads((tmp_path / "review.json").read_text())
    assert (tmp_path / "review.interface.xml").read_text().startswith("<View>")
    for task in tasks[:20]:
        task["annotations"] = [{"id": 1, "result": task["predictions"][0]["result"]}]
    tasks[0]["annotations"][0]["result"] = [
        {"from_name": "entities", "type": "labels", "value": {"start": 0, "end": 1, "labels": ["X"]}}
    ]
    (tmp_path / "done.json").write_text(json.dumps(tasks))
    ended = preln("score", "done.json")
    assert ended.code == 0, ended.err
    assert "Reviewed 20 of 30 rows of entities: 1 wrong." in ended.out
    assert "10 rows not reviewed" in ended.out
    assert "95% interval" in ended.out
    assert "Method: strata weighed by their sizes (Cochran 1977)" in ended.out
    values = json.loads(preln("score", "done.json", "--json").out)
    assert values["error"]["low"] < values["error"]["rate"] < values["error"]["high"]
    again = preln("sample", demo_output, "--task", "entities", "--to", "label-studio")
    assert again.code == 2
    assert "which may hold a review" in again.err
    assert preln("score", "nowhere.csv").err == "preln: nowhere.csv: there is no such file\n"
