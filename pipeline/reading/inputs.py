"""What a job's `input` names in, its files with their formats and what their footers tell out."""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pyarrow as pa

from pipeline.errors import SourceError, SpecError
from pipeline.reading.formats import arrow_ipc, parquet
from pipeline.reading.schema import plain_schema
from pipeline.shards import COLUMNAR, Compression, Format, SourceFile
from pipeline.spec.job_spec import InputSpec
from pipeline.store.storage import FileInfo, find

SUFFIXES: dict[str, Format] = {
    "parquet": "parquet",
    "pq": "parquet",
    "arrow": "arrow",
    "feather": "arrow",
    "ipc": "arrow",
    "csv": "csv",
    "tsv": "tsv",
    "jsonl": "jsonl",
    "ndjson": "jsonl",
    "txt": "text",
    "text": "text",
}
COMPRESSIONS: dict[str, Compression] = {"gz": "gzip", "gzip": "gzip", "zst": "zstd", "zstd": "zstd"}

RESERVED = ("__row__", "__error__")
"""Names that rows carry inside the flow."""

READERS = 32


@dataclass(frozen=True)
class Described:
    """A file as far as it can be known without reading it.

    rows, bytes (decompressed), schema: of Parquet and Arrow, else None. failure: why it can't be read.
    """

    file: SourceFile
    rows: int | None = None
    bytes: int | None = None
    schema: pa.Schema | None = None
    failure: SourceError | None = None


@dataclass(frozen=True)
class Listing:
    """The input files, and those that no format claims."""

    files: list[SourceFile]
    ignored: list[str] = field(default_factory=list)


def list_files(spec: InputSpec, *, output: str) -> Listing:
    """The files that the input names, each once, in the order of the URLs and by name, less what lies in the output folder.

    Raises SpecError where there are none.
    """
    files: dict[str, SourceFile] = {}
    ignored: list[str] = []
    for url in spec.urls:
        found = [entry for entry in find(url) if not _below(entry.uri, output)]
        if not found:
            raise SpecError(f"input.urls: {url} matches no file; check the spelling and the credentials")
        for entry in found:
            file = recognised(entry, wanted=spec.format)
            if file is None:
                ignored.append(entry.uri)
            else:
                files.setdefault(file.uri, file)
    if not files:
        raise SpecError(
            f"input.urls: none of the files found, such as {ignored[0]}, has a known suffix "
            f"({', '.join('.' + suffix for suffix in SUFFIXES)}; .gz or .zst after text, JSON Lines and CSV); set "
            "input.format"
        )
    return Listing(files=list(files.values()), ignored=ignored)


def _below(uri: str, folder: str) -> bool:
    return uri.startswith(folder.rstrip("/") + "/")


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
    if format_ in COLUMNAR:
        compression = "none"  # theirs is inside
    return SourceFile(uri=entry.uri, size=entry.size, version=entry.version, format=format_, compression=compression)


def describe(files: Sequence[SourceFile]) -> list[Described]:
    """Each file with what its footer tells; many footers at a time."""
    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(_describe, files))


def _describe(file: SourceFile) -> Described:
    if file.format not in COLUMNAR:
        return Described(file)
    try:
        footer = parquet.describe(file.uri) if file.format == "parquet" else arrow_ipc.describe(file.uri)
        schema = plain_schema(footer.schema)
        _refuse_names(file.uri, schema.names)
    except SourceError as error:
        return Described(file, failure=error)
    return Described(file, rows=footer.rows, bytes=footer.bytes, schema=schema)


def _refuse_names(uri: str, names: Sequence[str]) -> None:
    """Raise SourceError where column names are not told apart."""
    twice = [name for name, count in Counter(names).items() if count > 1 or name in RESERVED]
    if twice:
        raise SourceError(
            f"{uri}: the column {twice[0]!r} occurs twice, or its name is reserved; rename it",
            reason="unreadable",
        )
