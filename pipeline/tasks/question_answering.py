"""A question and a context in, the spans of the context that answer it out, by the question answering head.

A context that does not fit beside its question is read in windows that overlap.

Legend: N items, W windows, T tokens of all contexts, Q tokens of all questions, G asked tokens, C candidate answers.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field, model_validator

from models.boundary import Answers, Head, HeadAsk
from pipeline.arrow_lists import flat_list, list_lengths
from pipeline.errors import OptionError, RowError
from pipeline.ragged import Integers, offsets_of, ranges
from pipeline.rows import error_array, no_errors
from pipeline.tasks.best_spans import AskedSpans, best_spans
from pipeline.tasks.characters import tokenize_texts
from pipeline.tasks.reference_answers import AnswerRule, LogitWindow
from pipeline.tasks.spans import Characters, grouped
from pipeline.tasks.task import Decoded, Encoding, ModelFacts, Part, Task
from pipeline.tasks.tokens import Piece, Tokenized, laid_out, tokenize
from pipeline.tasks.windows import Cuts, cut_windows

ANSWER = pa.struct(
    [
        pa.field("answer", pa.string()),
        pa.field("score", pa.float32()),
        pa.field("start", pa.int32()),
        pa.field("end", pa.int32()),
    ]
)
MARKS_OF_A_PAIR = 4
LONGEST_OVERLAP = 128
SMALLEST_STEP = 8


class QuestionAnswering(Task):
    """question-answering: `answers`, best first, and `null_score`, the score of there being none."""

    answer_version: ClassVar[int] = 1

    name: Literal["question-answering"] = "question-answering"
    question: str | None = Field(default=None, min_length=1)
    """One question for every row, instead of a column `question`."""
    top_k: int = Field(default=1, ge=1)
    """Maximum number of answers per row."""
    score_mode: Literal["span", "hf"] = "span"
    """span: the probability of the one span, over all windows together. hf: the reference's, each window by itself and answers
    of equal text added up."""
    allow_null: bool = False
    """Let no answer (an empty one) compete with the others; its score is in `null_score` either way."""
    max_answer_length: int = Field(default=15, ge=1)
    """Maximum number of tokens in an answer."""
    max_seq_length: int = Field(default=384, ge=8)
    """Tokens of a window, question included; at most what the checkpoint can take."""
    doc_stride: int | None = Field(default=None, ge=0)
    """Tokens of the context that neighbouring windows share; half a window, at most 128, when absent."""
    align_to_words: bool = True
    """Answers begin and end with whole words."""

    @model_validator(mode="after")
    def _windows_advance(self) -> "QuestionAnswering":
        if self.doc_stride is not None and self.doc_stride > self.max_seq_length:
            raise ValueError(f"doc_stride ({self.doc_stride}) is larger than max_seq_length ({self.max_seq_length})")
        return self

    def parts(self) -> tuple[Part, ...]:
        return (Part("context"),) if self.question is not None else (Part("context"), Part("question"))

    def heads(self, facts: ModelFacts) -> tuple[Head, ...]:
        return ("question-answering",)

    def rows_weight(self, facts: ModelFacts) -> int:
        return 2

    def asks(self, facts: ModelFacts) -> HeadAsk:
        return HeadAsk(head="question-answering", causal=facts.config.is_decoder)

    def fields(self, facts: ModelFacts) -> list[pa.Field]:
        if self.question is not None:
            try:
                length = len(facts.tokenizer.ids(self.question))
            except ValueError as error:
                raise OptionError("question", f"{error}; ask in other words") from None
            if length + MARKS_OF_A_PAIR >= self._window(facts):
                raise OptionError("question", f"{_long_question(length, self._window(facts))[1]}")
        return [pa.field("answers", pa.list_(ANSWER)), pa.field("null_score", pa.float32())]

    def _window(self, facts: ModelFacts) -> int:
        return min(self.max_seq_length, facts.max_length)

    def encode(self, parts: Mapping[str, pa.Array], facts: ModelFacts) -> Encoding:
        items, window = len(parts["context"]), self._window(facts)
        questions, contexts, question_of = self._tokens(parts, facts)
        length_N = questions.lengths_N[question_of]
        room_N = window - MARKS_OF_A_PAIR - length_N
        good = np.flatnonzero(room_N >= 1)
        stride = min(window // 2, LONGEST_OVERLAP) if self.doc_stride is None else self.doc_stride
        overlap_N = self._overlaps(room_N, stride)
        cuts = cut_windows(lengths_N=contexts.lengths_N[good], room_N=room_N[good], overlap_N=overlap_N[good])
        item_W = good[cuts.item_W]
        windows = self._windows(questions, contexts, question_of[item_W], item_W, cuts, facts)
        errors: list[RowError | None] = [None] * items
        for item in np.flatnonzero(room_N < 1).tolist():
            errors[item] = _long_question(int(length_N[item]), window)
        return Encoding(windows=windows, truncated=np.zeros(items, bool), errors=error_array(errors))

    def _overlaps(self, room_N: Integers, stride: int) -> Integers:
        """Tokens that windows share; fewer if a long question leaves little room, since each window must add new tokens."""
        if self.score_mode == "span":
            return np.minimum(stride, room_N // 2)
        # The reference shares all that was asked for; an eighth of the room, at least, has to be new.
        return np.minimum(
            np.where(room_N > stride, stride, room_N // 2), room_N - np.maximum(room_N // SMALLEST_STEP, 1)
        )

    def _tokens(self, parts: Mapping[str, pa.Array], facts: ModelFacts) -> tuple[Tokenized, Tokenized, Integers]:
        """Distinct questions, contexts, and the number of each item's question."""
        contexts = tokenize_texts(parts["context"], facts=facts, reference=self.score_mode == "hf")
        if self.question is None:
            distinct = parts["question"].dictionary_encode()
            texts, question_of = distinct.dictionary, distinct.indices.to_numpy().astype(np.int64)
        else:
            texts, question_of = pa.array([self.question], pa.large_string()), np.zeros(len(parts["context"]), np.int64)
        return tokenize(texts, backend=facts.tokenizer.backend), contexts, question_of

    def _windows(
        self,
        questions: Tokenized,
        contexts: Tokenized,
        question_W: Integers,
        item_W: Integers,
        cuts: Cuts,
        facts: ModelFacts,
    ) -> pa.Table:
        """Windows `<s> question </s></s> part of context </s>`, a row each.

        `positions` are the tokens that the head is asked about: `<s>`, which stands for no answer, then the context's. `start`
        and `end` are their characters in the context; `question_W`, `item_W`: each window's question and context.
        """
        first, last = facts.vocabulary.marks
        count_W, length_W = len(item_W), questions.lengths_N[question_W]
        begin_W = contexts.offsets[item_W] + cuts.first_W
        size_W = cuts.stop_W - cuts.first_W
        token_G = ranges(begin_W, size_W)
        start_G, end_G = self._bounds(contexts, token_G, begin_W, size_W)
        place_G = ranges(length_W + MARKS_OF_A_PAIR - 1, size_W)
        return pa.table(
            {
                "item": pa.array(item_W.astype(np.int32)),
                "input_ids": laid_out(
                    [
                        Piece.mark(first, count_W),
                        Piece(questions.ids_T, questions.offsets[question_W], length_W),
                        Piece.mark(last, count_W),
                        Piece.mark(last, count_W),
                        Piece(contexts.ids_T, begin_W, size_W),
                        Piece.mark(last, count_W),
                    ]
                ),
                "positions": _marked(place_G, mark=0, size_W=size_W),
                "token": _marked(ranges(cuts.first_W, size_W), mark=-1, size_W=size_W),
                "start": _marked(start_G, mark=0, size_W=size_W),
                "end": _marked(end_G, mark=0, size_W=size_W),
                "blank": _marked(facts.vocabulary.blank_V[contexts.ids_T[token_G]], mark=1, size_W=size_W),
            }
        )

    def _bounds(
        self, contexts: Tokenized, token_G: Integers, begin_W: Integers, size_W: Integers
    ) -> tuple[Integers, Integers]:
        """The characters that an answer from, or to, each token begins and ends at; by the reference's rule a word that a window
        cuts counts as far as the window goes."""
        if not self.align_to_words or not len(token_G):
            return contexts.start_T[token_G], contexts.end_T[token_G]
        first = np.flatnonzero(contexts.word_starts_T)
        counts = np.diff(np.append(first, len(contexts.ids_T)))
        from_G = np.repeat(first, counts)[token_G]
        to_G = np.repeat(first + counts - 1, counts)[token_G]
        if self.score_mode == "hf":
            from_G = np.maximum(from_G, np.repeat(begin_W, size_W))
            to_G = np.minimum(to_G, np.repeat(begin_W + size_W - 1, size_W))
        return contexts.start_T[from_G], contexts.end_T[to_G]

    def decode(
        self, *, parts: Mapping[str, pa.Array], windows: pa.Table, answers: Answers, facts: ModelFacts
    ) -> Decoded:
        decode = self._decode_spans if self.score_mode == "span" else self._decode_reference
        found, null_N = decode(parts["context"], windows, answers)
        return Decoded(columns=[found, pa.array(null_N.astype(np.float32))], errors=no_errors(len(null_N)))

    def _decode_spans(self, contexts: pa.Array, windows: pa.Table, answers: Answers) -> tuple[pa.ListArray, np.ndarray]:
        """(answers of each item, best first; score of no answer [N]), scored as probabilities over the whole context.

        Overlapping windows see some tokens twice: best_spans counts each once. No answer competes only if allow_null is set.
        """
        asked = AskedSpans(
            item_W=windows["item"].to_numpy(),
            counts_W=list_lengths(windows, "positions"),
            token_G=flat_list(windows, "token"),
            start_G=flat_list(windows, "start"),
            end_G=flat_list(windows, "end"),
            allowed_G=flat_list(windows, "blank") == 0,
            items=len(contexts),
        )
        spans = best_spans(
            asked=asked,
            start_G=answers["start_logits"].astype(np.float64),
            end_G=answers["end_logits"].astype(np.float64),
            longest=self.max_answer_length,
            wanted=self.top_k,
        )
        item_C, start_C, end_C, score_C = spans.item_C, spans.start_C, spans.end_C, np.exp(spans.log_score_C)
        if self.allow_null:
            nobody_N = np.zeros(asked.items, np.int64)
            item_C = np.concatenate([item_C, np.arange(asked.items)])
            start_C, end_C = np.concatenate([start_C, nobody_N]), np.concatenate([end_C, nobody_N])
            score_C = np.concatenate([score_C, spans.null_N])
        order = np.lexsort((-score_C, item_C))
        rank = ranges(np.zeros(asked.items, np.int64), np.bincount(item_C, minlength=asked.items))
        order = order[rank < self.top_k]
        item_C, start_C, end_C, score_C = item_C[order], start_C[order], end_C[order], score_C[order]
        texts = Characters(contexts).substrings(text_E=item_C, start_E=start_C, end_E=end_C)
        flat = pa.StructArray.from_arrays(
            [
                texts.cast(pa.string()),
                pa.array(score_C.astype(np.float32)),
                pa.array(start_C.astype(np.int32)),
                pa.array(end_C.astype(np.int32)),
            ],
            fields=list(ANSWER),
        )
        return grouped(flat, counts_N=np.bincount(item_C, minlength=asked.items)), spans.null_N

    def _decode_reference(
        self, contexts: pa.Array, windows: pa.Table, answers: Answers
    ) -> tuple[pa.ListArray, np.ndarray]:
        """The reference's answers of each row, and the score of no answer."""
        rule = AnswerRule(
            top_k=self.top_k,
            candidates=2 * self.top_k + 10 if self.align_to_words else self.top_k,
            longest=self.max_answer_length,
            allow_null=self.allow_null,
        )
        bounds = offsets_of(list_lengths(windows, "positions"))
        start_G, end_G = flat_list(windows, "start"), flat_list(windows, "end")
        of_item: list[list[LogitWindow]] = [[] for _ in range(len(contexts))]
        for number, item in enumerate(windows["item"].to_pylist()):
            asked = slice(bounds[number], bounds[number + 1])
            of_item[item].append(
                LogitWindow(answers["start_logits"][asked], answers["end_logits"][asked], start_G[asked], end_G[asked])
            )
        rows = [rule.answers(text, own) for text, own in zip(contexts.to_pylist(), of_item, strict=True)]
        return pa.array([found for found, _ in rows], pa.list_(ANSWER)), np.array([null for _, null in rows])


def _marked(values_G: npt.NDArray[Any], *, mark: int, size_W: Integers) -> pa.ListArray:
    """A value for each token of each window's context, with `mark` before them for the window's `<s>`."""
    own = Piece(values_G.astype(np.int32), np.cumsum(size_W) - size_W, size_W)
    return laid_out([Piece.mark(mark, len(size_W)), own])


def _long_question(tokens: int, limit: int) -> RowError:
    message = (
        f"the question has {tokens} tokens and leaves no room for the context in a window of {limit}; shorten it, or "
        "raise task.max_seq_length where the checkpoint allows more"
    )
    return ("question-too-long", message)
