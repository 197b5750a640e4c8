"""Lists the files that a job's `input` names, with their formats and what their footers state."""

import re
from collections import Counter
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pyarrow as pa

from pipeline.errors import SourceError, SpecError
from pipeline.plurals import counted
from pipeline.reading.formats.arrow_types import plain_schema
from pipeline.reading.formats.columnar import READERS as COLUMNAR_READERS
from pipeline.reading.tables import current_files
from pipeline.shards import COLUMNAR, Compression, Format, SourceFile
from pipeline.spec.job_spec import InputSpec
from pipeline.store.storage import FileInfo, find, same_file

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
"""Column names that the flow itself uses."""

READERS = 32


@dataclass(frozen=True)
class Described:
    """What is known of a file without reading it.

    rows, bytes (decompressed), schema: of Parquet and Arrow, else None. failure: why it can't be read.
    """

    file: SourceFile
    rows: int | None = None
    bytes: int | None = None
    schema: pa.Schema | None = None
    failure: SourceError | None = None


@dataclass(frozen=True)
class Listing:
    """The input files, and those of unknown format. notes: what else the user should know about them."""

    files: list[SourceFile]
    ignored: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def list_files(spec: InputSpec, *, output: str, known: Collection[str] = ()) -> Listing:
    """The files that the input names, each once, in the order of the URLs and by name, less what lies in the output folder.

    A file that has several names is read under the one that is known (those that the output folder has planned), else under its
    own, else under the first of its links.

    Raises SpecError where there are none, or where a folder is a table that can't be read.
    """
    files: dict[str, SourceFile] = {}
    listing = Listing(files=[])
    for url in spec.urls:
        if VERSION_OF_KEY.search(url):
            raise SpecError(
                f"input.urls: {url} names one version of an object, and only current ones are read; leave ?versionId= out, or "
                "copy that version to a key of its own"
            )
        found = [entry for entry in current_files(url, find(url, hidden=True)) if not _below(entry.uri, output)]
        if not found:
            raise SpecError(f"input.urls: {url} matches no file; check the spelling and the credentials")
        for entry in found:
            file = recognised(entry, wanted=spec.format)
            if file is None:
                listing.ignored.append(entry.uri)
                continue
            files.setdefault(file.uri, file)
    if not files:
        count = len(listing.ignored)
        raise SpecError(
            f"input.urls: none of the {counted(count, 'file')} found, such as {listing.ignored[0]}, has a known suffix "
            f"({', '.join('.' + suffix for suffix in SUFFIXES)}; .gz or .zst after text, JSON Lines and CSV); set "
            "input.format"
        )
    names: dict[str, list[str]] = {}
    for uri in files:
        names.setdefault(same_file(uri), []).append(uri)
    for real, several in names.items():
        chosen = min(several, key=lambda uri: (uri not in known, uri != real))
        for uri in several:
            if uri != chosen:
                del files[uri]
                listing.notes.append(f"read once, as {chosen}: {uri} is the same file by another name")
    listing.files.extend(files.values())
    unversioned = [file.uri for file in listing.files if file.version == str(file.size)]
    if unversioned:
        listing.notes.append(
            f"{counted(len(unversioned), 'file')}, such as {unversioned[0]}, without an etag or a time: a change that keeps the "
            "size is not noticed"
        )
    return listing


def format_by_name(uri: str) -> str | None:
    """The format that `auto` means for a file."""
    file = recognised(FileInfo(uri, 0, ""), wanted="auto")
    return None if file is None else file.format


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
    uri = entry.uri if _is_utf8(entry.uri) else entry.uri.encode("utf-8", "backslashreplace").decode()
    version = entry.version if entry.regular else NO_FILE
    return SourceFile(uri=uri, size=entry.size, version=version, format=format_, compression=compression)


NO_FILE = "no file"
"""The version of a pipe, a socket, a device or a broken link."""


def _is_utf8(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _fault_of(file: SourceFile) -> SourceError | None:
    """Why a file can't be read at all, judged by its name and kind."""
    if file.version == NO_FILE:
        fault = "not a regular file but a pipe, a socket, a device or a broken link; remove it"
    elif UNREADABLE_NAME.search(file.uri):
        fault = "the name is not UTF-8; rename it"
    elif VERSION_OF_KEY.search(file.uri):
        fault = "what follows ?versionId= in its name is taken for a version by S3's client; rename it"
    else:
        return None
    return SourceError(f"{file.uri}: {fault}", reason="unreadable")


VERSION_OF_KEY = re.compile(r"^s3a?://.*\?versionId=")
"""A name that S3's client would cut: it opens another object, or none."""

UNREADABLE_NAME = re.compile(r"\\udc[0-9a-f]{2}")
"""What stands for bytes of a name that are not UTF-8."""


def describe(files: Sequence[SourceFile]) -> list[Described]:
    """Each file with what its footer states; many footers are read at a time."""
    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(_describe, files))


def _describe(file: SourceFile) -> Described:
    if (fault := _fault_of(file)) is not None:
        return Described(file, failure=fault)
    if file.format not in COLUMNAR:
        return Described(file)
    try:
        footer = COLUMNAR_READERS[file.format].describe(file.uri)
        schema = plain_schema(footer.schema)
        _refuse_names(file.uri, schema.names)
    except SourceError as error:
        return Described(file, failure=error)
    except UnicodeDecodeError as error:
        message = f"{file.uri}: the name of a column is not UTF-8 ({error.object[:60]!r}); rename it"
        return Described(file, failure=SourceError(message, reason="unreadable"))
    return Described(file, rows=footer.rows, bytes=footer.bytes, schema=schema)


def _refuse_names(uri: str, names: Sequence[str]) -> None:
    """Raise SourceError if a column name occurs twice or is reserved."""
    twice = [name for name, count in Counter(names).items() if count > 1 or name in RESERVED]
    if twice:
        raise SourceError(
            f"{uri}: the column {twice[0]!r} occurs twice, or its name is reserved; rename it",
            reason="unreadable",
        )
