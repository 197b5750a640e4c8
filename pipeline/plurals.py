"""Numbers with their nouns, as messages print them: 1 row, 2,000 rows."""


def counted(number: int, noun: str) -> str:
    """The number with thousands separators, and the noun in the singular or the plural."""
    return f"{number:,} {noun if number == 1 else noun + 's'}"
