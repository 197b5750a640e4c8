"""A client for Ray's job API that retries while a connection is broken, and raises PrelnError.

PrelnError
    Unreachable     no answer at the moment; a later try may succeed
    NotAuthorized   the token is missing or wrong
    UnknownJob      no job with this id
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from aiohttp import ClientError, WSServerHandshakeError
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobSubmissionClient

from models.errors import PrelnError
from pipeline.cluster.ray_state import UPLOAD_LOGGER

Answer = TypeVar("Answer")
Notify = Callable[[str], None]

RECONNECT_SECONDS = 2.0
OUTAGE_SECONDS = 120.0
"""Seconds without an answer before giving up; long enough for a restarted tunnel or dashboard."""
TRANSIENT = ("status code 500", "status code 502", "status code 503", "status code 504")
"""What a proxy, a port-forward or the dashboard returns while its backend is away."""
AWAY = ("500 Server Error", "502 Server Error", "503 Server Error", "504 Server Error")
"""The same in the words of the request that opens the connection."""
CHATTY = ("ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk", UPLOAD_LOGGER)
"""Loggers of Ray's client that report uploads and closed connections, which say nothing about the job."""
TUNNEL = "through a tunnel (`ray dashboard cluster.yaml`, `kubectl port-forward`)"


class Unreachable(PrelnError):
    """The job API does not answer, or has not for longer than the timeout."""


class NotAuthorized(PrelnError):
    """The job API requires a token, or another one."""


class UnknownJob(PrelnError):
    """The cluster does not know this submission, or has forgotten it."""


def _silent(_: str) -> None:
    """Report nothing."""


@dataclass(frozen=True)
class JobApi:
    """Ray's job API at an address. timeout: seconds that an outage may last. say: called when one begins."""

    address: str
    client: JobSubmissionClient
    timeout: float = OUTAGE_SECONDS
    say: Notify = _silent

    @classmethod
    def at(cls, address: str, *, timeout: float = OUTAGE_SECONDS, say: Notify = _silent) -> "JobApi":
        """The job API at an address. Raises PrelnError; Unreachable if nothing answers there, at once if there is nothing
        and after the timeout if a proxy answers for a backend that is away."""
        for name in CHATTY:
            logging.getLogger(name).setLevel(logging.ERROR)
        began, reported = time.monotonic(), False
        while True:
            try:
                return cls(address, JobSubmissionClient(address), timeout, say)
            except AuthenticationError as error:
                raise _not_authorized(address, error) from None
            except (OSError, RuntimeError, ValueError) as error:
                left = began + timeout - time.monotonic()
                if not _is_away(error) or left <= 0:
                    kind = Unreachable if isinstance(error, ConnectionError) or _is_away(error) else PrelnError
                    raise kind(
                        f"{address}: no Ray job API answers there ({gist(error)}). Is the dashboard's port (8265) reachable, "
                        f"{TUNNEL}, and is the cluster's token set here?"
                    ) from None
                if not reported:
                    say(f"{address}: no answer ({gist(error)}); retrying for {timeout:.0f} s")
                reported = True
                time.sleep(min(RECONNECT_SECONDS, max(left, 0)))

    def submit(
        self,
        *,
        entrypoint: str,
        name: str,
        runtime_env: dict[str, Any],
        metadata: Mapping[str, str],
        options: Mapping[str, Any],
    ) -> None:
        """Start a job under a name. options: further ones of Ray's client, such as what its node must have.
        Tried once: after a broken connection, look in `jobs`. Raises PrelnError,
        and Unreachable if a later try may succeed."""
        self._once(
            lambda: self.client.submit_job(
                entrypoint=entrypoint, submission_id=name, runtime_env=runtime_env, metadata=dict(metadata), **options
            )
        )

    def jobs(self) -> list[JobDetails]:
        """All jobs that the cluster remembers. Raises PrelnError."""
        return self._with_retries(self.client.list_jobs)

    def job(self, name: str) -> JobDetails:
        """The cluster's details of a job. Raises PrelnError; UnknownJob if there is none with this id."""
        try:
            return self._with_retries(lambda: self.client.get_job_info(name))
        except UnknownJob:
            known = [job.submission_id for job in self.jobs() if (job.submission_id or "").startswith("preln-")]
            others = f"it has {', '.join(sorted(map(str, known))[-5:])}" if known else "it has no job of preln"
            raise UnknownJob(f"{name}: no such job on this cluster; {others}") from None

    def log(self, name: str) -> str:
        """The log of a job as it is now. Raises PrelnError."""
        return self._with_retries(lambda: self.client.get_job_logs(name))

    def tail(self, name: str) -> Iterator[str]:
        """Pieces of a job's log, from its start, until the connection ends, which is not the end of the job.
        Raises PrelnError, and Unreachable if the connection breaks."""
        pieces = self.client.tail_job_logs(name).__aiter__()
        with asyncio.Runner() as runner:
            while (piece := self._once(lambda: runner.run(_next(pieces)))) is not None:
                yield piece

    def stop(self, name: str) -> None:
        """Ask a job to end, without waiting for it. Raises PrelnError."""
        self._with_retries(lambda: self.client.stop_job(name))

    def _with_retries(self, question: Callable[[], Answer]) -> Answer:
        """Repeat a request while the connection is broken."""
        began = time.monotonic()
        reported = False
        while True:
            try:
                return self._once(question)
            except Unreachable as error:
                if time.monotonic() - began >= self.timeout:
                    raise Unreachable(
                        f"{error}, for {self.timeout:.0f} s now. A submitted job keeps running without this command: "
                        f"reconnect to the cluster, {TUNNEL}, and run the same command to follow it"
                    ) from None
                if not reported:
                    self.say(f"{error}; retrying for {self.timeout:.0f} s")
                reported = True
                time.sleep(min(RECONNECT_SECONDS, self.timeout))

    def _once(self, question: Callable[[], Answer]) -> Answer:
        """Make one request, and convert the errors of Ray's client to ours."""
        try:
            return question()
        except AuthenticationError as error:
            raise _not_authorized(self.address, error) from None
        except WSServerHandshakeError as error:
            if error.status in (401, 403):
                raise _not_authorized(self.address, error) from None
            raise Unreachable(f"{self.address}: the connection broke ({gist(error)})") from None
        except (OSError, ClientError) as error:
            raise Unreachable(f"{self.address}: the connection broke ({gist(error)})") from None
        except RuntimeError as error:
            words = str(error)
            if "does not exist" in words or "status code 404" in words:
                raise UnknownJob(f"{self.address}: no such job ({gist(error)})") from None
            if any(code in words for code in TRANSIENT) or "WebSocket" in words:
                raise Unreachable(f"{self.address}: no answer ({gist(error)})") from None
            raise PrelnError(f"{self.address}: the cluster refuses: {gist(error)}") from None


async def _next(pieces: AsyncIterator[str]) -> str | None:
    return await anext(pieces, None)


def _is_away(error: BaseException) -> bool:
    """Whether a proxy answered, or a tunnel whose other end is gone: not an address where nobody listens."""
    return any(code in str(error) for code in (*TRANSIENT, *AWAY))


def _not_authorized(address: str, error: BaseException) -> NotAuthorized:
    return NotAuthorized(
        f"{address}: authentication failed ({gist(error)}). The cluster requires its token: set RAY_AUTH_MODE=token, and "
        "put the cluster's token into RAY_AUTH_TOKEN or ~/.ray/auth_token"
    )


def gist(error: BaseException) -> str:
    """The most informative line of an error: the last one of a server's traceback, else the first."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1 if "Traceback (most recent call last)" in str(error) else 0].strip().rstrip(".")
