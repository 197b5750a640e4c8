"""Scores a checkpoint on labelled data, using the pipeline that annotates.

The data is annotated as any job's, the truth carried along in its own columns, and the annotated rows are scored.

Legend: N rows, L labels.
"""

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.evaluation import confidence, scores
from jobs.evaluation.hidden import hide
from jobs.evaluation.scores import Measured
from jobs.training.records import Record, read_records, texts_of
from models.tokenizer import load_tokenizer
from pipeline.errors import RunFailed, SpecError
from pipeline.inference.questions import facts_of
from pipeline.output.folder import OutputFolder
from pipeline.output.report import Report
from pipeline.spec.job_spec import JobSpec
from pipeline.store.storage import join, put

PREFIX = "predicted_"
"""Before the answers' names, whose own the truth has."""
GOLD = {
    "text-classification": "label",
    "token-classification": "tags",
    "question-answering": "answers",
    "multiple-choice": "label",
}
"""The column that holds the truth, unless another is named."""
TASKS = (*GOLD, "fill-mask", "text-scoring")
HIDDEN_FILE = "hidden.jsonl"
HIDE_SEED = 7

Annotate = Callable[[JobSpec], Report]


def settings_of(task: str) -> list[str]:
    """What an evaluation asks of a task, as key=value; the user's own come after it. Raises SpecError."""
    if task not in TASKS:
        raise SpecError(f"task: {task!r} can't be evaluated; valid tasks: {', '.join(TASKS)}")
    own = {
        "token-classification": ["task.words=true", "task.add_prefix_space=true"],
        "text-classification": ["task.top_k=all"],
    }
    return [f"output.prefix={PREFIX}", *own.get(task, [])]


def hide_tokens(*, urls: Sequence[str], column: str, checkpoint: str, into: str, rate: float) -> str:
    """Write the data's texts with some tokens hidden to a file in `into`; its URL. The same tokens every time."""
    tokenizer = load_tokenizer(checkpoint)
    random = np.random.default_rng(HIDE_SEED)
    lines = []
    for text in texts_of(read_records(urls), column=column):
        hidden, truth = hide(text, tokenizer=tokenizer, rate=rate, random=random)
        if truth:
            lines.append(json.dumps({"text": hidden, "hidden": truth}) + "\n")
    if not lines:
        raise SpecError(f"{', '.join(urls)}: no text with a token that can be masked")
    place = join(into, HIDDEN_FILE)
    put(place, "".join(lines).encode())
    return place


def measure(spec: JobSpec, *, annotate: Annotate, gold: str | None = None) -> Measured:
    """Annotate, then score. gold: the column of the truth. Raises SpecError, and RunFailed where the run did not end well."""
    report = annotate(spec)
    if report.state != "done":
        raise RunFailed(f"the evaluation's run ended as {report.state!r}; what it wrote is in {spec.output.url}")
    table = annotated_table(spec)
    # All labels' scores of every row are many objects, and are counted as arrays.
    rows = table.drop_columns([name for name in [f"{PREFIX}scores"] if name in table.column_names]).to_pylist()
    measured = score(rows, task=spec.task_name, gold=gold)
    more: scores.Numbers = {}
    accuracy_at: dict[float, float] = {}
    if spec.task_name == "text-classification":
        more, accuracy_at = confidence_of(table, spec=spec, gold=gold or GOLD[spec.task_name])
    errors = sum(row[f"{PREFIX}error"] is not None for row in rows)
    return replace(
        measured,
        numbers={**measured.numbers, **more, "rows": float(len(rows)), "rows_with_errors": float(errors)},
        accuracy_at=accuracy_at,
    )


def annotated_table(spec: JobSpec) -> pa.Table:
    """All rows that a job has written."""
    folder = OutputFolder(spec.output.url)
    return pa.concat_tables(pq.read_table(io.BytesIO(folder.data.read(key))) for key in sorted(folder.written_keys()))


def confidence_of(table: pa.Table, *, spec: JobSpec, gold: str) -> tuple[scores.Numbers, dict[float, float]]:
    """ECE and Brier score, where scores are from 0 to 1, and coverage -> accuracy. Rows without an answer cover nothing, and a
    label that the model does not have is never right."""
    table = table.filter(table[gold].is_valid())
    (facts,) = facts_of(spec).values()
    truth_NL, _ = confidence.truth_marks(table[gold], labels=facts.labels)
    answered = table[f"{PREFIX}label"].is_valid().to_numpy()
    best_N = pc.index_in(table[f"{PREFIX}label"], value_set=pa.array(facts.labels)).to_numpy()[answered].astype(int)
    score_N, truth_NL = table[f"{PREFIX}score"].to_numpy()[answered], truth_NL[answered]
    right_N = truth_NL[np.arange(len(best_N)), best_N]
    found: scores.Numbers = {}
    if len(score_N) and score_N.min() >= 0 and score_N.max() <= 1:
        found["ece"] = confidence.calibration_error(score_N=score_N, right_N=right_N)
        if f"{PREFIX}scores" in table.column_names:
            scores_NL = confidence.label_scores(table[f"{PREFIX}scores"], labels=facts.labels)[answered]
            if not np.isnan(scores_NL).any():
                found["brier"] = confidence.brier(scores_NL=scores_NL, truth_NL=truth_NL)
    return found, confidence.accuracy_at(score_N=score_N, right_N=right_N, rows=table.num_rows)


def score(rows: Sequence[Record], *, task: str, gold: str | None = None) -> Measured:
    """Numbers of annotated rows that hold the truth in the column `gold`."""
    if task == "text-scoring":
        scored = [row for row in rows if row[f"{PREFIX}tokens"] is not None]
        return scores.perplexity(
            [row[f"{PREFIX}log_probability"] for row in scored], [row[f"{PREFIX}tokens"] for row in scored]
        )
    column = "hidden" if task == "fill-mask" else gold or GOLD[task]
    known = [row for row in rows if row.get(column) is not None]
    if not known:
        raise SpecError(
            f"no row has a value in the column {column!r}, which should have the labels; name another with --gold"
        )
    truth = [row[column] for row in known]
    match task:
        case "text-classification" if all(isinstance(labels, list) for labels in truth):
            listed = [row.get(f"{PREFIX}labels") for row in known]
            return scores.several_labels(
                [{str(label) for label in labels} for labels in truth],
                [None if found is None else {one["label"] for one in found} for found in listed],
            )
        case "text-classification":
            return scores.classification([str(label) for label in truth], [row[f"{PREFIX}label"] for row in known])
        case "multiple-choice":
            chosen = [row[f"{PREFIX}choice"] for row in known]
            return scores.classification(
                [str(label) for label in truth], [None if c is None else str(c) for c in chosen]
            )
        case "token-classification":
            return scores.entities(truth, [_words(row) for row in known])
        case "question-answering":
            return scores.answers([_truths(one) for one in truth], [_answer(row) for row in known])
    return scores.guesses(truth, [_fills(row) for row in known])


def _words(row: Record) -> list[str] | None:
    labels = row[f"{PREFIX}labels"]
    return None if labels is None else ["O" if label is None else label["label"] for label in labels]


def _truths(truth: Any) -> list[str]:
    """SQuAD's struct of lists, a list of structs, a list of texts, or one text."""
    if isinstance(truth, dict):
        return list(truth["text"])
    if isinstance(truth, str):
        return [truth]
    return [one["text"] if isinstance(one, dict) else str(one) for one in truth]


def _answer(row: Record) -> str | None:
    found = row[f"{PREFIX}answers"]
    return found[0]["answer"] if found else None


def _fills(row: Record) -> list[list[int]] | None:
    masks = row[f"{PREFIX}masks"]
    return None if masks is None else [[fill["token"] for fill in mask["fills"]] for mask in masks]
