"""Reads folders of DinkyTrain (princeton-nlp's efficient_mlm): their config and their tensors' names.

Such folders say model_type "roberta" and name tensors `roberta.…`; every self-attention has a LayerNorm that its code
never used.
"""

from typing import Any

from models.addresses import open_address
from models.config import CONFIG_NAME, RobertaPreLayerNormConfig
from models.errors import CheckpointError
from models.json_object import json_object
from models.tensors import PREFIX, UNUSED, neutral_names

THEIR_PREFIX = "roberta."
UNUSED_NORMS = (".attention.self.LayerNorm.weight", ".attention.self.LayerNorm.bias")
THEIR_TYPES = ("roberta", RobertaPreLayerNormConfig.model_type)


def is_dinkytrain(url: str, names: list[str]) -> bool:
    """Whether config.json or the tensors' names are of that kind."""
    model_type = _fields(url).get("model_type", "roberta")
    if model_type == RobertaPreLayerNormConfig.model_type:
        return any(name.startswith(THEIR_PREFIX) for name in names)
    return model_type == "roberta" and not {"LayerNorm.weight", THEIR_PREFIX + "LayerNorm.weight"}.isdisjoint(names)


def dinkytrain_config(url: str) -> RobertaPreLayerNormConfig:
    """config.json read as this model's. Raises CheckpointError for another model's."""
    fields = _fields(url)
    found = fields.pop("model_type", "roberta")
    if found not in THEIR_TYPES:
        raise CheckpointError(f"{url}: {CONFIG_NAME} says model_type '{found}', not 'roberta'; it is another model")
    for name in ("architectures", "auto_map", "transformers_version", "_name_or_path"):
        fields.pop(name, None)
    try:
        return RobertaPreLayerNormConfig.from_dict(fields)
    except (ValueError, TypeError, AttributeError, KeyError, OverflowError) as error:
        raise CheckpointError(f"{url}: {CONFIG_NAME} is not valid: {error}; fix {CONFIG_NAME}") from None


def dinkytrain_names(url: str, names: list[str]) -> tuple[dict[str, str], dict[str, str]]:
    """(neutral name -> stored name, dropped stored name -> why). Raises CheckpointError for plain RoBERTa."""
    dropped = {name: "a LayerNorm that was never used" for name in names if name.endswith(UNUSED_NORMS)}
    dropped |= {name: "a counter, made anew" for name in names if name.endswith(UNUSED)}
    dressed = {_dressed(name): name for name in names if name not in dropped}
    if PREFIX + "LayerNorm.weight" not in dressed and "LayerNorm.weight" not in dressed:
        raise CheckpointError(
            f"{url}: no '{THEIR_PREFIX}LayerNorm.weight': it is plain RoBERTa, which normalises after each layer; "
            f"{CONFIG_NAME} must say model_type 'roberta'"
        )
    try:
        return {new: dressed[old] for old, new in neutral_names(list(dressed)).items()}, dropped
    except ValueError as error:
        raise CheckpointError(f"{url}: {error}") from None


def _dressed(name: str) -> str:
    return PREFIX + name.removeprefix(THEIR_PREFIX) if name.startswith(THEIR_PREFIX) else name


def _fields(url: str) -> dict[str, Any]:
    system, folder = open_address(url)
    return json_object(system.cat_file(f"{folder}/{CONFIG_NAME}"), where=f"{url}: {CONFIG_NAME}")
