"""Parses JSON values exactly as written, where Arrow's parser would change them or has no type for them.

Numbers keep their digits (`Fraction`, whole numbers of any size); `raw_fields` has the text of each value.
"""

import json
import re
import sys
from collections.abc import Iterator, Set
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from pipeline.reading.formats.exact import is_exact

LONG_NUMBER = re.compile(rb"[0-9][0-9.]{15}|[0-9][eE][+-]?[0-9]{3}")
"""What a line contains if one of its numbers may not fit 64 bits."""
MOST_DIGITS = 1_000
MOST_LEVELS = 10_000
DEEPEST = 16
"""Values nested deeper are carried as JSON text."""
MOST_FIELDS = 100
"""Objects with more keys than this in the sample are JSON text as well: their keys are data."""


class Fraction(float):
    """A number with a point or an exponent. written: its text."""

    written: str

    def __new__(cls, text: str) -> "Fraction":
        """From its text."""
        number = super().__new__(cls, text)
        number.written = text
        return number


def _whole(text: str) -> int | Fraction:
    return int(text) if len(text) <= MOST_DIGITS else Fraction(text)


_DECODER = json.JSONDecoder(parse_float=Fraction, parse_int=_whole)
_SPACE = re.compile(r"[ \t\r\n]*")


def loads(text: str) -> Any:
    """A JSON value with its numbers as written. Raises ValueError, and RecursionError for what is nested too deep."""
    try:
        return _DECODER.decode(text)
    except RecursionError:
        with _deeper():
            return _DECODER.decode(text)


@contextmanager
def _deeper() -> Iterator[None]:
    """A context in which values may be nested thousands deep: the parser is C and needs little stack for each level."""
    most = sys.getrecursionlimit()
    sys.setrecursionlimit(max(most, MOST_LEVELS))
    try:
        yield
    finally:
        sys.setrecursionlimit(most)


def raw_fields(text: str, wanted: Set[str]) -> dict[str, str]:
    """The JSON text of each wanted field of an object, which `loads` accepts; the last of a name given twice.

    Raises RecursionError.
    """
    try:
        return _raw_fields(text, wanted)
    except RecursionError:
        with _deeper():
            return _raw_fields(text, wanted)


def _raw_fields(text: str, wanted: Set[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    place = _SPACE.match(text, 0).end() + 1  # type: ignore[union-attr]
    while True:
        place = _SPACE.match(text, place).end()  # type: ignore[union-attr]
        if text[place] == "}":
            return found
        name, place = json.decoder.scanstring(text, place + 1, False)  # type: ignore[attr-defined]
        begin = _SPACE.match(text, _SPACE.match(text, place).end() + 1).end()  # type: ignore[union-attr]
        _, place = _DECODER.raw_decode(text, begin)
        if name in wanted:
            found[name] = text[begin:place]
        place = _SPACE.match(text, place).end()  # type: ignore[union-attr]
        place += text[place] == ","


def type_of(values: list[Any], *, deepest: int = DEEPEST) -> pa.DataType | None:
    """The Arrow type that carries all of these values unchanged; None if none does, so that JSON text is used."""
    given = [value for value in values if value is not None]
    if not given:
        return pa.string()
    if deepest == 0:
        return None
    if all(isinstance(value, list) for value in given):
        item = type_of([inner for value in given for inner in value], deepest=deepest - 1)
        return None if item is None else pa.list_(item)
    if all(isinstance(value, dict) for value in given):
        return _struct_of(given, deepest=deepest - 1)
    return _scalar_type(given)


def _scalar_type(given: list[Any]) -> pa.DataType | None:
    if all(isinstance(value, str) for value in given):
        return pa.string()
    if all(isinstance(value, bool) for value in given):
        return pa.bool_()
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in given):
        kind = pa.int64() if all(isinstance(value, int) for value in given) else pa.float64()
        return kind if all(fits(value, kind) for value in given) else None
    return None


def _struct_of(given: list[dict[str, Any]], *, deepest: int) -> pa.DataType | None:
    names = list(dict.fromkeys(name for value in given for name in value))
    if len(names) > MOST_FIELDS:
        return None
    kinds = [type_of([value.get(name) for value in given], deepest=deepest) for name in names]
    if not names or any(kind is None for kind in kinds) or not all(is_text(name) for name in names):
        return None
    return pa.struct(list(zip(names, kinds, strict=True)))


def is_text(name: str) -> bool:
    """Whether a JSON key is valid text; no Arrow column can have a lone surrogate in its name."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def fits(value: Any, kind: pa.DataType) -> bool:
    """Whether a value stays unchanged in the type that Arrow's parser gives it."""
    if value is None:
        return True
    if pa.types.is_struct(kind):
        fields = {field.name: field.type for field in kind}
        return isinstance(value, dict) and all(
            name in fields and fits(inner, fields[name]) for name, inner in value.items()
        )
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return isinstance(value, list) and all(fits(inner, kind.value_type) for inner in value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return True
    if pa.types.is_integer(kind):
        signed = pa.types.is_signed_integer(kind)
        below = 2 ** (kind.bit_width - signed)
        return not isinstance(value, int) or (-below if signed else 0) <= value < below
    if pa.types.is_floating(kind):
        written = value.written if isinstance(value, Fraction) else str(value)
        try:
            return is_exact(written, float(value))
        except OverflowError:
            return False
    return True


def has_objects(kind: pa.DataType) -> bool:
    """Whether a type contains objects; Arrow's parser drops their fields that the type does not have."""
    return pa.types.is_struct(kind) or any(has_objects(kind.field(index).type) for index in range(kind.num_fields))
