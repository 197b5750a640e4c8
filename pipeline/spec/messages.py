"""Turns pydantic's errors about a job into one line that names the key, the value and the fix."""

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from pipeline.tasks import TASK_NAMES, AnyTask

RANGE = "ReplicaRange"
"""Pydantic's name for one of the two forms of `resources.replicas`."""


def readable_errors(error: ValidationError, *, root: type[BaseModel]) -> str:
    """All errors in one line. root: the model that the values were parsed as."""
    problems = [problem for problem in error.errors() if not _is_other_form(problem)] or error.errors()
    return "; ".join(dict.fromkeys(_line(problem, root) for problem in problems))


def _is_other_form(problem: ErrorDetails) -> bool:
    """Whether a problem is only that a mapping is no number: the problems of its own form are reported instead."""
    return problem["type"] == "int_type" and isinstance(problem["input"], Mapping)


def _keys(place: Sequence[int | str], root: type[BaseModel]) -> str:
    """The valid keys of the place of a wrong one, or the key that was probably meant."""
    section: Any = root
    for part in place[:-1]:
        tasks = {str(task.model_fields["name"].default): task for task in get_args(AnyTask)}
        field = section.model_fields.get(str(part))
        section = tasks.get(str(part)) or (_section_of(field.annotation) if field else None) or section
    keys = [known.alias or name for name, known in section.model_fields.items()]
    meant = difflib.get_close_matches(str(place[-1]), keys, n=1)
    return f"did you mean {meant[0]!r}?" if meant and meant[0] != place[-1] else f"valid keys: {', '.join(keys)}"


def _section_of(annotation: Any) -> Any:
    """The section among the forms that a value may have."""
    forms = [annotation, *get_args(annotation)]
    return next((form for form in forms if isinstance(form, type) and issubclass(form, BaseModel)), None)


def _line(problem: ErrorDetails, root: type[BaseModel]) -> str:
    """One of pydantic's errors as a line: the key, what is wrong, and what would be right."""
    place = problem["loc"]
    kept = [
        str(part)
        for number, part in enumerate(place)
        if place[number - 1 : number] == ("tasks",) or not _is_branch(part)
    ]
    where = ".".join(kept) or "job"
    match problem["type"]:
        case "extra_forbidden":
            return f"unknown key '{where}'; {_keys(problem['loc'], root)}"
        case "missing":
            return f"missing key '{where}'" + (f"; {_keys(problem['loc'], root)}" if len(problem["loc"]) == 1 else "")
        case "union_tag_not_found":
            return f"missing key '{where}.name'; valid tasks: {', '.join(sorted(TASK_NAMES))}"
        case "union_tag_invalid":
            return (
                f"{where}: unknown task {problem['input'].get('name')!r}; valid tasks: {', '.join(sorted(TASK_NAMES))}"
            )
        case "model_type" | "model_attributes_type":
            return f"{where}: expected a mapping of keys, not {_shown(problem['input'])}"
        case "secret":
            return f"{where}: {problem['msg']}"
        case "no_task":
            return problem["msg"]
        case "string_pattern_mismatch" if problem["loc"][0] == "tasks":
            return f"tasks: {_shown(problem['input'])} can't start a column name; use letters, digits, _ and - in a task's name"
    text = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error" and isinstance(problem["input"], Mapping):
        return f"{where}: {text[:1].lower()}{text[1:]}"
    return f"{where}: {text[:1].lower()}{text[1:]}, not {_shown(problem['input'])}"


def _shown(value: object) -> str:
    """A wrong value as a message quotes it; never what is inside a mapping or a list, which may be secrets."""
    if isinstance(value, Mapping):
        return f"keys {', '.join(map(str, value))}"
    if isinstance(value, list | tuple | set):
        return "a list"
    text = re.sub(r"://[^/@]*:[^/@]*@", "://…@", repr(value))
    return text if len(text) <= 100 else f"{text[:97]}..."


def _is_branch(part: int | str) -> bool:
    """Whether a part of an error's location is not a key but pydantic's name for one of the forms that the value may have."""
    name = str(part)
    return name in TASK_NAMES or name in {"int", "constrained-int"} or name.startswith("literal[") or RANGE in name
