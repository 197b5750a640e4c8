"""Reads stored records of other versions as dataclasses of this one, so that their output folders stay readable."""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from functools import lru_cache
from typing import Any, TypeVar

from pipeline.errors import OutputError

Record = TypeVar("Record")


def from_stored(kind: type[Record], values: Mapping[str, Any], *, where: str) -> Record:
    """A record as a dataclass of this version. Fields are only ever added: those of a later version are ignored, and those that
    an earlier one lacks get their default. where: the file, for messages.

    Raises OutputError if a field without a default is missing.
    """
    known, required = _field_names(kind)  # type: ignore[arg-type]  # a class is hashable
    for name in required:
        if name not in values:
            raise OutputError(
                f"{where}: it has no {name!r}, so it was not written by preln, or by a version that this one can't read; "
                "use the version that wrote it, or choose another output folder"
            )
    return kind(**{name: values[name] for name in known if name in values})


@lru_cache(maxsize=32)
def _field_names(kind: type) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(all fields, those without a default) of a dataclass; cached, since a manifest needs them for every row."""
    own = fields(kind)
    required = [one.name for one in own if one.default is MISSING and one.default_factory is MISSING]
    return tuple(one.name for one in own), tuple(required)
