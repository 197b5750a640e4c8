"""The examples of docs/after-a-run.md that need other data than its job run, and print lines of the form shown: numbers vary."""

import json
import re
import shlex
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from tests.command import Command, in_this_process
from tests.pipeline.outputs import demo_output, short_output
from tests.pipeline.run_here import commands_run_here

__all__ = ["demo_output", "short_output"]

EXAMPLE = re.compile(r"<!-- executed -->\n```bash\n(.*?)```\n```text\n(.*?)```", re.DOTALL)
EXPECTED_CODES = {"--max-flips": 3}


@pytest.fixture
def preln(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    monkeypatch.chdir(tmp_path)
    return in_this_process(monkeypatch, capsys)


def reviewed(file: Path) -> None:
    """A reviewer who finds two rows wrong."""
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for number, row in enumerate(rows):
        row["reviewed"] = True
        if number in (3, 8):
            row["entities"] = [{"label": "PER", "start": 0, "end": 1}]
    (file.parent / "reviewed.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def labelled(folder: Path, output: str) -> None:
    """The files that the page names, from texts with the demo's own answers; one in six of those held out is wrong."""
    rows = pq.read_table(Path(output) / "data").filter(pc.field("error").is_null())
    texts, topics = rows["text"], rows["intents_label"].to_pylist()
    wrong = [topics[0] if place % 6 == 0 else topic for place, topic in enumerate(topics)]
    for name, column in (("labelled", topics), ("held-out", wrong), ("test", wrong)):
        pq.write_table(pa.table({"text": texts, "topic": column}), folder / f"{name}.parquet")
    pq.write_table(pa.table({"text": texts}), folder / "texts.parquet")


def masked(line: str) -> str:
    """A line without its numbers."""
    return re.sub(r"[-+]?\d[\d.,]*", "#", line)


@pytest.mark.torch
@pytest.mark.parametrize(
    "heading", ["Compare two runs", "Rows for review", "Scores that mean something", "Labels with a known error rate"]
)
def test_the_commands_of_a_section_run_and_print_what_is_shown(
    heading: str,
    preln: Command,
    demo_output: str,
    short_output: str,
    repository: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    commands_run_here(monkeypatch)
    (tmp_path / "jobs").symlink_to(repository / "jobs")
    labelled(tmp_path, demo_output)
    (tmp_path / "january").symlink_to(demo_output)
    (tmp_path / "february").symlink_to(short_output)
    page = (repository / "docs" / "after-a-run.md").read_text(encoding="utf-8")
    section = page.split(f"## {heading}\n")[1].split("\n## ")[0]
    examples = EXAMPLE.findall(section)
    assert examples
    for job in re.findall(r"```yaml\n(.*?)```", section, re.DOTALL):
        (tmp_path / "topics.yaml").write_text(job)
    for commands, shown in examples:
        printed: list[str] = []
        for command in commands.splitlines():
            _, *words = shlex.split(command)
            ended = preln(*words)
            assert ended.code == next((code for word, code in EXPECTED_CODES.items() if word in words), 0), ended.err
            printed += ended.out.splitlines()
            if (tmp_path / "review.jsonl").exists():
                reviewed(tmp_path / "review.jsonl")
        assert [line for line in shown.splitlines() if masked(line) not in map(masked, printed)] == []
