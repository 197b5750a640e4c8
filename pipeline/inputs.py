"""What a job's `input` names in, its files with their formats, rows and one schema for all of them out."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pyarrow as pa

from pipeline.errors import SourceError, SpecError
from pipeline.formats import lines, parquet
from pipeline.formats.conform import misfit
from pipeline.shards import Compression, Format, SourceFile
from pipeline.spec import InputSpec, arrow_type
from pipeline.storage import FileInfo, filesystem, find

SUFFIXES: dict[str, Format] = {
    "parquet": "parquet",
    "pq": "parquet",
    "jsonl": "jsonl",
    "ndjson": "jsonl",
    "txt": "text",
    "text": "text",
}
COMPRESSIONS: dict[str, Compression] = {"gz": "gzip", "gzip": "gzip"}

SAMPLE_BYTES = 1 << 20
"""Bytes of a JSON lines file that its schema is inferred from."""
SAMPLE_FILES = 64
"""JSON lines files that are sampled, spread over all of them."""
READERS = 32


@dataclass(frozen=True)
class Described:
    """A file as far as it can be known without reading it.

    rows: of Parquet, else None. schema: of Parquet. failure: why it can't be read.
    """

    file: SourceFile
    rows: int | None = None
    schema: pa.Schema | None = None
    failure: SourceError | None = None


@dataclass(frozen=True)
class Listing:
    """The input files, and those that no format claims."""

    files: list[SourceFile]
    ignored: list[str] = field(default_factory=list)


def list_files(spec: InputSpec) -> Listing:
    """The files that the input names, each once, in the order of the URLs and by name. Raises SpecError where there are none."""
    files: dict[str, SourceFile] = {}
    ignored: list[str] = []
    for url in spec.urls:
        found = find(url)
        if not found:
            raise SpecError(f"input.urls: {url} matches no file; check the spelling, and that the credentials see it")
        for entry in found:
            file = recognised(entry, wanted=spec.format)
            if file is None:
                ignored.append(entry.uri)
            else:
                files.setdefault(file.uri, file)
    if not files:
        raise SpecError(
            f"input.urls: of {len(ignored)} files found, such as {ignored[0]}, none has a suffix that is known "
            f"({', '.join('.' + suffix for suffix in SUFFIXES)}; .gz behind lines); say input.format"
        )
    return Listing(files=list(files.values()), ignored=ignored)


def recognised(entry: FileInfo, *, wanted: str) -> SourceFile | None:
    """A file with its format and compression by its suffixes, or by the format asked for; None when nothing claims it."""
    *_, name = entry.uri.split("/")
    suffixes = name.lower().split(".")[1:]
    compression: Compression = "none"
    if suffixes and suffixes[-1] in COMPRESSIONS:
        compression = COMPRESSIONS[suffixes.pop()]
    format_ = SUFFIXES.get(suffixes[-1]) if suffixes else None
    if wanted != "auto":
        format_ = wanted  # type: ignore[assignment]
    if format_ is None:
        return None
    if format_ == "parquet":
        compression = "none"
    return SourceFile(uri=entry.uri, size=entry.size, version=entry.version, format=format_, compression=compression)


def describe(files: Sequence[SourceFile]) -> list[Described]:
    """Each file with what its footer tells; many footers at a time."""
    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(_describe, files))


def _describe(file: SourceFile) -> Described:
    if file.format != "parquet":
        return Described(file)
    try:
        rows, schema, _ = parquet.describe(file.uri)
    except SourceError as error:
        return Described(file, failure=error)
    return Described(file, rows=rows, schema=plain_schema(schema))


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """A schema without metadata and extension types: what a file claims of its columns beyond Arrow's own types is not run."""
    return pa.schema([pa.field(field.name, _plain_type(field.type), field.nullable) for field in schema])


def _plain_type(kind: pa.DataType) -> pa.DataType:
    return _plain_type(kind.storage_type) if isinstance(kind, pa.BaseExtensionType) else kind


def resolve_schema(*, spec: InputSpec, described: Sequence[Described]) -> pa.Schema:
    """One schema for all files: Parquet's own, `input.schema` for JSON lines or what a sample of them shows, `text` for
    text; columns in the order of first appearance. Raises SpecError where files disagree beyond Arrow's promotions."""
    schemas = [(item.file.uri, item.schema) for item in described if item.schema is not None]
    if any(item.file.format == "text" for item in described):
        schemas.append(("text files", lines.TEXT_SCHEMA))
    json_files = [item.file for item in described if item.file.format == "jsonl"]
    if json_files:
        schemas.append(("JSON lines", _json_schema(spec, json_files)))
    if not schemas:
        failures = "; ".join(str(item.failure) for item in described[:3] if item.failure)
        raise SpecError(f"none of the {len(described)} input files can be read: {failures}")
    return _unified(schemas)


def _unified(schemas: Iterable[tuple[str, pa.Schema]]) -> pa.Schema:
    unified: pa.Schema | None = None
    for where, schema in schemas:
        if unified is None or unified.equals(schema):
            unified = schema
            continue
        try:
            unified = pa.unify_schemas([unified, schema], promote_options="permissive")
        except pa.ArrowException as error:
            raise SpecError(
                f"{where} has columns of other types than the files before it: {error}; annotate them apart"
            ) from None
    assert unified is not None
    return pa.schema([pa.field(f.name, pa.string() if pa.types.is_null(f.type) else f.type) for f in unified])


def _json_schema(spec: InputSpec, files: Sequence[SourceFile]) -> pa.Schema:
    if spec.fields is not None:
        return pa.schema([pa.field(name, arrow_type(kind)) for name, kind in spec.fields.items()])
    step = max(1, len(files) // SAMPLE_FILES)
    with ThreadPoolExecutor(READERS) as pool:
        samples = list(pool.map(_sample, files[::step]))
    values: dict[str, list[object]] = {}
    for record in (record for sample in samples for record in sample):
        for name, value in record.items():
            values.setdefault(name, []).append(value)
    if not values:
        raise SpecError(
            f"the JSON lines, such as {files[0].uri}, hold no object to infer columns from; say input.schema"
        )
    return pa.schema([pa.field(name, _inferred(column)) for name, column in values.items()])


def _sample(file: SourceFile) -> list[dict[str, object]]:
    """The records in the first bytes of a file."""
    fs, path = filesystem(file.uri)
    try:
        with fs.open(path, "rb", compression=None if file.compression == "none" else file.compression) as stream:
            head = stream.read(SAMPLE_BYTES)
    except (OSError, EOFError):
        return []  # the shard that reads it says what is wrong with it
    whole = head.rpartition(b"\n")[0] if len(head) == SAMPLE_BYTES else head
    records = (lines.parse_line(line)[0] for line in whole.removeprefix(b"\xef\xbb\xbf").splitlines() if line.strip())
    return [dict(record) for record in records]


def _inferred(column: Sequence[object]) -> pa.DataType:
    """The type of most of the values; whole numbers among fractions are fractions, and nothing but nulls is text."""
    given = [value for value in column if value is not None]
    if not given:
        return pa.string()
    try:
        kind = pa.infer_type(given)
        if all(misfit(value, pa.field("", kind)) is None for value in given[:1]):
            return pa.string() if pa.types.is_null(kind) else kind
    except (pa.ArrowException, TypeError, ValueError, UnicodeEncodeError):
        pass
    kinds = Counter(json.dumps(_kind(value)) for value in given)
    commonest = json.loads(kinds.most_common(1)[0][0])
    alike = [value for value in given if _kind(value) == commonest]
    try:
        return pa.infer_type(alike)
    except (pa.ArrowException, TypeError, ValueError, UnicodeEncodeError):
        return pa.string()


def _kind(value: object) -> str:
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__
