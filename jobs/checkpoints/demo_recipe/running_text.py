"""Words with tags in, running text with the places of its entities out: what a reader of text sees, and a list of words hides.

In a list of words every full stop stands alone; in a text it touches the name before it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from jobs.evaluation.scores import spans

TOUCHES_LEFT = frozenset([*".,;:!?%)]", "...", "'s", "’s", "n't", "'re", "'ve", "'ll", "'m", "'d"])
"""Words without a space before them."""
TOUCHES_RIGHT = frozenset("([$#@")
"""Words without a space after them."""


@dataclass(frozen=True)
class Entity:
    """A type, and where it begins and ends in its text, in characters."""

    kind: str
    start: int
    end: int


@dataclass(frozen=True)
class MarkedText:
    """A text and its entities, in their order."""

    text: str
    entities: tuple[Entity, ...]


def marked(*, words: Sequence[str], tags: Sequence[str], text: str | None = None) -> MarkedText:
    """The text that the words stand in, or else one joined from them, with the entities of the tags.

    Raises ValueError where a word is not in the text, after the word before it.
    """
    whole = joined(words) if text is None else text
    places, end = [], 0
    for word in words:
        start = whole.index(word, end)
        end = start + len(word)
        places.append((start, end))
    entities = (Entity(kind, places[first][0], places[last - 1][1]) for kind, first, last in spans(tags))
    return MarkedText(text=whole, entities=tuple(entities))


def joined(words: Sequence[str]) -> str:
    """Words as they would be typed: punctuation touches the word before it, and so do the ends of contractions."""
    text = ""
    for word in words:
        apart = text and word not in TOUCHES_LEFT and text[-1] not in TOUCHES_RIGHT
        text += f" {word}" if apart else word
    return text
