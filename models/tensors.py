"""The names and shapes of a checkpoint's tensors, as one literal table.

Neutral names are torch's, in the form that every head's file has: the encoder's tensors under `roberta_prelayernorm.`.
A file of the bare model leaves the prefix out. TensorFlow's and Flax's own names are made from this table there.

Neutral names are those of roberta-prelayernorm, the first column; other families' files differ by FAMILY_NAMES.

Legend: V vocabulary, H hidden size, P rows of the position table, Y token types, I intermediate size, L labels,
D width of one head, A = D x heads left in that layer (H unless heads are pruned), R = 2 P - 1 distances.
"""

import re
from collections.abc import Mapping

from models.boundary import Head
from models.config import RobertaPreLayerNormConfig
from models.families import Family, NamesColumn

PREFIX = "roberta_prelayernorm."

EMBEDDINGS = {
    "embeddings.word_embeddings.weight": "V H",
    "embeddings.position_embeddings.weight": "P H",
    "embeddings.token_type_embeddings.weight": "Y H",
    "embeddings.LayerNorm.weight": "H",
    "embeddings.LayerNorm.bias": "H",
}
LAYER = {
    "encoder.layer.{i}.attention.LayerNorm.weight": "H",
    "encoder.layer.{i}.attention.LayerNorm.bias": "H",
    "encoder.layer.{i}.attention.self.query.weight": "A H",
    "encoder.layer.{i}.attention.self.query.bias": "A",
    "encoder.layer.{i}.attention.self.key.weight": "A H",
    "encoder.layer.{i}.attention.self.key.bias": "A",
    "encoder.layer.{i}.attention.self.value.weight": "A H",
    "encoder.layer.{i}.attention.self.value.bias": "A",
    "encoder.layer.{i}.attention.output.dense.weight": "H A",
    "encoder.layer.{i}.attention.output.dense.bias": "H",
    "encoder.layer.{i}.intermediate.LayerNorm.weight": "H",
    "encoder.layer.{i}.intermediate.LayerNorm.bias": "H",
    "encoder.layer.{i}.intermediate.dense.weight": "I H",
    "encoder.layer.{i}.intermediate.dense.bias": "I",
    "encoder.layer.{i}.output.dense.weight": "H I",
    "encoder.layer.{i}.output.dense.bias": "H",
}
RELATIVE_LAYER = {"encoder.layer.{i}.attention.self.distance_embedding.weight": "R D"}
CROSS_LAYER = {
    "encoder.layer.{i}.crossattention.LayerNorm.weight": "H",
    "encoder.layer.{i}.crossattention.LayerNorm.bias": "H",
    "encoder.layer.{i}.crossattention.self.query.weight": "H H",
    "encoder.layer.{i}.crossattention.self.query.bias": "H",
    "encoder.layer.{i}.crossattention.self.key.weight": "H H",
    "encoder.layer.{i}.crossattention.self.key.bias": "H",
    "encoder.layer.{i}.crossattention.self.value.weight": "H H",
    "encoder.layer.{i}.crossattention.self.value.bias": "H",
    "encoder.layer.{i}.crossattention.output.dense.weight": "H H",
    "encoder.layer.{i}.crossattention.output.dense.bias": "H",
}
FINAL = {"LayerNorm.weight": "H", "LayerNorm.bias": "H"}
POOLER = {"pooler.dense.weight": "H H", "pooler.dense.bias": "H"}

LM_HEAD = {
    "lm_head.dense.weight": "H H",
    "lm_head.dense.bias": "H",
    "lm_head.layer_norm.weight": "H",
    "lm_head.layer_norm.bias": "H",
    "lm_head.bias": "V",
}
UNTIED = {"lm_head.decoder.weight": "V H"}
HEADS: Mapping[Head, Mapping[str, str]] = {
    "encoder": {},
    "masked-lm": LM_HEAD,
    "causal-lm": LM_HEAD,
    "sequence-classification": {
        "classifier.dense.weight": "H H",
        "classifier.dense.bias": "H",
        "classifier.out_proj.weight": "L H",
        "classifier.out_proj.bias": "L",
    },
    "multiple-choice": {"classifier.weight": "1 H", "classifier.bias": "1"},
    "token-classification": {"classifier.weight": "L H", "classifier.bias": "L"},
    "question-answering": {"qa_outputs.weight": "2 H", "qa_outputs.bias": "2"},
}

# Where the files of other families differ: neutral name, roberta (xlm-roberta, camembert), xlm-roberta-xl; None: no such
# tensor. Owners, without `.weight` and `.bias`.
FAMILY_NAMES: Mapping[str, tuple[str | None, str | None]] = {
    "embeddings.LayerNorm": ("embeddings.LayerNorm", None),
    "encoder.layer.{i}.attention.LayerNorm": (
        "encoder.layer.{i}.attention.output.LayerNorm",
        "encoder.layer.{i}.attention.self_attn_layer_norm",
    ),
    "encoder.layer.{i}.intermediate.LayerNorm": ("encoder.layer.{i}.output.LayerNorm", "encoder.layer.{i}.LayerNorm"),
    "LayerNorm": (None, "encoder.LayerNorm"),
}
FAMILY_COLUMNS: Mapping[NamesColumn, int] = {"roberta": 0, "xlm-roberta-xl": 1}
FAMILY_PREFIX = "roberta."
_LAYER_NUMBER = re.compile(r"encoder\.layer\.(\d+)\.")
_FOREIGN_NORMS = frozenset(name for names in FAMILY_NAMES.values() for name in names if name is not None)

# Second names of one tensor: files may hold both or only one. decoder.weight only while tied.
TIED = {
    "lm_head.decoder.weight": PREFIX + "embeddings.word_embeddings.weight",
    "lm_head.decoder.bias": "lm_head.bias",
}
# Endings of tensors that older versions saved and that are not needed.
UNUSED = ("embeddings.position_ids", "embeddings.token_type_ids")
# Endings of old names that come from TensorFlow.
LEGACY_ENDINGS = {
    "LayerNorm.gamma": "LayerNorm.weight",
    "LayerNorm.beta": "LayerNorm.bias",
    "layer_norm.gamma": "layer_norm.weight",
    "layer_norm.beta": "layer_norm.bias",
    "self_attn_layer_norm.gamma": "self_attn_layer_norm.weight",
    "self_attn_layer_norm.beta": "self_attn_layer_norm.bias",
}
BASE_STEMS = ("embeddings.", "encoder.", "LayerNorm.", "pooler.")

# Tensors of a layer that lie along the heads of self-attention: pruning cuts the named axis.
HEAD_AXIS = {"self.query": 0, "self.key": 0, "self.value": 0, "output.dense": 1}

ARCHITECTURES: Mapping[Head, str] = {
    "encoder": "RobertaPreLayerNormModel",
    "masked-lm": "RobertaPreLayerNormForMaskedLM",
    "causal-lm": "RobertaPreLayerNormForCausalLM",
    "sequence-classification": "RobertaPreLayerNormForSequenceClassification",
    "multiple-choice": "RobertaPreLayerNormForMultipleChoice",
    "token-classification": "RobertaPreLayerNormForTokenClassification",
    "question-answering": "RobertaPreLayerNormForQuestionAnswering",
}


def architecture(*, head: Head, family: Family) -> str:
    """The reference's class of a head, as `architectures` in config.json has it, e.g. XLMRobertaForMaskedLM."""
    return family.class_prefix + ARCHITECTURES[head].removeprefix("RobertaPreLayerNorm")


def expected_tensors(
    *, config: RobertaPreLayerNormConfig, head: Head, pooler: bool | None = None
) -> dict[str, tuple[int, ...]]:
    """Neutral name -> shape of every tensor that a model of this config with this head reads, in the file's order.

    pooler: whether the pooler is among them; by default for multiple choice only (the bare model may have one).
    """
    shapes: dict[str, tuple[int, ...]] = {}
    missing = absent_owners(config.family)
    for name, letters in EMBEDDINGS.items():
        if name.rpartition(".")[0] in missing:
            continue
        shapes[PREFIX + name] = tensor_shape(letters=letters, config=config)
    for layer in range(config.num_hidden_layers):
        for name, letters in _layer_table(config).items():
            shapes[PREFIX + name.format(i=layer)] = tensor_shape(letters=letters, config=config, layer=layer)
    tail = {PREFIX + name: letters for name, letters in FINAL.items() if name.rpartition(".")[0] not in missing}
    if pooler if pooler is not None else head == "multiple-choice":
        tail |= {PREFIX + name: letters for name, letters in POOLER.items()}
    tail |= HEADS[head]
    if head in ("masked-lm", "causal-lm") and not config.tie_word_embeddings:
        tail |= UNTIED
    for name, letters in tail.items():
        shapes[name] = tensor_shape(letters=letters, config=config)
    return shapes


def tensor_shape(*, letters: str, config: RobertaPreLayerNormConfig, layer: int = 0) -> tuple[int, ...]:
    """Numbers for a row of the table, e.g. "A H" -> (768, 768)."""
    sizes = {
        "V": config.vocab_size,
        "H": config.hidden_size,
        "P": config.max_position_embeddings,
        "Y": config.type_vocab_size,
        "I": config.intermediate_size,
        "L": config.num_labels,
        "D": config.head_size,
        "A": config.head_size * (config.num_attention_heads - len(config.pruned_heads.get(layer, ()))),
        "R": 2 * config.max_position_embeddings - 1,
    }
    return tuple(int(letter) if letter.isdigit() else sizes[letter] for letter in letters.split())


def second_names(config: RobertaPreLayerNormConfig) -> frozenset[str]:
    """Names that are another tensor's second one with this config, so that no file needs them."""
    return frozenset(TIED if config.tie_word_embeddings else {"lm_head.decoder.bias"})


def absent_owners(family: Family) -> frozenset[str]:
    """Owners in the table that this family's models lack."""
    if family.names not in FAMILY_COLUMNS:
        return frozenset()
    column = FAMILY_COLUMNS[family.names]
    return frozenset(owner for owner, names in FAMILY_NAMES.items() if names[column] is None)


def stored_name(name: str, *, family: Family) -> str:
    """A neutral name, with the prefix or in the bare model's form, as this family's files have it in torch's names."""
    if family.names not in FAMILY_COLUMNS:
        return name
    bare = name.removeprefix(PREFIX)
    prefix = FAMILY_PREFIX if bare != name else ""
    if bare == name and not name.startswith(BASE_STEMS):
        return name
    owner, _, leaf = bare.rpartition(".")
    renamed = FAMILY_NAMES.get(_LAYER_NUMBER.sub("encoder.layer.{i}.", owner))
    if renamed is not None:
        stored, layer = renamed[FAMILY_COLUMNS[family.names]], _LAYER_NUMBER.match(owner)
        assert stored is not None, f"{family.model_type} has no '{name}'"
        owner = stored.replace("{i}", layer[1] if layer else "")
    return f"{prefix}{owner}.{leaf}"


def _family_to_neutral(name: str, *, family: Family) -> str:
    """A family's stored name in its modern spelling -> the neutral one; raises ValueError for another family's."""
    bare = name.removeprefix(FAMILY_PREFIX)
    prefix = PREFIX if bare != name else ""
    owner, _, leaf = bare.rpartition(".")
    if not prefix and not name.startswith(BASE_STEMS):
        return name
    column = FAMILY_COLUMNS[family.names]
    layer, pattern = _LAYER_NUMBER.match(owner), _LAYER_NUMBER.sub("encoder.layer.{i}.", owner)
    for neutral, names in FAMILY_NAMES.items():
        if names[column] == pattern:
            return f"{prefix}{neutral.replace('{i}', layer[1] if layer else '')}.{leaf}"
    if pattern in FAMILY_NAMES or pattern in _FOREIGN_NORMS:
        raise ValueError(
            f"'{name}' is no tensor of model_type '{family.model_type}': its norms stand elsewhere; if it is a "
            "DinkyTrain (efficient_mlm) checkpoint, convert it with `preln convert`, else correct model_type in "
            "config.json"
        )
    return prefix + bare


def neutral_names(names: list[str], *, family: Family | None = None) -> dict[str, str]:
    """A torch-named file's names -> neutral names, without those that are not needed. family: whose names they are.

    The bare model's file gets the prefix; gamma and beta become weight and bias; a file that has `lm_head.decoder.bias`
    but no `lm_head.bias` keeps its bias. Raises ValueError for plain RoBERTa's names and for a mixture of both forms.
    """
    if family is not None and family.names in FAMILY_COLUMNS:
        kept = [name for name in names if not name.endswith(UNUSED)]
        modern = {_modern(name): name for name in kept}
        renamed = {_family_to_neutral(new, family=family): old for new, old in modern.items()}
        return {renamed[name]: new for name, new in neutral_names(list(renamed)).items()}
    foreign = [name for name in names if name.startswith(FAMILY_PREFIX)]
    if foreign:
        raise ValueError(
            f"its tensors are named as in plain RoBERTa or DinkyTrain ('{foreign[0]}', …), not "
            f"'{PREFIX}…'; convert it with `preln convert`"
        )
    bare = [name for name in names if name.startswith(BASE_STEMS)]
    dressed = [name for name in names if not name.startswith(BASE_STEMS)]
    if bare and dressed:
        raise ValueError(
            f"its names are mixed: '{bare[0]}' is the bare model's form, '{dressed[0]}' is not; the file is corrupted, "
            "save it again"
        )
    renamed = {name: _modern(PREFIX + name if bare else name) for name in names if not name.endswith(UNUSED)}
    if "lm_head.bias" not in renamed.values():
        renamed = {name: TIED["lm_head.decoder.bias"] if new == "lm_head.decoder.bias" else new
                   for name, new in renamed.items()}  # fmt: skip
    return renamed


def _modern(name: str) -> str:
    for old, new in LEGACY_ENDINGS.items():
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name


def _layer_table(config: RobertaPreLayerNormConfig) -> dict[str, str]:
    table = dict(LAYER)
    if config.position_embedding_type != "absolute":
        table |= RELATIVE_LAYER
    if config.add_cross_attention:
        table |= CROSS_LAYER
    return table
