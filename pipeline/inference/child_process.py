"""Starts a Python module in a child process, exchanges messages with it, and finds out how it ended.

The child dies with the thread that started it.
"""

import ctypes
import os
import platform
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from pipeline.inference.pipe import Pipe

DEATHS_ALONE = 2
"""How often work that is run alone must end a child to be blamed."""
SIGKILLS_ALONE = 3
"""The same for SIGKILL, which may come from outside."""
LAST_WORDS = 2_000
OWN_FOLDER = str(Path(__file__).resolve().parents[2])
"""The folder of `pipeline` and `models`: first on the child's path, whatever else has these names."""
FIRST_LINES = 20
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Death:
    """How a child ended."""

    cause: str
    by_sigkill: bool


@dataclass
class Suspect:
    """Counts the children that one row or shard has ended when run alone.

    SIGKILL needs more deaths: it is also what the system's out-of-memory killer sends because of others.
    """

    deaths: int = 0
    sigkills: int = 0

    def is_guilty(self, death: Death) -> bool:
        """Count a death; whether there are enough of them to blame it."""
        self.deaths += not death.by_sigkill
        self.sigkills += death.by_sigkill
        return self.deaths >= DEATHS_ALONE or self.sigkills >= SIGKILLS_ALONE

    def described(self, death: Death) -> str:
        """The last death, and how many there were."""
        return f"({death.cause}) {self.deaths + self.sigkills} times, alone"


@dataclass
class ChildProcess:
    """A module that runs in a child process: its `main` takes the pipe from `pipe_of_parent`.

    stall: seconds that a message may take, in either direction. launch: starts the process.
    """

    module: str
    stall: float
    launch: Callable[..., subprocess.Popen[bytes]] = subprocess.Popen
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    _pipe: Pipe | None = field(default=None, init=False)
    _log: IO[bytes] | None = field(default=None, init=False)
    _stuck: bool = field(default=False, init=False)

    def start(self, environment: Mapping[str, str]) -> None:
        """Start the process: two pipes for messages, a file for its output. environment: variables beside those of this one."""
        to_child, own_out = os.pipe()
        own_in, from_child = os.pipe()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the child
        path = os.pathsep.join([OWN_FOLDER, *(path for path in sys.path if path and path != OWN_FOLDER)])
        self.process = self.launch(
            # -P: a folder `pipeline` or `models` where the user happens to be is not ours.
            [sys.executable, "-P", "-m", self.module, str(to_child), str(from_child), str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            pass_fds=(to_child, from_child),
            env={**os.environ, **environment, "PYTHONPATH": path},
        )
        os.close(to_child)
        os.close(from_child)
        self._pipe, self._stuck = Pipe(incoming=own_in, outgoing=own_out), False

    def send(self, message: tuple[object, ...]) -> None:
        """Send a message; a child that has ended, or reads nothing, is found when receiving."""
        assert self._pipe is not None
        if self._stuck:
            return
        try:
            self._pipe.send(message, seconds=self.stall)
        except TimeoutError:
            self._stuck = True
        except OSError:
            return

    def receive(self, *, seconds: float | None = None) -> tuple[Any, ...] | Death:
        """The next message; or the child's death, after which another can be started. One that does not answer is killed.

        seconds: to wait, where that is not `stall`.
        """
        assert self._pipe is not None
        seconds = self.stall if seconds is None else seconds
        if self._stuck:
            return self._reap(f"accepted no input for {self.stall:.0f} s")
        try:
            reply: tuple[Any, ...] = self._pipe.receive(seconds=seconds)
            return reply
        except TimeoutError:
            return self._reap(f"no answer in {seconds:.0f} s")
        except (EOFError, OSError):
            return self._reap(None)

    def _reap(self, stalled: str | None) -> Death:
        assert self.process is not None
        process, words = self.process, ""
        if stalled is not None:
            process.kill()
        code = process.wait()
        if self._log is not None:
            words = self._last_words(self._log)
        self.close()
        if stalled is not None:
            return Death(cause=f"hung: {stalled}", by_sigkill=False)
        cause = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        return Death(cause=f"{cause}: {words}" if words else cause, by_sigkill=code == -signal.SIGKILL)

    @staticmethod
    def _last_words(log: IO[bytes]) -> str:
        log.seek(max(log.seek(0, os.SEEK_END) - LAST_WORDS, 0))
        words = log.read().decode(errors="replace").strip()
        lines = [line for line in words.splitlines() if not line.startswith("note: ")]  # how to get Rust's backtrace
        return lines[-1][-200:] if lines else ""

    def said_so_far(self) -> tuple[str, ...]:
        """What the child's libraries have printed, each line once. The child's own file position is not moved."""
        assert self._log is not None
        content = os.pread(self._log.fileno(), 1 << 16, 0).decode(errors="replace")
        lines = dict.fromkeys(line.strip() for line in content.splitlines() if line.strip())
        return tuple(lines)[:FIRST_LINES]

    def close(self) -> None:
        """End the child."""
        if self._pipe is not None:
            self._pipe.close()
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        if self._log is not None:
            self._log.close()
        self.process = self._pipe = self._log = None


def pipe_of_parent() -> Pipe:
    """In the child: the pipe to its parent, with which it dies. The descriptors are the process's arguments."""
    incoming, outgoing, parent = (int(argument) for argument in sys.argv[1:4])
    if platform.system() == "Linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above
        os._exit(0)
    pipe = Pipe(incoming=incoming, outgoing=outgoing)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    return pipe
