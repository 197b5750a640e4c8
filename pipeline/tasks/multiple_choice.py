"""A prompt and a list of choices in, the choice that continues it best out, by the multiple choice head.

Legend: N items, W windows: one a choice.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models.boundary import Answers, Head, HeadAsk
from pipeline.errors import RowError
from pipeline.rows import error_array, first_error, no_errors
from pipeline.tasks.spans import grouped
from pipeline.tasks.task import Decoded, Encoding, ModelFacts, Part, Task
from pipeline.tasks.tokens import OnLong, encode_from_start, first_positions


class MultipleChoice(Task):
    """multiple-choice: `choice`, the index of the best one, and `scores`, a softmax over the row's choices."""

    answer_version: ClassVar[int] = 1

    name: Literal["multiple-choice"] = "multiple-choice"
    on_long: OnLong = "truncate"
    """A prompt and choice longer than the model: truncate the longer of the two (sets `truncated`) or error."""

    def parts(self) -> tuple[Part, ...]:
        return (Part("prompt"), Part("choices", kind="texts"))

    def heads(self, facts: ModelFacts) -> tuple[Head, ...]:
        return ("multiple-choice",)

    def rows_weight(self, facts: ModelFacts) -> int:
        return 4

    def asks(self, facts: ModelFacts) -> HeadAsk:
        return HeadAsk(head="multiple-choice", causal=facts.config.is_decoder)

    def fields(self, facts: ModelFacts) -> list[pa.Field]:
        return [pa.field("choice", pa.int32()), pa.field("scores", pa.list_(pa.float32()))]

    def encode(self, parts: Mapping[str, pa.Array], facts: ModelFacts) -> Encoding:
        """One window per choice, of the prompt and that choice; a row with a choice that does not fit is an error as a whole."""
        choices = parts["choices"]
        bad = error_array([_fault(row) for row in choices.to_pylist()])
        good = np.flatnonzero(bad.is_null().to_numpy(zero_copy_only=False))
        asked = choices.take(pa.array(good))
        item_W = good[pc.list_parent_indices(asked).to_numpy()]
        prompts = parts["prompt"].take(pa.array(item_W))
        pairs = encode_from_start(prompts, pairs=asked.flatten(), facts=facts, on_long=self.on_long)
        owner = item_W[pairs.windows["item"].to_numpy()]
        windows = pairs.windows.set_column(0, "item", pa.array(owner.astype(np.int32)))
        windows = windows.append_column("positions", first_positions(windows.num_rows))
        truncated_N = np.zeros(len(choices), bool)
        truncated_N[item_W[pairs.truncated]] = True
        long_N = np.full(len(choices), -1)
        refused = np.flatnonzero(pairs.errors.is_valid().to_numpy(zero_copy_only=False))
        long_N[item_W[refused]] = refused
        errors = first_error([bad, pairs.errors.take(pa.array(long_N, mask=long_N < 0))])
        return Encoding(windows=windows, truncated=truncated_N, errors=errors)

    def decode(
        self, *, parts: Mapping[str, pa.Array], windows: pa.Table, answers: Answers, facts: ModelFacts
    ) -> Decoded:
        items, item_W = len(parts["prompt"]), windows["item"].to_numpy()
        logits_W = answers["logits"][:, 0].astype(np.float32)
        largest_N = np.full(items, -np.inf, np.float32)
        np.maximum.at(largest_N, item_W, logits_W)
        powers_W = np.exp(logits_W - largest_N[item_W])
        scores_W = powers_W / np.bincount(item_W, weights=powers_W, minlength=items)[item_W]
        counts_N = np.bincount(item_W, minlength=items)
        place_W = np.arange(len(item_W)) - (np.cumsum(counts_N) - counts_N)[item_W]
        choice_N = np.zeros(items, np.int32)
        best = np.flatnonzero(logits_W == largest_N[item_W])[::-1]  # of equal scores the first wins
        choice_N[item_W[best]] = place_W[best]
        scores = grouped(pa.array(scores_W.astype(np.float32)), counts_N=counts_N)
        return Decoded(columns=[pa.array(choice_N), scores], errors=no_errors(items))


def _fault(choices: list[str | None]) -> RowError | None:
    if not choices:
        return ("no-choices", "the list of choices is empty")
    for number, choice in enumerate(choices):
        if choice is None or not choice.strip():
            return ("blank-choice", f"choice {number} of {len(choices)} is null or blank")
    return None
