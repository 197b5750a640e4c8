"""NumPy tensors under neutral names in, a model's variables out; and back.

The table leads from a neutral name's owner (models.tensors, without the prefix) to our layer; `self` and `output` have
other names there because Keras keeps `output` for itself. A dense layer's kernel is torch's weight transposed.
"""

from collections.abc import Iterable
from typing import Any

import keras
import ml_dtypes
import numpy as np
import tensorflow as tf

from models.config import RobertaPreLayerNormConfig
from models.loading import start_of
from models.safetensors_file import AnyArray
from models.tensors import PREFIX

DTYPES = ("float32", "bfloat16", "float16", "float64")

ENCODER_OWNERS = {
    "embeddings.word_embeddings": "embeddings.word_embeddings",
    "embeddings.position_embeddings": "embeddings.position_embeddings",
    "embeddings.token_type_embeddings": "embeddings.token_type_embeddings",
    "embeddings.LayerNorm": "embeddings.LayerNorm",
    "LayerNorm": "LayerNorm",
    "pooler.dense": "pooler.dense",
}
LAYER_OWNERS = {
    "attention.LayerNorm": "attention.LayerNorm",
    "attention.self.query": "attention.inner.query",
    "attention.self.key": "attention.inner.key",
    "attention.self.value": "attention.inner.value",
    "attention.self.distance_embedding": "attention.inner.distance_embedding",
    "attention.output.dense": "attention.projection.dense",
    "crossattention.LayerNorm": "crossattention.LayerNorm",
    "crossattention.self.query": "crossattention.inner.query",
    "crossattention.self.key": "crossattention.inner.key",
    "crossattention.self.value": "crossattention.inner.value",
    "crossattention.output.dense": "crossattention.projection.dense",
    "intermediate.LayerNorm": "intermediate.LayerNorm",
    "intermediate.dense": "intermediate.dense",
    "output.dense": "narrow.dense",
}
HEAD_OWNERS = {
    "lm_head": "lm_head",
    "lm_head.dense": "lm_head.dense",
    "lm_head.layer_norm": "lm_head.layer_norm",
    "lm_head.decoder": "lm_head.decoder",
    "classifier": "classifier",
    "classifier.dense": "classifier.dense",
    "classifier.out_proj": "classifier.out_proj",
    "qa_outputs": "qa_outputs",
}


def dtype_name(dtype: Any) -> str:
    """A type's name from a name or a tf.DType."""
    name = str(tf.as_dtype(dtype).name) if not isinstance(dtype, str) else dtype
    if name not in DTYPES:
        raise ValueError(f"dtype is '{name}'; choose one of {', '.join(DTYPES)}")
    return name


def owner_of(model: Any, name: str) -> tuple[Any, str]:
    """(the layer, the leaf's name in it) of a neutral name; a kernel is what torch calls a dense layer's weight."""
    base = model.base_model if name.startswith(PREFIX) else model
    path, _, leaf = name.removeprefix(PREFIX).rpartition(".")
    if path.startswith("encoder.layer."):
        _, _, number, rest = path.split(".", 3)
        layer, path = base.encoder.layer[int(number)], LAYER_OWNERS[rest]
    else:
        layer, path = base, {**ENCODER_OWNERS, **HEAD_OWNERS}[path]
    for part in path.split("."):
        layer = getattr(layer, part)
    return layer, "kernel" if leaf == "weight" and hasattr(layer, "kernel") else leaf


def neutral_variables(model: Any) -> dict[str, Any]:
    """Every variable that a checkpoint holds, once, under its neutral name."""
    return {name: getattr(*owner_of(model, name)) for name in model.expected_tensors()}


def to_numpy(model: Any, name: str) -> AnyArray:
    """A variable's values in torch's layout, bfloat16 as ml_dtypes has it."""
    owner, leaf = owner_of(model, name)
    values: AnyArray = np.asarray(getattr(owner, leaf).value)
    return np.ascontiguousarray(values.T) if leaf == "kernel" else values


def to_values(array: AnyArray, *, leaf: str, dtype: str) -> AnyArray:
    """An array in torch's layout as our variable has it, in this type."""
    wanted = np.dtype(ml_dtypes.bfloat16) if dtype == "bfloat16" else np.dtype(dtype)
    return np.ascontiguousarray(array.T if leaf == "kernel" else array).astype(wanted, copy=False)


def fill(model: Any, *, tensors: Iterable[tuple[str, AnyArray]]) -> None:
    """Put tensors in the place of a model's first values."""
    for name, array in tensors:
        owner, leaf = owner_of(model, name)
        variable = getattr(owner, leaf)
        variable.assign(to_values(array, leaf=leaf, dtype=variable.dtype))


def initialise(model: Any, *, names: Iterable[str], config: RobertaPreLayerNormConfig) -> None:
    """Start the named variables afresh from Keras's seeded generator (keras.utils.set_random_seed)."""
    for name in names:
        owner, leaf = owner_of(model, name)
        variable = getattr(owner, leaf)
        variable.assign(start(shape=tuple(variable.shape), name=name, config=config))


def start(*, shape: tuple[int, ...], name: str, config: RobertaPreLayerNormConfig) -> Any:
    """First values as `models.loading.start_of` says, float32."""
    kind = start_of(name)
    if kind in ("zeros", "ones"):
        return tf.fill(shape, 0.0 if kind == "zeros" else 1.0)
    values = keras.random.normal(shape, stddev=config.initializer_range, dtype="float32")
    if kind == "normal, pad row zero" and shape[0] > config.pad_token_id:
        values = tf.tensor_scatter_nd_update(values, [[config.pad_token_id]], tf.zeros((1, *shape[1:])))
    return values


# What the reference spreads the rows that it starts at the mean by, of the old rows' own covariance.
MEAN_SPREAD = 1e-9


def resized(values: AnyArray, *, rows: int, std: float, mean: bool) -> AnyArray:
    """The first `rows` rows, further ones at the old ones' mean, or from N(0, std) (zeros for std 0)."""
    kept = values[:rows]
    shape = (rows - len(kept), *values.shape[1:])
    if mean:
        fresh = around_mean(values, rows=shape[0])
    else:
        fresh = np.asarray(keras.random.normal(shape, stddev=std, dtype="float32")) if std else np.zeros(shape)
    return np.concatenate([kept, fresh.astype(values.dtype)])


def around_mean(values: AnyArray, *, rows: int) -> AnyArray:
    """[rows, …] samples of the old rows' mean and MEAN_SPREAD of their covariance, row by row: the old table may be large."""
    exact = values.astype(np.float32)
    centre = exact.mean(axis=0)
    deviations = exact - centre
    scale = np.float32((MEAN_SPREAD / len(values)) ** 0.5)
    samples = [centre + scale * (np.asarray(keras.random.normal((len(values),))) @ deviations) for _ in range(rows)]
    return np.stack(samples) if samples else exact[:0]
