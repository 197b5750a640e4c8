"""A sample as tasks of Label Studio with predictions, the labelling interface that fits them, and its JSON export read back.

The form is that of https://labelstud.io/guide/predictions and https://labelstud.io/guide/task_format: offsets count characters
(code points), `end` exclusive. Versions before 2022 counted UTF-16 units; such spans are recognised by their text.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

from pipeline.analysis.predictions import Kind
from pipeline.analysis.review_sample import Drawn, ReviewSample
from pipeline.analysis.reviewed import Reviewed
from pipeline.errors import SpecError

OURS = "preln"
"""The key of a task's data that holds what the error rate needs."""
TEXT_OF: dict[Kind, str] = {"label": "text", "labels": "text", "entities": "text", "answer": "context"}


def tasks_file(sample: ReviewSample) -> bytes:
    """The tasks, as a file to import. Raises SpecError for answers that have no place in it."""
    if sample.kind not in TEXT_OF:
        raise SpecError(
            f"{sample.task}: choices that differ from row to row can't be labelled there; use --to jsonl or --to csv"
        )
    return (json.dumps([as_task(row, sample) for row in sample.rows], ensure_ascii=False, indent=1) + "\n").encode()


def as_task(row: Drawn, sample: ReviewSample) -> dict[str, Any]:
    """One task: its data, and the job's answer as a prediction."""
    ours = {"source": row.source, "row": row.row, **sample.needed(row)}
    result = results(row.prediction, kind=sample.kind)
    return {
        "data": {**{part: text or "" for part, text in row.texts.items()}, OURS: ours},
        "predictions": [{"model_version": sample.model, "score": round(row.score, 6), "result": result}],
    }


def results(prediction: Any, *, kind: Kind) -> list[dict[str, Any]]:
    """An answer as regions of the labelling interface."""
    place = {"from_name": kind, "to_name": TEXT_OF[kind]}
    if kind in ("label", "labels"):
        choices = [prediction] if kind == "label" else prediction
        return [{**place, "id": "answer", "type": "choices", "value": {"choices": choices}}] if choices else []
    return [
        {
            **place,
            "id": f"span-{number}",
            "type": "labels",
            "value": {"start": span["start"], "end": span["end"], "text": span["text"], "labels": [span["label"]]},
        }
        for number, span in enumerate(prediction)
    ]


def interface(sample: ReviewSample) -> bytes:
    """The labelling interface (Settings > Labeling Interface > Code) for a sample's tasks."""
    view = ElementTree.Element("View")
    named = {"name": sample.kind, "toName": TEXT_OF[sample.kind]}
    parts = sample.rows[0].texts
    if "question" in parts:
        ElementTree.SubElement(view, "Header", value="$question")
    if sample.kind in ("label", "labels"):
        for part in parts:
            ElementTree.SubElement(view, "Text", name=part, value=f"${part}")
        choices = ElementTree.SubElement(
            view, "Choices", named, choice="single" if sample.kind == "label" else "multiple"
        )
        for label in sample.labels:
            ElementTree.SubElement(choices, "Choice", value=label)
    else:
        labels = ElementTree.SubElement(view, "Labels", named)
        for label in ["answer"] if sample.kind == "answer" else sample.labels:
            ElementTree.SubElement(labels, "Label", value=label)
        ElementTree.SubElement(view, "Text", name=TEXT_OF[sample.kind], value=f"${TEXT_OF[sample.kind]}")
    ElementTree.indent(view)
    return ElementTree.tostring(view, encoding="utf-8") + b"\n"


def reviewed(text: str) -> list[Reviewed]:
    """The rows of a JSON export. Raises SpecError for one of another project, or in another form."""
    tasks = json.loads(text)
    if not all(isinstance(task, Mapping) and isinstance(task.get("data"), Mapping) for task in tasks):
        raise SpecError("this is no JSON export of Label Studio; export as JSON, not JSON-MIN")
    if not all(isinstance(task["data"].get(OURS), Mapping) for task in tasks):
        raise SpecError(
            f"some of its tasks have no {OURS!r} in their data; export a project that preln sample's tasks were imported to"
        )
    return [_row(task["data"][OURS], task) for task in tasks]


def _row(ours: Mapping[str, Any], task: Mapping[str, Any]) -> Reviewed:
    """One task. Skipped annotations do not count; of several, the one updated last does."""
    annotations = [one for one in task.get("annotations") or () if not one.get("was_cancelled")]
    truth, fault = None, None
    if annotations:
        last = max(annotations, key=lambda one: (str(one.get("updated_at", "")), one.get("id") or 0))
        try:
            truth = answer_of(last.get("result") or (), kind=ours["answers"], data=task["data"])
        except ValueError as error:
            fault = str(error)
    return Reviewed(
        task=ours["task"],
        kind=ours["answers"],
        design=ours["design"],
        stratum=ours["stratum"],
        stratum_rows=ours["stratum_rows"],
        population=ours["population"],
        sample_rows=ours["sample_rows"],
        weight=ours["weight"],
        prediction=ours["prediction"],
        truth=truth,
        done=bool(annotations),
        fault=fault,
    )


def answer_of(regions: Sequence[Mapping[str, Any]], *, kind: Kind, data: Mapping[str, Any]) -> Any:
    """A reviewer's regions as an answer. Raises ValueError for a span that is not where its text is."""
    values = [region["value"] for region in regions if region.get("from_name") == kind]
    if kind in ("label", "labels"):
        chosen = [choice for value in values for choice in value["choices"]]
        return sorted(chosen) if kind == "labels" else (chosen[0] if chosen else None)
    return [span for value in values for span in _spans(value, data[TEXT_OF[kind]])]


def _spans(value: Mapping[str, Any], text: str) -> list[dict[str, Any]]:
    """A region as one span for each of its labels, in characters."""
    start, end, shown = value["start"], value["end"], value.get("text")
    if shown is not None and _unlike(text[start:end], shown):
        units = text.encode("utf-16-le")
        before, inside = (
            units[2 * first : 2 * stop].decode("utf-16-le", "replace") for first, stop in ((0, start), (start, end))
        )
        if _unlike(inside, shown):
            raise ValueError("a span is not where its text is")
        start, end = len(before), len(before) + len(inside)
    return [{"label": label, "start": start, "end": end, "text": text[start:end]} for label in value["labels"]]


def _unlike(found: str, shown: str) -> bool:
    """Whether two texts differ by more than how line ends are written."""
    return "".join(found.split()) != "".join(shown.replace("\\n", "\n").split())
