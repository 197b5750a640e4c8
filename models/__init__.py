"""The public classes: the config and the seven model classes in each of the three frameworks.

`from models import TFRobertaPreLayerNormForMaskedLM` imports TensorFlow, and nothing else does: a framework is imported
when one of its names is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from models.config import RobertaPreLayerNormConfig

KINDS = (
    "Model",
    "ForCausalLM",
    "ForMaskedLM",
    "ForSequenceClassification",
    "ForMultipleChoice",
    "ForTokenClassification",
    "ForQuestionAnswering",
)
FOLDERS = {"": "roberta_torch", "TF": "roberta_tf", "Flax": "roberta_flax"}
EXTRAS = {"roberta_torch": "torch", "roberta_tf": "tensorflow", "roberta_flax": "flax"}
PLACES = {
    f"{prefix}RobertaPreLayerNorm{kind}": f"models.{folder}" for prefix, folder in FOLDERS.items() for kind in KINDS
} | {"RobertaPreLayerNormConfig": "models.config"}

__all__ = ["RobertaPreLayerNormConfig", *(name for name in PLACES if name != "RobertaPreLayerNormConfig")]


def __getattr__(name: str) -> Any:
    if name not in PLACES:
        raise AttributeError(f"models has no '{name}'; it has {', '.join(PLACES)}")
    try:
        return getattr(importlib.import_module(PLACES[name]), name)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("models"):
            raise
        extra = EXTRAS[PLACES[name].removeprefix("models.")]
        raise ImportError(f"{name} needs '{error.name}'; pip install 'preln[{extra}]'") from None


def __dir__() -> list[str]:
    return sorted([*globals(), *PLACES])
