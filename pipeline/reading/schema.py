"""Resolves one schema for all input files: from their own schemas, or from a sample of their records."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import pyarrow as pa

from pipeline.errors import SourceError, SpecError
from pipeline.reading.formats import json_values, jsonl, lines
from pipeline.reading.formats.arrow_types import JSON_TEXT, is_json
from pipeline.reading.formats.delimited import HEADER_BYTES, open_delimited
from pipeline.reading.formats.streams import decompressed, refuse_lone_returns, refuse_utf16
from pipeline.reading.partitions import partition_keys, partition_schema
from pipeline.shards import DELIMITED, SourceFile
from pipeline.spec.job_spec import InputSpec, arrow_type

Sample = TypeVar("Sample")

SAMPLE_BYTES = 1 << 20
"""Bytes of a file of JSON lines that its schema is inferred from."""
SAMPLE_FILES = 64
"""Files that are sampled, spread over all of them."""
READERS = 32


@dataclass(frozen=True)
class Columns:
    """Which columns are wanted. read: by a task; the rest is only carried. kept: those of `input.keep`, None for all."""

    read: frozenset[str]
    kept: frozenset[str] | None = None

    def wants(self, name: str) -> bool:
        """Whether a column is read or carried."""
        return self.kept is None or name in self.kept or name in self.read


EVERY_COLUMN = Columns(read=frozenset())


def resolve_schema(
    *,
    spec: InputSpec,
    files: Sequence[SourceFile],
    own: Mapping[str, pa.Schema],
    columns: Columns = EVERY_COLUMN,
    without_rows: Collection[str] = (),
) -> pa.Schema:
    """One schema for all files: that of Parquet and Arrow, `text` for text, text for every column of delimited files, and
    for JSON lines what a sample shows; `input.schema` over both; the partitions of their folders behind. Columns stand in
    the order of first appearance; those that are not wanted have no type (null).

    own: schemas of files that have one, by URL. without_rows: those that have no row, whose types count only where no other
    file has the column; a delimited file of a header alone is one too. Raises SpecError where files disagree beyond Arrow's
    promotions.
    """
    faults: list[str] = []  # of files that can't be read: their shards say so, where others have columns
    schemas = [(uri, _untyped(schema, columns)) for uri, schema in own.items() if uri not in without_rows]
    hollow = [schema for uri, schema in own.items() if uri in without_rows]
    if any(file.format == "text" for file in files):
        schemas.append(("text files", lines.TEXT_SCHEMA))
    declared = (
        None if spec.fields is None else pa.schema([(name, arrow_type(kind)) for name, kind in spec.fields.items()])
    )
    json_files = [file for file in files if file.format == "jsonl"]
    if json_files:
        found = (declared, None) if declared else _json_schema(json_files, columns=columns)
        schemas.append(("JSON lines", _untyped(found[0], columns)))
        faults += [found[1]] if found[1] else []
    delimited_files = [file for file in files if file.format in DELIMITED]
    if delimited_files:
        named, unread = _delimited_schemas(delimited_files, spec=spec, declared=declared)
        schemas += [(one.uri, _untyped(one.schema, columns)) for one in named if not one.without_rows]
        hollow += [one.schema for one in named if one.without_rows]
        faults += unread
    for schema in hollow:
        seen = {name for _, other in schemas for name in other.names}
        schemas.append(("", _untyped(pa.schema([field for field in schema if field.name not in seen]), columns)))
    unified = _unified(schemas, columns=columns)
    if faults and not len(unified):
        raise SpecError(faults[0])
    uris = [file.uri for file in files]
    below = partition_schema(uris, keys=partition_keys(uris, below=spec.urls))
    names = set(unified.names)
    partitions = [field for field in below if field.name not in names]
    return pa.schema([*unified, *partitions])


def _untyped(schema: pa.Schema, columns: Columns) -> pa.Schema:
    return pa.schema([field if columns.wants(field.name) else field.with_type(pa.null()) for field in schema])


def _unified(schemas: Iterable[tuple[str, pa.Schema]], *, columns: Columns) -> pa.Schema:
    """One schema for all files, each given with its name; a column that has only nulls is text. Raises SpecError."""
    unified = pa.schema([])
    for where, schema in schemas:
        try:
            unified = schema if not len(unified) else unified if unified.equals(schema) else _merged(unified, schema)
        except pa.ArrowException as error:
            raise SpecError(
                f"{where} has columns of different types than earlier files: {error}; annotate them separately, leave the "
                "column out with input.keep, or name its type in input.schema (CSV, TSV, JSON lines)"
            ) from None
    # A wanted column of nothing but nulls is text.
    return pa.schema(
        [
            pa.field(
                field.name, pa.string() if pa.types.is_null(field.type) and columns.wants(field.name) else field.type
            )
            for field in unified
        ]
    )


def _merged(one: pa.Schema, other: pa.Schema) -> pa.Schema:
    """Both schemas merged by Arrow's promotions; a column that is a dictionary in only one of them is plain in the result."""
    others = set(other.names)
    for name in [name for name in one.names if name in others]:
        kinds = one.field(name).type, other.field(name).type
        if is_json(kinds[0]) != is_json(kinds[1]):
            one, other = (
                schema.set(schema.get_field_index(name), schema.field(name).with_type(JSON_TEXT))
                for schema in (one, other)
            )
        elif kinds[0] != kinds[1] and any(pa.types.is_dictionary(kind) for kind in kinds):
            one, other = _without_dictionary(one, name), _without_dictionary(other, name)
    return pa.unify_schemas([one, other], promote_options="permissive")


def _without_dictionary(schema: pa.Schema, name: str) -> pa.Schema:
    field = schema.field(name)
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    return schema.set(schema.get_field_index(name), field.with_type(kind))


def _sampled(files: Sequence[SourceFile], sample: Callable[[SourceFile], Sample]) -> list[Sample]:
    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(sample, files[:: max(1, len(files) // SAMPLE_FILES)]))


@dataclass(frozen=True)
class _Headed:
    """The columns of a delimited file, as text or as `input.schema` says."""

    uri: str
    schema: pa.Schema
    without_rows: bool


def _delimited_schemas(
    files: Sequence[SourceFile], *, spec: InputSpec, declared: pa.Schema | None
) -> tuple[list[_Headed], list[str]]:
    """The columns of each sampled file, and the faults of files whose header can't be read, which are skipped here and fail in
    their shards."""

    def sample(file: SourceFile) -> _Headed | SourceError:
        try:
            opened = open_delimited(file, delimiter=spec.delimiter, quote=spec.quote, most_bytes=HEADER_BYTES)
        except SourceError as error:
            return error
        named = {field.name: field.type for field in declared or ()}
        kinds = [(name, named.get(name, pa.string())) for name in opened.header.names]
        return _Headed(file.uri, pa.schema(kinds), opened.header_only)

    found = _sampled(files, sample)
    readable = [schema for schema in found if not isinstance(schema, SourceError)]
    return readable, [str(fault) for fault in found if isinstance(fault, SourceError)]


def _json_schema(files: Sequence[SourceFile], *, columns: Columns) -> tuple[pa.Schema, str | None]:
    """The columns that a sample of the files shows, and the fault of files without any."""
    samples = _sampled(files, _sample)
    values: dict[str, list[object]] = {}
    for record in (record for sample in samples for record in sample.records):
        for name, value in record.items():
            if json_values.is_text(name):
                values.setdefault(name, []).append(value if columns.wants(name) else None)
    wrong = next((sample for sample in samples if sample.lines), None)
    fault = None
    if not values and wrong is not None:
        fault = wrong.fault or (
            f"the JSON lines, such as {files[0].uri}, contain no object to infer columns from; write one object a line "
            "(jq -c), or set input.schema"
        )
    schema = pa.schema(
        [
            (name, _commonest(column) if name in columns.read else json_values.type_of(column) or JSON_TEXT)
            for name, column in values.items()
        ]
    )
    return schema, fault


@dataclass(frozen=True)
class _Sample:
    """The records in the first bytes of a JSON Lines file. lines: how many there are; fault: why it can't be read."""

    records: list[dict[str, object]]
    lines: int
    fault: str | None = None


def _sample(file: SourceFile) -> _Sample:
    try:
        with decompressed(file.uri, compression=file.compression) as stream:
            head = bytes(stream.read(SAMPLE_BYTES))
        refuse_utf16(head, uri=file.uri)
        if len(head) < SAMPLE_BYTES and b"\n" not in head and not jsonl.parse_line(head)[0]:
            refuse_lone_returns(head, uri=file.uri)
    except SourceError as error:
        return _Sample([], 1, str(error))
    whole = head.rpartition(b"\n")[0] if len(head) == SAMPLE_BYTES else head
    lines = [line for line in whole.removeprefix(b"\xef\xbb\xbf").split(b"\n") if line.strip()]
    if not lines and head.strip():
        fault = f"{file.uri}: its first line is longer than {SAMPLE_BYTES} bytes; set input.schema"
        return _Sample([], 1, fault)
    return _Sample([dict(record) for record in (jsonl.parse_line(line)[0] for line in lines)], len(lines))


def _commonest(column: Sequence[object]) -> pa.DataType:
    """The most common type of the values of a column that a task reads; values of other types are errors of their rows."""
    given = [value for value in column if value is not None]
    if not given:
        return pa.string()
    texts = [value for value in given if isinstance(value, str | list)]  # what a task can read at all
    commonest = Counter(type(value) for value in texts or given).most_common(1)[0][0]
    return json_values.type_of([value for value in given if type(value) is commonest]) or JSON_TEXT
