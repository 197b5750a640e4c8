"""Chooses the address and the folder for Ray from the environment, or raises one line that says what is wrong.

Without it Ray would wait for minutes or end with a traceback.
"""

import os
import secrets
import socket
import tempfile
from collections.abc import Mapping
from pathlib import Path

import grpc

from pipeline.errors import ResourceError

ANSWER_SECONDS = 15.0
"""Seconds within which a cluster must answer."""
PORT_VARIABLE = "RAY_GCS_SERVER_PORT"
"""Gives the port of a Ray of our own, which otherwise takes any free one."""
SOCKET_BYTES = 107
"""The longest name of a Unix socket; Ray puts its sockets below its own folder."""
SESSION = "/ray/session_2026-01-01_00-00-00_000000_0000000/sockets/plasma_store"


def ray_address(environment: Mapping[str, str]) -> str:
    """The address in RAY_ADDRESS, if a cluster answers there, or `local`. Raises ResourceError."""
    address = environment.get("RAY_ADDRESS", "").strip() or "local"
    if address in {"local", "auto"}:
        return address
    if address.startswith(("http://", "https://")):
        raise ResourceError(
            f"RAY_ADDRESS is {address}, the address of the job API; hand the job over with 'preln submit', or name the "
            "cluster's own address (HOST:6379)"
        )
    if "://" in address:
        raise ResourceError(
            f"RAY_ADDRESS is {address}, and a job can't run through Ray Client; hand it over with 'preln submit', or run on "
            "the cluster with its own address (HOST:6379)"
        )
    if environment.get("RAY_USE_TLS", "0") != "1" and not _answers(address):
        raise ResourceError(
            f"RAY_ADDRESS is {address}, and no Ray answers there within {ANSWER_SECONDS:.0f} s; start one (ray start --head), "
            "correct the address, or unset RAY_ADDRESS to run on this machine"
        )
    return address


def _answers(address: str) -> bool:
    with grpc.insecure_channel(address) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=ANSWER_SECONDS)
        except (grpc.FutureTimeoutError, ValueError):
            return False
    return True


def refuse_taken_port(environment: Mapping[str, str]) -> None:
    """Raise ResourceError where the port that a Ray of our own must take is no port, or not free: Ray would try for 40 s."""
    given = environment.get(PORT_VARIABLE, "").strip()
    if not given:
        return
    step = f"name a free port, or unset {PORT_VARIABLE}: Ray then finds one"
    try:
        with socket.socket() as trial:
            # Connections that are only waiting to be forgotten do not hold a port.
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(("", int(given)))
    except (ValueError, OverflowError):
        raise ResourceError(f"{PORT_VARIABLE} is {given!r}, which is no port; {step}") from None
    except OSError as error:
        raise ResourceError(
            f"{PORT_VARIABLE} is {given}, and that port can't be taken: {error.strerror}; {step}"
        ) from None


def ray_folder(environment: Mapping[str, str]) -> str | None:
    """The folder for the sessions of a local Ray; None for Ray's default. Raises ResourceError if no folder can be used."""
    own = environment.get("RAY_TMPDIR") or environment.get("TMPDIR") or "/tmp"  # noqa: S108 - Ray's default
    if _will_do(own):
        return None
    for other in (tempfile.gettempdir(), "/tmp", "/var/tmp", "/dev/shm"):  # noqa: S108
        if _will_do(other):
            return f"{other}/ray"
    raise ResourceError(
        f"{own}: Ray needs a writable folder for its sockets, with a path of at most {SOCKET_BYTES - len(SESSION)} bytes; "
        "set RAY_TMPDIR to one"
    )


def _will_do(folder: str) -> bool:
    if len(os.fsencode(folder.rstrip("/") + SESSION)) > SOCKET_BYTES:
        return False
    within = Path(folder) / "ray"
    return _can_write(within if within.exists() else Path(folder))


def _can_write(folder: Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def token_without_home(environment: Mapping[str, str]) -> dict[str, str]:
    """Variables with a token for a local Ray, if the home folder, where Ray keeps its token, can't be written."""
    if environment.get("RAY_AUTH_TOKEN") or environment.get("RAY_AUTH_TOKEN_PATH") or _can_write(Path.home()):
        return {}
    return {"RAY_AUTH_TOKEN": secrets.token_hex(32)}
