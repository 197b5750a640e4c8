"""An in-memory object store (`drill://bucket/key`) in which every step can be made to fail.

A put is whole, an etag is the content's, a listing is of this moment. `STORE` counts the steps that a run takes and asks
`STORE.trouble` before and after each.
"""

import hashlib
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import fsspec
from fsspec import AbstractFileSystem

SCHEME = "drill"

When = Literal["before", "after"]
Versions = Literal["etag", "time", "size"]
Trouble = Callable[[int, str, When], None]
"""Called with the number of a step, what it is (`put b/out/_job.json`), and whether it is about to be or has been done."""


class Crash(BaseException):
    """The end of a process, as far as its code can tell: nothing catches it."""


@dataclass
class Store:
    """What is stored, and what was done. attempted: every object that anybody ever tried to put under data/, with each content.

    versions: what a listing tells versions apart by. times: when each object was put, by a clock of its own. flat: whether all
    that is below a folder comes in one listing, as from S3, where `a//b` and `a/b` are two objects; else folder by folder.
    """

    objects: dict[str, bytes] = field(default_factory=dict)
    steps: list[str] = field(default_factory=list)
    attempted: dict[str, list[bytes]] = field(default_factory=dict)
    trouble: Trouble | None = None
    versions: Versions = "etag"
    times: dict[str, int] = field(default_factory=dict)
    flat: bool = False

    def reset(self) -> None:
        """An empty store without trouble."""
        self.objects.clear()
        self.steps.clear()
        self.attempted.clear()
        self.trouble = None
        self.versions = "etag"
        self.times.clear()
        self.flat = False

    def put(self, key: str, content: bytes) -> None:
        """Store an object, whoever does it."""
        self.objects[key] = content
        self.times[key] = max(self.times.values(), default=0) + 1

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """One thing done to the store."""
        number = len(self.steps)
        self.steps.append(name)
        if self.trouble is not None:
            self.trouble(number, name, "before")
        yield
        if self.trouble is not None:
            self.trouble(number, name, "after")

    @contextmanager
    def troubled(self, trouble: Trouble) -> Iterator[None]:
        """Trouble for a while; its steps are counted from 0."""
        self.steps.clear()
        self.trouble = trouble
        try:
            yield
        finally:
            self.trouble = None


STORE = Store()


def crash_at(step: int, when: When) -> Trouble:
    """The process ends before or after a step; its other threads get no further either."""

    def trouble(number: int, _name: str, now: When) -> None:
        if number > step or (number == step and now == when):
            raise Crash

    return trouble


def stumble_at(steps: set[int], when: When) -> Trouble:
    """These steps fail in passing: before they are done, or, when it is their reply that is lost, after."""

    def trouble(number: int, name: str, now: When) -> None:
        if number in steps and now == when:
            raise ConnectionResetError(f"{name}: the connection was cut")

    return trouble


def meanwhile_at(step: int, other: Callable[[], object]) -> Trouble:
    """Before a step, something else happens, wholly, to the same store."""

    def trouble(number: int, _name: str, now: When) -> None:
        if number == step and now == "before":
            STORE.trouble = None
            other()
            # One step may now be many; the rest of this run has no more trouble.

    return trouble


def away_from(step: int, name: str = "") -> Trouble:
    """From a step on, everything, or everything whose name begins so, fails in passing: the store is away."""

    def trouble(number: int, what: str, now: When) -> None:
        if number >= step and now == "before" and what.startswith(name):
            raise ConnectionResetError(f"{what}: the connection was cut")

    return trouble


class DrillFileSystem(AbstractFileSystem):
    """The store as fsspec sees it."""

    protocol = SCHEME
    cachable = False

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        """What lies directly below."""
        path = self._strip_protocol(path)
        with STORE.step(f"list {path}"):
            below = f"{path.rstrip('/')}/" if path else ""
            inside = [key for key in sorted(STORE.objects) if key.startswith(below)]
            if path in STORE.objects and not inside:
                return [self._entry(path)] if detail else [path]
            if not inside:
                raise FileNotFoundError(path)
            names = dict.fromkeys(below + key[len(below) :].split("/")[0] for key in inside)
            entries = [
                self._entry(name) if name in STORE.objects else {"name": name, "size": 0, "type": "directory"}
                for name in names
            ]
        return entries if detail else [entry["name"] for entry in entries]

    def find(
        self, path: str, maxdepth: int | None = None, withdirs: bool = False, detail: bool = False, **_: Any
    ) -> Any:
        """What lies below, at any depth."""
        path = self._strip_protocol(path)
        if not STORE.flat or maxdepth is not None:
            return super().find(path, maxdepth=maxdepth, withdirs=withdirs, detail=detail)
        with STORE.step(f"list {path}"):
            entries = {key: self._entry(key) for key in sorted(STORE.objects) if key.startswith(f"{path}/")}
        return entries if detail else list(entries)

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """One object, or a folder."""
        path = self._strip_protocol(path)
        with STORE.step(f"look {path}"):
            if path in STORE.objects:
                return self._entry(path)
            if any(key.startswith(f"{path}/") for key in STORE.objects):
                return {"name": path, "size": 0, "type": "directory"}
        raise FileNotFoundError(path)

    @staticmethod
    def _entry(key: str) -> dict[str, Any]:
        content = STORE.objects[key]
        entry = {"name": key, "size": len(content), "type": "file"}
        if STORE.versions == "etag":
            entry["ETag"] = hashlib.blake2b(content, digest_size=8).hexdigest()
        elif STORE.versions == "time":
            entry["mtime"] = STORE.times.get(key, 0)
        return entry

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        """An object, or a range of it."""
        path = self._strip_protocol(path)
        with STORE.step(f"get {path}"):
            if path not in STORE.objects:
                raise FileNotFoundError(path)
            return STORE.objects[path][start:end]

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: Any) -> None:
        """A whole object."""
        path = self._strip_protocol(path)
        if "/data/" in path:
            tried = STORE.attempted.setdefault(path, [])
            if value not in tried:
                tried.append(bytes(value))
        with STORE.step(f"put {path}"):
            if mode == "create" and path in STORE.objects:
                raise FileExistsError(path)
            STORE.put(path, bytes(value))

    def rm_file(self, path: str) -> None:
        """Remove an object."""
        path = self._strip_protocol(path)
        with STORE.step(f"delete {path}"):
            if path not in STORE.objects:
                raise FileNotFoundError(path)
            del STORE.objects[path]

    def _open(self, path: str, mode: str = "rb", **_: Any) -> io.BytesIO:
        return io.BytesIO(self.cat_file(path))


fsspec.register_implementation(SCHEME, DrillFileSystem, clobber=True)
