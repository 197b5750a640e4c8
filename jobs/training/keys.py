"""Prints the keys of a training file as the tables of docs/training.md: `python -m jobs.training.keys`."""

import json
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from jobs.training.spec import TrainModel, TrainResources, TrainSpec, TrainTask

SECTIONS: dict[str, type[BaseModel]] = {
    "": TrainSpec,
    "model": TrainModel,
    "tasks.NAME": TrainTask,
    "resources": TrainResources,
}


def tables() -> str:
    """A row for each key: its name, its default, and what it does."""
    lines = ["| key | default | meaning |", "| --- | --- | --- |"]
    for section, kind in SECTIONS.items():
        for name, field in kind.model_fields.items():
            key = f"{section}.{name}" if section else name
            lines.append(f"| `{key}` | {_default(field)} | {' '.join((field.description or '').split())} |")
    return "\n".join(lines)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if field.default in (None, {}):
        return "none"
    choices = get_args(field.annotation) if get_origin(field.annotation) is not None else ()
    values = [choice for choice in choices if isinstance(choice, str)]
    others = [f"`{value}`" for value in values if value != field.default]
    return f"`{_written(field.default)}`" + (f" (or {', '.join(others)})" if others else "")


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


if __name__ == "__main__":
    print(tables())
