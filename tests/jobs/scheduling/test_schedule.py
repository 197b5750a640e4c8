"""The schedule files are valid on their platforms."""

import ast
import configparser
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from jobs import cli
from tests.jobs.crds import check
from tests.pipeline.small import CHECKPOINT

NIGHTLY = "30 2 * * mon-fri"
IN_NUMBERS = "30 2 * * 1-5"
REMOTELY = ("--set", "input.urls=s3://a", "--set", "model.checkpoint=s3://b", "--set", "output.url=s3://c")
ON_GPUS = ("--set", "resources.gpus=1")


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """A job file that could run now; a percent sign in its folder's name, which cron and systemd both take for their own."""
    folder = tmp_path / "100% of it"
    (folder / "in").mkdir(parents=True)
    (folder / "in/a.txt").write_text("One line.\n")
    file = folder / "Topics.yaml"
    spec = {
        "input": str(folder / "in"),
        "model": CHECKPOINT,
        "task": "text-classification",
        "output": str(folder / "out"),
    }
    file.write_text(yaml.safe_dump(spec, width=10_000))
    return file


def schedule(monkeypatch: pytest.MonkeyPatch, *words: str | Path) -> int:
    """The verb in this process; its exit code."""
    monkeypatch.setattr(sys, "argv", ["preln", "schedule", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def written(monkeypatch: pytest.MonkeyPatch, job: Path, to: str, *more: str) -> dict[str, str]:
    """What the verb writes for a platform."""
    folder = job.parent / to
    assert schedule(monkeypatch, job, "--cron", NIGHTLY, "--to", to, "--out", folder, *more) == 0
    return {path.name: path.read_text() for path in folder.iterdir()}


REMOTE = """\
# Every night.
input: s3://corpus/reviews/*.parquet
model: s3://models/topics
task: text-classification
output: s3://corpus/annotated
"""


def test_for_kubernetes_both_ways_keep_to_their_definitions(monkeypatch: pytest.MonkeyPatch, job: Path) -> None:
    job.write_text(REMOTE)
    files = written(
        monkeypatch, job, "kubernetes", "--no-check", *ON_GPUS, "--time-zone", "Europe/Berlin", "--cuda-image", "mine:7"
    )
    assert set(files) == {"preln-topics-raycronjob.yaml", "preln-topics-cronjob.yaml"}
    own = list(yaml.safe_load_all(files["preln-topics-raycronjob.yaml"]))
    portable = list(yaml.safe_load_all(files["preln-topics-cronjob.yaml"]))
    check(own[-1])
    for manifest in (own[-1], portable[-1]):
        assert (manifest["spec"]["schedule"], manifest["spec"]["timeZone"]) == (IN_NUMBERS, "Europe/Berlin")
    (ray_job,) = [document["data"]["rayjob.yaml"] for document in portable if "rayjob.yaml" in document.get("data", {})]
    check(yaml.safe_load(ray_job))
    assert "mine:7" in ray_job
    wanted = {**yaml.safe_load(REMOTE), "resources": {"gpus": 1}}
    assert yaml.safe_load(own[0]["data"]["job.yaml"]) == wanted  # no default is written


def test_for_kubernetes_the_job_file_is_written_as_it_stands(monkeypatch: pytest.MonkeyPatch, job: Path) -> None:
    text = REMOTE + "resources: {gpus: 1}  # one replica per GPU\n"
    job.write_text(text)
    files = written(monkeypatch, job, "kubernetes", "--no-check")
    for content in files.values():
        (data,) = [part["data"] for part in yaml.safe_load_all(content) if "job.yaml" in part.get("data", {})]
        assert data["job.yaml"] == text


@pytest.mark.parametrize(
    ("setting", "key"),
    [
        ("input.urls=in/*.parquet", "input"),
        ("input.urls=[s3://corpus/a, file:///data/b]", "input"),
        ("model.checkpoint=/models/topics", "model"),
        ("model.checkpoint=http://localhost:9000/topics", "model"),
        ("output.url=~/annotated", "output"),
        ("output.url=simplecache::file:///annotated", "output"),
    ],
)
def test_for_kubernetes_what_a_pod_can_not_see_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], job: Path, setting: str, key: str
) -> None:
    job.write_text(REMOTE)
    words = ["--cron", "@daily", "--to", "kubernetes", *ON_GPUS, "--set", setting]
    assert schedule(monkeypatch, job, *words, "--out", job.parent / "files") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"a pod can't see paths of this machine ({key}: " in line
    assert "s3://corpus/a;" not in line
    assert not (job.parent / "files").exists()


@pytest.mark.parametrize("to", ["crontab", "systemd", "airflow"])
def test_a_relative_path_is_refused_where_the_schedule_runs_in_another_folder(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], job: Path, to: str
) -> None:
    monkeypatch.chdir(job.parent)
    job.write_text(job.read_text().replace(str(job.parent / "in"), "in"))
    assert schedule(monkeypatch, job, "--cron", "@daily", "--to", to, "--out", job.parent / "files") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "paths must be absolute; the job has input: in" in line
    assert not (job.parent / "files").exists()


def test_a_crontab_line_runs_the_command_under_a_lock(monkeypatch: pytest.MonkeyPatch, job: Path) -> None:
    text = written(monkeypatch, job, "crontab")["preln-topics.crontab"]
    (line,) = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert line.startswith(IN_NUMBERS + " ")
    command = line.removeprefix(IN_NUMBERS)
    assert "%" not in command.replace(r"\%", "")
    words = shlex.split(command.replace(r"\%", "%"))
    assert words[words.index("flock") + 1] == "--nonblock"
    assert words[words.index("annotate") + 1] == str(job)
    as_cron_runs_it = command.replace(r"\%", "%").replace(" -m jobs annotate", " -c pass")
    assert subprocess.run(["sh", "-c", as_cron_runs_it], check=False).returncode == 0
    assert (job.parent / "preln-topics.log").exists()


def test_systemd_takes_the_service_and_the_timer(monkeypatch: pytest.MonkeyPatch, job: Path) -> None:
    files = written(monkeypatch, job, "systemd", "--time-zone", "UTC")
    assert set(files) == {"preln-topics.service", "preln-topics.timer"}
    timer = configparser.ConfigParser()
    timer.read_string(files["preln-topics.timer"])
    assert timer["Timer"]["OnCalendar"] == "Mon,Tue,Wed,Thu,Fri *-*-* 02:30:00 UTC"
    assert "Type=oneshot" in files["preln-topics.service"]
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not here: the units were not verified by it")
    paths = [str(job.parent / "systemd" / name) for name in files]
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(job.parent))
    run = subprocess.run(["systemd-analyze", "verify", "--user", *paths], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "preln" not in run.stderr  # other units of this machine are not ours


def test_airflow_gets_a_dag_of_one_run_at_a_time(monkeypatch: pytest.MonkeyPatch, job: Path) -> None:
    text = written(monkeypatch, job, "airflow", "--address", "http://head:8265")["preln_topics_dag.py"]
    calls = {
        node.func.id: {word.arg: word.value for word in node.keywords}
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert ast.literal_eval(calls["DAG"]["schedule"]) == IN_NUMBERS
    assert ast.literal_eval(calls["DAG"]["max_active_runs"]) == 1
    assert ast.literal_eval(calls["DAG"]["catchup"]) is False
    words = shlex.split(ast.literal_eval(calls["BashOperator"]["bash_command"]))
    assert words[1:] == ["-m", "jobs", "submit", str(job), "--address", "http://head:8265", "--wait"]


AIRFLOW = "apache-airflow>=3.1,<4"
READ_DAGS = """
import json, sys
from airflow.dag_processing.dagbag import DagBag
bag = DagBag(sys.argv[1])
times = {name: dag.schedule for name, dag in bag.dags.items()}
print(json.dumps({"errors": bag.import_errors, "times": times}))
"""


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_airflow_itself_reads_the_dag(monkeypatch: pytest.MonkeyPatch, job: Path, tmp_path: Path) -> None:
    """In an environment of its own: Airflow pins what preln needs otherwise."""
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = str(tmp_path / "venv/bin/python")
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", AIRFLOW]
    if subprocess.run(install, capture_output=True, check=False).returncode != 0:
        pytest.skip("Airflow does not install here: the DAG was not read by it")
    written(monkeypatch, job, "airflow")
    run = subprocess.run(
        [python, "-c", READ_DAGS, str(job.parent / "airflow")],
        env={
            "PATH": os.environ["PATH"],
            "AIRFLOW_HOME": str(tmp_path / "home"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout.splitlines()[-1]) == {"errors": {}, "times": {"preln-topics": IN_NUMBERS}}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--cron", "2 am", "--to", "crontab"], "has 2 fields"),
        (["--cron", "@daily", "--to", "nomad"], "--to nomad: choose one of kubernetes"),
        (["--cron", "@daily", "--to", "crontab", "--name", "Not A Name"], "--name Not A Name"),
        (["--cron", "@daily", "--to", "crontab", "--time-zone", "Mars/Olympus"], "no such zone"),
        (["--cron", "@daily", "--to", "crontab", "--set", "model.max_length=9"], "write the setting into it"),
        (["--cron", "@daily", "--to", "kubernetes"], "a pod can't see paths of this machine"),
        (
            ["--cron", "@daily", "--to", "kubernetes", *REMOTELY],
            "write `gpus: 1` under resources (or --set resources.gpus=1)",
        ),
    ],
)
def test_what_could_not_run_is_refused_before_anything_is_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], job: Path, words: list[str], said: str
) -> None:
    assert schedule(monkeypatch, job, "--out", job.parent / "files", *words) == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert not (job.parent / "files").exists()
