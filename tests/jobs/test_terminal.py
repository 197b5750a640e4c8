"""What verbs print of files and checkpoints: text, and no orders to a terminal."""

import io
import logging

import pyarrow as pa
import pytest

from jobs import cli
from jobs.show import as_table
from jobs.terminal import Terminal
from pipeline.errors import SpecError
from pipeline.telemetry.journal import PlainWords

ORDERS = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202etxt.exe"


def test_nothing_printed_steers_the_terminal() -> None:
    printed = io.StringIO()
    terminal = Terminal(file=printed, width=200)
    terminal.print(f"  failed: file:///in/{ORDERS}.csv")
    terminal.print(f"red {ORDERS}", style="red")
    terminal.print(as_table(pa.table({f"name {ORDERS}": [f"value {ORDERS}"], "text": ["Übung 日本"]})))
    said = printed.getvalue()
    assert not set(said) & set(
        ORDERS.replace("txt.exe", "").replace("]0;owned", "").replace("[2J", "").replace("31m", "")
    )
    assert "\\x1b]0;owned\\x07" in said
    assert "Übung 日本" in said
    terminal.print("a:key:b.txt")
    assert "a:key:b.txt" in printed.getvalue(), "a name between colons is no picture"


def test_lines_stay_lines() -> None:
    printed = io.StringIO()
    Terminal(file=printed).print("one\n  two\tthree")
    assert printed.getvalue() == "one\n  two    three\n"


def test_an_error_of_a_command_steers_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    cli.say(str(SpecError(f"the column {ORDERS} is missing")))
    assert "\x1b" not in capsys.readouterr().err


def test_a_log_line_steers_no_terminal() -> None:
    record = logging.LogRecord("preln", logging.WARNING, "", 0, f"not cached: {ORDERS}", None, None)
    record.fields = {"folder": ORDERS}
    said = PlainWords().format(record)
    assert "\x1b" not in said
    assert said.count("\\x1b") == 4
