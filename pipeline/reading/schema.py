"""Input files in, the one schema of their columns out: their own, or what a sample of them shows."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import pyarrow as pa

from pipeline.errors import SourceError, SpecError
from pipeline.reading.formats import delimited, jsonl, lines
from pipeline.reading.formats.streams import decompressed
from pipeline.reading.partitions import partition_schema
from pipeline.shards import DELIMITED, SourceFile, delimiter_of
from pipeline.spec.job_spec import InputSpec, arrow_type

Sample = TypeVar("Sample")

SAMPLE_BYTES = 1 << 20
"""Bytes of a file of JSON lines, or of delimited values, that its schema is inferred from."""
SAMPLE_FILES = 64
"""Files that are sampled, spread over all of them."""
READERS = 32


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """A schema without metadata and extension types: what a file claims of its columns beyond Arrow's own types is not run."""
    return pa.schema([_plain_field(field) for field in schema])


def _plain_type(kind: pa.DataType) -> pa.DataType:
    if isinstance(kind, pa.BaseExtensionType):
        return _plain_type(kind.storage_type)
    if pa.types.is_struct(kind):
        return pa.struct([_plain_field(field) for field in kind])
    if pa.types.is_list(kind):
        return pa.list_(_plain_field(kind.value_field))
    if pa.types.is_large_list(kind):
        return pa.large_list(_plain_field(kind.value_field))
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(_plain_field(kind.value_field), kind.list_size)
    return kind


def _plain_field(field: pa.Field) -> pa.Field:
    return pa.field(field.name, _plain_type(field.type), field.nullable)


def resolve_schema(*, spec: InputSpec, files: Sequence[SourceFile], own: Mapping[str, pa.Schema]) -> pa.Schema:
    """One schema for all files: that of Parquet and Arrow, `text` for text, and for the rest `input.schema` or what a sample
    shows; the partitions of their folders behind. Columns stand in the order of first appearance.

    own: schemas of files that have one, by URL. Raises SpecError where files disagree beyond Arrow's promotions.
    """
    schemas = list(own.items())
    if any(file.format == "text" for file in files):
        schemas.append(("text files", lines.TEXT_SCHEMA))
    told = None if spec.fields is None else pa.schema([(name, arrow_type(kind)) for name, kind in spec.fields.items()])
    json_files = [file for file in files if file.format == "jsonl"]
    if json_files:
        schemas.append(("JSON lines", told or _json_schema(json_files)))
    delimited_files = [file for file in files if file.format in DELIMITED]
    if delimited_files:
        schemas += [("input.schema", told)] if told else _delimited_schemas(delimited_files, spec=spec)
    unified = _unified(schemas)
    partitions = [field for field in partition_schema(file.uri for file in files) if field.name not in unified.names]
    return pa.schema([*unified, *partitions])


def _unified(schemas: Iterable[tuple[str, pa.Schema]]) -> pa.Schema:
    unified: pa.Schema | None = None
    for where, schema in schemas:
        if unified is None or unified.equals(schema):
            unified = schema
            continue
        try:
            unified = _merged(unified, schema)
        except pa.ArrowException as error:
            raise SpecError(
                f"{where} has columns of other types than the files before it: {error}; annotate them apart"
            ) from None
    if unified is None:
        raise SpecError("none of the input files has columns")
    return pa.schema([pa.field(f.name, pa.string() if pa.types.is_null(f.type) else f.type) for f in unified])


def _merged(one: pa.Schema, other: pa.Schema) -> pa.Schema:
    """Both schemas by Arrow's promotions; a column that is a dictionary in one of them only is its values in both."""
    for name in set(one.names) & set(other.names):
        kinds = one.field(name).type, other.field(name).type
        if kinds[0] != kinds[1] and any(pa.types.is_dictionary(kind) for kind in kinds):
            one, other = _without_dictionary(one, name), _without_dictionary(other, name)
    return pa.unify_schemas([one, other], promote_options="permissive")


def _without_dictionary(schema: pa.Schema, name: str) -> pa.Schema:
    field = schema.field(name)
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    return schema.set(schema.get_field_index(name), field.with_type(kind))


def _sampled(files: Sequence[SourceFile], sample: Callable[[SourceFile], Sample]) -> list[Sample]:
    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(sample, files[:: max(1, len(files) // SAMPLE_FILES)]))


def _delimited_schemas(files: Sequence[SourceFile], *, spec: InputSpec) -> list[tuple[str, pa.Schema]]:
    """What a sample of each file shows; a file that can't be read is passed over, its shards will say why."""

    def sample(file: SourceFile) -> tuple[str, pa.Schema] | None:
        delimiter = delimiter_of(file, spec.delimiter)
        try:
            names, first = delimited.read_header(uri=file.uri, compression=file.compression, delimiter=delimiter)
            with decompressed(file.uri, compression=file.compression) as stream:
                head = bytes(stream.read(SAMPLE_BYTES))
        except SourceError:
            return None
        ends = delimited.record_ends(head)
        whole = head if len(head) < SAMPLE_BYTES or not len(ends) else head[: int(ends[-1]) + 1]
        return (file.uri, delimited.infer_types(whole[first:], names=names, delimiter=delimiter)) if names else None

    found = [schema for schema in _sampled(files, sample) if schema is not None]
    if not found:
        raise SpecError(
            f"the delimited files, such as {files[0].uri}, have no header to name columns; say input.schema"
        )
    return found


def _json_schema(files: Sequence[SourceFile]) -> pa.Schema:
    samples = _sampled(files, _sample)
    values: dict[str, list[object]] = {}
    for record in (record for sample in samples for record in sample):
        for name, value in record.items():
            if _is_text(name):
                values.setdefault(name, []).append(value)
    kinds = {name: inferred(column) for name, column in values.items()}
    fields = [pa.field(name, kind) for name, kind in kinds.items() if kind is not None]
    if not fields:
        raise SpecError(
            f"the JSON lines, such as {files[0].uri}, hold no object to infer columns from; say input.schema"
        )
    return pa.schema(fields)


def _is_text(name: str) -> bool:
    """Whether a JSON key is made of characters; a lone surrogate is none, and no Arrow column can have it in its name."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _sample(file: SourceFile) -> list[dict[str, object]]:
    """The records in the first bytes of a file."""
    try:
        with decompressed(file.uri, compression=file.compression) as stream:
            head = bytes(stream.read(SAMPLE_BYTES))
    except SourceError:
        return []  # the shard that reads it says what is wrong with it
    whole = head.rpartition(b"\n")[0] if len(head) == SAMPLE_BYTES else head
    records = (jsonl.parse_line(line)[0] for line in whole.removeprefix(b"\xef\xbb\xbf").splitlines() if line.strip())
    return [dict(record) for record in records]


def inferred(column: Sequence[object]) -> pa.DataType | None:
    """The type of most of the values; whole numbers among fractions are fractions, and nothing but nulls is text. None for
    objects that never have a field: there is nothing to carry, and Parquet has no type for them."""
    given = [value for value in column if value is not None]
    if not given:
        return pa.string()
    commonest = Counter(_kind(value) for value in given).most_common(1)[0][0]
    try:
        kind = _with_fields(pa.infer_type([value for value in given if _kind(value) == commonest]))
    except (pa.ArrowException, TypeError, ValueError):
        return pa.string()
    return pa.string() if kind is not None and pa.types.is_null(kind) else kind


def _with_fields(kind: pa.DataType) -> pa.DataType | None:
    """A type without the objects in it that have no fields."""
    if pa.types.is_struct(kind):
        inner: list[tuple[str, Any]] = [(field.name, _with_fields(field.type)) for field in kind]
        kept = [
            pa.field(name, pa.string() if pa.types.is_null(type_) else type_)
            for name, type_ in inner
            if type_ is not None
        ]
        return pa.struct(kept) if kept else None
    if pa.types.is_list(kind):
        item = _with_fields(kind.value_type)
        return None if item is None else pa.list_(pa.string() if pa.types.is_null(item) else item)
    return kind


def _kind(value: object) -> str:
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__
