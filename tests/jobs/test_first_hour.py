"""What somebody meets first: help that answers at once, completion, and one line instead of a traceback."""

import os
import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from jobs import cli, connect, convert, evaluate
from jobs.arguments import TASK_NAMES
from jobs.evaluation import measure
from models.boundary import Head
from models.convert import StoredType, TargetFormat
from models.origin import OriginKind
from pipeline import run, tasks
from tests.command import Command, in_this_process
from tests.pipeline.small import CHECKPOINT, OfflineCluster

VERBS = [*(command.callback.__name__ for command in cli.app.registered_commands if command.callback), "tokenizer"]
HEAVY = (
    "ray",
    "pyarrow",
    "numpy",
    "pandas",
    "torch",
    "yaml",
    "rich.console",
    "pipeline.spec.job_spec",
    "models.config",
)
HELP_SECONDS = 0.5
SLOWER = 4.0
"""How much slower a loaded test machine may be than the one on which half a second of CPU was promised."""


def python(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[1]), **environment}
    return subprocess.run([sys.executable, *words], env=variables, capture_output=True, text=True)


@pytest.fixture
def preln(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    monkeypatch.setattr(connect, "this_cluster", OfflineCluster)
    return in_this_process(monkeypatch, capsys)


def test_the_command_line_imports_nothing_that_takes_long() -> None:
    found = python("-c", f"import sys, jobs.cli; print([name for name in {HEAVY} if name in sys.modules])")
    assert found.stdout.strip() == "[]", found.stderr


def test_help_takes_half_a_cpu_second() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = python("-m", "jobs", "annotate", "--help")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0
    assert (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime) < HELP_SECONDS * SLOWER


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(preln: Command, verb: str) -> None:
    ended = preln(verb, "--help")
    assert ended.code == 0
    assert "Usage:" in ended.out


def test_the_words_that_help_knows_by_heart_are_those_of_the_code() -> None:
    formats = [name for choice in get_args(TargetFormat) for name in (get_args(choice) or (choice,))]
    assert set(TASK_NAMES) == tasks.TASK_NAMES
    assert get_args(OriginKind) == convert.KINDS
    assert get_args(Head) == convert.HEADS
    assert list(convert.FORMATS) == formats
    assert get_args(StoredType) == convert.DTYPES
    assert measure.TASKS == evaluate.TASKS


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes_verbs_flags_and_task_names(shell: str) -> None:
    def completed(line: str) -> str:
        words = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1), "_TYPER_COMPLETE_ARGS": line}
        code = "import sys; sys.argv = ['preln']; from jobs.cli import app; app(prog_name='preln')"
        return python(
            "-c", code, _PRELN_COMPLETE=f"complete_{shell}", _TYPER_COMPLETE_FISH_ACTION="get-args", **words
        ).stdout

    assert "annotate" in completed("preln ann")
    assert "--accept-failed" in completed("preln annotate --acc")
    assert "token-classification" in completed("preln annotate --task tok")


def test_a_bug_is_one_line_and_a_file_and_with_preln_debug_a_traceback(
    preln: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(**_: object) -> None:
        raise RuntimeError("two\nlines")

    monkeypatch.setattr(run, "annotate", broken)
    monkeypatch.delenv("PRELN_DEBUG", raising=False)
    words = ["annotate", "--task", "text-classification", "--model", CHECKPOINT, "--input", tmp_path]
    words += ["--output", tmp_path / "out"]
    ended = preln(*words)
    (line,) = ended.err.splitlines()
    assert ended.code == 1
    assert line.startswith("preln: internal error: RuntimeError: two lines; the traceback is in ")
    log = Path(re.split(r"traceback is in ", line)[1])
    assert "Traceback (most recent call last)" in log.read_text()
    log.unlink()
    monkeypatch.setenv("PRELN_DEBUG", "1")
    with pytest.raises(RuntimeError, match="two"):
        cli.main()
