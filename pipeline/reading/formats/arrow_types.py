"""Chooses the type that a column is carried as: its own where Parquet can hold it, else JSON text.

Views, run-end encoding and list views are other layouts of the same values and become the plain layout. Extension types that
a file names are never loaded: such columns are read as their storage type, except UUID and JSON, which are Arrow's own.
"""

import io
import json
import math
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.ragged import offsets_of, ranges

JSON_TEXT = pa.json_(pa.string())
"""JSON text; the type is kept in Parquet too."""

DEEPEST = 16
"""Types nested deeper are carried as JSON text: Parquet can be written with deeper ones, but no reader opens such files."""


def is_string(kind: pa.DataType) -> bool:
    """Whether a type is text, in any of Arrow's three layouts."""
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def is_json(kind: pa.DataType) -> bool:
    """Whether a type is JSON text."""
    return isinstance(kind, pa.JsonType)


def carried_type(kind: pa.DataType) -> pa.DataType:
    """The type that a column of this one is carried as."""
    if not _deeper_than(kind, DEEPEST):
        flat = plain_type(kind)
        if parquet_holds(flat):
            return flat
    return JSON_TEXT


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """A schema without metadata, every column with the type it is carried as."""
    return pa.schema([pa.field(field.name, carried_type(field.type), field.nullable) for field in schema])


def plain_type(kind: pa.DataType, *, inside: bool = False) -> pa.DataType:
    """A type with the plain layout at every depth. inside: of another type, where there are no dictionaries."""
    if isinstance(kind, pa.UuidType):
        return kind
    if is_json(kind):
        return JSON_TEXT
    if isinstance(kind, pa.BaseExtensionType):
        return plain_type(kind.storage_type, inside=inside)
    if pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_binary_view(kind):
        return pa.binary()
    if pa.types.is_run_end_encoded(kind):
        return plain_type(kind.value_type, inside=inside)
    if pa.types.is_dictionary(kind):
        values = plain_type(kind.value_type, inside=True)
        flat = pa.types.is_primitive(values) or is_string(values) or pa.types.is_binary(values)
        return pa.dictionary(kind.index_type, values, kind.ordered) if flat and not inside else values
    return _plain_nested(kind)


def _plain_nested(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_struct(kind):
        return pa.struct([_plain_field(field) for field in kind])
    if pa.types.is_map(kind):
        return pa.map_(_plain_field(kind.key_field), _plain_field(kind.item_field), kind.keys_sorted)
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(_plain_field(kind.value_field), kind.list_size)
    if pa.types.is_list(kind) or pa.types.is_list_view(kind):
        return pa.list_(_plain_field(kind.value_field))
    if pa.types.is_large_list(kind) or pa.types.is_large_list_view(kind):
        return pa.large_list(_plain_field(kind.value_field))
    return kind


def _plain_field(field: pa.Field) -> pa.Field:
    return pa.field(field.name, plain_type(field.type, inside=True), field.nullable)


def with_nulls_inside(kind: pa.DataType) -> pa.DataType:
    """The same type with every field inside it nullable, as Arrow's JSON parser makes them whatever it is asked for."""
    if pa.types.is_struct(kind):
        return pa.struct([_nullable_field(field) for field in kind])
    if pa.types.is_list(kind):
        return pa.list_(_nullable_field(kind.value_field))
    if pa.types.is_large_list(kind):
        return pa.large_list(_nullable_field(kind.value_field))
    return kind


def _nullable_field(field: pa.Field) -> pa.Field:
    return pa.field(field.name, with_nulls_inside(field.type))


def _deeper_than(kind: pa.DataType, most: int) -> bool:
    if most < 0:
        return True
    if isinstance(kind, pa.BaseExtensionType):
        return _deeper_than(kind.storage_type, most)
    inner = [kind.field(index).type for index in range(kind.num_fields)]
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        inner.append(kind.value_type)
    return any(_deeper_than(one, most - 1) for one in inner)


@lru_cache(maxsize=4096)
def parquet_holds(kind: pa.DataType) -> bool:
    """Whether a column of this type can be written into a Parquet file and read back, found by trying."""
    sink = io.BytesIO()
    try:
        pq.write_table(pa.schema([("column", kind)]).empty_table(), sink)
        pq.read_table(sink)
    except (pa.ArrowException, OSError):
        return False
    return True


def plain(column: pa.ChunkedArray, *, kind: pa.DataType) -> pa.Array:
    """A column as one array in the plain layout of `kind`; only the layout changes, values are not cast."""
    if column.type == kind:
        return column.combine_chunks()
    chunks = [_towards(chunk, kind) for chunk in column.chunks]
    return pa.concat_arrays(chunks) if chunks else pa.array([], kind)


def _towards(array: pa.Array, kind: pa.DataType) -> pa.Array:
    if is_json(kind) and not is_json(array.type):
        return as_json(array)
    flat = plain_array(array)
    if isinstance(flat.type, pa.BaseExtensionType) and flat.type != kind:
        return flat.storage
    return flat


def plain_array(array: pa.Array) -> pa.Array:
    """The same values in the plain layout of their type."""
    kind, wanted = array.type, plain_type(array.type)
    if kind == wanted:
        return array
    if is_json(kind):
        return pa.ExtensionArray.from_storage(wanted, array.storage.cast(pa.string()))
    if isinstance(kind, pa.BaseExtensionType):
        return plain_array(array.storage)
    if pa.types.is_run_end_encoded(kind):
        return _decoded_runs(array)
    if pa.types.is_dictionary(kind):
        values = plain_array(array.dictionary_decode())
        return values.dictionary_encode().cast(wanted) if pa.types.is_dictionary(wanted) else values
    return _rebuilt(array, wanted) if pa.types.is_nested(wanted) else array.cast(wanted)


def _decoded_runs(array: pa.Array) -> pa.Array:
    """Run-end encoded values one by one, plain; Arrow's own kernel lacks some types."""
    places = np.arange(array.offset, array.offset + len(array))
    runs = np.searchsorted(array.run_ends.to_numpy(), places, side="right")
    return plain_array(array.values).take(pa.array(runs))


def _inner(array: pa.Array) -> pa.Array:
    """The values inside a value: without dictionaries."""
    flat = plain_array(array)
    return flat.dictionary_decode() if pa.types.is_dictionary(flat.type) else flat


def _rebuilt(array: pa.Array, wanted: pa.DataType) -> pa.Array:
    """A nested array rebuilt from its plain parts."""
    nulls = array.is_null() if array.null_count else None
    if pa.types.is_struct(wanted):
        parts = [_inner(part) for part in array.flatten()]
        return pa.StructArray.from_arrays(parts, fields=list(wanted), mask=nulls)
    if pa.types.is_list(wanted) or pa.types.is_large_list(wanted):
        build = pa.ListArray if pa.types.is_list(wanted) else pa.LargeListArray
        lengths = pc.if_else(array.is_valid(), _lengths(array), 0).to_numpy(zero_copy_only=False).astype(np.int64)
        first = array.offsets.to_numpy()[: len(array)].astype(np.int64)
        values = _inner(array.values).take(pa.array(ranges(first, lengths)))
        offsets = pa.array(offsets_of(lengths), pa.int32() if pa.types.is_list(wanted) else pa.int64())
        return build.from_arrays(offsets, values, type=wanted, mask=nulls)
    if pa.types.is_fixed_size_list(wanted):
        size = wanted.list_size
        values = _inner(array.values.slice(array.offset * size, len(array) * size))
        return pa.FixedSizeListArray.from_arrays(values, type=wanted, mask=nulls)
    return pa.array(array.to_pylist(), wanted)


def _lengths(array: pa.Array) -> pa.Array:
    views = pa.types.is_list_view(array.type) or pa.types.is_large_list_view(array.type)
    return array.sizes if views else pc.list_value_length(array)


def as_json(array: pa.Array) -> pa.Array:
    """Values as JSON text: bytes in hexadecimal, times and decimals as Arrow prints them."""
    texts = [None if value is None else json.dumps(_jsonable(value), ensure_ascii=False) for value in array.to_pylist()]
    return pa.ExtensionArray.from_storage(JSON_TEXT, pa.array(texts, pa.string()))


def _jsonable(value: Any) -> Any:
    if isinstance(value, pa.MonthDayNano):
        return {"months": value.months, "days": value.days, "nanoseconds": value.nanoseconds}
    if isinstance(value, dict):
        return {str(key): _jsonable(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(inner) for inner in value]
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, str | int | float | bool | None) else str(value)
