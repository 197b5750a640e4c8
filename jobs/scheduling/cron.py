"""Parses five-field cron expressions, checks them, and translates them for systemd."""

import re
from dataclasses import dataclass

from pipeline.errors import SpecError

MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
SHORTHANDS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}


@dataclass(frozen=True)
class Field:
    """One of the five fields: its name, its least and greatest value, and names for values, from which on."""

    name: str
    least: int
    most: int
    names: tuple[str, ...] = ()
    names_from: int = 0


FIELDS = (
    Field("minute", 0, 59),
    Field("hour", 0, 23),
    Field("day of month", 1, 31),
    Field("month", 1, 12, tuple(MONTHS), names_from=1),
    Field("day of week", 0, 7, tuple(DAYS)),
)


@dataclass(frozen=True)
class Cron:
    """When something runs. text: as it was written, shorthands resolved. values: of each field, sorted; None for all (`*`)."""

    text: str
    values: tuple[tuple[int, ...] | None, ...]

    @classmethod
    def parse(cls, text: str) -> "Cron":
        """From five fields, or a shorthand such as @daily. Raises SpecError."""
        text = SHORTHANDS.get(text.strip().lower(), " ".join(text.split()))
        words = text.split(" ")
        if len(words) != len(FIELDS):
            raise SpecError(
                f"--cron '{text}': has {len(words)} fields, and cron has five: minute, hour, day of month, month, day of week, "
                "such as '0 2 * * *'"
            )
        values = tuple(_values(word, field, text) for word, field in zip(words, FIELDS, strict=True))
        return cls(text, values)

    def in_numbers(self) -> str:
        """The same times in five fields that every platform takes and reads alike: Kubernetes refuses a 7 for Sunday, cron
        itself `5/20` and, in lists, names; and where one day begins with a star, cron joins both days by "and"."""
        return " ".join(_in_numbers(values) for values in self.values)

    def on_calendar(self) -> list[str]:
        """The same times as lines of systemd's OnCalendar; two where cron joins days of month and of week by "or"."""
        minute, hour, day, month, weekday = self.values
        clock = f"{_listed(hour)}:{_listed(minute)}:00"
        week = ",".join(DAYS[value].capitalize() for value in weekday or ())
        if day is not None and weekday is not None:
            return [f"*-{_listed(month)}-{_listed(day)} {clock}", f"{week} *-{_listed(month)}-* {clock}"]
        return [f"{week + ' ' if week else ''}*-{_listed(month)}-{_listed(day)} {clock}"]


def _in_numbers(values: tuple[int, ...] | None) -> str:
    """Values as a star, a range with a step, or single ranges: `0-59/15`, `0-5,20`."""
    if values is None:
        return "*"
    step = values[1] - values[0] if len(values) > 2 else 0
    if step > 1 and values == tuple(range(values[0], values[-1] + 1, step)):
        return f"{values[0]}-{values[-1]}/{step}"
    runs: list[list[int]] = []
    for value in values:
        if runs and value == runs[-1][-1] + 1:
            runs[-1].append(value)
        else:
            runs.append([value])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def _listed(values: tuple[int, ...] | None) -> str:
    return "*" if values is None else ",".join(f"{value:02d}" for value in values)


def _values(word: str, field: Field, text: str) -> tuple[int, ...] | None:
    """The values of one field of a cron line, ascending; None for any. Raises SpecError."""
    if word in ("*", "*/1"):
        return None
    found: set[int] = set()
    for part in word.split(","):
        match = re.fullmatch(r"(\*|\w+)(?:-(\w+))?(?:/(\d+))?", part)
        if not match:
            raise SpecError(f"--cron '{text}': {part!r} is no {field.name}")
        first, last, step = match.groups()
        if first == "*":
            low, high = field.least, 6 if field.name == "day of week" else field.most
        else:
            low = _number(first, field, text)
            high = _number(last, field, text) if last else field.most if step else low
        if low > high or (step is not None and int(step) == 0):
            raise SpecError(f"--cron '{text}': {part!r} is no {field.name}: it must rise, and step by one at least")
        found |= set(range(low, high + 1, int(step or 1)))
    if field.name == "day of week":
        found = {value % 7 for value in found}
    return tuple(sorted(found))


def _number(word: str, field: Field, text: str) -> int:
    if word.lower() in field.names:
        return field.names.index(word.lower()) + field.names_from
    if not (word.isascii() and word.isdigit()) or not field.least <= int(word) <= field.most:
        names = f", or {', '.join(field.names)}" if field.names else ""
        raise SpecError(
            f"--cron '{text}': {word!r} is no {field.name}; it goes from {field.least} to {field.most}{names}"
        )
    return int(word)
