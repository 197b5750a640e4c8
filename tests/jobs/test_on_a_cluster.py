"""Jobs submitted over HTTP to a two-node Ray: watched, submitted twice, stopped and failed.

One scenario, told once (`story`), and what it must have shown.
"""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pytest
from ray.cluster_utils import Cluster as RayCluster
from typer.testing import CliRunner

from jobs.cli import app
from jobs.stop import stop
from jobs.submission.job_api import JobApi
from jobs.submission.submission import follow
from pipeline.output.folder import OutputFolder
from pipeline.output.verify import verify
from pipeline.spec.job_spec import JobSpec
from pipeline.telemetry.metrics import COUNTERS, HISTOGRAMS
from tests.jobs.promql import Scraped, unanswered
from tests.pipeline.on_nodes import driver, free_port, nodes, sleepy_job, until, whole
from tests.pipeline.small import CHECKPOINT

pytestmark = [pytest.mark.ray, pytest.mark.torch, pytest.mark.timeout(300)]

SCRAPE_SECONDS = 1.0
"""Between two scrapes: an answer takes an agent of Ray's a tenth of a second."""
FILES = 24
ROWS = 12


@dataclass
class Outside:
    """The cluster as seen from outside: its dashboard's address, the ports of metrics, and what was scraped so far."""

    cluster: RayCluster
    address: str
    metrics: tuple[int, ...]
    repository: Path
    scraped: Scraped = field(default_factory=Scraped)

    def command(self, *words: str | Path) -> list[str]:
        """A command of preln with the cluster's address."""
        return [sys.executable, "-m", "jobs", *map(str, words)]

    def run(self, verb: str, *words: str | Path, ray_address: bool = False) -> subprocess.CompletedProcess[str]:
        """A command, to its end."""
        environment = {**os.environ, "RAY_API_SERVER_ADDRESS": self.address}
        if ray_address:
            environment["RAY_ADDRESS"] = self.cluster.address
        return subprocess.run(
            self.command(verb, *words),
            cwd=self.repository,
            env=environment,
            capture_output=True,
            text=True,
            timeout=150,
        )

    def here(self, verb: str, *words: str | Path) -> str:
        """What a command prints, run in this process: a process takes seconds to begin."""
        run = CliRunner().invoke(app, [verb, *map(str, words)], env={"RAY_API_SERVER_ADDRESS": self.address})
        assert run.exit_code == 0, run.output
        return run.stdout

    @contextmanager
    def start(self, *words: str | Path, ray_address: bool = False) -> Iterator[subprocess.Popen[str]]:
        """A command that goes on, and is ended here at last."""
        environment = {**os.environ, "RAY_API_SERVER_ADDRESS": self.address}
        if ray_address:
            environment["RAY_ADDRESS"] = self.cluster.address
        with subprocess.Popen(
            self.command(*words),
            cwd=self.repository,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def scrape(self) -> None:
        """What Prometheus would get now."""
        for port in self.metrics:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as reply:
                    self.scraped.take(reply.read().decode())
            except OSError:
                continue  # a node that was killed


@pytest.fixture(scope="module")
def outside(ray_environment: Path, repository: Path) -> Iterator[Outside]:
    """A head with a dashboard, and a node that can be lost."""
    dashboard, first, second = free_port(), free_port(), free_port()
    head = {
        "num_cpus": 2,
        "include_dashboard": True,
        "dashboard_port": dashboard,
        "dashboard_agent_listen_port": free_port(),
        "metrics_export_port": first,
    }
    with nodes(head, {"num_cpus": 2, "metrics_export_port": second}) as cluster:
        yield Outside(cluster, f"http://127.0.0.1:{dashboard}", (first, second), repository)


def job_of(folder: Path, *, name: str = "out") -> Path:
    """A job file over `in`, one small shard for each of its files."""
    spec = JobSpec.parse(
        {
            "input": str(folder / "in"),
            "model": {"checkpoint": CHECKPOINT, "dtype": "float32", "max_length": 16},
            "task": "text-classification",
            "output": str(folder / name),
            "shards": {"rows": ROWS, "bytes": 2_000},
            "resources": {"replicas": {"min": 1, "max": 2}},
        }
    )
    file = folder / f"{name}.yaml"
    file.write_text(spec.to_yaml())
    return file


def add_file(folder: Path, name: str) -> None:
    """One more input file; a row in it is empty, one can't be a text, and another is too long."""
    texts: list[str | None] = [f"Row {row} of {name}." for row in range(ROWS - 3)]
    texts += [None, "\x1b[0m", "word " * 40]
    (folder / "in").mkdir(exist_ok=True)
    (folder / "in" / f"{name}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


@dataclass
class Story:
    """What happened: exit codes and words of each step. kept: objects that a stopped run left, and when each was written."""

    ids: list[str]
    stopped: str
    kept: dict[str, int]
    log: str
    code: int
    words: str
    folder: Path


@pytest.fixture(scope="module")
def story(outside: Outside, tmp_path_factory: pytest.TempPathFactory) -> Story:
    """Submitted, submitted again, stopped amid its work; submitted once more, watched while a node is lost, and ended."""
    folder = tmp_path_factory.mktemp("job")
    for index in range(FILES):
        add_file(folder, f"{index:03d}")
    job = job_of(folder)
    submit = ("submit", job, "--image-has-it", "--env", "PRELN_LOG_LEVEL=DEBUG")
    ids = [outside.run(*submit, "--no-wait").stdout.split()[-1], outside.here(*submit, "--no-wait").split()[-1]]
    until(lambda: bool(objects(folder)))
    with redirect_stdout(
        io.StringIO()
    ) as stopped:  # in this process: a command takes seconds to begin, the job is not so slow
        stop(ids[0], address=outside.address)
    kept = objects(folder)
    log = outside.here("logs", ids[0], "--no-follow")
    lost, scraped = False, 0.0
    with outside.start(*submit) as process:
        while process.poll() is None:
            if time.monotonic() - scraped > SCRAPE_SECONDS:
                outside.scrape()
                scraped = time.monotonic()
            time.sleep(0.1)
            if not lost and len(objects(folder)) > len(kept) + FILES // 8:
                outside.cluster.remove_node(outside.cluster.list_all_nodes()[-1])
                lost = True
        words = process.communicate()[0]
    assert lost
    return Story(ids, stopped.getvalue(), kept, log, process.returncode, words, folder)


def objects(folder: Path) -> dict[str, int]:
    """Annotated shards, and when each was written, in nanoseconds."""
    return {file.name: file.stat().st_mtime_ns for file in (folder / "out/data").glob("*.parquet")}


def test_a_job_that_runs_is_found_rather_than_started_twice(story: Story) -> None:
    assert re.fullmatch(r"preln-[0-9a-f]{12}-1", story.ids[0])
    assert story.ids[0] == story.ids[1]


def test_a_job_stopped_amid_its_work_says_so_and_keeps_its_log_and_its_shards(story: Story) -> None:
    assert story.stopped.strip() == f"{story.ids[0]}: stopped"
    assert 0 < len(story.kept) < FILES
    assert "of this run committed; run the same command to resume." in story.log
    after = objects(story.folder)
    assert {name: after[name] for name in story.kept} == story.kept, "the next attempt wrote none of them again"


def test_submitting_again_after_an_end_is_a_new_attempt_with_its_log_and_exit_code(story: Story) -> None:
    assert story.code == 0, story.words
    assert story.ids[0].removesuffix("-1") + "-2" in story.words
    assert story.words.count(f"Done: {FILES * ROWS} rows of {FILES} files in {FILES} shards.") == 1


# Ray's client asks for a log's tail so.
@pytest.mark.filterwarnings("ignore:ssl=None is deprecated:DeprecationWarning")
def test_the_log_of_an_ended_job_is_followed_as_it_is(story: Story, outside: Outside) -> None:
    api = JobApi.at(outside.address)
    log = api.log(story.ids[0])
    assert log.replace("\t", " " * 4) == story.log  # printed, a tab is blanks
    assert "".join(follow(api, story.ids[0])) == log


def by_rays_own_command(outside: Outside, *words: str | Path) -> str:
    """What a job of `ray job submit` prints, whose code is the repository's, uploaded; it ends well."""
    submit = ["job", "submit", "--working-dir", ".", "--", "python", "-m", "jobs", *map(str, words)]
    run = subprocess.run(
        [str(Path(sys.executable).parent / "ray"), *submit],
        cwd=outside.repository,
        env={**os.environ, "RAY_ADDRESS": outside.address},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def test_rays_own_command_runs_our_code_too(outside: Outside, tmp_path: Path) -> None:
    add_file(tmp_path, "one")
    found = by_rays_own_command(outside, "plan", job_of(tmp_path), "--json")
    assert '"files":1' in found.replace(" ", "")


@pytest.mark.slow
def test_rays_own_command_runs_a_job_too(outside: Outside, tmp_path: Path) -> None:
    add_file(tmp_path, "one")
    assert f"Done: {ROWS} rows of 1 file in 1 shard." in by_rays_own_command(outside, "annotate", job_of(tmp_path))
    assert verify(str(tmp_path / "out")).holds


def test_doctor_of_a_job_runs_on_the_cluster(outside: Outside, tmp_path: Path) -> None:
    add_file(tmp_path, "one")
    words = ("submit", job_of(tmp_path), "--doctor", "--image-has-it", "--set", "resources.gpus=0")
    run = outside.run(*words, "--", "--json")
    lines = [line for line in run.stdout.splitlines() if line.startswith("{")]  # Ray's own lines are in a job's log too
    found = {line["about"]: line for line in map(json.loads, lines)}
    assert found["torch model"]["good"] is True, run.stdout + run.stderr
    assert found["storage"]["said"] == f"{tmp_path / 'out'} answers: 0 objects"
    assert "model_type roberta-prelayernorm" in found["checkpoint"]["said"]
    assert "RAY_ADDRESS" in found["ray"]["said"]
    assert run.returncode == (1 if any(line["good"] is False for line in found.values()) else 0)
    assert not (tmp_path / "out").exists()


def test_a_run_that_lost_a_node_has_every_row_once(story: Story) -> None:
    table = ds.dataset(story.folder / "out/data").to_table(columns=["source", "row", "error"])
    keys = set(zip(table["source"].to_pylist(), table["row"].to_pylist(), strict=True))
    assert len(keys) == table.num_rows == FILES * ROWS
    assert verify(str(story.folder / "out")).holds


def expressions(repository: Path) -> list[str]:
    dashboard = json.loads((repository / "docs/grafana-dashboard.json").read_text())
    return [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]


def test_every_expression_of_the_dashboard_is_answered_by_a_live_scrape(
    story: Story, outside: Outside, repository: Path
) -> None:
    pytest.importorskip("promql_parser", reason="promql-parser is not installed: pip install -e '.[test]'")
    documented = expressions(repository)
    faults = {expression: found for expression in documented if (found := unanswered(expression, outside.scraped))}
    assert not faults, sorted(name for name in outside.scraped.series if "preln" in name)
    dashboard = json.loads((repository / "docs/grafana-dashboard.json").read_text())
    variables = re.findall(r"label_values\((\w+), (\w+)\)", json.dumps(dashboard["templating"]))
    assert variables
    assert all(label in labels for metric, label in variables for labels in outside.scraped.of(metric))


def test_every_metric_of_ours_is_on_the_dashboard_and_in_the_runbook(repository: Path) -> None:
    shown, documented = " ".join(expressions(repository)), (repository / "docs/operations.md").read_text()
    for name in (*(f"{name}_total" for name in COUNTERS), *HISTOGRAMS):
        assert f"ray_preln_{name}" in shown
        assert f"`{name}" in documented


@pytest.mark.parametrize(
    ("expression", "fault"),
    [
        ("ray_preln_row_total", "no series is"),
        ('rate(ray_preln_rows_total{task="no-such-task"}[$__rate_interval])', "no series is"),
        ("sum by (tasks) (rate(ray_preln_rows_total[$__rate_interval]))", "has no label tasks"),
        ("rate(ray_node_cpu_utilization[5m])", "which is a gauge"),
        ("histogram_quantile(0.5, sum by (task) (rate(ray_preln_batch_fill_bucket[5m])))", "not grouped by le"),
    ],
)
def test_the_check_of_the_dashboard_finds_what_is_wrong(
    expression: str, fault: str, story: Story, outside: Outside
) -> None:
    pytest.importorskip("promql_parser", reason="promql-parser is not installed: pip install -e '.[test]'")
    (found,) = unanswered(expression, outside.scraped)
    assert fault in found


def test_workers_keep_a_journal_of_json_lines_with_run_shard_and_attempt(story: Story, outside: Outside) -> None:
    head: Any = outside.cluster.head_node
    session = Path(head.get_session_dir_path())
    lines = [line for file in session.glob("logs/worker-*.err") for line in file.read_text().splitlines()]
    journal: list[dict[str, Any]] = [json.loads(line) for line in lines if line.startswith('{"time"')]
    committed = [
        line for line in journal if line["message"] == "shard committed" and str(story.folder) in line["source"]
    ]
    # Of the run that was stopped, a worker may have been ended between its last object and the line about it.
    assert {line["shard"] for line in committed} >= set(objects(story.folder)) - set(story.kept)
    assert all({"run", "attempt", "node", "rows", "source"} <= set(line) for line in committed)
    assert {line["message"] for line in journal} >= {"shard committed", "model loaded"}


def gets_a_second_file(process: subprocess.Popen[str], folder: Path) -> None:
    """What a command that stays makes of a file that comes after its first run; ends it."""
    until(lambda: (folder / "out/_SUCCESS").exists(), process=process)
    add_file(folder, "second")
    until(lambda: len(list((folder / "out/data").glob("*.parquet"))) == 2, process=process)
    until(
        lambda: (success := OutputFolder(str(folder / "out")).read_success()) is not None and success.files == 2,
        process=process,
    )
    process.send_signal(signal.SIGTERM)
    words = process.communicate(timeout=60)[0]
    assert process.returncode == 130, words
    assert verify(str(folder / "out")).holds


def test_the_command_stays_and_annotates_what_is_new(repository: Path, tmp_path: Path) -> None:
    """A real process, which runs its jobs in itself; on a cluster it is slow."""
    program = (
        "import pytest; from tests.pipeline.run_here import commands_run_here\n"
        "commands_run_here(pytest.MonkeyPatch())\n"
        "from jobs.__main__ import main; main()"
    )
    add_file(tmp_path, "first")
    words = [sys.executable, "-c", program, "annotate", str(job_of(tmp_path)), "--every", "1s", "--json"]
    with subprocess.Popen(
        words, cwd=repository, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            gets_a_second_file(process, tmp_path)
        finally:
            process.kill()


@pytest.mark.slow
def test_the_command_stays_on_a_cluster_and_annotates_what_is_new(outside: Outside, tmp_path: Path) -> None:
    add_file(tmp_path, "first")
    with outside.start("annotate", job_of(tmp_path), "--every", "1s", "--json", ray_address=True) as process:
        gets_a_second_file(process, tmp_path)


# In every run of the tests, test_failpoints.py has another driver do the same work at every step, without Ray.
@pytest.mark.slow
def test_two_runs_of_the_same_job_at_once_do_no_harm(outside: Outside, tmp_path: Path) -> None:
    """By a model that takes its time, so that both are at work at once; each with a replica that leaves room to read."""
    job = sleepy_job(tmp_path, shards=16, nap=0.75, gpus=0, cpus=0.4, replicas=1)
    with (
        driver(outside.cluster, job, tmp_path, outside.repository) as one,
        driver(outside.cluster, job, tmp_path, outside.repository) as other,
    ):
        assert [run.end()["state"] for run in (one, other)] == ["done", "done"]
    first, second = ([event["time"] for event in run.of("committed")] for run in (one, other))
    assert max(first[0], second[0]) < min(first[-1], second[-1]), "they were at work at the same time"
    records = [json.loads(file.read_text()) for file in (tmp_path / "out/_runs").glob("*.json")]
    assert len(records) == 2
    assert all(record["shards"] > 0 for record in records)
    assert whole(tmp_path, 16)
    assert verify(str(tmp_path / "out")).holds


def test_a_demand_that_the_cluster_can_never_meet_is_refused_at_once(outside: Outside, tmp_path: Path) -> None:
    add_file(tmp_path, "one")
    run = outside.run("annotate", job_of(tmp_path), "--set", "resources.gpus=1", ray_address=True)
    assert run.returncode == 2
    assert "1 replica with 1 GPU and 1 CPU can never be placed" in run.stderr
    assert not (tmp_path / "out").exists()
