"""A layer of the seed classes in, the same layer over flat tokens out: fewer, larger products, prepared for the processor.

Queries, keys and values are one product. On a CPU weights are laid out once as oneDNN multiplies them, where it can.
Legend: T packed tokens, K asked tokens, H hidden size, I intermediate size, A heads x width of one head, O outputs.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.roberta_torch.attention import RobertaPreLayerNormSelfAttention
from models.roberta_torch.encoder import RobertaPreLayerNormLayer

TYPICAL_TOKENS = 1_024  # oneDNN lays weights out for about so many rows


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


def can_prepack(weight_OH: Tensor) -> bool:
    """Whether this torch, on this processor, multiplies weights of this type that were laid out beforehand."""
    if weight_OH.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    if weight_OH.dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return weight_OH.dtype == torch.float32


class FlatLayer:
    """Attention's products and everything that is done token by token; attention itself is given.

    last: of the last layer queries may be wanted of few tokens, so that they are a product of their own.
    """

    def __init__(self, layer: RobertaPreLayerNormLayer, *, last: bool) -> None:
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
        self.norm_before_attention = layer.attention.LayerNorm
        self.norm_before_widening = layer.intermediate.LayerNorm

    def parts(self, hidden_TH: Tensor, asked_K: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries [T, A], or [K, A] of the asked tokens, keys and values [T, A]; views, side by side in memory."""
        normed_TH = self.norm_before_attention(hidden_TH)
        if self.query_key_value is not None:
            query_TA, key_TA, value_TA = self.query_key_value(normed_TH).chunk(3, dim=-1)
            return query_TA, key_TA, value_TA
        key_TA, value_TA = self.key_value(normed_TH).chunk(2, dim=-1)
        return self.query(normed_TH if asked_K is None else normed_TH[asked_K]), key_TA, value_TA

    def feed(self, hidden_TH: Tensor, context_TA: Tensor) -> Tensor:
        """The rest of the layer [T, H], from what each token attended to; `hidden_TH` is overwritten."""
        hidden_TH += self.projection(context_TA)
        wide_TI = self.activation(self.widen(self.norm_before_widening(hidden_TH)))
        hidden_TH += self.narrow(wide_TI)
        return hidden_TH
