"""Bytes, listings and atomic puts of stored files, by URL: every use of a file system passes here.

Local paths, `file://`, `s3://`, `gs://`, `abfs://` and whatever else fsspec knows; credentials come from the environment,
as fsspec and the cloud SDKs take them. A put is whole or absent: one PUT on an object store; a temporary file, fsync and
`os.replace` on a local disk.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import Any, TypeVar

import fsspec
from fsspec.implementations.local import LocalFileSystem
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_exponential_jitter

from models.deadlines import with_deadlines, with_read_deadlines
from pipeline.errors import StorageError
from pipeline.store import local_disk
from pipeline.store.ranges import check_ranges

Result = TypeVar("Result")

RETRY_SECONDS = 120.0
"""How long a store may stay away before a run gives up."""

REFUSALS = (PermissionError, FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError, ValueError)
"""What a store says once and means: never tried again."""

REFUSALS_BY_NAME = {
    "NoCredentialsError",
    "PartialCredentialsError",
    "ProfileNotFound",
    "ParamValidationError",
    "DefaultCredentialsError",
    "ClientAuthenticationError",
    "FileExpired",
}
"""The same of the cloud SDKs, which share no classes."""

REFUSED_NUMBERS = {errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.ENAMETOOLONG, errno.EINVAL}
"""The same among the system's own error numbers; EINVAL is how S3 clients tell of a range beyond the end of a file."""


@dataclass(frozen=True)
class FileInfo:
    """One stored file: its full URL, bytes, and what tells its versions apart (an etag, or size and time).

    hidden: its name, or that of a folder of it, begins with a dot or an underscore. regular: no pipe, socket or broken link.
    """

    uri: str
    size: int
    version: str
    hidden: bool = False
    regular: bool = True


@dataclass(frozen=True)
class Place:
    """A file or a folder whose file system is open. path: inside it."""

    url: str
    fs: fsspec.AbstractFileSystem
    path: str

    def __truediv__(self, name: str) -> "Place":
        """What is below it, on the same file system."""
        return Place(join(self.url, name), self.fs, join(self.path, name))


def place_of(url: str | Place) -> Place:
    """The place of a URL; one that is open already is returned as it is."""
    return url if isinstance(url, Place) else Place(url, *filesystem(url))


def filesystem(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of a URL and the path inside it; listings are never cached, since others write too."""
    protocol, _ = fsspec.core.split_protocol(url)
    try:
        # Not url_to_fs: it takes `::` for a chain of file systems, and here it is part of a name.
        kind = fsspec.get_filesystem_class(protocol or "file")
        fs = fsspec.filesystem(protocol or "file", use_listings_cache=False, **kind._get_kwargs_from_urls(url))
        path = fs._strip_protocol(url)
    except ImportError as error:
        raise StorageError(
            f"{url}: {error}. Install the extra for this store: pip install 'preln[s3]', [gcs], [azure] or [hub]"
        ) from error
    except ValueError as error:
        raise StorageError(f"{url}: {error}; write a path, or a URL such as s3://, gs:// or abfs://") from error
    _tell_of_errors(fs)
    with_deadlines(fs)
    return fs, path


def _tell_of_errors(fs: fsspec.AbstractFileSystem) -> None:
    """fsspec leaves a folder that it can't list out of what it finds, as if it were empty; here it is an error."""
    for name in ("walk", "_walk"):
        walk = getattr(fs, name, None)
        if walk is not None and not isinstance(walk, partial):
            setattr(fs, name, partial(walk, on_error=_raise_unless_gone))


def _raise_unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def canonical(url: str) -> str:
    """The one way to write a URL: absolute, with its protocol (`file:///data/a.txt`, `s3://bucket/key`)."""
    fs, path = filesystem(url)
    return _uri(fs, path)


def readable(url: str) -> str:
    """A URL as a person writes it: a local path without its protocol."""
    return url.removeprefix("file://")


def join(url: str, *parts: str) -> str:
    """A URL below another."""
    return "/".join([url.rstrip("/"), *parts])


def _uri(fs: fsspec.AbstractFileSystem, path: str) -> str:
    if isinstance(fs, LocalFileSystem):
        path = "/" + os.path.normpath(path).lstrip("/")  # normpath leaves two slashes at the front alone
    return str(fs.unstrip_protocol(path))


def same_file(uri: str) -> str:
    """What two addresses of one stored file have in common: the real path on a local disk, elsewhere the address itself."""
    fs, path = filesystem(uri)
    return f"file://{os.path.realpath(path)}" if isinstance(fs, LocalFileSystem) else uri


def version_of(info: dict[str, Any]) -> str:
    """What tells the versions of a file apart, from its entry in a listing."""
    for key in ("ETag", "etag", "generation", "md5Hash", "blob_id"):
        if info.get(key):
            return str(info[key]).strip('"')
    for key in ("mtime", "LastModified", "last_modified", "Last-Modified", "updated"):
        if info.get(key) is not None:
            moment = info[key]
            return f"{info.get('size')}-{moment.timestamp() if hasattr(moment, 'timestamp') else moment!r}"
    return f"{info.get('size')}"


def _file_info(fs: fsspec.AbstractFileSystem, info: dict[str, Any], *, hidden: bool = False) -> FileInfo:
    regular = info["type"] == "file"
    if isinstance(fs, LocalFileSystem) and (info.get("islink") or not regular):
        info, regular = _followed(info)  # what a listing says of a link is the link's own
    return FileInfo(
        uri=_uri(fs, info["name"]),
        size=int(info["size"] or 0),
        version=version_of(info),
        hidden=hidden,
        regular=regular,
    )


def _followed(info: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """What is said of a local file, links followed, and whether it is a regular one."""
    try:
        found = os.stat(info["name"])
    except OSError:
        return info, False
    return {**info, "mtime": found.st_mtime, "size": found.st_size}, stat.S_ISREG(found.st_mode)


def is_transient(error: BaseException) -> bool:
    """Whether a later try may succeed: the store failed transiently and did not refuse."""
    if isinstance(error, REFUSALS) or type(error).__name__ in REFUSALS_BY_NAME:
        return False
    if isinstance(error, OSError) and error.errno in REFUSED_NUMBERS:
        return False
    return isinstance(error, OSError | TimeoutError | ConnectionError) or type(error).__module__.startswith(
        ("botocore", "aiobotocore", "aiohttp", "gcsfs", "azure", "google")
    )


def attempt(action: Callable[[], Result], *, what: str) -> Result:
    """Do a harmlessly repeatable thing, trying again with backoff and jitter while the store fails transiently.

    Raises StorageError, naming `what`, once the store refuses or has stayed away for RETRY_SECONDS; FileNotFoundError
    passes as it is, because what is absent means something else to every caller.
    """
    retrying = Retrying(
        retry=retry_if_exception(is_transient),
        wait=wait_exponential_jitter(multiplier=0.2, max=10.0),
        stop=stop_after_delay(RETRY_SECONDS),
        reraise=True,
    )
    try:
        return retrying(action)
    except FileNotFoundError:
        raise
    except Exception as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError(f"{what}: {type(error).__name__}: {error}", refused=not is_transient(error)) from error


def info(url: str) -> FileInfo:
    """Size and version of one file. Raises FileNotFoundError."""
    fs, path = filesystem(url)
    return attempt(lambda: _file_info(fs, fs.info(path)), what=f"looking at {url}")


def exists(url: str) -> bool:
    """Whether a file is there."""
    try:
        info(url)
    except FileNotFoundError:
        return False
    return True


def find(url: str, *, hidden: bool = False) -> list[FileInfo]:
    """The files that a path, folder or glob stands for, sorted by URL; hidden and underscored names are left out of
    folders and globs, as every reader of Parquet folders does, or marked (hidden). An empty list where nothing matches."""
    fs, path = filesystem(url)

    def listing() -> list[FileInfo]:
        if (entry := _file_entry(fs, path)) is not None:
            return [_file_info(fs, entry)]
        glob = has_magic(path) and not fs.isdir(path)
        found = fs.glob(path, detail=True) if glob else fs.find(path, detail=True)
        root = PurePosixPath(path.split("*", 1)[0].rpartition("/")[0]) if glob else PurePosixPath(path)
        files = []
        for name, entry in found.items():
            if entry["type"] == "directory":
                files += list(fs.find(name, detail=True).values())
            else:
                files.append(entry)
        kept = {entry["name"]: entry for entry in files}
        every = (_file_info(fs, entry, hidden=_hidden(name, root)) for name, entry in kept.items())
        return sorted((file for file in every if hidden or not file.hidden), key=lambda file: file.uri)

    try:
        return attempt(listing, what=f"listing {url}")
    except FileNotFoundError:
        return []


def _file_entry(fs: fsspec.AbstractFileSystem, path: str) -> dict[str, Any] | None:
    """The store's metadata of a file; None for a folder, a missing file, and if only listing is allowed."""
    try:
        entry: dict[str, Any] = fs.info(path)
    except (FileNotFoundError, PermissionError):
        return None
    return entry if entry["type"] != "directory" else None


def has_magic(path: str) -> bool:
    """Whether a path is a glob."""
    return any(character in path for character in "*?[")


def _hidden(name: str, root: PurePosixPath) -> bool:
    try:
        parts = PurePosixPath(name).relative_to(root).parts
    except ValueError:
        parts = PurePosixPath(name).parts[-1:]
    return any(part.startswith((".", "_")) for part in parts)


def read_bytes(file: str | Place) -> bytes:
    """A whole small file. Raises FileNotFoundError."""
    place = place_of(file)
    return attempt(lambda: bytes(place.fs.cat_file(place.path)), what=f"reading {place.url}")


def read_range(url: str, start: int, stop: int) -> bytes:
    """Bytes [start, stop) of a file; fewer at its end. Raises FileNotFoundError."""
    fs, path = filesystem(url)
    return attempt(
        lambda: bytes(fs.cat_file(path, start=start, end=stop)) if stop > start else b"", what=f"reading {url}"
    )


class RetriedFile:
    """An open file whose every read is retried while the store fails transiently; read, seek and tell, for Arrow."""

    def __init__(self, handle: Any, *, url: str) -> None:
        self._handle = handle
        self._url = url

    def read(self, size: int = -1) -> bytes:
        """The next bytes. Raises StorageError, FileNotFoundError."""
        place = self._handle.tell()

        def again() -> bytes:
            self._handle.seek(place)
            return bytes(self._handle.read(size))

        return attempt(again, what=f"reading {self._url}")

    def seek(self, place: int, whence: int = 0) -> int:
        """Go there."""
        return int(self._handle.seek(place, whence))

    def tell(self) -> int:
        """Where it is."""
        return int(self._handle.tell())

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def close(self) -> None:
        """Close the file."""
        self._handle.close()

    @property
    def closed(self) -> bool:
        """Whether it is."""
        return bool(self._handle.closed)


@contextmanager
def opened(file: str | Place, **options: object) -> Iterator[RetriedFile]:
    """A file open for reading; options are those of fsspec's `open`. Raises FileNotFoundError, StorageError."""
    place = place_of(file)
    with attempt(lambda: place.fs.open(place.path, "rb", **options), what=f"reading {place.url}") as handle:
        with_read_deadlines(handle)
        check_ranges(handle, url=place.url)
        yield RetriedFile(handle, url=place.url)


def put(file: str | Place, content: bytes) -> None:
    """Store a whole object; a reader sees all of it or none of it, also when this process dies in the middle."""
    place = place_of(file)
    fs, path = place.fs, place.path
    store = local_disk.put if isinstance(fs, LocalFileSystem) else fs.pipe_file
    try:
        attempt(lambda: store(path, content), what=f"writing {place.url}")
    except FileNotFoundError as error:
        raise StorageError(f"writing {place.url}: {error}. Does the bucket exist?") from error


def put_if_absent(file: str | Place, content: bytes) -> bytes:
    """Store an object unless there is one, and return what is stored now: the first writer decides.

    Conditional where the store can (`mode="create"`), else look, put, and read back. Decided by what is stored, since
    stores and clients differ in the exception for the same refusal.
    """
    place = place_of(file)
    try:
        return read_bytes(place)
    except FileNotFoundError:
        pass
    try:
        if isinstance(place.fs, LocalFileSystem):
            local_disk.create(place.path, content)
        else:
            place.fs.pipe_file(place.path, content, mode="create")
    except Exception:
        try:
            return read_bytes(place)
        except FileNotFoundError:
            put(place, content)
    return read_bytes(place)


def delete(files: Iterable[str | Place]) -> None:
    """Remove objects; one that is gone already is no error."""
    for place in map(place_of, files):
        with suppress(FileNotFoundError):
            attempt(partial(place.fs.rm_file, place.path), what=f"deleting {place.url}")


def names(folder: str | Place) -> list[str]:
    """Names of the files directly in a folder, in one listing; an empty list where there is no such folder."""
    place = place_of(folder)
    try:
        entries = attempt(lambda: place.fs.ls(place.path, detail=False), what=f"listing {place.url}")
    except (FileNotFoundError, NotADirectoryError):
        return []
    found = (str(entry).rstrip("/").rpartition("/")[2] for entry in entries)
    return sorted(name for name in found if not name.startswith(local_disk.TEMPORARY_PREFIX))


def sweep(folder: str | Place) -> None:
    """Remove what a killed process left half written in a local folder; other stores keep no such thing."""
    place = place_of(folder)
    if isinstance(place.fs, LocalFileSystem):
        local_disk.sweep(place.path)
