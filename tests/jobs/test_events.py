"""Every line that `preln annotate --json` prints is an event of docs/events.schema.json, however the run ends."""

import gzip
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from jobs import progress
from jobs.events import json_schema
from jobs.progress import ProgressLine
from pipeline.cluster import ray_state
from pipeline.output.sink import Receipt
from tests.command import Command, in_this_process
from tests.events import SCHEMA, events_of
from tests.pipeline.run_here import commands_run_here
from tests.pipeline.small import CHECKPOINT


@pytest.fixture
def preln(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    monkeypatch.setattr(progress, "QUIET_SECONDS", 0.2)
    # As `jobs.connect` does for the Ray that it connects to, which here the tests have started.
    monkeypatch.setattr("ray._private.worker.print_to_stdstream", ray_state._print_nothing)
    return in_this_process(monkeypatch, capsys)


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """A run over 200 texts in a compressed file, cut into shards of 10."""
    (tmp_path / "in").mkdir()
    lines = "".join(
        json.dumps({"text": f"Text number {number}." if number % 10 else ""}) + "\n" for number in range(200)
    )
    (tmp_path / "in" / "a.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    flags = ["--task", "text-classification", "--model", CHECKPOINT, "--dtype", "float32", "--json"]
    flags += ["--input", str(tmp_path / "in"), "--output", str(tmp_path / "out")]
    return ["annotate", *flags, "--set", "shards.rows=10", "--set", "resources.gpus=0"]


def test_the_schema_is_that_of_the_code(preln: Command) -> None:
    committed = json.loads(SCHEMA.read_text(encoding="utf-8"))
    assert committed == json_schema(), "run `make schema` and commit docs/events.schema.json"
    jsonschema.Draft202012Validator.check_schema(committed)
    with pytest.raises(jsonschema.ValidationError):
        events_of('{"event": "progress", "rows": 1}')


def test_the_page_has_every_event(repository: Path) -> None:
    page = (repository / "docs/operations.md").read_text("utf-8")
    for name in json_schema()["discriminator"]["mapping"]:
        assert f"| `{name}` |" in page


def after(count: int) -> Callable[[ProgressLine, Receipt], None]:
    """A `committed` during which an interrupt arrives, as a signal would raise it."""
    seen: list[Receipt] = []
    as_it_is = ProgressLine.committed

    def committed(line: ProgressLine, receipt: Receipt) -> None:
        as_it_is(line, receipt)
        seen.append(receipt)
        if len(seen) == count:
            raise KeyboardInterrupt

    return committed


def interrupted(*_: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.ray
@pytest.mark.torch
@pytest.mark.usefixtures("local_ray")
def test_a_run_that_is_interrupted_resumed_finished_and_given_again(
    preln: Command, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(ProgressLine, "planned", interrupted)
        ended = preln(*words)
        assert (ended.code, [event["event"] for event in events_of(ended.out)][-1]) == (130, "interrupted")
    with monkeypatch.context() as patch:
        patch.setattr(ProgressLine, "committed", after(2))
        ended = preln(*words)
    last = events_of(ended.out)[-1]
    assert (ended.code, last["event"], last["state"], last["shards"]) == (130, "finished", "interrupted", 2)
    ended = preln(*words)
    events = events_of(ended.out)
    assert ended.code == 0
    kinds = Counter(event["event"] for event in events)
    assert (kinds["planned"], kinds["ready"], kinds["finished"]) == (1, 1, 1)
    assert [event["phase"] for event in events if event["event"] == "phase"][:2] == ["planning", "loading the model"]
    (planned,) = [event for event in events if event["event"] == "planned"]
    assert planned["streams"] == 1
    assert 2 <= planned["done"] < 20  # workers may write what they have for a moment longer
    assert events[-1]["dataset"]["rows"] == 200
    assert events[-1]["errors"] == {"empty": events[-1]["shards"]}, "one in each shard of 10"
    assert kinds["progress"] > 0
    (ready,) = [event for event in events if event["event"] == "ready"]
    assert ready["device"] == "cpu in float32"
    again = events_of(preln(*words).out)
    assert (again[-1]["state"], again[-1]["rows"]) == ("done", 0)


@pytest.mark.torch
def test_runs_that_fail_say_so_in_their_last_event(
    preln: Command, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands_run_here(monkeypatch, replica=True)
    ended = preln(*words, "--set", "input.columns.text=body")
    (line,) = ended.err.splitlines()
    assert events_of(ended.out)[-1] == {"event": "failed", "error": line.removeprefix("preln: "), "exit_code": 2}
    refused = preln("annotate", tmp_path / "no.yaml", "--json")
    (only,) = events_of(refused.out)
    assert (refused.code, only["event"], only["exit_code"]) == (2, "failed", 2)
    file = tmp_path / "in" / "b.jsonl.gz"
    file.write_bytes(gzip.compress(b'{"text": "cut off"}\n' * 100)[:-20])
    ended = preln(*words)
    last = events_of(ended.out)[-1]
    assert (ended.code, last["event"], last["state"]) == (3, "finished", "failed-shards")
    assert "b.jsonl.gz" in last["failed"][0]
