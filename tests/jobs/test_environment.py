"""In a broken environment a command works, or says in one line within 30 seconds what to do."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import ray

from jobs import connect, environment
from jobs.environment import ray_address, ray_folder, refuse_taken_port, token_without_home
from pipeline.errors import ResourceError
from tests.pipeline.small import CHECKPOINT


@pytest.mark.parametrize("value", [None, "", " ", "local"])
def test_no_address_is_a_ray_of_our_own(value: str | None) -> None:
    assert ray_address({} if value is None else {"RAY_ADDRESS": value}) == "local"


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("http://127.0.0.1:8265", "preln submit"),
        ("ray://127.0.0.1:10001", "Ray Client"),
        ("127.0.0.1:1", "no Ray answers"),
    ],
)
def test_an_address_that_can_not_work_is_refused_within_30_seconds(
    address: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait = 2.0
    rest = 30 - environment.ANSWER_SECONDS  # what is left for everything but the wait, which is shorter here
    monkeypatch.setattr(environment, "ANSWER_SECONDS", wait)
    began = time.monotonic()
    with pytest.raises(ResourceError, match=message):
        ray_address({"RAY_ADDRESS": address})
    assert time.monotonic() - began < wait + rest


def test_a_server_of_something_else_is_no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "ANSWER_SECONDS", 2.0)
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(ResourceError, match="no Ray answers"):
        ray_address({"RAY_ADDRESS": f"127.0.0.1:{server.getsockname()[1]}"})


def test_a_port_that_is_taken_is_refused_at_once() -> None:
    taken = pytest.raises(ResourceError, match=r"RAY_GCS_SERVER_PORT .* in use; name a free port, or unset")
    with socket.create_server(("", 0)) as server, taken:
        refuse_taken_port({"RAY_GCS_SERVER_PORT": str(server.getsockname()[1])})
    for wrong in ("all", "-1", "99999999"):
        with pytest.raises(ResourceError, match="is no port"):
            refuse_taken_port({"RAY_GCS_SERVER_PORT": wrong})
    for right in ({}, {"RAY_GCS_SERVER_PORT": ""}, {"RAY_GCS_SERVER_PORT": "0"}):
        refuse_taken_port(right)


def test_a_command_says_in_one_line_that_rays_port_is_taken(tmp_path: Path, repository: Path) -> None:
    (tmp_path / "a.txt").write_text("A text.\n")
    words = ["annotate", "--task", "text-classification", "--model", CHECKPOINT, "--input", str(tmp_path / "a.txt")]
    with socket.create_server(("", 0)) as server:
        port = str(server.getsockname()[1])
        began = time.monotonic()
        ended = subprocess.run(
            [sys.executable, "-m", "jobs", *words, "--output", str(tmp_path / "out")],
            cwd=repository,
            check=False,
            capture_output=True,
            text=True,
            env={**os.environ, "RAY_GCS_SERVER_PORT": port, "RAY_ADDRESS": "", "PRELN_DEBUG": ""},
        )
    assert time.monotonic() - began < 30
    (line,) = ended.stderr.splitlines()
    assert f"RAY_GCS_SERVER_PORT is {port}" in line
    assert ended.returncode == 1, "the same command may succeed later"


@pytest.mark.parametrize(("address", "step"), [("local", "preln doctor"), ("10.0.0.1:6379", "unset RAY_ADDRESS")])
def test_a_ray_that_does_not_start_is_one_line(address: str, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(**_: object) -> None:
        raise RuntimeError("Failed to start GCS.\nLast 1 lines of error files: ...")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(connect, "ray_address", lambda _: address)
    monkeypatch.setattr(ray, "init", failing)
    with pytest.raises(ResourceError, match=f"Failed to start GCS.*{step}") as caught:
        connect.connect()
    assert "\n" not in str(caught.value)


def test_a_folder_that_sockets_can_not_live_in_is_replaced(tmp_path: Path) -> None:
    assert ray_folder({"TMPDIR": "/tmp"}) is None
    long = tmp_path / ("x" * 95)
    long.mkdir()
    for unfit in (str(long), "/proc", str(tmp_path / "absent")):
        chosen = ray_folder({"TMPDIR": unfit})
        assert chosen is not None
        assert not chosen.startswith(unfit)


def test_without_a_home_ray_gets_a_token_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert token_without_home({}) == {}
    monkeypatch.setenv("HOME", "/proc")
    assert list(token_without_home({})) == ["RAY_AUTH_TOKEN"]
    assert token_without_home({"RAY_AUTH_TOKEN_PATH": "x"}) == {}


@pytest.mark.parametrize("closed", ["0", "1", "2"])
def test_closed_standard_streams_do_not_matter(closed: str, repository: Path) -> None:
    program = (
        f"import os; os.close({closed}); os.execv({sys.executable!r}, [{sys.executable!r}, '-m', 'jobs', '--help'])"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=repository, check=False, capture_output=True, env=os.environ
    )
    assert ended.returncode == 0
    assert b"Traceback" not in ended.stderr
