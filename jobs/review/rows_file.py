"""A sample as JSON Lines or CSV: one row a line, its answer pre-filled in a column that the reviewer corrects.

A row counts as reviewed if `reviewed` is set, or if its answer was changed. In CSV, values that are not text are JSON.
"""

import csv
import io
import json
from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.analysis.predictions import same
from pipeline.analysis.review_sample import ReviewSample
from pipeline.analysis.reviewed import Reviewed
from pipeline.errors import SpecError

NOT_DONE = {"", "0", "no", "false", "n", "none", "null"}
NEEDED = (
    "task",
    "answers",
    "design",
    "stratum",
    "stratum_rows",
    "population",
    "sample_rows",
    "weight",
    "prediction",
    "reviewed",
)


def records(sample: ReviewSample) -> Iterator[dict[str, Any]]:
    """Each row with its texts, the pre-filled answer, and what the error rate needs, which must stay as it is."""
    for row in sample.rows:
        yield {
            "source": row.source,
            "row": row.row,
            **row.texts,
            sample.kind: row.prediction,
            "reviewed": "",
            "score": round(row.score, 6),
            **sample.needed(row),
        }


def json_lines(sample: ReviewSample) -> bytes:
    """One JSON object a line."""
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records(sample)).encode()


def comma_separated(sample: ReviewSample) -> bytes:
    """One row a record, with a header."""
    stream = io.StringIO()
    rows = [{name: cell(value) for name, value in record.items()} for record in records(sample)]
    writer = csv.DictWriter(stream, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue().encode()


def cell(value: Any) -> str:
    """A value as a cell: text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def from_json_lines(text: str) -> list[Reviewed]:
    """The rows of `json_lines`, reviewed. Raises SpecError."""
    found = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except json.JSONDecodeError as error:
            raise SpecError(f"line {number} is not JSON: {error.msg}") from None
        found.append(_reviewed(values, where=f"line {number}"))
    return found


def from_comma_separated(text: str) -> list[Reviewed]:
    """The rows of `comma_separated`, reviewed; a spreadsheet's semicolons are read too. Raises SpecError."""
    header = text.partition("\n")[0]
    delimiter = max(",;\t", key=header.count)
    csv.field_size_limit(2**31 - 1)
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    return [
        _reviewed({name: value for name, value in row.items() if name}, where=f"record {number}", cells=True)
        for number, row in enumerate(rows, 1)
    ]


def _reviewed(values: Any, *, where: str, cells: bool = False) -> Reviewed:
    if not isinstance(values, Mapping) or any(name not in values for name in NEEDED) or values["answers"] not in values:
        missing = [name for name in NEEDED if not isinstance(values, Mapping) or name not in values]
        raise SpecError(
            f"{where} has no {', '.join(missing) or 'answer'}; give a file that preln sample has written, with all its columns"
        )
    kind = values["answers"]
    prediction, truth = values["prediction"], values[kind]
    fault = None
    if cells:
        prediction = _value(prediction, kind)
        try:
            truth = _value(truth, kind)
        except json.JSONDecodeError:
            fault = f"the column {kind!r} is not JSON"
    if fault is None and not fits(truth, kind):
        fault = f"the column {kind!r} is not {EXPECTED[kind]}"
    try:
        return Reviewed(
            task=values["task"],
            kind=kind,
            design=values["design"],
            stratum=values["stratum"],
            stratum_rows=int(values["stratum_rows"]),
            population=int(values["population"]),
            sample_rows=int(values["sample_rows"]),
            weight=float(values["weight"]),
            prediction=prediction,
            truth=truth,
            done=fault is not None
            or str(values["reviewed"]).strip().lower() not in NOT_DONE
            or not same(kind, prediction, truth),
            fault=fault,
        )
    except ValueError as error:
        raise SpecError(f"{where}: {error}") from None


def _value(text: str, kind: str) -> Any:
    return text if kind == "label" else json.loads(text)


EXPECTED = {
    "label": "a label",
    "labels": "a list of labels",
    "entities": "a list of spans with label, start and end",
    "answer": "a list of spans with label, start and end",
    "choice": "the number of a choice",
}


def fits(truth: Any, kind: str) -> bool:
    """Whether a reviewer's answer is of the kind that the task has."""
    if kind == "label":
        return isinstance(truth, str)
    if kind == "choice":
        return isinstance(truth, int)
    if not isinstance(truth, list):
        return False
    if kind == "labels":
        return all(isinstance(label, str) for label in truth)
    return all(
        isinstance(span, Mapping) and isinstance(span.get("label"), str) and isinstance(span.get("start"), int)
        and isinstance(span.get("end"), int)
        for span in truth
    )  # fmt: skip
