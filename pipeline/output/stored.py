"""A stored record in, a dataclass of this version out: what keeps output folders of other versions readable."""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from functools import lru_cache
from typing import Any, TypeVar

from pipeline.errors import OutputError

Record = TypeVar("Record")


def from_stored(kind: type[Record], values: Mapping[str, Any], *, where: str) -> Record:
    """A record as this version knows it. Fields are only ever added: those that a later version has written are ignored,
    and those that an earlier one has not written take their default. where: the file, for messages.

    Raises OutputError where a field without a default is missing.
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
    """(all fields, those without a default) of a dataclass; a manifest asks once a row."""
    own = fields(kind)
    required = [one.name for one in own if one.default is MISSING and one.default_factory is MISSING]
    return tuple(one.name for one in own), tuple(required)
