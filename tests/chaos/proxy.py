"""A seeded reverse proxy in front of an object store, which fails some requests the ways S3 does.

The Host header is passed on, so that signatures hold. A fault is one of: 503 SlowDown, a connection cut before the request
is passed on, a delay, an answer cut in the middle, and the nastiest: the request is done and its reply lost.
"""

import asyncio
import random
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from aiohttp import ClientSession, ClientTimeout, TCPConnector, web
from yarl import URL

Fault = Literal["slow-down", "cut", "delay", "torn", "lost-reply"]
FAULTS: dict[Fault, float] = {"slow-down": 0.3, "cut": 0.2, "delay": 0.2, "torn": 0.1, "lost-reply": 0.2}
"""Kinds of faults and their shares."""
LONGEST_DELAY = 1.0
DROPPED = {"transfer-encoding", "connection", "keep-alive", "server", "date"}
SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"


@dataclass
class Proxy:
    """A running proxy. share: of requests that meet a fault; may be changed at any time."""

    target: str
    seed: int
    share: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    url: str = ""

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def fate(self) -> Fault | None:
        """What happens to the next request."""
        self.requests += 1
        if self._random.random() >= self.share:
            return None
        fault = self._random.choices(list(FAULTS), weights=list(FAULTS.values()))[0]
        self.faults[fault] += 1
        return fault

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """One request."""
        body = await request.read()
        fault = self.fate()
        if fault == "slow-down":
            return web.Response(status=503, body=SLOW_DOWN, content_type="application/xml")
        if fault == "cut":
            return _cut(request)
        if fault == "delay":
            await asyncio.sleep(self._random.uniform(0, LONGEST_DELAY))
        session: ClientSession = request.app[SESSION]
        headers = [(name, value) for name, value in request.raw_headers if name.lower() != b"transfer-encoding"]
        async with session.request(
            request.method,
            URL(self.target + request.raw_path, encoded=True),
            headers=[(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers],
            data=body or None,
            skip_auto_headers=("User-Agent", "Content-Type", "Accept", "Accept-Encoding"),
            allow_redirects=False,
        ) as answer:
            content = await answer.read()
            if fault == "lost-reply":
                return _cut(request)
            response = web.StreamResponse(status=answer.status, reason=answer.reason)
            for name, value in answer.headers.items():
                if name.lower() not in DROPPED:
                    response.headers.add(name, value)
            if request.method != "HEAD" and answer.status != 204:
                response.content_length = len(content)
            await response.prepare(request)
            if request.method != "HEAD":
                await response.write(content[: len(content) // 2] if fault == "torn" else content)
            if fault == "torn":
                return _cut(request, response)
            await response.write_eof()
            return response


SESSION = web.AppKey("session", ClientSession)


def _cut(request: web.Request, response: web.StreamResponse | None = None) -> web.StreamResponse:
    if request.transport is not None:
        request.transport.abort()
    return response or web.Response(status=500)


@contextmanager
def proxy(target: str, *, seed: int) -> Iterator[Proxy]:
    """A proxy before an object store's address, without faults until its share is set."""
    made = Proxy(target=target, seed=seed)
    loop = asyncio.new_event_loop()
    started = threading.Event()
    stopping = asyncio.Event()

    async def serve() -> None:
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{path:.*}", made.handle)
        timeout = ClientTimeout(total=60)
        async with ClientSession(connector=TCPConnector(limit=0), timeout=timeout, auto_decompress=False) as app[
            SESSION
        ]:
            runner = web.AppRunner(app, access_log=None)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            assert site._server is not None
            made.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"  # type: ignore[attr-defined]
            started.set()
            await stopping.wait()
            await runner.cleanup()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), name="proxy", daemon=True)
    thread.start()
    if not started.wait(20):
        raise RuntimeError("the proxy did not start")
    try:
        yield made
    finally:
        loop.call_soon_threadsafe(stopping.set)
        thread.join(20)
        loop.close()
