"""Selects the files of a folder that hold its current rows: for tables and saved data sets, the files that these name.

A table's folder also holds files that were removed from it, and caches. Delta tables are read by `deltalake`, saved data sets
of Hugging Face by their state.json; of other tables the rows can't be known, and they are refused by name.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import unquote

from pipeline.errors import SpecError
from pipeline.store.storage import FileInfo, find, has_magic, read_bytes

DELTA = re.compile(r"/_delta_log/[^/]+\.(json|checkpoint.*\.parquet)$")
HUDI = re.compile(r"/\.hoodie/")
ICEBERG = re.compile(r"/metadata/[^/]*\.metadata\.json$")
SAVED = re.compile(r"/state\.json$")


@dataclass(frozen=True)
class _Kind:
    name: str
    mark: re.Pattern[str]


_KINDS = (_Kind("Delta", DELTA), _Kind("Hudi", HUDI), _Kind("Iceberg", ICEBERG), _Kind("saved", SAVED))


def current_files(url: str, entries: Sequence[FileInfo]) -> list[FileInfo]:
    """The files with rows among those listed for an input address, hidden ones included. Raises SpecError."""
    tables = _tables(url, entries)
    visible = [entry for entry in entries if not entry.hidden]
    for root, kind in tables.items():
        if kind in {"Hudi", "Iceberg"}:
            raise SpecError(
                f"input.urls: {root} is a table ({kind}), and its files alone don't show which rows are current; export it to "
                "Parquet (Spark, DuckDB and others can), and name that folder"
            )
        within = [entry for entry in visible if entry.uri.startswith(root + "/")]
        current = _delta_files(root, within) if kind == "Delta" else _saved_files(root, within)
        visible = [entry for entry in visible if entry not in within or entry in current]
    return visible


def _tables(url: str, entries: Sequence[FileInfo]) -> dict[str, str]:
    """Folders that are tables, and the kind of each. A glob's own folder is checked too, since a glob lists only part of it."""
    names = [entry.uri for entry in entries]
    if has_magic(url) and entries:
        above = re.split(r"[*?\[]", url, maxsplit=1)[0].rpartition("/")[0]
        names += [entry.uri for entry in find(above, hidden=True)] if above.count("/") > 2 else []
    found: dict[str, str] = {}
    for name in names:
        for kind in _KINDS:
            mark = kind.mark.search(name)
            if mark and (kind.name != "saved" or f"{name[: mark.start()]}/dataset_info.json" in names):
                found.setdefault(name[: mark.start()], kind.name)
    return found


def _saved_files(root: str, within: Sequence[FileInfo]) -> list[FileInfo]:
    """The files that a folder of `Dataset.save_to_disk` says it consists of."""
    try:
        state = json.loads(read_bytes(f"{root}/state.json"))
        named = {f"{root}/{file['filename']}" for file in state["_data_files"]}
    except (ValueError, KeyError, TypeError) as error:
        raise SpecError(
            f"input.urls: {root}/state.json does not name the files of a saved data set: {error!r}"
        ) from None
    missing = named - {entry.uri for entry in within}
    if missing:
        raise SpecError(f"input.urls: {root} is a saved data set without its file {min(missing)}; save it again")
    if state.get("_indices_files"):
        raise SpecError(f"input.urls: {root} is a data set saved with indices; save it again after flatten_indices()")
    return [entry for entry in within if entry.uri in named]


def _delta_files(root: str, within: Sequence[FileInfo]) -> list[FileInfo]:
    """The files of a Delta table's newest version."""
    try:
        from deltalake import DeltaTable
    except ImportError:
        raise SpecError(
            f"input.urls: {root} is a Delta table, which holds removed rows too: pip install 'preln[delta]' reads its current "
            "ones; or write them to Parquet files"
        ) from None
    try:
        table = DeltaTable(root.removeprefix("file://"))
        features = set(table.protocol().reader_features or ())
        settings, partitions = table.metadata().configuration, table.metadata().partition_columns
        uris = table.file_uris()
    except Exception as error:  # deltalake has many, and a Rust panic is one
        raise SpecError(f"input.urls: {root} is a Delta table that can't be read: {error}") from None
    if settings.get("delta.columnMapping.mode", "none") != "none" or (
        "deletionVectors" in features and settings.get("delta.enableDeletionVectors") == "true"
    ):
        raise SpecError(
            f"input.urls: {root} is a Delta table with deletion vectors or mapped columns, so its files alone don't show which "
            "rows are current; export it to Parquet, and name that folder"
        )
    by_name = {entry.uri.removeprefix(root): entry for entry in within}
    start = table.table_uri.rstrip("/")
    current = []
    for uri in uris:
        name = "/" + uri.removeprefix(start).removeprefix(root.removeprefix("file://")).lstrip("/")
        entry = by_name.get(name) or by_name.get(unquote(name))
        if entry is None:
            raise SpecError(f"input.urls: the Delta table {root} names {name}, which is not in its folder")
        current.append(entry)
        if any(f"/{column}=" not in name for column in partitions):
            raise SpecError(
                f"input.urls: the Delta table {root} has partitions that are not in its files' names; export it to Parquet, and "
                "name that folder"
            )
    return current
