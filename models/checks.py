"""Checks a caller's sizes and values: a ValueError names value, limit and place, the same in every framework.

Nothing here knows a framework: shapes are tuples, values are Python numbers. Legend: B batch, S sequence, K keys
(past and current tokens), L layers, N heads.
"""

import math
from collections.abc import Sequence
from typing import Literal, TypeAlias

from models.config import RobertaPreLayerNormConfig

Shape: TypeAlias = Sequence[int]
LossKind: TypeAlias = Literal["regression", "single_label_classification", "multi_label_classification"]

# hidden_act by name, known in every framework.
ACTIVATIONS = (
    "gelu",
    "gelu_python",
    "gelu_new",
    "gelu_pytorch_tanh",
    "gelu_fast",
    "gelu_accurate",
    "gelu_10",
    "quick_gelu",
    "relu",
    "relu2",
    "relu6",
    "leaky_relu",
    "silu",
    "swish",
    "mish",
    "tanh",
    "sigmoid",
    "linear",
    "laplace",
)
IGNORED_LABEL = -100


SIZES = ("vocab_size", "hidden_size", "num_attention_heads", "intermediate_size", "type_vocab_size")
COUNTS = (*SIZES, "num_hidden_layers", "max_position_embeddings", "pad_token_id")
MOST_LAYERS = 1_000
"""More are a mistake, or meant to fill the memory: published models have up to 48, and each layer is 16 names of tensors."""


def _check_numbers(config: RobertaPreLayerNormConfig) -> None:
    for name in COUNTS:
        value = getattr(config, name)
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"config.{name} is {value!r}; it must be a whole number")
    for name in ("is_decoder", "add_cross_attention"):
        if not isinstance(getattr(config, name), bool):
            raise TypeError(f"config.{name} is {getattr(config, name)!r}; it must be true or false")
    eps = config.layer_norm_eps
    if not isinstance(eps, int | float) or isinstance(eps, bool) or not 0 <= eps < math.inf:
        raise ValueError(f"config.layer_norm_eps is {eps!r}; it must be a number of 0 or more, such as 1e-5")
    if not 0 <= config.num_hidden_layers <= MOST_LAYERS:
        raise ValueError(f"config.num_hidden_layers is {config.num_hidden_layers}; at most {MOST_LAYERS} are built")


def check_config(config: RobertaPreLayerNormConfig) -> None:
    """Refuse a config that no model can be built from."""
    _check_numbers(config)
    for name in SIZES:
        if getattr(config, name) < 1:
            raise ValueError(f"config.{name} is {getattr(config, name)}; it must be at least 1")
    if config.hidden_size % config.num_attention_heads:
        raise ValueError(
            f"config.hidden_size is {config.hidden_size}, not a multiple of num_attention_heads "
            f"{config.num_attention_heads}; change one of them"
        )
    if config.add_cross_attention and not config.is_decoder:
        raise ValueError("config.add_cross_attention is set but is_decoder is not; set is_decoder=True as well")
    if config.hidden_act not in ACTIVATIONS if isinstance(config.hidden_act, str) else not callable(config.hidden_act):
        raise ValueError(f"config.hidden_act is '{config.hidden_act}'; known: {', '.join(ACTIVATIONS)}")
    for layer, heads in config.pruned_heads.items():
        known = 0 <= layer < config.num_hidden_layers and all(0 <= head < config.num_attention_heads for head in heads)
        if not known or len(heads) == config.num_attention_heads:
            raise ValueError(
                f"config.pruned_heads says heads {heads} of layer {layer}; there are {config.num_hidden_layers} layers of "
                f"{config.num_attention_heads} heads, and each must keep one"
            )
    if not 0 <= config.pad_token_id < config.vocab_size:
        raise ValueError(f"config.pad_token_id is {config.pad_token_id}, outside the vocabulary of {config.vocab_size}")


def check_inputs(*, ids_shape: Shape | None, embeds_shape: Shape | None) -> tuple[int, int]:
    """Exactly one of input_ids [B, S] and inputs_embeds [B, S, H]; returns (B, S)."""
    if ids_shape is not None and embeds_shape is not None:
        raise ValueError("both input_ids and inputs_embeds were given; give one of them")
    if ids_shape is None and embeds_shape is None:
        raise ValueError("neither input_ids nor inputs_embeds was given; give one of them")
    shape = ids_shape if ids_shape is not None else embeds_shape
    assert shape is not None
    wanted = 2 if ids_shape is not None else 3
    if len(shape) != wanted:
        name, letters = ("input_ids", "[B, S]") if ids_shape is not None else ("inputs_embeds", "[B, S, H]")
        raise ValueError(f"{name} has shape {tuple(shape)}; it must be {letters}")
    # Not int(): a size may be symbolic while a framework traces.
    return shape[0], shape[1]


def check_range(*, name: str, low: int, high: int, size: int, limit: str) -> None:
    """Every value of `name` lies in 0 … size - 1; `limit` names the setting that says so."""
    bad = low if low < 0 else high
    if not 0 <= bad < size:
        raise ValueError(f"{name} holds {bad}, outside 0 … {size - 1} ({limit} {size})")


def check_length(*, tokens: int, config: RobertaPreLayerNormConfig) -> None:
    """A row of `tokens` real tokens (past ones counted) finds a position for each."""
    if tokens <= config.max_tokens:
        return
    if config.position_embedding_type == "absolute":
        rule = f"max_position_embeddings {config.max_position_embeddings} - pad_token_id {config.pad_token_id} - 1"
    else:
        rule = f"max_position_embeddings {config.max_position_embeddings}"
    raise ValueError(
        f"a sequence has {tokens} tokens, the model takes at most {config.max_tokens} ({rule}); truncate it, "
        f"e.g. with max_length={config.max_tokens} in the tokenizer or the job"
    )


def check_mask(*, name: str, shape: Shape, batch: int, queries: int, keys: int) -> None:
    """A mask is [B, K], or [B, S, K] used as it is."""
    allowed = ((batch, keys), (batch, queries, keys))
    if tuple(shape) not in allowed:
        raise ValueError(
            f"{name} has shape {tuple(shape)}; it must be [batch, keys] {allowed[0]} or "
            f"[batch, queries, keys] {allowed[1]}, past tokens counted among the keys"
        )


def check_head_mask(*, shape: Shape, layers: int, heads: int) -> None:
    """head_mask is [N] for every layer alike, or [L, N]."""
    if tuple(shape) not in ((heads,), (layers, heads)):
        raise ValueError(f"head_mask has shape {tuple(shape)}; it must be ({heads},) or ({layers}, {heads})")


def check_chunks(*, length: int, chunk: int) -> None:
    """The feed-forward's chunks divide the sequence."""
    if length % chunk:
        raise ValueError(
            f"the sequence has {length} tokens, not a multiple of config.chunk_size_feed_forward {chunk}; pad it"
        )


def check_choices(*, labels: int, head: str, needed: int) -> None:
    """Check a head that needs a fixed number of labels (question answering: 2)."""
    if labels != needed:
        raise ValueError(f"{head} needs num_labels={needed} (start and end), the config has {labels}")


def check_labels(*, low: int, high: int, size: int, ignored: int = IGNORED_LABEL) -> None:
    """Class labels, ignored ones left out, lie in 0 … size - 1."""
    bad = low if low < 0 else high
    if not 0 <= bad < size:
        raise ValueError(f"labels hold {bad}, outside 0 … {size - 1} ({ignored} is ignored)")


def loss_kind(*, problem_type: str | None, num_labels: int, integer_labels: bool) -> LossKind:
    """The loss of a sequence classifier: problem_type where the config has one, else decided by each call's labels.

    transformers decides by the first batch and keeps it, so that a later batch of another kind gets the wrong loss.
    """
    if problem_type is not None:
        if problem_type == "regression":
            return "regression"
        return "multi_label_classification" if problem_type.startswith("multi") else "single_label_classification"
    if num_labels == 1:
        return "regression"
    return "single_label_classification" if integer_labels else "multi_label_classification"
