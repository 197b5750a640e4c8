"""The output classes in, trees that jax.jit, grad and vmap can return out. Importing registers them, once."""

from collections.abc import Iterable
from typing import Any

import jax

from models.outputs import OUTPUT_CLASSES, ModelOutput


def _register(output_class: type[ModelOutput]) -> None:
    def flatten(output: ModelOutput) -> tuple[list[tuple[Any, Any]], tuple[str, ...]]:
        return [(jax.tree_util.GetAttrKey(name), value) for name, value in output.items()], tuple(output)

    def unflatten(names: tuple[str, ...], values: Iterable[Any]) -> ModelOutput:
        output = output_class()
        # Not through the constructor: jax also builds trees of None and of placeholders, which it would drop.
        for name, value in zip(names, values, strict=True):
            dict.__setitem__(output, name, value)
        return output

    jax.tree_util.register_pytree_with_keys(output_class, flatten, unflatten)


for _output_class in OUTPUT_CLASSES:
    _register(_output_class)
