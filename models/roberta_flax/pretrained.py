"""A checkpoint folder in, a model of the wanted class out; and back. What all seven classes can do besides the module.

Legend: V vocabulary, H hidden size.
"""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict

import models.roberta_flax.pytrees  # noqa: F401 -- registers the output classes
from models.boundary import Head
from models.checkpoint import Checkpoint
from models.checkpoint_writer import WeightsFormat, write_checkpoint
from models.checks import check_config
from models.config import RobertaPreLayerNormConfig
from models.loading import LoadingReport, compare, judge
from models.outputs import ModelOutput
from models.roberta_flax.cache import KeyValueCache, empty_cache
from models.roberta_flax.layers import Array
from models.roberta_flax.surgery import WORDS, prune, resize_vocabulary
from models.roberta_flax.weights import (
    Params,
    cast,
    flax_dtype,
    fresh_params,
    nested,
    param_path,
    to_params,
    to_tensors,
)
from models.tensors import ARCHITECTURES, PREFIX, expected_tensors


class FlaxRobertaPreLayerNormPreTrainedModel:
    """Base of the seven classes: a linen module and its parameters; building, calling, loading, saving, surgery.

    config: what it is built from. input_shape: the reference's argument, which nothing here depends on.
    seed: of the parameters' start. dtype: of the computation; parameters stay float32 until cast (to_bf16).
    _do_init: False keeps no parameters: init_weights makes them, and every call takes params=.
    add_pooling_layer: whether the bare model has a pooler.
    """

    config_class = RobertaPreLayerNormConfig
    base_model_prefix = "roberta_prelayernorm"
    main_input_name = "input_ids"
    head: ClassVar[Head] = "encoder"
    module_class: ClassVar[Any] = None

    def __init__(
        self,
        config: RobertaPreLayerNormConfig,
        input_shape: tuple[int, ...] = (1, 1),
        seed: int = 0,
        dtype: Any = jnp.float32,
        _do_init: bool = True,
        *,
        gradient_checkpointing: bool = False,
        add_pooling_layer: bool = True,
    ) -> None:
        self.config = config
        self.check()
        self.input_shape = input_shape
        self.dtype = flax_dtype(dtype)
        self.key = jax.random.PRNGKey(seed)
        self.add_pooling_layer = add_pooling_layer
        self.is_gradient_checkpointing = gradient_checkpointing
        self._do_init = _do_init
        self._params: Params | None = self.init_weights(self.key) if _do_init else None

    def check(self) -> None:
        """Refuse a config that this model can't be built from."""
        check_config(self.config)

    @property
    def bare(self) -> bool:
        """Whether this is the model without a head, whose names have no prefix."""
        return type(self).head == "encoder"

    @property
    def module(self) -> nn.Module:
        """The linen module, as the config says now; `module.apply({"params": params}, …)`."""
        extra = {"add_pooling_layer": self.add_pooling_layer} if self.bare else {}
        module: nn.Module = self.module_class(
            self.config, dtype=self.dtype, gradient_checkpointing=self.is_gradient_checkpointing, **extra
        )
        return module

    @property
    def params(self) -> Params:
        """The tree of parameters. Raises ValueError for a model made with _do_init=False, which has none."""
        if self._params is None:
            raise ValueError(
                f"{type(self).__name__} was made with _do_init=False and keeps no parameters; "
                "make them with init_weights(key) and pass params= to each call"
            )
        return self._params

    @params.setter
    def params(self, params: Mapping[str, Any]) -> None:
        found, wanted = set(flatten_dict(dict(params))), self.required_params
        if found < wanted:
            lacking = "/".join(min(wanted - found))
            raise ValueError(f"params lack '{lacking}' ({len(wanted - found)} tensors); give the whole tree")
        self._params = dict(params)

    @property
    def required_params(self) -> set[tuple[str, ...]]:
        """The path of every parameter."""
        return {param_path(name, bare=self.bare) for name in self.expected_tensors()}

    def init_weights(self, rng: Array, input_shape: tuple[int, ...] = (1, 1), params: Params | None = None) -> Params:
        """A fresh tree of parameters from a key; tensors that `params` has are taken from there."""
        shapes = self.expected_tensors()
        flat = fresh_params(shapes=shapes, names=shapes, bare=self.bare, key=rng, config=self.config)
        return nested(flat | (flatten_dict(params) if params else {}))

    def __call__(
        self,
        input_ids: Array | None = None,
        attention_mask: Array | None = None,
        token_type_ids: Array | None = None,
        position_ids: Array | None = None,
        head_mask: Array | None = None,
        encoder_hidden_states: Array | None = None,
        encoder_attention_mask: Array | None = None,
        params: Params | None = None,
        dropout_rng: Array | None = None,
        train: bool = False,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        past_key_values: Any = None,
        *,
        inputs_embeds: Array | None = None,
        use_cache: bool | None = None,
        labels: Array | None = None,
        start_positions: Array | None = None,
        end_positions: Array | None = None,
        num_items_in_batch: int | Array | None = None,
    ) -> Any:
        """The module's answer with these parameters (the model's own by default); see the module's __call__.

        train: dropout is on, drawn per element from dropout_rng. return_dict False: a tuple, in which the pooler's
        place stays even if it is None. Arguments that this head's module lacks raise TypeError.
        """
        given = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "token_type_ids": token_type_ids,
            "position_ids": position_ids,
            "head_mask": head_mask,
            "inputs_embeds": inputs_embeds,
            "encoder_hidden_states": encoder_hidden_states,
            "encoder_attention_mask": encoder_attention_mask,
            "past_key_values": past_key_values,
            "use_cache": use_cache,
            "labels": labels,
            "start_positions": start_positions,
            "end_positions": end_positions,
            "num_items_in_batch": num_items_in_batch,
            "output_attentions": output_attentions,
            "output_hidden_states": output_hidden_states,
        }
        arguments = {name: _as_array(value) for name, value in given.items() if value is not None}
        with exact_matmul(self.dtype):
            output: Any = self.module.apply(
                {"params": self.params if params is None else params},
                **arguments,
                deterministic=not train,
                rngs=self._rngs(dropout_rng, train=train),
            )
        named = self.config.use_return_dict if return_dict is None else return_dict
        return output if named else self._as_tuple(output)

    def _rngs(self, dropout_rng: Array | None, *, train: bool) -> dict[str, Array]:
        rates = (self.config.hidden_dropout_prob, self.config.attention_probs_dropout_prob)
        drops = any(rates) or bool(self.config.classifier_dropout)
        if train and drops and dropout_rng is None:
            raise ValueError("train=True needs dropout_rng, a key from jax.random.PRNGKey; or set the dropouts to 0")
        return {} if dropout_rng is None else {"dropout": dropout_rng}

    def _as_tuple(self, output: ModelOutput) -> tuple[Any, ...]:
        values = output.to_tuple()
        if self.bare and output.get("pooler_output") is None:
            return (values[0], None, *values[1:])
        return values

    def init_cache(self, batch_size: int, max_length: int) -> KeyValueCache:
        """An empty cache with room for max_length tokens a row, pads counted; pass it as past_key_values."""
        return empty_cache(self.config, batch=batch_size, slots=max_length, dtype=self.dtype)

    @classmethod
    def from_config(cls, config: RobertaPreLayerNormConfig, **arguments: Any) -> Self:
        """A fresh model; arguments as the constructor's."""
        return cls(config, **arguments)

    @classmethod
    def from_pretrained(
        cls,
        url: str,
        *,
        config: RobertaPreLayerNormConfig | None = None,
        dtype: Any = None,
        seed: int = 0,
        ignore_mismatched_sizes: bool = False,
        output_loading_info: bool = False,
        add_pooling_layer: bool = True,
        _do_init: bool = True,
        **overrides: Any,
    ) -> Any:
        """The model of a checkpoint folder at a path or URL; with _do_init=False (model, params).

        config: instead of config.json; overrides: single fields of it, e.g. num_labels=3.
        dtype: of the computation: "float32" (default), "bfloat16", "float16", or "auto" for the type that the folder is
        stored in. Parameters are float32. seed: of tensors that are not in the folder.
        ignore_mismatched_sizes: start tensors of another size afresh instead of raising MismatchError.
        output_loading_info: add an info with missing_keys, unexpected_keys and mismatched_keys at the end.
        """
        # The reference wants from_pt=True for torch's files; here every format is read as it is.
        overrides.pop("from_pt", None)
        checkpoint = Checkpoint.open(url)
        if config is None:
            config = RobertaPreLayerNormConfig.from_dict(checkpoint.config.to_dict(), **overrides)
        wanted = checkpoint.stored_dtype if dtype == "auto" else dtype or "float32"
        model = cls(config, seed=seed, dtype=wanted, _do_init=False, add_pooling_layer=add_pooling_layer)
        params, report = model._load(checkpoint, ignore_mismatched_sizes=ignore_mismatched_sizes)
        info = (report.as_info(),) if output_loading_info else ()
        if not _do_init:
            return (model, params, *info)
        model._do_init, model._params = True, params
        return (model, *info) if info else model

    def _load(self, checkpoint: Checkpoint, *, ignore_mismatched_sizes: bool) -> tuple[Params, LoadingReport]:
        expected = self.expected_tensors()
        found = {name: info.shape for name, info in checkpoint.tensors.items()}
        report = compare(expected=expected, found=found, config=self.config, bare=self.bare)
        judge(
            report=report,
            url=checkpoint.url,
            model=type(self).__name__,
            ignore_mismatched_sizes=ignore_mismatched_sizes,
        )
        fitting = [name for name, shape in expected.items() if found.get(name) == shape]
        loaded = to_params(tensors=checkpoint.stream(fitting), bare=self.bare, dtype=jnp.float32)
        absent = [name for name in expected if name not in set(fitting)]
        fresh = fresh_params(shapes=expected, names=absent, bare=self.bare, key=self.key, config=self.config)
        return nested(loaded | fresh), report

    def expected_tensors(self) -> dict[str, tuple[int, ...]]:
        """Neutral name -> shape of what this model reads from a checkpoint."""
        pooler = self.add_pooling_layer if self.bare else None
        return expected_tensors(config=self.config, head=type(self).head, pooler=pooler)

    def save_pretrained(
        self,
        url: str,
        *,
        params: Params | None = None,
        max_shard_size: int | str = "5GB",
        tokenizer_files: Mapping[str, bytes] | None = None,
        weights_format: WeightsFormat = "safetensors",
    ) -> None:
        """Write config.json and the weights to a folder at a path or URL; tied tensors are written once.

        weights_format: "safetensors" (torch's names), "msgpack" (flax_model.msgpack in the reference's layout) or
        another (models.checkpoint_writer).
        """
        found = to_tensors(
            params=self.params if params is None else params, names=self.expected_tensors(), bare=self.bare
        )
        tensors = {name.removeprefix(PREFIX) if self.bare else name: array for name, array in found.items()}
        config = RobertaPreLayerNormConfig.from_dict(self.config.to_dict())
        config.architectures = [ARCHITECTURES[type(self).head]]
        config.dtype = next(iter(tensors.values())).dtype.name
        write_checkpoint(
            url=url,
            config=config,
            tensors=tensors,
            tokenizer_files=tokenizer_files,
            max_shard_size=max_shard_size,
            weights_format=weights_format,
        )

    def tie_weights(self) -> None:
        """Nothing to do: where the config ties them, decoder and word table are one array from the start."""

    def get_input_embeddings(self) -> Array:
        """The word table [V, H]."""
        return flatten_dict(self.params)[param_path(WORDS, bare=self.bare)]

    def set_input_embeddings(self, table_VH: Array) -> None:
        """Put another word table in the place of this one."""
        self._put(param_path(WORDS, bare=self.bare), table_VH)

    def get_output_embeddings(self) -> Array | None:
        """The decoder [V, H] of a language model, None for other heads."""
        if "lm_head" not in self.params:
            return None
        if self.config.tie_word_embeddings:
            return self.get_input_embeddings()
        return self.params["lm_head"]["decoder"]["kernel"].T

    def set_output_embeddings(self, decoder_VH: Array) -> None:
        """Put another decoder in the place of an untied one; a tied one is set by set_input_embeddings."""
        if self.config.tie_word_embeddings or "lm_head" not in self.params:
            raise ValueError(
                f"{type(self).__name__} has no decoder of its own; call set_input_embeddings, or build a language "
                "model with tie_word_embeddings=False"
            )
        self._put(("lm_head", "decoder", "kernel"), decoder_VH.T)

    def _put(self, path: tuple[str, ...], values: Array) -> None:
        flat = flatten_dict(self.params)
        if values.shape != flat[path].shape:
            raise ValueError(f"'{'/'.join(path)}' is {flat[path].shape}, {values.shape} was given; resize it first")
        self._params = nested({**flat, path: jnp.asarray(values)})

    def resize_token_embeddings(
        self, new_num_tokens: int | None = None, pad_to_multiple_of: int | None = None
    ) -> Array:
        """Grow or cut the word table (and a language model's decoder and bias); config.vocab_size follows.

        Old rows stay, new ones start from N(0, initializer_range). Returns the table.
        """
        rows = self.config.vocab_size if new_num_tokens is None else new_num_tokens
        if pad_to_multiple_of is not None:
            rows = -(-rows // pad_to_multiple_of) * pad_to_multiple_of
        if rows == self.config.vocab_size:
            return self.get_input_embeddings()
        if rows <= self.config.pad_token_id:
            raise ValueError(f"a vocabulary of {rows} has no row for pad_token_id {self.config.pad_token_id}")
        self._params = resize_vocabulary(
            self.params, rows=rows, bare=self.bare, config=self.config, key=jax.random.fold_in(self.key, rows)
        )
        self.config.vocab_size = rows
        return self.get_input_embeddings()

    def prune_heads(self, heads_to_prune: Mapping[int, Sequence[int]]) -> None:
        """Cut self-attention's heads, e.g. {0: [1, 2]}, numbered as in the unpruned model; the config keeps them."""
        self._params = prune(self.params, heads_to_prune=heads_to_prune, bare=self.bare, config=self.config)

    def gradient_checkpointing_enable(self) -> None:
        """Compute layers again in the backward pass instead of keeping them; training then returns no cache."""
        self.is_gradient_checkpointing = True

    def gradient_checkpointing_disable(self) -> None:
        """Keep all activations again."""
        self.is_gradient_checkpointing = False

    def to_bf16(self, params: Params, mask: Any = None) -> Params:
        """These parameters in bfloat16; mask: a tree of booleans, True where to cast."""
        return cast(params, jnp.bfloat16, mask)

    def to_fp16(self, params: Params, mask: Any = None) -> Params:
        """These parameters in float16; mask: a tree of booleans, True where to cast."""
        return cast(params, jnp.float16, mask)

    def to_fp32(self, params: Params, mask: Any = None) -> Params:
        """These parameters in float32; mask: a tree of booleans, True where to cast."""
        return cast(params, jnp.float32, mask)

    def num_parameters(self) -> int:
        """Parameters, tied ones counted once."""
        return sum(int(np.prod(shape)) for shape in self.expected_tensors().values())

    @property
    def dummy_inputs(self) -> dict[str, Array]:
        """Ids that any model of this class takes."""
        return {"input_ids": jnp.array([[0, 3, 2]])}


def exact_matmul(dtype: Any) -> Any:
    """float32 products in float32 on every device: accelerators round them otherwise. The caller's own setting wins."""
    chosen = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
    if dtype == jnp.float32 and chosen is None:
        return jax.default_matmul_precision("highest")
    return contextlib.nullcontext()


def _as_array(value: Any) -> Any:
    return jnp.asarray(value) if isinstance(value, np.ndarray | list) else value
