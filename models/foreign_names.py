"""Translates TensorFlow's and Flax's names of tensors to neutral names and back, and says which are transposed.

A kernel is a linear layer's weight transposed; everything else is stored alike. The names are those that transformers'
TensorFlow and Flax classes save.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

ForeignFormat: TypeAlias = Literal["tf", "flax"]

# Modules whose `weight` is no linear layer's, by ending, with the leaf's name in each format.
NORM_ENDINGS = ("LayerNorm", "layer_norm", "self_attn_layer_norm")
TF_TABLES = {
    "word_embeddings": "weight",
    "position_embeddings": "embeddings",
    "token_type_embeddings": "embeddings",
    "distance_embedding": "embeddings",
}


@dataclass(frozen=True)
class ForeignName:
    """A tensor's name in the other format, and whether it is stored there transposed."""

    name: str
    transposed: bool


def to_foreign(*, name: str, stored_format: ForeignFormat) -> ForeignName:
    """Neutral name -> the other format's path, e.g. `lm_head/dense/kernel:0` (tf) or `lm_head.dense.kernel` (flax)."""
    owner, _, leaf = name.rpartition(".")
    module = owner.rpartition(".")[2]
    transposed = leaf == "weight" and module not in NORM_ENDINGS and module not in TF_TABLES
    if stored_format == "flax":
        table = {"bias": "bias", "weight": "kernel"}
        if module in NORM_ENDINGS:
            table["weight"] = "scale"
        elif module in TF_TABLES:
            table["weight"] = "embedding"
        return ForeignName(name=f"{owner}.{table[leaf]}", transposed=transposed)
    table = {"bias": "bias", "weight": TF_TABLES.get(module, "kernel")}
    if module in NORM_ENDINGS:
        table = {"bias": "beta", "weight": "gamma"}
    path = f"{owner}.{table[leaf]}".replace(".", "/").replace("/layer/", "/layer_._")
    return ForeignName(name=f"{path}:0", transposed=transposed)


def to_neutral(*, name: str, stored_format: ForeignFormat) -> ForeignName:
    """The other format's path -> torch's name (with or without the prefix, as it was), and whether to transpose."""
    path = name.removesuffix(":0").replace("_._", ".").replace("/", ".")
    owner, _, leaf = path.rpartition(".")
    leaves = {"kernel": "weight", "gamma": "weight", "beta": "bias", "embeddings": "weight"}
    if stored_format == "flax":
        leaves = {"kernel": "weight", "scale": "weight", "embedding": "weight"}
    return ForeignName(name=f"{owner}.{leaves.get(leaf, leaf)}", transposed=leaf == "kernel")
