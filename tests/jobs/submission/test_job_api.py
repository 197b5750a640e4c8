"""Commands survive a dashboard that fails, forgets and refuses, and say why where they can't."""

import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray.job_submission import JobStatus

from jobs import cli
from jobs.embedded import DEMO
from jobs.exit_codes import exit_code_of
from jobs.submission import job_api, submission
from jobs.submission.job_api import JobApi, NotAuthorized, UnknownJob, Unreachable
from models.errors import PrelnError
from tests.command import Command, in_this_process
from tests.events import events_of
from tests.jobs.dashboard import Dashboard, serving
from tests.pipeline.on_nodes import free_port
from tests.pipeline.small import CHECKPOINT, spec

# Ray's client asks for a log's tail so.
pytestmark = pytest.mark.filterwarnings("ignore:ssl=None is deprecated:DeprecationWarning")

NAME = "preln-0123456789ab-1"
LOG = "".join(f"line {number}\n" for number in range(40))
MOMENT = 0.05


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries follow each other soon."""
    for module in (job_api, submission):
        monkeypatch.setattr(module, "RECONNECT_SECONDS", MOMENT)


@pytest.fixture
def dashboard() -> Iterator[Dashboard]:
    with serving(Dashboard(port=free_port(), log=LOG)) as found:
        yield found


def ended_well(dashboard: Dashboard) -> None:
    """What happens to the job while its follower is away."""
    dashboard.status, dashboard.tailed = "SUCCEEDED", None


def test_a_log_is_followed_over_an_outage_and_the_end_that_came_meanwhile_is_told(dashboard: Dashboard) -> None:
    dashboard.tailed, dashboard.downtime, dashboard.after_cut = len(LOG) // 2, 5 * MOMENT, ended_well
    said: list[str] = []
    api = JobApi.at(dashboard.address, timeout=20, say=said.append)
    assert "".join(submission.follow(api, NAME)) == LOG
    assert dashboard.cuts == 1
    assert any("the connection broke" in words for words in said)
    assert submission.exit_code(api, NAME) == 0


def test_a_log_whose_connection_breaks_again_and_again_is_told_once(dashboard: Dashboard) -> None:
    def further(dashboard: Dashboard) -> None:
        assert dashboard.tailed is not None
        dashboard.tailed += 50
        dashboard.status = "FAILED" if dashboard.tailed >= len(LOG) else "RUNNING"

    dashboard.tailed, dashboard.after_cut = 50, further
    api = JobApi.at(dashboard.address, timeout=20)
    assert "".join(submission.follow(api, NAME)) == LOG
    assert dashboard.cuts > 3
    assert submission.exit_code(api, NAME) == 3


def test_an_outage_longer_than_the_patience_ends_the_command_and_says_that_the_job_goes_on(
    dashboard: Dashboard,
) -> None:
    dashboard.tailed, dashboard.downtime = len(LOG) // 2, 600
    api = JobApi.at(dashboard.address, timeout=4 * MOMENT)
    with pytest.raises(Unreachable, match="A submitted job keeps running") as caught:
        list(submission.follow(api, NAME))
    assert exit_code_of(caught.value) == 1
    for question in (api.jobs, lambda: api.log(NAME), lambda: submission.stop(api, NAME)):
        with pytest.raises(Unreachable, match="the connection broke"):
            question()


def test_a_proxy_that_has_nobody_behind_it_for_a_while_is_asked_again(dashboard: Dashboard) -> None:
    api = JobApi.at(dashboard.address, timeout=4 * MOMENT)
    dashboard.refuse = 503
    with pytest.raises(Unreachable, match="status code 503"):
        api.job(NAME)
    dashboard.refuse = None
    assert api.job(NAME).status == JobStatus.RUNNING


@pytest.mark.parametrize("words", [("logs", NAME), ("stop", NAME)])
def test_a_missing_token_is_told_in_one_line_with_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], dashboard: Dashboard, words: tuple[str, ...]
) -> None:
    dashboard.refuse = 401
    monkeypatch.setattr(sys, "argv", ["preln", *words, "--address", dashboard.address])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "authentication failed" in line
    assert "set RAY_AUTH_MODE=token" in line


def test_a_token_that_is_taken_back_is_not_taken_for_an_outage(dashboard: Dashboard) -> None:
    api = JobApi.at(dashboard.address, timeout=600)
    dashboard.refuse = 401
    for question in (lambda: api.job(NAME), lambda: list(submission.follow(api, NAME)), lambda: list(api.tail(NAME))):
        with pytest.raises(NotAuthorized):
            question()


def test_where_nobody_answers_is_told_with_what_to_look_at() -> None:
    with pytest.raises(PrelnError, match=r"no Ray job API answers there.*kubectl port-forward") as caught:
        JobApi.at(f"http://127.0.0.1:{free_port()}")
    assert exit_code_of(caught.value) == 1


def test_a_dashboard_that_is_away_when_a_command_begins_is_waited_for_and_said_once(dashboard: Dashboard) -> None:
    dashboard.refuse = 503

    def back(words: str) -> None:
        said.append(words)
        dashboard.refuse = None

    said: list[str] = []
    assert JobApi.at(dashboard.address, say=back).job(NAME).status == JobStatus.RUNNING
    (line,) = said
    assert "retrying for 120 s" in line
    dashboard.refuse = 503
    with pytest.raises(Unreachable, match="503") as caught:
        JobApi.at(dashboard.address, timeout=2 * MOMENT)
    assert exit_code_of(caught.value) == 1


def test_a_server_that_is_no_dashboard_is_refused_with_exit_code_2(dashboard: Dashboard) -> None:
    dashboard.refuse = 418
    with pytest.raises(PrelnError, match="no Ray job API answers there") as caught:
        JobApi.at(dashboard.address)
    assert exit_code_of(caught.value) == 2


@pytest.fixture
def preln(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    return in_this_process(monkeypatch, capfd)


def submit_words(dashboard: Dashboard, folder: Path) -> list[str]:
    words = ["submit", "--task", "text-classification", "--model", CHECKPOINT, "--input", str(folder)]
    return [*words, "--output", str(folder / "out"), "--image-has-it", "--address", dashboard.address]


def test_submit_prints_the_jobs_log_and_nothing_of_rays_client(
    dashboard: Dashboard, preln: Command, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    dashboard.status = "SUCCEEDED"
    ended = preln(*submit_words(dashboard, tmp_path))
    assert (ended.code, ended.out.rstrip("\n")) == (0, LOG.rstrip("\n"))
    local, name = ended.err.splitlines()
    assert local.startswith("local paths must be there")
    assert name.startswith("submitted as preln-")
    assert not [record.name for record in caplog.records if record.name.startswith("ray.")]


def test_a_cluster_that_fails_ends_submit_with_1_and_one_line_of_what_is_retried(
    dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch, preln: Command, tmp_path: Path
) -> None:
    monkeypatch.setattr(submission, "SUBMIT_SECONDS", 4 * MOMENT)
    monkeypatch.setattr(JobApi, "submit", lambda self, **_: self._once(_failing))
    ended = preln(*submit_words(dashboard, tmp_path))
    _, retried, refused = ended.err.splitlines()
    assert (ended.code, ended.out) == (1, "")
    assert "status code 500" in retried
    assert "submitting again for" in retried
    assert refused.startswith("preln: the cluster did not take the job: ")


def _failing() -> None:
    raise RuntimeError("Request failed with status code 500: No available agent to submit job, please try again later.")


def test_a_job_that_failed_is_said_in_one_line_without_its_log_again(
    dashboard: Dashboard, preln: Command, tmp_path: Path
) -> None:
    dashboard.status, dashboard.exit_code = "FAILED", 1
    dashboard.message = (
        "Job entrypoint command failed with exit code 1, last available logs (truncated to 20,000):\nline 39"
    )
    ended = preln(*submit_words(dashboard, tmp_path))
    assert ended.code == 1
    assert ended.err.splitlines()[-1].endswith(
        "-1 failed: Job entrypoint command failed with exit code 1. Committed shards stay; run the same command to resume"
    )


def test_a_job_that_the_cluster_does_not_know_is_told_with_those_that_it_knows(dashboard: Dashboard) -> None:
    dashboard.submitted.append({"submission_id": NAME})
    with pytest.raises(UnknownJob, match=f"preln-unknown-1: no such job on this cluster; it has {NAME}"):
        JobApi.at(dashboard.address).job("preln-unknown-1")


def test_flags_reach_the_driver_as_they_are_whatever_a_shell_would_make_of_them(dashboard: Dashboard) -> None:
    flags = ["--set", "input.columns.text=the text; rm -rf $HOME", "--set", "task.labels='*'"]
    found = submission.submit(JobApi.at(dashboard.address), spec=spec(), flags=flags, image_has_it=True)
    assert found.fresh
    (taken,) = dashboard.submitted
    assert shlex.split(taken["entrypoint"]) == ["python", "-m", "jobs", "annotate", "job.yaml", *flags]
    assert taken["submission_id"] == found.id


def test_doctor_is_submitted_for_a_job_to_a_node_like_its_replicas(dashboard: Dashboard) -> None:
    job = spec()
    wanted = {"gpus": 0.5, "accelerator": "A10G", "labels": {"ray.io/market-type": "!spot"}}
    on_gpu = job.model_copy(update={"resources": job.resources.model_copy(update=wanted)})
    submission.submit(JobApi.at(dashboard.address), spec=on_gpu, image_has_it=True, work=submission.doctor_for(on_gpu))
    on_any = submission.submit(
        JobApi.at(dashboard.address), spec=job, image_has_it=True, work=submission.doctor_for(job)
    )
    itself = submission.submit(JobApi.at(dashboard.address), spec=job, image_has_it=True)
    assert on_any.fresh
    assert itself.fresh  # another submission than its doctor
    first, second, _ = dashboard.submitted
    words = ["doctor", "--framework", "torch", "--model", job.model.checkpoint, "--storage", job.output.url]
    assert shlex.split(first["entrypoint"]) == ["python", "-m", "jobs", *words, "--gpu"]
    assert shlex.split(second["entrypoint"]) == ["python", "-m", "jobs", *words, "--cpu"]
    assert first["entrypoint_num_gpus"] == 0.5
    assert first["entrypoint_resources"] == {"accelerator_type:A10G": 0.001}
    assert first["entrypoint_label_selector"] == {"ray.io/market-type": "!spot"}
    assert not second.get("entrypoint_num_gpus")


def test_a_submission_whose_answer_was_lost_is_found_rather_than_made_twice(dashboard: Dashboard) -> None:
    dashboard.lose_answers = True
    found = submission.submit(JobApi.at(dashboard.address), spec=spec(), image_has_it=True)
    assert not found.fresh
    assert [taken["submission_id"] for taken in dashboard.submitted] == [found.id]


def test_a_job_that_is_still_running_after_it_was_asked_to_stop_is_told(
    dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_api.JobApi, "stop", lambda *_: None)
    began = time.monotonic()
    with pytest.raises(PrelnError, match=r"still running .* after it was asked to stop"):
        submission.stop(JobApi.at(dashboard.address), NAME, timeout=MOMENT)
    assert time.monotonic() - began < 10


def test_the_working_folder_is_small_and_holds_what_the_driver_runs() -> None:
    with submission.working_folder(spec()) as folder:
        files = [path for path in folder.rglob("*") if path.is_file()]
        assert sum(path.stat().st_size for path in files) < 3_000_000
        assert {"job.yaml", "pyproject.toml"} <= {path.name for path in files}
        assert not (folder / DEMO.relative_to(submission.ROOT)).exists()
        assert (folder / Path(cli.__file__).relative_to(submission.ROOT)).exists()


def test_the_jobs_of_a_cluster_are_listed(dashboard: Dashboard, capsys: pytest.CaptureFixture[str]) -> None:
    empty = cli.app(["jobs", "--address", dashboard.address], standalone_mode=False)
    assert "no job of preln" in capsys.readouterr().out
    assert not empty
    dashboard.submitted = [
        {"submission_id": "somebody-elses"},
        {"submission_id": NAME, "metadata": {"task": "fill-mask", "output": "s3://bucket/out"}},
    ]
    dashboard.status = "FAILED"
    cli.app(["jobs", "--address", dashboard.address], standalone_mode=False)
    assert capsys.readouterr().out == f"{NAME}  failed (exit code 3)  fill-mask  s3://bucket/out\n"
    cli.app(["jobs", "--address", dashboard.address, "--json"], standalone_mode=False)
    (told,) = events_of(capsys.readouterr().out)
    assert (told["event"], told["id"], told["status"], told["exit_code"]) == ("job", NAME, "FAILED", 3)


def test_a_jobs_log_and_what_the_cluster_says_of_it_steer_no_terminal(
    dashboard: Dashboard, capsys: pytest.CaptureFixture[str]
) -> None:
    """Colours, with which Ray marks its workers' lines, are left out."""
    orders = "\x1b]0;owned\x07\x1b[2J"
    dashboard.log = f"\x1b[36m(worker)\x1b[0m one {orders}\ntwo\n"
    cli.app(["logs", NAME, "--no-follow", "--address", dashboard.address], standalone_mode=False)
    assert capsys.readouterr().out == "(worker) one \\x1b]0;owned\\x07\\x1b[2J\ntwo\n"
    dashboard.submitted = [{"submission_id": NAME, "metadata": {"task": orders, "output": "s3://bucket/out"}}]
    cli.app(["jobs", "--address", dashboard.address], standalone_mode=False)
    assert "\x1b" not in capsys.readouterr().out
