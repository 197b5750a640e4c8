"""The columns that the `key=value` names of hive-partitioned folders stand for."""

import re
from collections.abc import Iterable, Sequence
from urllib.parse import unquote

import pyarrow as pa

from pipeline.errors import SourceError

NULL_VALUE = "__HIVE_DEFAULT_PARTITION__"
"""How Hive spells a null in a folder's name."""


def partition_values(uri: str) -> dict[str, str | None]:
    """Keys and values in the folders of a file's URL, in order."""
    pairs = (part.partition("=") for part in uri.split("/")[:-1])
    return {
        unquote(key): None if value == NULL_VALUE else unquote(value) for key, equals, value in pairs if key and equals
    }


def partition_keys(uris: Iterable[str], *, below: Sequence[str]) -> tuple[str, ...]:
    """Keys of the folders between the input's addresses and the files; folders above an address are not partitions."""
    roots = sorted((_root(url) for url in below), key=len, reverse=True)
    keys: dict[str, None] = {}
    for uri in uris:
        root = next((root for root in roots if uri.startswith(root)), "")
        keys |= dict.fromkeys(partition_values(uri[len(root) :]))
    return tuple(keys)


def _root(url: str) -> str:
    """The part of an address that names one folder: all of it, or what is before the first wildcard of a glob."""
    if any(sign in url for sign in "*?["):
        return re.split(r"[*?\[]", url, maxsplit=1)[0].rpartition("/")[0] + "/"
    return url.rstrip("/") + "/"


def partition_schema(uris: Iterable[str], *, keys: Sequence[str] | None = None) -> pa.Schema:
    """Columns of the partitions of some files: whole numbers where all values are, else text. keys: only these."""
    values: dict[str, list[str]] = {}
    for uri in uris:
        for key, value in partition_values(uri).items():
            if keys is not None and key not in keys:
                continue
            values.setdefault(key, []).extend([] if value is None else [value])
    whole = {key: bool(found) and all(_is_whole(value) for value in found) for key, found in values.items()}
    return pa.schema([(key, pa.int64() if whole[key] else pa.string()) for key in values])


def _is_whole(value: str) -> bool:
    """Whether a value is a whole number in its usual spelling; 007 is a name."""
    try:
        return str(int(value)) == value and abs(int(value)) < 2**63
    except ValueError:
        return False


def with_partitions(table: pa.Table, *, uri: str, schema: pa.Schema, keys: Sequence[str] | None = None) -> pa.Table:
    """A table of a file's rows with its partitions' values where the file has no such column itself. keys: only these.

    Raises SourceError (unreadable) where a value does not fit the type that the column was frozen with.
    """
    for key, value in partition_values(uri).items():
        if keys is not None and key not in keys:
            continue
        if value is not None and key in schema.names and key in table.column_names:
            index = table.column_names.index(key)
            if table.column(index).null_count == table.num_rows:
                kind = schema.field(key).type
                fitted = _fitted(value, kind=kind)
                if fitted is None:
                    raise SourceError(
                        f"{uri}: the folder '{key}={value}' does not fit the column {key!r}, which is {kind} in this output; "
                        "rename the folder, or annotate into another output",
                        reason="unreadable",
                    )
                column = pa.repeat(fitted, table.num_rows)
                table = table.set_column(index, table.schema.field(index), column)
    return table


def _fitted(value: str, *, kind: pa.DataType) -> pa.Scalar | None:
    """A folder's value as a column's type; None if it does not fit, or is a whole number whose spelling would be lost."""
    if pa.types.is_integer(kind) and not _is_whole(value):
        return None
    try:
        return pa.scalar(value, pa.string()).cast(kind)
    except pa.ArrowException:
        return None
