"""Merges a job file, flags and `key.path=value` settings into one mapping of plain values, not yet checked."""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from pipeline.errors import SpecError


class _OnceEach(yaml.SafeLoader):
    """YAML in which no mapping has a key twice: of two, the library takes the last without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """The mapping of a node. Raises SpecError."""
        seen: set[str] = set()
        for key, _ in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else ""
            if name in seen:
                line = key.start_mark.line + 1
                raise SpecError(
                    f"the job file has the key {name!r} twice in one place, the second in line {line}; keep one"
                )
            seen |= {name} if name else set()
        return super().construct_mapping(node, deep)


YAML_FAULTS = (yaml.YAMLError, ValueError, TypeError, AttributeError, OverflowError)
"""What PyYAML raises for a text that it can't read; the last four for dates and numbers that there are not."""


def read_yaml(text: str) -> dict[str, Any]:
    """The mapping in a YAML text. Raises SpecError."""
    try:
        values = yaml.load(text, Loader=_OnceEach)  # noqa: S506 - a safe loader that is stricter
    except YAML_FAULTS as error:
        raise SpecError(f"the job file is not YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise SpecError("the job file is nested too deep; it has no more than three levels of keys") from None
    if not isinstance(values, dict):
        raise SpecError("the job file is not a mapping of keys; it needs input, model, task and output")
    return values


_SHORTHANDS = {"input": "urls", "model": "checkpoint", "task": "name", "output": "url"}


def override(
    *, values: Mapping[str, Any], settings: Sequence[str] = (), flags: Sequence[tuple[str, Any]] = ()
) -> dict[str, Any]:
    """Values with each flag (key path, value), then each `key.path=value`, put in its place; the latter's value is read
    as YAML. Raises SpecError."""
    result = dict(values)
    for path, value in [*flags, *(_setting(text) for text in settings)]:
        _place(result, path.split("."), value)
    return result


def _setting(text: str) -> tuple[str, Any]:
    path, equals, value = text.partition("=")
    if not equals or not all(path.strip().split(".")):
        raise SpecError(f"--set {text}: write key.path=value, such as --set input.columns.text=body")
    try:
        return path.strip(), yaml.safe_load(value) if value else ""
    except (*YAML_FAULTS, RecursionError) as error:
        raise SpecError(f"--set {text}: the value is not YAML: {' '.join(str(error).split())}") from None


def _place(values: dict[str, Any], keys: list[str], value: object, *, of_tasks: bool = False) -> None:
    first, rest = keys[0], keys[1:]
    if not rest:
        values[first] = value
        return
    inner = values.get(first)
    short = _SHORTHANDS.get(first) or ("name" if of_tasks else None)
    if isinstance(inner, str | list) and short:
        inner = {short: inner}
    values[first] = inner = dict(inner) if isinstance(inner, Mapping) else {}
    _place(inner, rest, value, of_tasks=first == "tasks")
