"""Replicas that can't start or stop answering, stores that never answer, people who press Ctrl-C: every run ends, and says why.

Real processes: the model's child, and `preln annotate` as a person runs it.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pyarrow.dataset as ds
import pytest

from jobs.interruption import INTERRUPTED
from pipeline import run
from pipeline.cluster.placement import Cluster
from pipeline.errors import RunFailed
from pipeline.flow import INIT_TRIES
from pipeline.output.job import FrozenJob
from pipeline.output.plan import Plan
from pipeline.output.report import Report
from pipeline.output.sink import Receipt
from pipeline.spec.job_spec import JobSpec
from tests.command import in_this_process
from tests.pipeline import ill_model
from tests.pipeline.small import CHECKPOINT, spec

pytestmark = [pytest.mark.ray, pytest.mark.timeout(500)]

END_SECONDS = 10.0
"""What an interrupted command may take to its end."""
STALL = 6.0
"""Seconds without an answer after which a model's process is taken for hung, here: more than any start takes."""
HANGING_STALL = 1.0
"""The same where none is to start."""
PATIENCE = 150.0
"""How long a test waits for what must happen, on a machine however busy."""


class Nobody:
    """A watcher that does not look."""

    def planned(self, job: FrozenJob, plan: Plan) -> None:
        """Not interested."""

    def committed(self, receipt: Receipt) -> None:
        """Nor in this."""


def until(condition: Callable[[], object], *, what: str) -> None:
    """Wait for something. Fails after PATIENCE."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.05)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """The embedded checkpoint's tokenizer, for a model that does as it is told."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    for file in Path(CHECKPOINT).iterdir():
        (folder / file.name).symlink_to(file)
    (folder / "nap").write_text("0")
    return folder


def job(folder: Path, checkpoint: Path, *, ill: str, rows: int = 2, stall: float = STALL) -> JobSpec:
    (checkpoint / "ill").write_text(ill)
    (folder / "in.txt").write_text("".join(f"Row {row}\n" for row in range(rows)))
    return spec(
        source=str(folder / "in.txt"),
        output=str(folder / "out"),
        model={"checkpoint": str(checkpoint), "dtype": "float32"},
        limits={"stall": stall},
        shards={"bytes": 100},
        resources={"gpus": 0, "replicas": 1, "cpus": 1.0, "batch_tokens": 50},
    )


def annotate(job: JobSpec) -> Report:
    return run.annotate(spec=job, cluster=Cluster(lambda: None), watcher=Nobody(), loader=ill_model.LOADER)


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("memory", "could not load .*: MemoryError: cannot allocate 96 GB"),
        ("killed", "ended while loading .*: SIGKILL"),
        ("hangs", f"ended while loading .*: hung: no answer in {HANGING_STALL:.0f} s"),
    ],
)
def test_a_replica_that_can_not_start_ends_the_run_with_its_reason_after_two_more_tries(
    local_ray: None, tmp_path: Path, checkpoint: Path, how: str, reason: str
) -> None:
    stall = HANGING_STALL if how == "hangs" else STALL
    with pytest.raises(RunFailed, match=reason) as ended:
        annotate(job(tmp_path, checkpoint, ill=f"{how} {INIT_TRIES}", stall=stall))
    assert len(ill_model.starts_of(checkpoint)) == INIT_TRIES
    assert "run the same command to resume" in str(ended.value)
    assert "\n" not in str(ended.value)


def test_a_replica_that_starts_at_the_third_try_runs(local_ray: None, tmp_path: Path, checkpoint: Path) -> None:
    report = annotate(job(tmp_path, checkpoint, ill=f"raises {INIT_TRIES - 1}"))
    assert (report.state, report.total_rows) == ("done", 2)
    assert len(ill_model.starts_of(checkpoint)) == INIT_TRIES


def test_a_model_process_that_stalls_is_replaced_and_no_row_is_blamed(
    local_ray: None, tmp_path: Path, checkpoint: Path
) -> None:
    rows = 60
    (checkpoint / "nap").write_text("0.1")

    def stop_the_first() -> None:
        until(lambda: list((tmp_path / "out/data").glob("*.parquet")), what="a shard")
        os.kill(ill_model.starts_of(checkpoint)[0], signal.SIGSTOP)

    stopper = threading.Thread(target=stop_the_first)
    stopper.start()
    report = annotate(job(tmp_path, checkpoint, ill="well 0", rows=rows))
    stopper.join()
    first, *others = ill_model.starts_of(checkpoint)
    assert len(others) == 1
    assert not psutil.pid_exists(first)
    assert (report.state, report.total_rows, report.total_errors) == ("done", rows, {})


@dataclass
class Command:
    """`preln annotate` in a process group of its own, as a terminal starts it."""

    process: subprocess.Popen[str]
    output: Path

    def descendants(self) -> list[psutil.Process]:
        """All processes that it has started, and theirs."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def interrupted(self, how: signal.Signals) -> tuple[float, str]:
        """Ctrl-C for the whole group, or SIGTERM for the command alone; seconds to its end, and what it said."""
        started = self.descendants()
        began = time.monotonic()
        if how == signal.SIGINT:
            os.killpg(self.process.pid, how)
        else:
            self.process.send_signal(how)
        said, _ = self.process.communicate(timeout=PATIENCE)
        seconds = time.monotonic() - began
        assert self.process.returncode == INTERRUPTED, said
        assert "Traceback" not in said
        until(lambda: not any(process.is_running() for process in started), what="the end of what it started")
        return seconds, said


def words_of(source: str, output: Path | str) -> list[str]:
    """What is typed after `preln`."""
    words = ["annotate", "--task", "text-classification", "--dtype", "float32", "--model", CHECKPOINT]
    return [*words, "--input", source, "--output", str(output), "--set", "shards.bytes=2000"]


@contextmanager
def preln_annotate(
    source: str, output: Path | str, *, repository: Path, environment: Mapping[str, str] | None = None
) -> Iterator[Command]:
    process = subprocess.Popen(
        [sys.executable, "-m", "jobs", *words_of(source, output)],
        cwd=repository,
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield Command(process, Path(output))
    finally:
        process.kill()
        process.communicate()


def imports(command: Command) -> bool:
    """Python is up, and pyarrow, which comes early, is being loaded."""
    return any("arrow" in part.path for part in psutil.Process(command.process.pid).memory_maps())


def starts_ray(command: Command) -> bool:
    return any(process.name() == "gcs_server" for process in command.descendants())


def starts_replicas(command: Command) -> bool:
    return any(command.output.glob("_plans/*"))


def works(command: Command) -> bool:
    return len(list(command.output.glob("data/*.parquet"))) > 2


@pytest.mark.torch
@pytest.mark.parametrize(
    ("how", "when"),
    [
        (signal.SIGINT, imports),
        (signal.SIGTERM, starts_ray),
        (signal.SIGINT, starts_replicas),
    ],
)
def test_an_interrupted_command_ends_in_ten_seconds_and_says_how_to_go_on(
    ray_address: str,
    repository: Path,
    tmp_path: Path,
    how: signal.Signals,
    when: Callable[[Command], bool],
) -> None:
    # A Ray of its own only where that is what is interrupted.
    environment = {} if when is starts_ray else {"RAY_ADDRESS": ray_address}
    (tmp_path / "in.txt").write_text("".join(f"This is the text of row {row}.\n" for row in range(5_000)))
    with preln_annotate(
        str(tmp_path / "in.txt"), tmp_path / "out", repository=repository, environment=environment
    ) as command:
        until(lambda: when(command), what=when.__name__)
        seconds, said = command.interrupted(how)
    assert seconds < END_SECONDS
    assert said.splitlines()[-1].startswith("Interrupted: ")
    assert "run the same command to resume" in said or "nothing was started" in said


@pytest.mark.torch
def test_the_command_goes_on_where_it_was_interrupted(
    local_ray: None,
    repository: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In a process of its own with its own Ray, and then in this one, on the Ray that is here."""
    rows = 5_000
    (tmp_path / "in.txt").write_text("".join(f"Row {row}.\n" for row in range(rows)))
    with preln_annotate(str(tmp_path / "in.txt"), tmp_path / "out", repository=repository) as command:
        until(lambda: works(command), what="work")
        seconds, said = command.interrupted(signal.SIGTERM)
    assert seconds < END_SECONDS
    assert "of this run committed; run the same command to resume" in said
    written = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "out/data").glob("*.parquet")}
    monkeypatch.chdir(repository)
    ended = in_this_process(monkeypatch, capsys)(*words_of(str(tmp_path / "in.txt"), tmp_path / "out"))
    assert ended.code == 0, ended.err
    found = ds.dataset(tmp_path / "out/data").to_table(columns=["text"])["text"].to_pylist()
    assert sorted(found) == sorted(f"Row {row}." for row in range(rows))
    assert {
        file.name: file.stat().st_mtime_ns for file in (tmp_path / "out/data").glob("*.parquet")
    }.items() >= written.items()


def test_a_command_whose_store_never_answers_can_be_interrupted(
    ray_environment: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "test")
        with preln_annotate("s3://in/", "s3://out", repository=repository) as command:
            accepted, _ = silent.accept()
            seconds, said = command.interrupted(signal.SIGTERM)
            accepted.close()
    assert seconds < END_SECONDS
    assert "run the same command to resume" in said
