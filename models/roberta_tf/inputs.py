"""The ways in which Keras users give inputs in, keyword arguments with tensors out.

One tensor, several in the order of call()'s arguments, a list or tuple of them, a mapping, or keywords.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from models.roberta_tf.cache import as_cache

# Arguments that are no tensors.
SWITCHES = ("use_cache", "output_attentions", "output_hidden_states", "return_dict", "training")


def named_inputs(
    *, order: Sequence[str], model: str, inputs: Any, more: Sequence[Any], named: Mapping[str, Any]
) -> dict[str, Any]:
    """Keyword arguments of call(), None left out, arrays and lists made tensors.

    order: call()'s arguments. Raises ValueError for an unknown name and for a value given twice.
    """
    if isinstance(inputs, Mapping) and not more:
        first = dict(inputs)
    elif isinstance(inputs, list | tuple) and not more and any(_is_array(value) for value in inputs):
        first = _in_order(order, model, inputs)
    else:
        first = _in_order(order, model, [inputs, *more])
    for name in (*first, *named):
        if name not in order:
            raise ValueError(f"{model} has no input '{name}'; it takes {', '.join(order)}")
    first = {name: value for name, value in first.items() if value is not None}
    twice = [name for name, value in named.items() if name in first and value is not None]
    if twice:
        raise ValueError(f"{model} was given '{twice[0]}' twice, by place and by name; leave one out")
    given = {name: value for name, value in {**first, **named}.items() if value is not None}
    mask = given.get("attention_mask")
    for name, value in given.items():
        if name == "past_key_values":
            given[name] = as_cache(value, None if mask is None else to_tensor(mask))
        elif name not in SWITCHES:
            given[name] = to_tensor(value)
        elif _is_array(value) and name != "training":
            given[name] = bool(value)
    return given


def to_tensor(value: Any) -> Any:
    """A tensor as it is (Keras's symbolic ones too), anything else converted."""
    return value if isinstance(value, keras.KerasTensor) or tf.is_tensor(value) else tf.convert_to_tensor(value)


def _in_order(order: Sequence[str], model: str, values: Sequence[Any]) -> dict[str, Any]:
    if len(values) > len(order):
        raise ValueError(f"{model} was given {len(values)} inputs by place; it takes {', '.join(order)}")
    return dict(zip(order, values, strict=False))


def _is_array(value: Any) -> bool:
    return tf.is_tensor(value) or isinstance(value, np.ndarray | keras.KerasTensor)
