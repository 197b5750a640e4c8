"""Translates a call of a Hugging Face pipeline to a job and its rows, and its result to the shape of our answers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Call = Mapping[str, Any]

SPEC_ERRORS = ("`stride` was provided", "add_prefix_space", "top_k parameter", "is larger than `max_seq_len`")
"""What the reference raises for arguments; the rest of its errors are those of a row."""


@dataclass(frozen=True)
class Job:
    """Task options and input columns."""

    task: dict[str, Any]
    columns: dict[str, list[Any]]


def job_of(call: Call) -> Job:
    """Our job for a call of the reference, in the modes that reproduce it."""
    options = {**call["pipe_kwargs"], **call["kwargs"]}
    return BUILDERS[call["task"]](call["args"], options, call)


def _texts(args: list[Any]) -> list[str]:
    return args[0] if isinstance(args[0], list) else [args[0]]


def _fill_mask(args: list[Any], options: dict[str, Any], call: Call) -> Job:
    task: dict[str, Any] = {"name": "fill-mask", "sequence": "hf", "target_rule": "hf"}
    task |= {key: options[key] for key in ("top_k", "targets") if key in options}
    if options.get("tokenizer_kwargs", {}).get("truncation"):
        task["on_long"] = "truncate"
    return Job(task, {"text": _texts(args)})


def _text_classification(args: list[Any], options: dict[str, Any], call: Call) -> Job:
    task: dict[str, Any] = {"name": "text-classification", "function": options.get("function_to_apply", "auto")}
    if "top_k" in options:
        task["top_k"] = options["top_k"] or "all"
    if isinstance(args[0], dict):
        return Job(task, {key: [value] for key, value in args[0].items()})
    return Job(task, {"text": _texts(args)})


def _token_classification(args: list[Any], options: dict[str, Any], call: Call) -> Job:
    task: dict[str, Any] = {"name": "token-classification", "word_rule": "hf"}
    task["on_long"] = "windows" if "stride" in options else "truncate"
    names = {"aggregation_strategy": "aggregation", "ignore_labels": "ignore_labels", "stride": "stride"}
    task |= {ours: options[theirs] for theirs, ours in names.items() if theirs in options}
    if not options.get("is_split_into_words"):
        return Job(task, {"text": _texts(args)})
    task |= {"words": True, "add_prefix_space": True if call["prefix_space"] else None}
    return Job(task, {"words": args})


def _question_answering(args: list[Any], options: dict[str, Any], call: Call) -> Job:
    task: dict[str, Any] = {"name": "question-answering", "score_mode": "hf"}
    names = {
        "top_k": "top_k",
        "handle_impossible_answer": "allow_null",
        "max_answer_len": "max_answer_length",
        "align_to_words": "align_to_words",
        "doc_stride": "doc_stride",
        "max_seq_len": "max_seq_length",
    }
    task |= {ours: options[theirs] for theirs, ours in names.items() if theirs in options}
    columns = {
        key: options[key] if isinstance(options[key], list) else [options[key]] for key in ("question", "context")
    }
    return Job(task, columns)


def _feature_extraction(args: list[Any], options: dict[str, Any], call: Call) -> Job:
    return Job({"name": "feature-extraction", "pooling": "none"}, {"text": _texts(args)})


BUILDERS = {
    "fill-mask": _fill_mask,
    "text-classification": _text_classification,
    "token-classification": _token_classification,
    "question-answering": _question_answering,
    "feature-extraction": _feature_extraction,
}


def expected_rows(call: Call, *, rows: int) -> list[Any]:
    """The reference's result, one entry a row, in the reference's own shape undone to a list of answers."""
    result = call["result"]
    task = call["task"]
    if task == "fill-mask":
        of_rows = result if rows > 1 else [result]
        return [row if isinstance(row[0], list) else [row] for row in of_rows]
    if task == "text-classification":
        return [[result]] if isinstance(result, dict) else [[one] for one in result] if rows > 1 else [result]
    if task == "question-answering":
        of_rows = result if rows > 1 else [result]
        return [[row] if isinstance(row, dict) else row for row in of_rows]
    if task == "token-classification":
        return result if rows > 1 or (result and isinstance(result[0], list)) else [result]
    return [row[0] for row in result] if rows > 1 else result


def found_answers(task: str, row: Mapping[str, Any], *, ranked: bool) -> list[Any]:
    """Our row in the same shape."""
    if task == "fill-mask":
        return [mask["fills"] for mask in row["masks"]]
    if task == "text-classification":
        return row["scores"] if ranked else [{"label": row["label"], "score": row["score"]}]
    column = {"question-answering": "answers", "token-classification": "entities", "feature-extraction": "embedding"}[
        task
    ]
    return row[column]
