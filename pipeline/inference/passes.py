"""The interface of a supervisor and its stand-ins: a source of packs in, their answers or errors out."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from models.boundary import Answers, Ask, Tokens
from pipeline.errors import RowError
from pipeline.inference.batching import TokenBudget

Question = tuple[Tokens, Mapping[str, Ask]]
AskFor = Callable[[Sequence[int]], Question]
"""Builds the model's input for some windows."""
Part = tuple[Sequence[int], Mapping[str, Answers] | RowError]
"""Some windows, and their answers or their error."""


@dataclass
class Seconds:
    """Where a replica's time goes, and how often it started a child or ran out of the device's memory."""

    computing: float = 0.0
    starting: float = 0.0
    children: int = 0
    out_of_memory: int = 0


@dataclass(frozen=True, eq=False)
class Wanted:
    """One requested pass. question: for all its windows; ask: builds it for some of them. budget: learns how the pass went."""

    windows: Sequence[int]
    question: Question
    ask: AskFor
    budget: TokenBudget | None = None

    @property
    def tokens(self) -> int:
        """Tokens of the pass."""
        return len(self.question[0].input_ids_T)


class Source(Protocol):
    """Where packs come from."""

    def take(self, *, wait: bool) -> Wanted | None:
        """The next pack; None if there is none yet (wait is False) or none will come."""
        ...


@dataclass
class InOrder:
    """The packs of one caller, cut when there is room for the next."""

    packs: Iterator[Sequence[int]]
    ask: AskFor
    budget: TokenBudget | None = None

    def take(self, *, wait: bool) -> Wanted | None:
        """The next pack."""
        windows = next(self.packs, None)
        return None if windows is None else Wanted(windows, self.ask(windows), self.ask, self.budget)


class Solver(Protocol):
    """Answers packs: a supervisor, or a stand-in for one."""

    def solve_all(self, packs: Iterable[Sequence[int]], ask: AskFor, budget: TokenBudget) -> Iterator[Part]:
        """Answers, or the error, of every window of every pack, in parts as they are found."""
        ...


@dataclass
class InThisProcess:
    """A stand-in for a supervisor with the model in this process: it is not watched, and its exceptions are raised."""

    model: Callable[[Tokens, Mapping[str, Ask]], Mapping[str, Answers]]

    def solve_all(self, packs: Iterable[Sequence[int]], ask: AskFor, budget: TokenBudget) -> Iterator[Part]:
        """The answers of each pack at once."""
        for windows in packs:
            yield windows, self.model(*ask(windows))
