"""Every bad input gets the expected outcome, and a message that names it and the next step."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.pipeline.bad import REFUSED, Bad
from tests.pipeline.bad_page import BAD_OF, outcome, render
from tests.pipeline.bad_run import Got

EVERY = [bad for things in BAD_OF.values() for bad in things]
AT_LEAST = 40

OutcomeOf = Callable[[Bad], Got]


@pytest.fixture(scope="module")
def outcome_of(tmp_path_factory: pytest.TempPathFactory) -> OutcomeOf:
    """Each bad thing is run once."""
    known: dict[str, Got] = {}

    def run_once(bad: Bad) -> Got:
        if bad.what not in known:
            known[bad.what] = outcome(bad, tmp_path_factory.mktemp("bad").resolve())
        return known[bad.what]

    return run_once


@pytest.mark.parametrize("bad", EVERY, ids=lambda bad: bad.what.replace(" ", "-"))
def test_a_bad_thing_gets_what_it_should_and_is_told_what_to_do(bad: Bad, outcome_of: OutcomeOf) -> None:
    got = outcome_of(bad)
    assert (got.verdict, *(got.reasons or ("",))) == bad.gets
    message = got.messages[0]
    assert "\n" not in message
    assert [words for words in bad.says if words not in message] == []
    assert got.good_rows == bad.good_rows, "what is beside it is answered"
    assert (got.rows == 0) == (got.verdict == REFUSED)


def test_the_table_is_long_and_says_nothing_twice() -> None:
    assert len(EVERY) >= AT_LEAST
    assert len({bad.what for bad in EVERY}) == len(EVERY)


def test_the_page_says_what_was_said(outcome_of: OutcomeOf, repository: Path) -> None:
    page = (repository / "docs/errors.md").read_text(encoding="utf-8")
    assert page == render(outcome_of), "run `python -m tests.pipeline.bad_page > docs/errors.md`"
