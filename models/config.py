"""The config of a model: its sizes and switches, from config.json or keywords; imports no framework.

It serves all families: `model_type` decides where the norms are (models.families).

A plain class rather than a frozen one: code written for the reference sets `config.is_decoder = True` after building.
Settings that can't work together are refused when a model is built (`models.checks.check_config`).
Source: spec of transformers 4.57.6's RobertaPreLayerNormConfig; published checkpoints differ from the defaults.
"""

import json
import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from models.addresses import open_address
from models.errors import CheckpointError
from models.families import FAMILIES, PRE_LAYER_NORM, Family
from models.hub import HubOptions, checkpoint_folder
from models.json_object import json_object

PROBLEM_TYPES = ("regression", "single_label_classification", "multi_label_classification")
POSITION_TYPES = ("absolute", "relative_key", "relative_key_query")
CONFIG_NAME = "config.json"

Json: TypeAlias = dict[str, Any]

# The model's own fields: always written to config.json.
OWN_DEFAULTS: Json = {
    "vocab_size": 50265,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-12,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "position_embedding_type": "absolute",
    "use_cache": True,
    "classifier_dropout": None,
}

# Fields that every model has: written only where they differ from these.
INHERITED_DEFAULTS: Json = {
    "is_decoder": False,
    "add_cross_attention": False,
    "chunk_size_feed_forward": 0,
    "tie_word_embeddings": True,
    "problem_type": None,
    "output_attentions": False,
    "output_hidden_states": False,
    "return_dict": True,
    "torchscript": False,
    "pruned_heads": {},
    "tf_legacy_loss": False,
    "dtype": None,
    "architectures": None,
}


MOST_LABELS = 1_000_000
"""A name is made for each label that has none, before any tensor is looked at."""


class RobertaPreLayerNormConfig:
    """Sizes and switches of one model; every keyword is an attribute, unknown ones too.

    Raises ValueError for a `problem_type` or `position_embedding_type` that does not exist.
    """

    model_type = PRE_LAYER_NORM

    # Read by the reference's pipelines; never written to config.json unless set.
    _commit_hash: str | None = None
    task_specific_params: Any = None
    prefix: str | None = None

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    hidden_act: Any
    hidden_dropout_prob: float
    attention_probs_dropout_prob: float
    max_position_embeddings: int
    type_vocab_size: int
    initializer_range: float
    layer_norm_eps: float
    pad_token_id: int
    bos_token_id: int
    eos_token_id: int
    position_embedding_type: str
    use_cache: bool
    classifier_dropout: float | None
    is_decoder: bool
    add_cross_attention: bool
    chunk_size_feed_forward: int
    tie_word_embeddings: bool
    problem_type: str | None
    output_attentions: bool
    output_hidden_states: bool
    return_dict: bool
    torchscript: bool
    pruned_heads: dict[int, list[int]]
    tf_legacy_loss: bool
    dtype: str | None
    architectures: list[str] | None
    id2label: dict[int, str]
    label2id: dict[str, int]

    def __init__(
        self,
        *,
        num_labels: int | None = None,
        id2label: Mapping[int | str, str] | None = None,
        label2id: Mapping[str, int] | None = None,
        **fields: Any,
    ) -> None:
        """Set every field of OWN_DEFAULTS and INHERITED_DEFAULTS from the keywords, and keep the other keywords.

        num_labels: how many labels; LABEL_0 … are made. Where `id2label` names another number, `id2label` wins.
        """
        torch_dtype = fields.pop("torch_dtype", None)
        model_type = fields.pop("model_type", None) or PRE_LAYER_NORM
        _check_choice("model_type", model_type, tuple(FAMILIES))
        if model_type != PRE_LAYER_NORM:
            self.model_type = model_type
        if fields.get("dtype") is None:
            fields["dtype"] = torch_dtype
        for name, default in {**OWN_DEFAULTS, **INHERITED_DEFAULTS, **self.family.defaults}.items():
            setattr(self, name, fields.pop(name, dict(default) if isinstance(default, dict) else default))
        self.dtype = None if self.dtype is None else str(self.dtype).removeprefix("torch.")
        self.pruned_heads = {int(layer): sorted(set(heads)) for layer, heads in self.pruned_heads.items()}
        self._set_labels(num_labels, id2label, label2id)
        for name, value in fields.items():
            setattr(self, name, value)
        _check_choice("problem_type", self.problem_type, (None, *PROBLEM_TYPES))
        _check_choice("position_embedding_type", self.position_embedding_type, POSITION_TYPES)
        self._check_family()

    def _set_labels(
        self, num_labels: int | None, id2label: Mapping[int | str, str] | None, label2id: Mapping[str, int] | None
    ) -> None:
        """id2label decides the number of labels where both are given, with a warning if num_labels differs."""
        if id2label is None:
            self.num_labels = 2 if num_labels is None else num_labels
            if label2id is not None and len(label2id) == self.num_labels:
                self.label2id = dict(label2id)
            return
        if num_labels is not None and num_labels != len(id2label):
            warnings.warn(
                f"num_labels={num_labels}, but id2label names {len(id2label)} labels: {len(id2label)} are used; "
                "leave one of them out",
                stacklevel=3,
            )
        self.id2label = {int(label_id): label for label_id, label in id2label.items()}
        self.label2id = dict(label2id) if label2id else {label: i for i, label in self.id2label.items()}

    def _check_family(self) -> None:
        if self.model_type == PRE_LAYER_NORM:
            return
        if self.position_embedding_type != "absolute":
            raise ValueError(
                f"position_embedding_type is '{self.position_embedding_type}'; model_type '{self.model_type}' has only "
                "'absolute' positions here"
            )
        if self.add_cross_attention:
            raise ValueError(f"add_cross_attention is set; model_type '{self.model_type}' has no cross-attention here")

    @property
    def family(self) -> Family:
        """Where the norms are, and this family's names for tensors and classes."""
        return FAMILIES[self.model_type]

    @property
    def num_labels(self) -> int:
        """How many labels a classifier of this config has: the size of `id2label`."""
        return len(self.id2label)

    @num_labels.setter
    def num_labels(self, count: int) -> None:
        if not 1 <= count <= MOST_LABELS:
            raise ValueError(f"num_labels is {count}; a head needs at least 1, and has at most {MOST_LABELS}")
        if "id2label" not in self.__dict__ or len(self.id2label) != count:
            self.id2label = {i: f"LABEL_{i}" for i in range(count)}
            self.label2id = {label: i for i, label in self.id2label.items()}

    @property
    def torch_dtype(self) -> str | None:
        """The older name of `dtype`."""
        return self.dtype

    @torch_dtype.setter
    def torch_dtype(self, value: Any) -> None:
        self.dtype = None if value is None else str(value).removeprefix("torch.")

    @property
    def use_return_dict(self) -> bool:
        """Whether models answer with output classes; `torchscript` forces tuples."""
        return self.return_dict and not self.torchscript

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def max_tokens(self) -> int:
        """Longest sequence with positions from ids: rows 0 … pad_token_id of the position table are never a token's."""
        if self.position_embedding_type != "absolute":
            return self.max_position_embeddings
        return self.max_position_embeddings - self.pad_token_id - 1

    def to_dict(self) -> Json:
        """All fields as plain JSON values, `id2label` with integer keys."""
        fields = {name: value for name, value in self.__dict__.items() if not name.startswith("_")}
        return {**fields, "model_type": self.model_type}

    def to_diff_dict(self) -> Json:
        """What config.json holds: the model's own fields and whatever differs from the defaults of every model."""
        fields = self.to_dict()
        if fields["id2label"] == {0: "LABEL_0", 1: "LABEL_1"} and fields["label2id"] == {"LABEL_0": 0, "LABEL_1": 1}:
            del fields["id2label"], fields["label2id"]
        return {
            name: value
            for name, value in fields.items()
            if name not in INHERITED_DEFAULTS or value != INHERITED_DEFAULTS[name]
        }

    def to_json_string(self, *, use_diff: bool = True) -> str:
        """config.json's text: sorted keys, two spaces."""
        fields = self.to_diff_dict() if use_diff else self.to_dict()
        if callable(fields["hidden_act"]):
            raise TypeError(
                f"hidden_act is {fields['hidden_act']!r}: a function can't be written to {CONFIG_NAME}; "
                "give its name instead"
            )
        return json.dumps(fields, indent=2, sort_keys=True) + "\n"

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any], **overrides: Any) -> "RobertaPreLayerNormConfig":
        """A config from config.json's object; overrides win. `num_labels` and `id2label` replace the labels."""
        merged = {**fields, **overrides}
        if "id2label" in overrides and "label2id" not in overrides:
            merged.pop("label2id", None)
        if "num_labels" in overrides and "id2label" not in overrides:
            if len(fields.get("id2label") or {}) != overrides["num_labels"]:
                merged.pop("id2label", None)
                merged.pop("label2id", None)
            else:
                del merged["num_labels"]
        return cls(**merged)

    @classmethod
    def from_json(cls, text: str) -> "RobertaPreLayerNormConfig":
        """A config from config.json's text."""
        return cls.from_dict(json.loads(text))

    @classmethod
    def from_pretrained(cls, url: str | os.PathLike[str], **keywords: Any) -> "RobertaPreLayerNormConfig":
        """A config from a checkpoint folder (or a JSON file) at a path or URL, or of a model of the Hub's.

        keywords: single fields of it, and how the Hub is asked (models.hub.HubOptions).
        Raises CheckpointError where there is none, or where its `model_type` is another model's.
        """
        options, overrides = HubOptions.take(keywords)
        folder = checkpoint_folder(url, options=options, choose=lambda names: names & {CONFIG_NAME})
        return cls.from_dict(read_config(folder), **overrides)

    def save_pretrained(self, url: str) -> None:
        """Write config.json into a folder at a path or URL."""
        system, folder = open_address(url)
        system.makedirs(folder, exist_ok=True)
        system.pipe_file(f"{folder}/{CONFIG_NAME}", self.to_json_string().encode())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RobertaPreLayerNormConfig) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]  # mutable, so not a key of a dict

    def __repr__(self) -> str:
        return f"RobertaPreLayerNormConfig {json.dumps(self.to_diff_dict(), indent=2, sort_keys=True, default=repr)}"


def read_config(url: str) -> Json:
    """config.json's object from a checkpoint folder or a JSON file; refuses an unknown `model_type`."""
    system, path = open_address(url)
    path = path if path.endswith(".json") else f"{path}/{CONFIG_NAME}"
    try:
        content = system.cat_file(path)
    except FileNotFoundError:
        raise CheckpointError(f"{url}: no {CONFIG_NAME}; a checkpoint is a folder with it and the weights") from None
    fields = json_object(content, where=f"{url}: {CONFIG_NAME}")
    found = fields.get("model_type", PRE_LAYER_NORM)
    if not isinstance(found, str) or found not in FAMILIES:
        raise CheckpointError(
            f"{url}: {CONFIG_NAME} says model_type '{found}'; known are {', '.join(FAMILIES)}; "
            "`preln convert` reads fairseq and efficient_mlm checkpoints"
        )
    return fields


def _check_choice(name: str, value: object, allowed: Sequence[object]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(map(repr, allowed))}")
