"""What commands print, and exit code 2 with one line where nothing can be started."""

import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from typer.main import get_command

from jobs import cli, connect
from pipeline import __version__
from pipeline.output.folder import OutputFolder
from pipeline.prepare import open_job
from pipeline.spec.job_spec import JobSpec
from tests.command import Command, Ended, in_this_process
from tests.pipeline.small import CHECKPOINT, OfflineCluster, spec


@pytest.fixture
def preln(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command in this process, without a Ray to connect to."""
    monkeypatch.setattr(connect, "this_cluster", OfflineCluster)
    return in_this_process(monkeypatch, capsys)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"id": [1, 2], "text": ["a", "b"]}), tmp_path / "in" / "a.parquet")
    return tmp_path


def words(folder: Path, **changes: str | Path) -> list[str | Path]:
    flags = {
        "task": "text-classification",
        "model": CHECKPOINT,
        "input": folder / "in",
        "output": folder / "out",
        "dtype": "float32",
        **changes,
    }
    return [word for name, value in flags.items() for word in (f"--{name}", value)]


def refused(ended: Ended) -> str:
    """The one line of a refusal."""
    assert ended.code == 2
    assert ended.out == ""
    (line,) = ended.err.splitlines()
    assert line.startswith("preln: ")
    assert "Traceback" not in ended.err
    return line


def test_the_version_is_printed(preln: Command) -> None:
    assert preln("--version") == Ended(0, f"{__version__}\n", "")


def test_help_names_every_verb_and_each_verb_says_what_it_does(preln: Command) -> None:
    told = preln("--help")
    assert told.code == 0
    verbs = get_command(cli.app).commands  # type: ignore[attr-defined]  # a group, for the app has many verbs
    assert len(verbs) > 10
    for verb in verbs:
        assert re.search(rf"\b{verb}\b", told.out)
        assert f"{verb} [OPTIONS]" in preln(verb, "--help").out


def test_words_that_mean_nothing_exit_with_2(preln: Command, folder: Path) -> None:
    for wrong in (["anotate"], ["annotate", "--no-such-flag"], ["status"], ["annotate", "--replicas", "0"]):
        ended = preln(*wrong)
        assert ended.code == 2
        assert "Traceback" not in ended.err


def test_show_spec_prints_a_job_file_with_all_defaults_that_reads_back(preln: Command, folder: Path) -> None:
    told = preln("annotate", *words(folder), "--set", "input.columns.text=body", "--show-spec")
    assert told.code == 0
    parsed = JobSpec.from_yaml(told.out)
    assert parsed.input.columns == {"text": "body"}
    assert yaml.safe_load(told.out)["limits"]["error_rows"] == 100
    path = folder / "job.yaml"
    path.write_text(told.out)
    assert preln("annotate", path, "--show-spec").out == told.out
    assert not (folder / "out").exists()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["inptu.urls=x"], "unknown key 'inptu'"),
        (["resources.replicas=0"], "resources.replicas"),
        (["input.columns.text=body"], "the column 'body', but the input has id, text; set input.columns.text"),
        (["input.urls=no/such/*.parquet"], "no/such/*.parquet matches no file"),
        (["model.checkpoint=no/such/model"], "no/such/model"),
        (["model.max_length=9999"], "model.max_length: 9999 tokens"),
        (["task.name=no-such-task"], "unknown task 'no-such-task'"),
        (["shards.rows"], "--set shards.rows: write key.path=value"),
    ],
)
@pytest.mark.parametrize("verb", ["annotate", "plan"])
def test_a_job_that_can_not_work_is_refused_in_one_line(
    preln: Command, folder: Path, verb: str, settings: list[str], said: str
) -> None:
    flags = [word for setting in settings for word in ("--set", setting)]
    assert said in refused(preln(verb, *words(folder), *flags))
    assert not (folder / "out").exists()


def test_brackets_in_a_message_are_printed_as_they_are(preln: Command, folder: Path) -> None:
    line = refused(preln("annotate", *words(folder), "--set", "input.urls='[bold]x[/bold].parquet'"))
    assert "[bold]x[/bold].parquet matches no file" in line


def test_a_job_file_that_is_not_there_is_refused(preln: Command, folder: Path) -> None:
    assert "no.yaml: No such file" in refused(preln("annotate", folder / "no.yaml"))


def test_a_plan_says_what_would_run_and_writes_nothing(preln: Command, folder: Path) -> None:
    pq.write_table(pa.table({"text": ["x"] * 5_000}), folder / "in" / "b.parquet")
    (folder / "in" / "README.md").write_text("no rows")
    told = preln("plan", *words(folder))
    assert told.code == 0
    assert re.search(r"files +2 \(2 new or changed, 0 unreadable\)", told.out)
    assert re.search(r"shards +4 to run, 0 done", told.out)
    assert re.search(r"rows +5,002", told.out)
    assert "README.md" in told.out
    assert not (folder / "out").exists()


def test_a_plan_for_machines_is_one_json_object(preln: Command, folder: Path) -> None:
    told = json.loads(preln("plan", *words(folder), "--json").out)
    assert (told["files"], told["shards"], told["rows"]) == (1, 1, 2)
    assert told["dtype"] == "float32"


def test_the_status_of_a_folder_is_told_for_people_and_for_machines(preln: Command, folder: Path) -> None:
    job, _ = open_job(spec=spec(source=str(folder / "in"), output=str(folder / "out")), cluster=OfflineCluster())
    OutputFolder(job.output).freeze(job)
    told = preln("status", folder / "out")
    assert told.code == 0
    assert "text-classification with " in told.out
    assert "Not complete; run the same annotate command to resume." in told.out
    values = json.loads(preln("status", folder / "out", "--json").out)
    assert (values["done"], values["missing"], values["complete"]) == (0, 0, False)
    assert values["fingerprint"] == job.fingerprint


def test_the_status_of_a_folder_that_holds_no_job_is_refused(preln: Command, folder: Path) -> None:
    assert "no _job.json; nothing was annotated into this folder" in refused(preln("status", folder / "in"))


def test_a_folder_of_another_job_is_refused_by_annotate_and_plan(preln: Command, folder: Path) -> None:
    job, _ = open_job(spec=spec(source=str(folder / "in"), output=str(folder / "out")), cluster=OfflineCluster())
    OutputFolder(job.output).freeze(job)
    for verb in ("annotate", "plan"):
        line = refused(preln(verb, *words(folder, task="feature-extraction")))
        assert 'task.name is "text-classification" there and "feature-extraction" here' in line
