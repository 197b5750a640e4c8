"""Converts a config to ours: transformers' own, a dict, the path of a config.json, or an object with its fields."""

import os
from collections.abc import Mapping
from typing import Any

from models.config import RobertaPreLayerNormConfig


def as_config(config: Any) -> RobertaPreLayerNormConfig:
    """Ours as it is; of any other a copy with its fields, so that later changes of the original are not seen.

    Raises ValueError for the config of another model, TypeError for what is no config.
    """
    if isinstance(config, RobertaPreLayerNormConfig):
        return config
    if isinstance(config, str | os.PathLike):
        return RobertaPreLayerNormConfig.from_pretrained(os.fspath(config))
    fields = _fields(config)
    if not {"hidden_size", "vocab_size", "model_type"} & set(fields):
        raise TypeError(
            f"config is of type {type(config).__name__}, without the fields of a model; give a RobertaPreLayerNormConfig"
        )
    return RobertaPreLayerNormConfig.from_dict({name: value for name, value in fields.items() if name[0] != "_"})


def _fields(config: Any) -> Mapping[str, Any]:
    if isinstance(config, Mapping):
        return config
    for name in ("to_diff_dict", "to_dict"):  # the first leaves out what every model of the reference has by default
        if callable(getattr(config, name, None)):
            found: Mapping[str, Any] = getattr(config, name)()
            return found
    return getattr(config, "__dict__", {})
