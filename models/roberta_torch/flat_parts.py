"""An activation and a LayerNorm's width in, what is done token by token between products out, compiled into one kernel each.

It saves a GPU reading and writing every token between a sum, a norm, a bias and an activation. PyTorch's Inductor compiles
it, once, for any number of tokens; it needs Triton on a GPU and a C++ compiler on a CPU.
Legend: T packed tokens, H hidden size, I intermediate size.
"""

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.roberta_torch.activations import Activation

logger = logging.getLogger(__name__)

FEW_TOKENS = 2  # below, PyTorch would compile for just that number
TRIED_TOKENS = 24


class TokenParts:
    """The compiled functions. Answers differ from the uncompiled ones by rounding: between sum and norm nothing is rounded."""

    def __init__(self, *, activation: Activation, eps: float) -> None:
        def sum_and_norm(
            hidden_TH: Tensor, product_TH: Tensor, weight_H: Tensor, bias_H: Tensor
        ) -> tuple[Tensor, Tensor]:
            sum_TH = hidden_TH + product_TH
            return sum_TH, functional.layer_norm(sum_TH, weight_H.shape, weight_H, bias_H, eps)

        def activate(product_TI: Tensor, bias_I: Tensor) -> Tensor:
            return activation(product_TI + bias_I)

        # One process compiles: a pool of compilers is not worth its start for two functions.
        compiled: Callable[[Any], Any] = torch.compile(fullgraph=True, options={"compile_threads": 1})
        self._plain_sum_and_norm, self._sum_and_norm = sum_and_norm, compiled(sum_and_norm)
        self._plain_activate, self._activate = activate, compiled(activate)

    def sum_and_norm(self, hidden_TH: Tensor, product_TH: Tensor, norm: nn.LayerNorm) -> tuple[Tensor, Tensor]:
        """(hidden + product, the norm of it), both [T, H]."""
        function = self._plain_sum_and_norm if len(hidden_TH) < FEW_TOKENS else self._sum_and_norm
        summed: tuple[Tensor, Tensor] = function(hidden_TH, product_TH, norm.weight, norm.bias)
        return summed

    def activate(self, product_TI: Tensor, bias_I: Tensor) -> Tensor:
        """The activation of product + bias, [T, I]."""
        function = self._plain_activate if len(product_TI) < FEW_TOKENS else self._activate
        wide_TI: Tensor = function(product_TI, bias_I)
        return wide_TI

    def compile(self, *, norm: nn.LayerNorm, bias_I: Tensor) -> None:
        """Compile now, for the norm's and the bias' widths, type and device. Raises what the compiler raises."""
        with torch.inference_mode():
            hidden_TH = norm.weight.new_zeros((TRIED_TOKENS, len(norm.weight)))
            wide_TI = bias_I.new_zeros((TRIED_TOKENS, len(bias_I)))
            # Only the number of tokens is left open.
            product_TH = hidden_TH.clone()
            for tensor in (hidden_TH, product_TH, wide_TI):
                torch._dynamo.mark_dynamic(tensor, 0)
            self.sum_and_norm(hidden_TH, product_TH, norm)
            self.activate(wide_TI, bias_I)


def compiled_parts(*, activation: Activation, norm: nn.LayerNorm, bias_I: Tensor) -> TokenParts | None:
    """The parts, compiled; None, and the reason in the log, where PyTorch can't."""
    try:
        parts = TokenParts(activation=activation, eps=norm.eps)
        parts.compile(norm=norm, bias_I=bias_I)
    except Exception as error:  # a compiler, Triton or a driver may be missing in as many ways; answers don't need them
        reason = " ".join(str(error).split("\n", 2)[:2])
        logger.warning(
            "norms and activations run uncompiled on %s: PyTorch could not compile them (%s: %s); answers are the same, "
            "a GPU is slower; install what it names to change that",
            bias_I.device,
            type(error).__name__,
            reason,
        )
        return None
    return parts
