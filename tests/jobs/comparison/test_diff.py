"""`preln diff` prints what is different between two outputs, as words, JSON and a page, and exits by --max-flips."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pyarrow as pa
import pytest

from jobs.comparison.page import page
from jobs.comparison.values import as_values
from jobs.comparison.words import answer, lines
from pipeline.analysis.changes import LabelChanges
from pipeline.analysis.difference import Difference, TaskDifference
from tests.command import Command, in_this_process

VOID = {"meta", "path", "use", "br", "rect"}


@pytest.fixture
def preln(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return in_this_process(monkeypatch, capsys)


class Balanced(HTMLParser):
    """Fails where an end tag does not close the last open one."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def checked(html: str) -> Balanced:
    """A page whose tags are balanced, and that names no address to load."""
    parser = Balanced()
    parser.feed(html)
    assert parser.open == []
    assert not re.search(r"""(?:src|href)\s*=\s*["'](?!#)|@import|url\((?!#)""", html)
    return parser


@pytest.mark.torch
def test_a_difference_is_printed_as_words_json_and_a_page(
    preln: Command, demo_output: str, short_output: str, tmp_path: Path
) -> None:
    ended = preln("diff", demo_output, short_output, "--html", tmp_path / "diff.html")
    assert ended.code == 0, ended.err
    assert "model.max_length: 256 in A, 12 in B" in ended.out
    assert "104 rows in common; 0 only in A, 0 only in B." in ended.out
    assert re.search(r"^\d+\.\d\d% of them \(\d+\) have another answer in B\.$", ended.out, re.MULTILINE)
    assert re.search(r"^  LOC: \d+ kept, \d+ lost, \d+ gained, \d+ moved, \d+ relabelled$", ended.out, re.MULTILINE)
    assert "Note: only A has the task questions." in ended.out
    parsed = checked((tmp_path / "diff.html").read_text())
    assert parsed.tags.count("section") == 3
    assert parsed.tags.count("svg") == 3
    values = json.loads(preln("diff", demo_output, short_output, "--json").out)
    intents = values["tasks"][0]
    assert sum(count for _, _, count in intents["confusion"]) == 104
    assert intents["flipped"] == sum(count for a, b, count in intents["confusion"] if a != b)
    assert values["flips"] == values["flipped"] / 104
    assert values["settings"]["model.max_length"] == {"a": 256, "b": 12}


@pytest.mark.torch
def test_the_exit_code_says_whether_more_rows_flipped_than_may(
    preln: Command, demo_output: str, short_output: str
) -> None:
    assert preln("diff", demo_output, demo_output, "--max-flips", "0").code == 0
    ended = preln("diff", demo_output, short_output, "--max-flips", "0.001")
    assert ended.code == 3
    assert "More than --max-flips" in ended.out
    assert preln("diff", demo_output, short_output, "--max-flips", "0.001", "--json").code == 3
    assert preln("diff", demo_output, short_output, "--max-flips", "1").code == 0


@pytest.mark.torch
def test_of_other_rows_the_distributions_are_compared_and_no_answer_can_flip(
    preln: Command, demo_output: str, other_output: str, tmp_path: Path
) -> None:
    ended = preln("diff", demo_output, other_output, "--max-flips", "0.1", "--html", tmp_path / "diff.html")
    assert ended.code == 2
    assert "no row in common, so no answer can flip" in ended.err
    assert "No row in common: 104 rows in A, 130 rows in B." in ended.out
    assert re.search(r"labels: total variation distance 0\.\d+ \(n 104 and 130\): to make both alike", ended.out)
    assert re.search(
        r"score: Kolmogorov-Smirnov statistic 0\.\d+ \(n 104 and 130\): [\d.]+% of [AB] is at most", ended.out
    )
    assert "unknown tokens: total variation distance" in ended.out
    assert "Distributions of all rows" in (tmp_path / "diff.html").read_text()


def made_up(changes: LabelChanges, name: str = "<b>task</b>") -> Difference:
    task = TaskDifference(names=(name, name), task="text-classification", changes=changes, gaps=(), examples=())
    return Difference(
        a="file:///a",
        b="file:///b",
        settings={},
        joined=10,
        only_a=0,
        only_b=0,
        changed_files=(),
        flipped=2,
        tasks=[task],
    )


@pytest.mark.parametrize("labels", [3, 30])
def test_few_labels_are_a_table_and_many_are_pairs_and_nothing_of_the_data_is_markup(labels: int) -> None:
    changes = LabelChanges()
    names = [f"<i>{number}" for number in range(labels)]
    a, b = (
        {"label": pa.array(side), "score": pa.array([0.5] * labels, pa.float32())}
        for side in (names, names[1:] + names[:1])
    )
    changes.add(a, b)
    html = page(made_up(changes))
    checked(html)
    assert "<i>" not in html
    assert "<b>task" not in html
    assert ("Labels in A (rows)" in html) == (labels == 3)
    assert ("Labels that became others" in html) == (labels == 30)
    assert as_values(made_up(changes))["tasks"][0]["confusion"]
    said = list(lines(made_up(changes)))
    assert any("and 22 more flips" in line for line in said) == (labels == 30)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"label": None, "score": None}, "no answer"),
        ({"label": "x", "score": 0.5}, "x 0.50"),
        ({"label": "x", "score": 0.5, "labels": []}, "no label"),
        ({"choice": 2, "scores": [0.1]}, "choice 2"),
        ({"entities": []}, "no entity"),
        ({"entities": [{"entity": "B-PER", "word": "Ada", "start": 0, "end": 3}]}, "B-PER 'Ada' 0-3"),
        ({"answers": [{"answer": "", "score": 0.5}]}, "no answer in the text"),
        ({"answers": [{"answer": "Paris", "score": 0.5}]}, "'Paris' 0.50"),
        ({"masks": []}, "no mask"),
        ({"log_probability": -1.5, "tokens": 3}, "log probability -1.500"),
        ({"embedding": [1.0]}, "a vector"),
    ],
)
def test_an_answer_in_a_few_words(columns: dict[str, object], words: str) -> None:
    assert answer(columns) == words
