"""A text, or a list of words, in, its entities (and a label a word) out, by the token classification head.

Long texts are read in windows that overlap; each token's label is that of the window which sees most around it, and
entities are joined afterwards, over the whole text, so that no window border cuts one.

Legend: N items, W windows, T tokens, G asked tokens, L labels, U words with a label.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal, Self, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, PrivateAttr, model_validator

from models.boundary import Answers, Head, HeadAsk
from pipeline.arrow_lists import flat_list, list_array, list_lengths
from pipeline.errors import OptionError, RowError
from pipeline.plurals import counted
from pipeline.ragged import Integers, offsets_of, ranges
from pipeline.rows import error_array, no_errors
from pipeline.tasks.characters import tokenize_texts
from pipeline.tasks.entities import ENTITY, TOKEN_ENTITY, Aggregation, entities, labelled, token_entities
from pipeline.tasks.reference_entities import ReferenceRule, ScoredWindow
from pipeline.tasks.scores import LABEL_SCORE, Floats, scored
from pipeline.tasks.spans import Characters, grouped
from pipeline.tasks.tags import Tags, plain_names
from pipeline.tasks.task import Decoded, Encoding, ModelFacts, Part, Task
from pipeline.tasks.tokens import Piece, Tokenized, laid_out, too_long
from pipeline.tasks.windows import Cuts, cut_first, cut_windows
from pipeline.tasks.words import (
    continues_by_spaces,
    fault_of,
    first_of_words,
    in_joined_text,
    joined,
    joined_at_marks,
    wholly_blank,
    word_ends,
)

LONGEST_OVERLAP = 128

AskedTokens: TypeAlias = tuple[npt.NDArray[np.bool_], Integers, Integers]


class TokenClassification(Task):
    """token-classification: `entities`; for lists of words also `labels`, one a word."""

    answer_version: ClassVar[int] = 2
    _version: int = PrivateAttr(default=2)

    name: Literal["token-classification"] = "token-classification"
    words: bool = False
    """Read a list of words from the column `words` instead of a text from `text`; offsets are those of the words joined by
    one space."""
    add_prefix_space: bool | None = None
    """Lists of words: put a space before each word, as the checkpoint was trained; the tokenizer's setting when absent."""
    aggregation: Aggregation | None = None
    """none: every token; simple: neighbouring tokens; first, average, max: neighbouring words, a word's label being that
    of its first piece, of the mean of its pieces, of its surest piece. When absent the checkpoint's, else first."""
    word_rule: Literal["pretokenizer", "hf"] = "pretokenizer"
    """What a word is: the tokenizer's own words, so that punctuation is apart; or hf, the reference's rule by spaces, with its
    spelling of words and labels and its way of settling windows."""
    ignore_labels: list[str] = Field(default=["O"])
    """Labels, or names of groups, that are no entities."""
    min_score: float = Field(default=0.0)
    """Entities below this score are left out."""
    stride: int | None = Field(default=None, ge=0)
    """Tokens that neighbouring windows of a long text share; a quarter of a window, at most 128, when absent."""
    on_long: Literal["windows", "truncate", "error"] = "windows"
    """A text longer than the model: read in windows, truncate (sets `truncated`) or error."""

    @model_validator(mode="after")
    def _windows_are_merged(self) -> "TokenClassification":
        if self.word_rule == "hf" and self.aggregation == "none" and self.stride is not None:
            raise ValueError(
                "the reference settles windows for aggregated entities only: leave out stride or aggregation"
            )
        return self

    @property
    def version(self) -> int:
        return self._version

    def at_version(self, version: object) -> Self:
        if version != 1:
            return self
        copy = self.model_copy()
        copy._version = 1
        return copy

    def parts(self) -> tuple[Part, ...]:
        return (Part("words", kind="texts"),) if self.words else (Part("text"),)

    def heads(self, facts: ModelFacts) -> tuple[Head, ...]:
        return ("token-classification",)

    def asks(self, facts: ModelFacts) -> HeadAsk:
        return HeadAsk(head="token-classification", causal=facts.config.is_decoder)

    def fields(self, facts: ModelFacts) -> list[pa.Field]:
        room = facts.max_length - 2
        if self._overlap(facts) >= room:
            raise OptionError("stride", f"{self.stride} tokens shared leave nothing new in a window of {room}")
        if self.words and not (facts.tokenizer.add_prefix_space or self.add_prefix_space is not None):
            raise OptionError(
                "words",
                "the checkpoint's tokenizer puts no space before words (add_prefix_space in "
                "tokenizer_config.json is not true), so that most would be read as parts of words; if it was trained with "
                "one, set task.add_prefix_space: true",
            )
        kind = TOKEN_ENTITY if self.resolved_aggregation(facts) == "none" else ENTITY
        fields = [pa.field("entities", pa.list_(kind))]
        return [*fields, pa.field("labels", pa.list_(LABEL_SCORE))] if self.words else fields

    def notes(self, facts: ModelFacts) -> list[str]:
        """Which labels are read as plain names, where entities are put together by them."""
        if self.resolved_aggregation(facts) == "none" or self.word_rule == "hf":
            return []
        plain = [
            name for name in plain_names(facts.labels, answer_version=self.version) if name not in self.ignore_labels
        ]
        if not plain:
            return []
        shown = ", ".join(plain[:3]) + (", ..." if len(plain) > 3 else "")
        labels = f"{counted(len(plain), 'label')} of the checkpoint ({shown})"
        return [f"{labels} read as plain names, without B- and I-: neighbouring words of one label are one entity"]

    def resolved_aggregation(self, facts: ModelFacts) -> Aggregation:
        """The aggregation that this checkpoint's answers get."""
        if self.aggregation is not None:
            return self.aggregation
        configured = facts.task_parameter(task=self.name, key="aggregation_strategy")
        if configured in ("none", "simple", "first", "average", "max"):
            return configured
        return "none" if self.word_rule == "hf" else "first"

    def _overlap(self, facts: ModelFacts) -> int:
        return min(LONGEST_OVERLAP, facts.max_length // 4) if self.stride is None else self.stride

    def encode(self, parts: Mapping[str, pa.Array], facts: ModelFacts) -> Encoding:
        """Texts, or lists of words, in overlapping windows or cut, as `on_long` says.

        Lists with null or empty words are errors of their rows.
        """
        source = parts["words" if self.words else "text"]
        items = len(source)
        faults: list[RowError | None] = [None] * items
        if self.words:
            faults = [fault_of(words) for words in source.to_pylist()]
        good = np.flatnonzero([fault is None for fault in faults])
        tokens, texts = self._tokens(source.take(pa.array(good)), facts)
        room = facts.max_length - 2
        long_G = tokens.lengths_N > room
        if self.on_long == "windows":
            overlap_N = np.full(len(good), self._overlap(facts))
            cuts = cut_windows(lengths_N=tokens.lengths_N, room_N=np.full(len(good), room), overlap_N=overlap_N)
        else:
            cuts = cut_first(lengths_N=tokens.lengths_N, room=room)
        windows = self._windows(tokens, cuts, texts, facts)
        windows = windows.set_column(0, "item", pa.array(good[cuts.item_W].astype(np.int32)))
        truncated_N = np.zeros(items, bool)
        if self.on_long == "error":
            for item, length in zip(good[long_G].tolist(), tokens.lengths_N[long_G].tolist(), strict=True):
                faults[item] = too_long(limit=facts.max_length, tokens=length + 2)
            windows = windows.filter(pa.array(~long_G))
        elif self.on_long == "truncate":
            truncated_N[good[long_G]] = True
        return Encoding(windows=windows, truncated=truncated_N, errors=error_array(faults))

    def _tokens(self, source: pa.Array, facts: ModelFacts) -> tuple[Tokenized, pa.Array]:
        """Tokens with offsets in the texts, and the texts."""
        reference = self.word_rule == "hf"
        if not self.words:
            tokens = tokenize_texts(source, facts=facts, reference=reference)
            ours = self.word_rule == "pretokenizer" and self.version > 1
            return (joined_at_marks(tokens, texts=source) if ours else tokens), source
        prefixed = facts.tokenizer.add_prefix_space if self.add_prefix_space is None else self.add_prefix_space
        backend = facts.vocabulary.prefixed if prefixed else facts.tokenizer.backend
        tokens = tokenize_texts(source, facts=facts, reference=reference, backend=backend)
        return in_joined_text(tokens, words=source), joined(source)

    def _windows(self, tokens: Tokenized, cuts: Cuts, texts: pa.Array, facts: ModelFacts) -> pa.Table:
        """Windows `<s> part of the text </s>`, a row each, and the tokens whose labels are asked.

        Overlapping windows see some tokens twice: each is asked only in the window with the most context around it (`kept`),
        except in the hf rule, which labels every window by itself.
        """
        first, last = facts.vocabulary.marks
        begin_W = tokens.offsets[cuts.item_W]
        asked_T, end_T, number_T = self._asked(tokens, texts, facts)
        kept_first_W, kept_stop_W = cuts.kept_first_W, cuts.kept_stop_W
        if self.word_rule == "hf":
            kept_first_W, kept_stop_W = cuts.first_W, cuts.stop_W
        token_G = ranges(begin_W + kept_first_W, kept_stop_W - kept_first_W)
        window_G = np.repeat(np.arange(len(begin_W)), kept_stop_W - kept_first_W)
        chosen = asked_T[token_G]
        token_G, window_G = token_G[chosen], window_G[chosen]
        counts_W = np.bincount(window_G, minlength=len(begin_W))
        columns = {
            "item": pa.array(cuts.item_W.astype(np.int32)),
            "input_ids": laid_out(
                [
                    Piece.mark(first, len(begin_W)),
                    Piece(tokens.ids_T, begin_W + cuts.first_W, cuts.stop_W - cuts.first_W),
                    Piece.mark(last, len(begin_W)),
                ]
            ),
            "positions": list_array(token_G - (begin_W + cuts.first_W)[window_G] + 1, counts_W),
            "start": list_array(tokens.start_T[token_G], counts_W),
            "end": list_array(end_T[token_G], counts_W),
            "number": list_array(number_T[token_G], counts_W),
        }
        if self.words:
            columns["word"] = list_array(tokens.word_T[token_G], counts_W)
        return pa.table(columns)

    def _asked(self, tokens: Tokenized, texts: pa.Array, facts: ModelFacts) -> AskedTokens:
        """Which tokens the model labels, where what they stand for ends, and its number: of the word or of the token, from 1;
        by the reference's rule, whether the token continues a word."""
        aggregation = self.resolved_aggregation(facts)
        if self.word_rule == "hf":
            continues_T = continues_by_spaces(tokens, characters=Characters(texts), unknown=facts.tokenizer.unk_id)
            return np.ones(len(continues_T), bool), tokens.end_T, continues_T.astype(np.int64)
        if aggregation in ("none", "simple"):
            number_T = np.arange(len(tokens.ids_T)) - tokens.offsets[tokens.item_T] + 1
            return ~facts.vocabulary.blank_V[tokens.ids_T], tokens.end_T, number_T
        real_T = np.ones(len(tokens.ids_T), bool)
        if not facts.tokenizer.byte_level:
            real_T = ~facts.vocabulary.blank_V[tokens.ids_T]
        elif not self.words:
            real_T = ~wholly_blank(tokens, blank_V=facts.vocabulary.blank_V)
        if aggregation == "first":
            return first_of_words(tokens, real_T=real_T), word_ends(tokens), tokens.word_T
        return real_T, tokens.end_T, tokens.word_T

    def decode(
        self, *, parts: Mapping[str, pa.Array], windows: pa.Table, answers: Answers, facts: ModelFacts
    ) -> Decoded:
        texts = pc.fill_null(joined(parts["words"]), "") if self.words else parts["text"]
        scores_GL = scored(answers["logits"], function="softmax")
        if self.word_rule == "hf":
            found = self._reference_entities(texts, windows, scores_GL, facts)
        else:
            found = self._entities(texts, windows, scores_GL, facts)
        columns = [found, self._word_labels(parts["words"], windows, scores_GL, facts)] if self.words else [found]
        return Decoded(columns=columns, errors=no_errors(len(texts)))

    def _entities(self, texts: pa.Array, windows: pa.Table, scores_GL: Floats, facts: ModelFacts) -> pa.ListArray:
        """The entities of each text, from tokens or from words merged over the whole text, so that no window border cuts one."""
        aggregation = self.resolved_aggregation(facts)
        units = labelled(
            scores_GL=scores_GL,
            item_G=np.repeat(windows["item"].to_numpy(), list_lengths(windows, "positions")),
            number_G=flat_list(windows, "number"),
            start_G=flat_list(windows, "start"),
            end_G=flat_list(windows, "end"),
            aggregation=aggregation,
        )
        characters = Characters(texts)
        if aggregation == "none":
            return token_entities(
                units,
                labels=facts.labels,
                ignored=self.ignore_labels,
                min_score=self.min_score,
                characters=characters,
            )
        return entities(
            units,
            tags=Tags.of(facts.labels, answer_version=self.version),
            ignored=self.ignore_labels,
            min_score=self.min_score,
            characters=characters,
        )

    def _reference_entities(
        self, texts: pa.Array, windows: pa.Table, scores_GL: Floats, facts: ModelFacts
    ) -> pa.ListArray:
        """Entities exactly as the reference finds them, window by window."""
        aggregation = self.resolved_aggregation(facts)
        rule = ReferenceRule(
            aggregation=aggregation, labels=facts.labels, ignored=self.ignore_labels, vocabulary=facts.vocabulary
        )
        bounds = offsets_of(list_lengths(windows, "positions"))
        start_G, end_G = flat_list(windows, "start"), flat_list(windows, "end")
        continues_G = flat_list(windows, "number").astype(bool)
        of_item: list[list[ScoredWindow]] = [[] for _ in range(len(texts))]
        unknown = facts.tokenizer.unk_id
        for number, (item, ids) in enumerate(
            zip(windows["item"].to_pylist(), windows["input_ids"].to_pylist(), strict=True)
        ):
            asked = slice(bounds[number], bounds[number + 1])
            pieces = facts.vocabulary.pieces(ids[1:-1])
            if unknown in ids:  # the reference shows the text as written
                text = texts[item].as_py()
                spans = zip(pieces, ids[1:-1], start_G[asked].tolist(), end_G[asked].tolist(), strict=True)
                pieces = [text[start:end] if token == unknown else piece for piece, token, start, end in spans]
            of_item[item].append(
                ScoredWindow(scores_GL[asked], pieces, start_G[asked], end_G[asked], continues_G[asked])
            )
        found = [[entity for entity in rule.entities(own) if entity["score"] >= self.min_score] for own in of_item]
        return pa.array(found, pa.list_(TOKEN_ENTITY if aggregation == "none" else ENTITY))

    def _word_labels(self, words: pa.Array, windows: pa.Table, scores_GL: Floats, facts: ModelFacts) -> pa.ListArray:
        """A label for each word; null for words that were cut off."""
        aggregation = self.resolved_aggregation(facts)
        start_G = flat_list(windows, "start")
        units = labelled(
            scores_GL=scores_GL,
            item_G=np.repeat(windows["item"].to_numpy(), list_lengths(windows, "positions")),
            number_G=flat_list(windows, "word"),
            start_G=start_G,
            end_G=start_G,
            aggregation=aggregation,
        )
        counts_N = pc.fill_null(words.value_lengths(), 0).to_numpy().astype(np.int64)
        place_U = (np.cumsum(counts_N) - counts_N)[units.item_U] + units.number_U
        label, score = np.full(int(counts_N.sum()), -1), np.zeros(int(counts_N.sum()), np.float32)
        label[place_U], score[place_U] = units.label_U, units.score_U
        absent = label < 0
        flat = pa.StructArray.from_arrays(
            [pa.array(facts.labels).take(pa.array(label, mask=absent)), pa.array(score, mask=absent)],
            fields=list(LABEL_SCORE),
            mask=pa.array(absent),
        )
        return grouped(flat, counts_N=counts_N)
