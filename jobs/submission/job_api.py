"""A client for Ray's job API that retries while a connection is broken, and raises PrelnError.

PrelnError
    Unreachable     nobody answers for now; asking again later may help
    NotLetIn        somebody answers, and wants another token
    UnknownJob      no job of this id there
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from aiohttp import ClientError, WSServerHandshakeError
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobSubmissionClient

from models.errors import PrelnError

Answer = TypeVar("Answer")
Notify = Callable[[str], None]

RECONNECT_SECONDS = 2.0
OUTAGE_SECONDS = 120.0
"""How long nobody need answer before a question is given up: a tunnel begun anew, a restarted dashboard."""
PASSING = ("status code 500", "status code 502", "status code 503", "status code 504")
"""What a proxy, a port-forward or the dashboard itself says while what it speaks for is not there."""
TUNNEL = "by a tunnel (`ray dashboard cluster.yaml`, `kubectl port-forward`)"


class Unreachable(PrelnError):
    """A job API that does not answer now, or through which nothing came for longer than the timeout."""


class NotLetIn(PrelnError):
    """A job API that wants a token, or another one."""


class UnknownJob(PrelnError):
    """A submission that the cluster has never heard of, or has forgotten."""


def _silent(_: str) -> None:
    """Nobody need be told."""


@dataclass(frozen=True)
class JobApi:
    """Ray's job API at an address. timeout: seconds that an outage may last. say: is told when one begins."""

    address: str
    client: JobSubmissionClient
    timeout: float = OUTAGE_SECONDS
    say: Notify = _silent

    @classmethod
    def at(cls, address: str, *, timeout: float = OUTAGE_SECONDS, say: Notify = _silent) -> "JobApi":
        """The job API at an address, which must answer now. Raises PrelnError."""
        try:
            return cls(address, JobSubmissionClient(address), timeout, say)
        except AuthenticationError as error:
            raise _not_let_in(address, error) from None
        except (OSError, RuntimeError, ValueError) as error:
            raise PrelnError(
                f"{address}: no Ray job API answers there ({gist(error)}). Is the dashboard's port (8265) reached, "
                f"{TUNNEL}, and is the cluster's token known here?"
            ) from None

    def submit(self, *, entrypoint: str, name: str, runtime_env: dict[str, Any], metadata: Mapping[str, str]) -> None:
        """Start a job under a name. Once: what became of a submission that broke off, `jobs` tells. Raises PrelnError,
        and Unreachable where the next try may do better."""
        self._once(
            lambda: self.client.submit_job(
                entrypoint=entrypoint, submission_id=name, runtime_env=runtime_env, metadata=dict(metadata)
            )
        )

    def jobs(self) -> list[JobDetails]:
        """All jobs that the cluster remembers. Raises PrelnError."""
        return self._patiently(self.client.list_jobs)

    def job(self, name: str) -> JobDetails:
        """What the cluster says of a job. Raises PrelnError; UnknownJob where it knows none of this id."""
        try:
            return self._patiently(lambda: self.client.get_job_info(name))
        except UnknownJob:
            known = [job.submission_id for job in self.jobs() if (job.submission_id or "").startswith("preln-")]
            told = f"it knows {', '.join(sorted(map(str, known))[-5:])}" if known else "it knows no job of preln"
            raise UnknownJob(f"{name}: this cluster knows no such job; {told}") from None

    def log(self, name: str) -> str:
        """The log of a job as it is now. Raises PrelnError."""
        return self._patiently(lambda: self.client.get_job_logs(name))

    def tail(self, name: str) -> Iterator[str]:
        """Pieces of a job's log, from its beginning, as long as one connection lasts; an end of it is no end of the job.
        Raises PrelnError, and Unreachable where the connection breaks."""
        pieces = self.client.tail_job_logs(name).__aiter__()
        with asyncio.Runner() as runner:
            while (piece := self._once(lambda: runner.run(_next(pieces)))) is not None:
                yield piece

    def stop(self, name: str) -> None:
        """Ask a job to end; it has not ended yet. Raises PrelnError."""
        self._patiently(lambda: self.client.stop_job(name))

    def _patiently(self, question: Callable[[], Answer]) -> Answer:
        """The answer, asked for again and again while the connection breaks."""
        began = time.monotonic()
        told = False
        while True:
            try:
                return self._once(question)
            except Unreachable as error:
                if time.monotonic() - began >= self.timeout:
                    raise Unreachable(
                        f"{error}, for {self.timeout:.0f} s now. A job that was submitted goes on without this command: "
                        f"reach the cluster again, {TUNNEL}, then the same command goes on"
                    ) from None
                if not told:
                    self.say(f"{error}; trying again for {self.timeout:.0f} s")
                told = True
                time.sleep(min(RECONNECT_SECONDS, self.timeout))

    def _once(self, question: Callable[[], Answer]) -> Answer:
        """The answer; what Ray's client raises as one of ours."""
        try:
            return question()
        except AuthenticationError as error:
            raise _not_let_in(self.address, error) from None
        except WSServerHandshakeError as error:
            if error.status in (401, 403):
                raise _not_let_in(self.address, error) from None
            raise Unreachable(f"{self.address}: the connection broke ({gist(error)})") from None
        except (OSError, ClientError) as error:
            raise Unreachable(f"{self.address}: the connection broke ({gist(error)})") from None
        except RuntimeError as error:
            words = str(error)
            if "does not exist" in words or "status code 404" in words:
                raise UnknownJob(f"{self.address}: no such job ({gist(error)})") from None
            if any(code in words for code in PASSING) or "WebSocket" in words:
                raise Unreachable(f"{self.address}: no answer came ({gist(error)})") from None
            raise PrelnError(f"{self.address}: the cluster refuses: {gist(error)}") from None


async def _next(pieces: AsyncIterator[str]) -> str | None:
    return await anext(pieces, None)


def _not_let_in(address: str, error: BaseException) -> NotLetIn:
    return NotLetIn(
        f"{address}: the cluster does not let us in ({gist(error)}). It asks for its token: set RAY_AUTH_MODE=token, and "
        "have the cluster's token in RAY_AUTH_TOKEN or in ~/.ray/auth_token"
    )


def gist(error: BaseException) -> str:
    """The line of an error that says most: the last one of a traceback that a server sent, else the first."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1 if "Traceback (most recent call last)" in str(error) else 0].strip().rstrip(".")
