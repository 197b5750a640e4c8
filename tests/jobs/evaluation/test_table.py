"""The terminal shows measured numbers unchanged."""

import io

from rich.console import Console

from jobs.evaluate import numbers_table
from jobs.evaluation.scores import Measured, classification


def test_the_table_shows_counts_whole_rates_with_digits_and_labels_as_they_are() -> None:
    measured = classification(["[red]", "b"], ["[red]", "[red]"])
    shown = Measured(numbers={**measured.numbers, "rows": 2.0, "rows_with_errors": 0.0}, by_label=measured.by_label)
    printed = io.StringIO()
    Console(file=printed, markup=False, width=80).print(numbers_table(shown))
    rows = {
        cells[1].strip(): cells[2].strip()
        for line in printed.getvalue().splitlines()
        if len(cells := line.split("│")) > 2
    }
    assert rows["accuracy"] == "0.5000"
    assert rows["rows"] == "2"
    assert rows["rows with errors"] == "0"
    assert rows["F1 of [red]"] == "0.6667"
