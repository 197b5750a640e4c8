"""Words that a user wants ranked in, the tokens of the vocabulary that stand for them out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from pipeline.errors import OptionError
from pipeline.tasks.vocabulary import SPACE_MARK, Vocabulary

TargetRule: TypeAlias = Literal["word", "hf"]


@dataclass(frozen=True)
class Target:
    """A word and the token that was taken for it."""

    word: str
    token: int


def find_targets(*, words: Sequence[str], rule: TargetRule, vocabulary: Vocabulary) -> tuple[Target, ...]:
    """The token of each word; a word of several tokens is represented by its first piece, as in the reference. Raises
    SpecError for words without any token."""
    return tuple(Target(word=word, token=_token(word, rule=rule, vocabulary=vocabulary)) for word in words)


def _token(word: str, *, rule: TargetRule, vocabulary: Vocabulary) -> int:
    if rule == "word" and not vocabulary.tokenizer.byte_level:
        return _metaspace_token(word, vocabulary=vocabulary)
    if rule == "hf":
        exact = vocabulary.tokenizer.backend.token_to_id(word)
        if exact is not None:
            return exact
        spellings = [word]
    else:
        spellings = [f" {word.strip()}", word.strip()]
    pieces = [_ids(text, vocabulary=vocabulary) for text in spellings]
    whole = [ids[0] for ids in pieces if len(ids) == 1]
    first = [ids[0] for ids in pieces if ids and (rule == "hf" or not vocabulary.blank_V[ids[0]])]
    if not word.strip() or not (whole or first):
        raise _no_token(word)
    return (whole or first)[0]


def _metaspace_token(word: str, *, vocabulary: Vocabulary) -> int:
    """The token of a word with a space before it, else of the word without, else its first piece that is no space."""
    backend, bare = vocabulary.tokenizer.backend, word.strip().lstrip(SPACE_MARK).strip()
    if not bare:
        raise _no_token(word)
    whole = (backend.token_to_id(SPACE_MARK + bare), backend.token_to_id(bare))
    pieces = _ids(bare, vocabulary=vocabulary)
    first = [token for token in pieces if not vocabulary.blank_V[token] and token != vocabulary.tokenizer.unk_id]
    found = [token for token in whole if token is not None] + first
    if not found:
        raise _no_token(word)
    return found[0]


def _ids(text: str, *, vocabulary: Vocabulary) -> list[int]:
    """Raises OptionError for a word on which the tokenizers library fails."""
    try:
        return vocabulary.tokenizer.ids(text)
    except ValueError as error:
        raise OptionError("targets", f"{error}; leave it out") from None


def _no_token(word: str) -> OptionError:
    return OptionError("targets", f"{word!r} has no token in the checkpoint's vocabulary; leave it out")
