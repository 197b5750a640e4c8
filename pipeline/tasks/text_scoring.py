"""A text in, its probability under a language model out: log probability, tokens, perplexity.

A causal checkpoint scores each token after those before it, `</s>` included: exp(-log_probability / tokens) is the exp of
the loss it would be trained with. A masked one scores each token of the text in a copy in which it alone is masked, which
gives the pseudo-log-likelihood (Salazar et al. 2020).

Legend: N items, W windows, T tokens, G scored tokens.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa

from models.boundary import Answers, Head, HeadAsk
from pipeline.arrow_lists import flat_list, list_array, list_lengths
from pipeline.errors import OptionError
from pipeline.ragged import Integers, ranges
from pipeline.rows import no_errors
from pipeline.tasks.task import Decoded, Encoding, ModelFacts, Part, Task
from pipeline.tasks.tokens import OnLong, encode_from_start

MASKED_ROWS_WEIGHT = 128
"""The typical length of a text in tokens, and so the copies that a row makes."""


class TextScoring(Task):
    """text-scoring: `log_probability` (natural), `tokens` that it is the sum of, and `perplexity`."""

    answer_version: ClassVar[int] = 1

    name: Literal["text-scoring"] = "text-scoring"
    method: Literal["auto", "causal", "masked"] = "auto"
    """causal: each token after those before it; masked: each token among all others; auto goes by the checkpoint."""
    on_long: OnLong = "truncate"
    """A text longer than the model: truncate (sets `truncated`; the score is that of the part) or error."""

    def parts(self) -> tuple[Part, ...]:
        return (Part("text"),)

    def resolved_method(self, facts: ModelFacts) -> Literal["causal", "masked"]:
        """causal for checkpoints that are decoders by `is_decoder` or by their architecture."""
        if self.method != "auto":
            return self.method
        names = facts.config.architectures or []
        return "causal" if facts.config.is_decoder or any("CausalLM" in name for name in names) else "masked"

    def heads(self, facts: ModelFacts) -> tuple[Head, ...]:
        return ("causal-lm",) if self.resolved_method(facts) == "causal" else ("masked-lm",)

    def rows_weight(self, facts: ModelFacts) -> int:
        return 1 if self.resolved_method(facts) == "causal" else MASKED_ROWS_WEIGHT

    def asks(self, facts: ModelFacts) -> HeadAsk:
        causal = self.resolved_method(facts) == "causal"
        return HeadAsk(head="causal-lm" if causal else "masked-lm", causal=causal)

    def fields(self, facts: ModelFacts) -> list[pa.Field]:
        if self.resolved_method(facts) == "masked" and facts.tokenizer.mask_id < 0:
            raise OptionError("method", "masked scoring needs a <mask> token, and the checkpoint's tokenizer has none")
        return [
            pa.field("log_probability", pa.float64()),
            pa.field("tokens", pa.int32()),
            pa.field("perplexity", pa.float64()),
        ]

    def encode(self, parts: Mapping[str, pa.Array], facts: ModelFacts) -> Encoding:
        encoding = encode_from_start(parts["text"], facts=facts, on_long=self.on_long)
        windows = encoding.windows
        ids_T, lengths_W = flat_list(windows, "input_ids"), list_lengths(windows, "input_ids")
        if self.resolved_method(facts) == "causal":
            windows = _causal(windows, ids_T, lengths_W)
        else:
            windows = _masked(windows["item"].to_numpy(), ids_T, lengths_W, mask=facts.tokenizer.mask_id)
        return Encoding(windows=windows, truncated=encoding.truncated, errors=encoding.errors)

    def decode(
        self, *, parts: Mapping[str, pa.Array], windows: pa.Table, answers: Answers, facts: ModelFacts
    ) -> Decoded:
        items = len(parts["text"])
        item_G = np.repeat(windows["item"].to_numpy(), list_lengths(windows, "positions"))
        sum_N = np.bincount(item_G, weights=answers["log_probs"], minlength=items)
        tokens_N = np.bincount(item_G, minlength=items)
        with np.errstate(over="ignore"):  # a perplexity beyond 1e308 is infinite
            perplexity_N = np.exp(-sum_N / np.maximum(tokens_N, 1))
        columns = [pa.array(sum_N), pa.array(tokens_N.astype(np.int32)), pa.array(perplexity_N)]
        return Decoded(columns=columns, errors=no_errors(items))


def _causal(windows: pa.Table, ids_T: Integers, lengths_W: Integers) -> pa.Table:
    """Asks at every token but the last for the next one."""
    asked_W = lengths_W - 1
    first_W = np.cumsum(lengths_W) - lengths_W
    positions = list_array(ranges(np.zeros_like(asked_W), asked_W).astype(np.int32), asked_W)
    gold = list_array(ids_T[ranges(first_W + 1, asked_W)], asked_W)
    return windows.append_column("positions", positions).append_column("gold", gold)


def _masked(item_N: Integers, ids_T: Integers, lengths_N: Integers, *, mask: int) -> pa.Table:
    """A copy of each text for each of its tokens but `<s>` and `</s>`, with that token masked."""
    copies_N = lengths_N - 2
    source_W = np.repeat(np.arange(len(lengths_N)), copies_N)
    place_W = ranges(np.ones_like(copies_N), copies_N)
    first_W = (np.cumsum(lengths_N) - lengths_N)[source_W]
    lengths_W = lengths_N[source_W]
    copied_T = ids_T[ranges(first_W, lengths_W)]
    copied_T[np.cumsum(lengths_W) - lengths_W + place_W] = mask
    ones_W = np.ones(len(source_W), np.int64)
    return pa.table(
        {
            "item": pa.array(item_N[source_W].astype(np.int32)),
            "input_ids": list_array(copied_T, lengths_W),
            "positions": list_array(place_W.astype(np.int32), ones_W),
            "gold": list_array(ids_T[first_W + place_W], ones_W),
        }
    )
