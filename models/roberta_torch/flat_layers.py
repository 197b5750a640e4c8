"""A layer of the seed classes in, the same layer over flat tokens out: fewer, larger products, prepared for the processor.

Queries, keys and values are one product. On a CPU weights are laid out once as oneDNN multiplies them, where it can, and
exact GELU and the residual sum are done while the product is still in registers, before it is rounded.
Legend: T packed tokens, K asked tokens, H hidden size, I intermediate size, A heads x width of one head, O outputs.
"""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.roberta_torch.activations import Activation
from models.roberta_torch.attention import RobertaPreLayerNormSelfAttention
from models.roberta_torch.encoder import RobertaPreLayerNormLayer
from models.roberta_torch.flat_parts import TokenParts

TYPICAL_TOKENS = 1_024  # oneDNN lays weights out for about so many rows
MKL_TOKENS = 1_024  # a pass of more is slower, if MKL multiplies


class FlatLinear:
    """x·Wᵀ + b. The modules' own weights are given up where a prepared copy takes their place."""

    def __init__(self, *linears: nn.Linear) -> None:
        self.weight_OH, self.bias_O = linears[0].weight.detach(), linears[0].bias.detach()
        if len(linears) > 1:
            self.weight_OH = torch.cat([linear.weight.detach() for linear in linears])
            self.bias_O = torch.cat([linear.bias.detach() for linear in linears])
        self.packed: Tensor | None = None
        if can_prepack(self.weight_OH):
            self.packed = torch.ops.mkldnn._reorder_linear_weight(self.weight_OH, TYPICAL_TOKENS)
            self.weight_OH = self.weight_OH.new_empty(0)
        if self.packed is not None or len(linears) > 1:
            for linear in linears:
                linear.register_parameter("weight", None)
                linear.register_parameter("bias", None)

    def __call__(self, rows_TH: Tensor) -> Tensor:
        """[T, H] -> [T, O]."""
        if self.packed is None:
            return functional.linear(rows_TH, self.weight_OH, self.bias_O)
        product_TO: Tensor = torch.ops.mkldnn._linear_pointwise(rows_TH, self.packed, self.bias_O, "none", [], "")
        return product_TO

    def without_bias(self, rows_TH: Tensor) -> Tensor:
        """The bare product, [T, H] -> [T, O]."""
        if self.packed is None:
            return functional.linear(rows_TH, self.weight_OH)
        product_TO: Tensor = torch.ops.mkldnn._linear_pointwise(rows_TH, self.packed, None, "none", [], "")
        return product_TO

    def activated(self, rows_TH: Tensor, activation: Activation) -> Tensor:
        """The activation of it, [T, H] -> [T, O]."""
        if self.packed is None or activation is not functional.gelu:
            return activation(self(rows_TH))
        # "none": no approximation.
        wide_TO: Tensor = torch.ops.mkldnn._linear_pointwise(rows_TH, self.packed, self.bias_O, "gelu", [], "none")
        return wide_TO

    def added(self, rows_TH: Tensor, sum_TO: Tensor) -> Tensor:
        """It and `sum_TO`, [T, H] -> [T, O]."""
        if self.packed is None:
            return self(rows_TH).add_(sum_TO)
        whole_TO: Tensor = torch.ops.mkldnn._linear_pointwise.binary(rows_TH, sum_TO, self.packed, self.bias_O, "add")
        return whole_TO


def can_prepack(weight_OH: Tensor) -> bool:
    """Whether this torch, on this processor, multiplies weights of this type that were laid out beforehand."""
    if weight_OH.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    if weight_OH.dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return weight_OH.dtype == torch.float32 and not mkl_is_faster()


def mkl_is_faster() -> bool:
    """Whether this processor has AVX2 but not AVX-512: there MKL's plain float32 product and a GELU after it take less time than
    oneDNN's prepared product, with GELU in it or without (docs/benchmarks.md)."""
    return torch.backends.mkl.is_available() and torch.backends.cpu.get_cpu_capability() == "AVX2"


class FlatLayer:
    """Attention's products and everything that is done token by token; attention itself is given.

    norm_after: what reads this layer's output first: the next layer's LayerNorm, or the model's last one (pre-norm only).
    last: of the last layer queries may be wanted of few tokens, so that they are a product of their own.
    """

    def __init__(self, layer: RobertaPreLayerNormLayer, *, norm_after: nn.Module, last: bool) -> None:
        self.attention: RobertaPreLayerNormSelfAttention = layer.attention.inner
        self.query_key_value: FlatLinear | None = None
        if last:
            self.query = FlatLinear(self.attention.query)
            self.key_value = FlatLinear(self.attention.key, self.attention.value)
        else:
            self.query_key_value = FlatLinear(self.attention.query, self.attention.key, self.attention.value)
        self.projection = FlatLinear(layer.attention.output.dense)
        self.widen = FlatLinear(layer.intermediate.dense)
        self.narrow = FlatLinear(layer.output.dense)
        self.activation = layer.intermediate.activation
        # In a post-norm family a layer's own norms follow its two sums, and what they give is the residual too.
        self.before = layer.attention.LayerNorm.before
        self.norm_before_widening = layer.intermediate.LayerNorm if self.before else layer.attention.LayerNorm
        self.norm_after = cast("nn.LayerNorm", norm_after) if self.before else layer.intermediate.LayerNorm

    def parts(self, normed_TH: Tensor, asked_K: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries [T, A], or [K, A] of the asked tokens, keys and values [T, A]; views, side by side in memory."""
        if self.query_key_value is not None:
            query_TA, key_TA, value_TA = self.query_key_value(normed_TH).chunk(3, dim=-1)
            return query_TA, key_TA, value_TA
        key_TA, value_TA = self.key_value(normed_TH).chunk(2, dim=-1)
        return self.query(normed_TH if asked_K is None else normed_TH[asked_K]), key_TA, value_TA

    def feed(self, hidden_TH: Tensor, context_TA: Tensor, compiled: TokenParts | None = None) -> tuple[Tensor, Tensor]:
        """The rest of the layer [T, H], from what each token attended to, as it is and after `norm_after`.

        compiled: what is done between the products, in fewer kernels.
        """
        if compiled is None:
            hidden_TH = self.projection.added(context_TA, hidden_TH)
            hidden_TH, normed_TH = self.residual(hidden_TH, self.norm_before_widening(hidden_TH))
            wide_TI = self.widen.activated(normed_TH, self.activation)
            hidden_TH = self.narrow.added(wide_TI, hidden_TH)
            return self.residual(hidden_TH, self.norm_after(hidden_TH))
        summed = compiled.sum_and_norm(hidden_TH, self.projection(context_TA), self.norm_before_widening)
        hidden_TH, normed_TH = self.residual(*summed)
        wide_TI = compiled.activate(self.widen.without_bias(normed_TH), self.widen.bias_O)
        return self.residual(*compiled.sum_and_norm(hidden_TH, self.narrow(wide_TI), self.norm_after))

    def residual(self, sum_TH: Tensor, normed_TH: Tensor) -> tuple[Tensor, Tensor]:
        """(what the next sum adds to, what the next product reads): after a sum and its norm."""
        return (sum_TH, normed_TH) if self.before else (normed_TH, normed_TH)
