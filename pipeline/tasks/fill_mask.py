"""A text with masks in, the most probable tokens for each of them out, by the masked LM head.

Legend: N items, W windows, T tokens, G masks, k answers a mask.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from models.boundary import Answers, Head, HeadAsk
from pipeline.arrow_lists import flat_list, list_array, list_lengths
from pipeline.errors import OptionError, RowError
from pipeline.rows import error_array, no_errors
from pipeline.tasks.characters import tokenize_texts
from pipeline.tasks.spans import Characters, grouped
from pipeline.tasks.targets import Target, TargetRule, find_targets
from pipeline.tasks.task import Decoded, Encoding, ModelFacts, Part, Task
from pipeline.tasks.tokens import OnLong, Piece, laid_out, too_long
from pipeline.tasks.windows import cut_first


class FillMask(Task):
    """fill-mask: `masks`, for each mask of the text where it starts and its best fills."""

    answer_version: ClassVar[int] = 1

    name: Literal["fill-mask"] = "fill-mask"
    top_k: int = Field(default=5, ge=1)
    """How many fills a mask gets, best first; with targets at most as many as there are."""
    targets: list[str] | None = Field(default=None, min_length=1)
    """Only these words are ranked, with or without their leading space; `target` and `token_str` say which token each
    one took. Their scores stay shares of the whole vocabulary."""
    target_rule: TargetRule = "word"
    """word: a target is looked up with a space before it, then as it is. hf: as it is only, as in the reference; so Paris
    is not the token in "to Paris"."""
    sequence: Literal["text", "hf"] = "text"
    """text: the original text with the one mask replaced. hf: the tokens decoded as the reference does, which shows <s> and
    </s> where there are several masks."""
    on_long: OnLong = "error"
    """A text longer than the model: error, or truncate (sets `truncated`)."""
    no_mask: Literal["error", "empty"] = "error"
    """A text without a mask: error, or an empty list, as where other tasks read the same texts."""

    def parts(self) -> tuple[Part, ...]:
        return (Part("text"),)

    def heads(self, facts: ModelFacts) -> tuple[Head, ...]:
        return ("masked-lm",)

    def rows_weight(self, facts: ModelFacts) -> int:
        return 1 + self.top_k // 8

    def asks(self, facts: ModelFacts) -> HeadAsk:
        found = self._found(facts)
        candidates = None if found is None else tuple(sorted({target.token for target in found}))
        return HeadAsk(head="masked-lm", top_k=self.top_k, candidates=candidates, causal=facts.config.is_decoder)

    def fields(self, facts: ModelFacts) -> list[pa.Field]:
        if facts.tokenizer.mask_id < 0:
            raise OptionError(None, "fill-mask needs a <mask> token, and the checkpoint's tokenizer has none")
        self._found(facts)
        masks = pa.struct([pa.field("start", pa.int32()), pa.field("fills", pa.list_(self._fill_type()))])
        return [pa.field("masks", pa.list_(masks))]

    def encode(self, parts: Mapping[str, pa.Array], facts: ModelFacts) -> Encoding:
        """One window per text, cut at the model's length; the head is asked about its masks only.

        `left` and `right` are the characters between which a fill replaces its mask. Texts without a mask have no window: an
        error, or an empty list of masks where `no_mask` is `empty`.
        """
        tokens = tokenize_texts(parts["text"], facts=facts, reference=self.sequence == "hf")
        room = facts.max_length - 2
        long_N = tokens.lengths_N > room
        cuts = cut_first(lengths_N=tokens.lengths_N, room=room)
        within_T = np.arange(len(tokens.ids_T)) - tokens.offsets[tokens.item_T]
        masks = np.flatnonzero((tokens.ids_T == facts.tokenizer.mask_id) & (within_T < room))
        # A mask takes the spaces before it: its fill brings its own.
        left_G = np.where(within_T[masks] > 0, tokens.end_T[np.maximum(masks - 1, 0)], 0) if len(masks) else masks
        counts_N = np.bincount(tokens.item_T[masks], minlength=len(long_N))
        refused_N = long_N if self.on_long == "error" else np.zeros_like(long_N)
        first, last = facts.vocabulary.marks
        windows = pa.table(
            {
                "item": pa.array(cuts.item_W.astype(np.int32)),
                "input_ids": laid_out(
                    [
                        Piece.mark(first, len(long_N)),
                        Piece(tokens.ids_T, tokens.offsets[:-1], cuts.stop_W),
                        Piece.mark(last, len(long_N)),
                    ]
                ),
                "positions": list_array((within_T[masks] + 1).astype(np.int32), counts_N),
                "left": list_array(left_G, counts_N),
                "right": list_array(tokens.end_T[masks], counts_N),
            }
        )
        good_N = (counts_N > 0) & ~refused_N
        errors: list[RowError | None] = [None] * len(good_N)
        for item in np.flatnonzero(refused_N if self.no_mask == "empty" else ~good_N).tolist():
            length = int(tokens.lengths_N[item]) + 2
            errors[item] = too_long(limit=facts.max_length, tokens=length) if refused_N[item] else _no_mask(facts)
        return Encoding(windows=windows.filter(pa.array(good_N)), truncated=long_N & good_N, errors=error_array(errors))

    def unasked(self, items: int, facts: ModelFacts) -> list[pa.Array]:
        (masks,) = self.fields(facts)
        return [pa.array([[]] * items, masks.type)]

    def decode(
        self, *, parts: Mapping[str, pa.Array], windows: pa.Table, answers: Answers, facts: ModelFacts
    ) -> Decoded:
        """The best tokens for each mask, with their probabilities and the text that each makes."""
        ids_Gk, probs_Gk = answers["ids"], answers["probs"]
        counts_W = list_lengths(windows, "positions")
        k = ids_Gk.shape[1]
        strings = facts.vocabulary.strings.take(pa.array(ids_Gk.ravel()))
        if self.sequence == "text":
            fills = facts.vocabulary.fills.take(pa.array(ids_Gk.ravel()))
            if (
                not facts.tokenizer.byte_level
            ):  # a text begins with a space in the vocabulary's spelling, not in its own
                begins = np.repeat(flat_list(windows, "left") == 0, k)
                fills = pc.if_else(pa.array(begins), pc.utf8_ltrim(fills, " "), fills)
            sequences = _spliced(parts["text"], windows, counts_W, fills, k)
        else:
            sequences = pa.array(_decoded(windows, ids_Gk, facts), pa.large_string())
        arrays = [pa.array(ids_Gk.ravel()), strings, pa.array(probs_Gk.ravel()), sequences.cast(pa.string())]
        found = self._found(facts)
        if found is not None:
            asked_of = {target.token: target.word for target in reversed(found)}
            arrays.append(pa.array([asked_of.get(token) for token in ids_Gk.ravel().tolist()], pa.string()))
        ranked = pa.StructArray.from_arrays(arrays, fields=list(self._fill_type()))
        start_G = flat_list(windows, "right") - np.int32(len(facts.tokenizer.mask_token))
        each = pa.StructArray.from_arrays(
            [pa.array(start_G), grouped(ranked, counts_N=np.full(len(ids_Gk), k))],
            fields=[pa.field("start", pa.int32()), pa.field("fills", pa.list_(self._fill_type()))],
        )
        counts_N = np.zeros(len(parts["text"]), np.int64)
        counts_N[windows["item"].to_numpy()] = counts_W
        return Decoded(columns=[grouped(each, counts_N=counts_N)], errors=no_errors(len(counts_N)))

    def _fill_type(self) -> pa.StructType:
        fields = [
            pa.field("token", pa.int32()),
            pa.field("token_str", pa.string()),
            pa.field("score", pa.float32()),
            pa.field("sequence", pa.string()),
        ]
        return pa.struct(fields if self.targets is None else [*fields, pa.field("target", pa.string())])

    def _found(self, facts: ModelFacts) -> tuple[Target, ...] | None:
        return None if self.targets is None else _targets(tuple(self.targets), self.target_rule, facts)


@lru_cache(maxsize=8)
def _targets(words: tuple[str, ...], rule: TargetRule, facts: ModelFacts) -> tuple[Target, ...]:
    return find_targets(words=words, rule=rule, vocabulary=facts.vocabulary)


def _no_mask(facts: ModelFacts) -> RowError:
    return ("no-mask", f"the text has no {facts.tokenizer.mask_token}, or none within {facts.max_length} tokens")


def _spliced(texts: pa.Array, windows: pa.Table, counts_W: np.ndarray, strings: pa.Array, k: int) -> pa.Array:
    """The texts with one mask replaced, for each mask and fill."""
    characters = Characters(texts)
    item_G = np.repeat(windows["item"].to_numpy(), counts_W)
    zeros_G, ends_G = np.zeros(len(item_G), np.int64), characters.lengths_N[item_G]
    before = characters.substrings(text_E=item_G, start_E=zeros_G, end_E=flat_list(windows, "left"))
    behind = characters.substrings(text_E=item_G, start_E=flat_list(windows, "right"), end_E=ends_G)
    mask_of = pa.array(np.repeat(np.arange(len(item_G)), k))
    nothing = pa.scalar("", pa.large_string())
    return pc.binary_join_element_wise(
        before.take(mask_of), strings.cast(pa.large_string()), behind.take(mask_of), nothing
    )


def _decoded(windows: pa.Table, ids_Gk: np.ndarray, facts: ModelFacts) -> list[str]:
    """The tokens with one mask replaced, decoded as the reference does: without pads, without specials only where there is
    a single mask."""
    pad = facts.tokenizer.pad_id
    texts: list[str] = []
    mask = 0
    for ids, places in zip(windows["input_ids"].to_pylist(), windows["positions"].to_pylist(), strict=True):
        filled = []
        for place in places:
            for token in ids_Gk[mask].tolist():
                changed = [*ids[:place], token, *ids[place + 1 :]]
                filled.append([token for token in changed if token != pad])
            mask += 1
        texts += facts.vocabulary.decode(filled, skip_specials=len(places) == 1)
    return texts
