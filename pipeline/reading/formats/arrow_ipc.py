"""Arrow IPC files and streams (Feather version 2 too) in, their schema, their rows, and ranges of them out."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from pipeline.errors import SourceError
from pipeline.reading.formats.conform import Carried
from pipeline.reading.formats.decoded_size import TableOrTooLarge
from pipeline.reading.formats.memory_cap import capped
from pipeline.reading.formats.parquet import BUFFER_BYTES, Footer, reading_error, rows_of_ranges
from pipeline.store.storage import opened


@contextmanager
def batches_of(uri: str) -> Iterator[tuple[pa.Schema, Iterator[pa.RecordBatch]]]:
    """(schema, record batches one at a time) of a file in either of the two IPC layouts. Raises SourceError."""
    try:
        with opened(uri, cache_type="readahead", block_size=BUFFER_BYTES) as handle:
            source = pa.PythonFile(handle, mode="r")
            reader = _reader(source)
            yield reader.schema, capped(_each(reader))
    except SourceError:
        raise
    except Exception as error:
        raise reading_error(uri, error) from error


def _reader(source: pa.NativeFile) -> Any:
    magic = source.read(6)
    source.seek(0)
    return pa.ipc.open_file(source) if magic == b"ARROW1" else pa.ipc.open_stream(source)


def _each(reader: Any) -> Iterator[pa.RecordBatch]:
    every = (
        (reader.get_batch(index) for index in range(reader.num_record_batches))
        if isinstance(reader, pa.ipc.RecordBatchFileReader)
        else iter(reader)
    )
    for batch in every:
        # Buffers are taken from the file as they are: offsets that lead out of them would crash this process.
        batch.validate(full=True)
        yield batch


def describe(uri: str) -> Footer:
    """Rows, bytes and schema; a file without a footer of counts is read through. Raises SourceError."""
    with batches_of(uri) as (schema, batches):
        rows = size = 0
        for batch in batches:
            rows += batch.num_rows
            size += batch.nbytes
        return Footer(rows=rows, bytes=size, schema=schema)


def read_ranges(
    *,
    uri: str,
    ranges: Sequence[tuple[int, int]],
    schema: pa.Schema,
    required: Sequence[str] = (),
    carried: Carried | None = None,
    most_bytes: int | None = None,
) -> Iterator[TableOrTooLarge]:
    """For each range [first, stop) of ascending row numbers its rows, in one pass over the file; where they take more than
    `most_bytes`, decoded, where to cut them. Raises SourceError."""
    with batches_of(uri) as (own, batches):
        present = set(own.names)
        names = [name for name in schema.names if name in present]
        yield from rows_of_ranges(
            uri=uri,
            ranges=ranges,
            batches=_numbered(batches, names),
            schema=schema,
            required=required,
            carried=carried,
            names=own.names,
            most_bytes=most_bytes,
        )


def _numbered(batches: Iterator[pa.RecordBatch], names: list[str]) -> Iterator[tuple[int, pa.Table]]:
    position = 0
    for batch in batches:
        table = pa.Table.from_batches([batch])
        yield position, table.select(names) if names else pa.table({"__none__": pa.nulls(batch.num_rows)})
        position += batch.num_rows
