"""The model families by `model_type`: where their norms are, and their names in checkpoints.

All share one encoder; a family differs in where the norms are and in names. models.tensors has the names of tensors.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

NormPlace: TypeAlias = Literal["pre", "post"]
NamesColumn: TypeAlias = Literal["roberta-prelayernorm", "roberta", "xlm-roberta-xl"]

PRE_LAYER_NORM = "roberta-prelayernorm"


@dataclass(frozen=True)
class Family:
    """One `model_type`.

    norm: before what a sub-layer does ("pre", with one more norm after the last layer), or after its residual ("post").
    embeddings_norm: whether the sum of the embeddings is normalised. class_prefix: of its class names in
    `architectures`. names: which column of models.tensors its files follow. defaults: of the reference's config class,
    where they are not RobertaPreLayerNorm's.
    """

    model_type: str
    norm: NormPlace
    embeddings_norm: bool
    class_prefix: str
    names: NamesColumn
    defaults: Mapping[str, Any] = field(default_factory=dict)

    @property
    def final_norm(self) -> bool:
        """Whether a norm follows the last layer."""
        return self.norm == "pre"


FAMILIES: Mapping[str, Family] = {
    family.model_type: family
    for family in (
        Family(PRE_LAYER_NORM, "pre", True, "RobertaPreLayerNorm", "roberta-prelayernorm"),
        Family("roberta", "post", True, "Roberta", "roberta"),
        Family("xlm-roberta", "post", True, "XLMRoberta", "roberta", {"vocab_size": 30522}),
        Family("camembert", "post", True, "Camembert", "roberta", {"vocab_size": 30522}),
        Family(
            "xlm-roberta-xl",
            "pre",
            False,
            "XLMRobertaXL",
            "xlm-roberta-xl",
            {
                "vocab_size": 250880,
                "hidden_size": 2560,
                "num_hidden_layers": 36,
                "num_attention_heads": 32,
                "intermediate_size": 10240,
                "max_position_embeddings": 514,
                "type_vocab_size": 1,
                "layer_norm_eps": 1e-5,
            },
        ),
    )
}

_EVERY_FAMILY: ContextVar[bool] = ContextVar("every_family", default=False)


@contextmanager
def every_family() -> Iterator[None]:
    """A context in which the classes of RobertaPreLayerNorm build models of every family, as `load()` and training do."""
    token = _EVERY_FAMILY.set(True)
    try:
        yield
    finally:
        _EVERY_FAMILY.reset(token)


def check_class_family(model_type: str, *, class_name: str) -> None:
    """Raise ValueError if a public class is given another family's config."""
    if model_type != PRE_LAYER_NORM and not _EVERY_FAMILY.get():
        raise ValueError(
            f"{class_name} is for model_type '{PRE_LAYER_NORM}', this is '{model_type}'; models.load.load() and "
            "`preln annotate` take it"
        )
