"""NumPy tensors under neutral names in, a tree of parameters out; and back.

The tree's paths are models.foreign_names' Flax names at their dots; a kernel is a linear layer's weight transposed.
"""

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from models.config import RobertaPreLayerNormConfig
from models.foreign_names import to_foreign
from models.loading import start_of
from models.roberta_flax.layers import Array
from models.safetensors_file import AnyArray
from models.tensors import PREFIX

# Nested dictionaries with arrays as leaves.
Params: TypeAlias = dict[str, Any]

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16, "float16": jnp.float16, "float64": jnp.float64}


def flax_dtype(dtype: Any) -> Any:
    """A type from its name, or the type itself."""
    if not isinstance(dtype, str):
        return jnp.dtype(dtype).type
    if dtype not in DTYPES:
        raise ValueError(f"dtype is '{dtype}'; choose one of {', '.join(DTYPES)}")
    return DTYPES[dtype]


def param_path(name: str, *, bare: bool) -> tuple[str, ...]:
    """Where a neutral name lies in the tree: `lm_head.dense.weight` -> (lm_head, dense, kernel)."""
    shown = name.removeprefix(PREFIX) if bare else name
    return tuple(to_foreign(name=shown, stored_format="flax").name.split("."))


def transposed(name: str) -> bool:
    """Whether the tree holds the tensor transposed."""
    return to_foreign(name=name, stored_format="flax").transposed


def to_params(
    *, tensors: Iterable[tuple[str, AnyArray]], bare: bool, dtype: Any, device: Any = None
) -> dict[tuple[str, ...], Array]:
    """Path -> array on the device in this type; the arrays given may be read-only views of a file."""
    flat = {}
    for name, array in tensors:
        copied = np.array(array.T if transposed(name) else array, order="C").astype(dtype)
        flat[param_path(name, bare=bare)] = jax.device_put(copied, device)
    return flat


def to_tensors(*, params: Params, names: Iterable[str], bare: bool) -> dict[str, AnyArray]:
    """Neutral name -> array in torch's layout, of the named tensors."""
    flat = flatten_dict(params)
    found = {}
    for name in names:
        array = np.asarray(flat[param_path(name, bare=bare)])
        found[name] = np.ascontiguousarray(array.T) if transposed(name) else array
    return found


def fresh_params(
    *,
    shapes: Mapping[str, tuple[int, ...]],
    names: Iterable[str],
    bare: bool,
    key: Array,
    config: RobertaPreLayerNormConfig,
) -> dict[tuple[str, ...], Array]:
    """Path -> array of the named tensors, started as `models.loading.start_of` says from one seeded key.

    A tensor's values depend on its place in `shapes` alone, not on which others are started too.
    """
    places = {name: place for place, name in enumerate(shapes)}
    flat = {}
    for name in names:
        values = start(jax.random.fold_in(key, places[name]), name=name, shape=shapes[name], config=config)
        flat[param_path(name, bare=bare)] = values.T if transposed(name) else values
    return flat


def start(key: Array, *, name: str, shape: tuple[int, ...], config: RobertaPreLayerNormConfig) -> Array:
    """A float32 array as `models.loading.start_of` says."""
    kind = start_of(name)
    if kind == "zeros":
        return jnp.zeros(shape)
    if kind == "ones":
        return jnp.ones(shape)
    values = jax.random.normal(key, shape) * config.initializer_range
    if kind == "normal, pad row zero" and shape[0] > config.pad_token_id:
        return values.at[config.pad_token_id].set(0.0)
    return values


def nested(flat: Mapping[tuple[str, ...], Array]) -> Params:
    """The tree of a flat mapping."""
    tree: Params = unflatten_dict(dict(flat))
    return tree


def cast(params: Params, dtype: Any, mask: Any = None) -> Params:
    """Floating-point leaves in another type; mask: a tree of booleans, True where to cast."""

    def cast_leaf(leaf: Array, wanted: bool = True) -> Array:
        floating = jnp.issubdtype(jnp.asarray(leaf).dtype, jnp.floating)
        return jnp.asarray(leaf, dtype) if wanted and floating else leaf

    tree: Params = jax.tree.map(cast_leaf, params) if mask is None else jax.tree.map(cast_leaf, params, mask)
    return tree
