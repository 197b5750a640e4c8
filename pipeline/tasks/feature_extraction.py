"""A text in, its embedding out: the encoder's last hidden states, pooled or one by one.

Legend: N items, W windows, G positions, H hidden size.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models.boundary import Answers, Head, HeadAsk
from pipeline.arrow_lists import list_lengths
from pipeline.errors import OptionError
from pipeline.rows import spread_error
from pipeline.tasks.spans import grouped
from pipeline.tasks.task import Decoded, Encoding, ModelFacts, Part, Task
from pipeline.tasks.tokens import OnLong, all_positions, encode_from_start, first_positions

Pooling: TypeAlias = Literal["cls", "mean", "none"]

BEYOND_FLOAT16 = ("nan", "the vector has values beyond float16 (65504); task.dtype: float32 stores them")
BYTES_OF_A_PLAIN_ROW = 1_024
TOKENS_OF_A_ROW = 128
SMALLEST_NORM = 1e-12
"""A vector shorter than this is not normalised."""


class FeatureExtraction(Task):
    """feature-extraction: `embedding`, one vector of fixed size, or one for each token."""

    answer_version: ClassVar[int] = 2

    name: Literal["feature-extraction"] = "feature-extraction"
    later_options: ClassVar[frozenset[str]] = frozenset({"prompt"})

    pooling: Pooling = "mean"
    """cls takes the state of `<s>`; mean averages the states of all tokens, `<s>` and `</s>` included; none lists them.
    When absent, as a folder of sentence-transformers says."""
    normalize: bool = False
    """Stretch every vector to length 1. When absent, as a folder of sentence-transformers says."""
    prompt: str | None = None
    """Put before every text: the name of one of the checkpoint's prompts, or the words themselves. When absent the checkpoint's
    default prompt, if it has one; an empty one is none."""
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
        return 1 + size * (TOKENS_OF_A_ROW if self.resolved_pooling(facts) == "none" else 1) // BYTES_OF_A_PLAIN_ROW

    def resolved_pooling(self, facts: ModelFacts) -> Pooling:
        """The pooling that this checkpoint's vectors get."""
        by_folder = facts.embedder is not None and "pooling" not in self.model_fields_set
        return facts.embedder.pooling if by_folder and facts.embedder is not None else self.pooling

    def resolved_normalize(self, facts: ModelFacts) -> bool:
        """Whether this checkpoint's vectors are scaled to length 1."""
        by_folder = facts.embedder is not None and not {"pooling", "normalize"} & self.model_fields_set
        return facts.embedder.normalize if by_folder and facts.embedder is not None else self.normalize

    def resolved_prompt(self, facts: ModelFacts) -> str:
        """The words put before every text."""
        prompts = {} if facts.embedder is None else facts.embedder.prompts
        if self.prompt is not None:
            return prompts.get(self.prompt, self.prompt)
        default = None if facts.embedder is None else facts.embedder.default_prompt
        return "" if default is None else prompts.get(default, "")

    def resolved_options(self, facts: ModelFacts) -> dict[str, Any]:
        if facts.embedder is None:
            return {}
        return {
            "pooling": self.resolved_pooling(facts),
            "normalize": self.resolved_normalize(facts),
            "prompt": self.resolved_prompt(facts),
            "max_length": facts.max_length,
        }

    def asks(self, facts: ModelFacts) -> HeadAsk:
        reduce: Literal["mean", "none"] = "mean" if self.resolved_pooling(facts) == "mean" else "none"
        return HeadAsk(head="encoder", reduce=reduce, causal=facts.config.is_decoder)

    def fields(self, facts: ModelFacts) -> list[pa.Field]:
        self._check_embedder(facts)
        vector = pa.list_(pa.float16() if self.dtype == "float16" else pa.float32(), facts.config.hidden_size)
        return [pa.field("embedding", pa.list_(vector) if self.resolved_pooling(facts) == "none" else vector)]

    def _check_embedder(self, facts: ModelFacts) -> None:
        embedder = facts.embedder
        if embedder is None:
            return
        if embedder.refusal is not None and "pooling" not in self.model_fields_set:
            raise OptionError(
                "pooling",
                f"the checkpoint is a sentence-transformers embedder with {embedder.refusal}, which preln does not support, so "
                "its vectors would differ; set pooling (and normalize) to get them anyway",
            )
        pools_prompt = embedder.include_prompt or self.resolved_pooling(facts) == "cls"
        if self.resolved_prompt(facts) and not pools_prompt:
            raise OptionError(
                "prompt",
                "the checkpoint leaves its prompt out of the mean (include_prompt: false), which preln does not support",
            )

    def encode(self, parts: Mapping[str, pa.Array], facts: ModelFacts) -> Encoding:
        prompt, texts = self.resolved_prompt(facts), parts["text"]
        if prompt:
            large = texts.cast(pa.large_string())
            nothing = pa.scalar("", pa.large_string())
            texts = pc.binary_join_element_wise(pa.scalar(prompt, pa.large_string()), large, nothing)
        encoding = encode_from_start(texts, facts=facts, on_long=self.on_long)
        windows = encoding.windows
        if self.resolved_pooling(facts) == "cls":
            positions = first_positions(windows.num_rows)
        else:
            positions = all_positions(list_lengths(windows, "input_ids"))
        windows = windows.append_column("positions", positions)
        return Encoding(windows=windows, truncated=encoding.truncated, errors=encoding.errors)

    def decode(
        self, *, parts: Mapping[str, pa.Array], windows: pa.Table, answers: Answers, facts: ModelFacts
    ) -> Decoded:
        """One vector per text, or one per token; a text whose vector does not fit the stored type gets an error."""
        items, item_W = len(parts["text"]), windows["item"].to_numpy()
        hidden_GH = answers["hidden"].astype(np.float32, copy=False)
        pooling = self.resolved_pooling(facts)
        if self.resolved_normalize(facts):
            lengths_G = np.linalg.norm(hidden_GH, axis=1, keepdims=True)
            hidden_GH = hidden_GH / np.maximum(lengths_G, SMALLEST_NORM)
        counts_N = np.zeros(items, np.int64)
        counts_N[item_W] = list_lengths(windows, "positions") if pooling == "none" else 1
        if pooling != "none":
            hidden_WH, hidden_GH = hidden_GH, np.zeros((items, hidden_GH.shape[1]), np.float32)
            hidden_GH[item_W] = hidden_WH
        with np.errstate(over="ignore"):
            stored_GH = hidden_GH.astype(self.dtype, copy=False)
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(stored_GH.ravel()), facts.config.hidden_size)
        embedding = grouped(vectors, counts_N=counts_N) if pooling == "none" else vectors
        beyond_G = (np.isinf(stored_GH) & np.isfinite(hidden_GH)).any(axis=1)
        beyond_N = np.zeros(items, bool)
        beyond_N[np.repeat(np.arange(items), counts_N)[beyond_G] if pooling == "none" else beyond_G] = True
        return Decoded(columns=[embedding], errors=spread_error(error=BEYOND_FLOAT16, where=beyond_N))
