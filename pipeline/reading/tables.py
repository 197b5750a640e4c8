"""Selects the files of a folder that hold its current rows: for tables and saved data sets, the files that these name.

A table's folder also holds files that were removed from it, and caches. Delta tables are read by `delta_table`, saved data sets
of Hugging Face by their state.json; of other tables the rows can't be known, and they are refused by name.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.errors import SpecError, StorageError
from pipeline.reading.delta_table import delta_files
from pipeline.store.storage import FileInfo, find, has_magic, names, read_bytes

DELTA = re.compile(r"/_delta_log/[^/]+\.(json|checkpoint.*\.parquet)$")
HUDI = re.compile(r"/\.hoodie/")
ICEBERG = re.compile(r"/metadata/[^/]*\.metadata\.json$")
SAVED = re.compile(r"/state\.json$")


@dataclass(frozen=True)
class _Kind:
    """A kind of table. mark: of the files that tell it. folder: the one of the table's that they lie in."""

    name: str
    mark: re.Pattern[str]
    folder: str | None = None


_KINDS = (
    _Kind("Delta", DELTA, "_delta_log"),
    _Kind("Hudi", HUDI, ".hoodie"),
    _Kind("Iceberg", ICEBERG, "metadata"),
    _Kind("saved", SAVED),
)


def current_files(url: str, entries: Sequence[FileInfo]) -> list[FileInfo]:
    """The files with rows among those listed for an input address, hidden ones included. Raises SpecError."""
    visible = [entry for entry in entries if not entry.hidden]
    for root, kind in _tables(url, entries).items():
        if kind in {"Hudi", "Iceberg"}:
            raise SpecError(
                f"input.urls: {root} is a table ({kind}), and its files alone don't show which rows are current; export it to "
                "Parquet (Spark, DuckDB and others can), and name that folder"
            )
        within = [entry for entry in visible if entry.uri.startswith(root + "/")]
        whole = not has_magic(url) and f"{root}/".startswith(url.rstrip("/") + "/")
        current = delta_files(root, within, whole=whole) if kind == "Delta" else _saved_files(root, within)
        dropped = {entry.uri for entry in within} - {entry.uri for entry in current}
        visible = [entry for entry in visible if entry.uri not in dropped]
    return visible


def _tables(url: str, entries: Sequence[FileInfo]) -> dict[str, str]:
    """Folders that are tables, and the kind of each: those listed, those around the address, and a glob's own folder, since a
    glob lists only part of it."""
    listed = [entry.uri for entry in entries]
    if has_magic(url) and entries:
        above = re.split(r"[*?\[]", url, maxsplit=1)[0].rpartition("/")[0]
        listed += [entry.uri for entry in find(above, hidden=True)] if above.count("/") > 2 else []
    one_file = len(listed) == 1 and listed[0] == url
    listed += [] if one_file else _marks_above(url)
    present = set(listed)
    found: dict[str, str] = {}
    for name in listed:
        for kind in _KINDS:
            mark = kind.mark.search(name)
            if mark and (kind.name != "saved" or f"{name[: mark.start()]}/dataset_info.json" in present):
                found.setdefault(name[: mark.start()], kind.name)
    return found


def _marks_above(url: str) -> list[str]:
    """Files that make a folder above an address a table: its partitions, and Iceberg's `data`, are no plain folders either."""
    protocol, _, path = url.partition("://")
    if protocol in {"http", "https"}:
        return []  # it lists no folders
    parts = re.split(r"[*?\[]", path, maxsplit=1)[0].rstrip("/").split("/")
    found: list[str] = []
    for count in range(1, len(parts)):
        above = f"{protocol}://{'/'.join(parts[:count])}"
        for kind in _KINDS:
            folder = f"{above}/{kind.folder}"
            try:
                found += [f"{folder}/{name}" for name in names(folder)] if kind.folder else []
            except StorageError:
                continue  # who may read a folder need not be allowed to list those above it
    return found


def _saved_files(root: str, within: Sequence[FileInfo]) -> list[FileInfo]:
    """The files that a folder of `Dataset.save_to_disk` says it consists of."""
    try:
        state = json.loads(read_bytes(f"{root}/state.json"))
        named = {f"{root}/{file['filename']}" for file in state["_data_files"]}
        indices = state.get("_indices_files")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise SpecError(
            f"input.urls: {root}/state.json does not name the files of a saved data set: {error!r}"
        ) from None
    missing = named - {entry.uri for entry in within}
    if missing:
        raise SpecError(f"input.urls: {root} is a saved data set without its file {min(missing)}; save it again")
    if indices:
        raise SpecError(f"input.urls: {root} is a data set saved with indices; save it again after flatten_indices()")
    return [entry for entry in within if entry.uri in named]
