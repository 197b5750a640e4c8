"""hidden_act's name in, the function out."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

Activation = Callable[[Tensor], Tensor]


def gelu_tanh(hidden: Tensor) -> Tensor:
    """GELU by its tanh approximation."""
    return functional.gelu(hidden, approximate="tanh")


def gelu_10(hidden: Tensor) -> Tensor:
    """Exact GELU clipped to -10 … 10."""
    return torch.clip(functional.gelu(hidden), -10, 10)


def quick_gelu(hidden: Tensor) -> Tensor:
    """x · sigmoid(1.702 x)."""
    return hidden * torch.sigmoid(1.702 * hidden)


def relu2(hidden: Tensor) -> Tensor:
    """The square of relu."""
    return torch.square(functional.relu(hidden))


def laplace(hidden: Tensor) -> Tensor:
    """Distribution function of a normal with mean √½ and variance 1/(4π)."""
    return 0.5 * (1.0 + torch.erf((hidden - 0.707107) / (0.282095 * 2**0.5)))


def linear(hidden: Tensor) -> Tensor:
    """The identity."""
    return hidden


ACTIVATIONS: dict[str, Activation] = {
    "gelu": functional.gelu,
    "gelu_python": functional.gelu,
    "gelu_new": gelu_tanh,
    "gelu_pytorch_tanh": gelu_tanh,
    "gelu_fast": gelu_tanh,
    "gelu_accurate": gelu_tanh,
    "gelu_10": gelu_10,
    "quick_gelu": quick_gelu,
    "relu": functional.relu,
    "relu2": relu2,
    "relu6": functional.relu6,
    "leaky_relu": functional.leaky_relu,
    "silu": functional.silu,
    "swish": functional.silu,
    "mish": functional.mish,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "linear": linear,
    "laplace": laplace,
}


def activation(hidden_act: Any) -> Activation:
    """The function of a name that `models.checks.check_config` let pass, or the callable itself."""
    function: Activation = ACTIVATIONS[hidden_act] if isinstance(hidden_act, str) else hidden_act
    return function
