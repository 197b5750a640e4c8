"""Texts, or lists of words, in, tokens with offsets in characters of the text as written out, for every kind of tokenizer."""

import pyarrow as pa
from tokenizers import Tokenizer

from pipeline.tasks.metaspace import on_characters
from pipeline.tasks.task import ModelFacts
from pipeline.tasks.tokens import Tokenized, tokenize


def tokenize_texts(
    texts: pa.Array, *, facts: ModelFacts, reference: bool, backend: Tokenizer | None = None
) -> Tokenized:
    """Tokens with offsets and words. reference: exactly those of the tokenizers library, for the modes that reproduce the
    reference. backend: a tokenizer to use instead of the checkpoint's."""
    tokens = tokenize(texts, backend=backend or facts.tokenizer.backend)
    if reference or facts.tokenizer.byte_level:
        return tokens
    lists = pa.types.is_list(texts.type) or pa.types.is_large_list(texts.type)
    return on_characters(tokens, texts=texts, blank_V=facts.vocabulary.blank_V, lists=lists)
