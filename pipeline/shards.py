"""Input files in, shards out: cut by a frozen rule, named by their content, less what is already written.

A shard is the unit of work, of retry and of commit: a row range of a Parquet file, a byte range of plain lines, or, for a
file that only reads in sequence, every n records (its ranges are known once it has been read).
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Literal, TypeAlias

Format: TypeAlias = Literal["parquet", "arrow", "jsonl", "csv", "tsv", "text"]
Compression: TypeAlias = Literal["none", "gzip", "zstd"]

COLUMNAR: tuple[Format, ...] = ("parquet", "arrow")
"""Formats that state their columns and number of rows; their shards are ranges of rows."""
DELIMITED: tuple[Format, ...] = ("csv", "tsv")
"""Formats in which a line end may be part of a value."""

READING = 2
"""The version of the reading rules, kept in each output folder; raised when the same bytes would be read as other rows.

1: quotes of delimited files are counted; their columns have the types that a sample shows; a carried value of another type
is an error of its row. 2: as `pipeline/reading/formats` says.
"""

STRIPPED_SUFFIXES = re.compile(
    r"(\.(parquet|pq|jsonl|ndjson|json|txt|text|csv|tsv|arrow|feather|ipc|gz|gzip|zst|zstd))+$", re.IGNORECASE
)
STEM_CHARACTERS = 60
DIGEST_BYTES = 12


@dataclass(frozen=True)
class CutRule:
    """How much of the input makes a shard: whichever bound comes first. Frozen per output folder."""

    rows: int
    bytes: int


@dataclass(frozen=True)
class SourceFile:
    """One input file at one version, and how it is read."""

    uri: str
    size: int
    version: str
    format: Format
    compression: Compression = "none"

    @property
    def sequential(self) -> bool:
        """Whether it can only be read from its beginning."""
        return self.compression != "none" or self.format in DELIMITED


def delimiter_of(file: SourceFile, wanted: str | None) -> str:
    """The delimiter of a delimited file."""
    return wanted or ("\t" if file.format == "tsv" else ",")


@dataclass(frozen=True)
class Shard:
    """A range of one file: rows [first, stop) of Parquet, bytes [first, stop) of lines (decompressed).

    key: the name of its object under `data/`, the same whoever makes it.
    size: bytes of input it stands for, about.
    last: known for files read in sequence: no record follows it.
    """

    file: SourceFile
    first: int
    stop: int
    key: str
    size: int
    last: bool = False

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Shard":
        """From `to_dict`."""
        return cls(**{**values, "file": SourceFile(**values["file"])})


@dataclass(frozen=True)
class Stream:
    """A file that can only be read in sequence: its shards are cut while it is read, and those already written are skipped.

    done: keys of its shards that exist already.
    """

    file: SourceFile
    done: frozenset[str]


Work: TypeAlias = Shard | Stream
"""Something to read: a shard with known borders, or a file whose shards are found while reading it."""


def shard_key(*, file: SourceFile, first: int, stop: int, fingerprint: str) -> str:
    """`{stem}-{first}-{digest}.parquet`: the same for the same input range answered the same way, different for anything else."""
    content = "\0".join([file.uri, file.version, file.format, file.compression, str(first), str(stop), fingerprint])
    digest = hashlib.blake2b(content.encode(), digest_size=DIGEST_BYTES).hexdigest()
    return f"{key_stem(file.uri)}-{first:012d}-{digest}.parquet"


def key_stem(uri: str) -> str:
    """A file's name without suffixes, cleaned so that no input name can climb out of a folder or hide a file."""
    name = STRIPPED_SUFFIXES.sub("", uri.rstrip("/").rpartition("/")[2])
    cleaned = re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_-")
    return cleaned[:STEM_CHARACTERS] or "input"


def cut_rows(*, file: SourceFile, rows: int, size: int, rule: CutRule, fingerprint: str) -> list[Shard]:
    """Shards of a file with known rows and `size` bytes when decompressed, each near `rule.bytes` by the mean row size."""
    if rows == 0:
        return []
    per_row = max(size / rows, 1e-9)
    step = max(1, min(rule.rows, int(rule.bytes / per_row)))
    return [
        _shard(file, first, min(first + step, rows), int(step * per_row), fingerprint) for first in range(0, rows, step)
    ]


def cut_bytes(*, file: SourceFile, rule: CutRule, fingerprint: str) -> list[Shard]:
    """Shards of a file of plain lines; a shard has the records that begin in its range."""
    return [
        _shard(file, first, min(first + rule.bytes, file.size), rule.bytes, fingerprint)
        for first in range(0, file.size, rule.bytes)
    ]


def parts_of(shard: Shard, cuts: Sequence[int], *, fingerprint: str) -> list[Shard]:
    """The shards that a range makes when it is cut before these rows."""
    edges = [shard.first, *cuts, shard.stop]
    size = shard.size // (len(cuts) + 1)
    return [_shard(shard.file, first, stop, size, fingerprint) for first, stop in pairwise(edges)]


def _shard(file: SourceFile, first: int, stop: int, size: int, fingerprint: str) -> Shard:
    return Shard(file, first, stop, shard_key(file=file, first=first, stop=stop, fingerprint=fingerprint), size)


def into_bundles(*, shards: Iterable[Shard], rule: CutRule, most: int) -> Iterator[list[Shard]]:
    """Shards in order, several small ones together: a bundle reaches the rule's bytes or rows, or holds `most`.

    Rows bound it too because a bundle is the work that a kill loses, and a shard's bytes are often compressed.
    """
    bundle: list[Shard] = []
    size = rows = 0
    for shard in shards:
        more = shard.stop - shard.first if shard.file.format in COLUMNAR else 0  # else they are bytes
        if bundle and (size + shard.size > rule.bytes or rows + more > rule.rows or len(bundle) >= most):
            yield bundle
            bundle, size, rows = [], 0, 0
        bundle.append(shard)
        size += shard.size
        rows += more
    if bundle:
        yield bundle
