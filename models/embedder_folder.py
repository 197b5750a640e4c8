"""Reads how a sentence-transformers folder turns tokens into one vector.

From modules.json, the pooling's config.json, sentence_bert_config.json and config_sentence_transformers.json. What has no
counterpart here is named in `refusal` rather than guessed. Source: sentence-transformers 6.2.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from models.addresses import open_address
from models.errors import CheckpointError
from models.json_object import json_value

Pooling: TypeAlias = Literal["cls", "mean"]

MODULES = "modules.json"
SIZES = ("sentence_bert_config.json", "sentence_roberta_config.json", "sentence_xlm-roberta_config.json")
PROMPTS = "config_sentence_transformers.json"
POOLINGS: Mapping[str, Pooling] = {"pooling_mode_cls_token": "cls", "pooling_mode_mean_tokens": "mean"}
MODES: Mapping[str, Pooling] = {"cls": "cls", "mean": "mean"}

_PLAIN_NAME = re.compile(r"\w[\w.-]{0,99}", re.ASCII)
"""A module's folder is one beside modules.json: its name leads nowhere else, and no file system finds it too long."""


@dataclass(frozen=True)
class Embedder:
    """How a folder's vectors are made.

    pooling, normalize: how tokens become a vector. max_length: tokens with specials, None without a limit of its own.
    prompts: name -> text that is put before a text. default_prompt: the name of the one that is used by default.
    include_prompt: whether the mean includes the prompt's tokens. refusal: what preln does not support of it.
    """

    pooling: Pooling = "mean"
    normalize: bool = False
    max_length: int | None = None
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str | None = None
    include_prompt: bool = True
    refusal: str | None = None


def read_embedder(url: str) -> Embedder | None:
    """The folder's embedder; None if it is not a sentence-transformers folder. Raises CheckpointError."""
    try:
        return _read_embedder(url)
    except CheckpointError:
        raise
    except (TypeError, KeyError, AttributeError, ValueError, OverflowError) as error:
        raise CheckpointError(
            f"{url}: its sentence-transformers settings have a value of another type than they must ({error}); copy them again"
        ) from None


def _read_embedder(url: str) -> Embedder | None:
    system, folder = open_address(url)

    def read(name: str) -> Any:
        try:
            content = system.cat_file(f"{folder}/{name}")
        except FileNotFoundError:
            return None
        return json_value(content, where=f"{url}: {name}")

    modules = read(MODULES)
    if modules is None:
        return None
    try:
        kinds = [(str(module["type"]).rpartition(".")[2], str(module.get("path", ""))) for module in modules]
    except (TypeError, KeyError, AttributeError):
        raise CheckpointError(f"{url}: {MODULES} is no list of modules; copy it again") from None
    outside = next((path for _, path in kinds if path and not _PLAIN_NAME.fullmatch(path)), None)
    if outside is not None:
        raise CheckpointError(
            f"{url}: {MODULES} names the folder {outside!r}; a module's folder has a plain name, such as 1_Pooling"
        )
    sizes: dict[str, Any] = next((found for found in map(read, SIZES) if isinstance(found, dict)), {})
    prompt_settings: dict[str, Any] = read(PROMPTS) or {}
    pooling_path = next((path for kind, path in kinds if kind == "Pooling"), None)
    settings: dict[str, Any] = {} if pooling_path is None else read(f"{pooling_path}/config.json") or {}
    pooling, limit, default = (
        _pooling(settings),
        sizes.get("max_seq_length"),
        prompt_settings.get("default_prompt_name"),
    )
    prompts = {str(name): str(text) for name, text in (prompt_settings.get("prompts") or {}).items()}
    refusal = _unknown_modules(kinds)
    if pooling not in ("cls", "mean"):
        refusal = refusal or pooling
    if sizes.get("do_lower_case"):
        refusal = refusal or "do_lower_case in sentence_bert_config.json"
    if default is not None and default not in prompts:
        refusal = refusal or f"default_prompt_name '{default}', which is none of its prompts"
    return Embedder(
        pooling="cls" if pooling == "cls" else "mean",
        normalize=any(kind == "Normalize" for kind, _ in kinds),
        max_length=_length(limit),
        prompts=prompts,
        default_prompt=default,
        include_prompt=bool(settings.get("include_prompt", True)),
        refusal=refusal,
    )


def _length(limit: Any) -> int | None:
    if not limit:
        return None
    if not isinstance(limit, int | float) or limit < 1:
        raise ValueError(f"max_seq_length is {limit!r}")
    return int(limit)


def _unknown_modules(kinds: Sequence[tuple[str, str]]) -> str | None:
    """The first module that is not one of Transformer, Pooling, Normalize in this order."""
    names = [kind for kind, _ in kinds]
    if names[:2] != ["Transformer", "Pooling"]:
        return f"modules {', '.join(names)}"
    if kinds[0][1]:
        return f"a Transformer in a folder of its own ('{kinds[0][1]}')"
    if names[2:] not in ([], ["Normalize"]):
        return f"the module '{', '.join(names[2:])}'"
    return None


def _pooling(settings: Mapping[str, Any]) -> str:
    """ "cls", "mean", or what else the config names."""
    if "pooling_mode" in settings:  # since 6.0: one name, or several joined
        mode = settings["pooling_mode"]
        modes = [mode] if isinstance(mode, str) else list(mode)
        return MODES[modes[0]] if len(modes) == 1 and modes[0] in MODES else f"pooling_mode {mode}"
    chosen = [name for name, on in settings.items() if name.startswith("pooling_mode_") and on]
    if not chosen:
        return "mean"
    return POOLINGS[chosen[0]] if len(chosen) == 1 and chosen[0] in POOLINGS else " with ".join(chosen)
