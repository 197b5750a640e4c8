"""Answers in, what torch.jit.trace (tuples) and torch.export (registered trees) can carry out."""

from typing import Any

import torch
from torch.utils import _pytree

from models.outputs import OUTPUT_CLASSES, ModelOutput
from models.roberta_torch.cache import KeyValueCache


def tracing() -> bool:
    """Whether torch.jit.trace is running."""
    return torch._C._get_tracing_state() is not None


def traceable(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """The tuple as it is; while tracing with its cache as a tuple of tuples, since only those can be traced."""
    if not tracing():
        return values
    return tuple(value.to_legacy_cache() if isinstance(value, KeyValueCache) else value for value in values)


def _register(output_class: type[ModelOutput]) -> None:
    def flatten(output: ModelOutput) -> tuple[list[Any], list[str]]:
        return list(output.values()), list(output)

    def unflatten(values: Any, names: Any) -> ModelOutput:
        return output_class(zip(names, values, strict=True))

    _pytree.register_pytree_node(
        output_class, flatten, unflatten, serialized_type_name=f"preln.{output_class.__name__}"
    )


for _output_class in OUTPUT_CLASSES:
    _register(_output_class)
