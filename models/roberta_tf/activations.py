"""hidden_act's name in, the function out."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf
from tensorflow import Tensor

Activation = Callable[[Tensor], Tensor]


def gelu(hidden: Tensor) -> Tensor:
    """Exact GELU."""
    return tf.nn.gelu(hidden, approximate=False)


def gelu_tanh(hidden: Tensor) -> Tensor:
    """GELU by its tanh approximation."""
    return tf.nn.gelu(hidden, approximate=True)


def gelu_10(hidden: Tensor) -> Tensor:
    """Exact GELU clipped to -10 … 10."""
    return tf.clip_by_value(gelu(hidden), -10, 10)


def quick_gelu(hidden: Tensor) -> Tensor:
    """x · sigmoid(1.702 x)."""
    return hidden * tf.sigmoid(1.702 * hidden)


def relu2(hidden: Tensor) -> Tensor:
    """The square of relu."""
    return tf.square(tf.nn.relu(hidden))


def leaky_relu(hidden: Tensor) -> Tensor:
    """relu with a slope of 0.01 below zero."""
    return tf.nn.leaky_relu(hidden, alpha=0.01)


def mish(hidden: Tensor) -> Tensor:
    """x · tanh(softplus(x))."""
    return hidden * tf.tanh(tf.math.softplus(hidden))


def laplace(hidden: Tensor) -> Tensor:
    """Distribution function of a normal with mean √½ and variance 1/(4π)."""
    return 0.5 * (1.0 + tf.math.erf((hidden - 0.707107) / (0.282095 * 2**0.5)))


def linear(hidden: Tensor) -> Tensor:
    """The identity."""
    return hidden


ACTIVATIONS: dict[str, Activation] = {
    "gelu": gelu,
    "gelu_python": gelu,
    "gelu_new": gelu_tanh,
    "gelu_pytorch_tanh": gelu_tanh,
    "gelu_fast": gelu_tanh,
    "gelu_accurate": gelu_tanh,
    "gelu_10": gelu_10,
    "quick_gelu": quick_gelu,
    "relu": tf.nn.relu,
    "relu2": relu2,
    "relu6": tf.nn.relu6,
    "leaky_relu": leaky_relu,
    "silu": tf.nn.silu,
    "swish": tf.nn.silu,
    "mish": mish,
    "tanh": tf.tanh,
    "sigmoid": tf.sigmoid,
    "linear": linear,
    "laplace": laplace,
}


def activation(hidden_act: Any) -> Activation:
    """The function of a name that `models.checks.check_config` let pass, or the callable itself."""
    function: Activation = ACTIVATIONS[hidden_act] if isinstance(hidden_act, str) else hidden_act
    return function
