"""Text from outside in messages: one line, and nothing that a terminal would obey."""

import pickle

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from models.errors import CheckpointError, PrelnError
from models.printable import MOST_CHARACTERS, one_line, printable
from pipeline.errors import OptionError, SourceError, SpecError, StorageError

OBEYED = "\x1b\x07\x9b\r\b\0\ud800\u202e\u2066\u2028"


@given(st.text(st.characters()))
@example(OBEYED)
@example("\x1b]0;title\x07\x1b[2J")
@example("a\r\nb")
@example("x" * 100_000)
@example("\n\n")
def test_no_message_gives_a_terminal_orders(text: str) -> None:
    for error in (PrelnError(text), CheckpointError(text), SpecError(text), SourceError(text, reason="corrupt")):
        said = str(error)
        assert not set(said) & set(OBEYED + "\n")
        assert said.isprintable() or all(one.isprintable() or ord(one) > 0x9F for one in said)
        assert len(said) <= MOST_CHARACTERS + 10
        said.encode()


def test_texts_of_all_scripts_stay_as_they_are() -> None:
    for text in ("file:///in/Übung näïve.txt", "日本語 한국어 عربى हिन्दी", "👩\u200d💻 ok", "می\u200cخواهم", "plain"):
        assert printable(text) == one_line(text) == text


def test_a_long_message_keeps_its_beginning_and_its_next_step() -> None:
    said = str(SpecError(f"input.urls: {'x' * 10_000}; check the spelling"))
    assert said.startswith("input.urls: xxx")
    assert said.endswith("; check the spelling")


@pytest.mark.parametrize(
    "error", [StorageError("a\x1b", refused=False), SourceError("b\x1b", reason="gone"), OptionError("top_k", "c\x1b")]
)
def test_an_error_that_was_pickled_says_the_same(error: PrelnError) -> None:
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
