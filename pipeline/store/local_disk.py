"""Writes local files whole or not at all, as object stores do by themselves.

A temporary file in the same folder, fsync, `os.replace`; the folder is synced too. What a killed process leaves is swept.
"""

import os
import socket
import time
import uuid

TEMPORARY_PREFIX = ".preln-"
"""Names of half-written local files; swept at the start of a run, ignored by every Parquet reader."""


def sweep(folder: str) -> None:
    """Remove what killed processes left half written in a folder."""
    if not os.path.isdir(folder):
        return
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        if name.startswith(TEMPORARY_PREFIX) and _abandoned(path):
            try:
                os.unlink(path)
            except FileNotFoundError:
                continue


def _abandoned(path: str) -> bool:
    """Whether nobody writes a temporary file any more: its process is gone, or, on another host, a day has passed."""
    host, _, rest = os.path.basename(path).removeprefix(TEMPORARY_PREFIX).partition(".")
    if host != _host():
        return time.time() - os.stat(path).st_mtime > 86_400
    try:
        os.kill(int(rest.split(".")[0]), 0)
    except (ValueError, ProcessLookupError):
        return True
    except PermissionError:
        return False
    return False


def _host() -> str:
    return socket.gethostname().partition(".")[0]


def _temporary(path: str) -> str:
    return os.path.join(os.path.dirname(path), f"{TEMPORARY_PREFIX}{_host()}.{os.getpid()}.{uuid.uuid4().hex}")


def _write_synced(path: str, content: bytes) -> str:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    temporary = _temporary(path)
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return temporary


def put(path: str, content: bytes) -> None:
    """The file, whole or not at all."""
    temporary = _write_synced(path, content)
    try:
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    _sync_folder(os.path.dirname(path))


def create(path: str, content: bytes) -> None:
    """The same unless there is a file. Raises FileExistsError."""
    temporary = _write_synced(path, content)
    try:
        os.link(temporary, path)  # fails where the name exists: the atomic "put if absent" of a local disk
    finally:
        os.unlink(temporary)
    _sync_folder(os.path.dirname(path))


def _sync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
