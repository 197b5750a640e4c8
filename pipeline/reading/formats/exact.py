"""Checks whether an Arrow number type carries numbers unchanged from how they are written.

Whole numbers must print back digit for digit (00501 and +5 do not); fractions must be the same number when printed with as
many digits as were written (0.50 and 1e5 are, twenty digits in a double are not).
"""

import re
from decimal import Decimal, InvalidOperation

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_SAFE_DIGITS = {64: 15, 32: 6, 16: 3}
"""Decimal digits that a binary fraction of so many bits always keeps."""
_SOME_DIGIT = re.compile("[1-9]")


def prints_back(text: pa.Array, values: pa.Array) -> np.ndarray:
    """[rows], whether each value, cast from the text beside it, equals what was written; True for nulls."""
    kind = values.type
    if pa.types.is_integer(kind):
        same = pc.equal(values.cast(text.type), text)
    elif pa.types.is_boolean(kind):
        same = pc.equal(values.cast(text.type), pc.utf8_lower(text))
    elif pa.types.is_floating(kind):
        return _fractions_print_back(text, values)
    else:
        return np.ones(len(values), bool)
    return np.asarray(pc.fill_null(same, True).to_numpy(zero_copy_only=False), bool)


def _fractions_print_back(text: pa.Array, values: pa.Array) -> np.ndarray:
    same = np.ones(len(values), bool)
    bits = values.type.bit_width
    long = pc.greater(pc.utf8_length(text), _SAFE_DIGITS[bits])
    numbers = values.cast(pa.float64())
    edge = pc.or_(pc.is_inf(numbers), pc.equal(numbers, 0.0))
    suspects = np.flatnonzero(pc.fill_null(pc.or_(long, edge), False).to_numpy(zero_copy_only=False))
    for index in suspects.tolist():
        same[index] = is_exact(text[index].as_py(), numbers[index].as_py())
    return same


def is_exact(text: str, value: float) -> bool:
    """Whether a fraction is the number written, to as many digits as were written."""
    try:
        written = Decimal(text.strip())
    except InvalidOperation:
        return True  # a word for a number, such as Infinity
    if not written.is_finite():
        return True
    if value in (float("inf"), float("-inf")):
        return False
    if value == 0.0:
        return not _SOME_DIGIT.search(text.lower().partition("e")[0])
    digits = len("".join(map(str, written.as_tuple().digits)).rstrip("0").lstrip("0")) or 1
    return Decimal(f"{value:.{min(digits, 800) - 1}e}") == written
