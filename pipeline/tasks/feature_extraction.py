"""A text in, its embedding out: the encoder's last hidden states, pooled or one by one.

Legend: N items, W windows, G positions, H hidden size.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa

from models.boundary import Answers, Head, HeadAsk
from pipeline.arrow_lists import list_lengths
from pipeline.rows import spread_error
from pipeline.tasks.spans import grouped
from pipeline.tasks.task import Decoded, Encoding, ModelFacts, Part, Task
from pipeline.tasks.tokens import OnLong, all_positions, encode_from_start, first_positions

BEYOND_FLOAT16 = ("nan", "the vector has values beyond float16 (65504); task.dtype: float32 stores them")
BYTES_OF_A_PLAIN_ROW = 1_024
TOKENS_OF_A_ROW = 128
SMALLEST_NORM = 1e-12
"""A vector shorter than this is not stretched to length 1."""


class FeatureExtraction(Task):
    """feature-extraction: `embedding`, one vector of fixed size, or one for each token."""

    answer_version: ClassVar[int] = 2

    name: Literal["feature-extraction"] = "feature-extraction"
    pooling: Literal["cls", "mean", "none"] = "mean"
    """cls takes the state of `<s>`; mean averages the states of all tokens, `<s>` and `</s>` included; none lists them."""
    normalize: bool = False
    """Stretch every vector to length 1."""
    dtype: Literal["float32", "float16"] = "float32"
    """Type of the vectors as they are stored."""
    on_long: OnLong = "truncate"
    """A text longer than the model: truncate (sets `truncated`) or error."""

    def parts(self) -> tuple[Part, ...]:
        return (Part("text"),)

    def heads(self, facts: ModelFacts) -> tuple[Head, ...]:
        return ("encoder",)

    def rows_weight(self, facts: ModelFacts) -> int:
        size = np.dtype(self.dtype).itemsize * facts.config.hidden_size
        return 1 + size * (TOKENS_OF_A_ROW if self.pooling == "none" else 1) // BYTES_OF_A_PLAIN_ROW

    def asks(self, facts: ModelFacts) -> HeadAsk:
        reduce: Literal["mean", "none"] = "mean" if self.pooling == "mean" else "none"
        return HeadAsk(head="encoder", reduce=reduce, causal=facts.config.is_decoder)

    def fields(self, facts: ModelFacts) -> list[pa.Field]:
        vector = pa.list_(pa.float16() if self.dtype == "float16" else pa.float32(), facts.config.hidden_size)
        return [pa.field("embedding", pa.list_(vector) if self.pooling == "none" else vector)]

    def encode(self, parts: Mapping[str, pa.Array], facts: ModelFacts) -> Encoding:
        encoding = encode_from_start(parts["text"], facts=facts, on_long=self.on_long)
        windows = encoding.windows
        if self.pooling == "cls":
            positions = first_positions(windows.num_rows)
        else:
            positions = all_positions(list_lengths(windows, "input_ids"))
        windows = windows.append_column("positions", positions)
        return Encoding(windows=windows, truncated=encoding.truncated, errors=encoding.errors)

    def decode(
        self, *, parts: Mapping[str, pa.Array], windows: pa.Table, answers: Answers, facts: ModelFacts
    ) -> Decoded:
        items, item_W = len(parts["text"]), windows["item"].to_numpy()
        hidden_GH = answers["hidden"].astype(np.float32, copy=False)
        if self.normalize:
            lengths_G = np.linalg.norm(hidden_GH, axis=1, keepdims=True)
            hidden_GH = hidden_GH / np.maximum(lengths_G, SMALLEST_NORM)
        counts_N = np.zeros(items, np.int64)
        counts_N[item_W] = list_lengths(windows, "positions") if self.pooling == "none" else 1
        if self.pooling != "none":
            hidden_WH, hidden_GH = hidden_GH, np.zeros((items, hidden_GH.shape[1]), np.float32)
            hidden_GH[item_W] = hidden_WH
        with np.errstate(over="ignore"):
            stored_GH = hidden_GH.astype(self.dtype, copy=False)
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(stored_GH.ravel()), facts.config.hidden_size)
        embedding = grouped(vectors, counts_N=counts_N) if self.pooling == "none" else vectors
        beyond_G = (np.isinf(stored_GH) & np.isfinite(hidden_GH)).any(axis=1)
        beyond_N = np.zeros(items, bool)
        beyond_N[np.repeat(np.arange(items), counts_N)[beyond_G] if self.pooling == "none" else beyond_G] = True
        return Decoded(columns=[embedding], errors=spread_error(error=BEYOND_FLOAT16, where=beyond_N))
