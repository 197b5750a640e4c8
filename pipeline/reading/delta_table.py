"""Lists the files of a Delta table's newest version, as `deltalake` reads its log, on every store that preln reads."""

import json
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import unquote

from models.rust_panic import panics_caught
from pipeline.errors import SpecError
from pipeline.store.storage import FileInfo, find, read_bytes

LOG = "_delta_log"
READERS = 32
SAME_ROWS = {"deletionVectors", "columnMapping", "timestampNtz", "typeWidening", "v2Checkpoint", "vacuumProtocolCheck"}
"""What a table may require of its readers: the first two are looked for in it, with the others its files are still its rows."""
WAY_OUT = (
    "write its rows to Parquet files and name their folder: "
    "pyarrow.parquet.write_table(deltalake.DeltaTable(...).scan().read_all(), ...)"
)


def delta_files(root: str, within: Sequence[FileInfo], *, whole: bool) -> list[FileInfo]:
    """Of the files listed, those of the table's newest version. whole: the listing has all of its folder, so that none may lack.

    Raises SpecError.
    """
    with _opened(root) as table:
        try:
            with panics_caught():
                refused = _refused(table)
                start, uris = table.table_uri.removeprefix("file://").rstrip("/"), table.file_uris()
                partitions = table.metadata().partition_columns
        except Exception as error:
            raise SpecError(f"input.urls: {root} is a Delta table that can't be read: {_line(error)}") from None
    if refused:
        raise SpecError(
            f"input.urls: {root} is a Delta table {refused}: its files alone do not tell its rows; {WAY_OUT}"
        )
    by_name = {entry.uri.removeprefix(root): entry for entry in within}
    current = []
    for uri in uris:
        name = "/" + uri.removeprefix("file://").removeprefix(start).lstrip("/")
        entry = by_name.get(name) or by_name.get(unquote(name))
        if entry is None and whole:
            raise SpecError(f"input.urls: the Delta table {root} names {name}, which is not in its folder")
        if any(f"/{column}=" not in name for column in partitions):
            raise SpecError(f"input.urls: the Delta table {root} has partitions that its files' names do not tell")
        current += [] if entry is None else [entry]
    return current


@contextmanager
def _opened(root: str) -> Iterator[Any]:
    """The table with its log read; of a table elsewhere, a copy of the log, which is fetched as all other files are."""
    try:
        from deltalake import DeltaTable
    except ImportError:
        raise SpecError(
            f"input.urls: {root} is a Delta table, which holds removed rows too: pip install 'preln[delta]' reads its current "
            "ones; or write them to Parquet files"
        ) from None
    with TemporaryDirectory(prefix="preln-delta-") as copy:
        local = root.removeprefix("file://")
        if not root.startswith("file://"):
            _copy_log(root, Path(copy))
            local = copy
        try:
            with panics_caught():
                table = DeltaTable(local)
        except Exception as error:  # deltalake has many
            raise SpecError(f"input.urls: {root} is a Delta table that can't be read: {_line(error)}") from None
        yield table


_LOG_NAME = re.compile(r"(_sidecars/)?\w[\w.-]{0,200}", re.ASCII)
"""A file of the log. Keys of a store may have any other name, such as one that leads out of the folder of the copy."""


def _copy_log(root: str, folder: Path) -> None:
    """The log from its last checkpoint on."""
    every = find(f"{root}/{LOG}", hidden=True)
    first = _last_checkpoint(f"{root}/{LOG}/_last_checkpoint", every)
    names = {entry.uri.removeprefix(f"{root}/{LOG}/"): entry for entry in every}
    wanted = [name for name in names if _LOG_NAME.fullmatch(name) and _version(name) >= first]

    def fetch(name: str) -> None:
        entry, path = names[name], folder / LOG / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(read_bytes(entry.uri))

    with ThreadPoolExecutor(READERS) as pool:
        list(pool.map(fetch, wanted))


def _last_checkpoint(url: str, every: Sequence[FileInfo]) -> int:
    if all(entry.uri != url for entry in every):
        return 0
    try:
        return int(json.loads(read_bytes(url))["version"])
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError, FileNotFoundError):
        return 0


def _version(name: str) -> float:
    """Of a file of the log; what has none, such as a part of a checkpoint, is always wanted."""
    number = re.match(r"(\d{20})\.", name)
    return int(number[1]) if number else float("inf")


def _refused(table: Any) -> str | None:
    """Why the table's files are not its rows."""
    features = set(table.protocol().reader_features or ())
    settings = table.metadata().configuration
    if settings.get("delta.columnMapping.mode", "none") != "none":
        return "with mapped columns"
    if "deletionVectors" in features and _has_deletion_vectors(table):
        return "with deletion vectors"
    unknown = sorted(features - SAME_ROWS)
    return f"that needs a reader with {', '.join(unknown)}" if unknown else None


def _has_deletion_vectors(table: Any) -> bool:
    try:
        return any(batch.num_rows for batch in table.deletion_vectors())
    except Exception:
        return True  # it is too old to look, or there are some that it can't read


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
