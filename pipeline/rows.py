"""The columns every row has beside its own: `source`, `row`, `error`; and how errors of rows are made and counted."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import RowError

ERROR_TYPE = pa.struct([pa.field("reason", pa.string()), pa.field("message", pa.string())])
"""`error` of a row that could not be answered: a fixed reason to count by, and a message to read."""

SOURCE = pa.field("source", pa.string())
"""URL of the input file."""
ROW = pa.field("row", pa.int64())
"""Row number in a Parquet file; elsewhere the byte offset of the record in the decompressed file."""
ERROR = pa.field("error", ERROR_TYPE)

EMPTY = "empty"
"""The reason of null and blank texts: expected in real data, counted separately, never against the error limit."""

UNFIT = "unfit "
"""Prefix of a column's name in a shard's facts: how many of its values did not fit its type and are null."""

LEFT_OUT = "left out "
"""Prefix of a column's name in a shard's facts: how many of its rows have such a column, which the job's columns lack."""
STORED, SKIPPED = "stored_bytes", "skipped_bytes"
"""Facts of a shard of a file read in sequence: how many bytes of the stored file it is, about, and how many before it were
passed over since their shards exist already."""

MESSAGE_CHARACTERS = 500
"""An error message is cut here: it may quote what a hostile row holds."""


def error_array(errors: Sequence[RowError | None]) -> pa.StructArray:
    """Errors of rows as an Arrow struct array; None is a row without one."""
    values = [
        None if error is None else {"reason": error[0], "message": error[1][:MESSAGE_CHARACTERS]} for error in errors
    ]
    return pa.array(values, type=ERROR_TYPE)


def no_errors(count: int) -> pa.StructArray:
    """`count` rows without an error."""
    return pa.nulls(count, ERROR_TYPE)


def first_error(errors: Sequence[pa.StructArray]) -> pa.StructArray:
    """The first error of each row."""
    merged = errors[0]
    for later in errors[1:]:
        if merged.null_count == 0:
            break
        merged = later if merged.null_count == len(merged) else pc.if_else(merged.is_valid(), merged, later)
    return merged


def spread_error(*, error: RowError, where: np.ndarray) -> pa.StructArray:
    """The same error on every row that a mask selects."""
    reason, message = error
    fill = pa.scalar({"reason": reason, "message": message[:MESSAGE_CHARACTERS]}, type=ERROR_TYPE)
    if not where.any():
        return no_errors(len(where))
    return pc.if_else(pa.array(where), fill, pa.scalar(None, ERROR_TYPE))


def count_reasons(errors: pa.StructArray | pa.ChunkedArray) -> Counter[str]:
    """How many rows have each reason."""
    reasons = pc.struct_field(errors, "reason") if len(errors) else pa.array([], pa.string())
    counted = pc.value_counts(reasons.drop_null() if errors.null_count else reasons)
    return Counter({item["values"].as_py(): item["counts"].as_py() for item in counted})
