"""Numbers with their nouns, as messages print them: 1 row, 2,000 rows."""


def counted(number: int, noun: str) -> str:
    """The number with thousands separators, and the noun in the singular or the plural."""
    return f"{number:,} {noun if number == 1 else noun + 's'}"


def duration(seconds: float) -> str:
    """A time in its two largest units: 42 s, 3 min 10 s, 1 h 5 min, 2 d 3 h."""
    whole = max(0, round(seconds))
    for size, unit, smaller_size, smaller in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            part = whole % size // smaller_size
            return f"{whole // size} {unit} {part} {smaller}" if part else f"{whole // size} {unit}"
    return f"{whole} s"
