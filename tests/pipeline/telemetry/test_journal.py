"""What a driver's terminal shows of logged events, at which level."""

import json
import logging
import sys
from collections.abc import Iterator

import pytest

from jobs import cli
from pipeline.telemetry import journal


@pytest.fixture(autouse=True)
def logger() -> Iterator[logging.Logger]:
    """The logger, which belongs to the process, as it was before."""
    found = logging.getLogger(journal.LOGGER)
    before = found.handlers[:], found.propagate, found.level
    yield found
    found.handlers[:], found.propagate = before[:2]
    found.setLevel(before[2])


@pytest.mark.parametrize(
    ("level", "said"),
    [
        (None, ["preln: checkpoint not cached (folder a/b, cause OSError: full)"]),
        ("info", ["preln: checkpoint copied", "preln: checkpoint not cached (folder a/b, cause OSError: full)"]),
        ("ERROR", []),
    ],
)
def test_a_driver_speaks_plain_words_of_warnings_unless_asked_for_more_or_less(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], level: str | None, said: list[str]
) -> None:
    monkeypatch.delenv(journal.LEVEL_VARIABLE, raising=False)
    if level:
        monkeypatch.setenv(journal.LEVEL_VARIABLE, level)
    monkeypatch.setattr(sys, "argv", ["preln", "--version"])
    with pytest.raises(SystemExit):
        cli.main()
    journal.write("checkpoint copied")
    journal.write("checkpoint not cached", level=logging.WARNING, folder="a/b", cause="OSError: full")
    assert capsys.readouterr().err.splitlines() == said


def test_a_level_that_is_none_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(journal.LEVEL_VARIABLE, "loud")
    monkeypatch.setattr(sys, "argv", ["preln", "--version"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == "preln: PRELN_LOG_LEVEL=LOUD: unknown level; use DEBUG, INFO, WARNING or ERROR\n"


def test_a_workers_line_is_one_json_object_with_its_exception() -> None:
    try:
        raise ValueError("why")
    except ValueError:
        record = logging.LogRecord("preln", logging.ERROR, __file__, 1, "it %s", ("broke",), sys.exc_info())
    record.fields = {"shard": "a-0-4"}
    fields = json.loads(journal.JsonLines().format(record))
    assert (fields["message"], fields["level"], fields["shard"]) == ("it broke", "error", "a-0-4")
    assert "ValueError: why" in fields["exception"]
