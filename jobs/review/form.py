"""The forms that a sample for review is written in, and read back from; which one a file has, its content says."""

import json
from collections.abc import Sequence

from jobs.review import Form, label_studio, rows_file
from pipeline.analysis.review_sample import ReviewSample
from pipeline.analysis.reviewed import Reviewed
from pipeline.errors import SpecError

SUFFIX: dict[Form, str] = {"label-studio": ".json", "jsonl": ".jsonl", "csv": ".csv"}


def written(sample: ReviewSample, *, form: Form) -> bytes:
    """A sample as a file's content. Raises SpecError for answers that the form does not have."""
    if form == "label-studio":
        return label_studio.tasks_file(sample)
    return rows_file.json_lines(sample) if form == "jsonl" else rows_file.comma_separated(sample)


def read(content: bytes, *, name: str) -> Sequence[Reviewed]:
    """The rows of a reviewed file. Raises SpecError, with the file's name, for one that no sample was written to."""
    try:
        text = content.decode("utf-8-sig")  # spreadsheets put a mark in front
    except UnicodeDecodeError as error:
        raise SpecError(f"{name}: byte {error.start} is not UTF-8; save the file as UTF-8") from None
    begins = text.lstrip()[:1]
    try:
        if begins == "[":
            rows = label_studio.reviewed(text)
        else:
            rows = rows_file.from_json_lines(text) if begins == "{" else rows_file.from_comma_separated(text)
    except SpecError as error:
        raise SpecError(f"{name}: {error}") from None
    except json.JSONDecodeError as error:
        raise SpecError(f"{name}: line {error.lineno} is not JSON: {error.msg}") from None
    if not rows:
        raise SpecError(f"{name}: it has no rows")
    return rows
