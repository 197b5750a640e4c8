"""An HTTP server that answers like Ray's dashboard, and fails on request."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Thread
from typing import Any

from aiohttp import web

Answering = Callable[[web.Request], Any]


@dataclass
class Dashboard:
    """One job and its log. tailed: how much of the log a follower gets before its connection is cut; None for no cut.

    exit_code, message: of the job, if it failed. refuse: a status for everything. after_cut: what happens to the job while
    nobody is connected. downtime: seconds that the server is gone after a cut. lose_answers: a submission is taken, and its
    answer never arrives.
    """

    port: int
    status: str = "RUNNING"
    exit_code: int = 3
    message: str | None = None
    log: str = ""
    tailed: int | None = None
    refuse: int | None = None
    downtime: float = 0.0
    lose_answers: bool = False
    after_cut: Callable[["Dashboard"], None] = lambda _: None
    submitted: list[dict[str, Any]] = field(default_factory=list)
    cuts: int = 0
    _back: float = 0.0
    _loop: asyncio.AbstractEventLoop | None = None

    @property
    def address(self) -> str:
        """Where it is reached."""
        return f"http://127.0.0.1:{self.port}"

    def job(self, name: str) -> dict[str, Any]:
        """The job as Ray tells it."""
        code = {"SUCCEEDED": 0, "FAILED": self.exit_code}.get(self.status)
        return {
            "type": "SUBMISSION",
            "submission_id": name,
            "status": self.status,
            "entrypoint": "",
            "driver_exit_code": code,
            "message": self.message,
        }

    @web.middleware
    async def _door(self, request: web.Request, handler: Answering) -> web.StreamResponse:
        assert self._loop is not None
        if self._loop.time() < self._back:
            assert request.transport is not None
            request.transport.abort()  # as a tunnel whose other end is gone
        if self.refuse:
            return web.Response(status=self.refuse, text="Unauthorized: Missing authentication token")
        response: web.StreamResponse = await handler(request)
        return response

    async def _version(self, _: web.Request) -> web.Response:
        return web.json_response({"version": "4", "ray_version": "2.60.0", "ray_commit": "", "session_name": ""})

    async def _package(self, _: web.Request) -> web.Response:
        return web.Response()

    async def _jobs(self, _: web.Request) -> web.Response:
        return web.json_response(
            [{**self.job(each["submission_id"]), "metadata": each.get("metadata") or {}} for each in self.submitted]
        )

    async def _submit(self, request: web.Request) -> web.Response:
        self.submitted.append(await request.json())
        if self.lose_answers:
            assert request.transport is not None
            request.transport.abort()
        return web.json_response({"job_id": "1", "submission_id": self.submitted[-1]["submission_id"]})

    async def _job(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name == "preln-unknown-1":
            return web.Response(status=404, text=f"Job {name} does not exist")
        return web.json_response(self.job(name))

    async def _log(self, _: web.Request) -> web.Response:
        return web.json_response({"logs": self.log})

    async def _tail(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        for line in self.log[: self.tailed].splitlines(keepends=True):
            await socket.send_str(line)
        if self.tailed is not None and request.transport is not None and self._loop is not None:
            self.cuts += 1
            self.after_cut(self)
            self._back = self._loop.time() + self.downtime
            await asyncio.sleep(0.05)  # what was sent has arrived
            request.transport.abort()
        return socket

    async def _serve(self, ready: Callable[[], None], ended: asyncio.Event) -> None:
        application = web.Application(middlewares=[self._door])
        application.add_routes(
            [
                web.get("/api/version", self._version),
                web.get("/api/packages/{protocol}/{package}", self._package),
                web.get("/api/jobs/", self._jobs),
                web.post("/api/jobs/", self._submit),
                web.get("/api/jobs/{name}", self._job),
                web.get("/api/jobs/{name}/logs", self._log),
                web.get("/api/jobs/{name}/logs/tail", self._tail),
            ]
        )
        runner = web.AppRunner(application)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.port).start()
        ready()
        await ended.wait()
        await runner.cleanup()


@contextmanager
def serving(dashboard: Dashboard) -> Iterator[Dashboard]:
    """The server, in a thread of its own."""
    ended = asyncio.Event()
    with asyncio.Runner() as runner:
        loop = dashboard._loop = runner.get_loop()
        ready = asyncio.Event()
        task = dashboard._serve(ready.set, ended)
        thread = Thread(target=runner.run, args=(task,))
        thread.start()
        try:
            asyncio.run_coroutine_threadsafe(ready.wait(), loop).result(10)
            yield dashboard
        finally:
            loop.call_soon_threadsafe(ended.set)
            thread.join(10)
