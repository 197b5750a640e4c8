"""A config in, a linen module with its parameters that can be called out: what torch's nn.Module is by itself.

Legend: V vocabulary, H hidden size.
"""

import contextlib
import logging
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict

import models.roberta_flax.pytrees  # noqa: F401 -- registers the output classes
from models.boundary import Head
from models.checks import check_config
from models.config import RobertaPreLayerNormConfig
from models.families import check_class_family
from models.foreign_config import as_config
from models.outputs import ModelOutput
from models.roberta_flax.cache import KeyValueCache, empty_cache
from models.roberta_flax.layers import Array, readable
from models.roberta_flax.weights import Params, cast, flax_dtype, fresh_params, nested, param_path
from models.tensors import expected_tensors

logger = logging.getLogger(__name__)


class FlaxCallableModel:
    """A linen module and its parameters: building, starting, calling, casting.

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
        self.config = as_config(config)
        self.check()
        self.input_shape = input_shape
        self.dtype = flax_dtype(dtype)
        self.key = jax.random.PRNGKey(seed)
        self.add_pooling_layer = add_pooling_layer
        asked = gradient_checkpointing or getattr(self.config, "gradient_checkpointing", False)
        self.is_gradient_checkpointing = bool(asked)
        self._do_init = _do_init
        self.warned = False
        self._params: Params | None = self.init_weights(self.key) if _do_init else None

    def check(self) -> None:
        """Refuse a config that this model can't be built from."""
        check_class_family(self.config.model_type, class_name=type(self).__name__)
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
        self._warn_about_pads(arguments.get("input_ids"), attention_mask)
        with exact_matmul(self.dtype):
            output: Any = self.module.apply(
                {"params": self.params if params is None else params},
                **arguments,
                deterministic=not train,
                rngs=self._rngs(dropout_rng, train=train),
            )
        named = self.config.use_return_dict if return_dict is None else return_dict
        return output if named else self._as_tuple(output)

    def _warn_about_pads(self, input_ids: Array | None, mask: Array | None) -> None:
        if mask is not None or input_ids is None or self.warned or not readable(input_ids):
            return
        if input_ids.shape[-1] > 1 and bool((input_ids[..., jnp.array([0, -1])] == self.config.pad_token_id).any()):
            logger.warning("input_ids hold pads and no attention_mask is given: pads are attended to; pass the mask")
            self.warned = True

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

    def expected_tensors(self) -> dict[str, tuple[int, ...]]:
        """Neutral name -> shape of what this model reads from a checkpoint."""
        pooler = self.add_pooling_layer if self.bare else None
        return expected_tensors(config=self.config, head=type(self).head, pooler=pooler)

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
