"""hidden_act's name in, the function out."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import nn

from models.roberta_flax.layers import Array

Activation = Callable[[Array], Array]


def gelu(hidden: Array) -> Array:
    """Exact GELU."""
    return nn.gelu(hidden, approximate=False)


def gelu_tanh(hidden: Array) -> Array:
    """GELU by its tanh approximation."""
    return nn.gelu(hidden, approximate=True)


def gelu_10(hidden: Array) -> Array:
    """Exact GELU clipped to -10 … 10."""
    return jnp.clip(gelu(hidden), -10, 10)


def quick_gelu(hidden: Array) -> Array:
    """x · sigmoid(1.702 x)."""
    return hidden * nn.sigmoid(1.702 * hidden)


def relu2(hidden: Array) -> Array:
    """The square of relu."""
    return jnp.square(nn.relu(hidden))


def laplace(hidden: Array) -> Array:
    """Distribution function of a normal with mean √½ and variance 1/(4π)."""
    return 0.5 * (1.0 + jax.scipy.special.erf((hidden - 0.707107) / (0.282095 * 2**0.5)))


def linear(hidden: Array) -> Array:
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
    "relu": nn.relu,
    "relu2": relu2,
    "relu6": nn.relu6,
    "leaky_relu": nn.leaky_relu,
    "silu": nn.silu,
    "swish": nn.silu,
    "mish": nn.mish,
    "tanh": jnp.tanh,
    "sigmoid": nn.sigmoid,
    "linear": linear,
    "laplace": laplace,
}


def activation(hidden_act: Any) -> Activation:
    """The function of a name that `models.checks.check_config` let pass, or the callable itself."""
    function: Activation = ACTIVATIONS[hidden_act] if isinstance(hidden_act, str) else hidden_act
    return function
