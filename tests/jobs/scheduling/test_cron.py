"""Cron expressions mean the same here as in cron and systemd."""

import shutil
import subprocess
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.scheduling.cron import Cron
from pipeline.errors import SpecError

TIMES = (
    "0 2 * * *",
    "*/15 * * * *",
    "5,35 0-6/2 1 jan-mar *",
    "30 4 * * mon-fri",
    "0 0 13 * 5",
    "@weekly",
    "7/20 3 * * 7",
)


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("0 2 * * *", ["*-*-* 02:00:00"]),
        ("@hourly", ["*-*-* *:00:00"]),
        ("*/20 8-10 * * mon,wed", ["Mon,Wed *-*-* 08,09,10:00,20,40:00"]),
        ("0 0 1 jan *", ["*-01-01 00:00:00"]),
        ("0 3 * * 7", ["Sun *-*-* 03:00:00"]),
        # Where both days are given, cron runs on either; systemd would run where both hold.
        ("0 0 13 * fri", ["*-*-13 00:00:00", "Fri *-*-* 00:00:00"]),
    ],
)
def test_the_same_times_for_systemd(text: str, lines: list[str]) -> None:
    assert Cron.parse(text).on_calendar() == lines


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0 2 * *", "has 4 fields"),
        ("60 2 * * *", "'60' is no minute; it goes from 0 to 59"),
        ("0 2 0 * *", "'0' is no day of month"),
        ("0 2 * foo *", "'foo' is no month"),
        ("0 5-2 * * *", "it must rise"),
        ("*/0 * * * *", "step by one at least"),
        ("0 2 * * 1-", "'1-' is no day of week"),
        ("0 2 * * monday", "'monday' is no day of week; it goes from 0 to 7, or sun, mon"),
        ("0 2 * * sunshine", "'sunshine' is no day of week"),
        ("0 2 * marble *", "'marble' is no month"),
        ("0 2 * * ²", "'²' is no day of week"),
        ("0 2 * * 8", "'8' is no day of week"),
        ("every day", "has 2 fields"),
    ],
)
def test_what_is_no_cron_expression_is_told_by_its_field(text: str, said: str) -> None:
    with pytest.raises(SpecError, match="--cron") as caught:
        Cron.parse(text)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("0 2 * * *", "0 2 * * *"),
        ("*/15 * * * *", "0-45/15 * * * *"),
        ("7/20 3 * * 7", "7-47/20 3 * * 0"),
        ("30 4 * JAN,mar fri-7", "30 4 * 1,3 0,5-6"),
        ("@weekly", "0 0 * * 0"),
        ("0 0 */1 * mon", "0 0 * * 1"),
        ("0 0 */10 * mon", "0 0 1-31/10 * 1"),
    ],
)
def test_the_same_times_in_numbers_that_every_platform_takes(text: str, numbers: str) -> None:
    assert Cron.parse(text).in_numbers() == numbers
    assert Cron.parse(numbers).values == Cron.parse(text).values


@pytest.mark.parametrize("text", TIMES)
def test_systemd_reads_its_lines(text: str) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not here")
    for line in Cron.parse(text).on_calendar():
        run = subprocess.run(["systemd-analyze", "calendar", line], capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr


def matches(cron: Cron, moment: datetime) -> bool:
    """Whether cron would run at a minute."""
    minute, hour, day, month, weekday = cron.values
    plain = all(
        values is None or value in values
        for values, value in ((minute, moment.minute), (hour, moment.hour), (month, moment.month))
    )
    days = [
        value in values
        for values, value in ((day, moment.day), (weekday, moment.isoweekday() % 7))
        if values is not None
    ]
    return plain and (any(days) or not days)


@given(
    text=st.sampled_from(TIMES),
    moment=st.datetimes(min_value=datetime(2025, 1, 1), max_value=datetime(2027, 1, 1)),  # noqa: DTZ001 - cron knows no zone
)
def test_times_are_those_of_croniter(text: str, moment: datetime) -> None:
    croniter = pytest.importorskip("croniter", reason="croniter is not installed")
    minute = moment.replace(second=0, microsecond=0, tzinfo=UTC)
    cron = Cron.parse(text)
    assert matches(cron, minute) == croniter.croniter.match(cron.text, minute)
    assert matches(cron, minute) == croniter.croniter.match(cron.in_numbers(), minute)
