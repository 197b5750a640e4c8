"""Texts and character ranges in, the pieces of text out, without making Python strings.

Legend: N texts, E ranges.
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.ragged import Integers, offsets_of, ranges


class Characters:
    """The characters of an array of texts [N], addressed by their number."""

    def __init__(self, texts: pa.Array) -> None:
        values = texts.cast(pa.large_string())
        _, offsets, data = values.buffers()
        bounds = np.zeros(1, np.int64)
        if len(values):
            bounds = np.frombuffer(offsets, np.int64)[values.offset : values.offset + len(values) + 1]
        whole = np.frombuffer(data, np.uint8) if data is not None else np.empty(0, np.uint8)
        self.bytes_B: npt.NDArray[np.uint8] = whole[bounds[0] : bounds[-1]]
        begins = (self.bytes_B & 0xC0) != 0x80
        # Byte at which each character begins; the end of all behind them.
        self._byte_of: npt.NDArray[np.int64] = np.append(np.flatnonzero(begins), len(self.bytes_B))
        self._first_N = np.searchsorted(self._byte_of, bounds[:-1] - bounds[0])
        self.lengths_N: npt.NDArray[np.int64] = np.asarray(
            pc.utf8_length(values).to_numpy(zero_copy_only=False), np.int64
        )

    def substrings(self, *, text_E: Integers, start_E: Integers, end_E: Integers) -> pa.LargeStringArray:
        """Characters start … end of a text, for each range."""
        first_E = self._byte_of[self._first_N[text_E] + start_E]
        count_E = np.maximum(self._byte_of[self._first_N[text_E] + end_E] - first_E, 0)
        offsets = offsets_of(count_E)
        data = self.bytes_B[ranges(first_E, count_E)]
        return pa.LargeStringArray.from_buffers(len(count_E), pa.py_buffer(offsets), pa.py_buffer(data))

    def is_space(self, *, text_E: Integers, place_E: Integers) -> npt.NDArray[np.bool_]:
        """Whether the character at a place is a plain space; False behind the end of its text."""
        inside_E = place_E < self.lengths_N[text_E]
        byte_E = self._byte_of[self._first_N[text_E] + np.where(inside_E, place_E, 0)]
        found = np.zeros(len(byte_E), bool)
        found[inside_E] = self.bytes_B[byte_E[inside_E]] == ord(" ")
        return found


def grouped(values: pa.Array, *, counts_N: Integers) -> pa.ListArray:
    """A flat array as lists of these lengths."""
    offsets = np.zeros(len(counts_N) + 1, np.int32)
    np.cumsum(counts_N, out=offsets[1:])
    return pa.ListArray.from_arrays(pa.array(offsets), values)
