"""A text in, its embedding out: the encoder's last hidden states, pooled."""

from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa

from models.boundary import Answers, Head
from pipeline.rows import no_errors
from pipeline.tasks.task import Decoded, Encoding, HeadAsk, ModelFacts, Part, Task
from pipeline.tasks.tokens import OnLong, all_positions, encode_from_start, first_positions


class FeatureExtraction(Task):
    """feature-extraction: `embedding`, a fixed-size list of float32."""

    answer_version: ClassVar[int] = 1
    rows_weight: ClassVar[int] = 4

    name: Literal["feature-extraction"] = "feature-extraction"
    pooling: Literal["cls", "mean"] = "mean"
    """cls takes the state of `<s>`; mean averages the states of all tokens, `<s>` and `</s>` included."""
    on_long: OnLong = "truncate"
    """A text longer than the model: truncate (said in `truncated`) or error."""

    def parts(self) -> tuple[Part, ...]:
        return (Part("text"),)

    def heads(self) -> tuple[Head, ...]:
        return ("encoder",)

    def asks(self, facts: ModelFacts) -> HeadAsk:
        return HeadAsk(head="encoder", reduce="mean" if self.pooling == "mean" else "none")

    def fields(self, facts: ModelFacts) -> list[pa.Field]:
        return [pa.field("embedding", pa.list_(pa.float32(), facts.config.hidden_size))]

    def encode(self, parts: Mapping[str, pa.Array], facts: ModelFacts) -> Encoding:
        encoding = encode_from_start(parts["text"], facts=facts, on_long=self.on_long)
        windows = encoding.windows
        lengths = windows["input_ids"].combine_chunks().value_lengths().to_numpy()
        positions = all_positions(lengths) if self.pooling == "mean" else first_positions(windows.num_rows)
        return Encoding(
            windows=windows.append_column("positions", positions), truncated=encoding.truncated, errors=encoding.errors
        )

    def decode(self, *, items: int, windows: pa.Table, answers: Answers, facts: ModelFacts) -> Decoded:
        hidden_NH = np.zeros((items, facts.config.hidden_size), np.float32)
        hidden_NH[windows["item"].to_numpy()] = answers["hidden"]
        embedding = pa.FixedSizeListArray.from_arrays(pa.array(hidden_NH.ravel()), facts.config.hidden_size)
        return Decoded(columns=[embedding], errors=no_errors(items))
