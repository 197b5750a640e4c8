"""Packs of windows in, answers or a reason for each window out, whatever the process that holds the model does.

The model runs in a child process. One that crashes or hangs is replaced; what it was working on is tried again, and only
a row that ends a fresh child twice, alone, is blamed. A SIGKILL may come from outside (the kernel short of memory, an
operator), so it must repeat before anything is even suspected.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Any

from models.boundary import Answers, Ask, Tokens
from pipeline.errors import ResourceError, RowError
from pipeline.inference.child import LoadOrder

DEATHS_ALONE = 2
"""Ends of a fresh child by which a single row is found guilty."""
SIGKILLS_ALONE = 3
"""The same for SIGKILL, which may come from outside."""
DEATHS_IN_A_ROW = 24
"""Children that ended one after the other, without one good pack between them, after which the replica gives up."""
LAST_WORDS = 2_000
OWN_FOLDER = str(Path(__file__).resolve().parents[2])
"""Where `pipeline` and `models` lie: before everything else on the child's path, whatever else is called so."""


@dataclass(frozen=True)
class Death:
    """How a child ended."""

    cause: str
    by_sigkill: bool


@dataclass
class Seconds:
    """Where a replica's time goes, and how often it had to start a child or ran out of the device's memory."""

    computing: float = 0.0
    starting: float = 0.0
    children: int = 0
    out_of_memory: int = 0


Question = tuple[Tokens, Mapping[str, Ask]]
Reply = Mapping[str, Answers] | RowError | Death


@dataclass
class Supervisor:
    """Keeps one child with the model alive and asks it.

    order: what the child loads. threads: CPU threads it may use. stall: seconds that one pack, or the loading, may take.
    environment: variables that the child gets beside those of this process. launch: starts the child; it dies with the
    thread that does.
    """

    order: LoadOrder
    threads: int
    stall: float
    environment: Mapping[str, str] = field(default_factory=dict)
    launch: Callable[..., subprocess.Popen[bytes]] = subprocess.Popen
    seconds: Seconds = field(default_factory=Seconds)
    _process: subprocess.Popen[bytes] | None = None
    _outgoing: Connection | None = None
    _incoming: Connection | None = None
    _log: IO[bytes] | None = None
    _deaths_in_a_row: int = 0

    def start(self) -> None:
        """A fresh child with the model loaded. Raises ResourceError with the child's reason when it can't."""
        began = time.monotonic()
        self._spawn()
        self._send(("load", self.order))
        reply = self._receive()
        self.seconds.starting += time.monotonic() - began
        self.seconds.children += 1
        if isinstance(reply, Death):
            raise ResourceError(f"the replica's process ended while loading {self.order.checkpoint}: {reply.cause}")
        if reply[0] != "ready":
            self.close()
            raise ResourceError(f"the replica could not load {self.order.checkpoint}: {reply[2]}")

    def solve(
        self, pack: Sequence[int], ask: Callable[[Sequence[int]], Question]
    ) -> Iterator[tuple[Sequence[int], Mapping[str, Answers] | RowError]]:
        """Answers, or the error, of every window of a pack, in parts as they were found.

        ask: builds the model's input of some of the windows. Raises ResourceError after DEATHS_IN_A_ROW.
        """
        reply = self._call(ask(pack))
        if isinstance(reply, Death) and reply.by_sigkill:
            reply = self._call(ask(pack))
        if isinstance(reply, Death):
            for window in pack:
                yield from self._solve_alone(window, ask)
        elif isinstance(reply, tuple):
            if len(pack) == 1:
                yield pack, reply
                return
            half = (len(pack) + 1) // 2
            yield from self.solve(pack[:half], ask)
            yield from self.solve(pack[half:], ask)
        else:
            yield pack, reply

    def _solve_alone(
        self, window: int, ask: Callable[[Sequence[int]], Question]
    ) -> Iterator[tuple[Sequence[int], Mapping[str, Answers] | RowError]]:
        """Repeat one window until it is answered or has killed the process often enough to be the cause.

        SIGKILL needs more deaths: it is also what the system's out-of-memory killer sends because of others.
        """
        deaths = sigkills = 0
        while True:
            reply = self._call(ask([window]))
            if not isinstance(reply, Death):
                yield [window], reply
                return
            deaths, sigkills = deaths + (not reply.by_sigkill), sigkills + reply.by_sigkill
            if deaths >= DEATHS_ALONE or sigkills >= SIGKILLS_ALONE:
                yield (
                    [window],
                    ("killed-replica", f"killed the replica ({reply.cause}) {deaths + sigkills} times, alone"),
                )
                return

    def _call(self, question: Question) -> Reply:
        """Ask the process once, after starting it if it is not running.

        An error of the model is a reply; a death is counted, and too many in a row raise ResourceError.
        """
        while self._process is None:
            try:
                self.start()
            except ResourceError as error:
                self._count_death(str(error))
        tokens, asks = question
        self._send(("run", tokens, asks))
        reply = self._receive()
        if isinstance(reply, Death):
            self._count_death(reply.cause)
            return reply
        self._deaths_in_a_row = 0
        if reply[0] == "answers":
            self.seconds.computing += reply[2]
            answers: Mapping[str, Answers] = reply[1]
            return answers
        self.seconds.out_of_memory += reply[1] == "oom"
        reason = "out-of-memory" if reply[1] == "oom" else "exception"
        return (reason, reply[2])

    def _count_death(self, cause: str) -> None:
        self._deaths_in_a_row += 1
        if self._deaths_in_a_row >= DEATHS_IN_A_ROW:
            raise ResourceError(
                f"the replica's process ended {self._deaths_in_a_row} times without answering anything in between, the "
                f"last time by {cause}; the rows are hardly to blame. Look at memory and drivers"
            )

    def _spawn(self) -> None:
        """Start the process with the model.

        Two pipes for messages, a file for its output, threads set before any framework is imported.
        """
        to_child, own_out = os.pipe()
        own_in, from_child = os.pipe()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the child
        threads = str(self.threads)
        environment = {
            **os.environ,
            **self.environment,
            "PYTHONPATH": os.pathsep.join([OWN_FOLDER, *(path for path in sys.path if path and path != OWN_FOLDER)]),
            "OMP_NUM_THREADS": threads,
            "MKL_NUM_THREADS": threads,
            "PRELN_THREADS": threads,
            "TF_CPP_MIN_LOG_LEVEL": "2",
        }
        self._process = self.launch(
            # -P: a folder `pipeline` or `models` where the user happens to be is not ours.
            [sys.executable, "-P", "-m", "pipeline.inference.child", str(to_child), str(from_child), str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            pass_fds=(to_child, from_child),
            env=environment,
        )
        os.close(to_child)
        os.close(from_child)
        self._outgoing = Connection(own_out, readable=False)
        self._incoming = Connection(own_in, writable=False)

    def _send(self, message: tuple[object, ...]) -> None:
        assert self._outgoing is not None
        try:
            self._outgoing.send(message)
        except (BrokenPipeError, OSError):
            return  # it has ended; receiving says how

    def _receive(self) -> tuple[Any, ...] | Death:
        assert self._incoming is not None
        try:
            if not self._incoming.poll(self.stall):
                return self._reap(f"no answer in {self.stall:.0f} s")
            return self._incoming.recv()
        except (EOFError, OSError):
            return self._reap(None)

    def _reap(self, stalled: str | None) -> Death:
        assert self._process is not None
        process, words = self._process, ""
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
        lines = log.read().decode(errors="replace").strip().splitlines()
        return lines[-1][-200:] if lines else ""

    def close(self) -> None:
        """End the child."""
        for connection in (self._outgoing, self._incoming):
            if connection is not None:
                connection.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if self._log is not None:
            self._log.close()
        self._process = self._outgoing = self._incoming = self._log = None
