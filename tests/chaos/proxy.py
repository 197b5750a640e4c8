"""A seeded reverse proxy in front of an object store, which fails some requests the ways S3 does.

The Host header is passed on, so that signatures hold. A fault is one of: 503 SlowDown, a connection cut before the request
is passed on, a delay, 2 s of latency, an answer cut in the middle, a reply to a range that is shorter than the range, a range
that is ignored, a listing as it was before or whose XML breaks off, an error inside a 200 of CompleteMultipartUpload, another
etag than a moment before, and the nastiest: the request is done and its reply lost.
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

Fault = Literal[
    "slow-down",
    "cut",
    "delay",
    "latency",
    "torn",
    "lost-reply",
    "short",
    "range-ignored",
    "old-listing",
    "cut-listing",
    "error-in-200",
    "other-etag",
]
ANYWHERE: dict[Fault, float] = {
    "slow-down": 0.3,
    "cut": 0.2,
    "delay": 0.15,
    "latency": 0.05,
    "torn": 0.1,
    "lost-reply": 0.2,
}
"""Faults of any request, and their shares."""
FITTING: dict[str, tuple[Fault, ...]] = {
    "range": ("short", "range-ignored"),
    "listing": ("old-listing", "cut-listing"),
    "completion": ("error-in-200",),
    "object": ("other-etag",),
    "head": ("other-etag",),
}
"""Faults of requests of a kind."""
SHARE_FITTING = 0.4
LATENCY = 2.0
ERROR_IN_200 = (
    b"<Error><Code>InternalError</Code><Message>We encountered an internal error. Please try again.</Message></Error>"
)
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
        self._listings: dict[str, bytes] = {}

    def fate(self, kind: str) -> Fault | None:
        """What happens to the next request, of a kind of FITTING or another."""
        self.requests += 1
        if self._random.random() >= self.share:
            return None
        fault: Fault
        if kind in FITTING and self._random.random() < SHARE_FITTING:
            fault = self._random.choice(FITTING[kind])
        else:
            fault = self._random.choices(list(ANYWHERE), weights=list(ANYWHERE.values()))[0]
        self.faults[fault] += 1
        return fault

    def changed(self, fault: Fault | None, path: str, kind: str, content: bytes) -> bytes:
        """A reply's bytes as the fault leaves them; listings are remembered."""
        before = self._listings.get(path, content)
        if kind == "listing":
            self._listings[path] = content
        if fault == "old-listing":
            return before
        if fault == "cut-listing":
            return content[: len(content) * 2 // 3]
        if fault == "short":
            return content[: self._random.randrange(len(content))] if content else content
        return ERROR_IN_200 if fault == "error-in-200" else content

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """One request."""
        body = await request.read()
        kind = kind_of(request)
        fault = self.fate(kind)
        if fault == "slow-down":
            return web.Response(status=503, body=SLOW_DOWN, content_type="application/xml")
        if fault == "cut":
            return _cut(request)
        if fault == "delay":
            await asyncio.sleep(self._random.uniform(0, LONGEST_DELAY))
        if fault == "latency":
            await asyncio.sleep(LATENCY)
        session: ClientSession = request.app[SESSION]
        dropped = [b"transfer-encoding", *([b"range"] if fault == "range-ignored" else [])]
        headers = [(name, value) for name, value in request.raw_headers if name.lower() not in dropped]
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
            if answer.status < 300:
                content = self.changed(fault, request.raw_path, kind, content)
            response = web.StreamResponse(status=answer.status, reason=answer.reason)
            for name, value in answer.headers.items():
                if name.lower() not in DROPPED:
                    other = fault == "other-etag" and name.lower() == "etag"
                    response.headers.add(name, f'"{self._random.randbytes(16).hex()}"' if other else value)
            if request.method != "HEAD" and answer.status != 204:
                response.content_length = len(content)
            await response.prepare(request)
            if request.method != "HEAD":
                await response.write(content[: len(content) // 2] if fault == "torn" else content)
            if fault == "torn":
                return _cut(request, response)
            await response.write_eof()
            return response


def kind_of(request: web.Request) -> str:
    """Which faults fit a request."""
    if request.method == "POST" and "uploadId" in request.query:
        return "completion"
    if request.method == "HEAD":
        return "head" if request.path.count("/") > 1 else ""
    if request.method != "GET":
        return ""
    if "list-type" in request.query or "prefix" in request.query:
        return "listing"
    return "range" if "Range" in request.headers else "object"


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
