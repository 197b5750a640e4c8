"""Translates the names and settings of a fairseq RoBERTa to neutral names and a config, by one literal table.

DinkyTrain's checkpoints are fairseq's too. Only those trained with --encoder-normalize-before are this model; others are plain
RoBERTa. Source: fairseq (Ott et al. 2019).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from models.checks import ACTIVATIONS
from models.config import RobertaPreLayerNormConfig
from models.errors import CheckpointError
from models.tensors import PREFIX

STEM = "encoder.sentence_encoder."
TOKEN_TYPES = PREFIX + "embeddings.token_type_embeddings.weight"
WORDS = PREFIX + "embeddings.word_embeddings.weight"

# fairseq's module -> the neutral one; each has a weight, and a bias where ours has one.
EMBEDDINGS = {
    "embed_tokens": "embeddings.word_embeddings",
    "embed_positions": "embeddings.position_embeddings",
    "layernorm_embedding": "embeddings.LayerNorm",
    "emb_layer_norm": "embeddings.LayerNorm",  # older fairseq
    "layer_norm": "LayerNorm",
}
LAYER = {
    "self_attn.q_proj": "attention.self.query",
    "self_attn.k_proj": "attention.self.key",
    "self_attn.v_proj": "attention.self.value",
    "self_attn.out_proj": "attention.output.dense",
    "self_attn_layer_norm": "attention.LayerNorm",
    "fc1": "intermediate.dense",
    "fc2": "output.dense",
    "final_layer_norm": "intermediate.LayerNorm",
}
LM_HEAD = {
    "lm_head.dense": "lm_head.dense",
    "lm_head.layer_norm": "lm_head.layer_norm",
    "lm_head": "lm_head",
}
CLASSIFIER = {"dense": "classifier.dense", "out_proj": "classifier.out_proj"}
# fairseq's bookkeeping, by ending.
BOOKKEEPING = (".version", "._float_tensor")
HEAD_WIDTH = 64  # of every published RoBERTa; used only if a file does not give its number of heads


@dataclass(frozen=True)
class FairseqNames:
    """stored: neutral name -> fairseq's; dropped: fairseq's name -> why it is not needed."""

    stored: Mapping[str, str]
    dropped: Mapping[str, str]


def neutral_fairseq_names(*, names: list[str], classification_head: str | None) -> FairseqNames:
    """Translate known names; others stay as they are, and are reported as unexpected."""
    stored: dict[str, str] = {}
    dropped: dict[str, str] = {}
    for name in names:
        if name.endswith(BOOKKEEPING):
            dropped[name] = "fairseq's bookkeeping"
        else:
            stored[_neutral(name, classification_head) or name] = name
    return FairseqNames(stored=stored, dropped=dropped)


def _neutral(name: str, classification_head: str | None) -> str | None:
    """The neutral name of a fairseq tensor; None if it has no counterpart here, such as another classification head."""
    # Old fairseq called the whole encoder "decoder".
    plain = re.sub(r"^decoder\.", "encoder.", name)
    owner, _, leaf = plain.rpartition(".")
    if plain == "encoder.lm_head.weight":
        return "lm_head.decoder.weight"
    layer = re.fullmatch(re.escape(STEM) + r"layers\.(\d+)\.(.+)", owner)
    if layer and layer[2] in LAYER:
        return f"{PREFIX}encoder.layer.{layer[1]}.{LAYER[layer[2]]}.{leaf}"
    if owner.startswith(STEM) and owner.removeprefix(STEM) in EMBEDDINGS:
        return f"{PREFIX}{EMBEDDINGS[owner.removeprefix(STEM)]}.{leaf}"
    if owner.removeprefix("encoder.") in LM_HEAD and owner.startswith("encoder."):
        return f"{LM_HEAD[owner.removeprefix('encoder.')]}.{leaf}"
    classifier = re.fullmatch(r"classification_heads\.([^.]+)\.(.+)", owner)
    if classifier and classifier[1] == classification_head and classifier[2] in CLASSIFIER:
        return f"{CLASSIFIER[classifier[2]]}.{leaf}"
    return None


def choose_classification_head(*, names: list[str], asked: str | None) -> str | None:
    """The classification head to convert: the one asked for, or the only one.

    Raises CheckpointError where it is not there, or where there are several and none was named.
    """
    found = sorted({name.split(".")[1] for name in names if name.startswith("classification_heads.")})
    if asked is not None and asked not in found:
        raise CheckpointError(f"no classification head '{asked}'; the file has {', '.join(found) or 'none'}")
    if asked is None and len(found) > 1:
        raise CheckpointError(f"several classification heads: {', '.join(found)}; name one by --classification-head")
    return asked or (found[0] if found else None)


def fairseq_config(
    *, shapes: Mapping[str, tuple[int, ...]], settings: Mapping[str, Any], attention_heads: int | None, tied: bool
) -> tuple[RobertaPreLayerNormConfig, list[str]]:
    """A config from the tensors' shapes (neutral names) and fairseq's settings; and notes on what had to be assumed.

    Raises CheckpointError where the file is no pre-LayerNorm RoBERTa.
    """
    _check_kind(shapes)
    vocab_size, hidden_size = shapes[WORDS]
    notes: list[str] = []
    heads = attention_heads or settings.get("encoder_attention_heads")
    if heads is None:
        if hidden_size % HEAD_WIDTH:
            raise CheckpointError(
                f"the file does not give its number of attention heads, and its width {hidden_size} does not determine it; "
                "give --attention-heads"
            )
        heads = hidden_size // HEAD_WIDTH
        notes.append(
            f"the file does not give its number of attention heads: {heads} of width {HEAD_WIDTH} were assumed"
        )
    activation = settings.get("activation_fn")
    if activation is None:
        activation = "gelu"
        notes.append("the file does not give its activation: gelu was assumed")
    if activation not in ACTIVATIONS:
        raise CheckpointError(f"its activation_fn is '{activation}'; known: {', '.join(ACTIVATIONS)}")
    labels = shapes.get("classifier.out_proj.weight")
    pooled = settings.get("pooler_activation_fn", "tanh")
    if labels is not None and pooled != "tanh":
        raise CheckpointError(f"its pooler_activation_fn is '{pooled}', the classification head here has tanh")
    config = RobertaPreLayerNormConfig(
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        num_hidden_layers=1 + max(_layers(shapes), default=-1),
        num_attention_heads=int(heads),
        intermediate_size=shapes.get(f"{PREFIX}encoder.layer.0.intermediate.dense.weight", (4 * hidden_size,))[0],
        hidden_act=activation,
        hidden_dropout_prob=float(settings.get("dropout", 0.1)),
        attention_probs_dropout_prob=float(settings.get("attention_dropout", 0.1)),
        max_position_embeddings=shapes.get(PREFIX + "embeddings.position_embeddings.weight", (514,))[0],
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        tie_word_embeddings=tied,
        num_labels=labels[0] if labels else None,
    )
    return config, notes


def _check_kind(shapes: Mapping[str, tuple[int, ...]]) -> None:
    if len(shapes.get(WORDS, ())) != 2:
        shown = ", ".join(sorted(shapes)[:4])
        raise CheckpointError(f"no '{STEM}embed_tokens.weight' in it, so it is no fairseq RoBERTa; found {shown}, …")
    if PREFIX + "LayerNorm.weight" not in shapes:
        raise CheckpointError(
            f"no '{STEM}layer_norm.weight' in it: it was trained without --encoder-normalize-before and is plain "
            "RoBERTa, which computes something else; use a model of that kind"
        )


def _layers(shapes: Mapping[str, tuple[int, ...]]) -> set[int]:
    found = (re.match(re.escape(PREFIX) + r"encoder\.layer\.(\d+)\.", name) for name in shapes)
    return {int(match[1]) for match in found if match}
