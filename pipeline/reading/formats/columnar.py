"""The reader of each columnar format; a format without one can't be read as such."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from pipeline.reading.formats import arrow_ipc, parquet
from pipeline.reading.formats.decoded_size import TableOrTooLarge
from pipeline.reading.formats.parquet import Footer
from pipeline.shards import Format


@dataclass(frozen=True)
class ColumnarReader:
    """describe: a file's columns and number of rows. read_ranges: its rows in some ranges, as tables, or where to
    cut a range that is too large."""

    describe: Callable[[str], Footer]
    read_ranges: Callable[..., Iterator[TableOrTooLarge]]


READERS: Mapping[Format, ColumnarReader] = {
    "parquet": ColumnarReader(parquet.describe, parquet.read_ranges),
    "arrow": ColumnarReader(arrow_ipc.describe, arrow_ipc.read_ranges),
}
