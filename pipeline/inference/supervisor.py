"""Packs of windows in, an answer or an error for each window out, even if the process that holds the model dies or hangs.

The model runs in a child process. One that crashes or hangs is replaced and its work is tried again; a row is blamed only if
it ends a child twice when run alone. A SIGKILL may come from outside (the out-of-memory killer, an operator), so more of them
are needed.

The child holds two packs at a time, so that it never waits for the next. If it dies with both, each is asked again alone, the
older first.
"""

import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from models.boundary import Answers, DeviceFacts
from pipeline.errors import ResourceError, RowError
from pipeline.inference.batching import TokenBudget
from pipeline.inference.child import LoadOrder
from pipeline.inference.child_process import ChildProcess, Death, Suspect
from pipeline.inference.passes import AskFor, InOrder, Part, Question, Seconds, Source, Wanted

DEATHS_IN_A_ROW = 24
"""Consecutive deaths of children, without an answered pack in between, after which the replica gives up."""
IN_FLIGHT = 2
"""Packs that a child has at a time."""
HIDDEN_GPUS = {"CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}
"""Hides all GPUs from a child on a CPU, since Ray hides none from a replica that asked for none."""


@dataclass(frozen=True)
class Answered:
    """A pack's answers, and the seconds they took."""

    answers: Mapping[str, Answers]
    seconds: float


Reply = Answered | RowError | Death


@dataclass
class Supervisor:
    """Keeps one child with the model alive and asks it.

    order: what the child loads. threads: CPU threads it may use. stall: seconds that one pack, or the loading, may take.
    environment: variables that the child gets beside those of this process. launch: starts the child; it dies with the
    thread that does. in_flight: packs that the child has at a time. facts: what the child said that it runs on. said: what
    its libraries printed while it loaded.
    """

    order: LoadOrder
    threads: int
    stall: float
    environment: Mapping[str, str] = field(default_factory=dict)
    launch: Callable[..., subprocess.Popen[bytes]] = subprocess.Popen
    in_flight: int = IN_FLIGHT
    seconds: Seconds = field(default_factory=Seconds)
    facts: DeviceFacts = field(default_factory=dict)
    said: tuple[str, ...] = ()
    _deaths_in_a_row: int = 0

    def __post_init__(self) -> None:
        self._child = ChildProcess(module="pipeline.inference.child", stall=self.stall, launch=self.launch)

    @property
    def _process(self) -> subprocess.Popen[bytes] | None:
        return self._child.process

    def start(self) -> None:
        """Start a child and load the model. Raises ResourceError with the child's reason if it can't, or if the model does not
        run on the device that was ordered."""
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
        self.facts, self.said = reply[1], self._child.said_so_far()
        found = self.facts.get("device", self.order.device)
        if found != self.order.device:
            self.close()
            raise ResourceError(f"the replica should run on '{self.order.device}', but its model runs on '{found}'")

    def solve_all(
        self, packs: Iterable[Sequence[int]], ask: AskFor, budget: TokenBudget | None = None
    ) -> Iterator[Part]:
        """Answers, or the error, of every window of every pack, in parts as they are found.

        packs: cut one by one, as the child has room. ask: builds the model's input for some of the windows. budget: learns how
        the passes went. Raises ResourceError after DEATHS_IN_A_ROW.
        """
        for _, part in self.serve(InOrder(iter(packs), ask, budget)):
            yield part

    def serve(self, source: Source) -> Iterator[tuple[Wanted, Part]]:
        """As `solve_all`, for packs of several callers: yields each part with the pack that it belongs to."""
        unanswered: deque[Wanted] = deque()
        while True:
            self._fill(unanswered, source, wait=True)
            if not unanswered:
                return
            reply = self._reply()
            if isinstance(reply, Answered):
                wanted = unanswered.popleft()
                _took(wanted, reply)
                self._fill(unanswered, source, wait=False)  # the child goes on while these answers are put in order
                yield wanted, (wanted.windows, reply.answers)
                continue
            for wanted, part in self._apart(unanswered, reply):
                yield wanted, part
            unanswered.clear()

    def _fill(self, unanswered: deque[Wanted], source: Source, *, wait: bool) -> None:
        """Send packs until the child holds as many as it may. wait: wait for the first one if it holds none."""
        while len(unanswered) < self.in_flight:
            wanted = source.take(wait=wait and not unanswered)
            if wanted is None:
                return
            self._ask(wanted.question)
            unanswered.append(wanted)

    def _apart(self, unanswered: Iterable[Wanted], first: Reply) -> Iterator[tuple[Wanted, Part]]:
        """Repeat all packs that the child held when one failed: each alone, the oldest first."""
        replies: list[Reply] = [first]
        for _ in list(unanswered)[1:]:
            replies.append(replies[-1] if isinstance(replies[-1], Death) else self._reply())
        together = len(replies) > 1
        for wanted, reply in zip(unanswered, replies, strict=True):
            # Which of two packs ended the child is unknown: neither has been tried alone.
            known = None if together and isinstance(reply, Death) else reply
            for part in self._solve(wanted, wanted.windows, known):
                yield wanted, part

    def _solve(self, wanted: Wanted, windows: Sequence[int], reply: Reply | None) -> Iterator[Part]:
        """The parts of some windows of a pack with nothing else in flight; reply: the answer they have already had."""
        reply = self._call(wanted.ask(windows)) if reply is None else reply
        if isinstance(reply, Death) and reply.by_sigkill:
            reply = self._call(wanted.ask(windows))
        if isinstance(reply, Answered):
            if windows is wanted.windows:
                _took(wanted, reply)
            yield windows, reply.answers
        elif isinstance(reply, Death):
            for window in windows:
                yield self._solve_alone(window, wanted.ask)
        elif len(windows) == 1:
            yield windows, reply
        else:
            if reply[0] == "out-of-memory" and windows is wanted.windows and wanted.budget is not None:
                wanted.budget.refused(tokens=wanted.tokens)
            half = (len(windows) + 1) // 2
            yield from self._solve(wanted, windows[:half], None)
            yield from self._solve(wanted, windows[half:], None)

    def _solve_alone(self, window: int, ask: AskFor) -> Part:
        """Repeat one window until it is answered or has killed the process often enough to be the cause."""
        suspect = Suspect()
        while True:
            reply = self._call(ask([window]))
            if isinstance(reply, Answered):
                return [window], reply.answers
            if not isinstance(reply, Death):
                return [window], reply
            if suspect.is_guilty(reply):
                return [window], ("killed-replica", f"killed the replica {suspect.described(reply)}")

    def _call(self, question: Question) -> Reply:
        self._ask(question)
        return self._reply()

    def _ask(self, question: Question) -> None:
        """Send a question, after starting the process if it is not running. Too many deaths in a row raise ResourceError."""
        while self._process is None:
            try:
                self.start()
            except ResourceError as error:
                self._count_death(str(error))
        tokens, asks = question
        self._send(("run", tokens, asks))

    def _reply(self) -> Reply:
        """The child's answer to the oldest question."""
        reply = self._receive()
        if isinstance(reply, Death):
            self._count_death(reply.cause)
            return reply
        self._deaths_in_a_row = 0
        if reply[0] == "answers":
            self.seconds.computing += reply[2]
            return Answered(answers=reply[1], seconds=reply[2])
        self.seconds.out_of_memory += reply[1] == "oom"
        reason = "out-of-memory" if reply[1] == "oom" else "exception"
        return (reason, reply[2])

    def _count_death(self, cause: str) -> None:
        self._deaths_in_a_row += 1
        if self._deaths_in_a_row >= DEATHS_IN_A_ROW:
            raise ResourceError(
                f"the replica's process ended {self._deaths_in_a_row} times without answering anything in between, the "
                f"last time by {cause}; the rows are probably not the cause. Check memory and drivers"
            )

    def _spawn(self) -> None:
        """Start the process with the model; threads are set before any framework is imported."""
        threads = str(self.threads)
        self._child.start(
            {
                **self.environment,
                **(HIDDEN_GPUS if self.order.device == "cpu" else {}),
                "OMP_NUM_THREADS": threads,
                "MKL_NUM_THREADS": threads,
                "PRELN_THREADS": threads,
                "TF_CPP_MIN_LOG_LEVEL": "2",
            }
        )

    def _send(self, message: tuple[object, ...]) -> None:
        self._child.send(message)

    def _receive(self) -> tuple[Any, ...] | Death:
        return self._child.receive()

    def close(self) -> None:
        """End the child."""
        self._child.close()


def _took(wanted: Wanted, reply: Answered) -> None:
    """Report to the budget a pack that was answered as it was cut."""
    if wanted.budget is not None:
        wanted.budget.took(tokens=wanted.tokens, seconds=reply.seconds)
