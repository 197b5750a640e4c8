"""Files that other programs stumble over, each of its own kind: further rows of the error reference."""

import os
import shutil
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from tests.pipeline.bad import FILE, REFUSED, ROW, Bad, Make, Settings, written
from tests.pipeline.bad_run import parquet
from tests.pipeline.delta_log import INLINE_VECTOR, log_table

CASES = Path(__file__).parents[1] / "cases"


def _large_window() -> bytes:
    compressor = zstandard.ZstdCompressor(
        compression_params=zstandard.ZstdCompressionParameters(window_log=30, enable_ldm=True)
    ).compressobj()
    return bytes(compressor.compress(b"a text\n") + compressor.flush())


def _large_integers(folder: Path) -> None:
    parquet(folder / "in" / "good.parquet", {"text": ["A good text."]})
    pl.DataFrame({"text": ["a"], "id": pl.Series([2**100], dtype=pl.Int128)}).write_parquet(folder / "in" / "a.parquet")


def _wrong_checksum(folder: Path) -> None:
    parquet(folder / "in" / "good.parquet", {"text": ["A good text."]})
    path = folder / "in" / "a.parquet"
    texts = [f"text number {index}" for index in range(50)]
    parquet(path, {"text": texts}, use_dictionary=False, compression="none", write_page_checksum=True)
    path.write_bytes(path.read_bytes().replace(b"text number 7", b"text nvmber 7", 1))


def _pipe(folder: Path) -> None:
    parquet(folder / "in" / "good.parquet", {"text": ["A good text."]})
    os.mkfifo(folder / "in" / "a.txt")


def _foreign_name(folder: Path) -> None:
    parquet(folder / "in" / "good.parquet", {"text": ["A good text."]})
    (folder / "in" / os.fsdecode(b"caf\xe9.txt")).write_text("a text\n")


def _table(mark: str) -> Make:
    def make(folder: Path) -> Settings | None:
        parquet(folder / "in" / "a.parquet", {"text": ["A text."]})
        (folder / "in" / mark).parent.mkdir()
        (folder / "in" / mark).write_text("")
        return None

    return make


def _deleted_row(folder: Path) -> None:
    features = ["deletionVectors"]
    log_table(folder / "in", deleted=INLINE_VECTOR, readerFeatures=features, writerFeatures=features)


def _gone_from_a_saved_data_set(folder: Path) -> None:
    shutil.copytree(CASES / "folders" / "saved-dataset", folder / "in", dirs_exist_ok=True)
    (folder / "in" / "data-00000-of-00001.arrow").unlink()


def _uuid_text(folder: Path) -> None:
    (folder / "in").mkdir(exist_ok=True)
    pq.write_table(pa.table({"text": pa.array([b"0" * 16], pa.uuid())}), folder / "in" / "a.parquet")


MORE_FILES = [
    Bad(
        "a CSV record with a quote that is never closed",
        (ROW, "malformed-csv"),
        ("3 fields, and the header has 2",),
        written("a.csv", 'id,text\n1,"never, closed\n2,A good text.\n'),
        good_rows=1,
    ),
    Bad(
        "a CSV whose lines end with a carriage return alone",
        (REFUSED, "SpecError"),
        ("a.csv", "carriage return", "tr "),
        written("a.csv", b"id,text\r1,First\r2,Second"),
    ),
    Bad(
        "a CSV header that names a column twice",
        (REFUSED, "SpecError"),
        ("a.csv", "'text'", "rename"),
        written("a.csv", "text,text\n1,2\n"),
    ),
    Bad(
        "a file of UTF-16",
        (REFUSED, "SpecError"),
        ("a.csv", "UTF-16", "iconv"),
        written("a.csv", "id,text\n1,First\n".encode("utf-16")),
    ),
    Bad(
        "a zstd file with a window of a gigabyte",
        (FILE, "unreadable"),
        ("a.txt.zst", "--long=27"),
        written("a.txt.zst", _large_window(), beside_a_good_one=True),
        good_rows=1,
    ),
    Bad(
        "a Parquet file with whole numbers of 128 bits",
        (FILE, ""),
        ("a.parquet", "more than 64 bits", "column 'id'", "cast to another"),
        _large_integers,
        good_rows=1,
    ),
    Bad(
        "a Parquet file with a page of another checksum",
        (FILE, "corrupt"),
        ("a.parquet", "CRC", "replace or remove the file"),
        _wrong_checksum,
        good_rows=1,
    ),
    Bad("a named pipe", (FILE, ""), ("a.txt", "remove it"), _pipe, good_rows=1),
    Bad("a file whose name is not UTF-8", (FILE, ""), ("caf", "rename it"), _foreign_name, good_rows=1),
    Bad(
        "a table of Hudi",
        (REFUSED, "SpecError"),
        ("Hudi", "export it to Parquet"),
        _table(".hoodie/hoodie.properties"),
    ),
    Bad(
        "a table of Iceberg",
        (REFUSED, "SpecError"),
        ("Iceberg", "export it to Parquet"),
        _table("metadata/v1.metadata.json"),
    ),
    Bad(
        "a Delta table with deletion vectors",
        (REFUSED, "SpecError"),
        ("deletion vectors", "write its rows to Parquet"),
        _deleted_row,
    ),
    Bad(
        "a saved data set that lacks a file",
        (REFUSED, "SpecError"),
        ("data-00000-of-00001.arrow", "save it again"),
        _gone_from_a_saved_data_set,
    ),
    Bad("a column of UUIDs as text", (REFUSED, "SpecError"), ("'text'", "uuid"), _uuid_text),
]
