"""A folder at a URL, on a local disk or an object store; its file system is opened once."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from pipeline.store import local_disk, storage
from pipeline.store.storage import Place, RetriedFile


@dataclass(frozen=True)
class Listed:
    """What a listing says of one file in a folder. version: its etag, or its size and time. folder: it is a folder itself."""

    size: int
    version: str
    folder: bool = False


class Folder:
    """The files directly in a folder, by name. All methods raise StorageError; reading raises FileNotFoundError too."""

    def __init__(self, url: str | Place) -> None:
        self._place = storage.place_of(url)

    def __truediv__(self, name: str) -> "Folder":
        """A folder in this one, on the same file system."""
        return Folder(self._place / name)

    @property
    def url(self) -> str:
        """The folder's URL."""
        return self._place.url

    def url_of(self, name: str) -> str:
        """The URL of a file."""
        return (self._place / name).url

    def names(self) -> list[str]:
        """Names of the files, sorted, in one listing; empty where there is no such folder."""
        return storage.names(self._place)

    def listed(self) -> dict[str, Listed]:
        """What lies directly in the folder, by name, in one listing; empty where there is no such folder."""
        listing = partial(self._place.fs.ls, self._place.path, detail=True)
        try:
            entries = storage.attempt(listing, what=f"listing {self.url}")
        except (FileNotFoundError, NotADirectoryError):
            return {}
        named = {str(entry["name"]).rstrip("/").rpartition("/")[2]: entry for entry in entries}
        return {
            name: Listed(
                size=int(entry["size"] or 0),
                version=storage.version_of(entry),
                folder=entry["type"] == "directory" or str(entry["name"]).endswith("/"),
            )
            for name, entry in sorted(named.items())
            if not name.startswith(local_disk.TEMPORARY_PREFIX)
        }

    def read(self, name: str) -> bytes:
        """A whole file."""
        return storage.read_bytes(self._place / name)

    @contextmanager
    def open(self, name: str) -> Iterator[RetriedFile]:
        """A file open for reading."""
        with storage.opened(self._place / name) as file:
            yield file

    def put(self, name: str, content: bytes) -> None:
        """Store a whole file; a reader sees all of it or none of it."""
        storage.put(self._place / name, content)

    def put_if_absent(self, name: str, content: bytes) -> bytes:
        """Store a file unless there is one, and return what is stored: the first writer decides."""
        return storage.put_if_absent(self._place / name, content)

    def delete(self, names: Iterable[str]) -> None:
        """Remove files; one that is gone already is no error."""
        storage.delete(self._place / name for name in names)

    def sweep(self) -> None:
        """Remove what a killed process left half written; only local disks keep such files."""
        storage.sweep(self._place)
