"""A small server of the Hub's API on loopback, which serves folders as models, with revisions and private ones.

It answers what huggingface_hub asks for models: a model's info, its tree, its files by range. A test looks at `requests`.
"""

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_of_the_test"


@dataclass(frozen=True)
class Hub:
    """models: name -> revision -> folder; private: names that want TOKEN; requests: (method, path) as they came."""

    models: Mapping[str, Mapping[str, Path]]
    private: frozenset[str] = frozenset()
    requests: list[tuple[str, str]] = field(default_factory=list)
    url: str = ""

    def commit(self, name: str, revision: str) -> str | None:
        """The commit of a revision, or the commit itself."""
        for known in self.models[name]:
            commit = hashlib.sha1(f"{name} {known}".encode()).hexdigest()
            if revision in (known, commit):
                return commit
        return None

    def folder(self, name: str, commit: str) -> Path:
        """The files of a commit."""
        return next(self.models[name][known] for known in self.models[name] if self.commit(name, known) == commit)


@contextmanager
def serving(models: Mapping[str, Mapping[str, Path]], *, private: frozenset[str] = frozenset()) -> Iterator[Hub]:
    """The server, on a free port of this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    hub = Hub(models=models, private=private, url=f"http://127.0.0.1:{server.server_port}")
    server.hub = hub  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Nothing: a test looks at `requests`."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        hub: Hub = self.server.hub  # type: ignore[attr-defined]
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        hub.requests.append((self.command, path))
        found = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree|paths-info)/([^/]+)(?:/(.*))?)?", path)
        file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.*)", path)
        matched = found or file
        if matched is None or matched[1] not in hub.models:
            return self._refuse(404, "RepoNotFound")
        name = matched[1]
        if name in hub.private and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._refuse(401, "RepoNotFound")
        commit = hub.commit(name, (found[3] if found else matched[2]) or "main")
        if commit is None:
            return self._refuse(404, "RevisionNotFound")
        folder = hub.folder(name, commit)
        if file is not None:
            return self._file(folder / file[3], commit)
        assert found is not None
        if found[2] == "tree":
            return self._tree(folder, found[4] or "", recursive="recursive=true" in self.path.lower())
        if found[2] == "paths-info":
            given = (
                json.loads(body) if body.startswith(b"{") else {"paths": re.findall(r"paths=([^&]+)", body.decode())}
            )
            return self._json(
                [_entry(folder, folder / unquote(place)) for place in given["paths"] if (folder / place).exists()]
            )
        files = sorted(str(one.relative_to(folder)) for one in folder.rglob("*") if one.is_file())
        return self._json(
            {"id": name, "modelId": name, "sha": commit, "private": name in hub.private, "tags": [], "downloads": 0}
            | {"siblings": [{"rfilename": place} for place in files]}
        )

    def _tree(self, folder: Path, place: str, *, recursive: bool) -> None:
        within = folder / place
        if not within.is_dir():
            return self._refuse(404, "EntryNotFound")
        return self._json([_entry(folder, one) for one in sorted(within.rglob("*") if recursive else within.iterdir())])

    def _file(self, path: Path, commit: str) -> None:
        if not path.is_file():
            return self._refuse(404, "EntryNotFound", commit=commit)
        content = path.read_bytes()
        etag = hashlib.sha1(content).hexdigest()
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        self.send_response(206 if asked else 200)
        if asked:
            first, last = int(asked[1]), min(int(asked[2] or len(content) - 1), len(content) - 1)
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
            content = content[first : last + 1]
        self.send_header("ETag", f'"{etag}"')
        self.send_header("X-Repo-Commit", commit)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
        return None

    def _json(self, value: Any) -> None:
        content = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _refuse(self, status: int, code: str, *, commit: str = "") -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", code)
        if commit:
            self.send_header("X-Repo-Commit", commit)
        self.send_header("Content-Length", "0")
        self.end_headers()


def _entry(folder: Path, path: Path) -> dict[str, Any]:
    place = str(path.relative_to(folder))
    if path.is_dir():
        return {"type": "directory", "path": place, "oid": hashlib.sha1(place.encode()).hexdigest(), "size": 0}
    content = path.read_bytes()
    return {"type": "file", "path": place, "oid": hashlib.sha1(content).hexdigest(), "size": len(content)}
