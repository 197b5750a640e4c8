"""Sizes in, the small layers that everything here is made of out: dense, embedding, LayerNorm, dropout.

Keras tracks, names and saves them, but they are called straight: Keras's own call costs more than a small layer's sums,
and its masks, regularisers and build step are not used. Variables exist as soon as a layer does.
Legend: H features in, O features out, V rows of a table, X any leading axes, T all leading axes flattened.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow import Tensor


@dataclass(frozen=True)
class Building:
    """How models are built at present. dtype: Keras's policy name; None: its global one. started: with first values."""

    dtype: str | None = None
    started: bool = True


BUILDING: ContextVar[Building] = ContextVar("building", default=Building())  # noqa: B039 -- frozen


@contextmanager
def building(*, dtype: str | None, started: bool) -> Iterator[None]:
    """Models built inside have variables of this type; not started: all zeros, for a checkpoint's values to come."""
    token = BUILDING.set(Building(dtype=dtype, started=started))
    try:
        yield
    finally:
        BUILDING.reset(token)


class Seeds:
    """One source of seeds for a pass: the k-th draw depends on the pass's seed and k alone."""

    def __init__(self, seed: Tensor) -> None:
        self.seed = tf.cast(seed, tf.int32)
        self.drawn = 0

    def draw(self) -> Tensor:
        """A fresh seed, int32 [2]."""
        self.drawn += 1
        return tf.random.experimental.stateless_fold_in(self.seed, self.drawn)


class Block(keras.layers.Layer):
    """A tracked layer that is called straight through `forward`."""

    def __init__(self) -> None:
        super().__init__(dtype=BUILDING.get().dtype)
        self.built = True

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self.forward(*arguments, **named)

    def forward(self, *arguments: Any, **named: Any) -> Any:
        """What the layer does."""
        raise TypeError(f"{type(self).__name__} holds variables only; it is not called")

    def variable(self, *, name: str, shape: tuple[int, ...], trainable: bool = True) -> Any:
        """A new variable of zeros."""
        return self.add_weight(shape=shape, initializer="zeros", name=name, trainable=trainable)

    def replace(self, *, name: str, values: npt.NDArray[Any] | Tensor) -> None:
        """Put a variable of other values, and maybe another shape, in the place of the one of this name."""
        old = getattr(self, name)
        trainable = old.trainable
        self.forget(old)
        fresh = self.variable(name=name, shape=tuple(values.shape), trainable=trainable)
        fresh.assign(values)
        setattr(self, name, fresh)

    def forget(self, variable: Any) -> None:
        """Track a variable no more. `del` would do it too, and collect garbage for a fifth of a second each time."""
        self._untrack_variable(variable)


class Dense(Block):
    """W·h + b. kernel [H, O] is torch's weight transposed."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.kernel = self.variable(name="kernel", shape=(inputs, outputs))
        self.bias = self.variable(name="bias", shape=(outputs,))

    def forward(self, hidden_XH: Tensor) -> Tensor:
        """[X, H] -> [X, O]."""
        return project(hidden_XH, tf.convert_to_tensor(self.kernel), tf.convert_to_tensor(self.bias))

    def cut(self, kept: npt.NDArray[np.int64], *, axis: int) -> None:
        """Keep only these outputs (axis 0) or inputs (axis 1), counted as in torch's weight."""
        self.replace(name="kernel", values=np.take(self.kernel.numpy(), kept, axis=1 - axis))
        if axis == 0:
            self.replace(name="bias", values=np.take(self.bias.numpy(), kept, axis=0))


class Embedding(Block):
    """Rows of a table. padding_idx: a row that gets no gradient from being looked up."""

    def __init__(self, rows: int, features: int, *, padding_idx: int | None = None) -> None:
        super().__init__()
        self.padding_idx = padding_idx
        self.weight = self.variable(name="weight", shape=(rows, features))

    def forward(self, ids_X: Tensor) -> Tensor:
        """[X] -> [X, H]."""
        found_XH = tf.gather(tf.convert_to_tensor(self.weight), ids_X)
        if self.padding_idx is None:
            return found_XH
        padding_X1 = tf.expand_dims(tf.equal(ids_X, tf.cast(self.padding_idx, ids_X.dtype)), -1)
        return tf.where(padding_X1, tf.stop_gradient(found_XH), found_XH)


class LayerNorm(Block):
    """(h - mean) / sqrt(variance + eps) · weight + bias over the last axis, two-pass variance, in float32 at least."""

    def __init__(self, features: int, *, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = self.variable(name="weight", shape=(features,))
        self.bias = self.variable(name="bias", shape=(features,))

    def forward(self, hidden_XH: Tensor) -> Tensor:
        """[X, H] -> [X, H]."""
        wide_XH = at_least_float32(hidden_XH)
        centred_XH = wide_XH - tf.reduce_mean(wide_XH, axis=-1, keepdims=True)
        variance_X1 = tf.reduce_mean(tf.square(centred_XH), axis=-1, keepdims=True)
        scale_XH = tf.math.rsqrt(variance_X1 + self.eps) * tf.cast(self.weight, wide_XH.dtype)
        return tf.cast(centred_XH * scale_XH + tf.cast(self.bias, wide_XH.dtype), hidden_XH.dtype)


class Dropout(Block):
    """Drops each element by itself with probability `rate`; nothing without seeds."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, hidden_XH: Tensor, seeds: Seeds | None) -> Tensor:
        """[X, H] -> [X, H]."""
        return drop(hidden_XH, rate=self.rate, seeds=seeds)


def drop(hidden_XH: Tensor, *, rate: float, seeds: Seeds | None) -> Tensor:
    """Dropout with the next of the seeds, or nothing without them."""
    if seeds is None or not rate:
        return hidden_XH
    return tf.nn.experimental.stateless_dropout(hidden_XH, rate=rate, seed=seeds.draw())


def project(hidden_XH: Tensor, kernel_HO: Tensor, bias_O: Tensor, *, transposed: bool = False) -> Tensor:
    """W·h + b as one matrix product whatever the leading axes. transposed: the kernel is [O, H]."""
    if hidden_XH.shape.rank == 2:
        return tf.nn.bias_add(tf.matmul(hidden_XH, kernel_HO, transpose_b=transposed), bias_O)
    flat_TH = tf.reshape(hidden_XH, (-1, hidden_XH.shape[-1]))
    flat_TO = tf.nn.bias_add(tf.matmul(flat_TH, kernel_HO, transpose_b=transposed), bias_O)
    return tf.reshape(flat_TO, [*sizes(hidden_XH)[:-1], bias_O.shape[0]])


def at_least_float32(hidden: Tensor) -> Tensor:
    """Half precision widened, all else as it is."""
    return tf.cast(hidden, tf.float32) if hidden.dtype in (tf.float16, tf.bfloat16) else hidden


def sizes(tensor: Tensor) -> list[Any]:
    """The shape: numbers where they are known, scalar tensors while a graph is traced for any size."""
    known = tensor.shape.as_list()
    if None not in known:
        return known
    dynamic = tf.shape(tensor)
    return [dynamic[axis] if size is None else size for axis, size in enumerate(known)]


def static_shape(tensor: Tensor | None) -> tuple[int, ...] | None:
    """The shape with -1 for sizes that are not known yet."""
    return None if tensor is None else tuple(-1 if size is None else size for size in tensor.shape.as_list())


def readable(values: Tensor) -> bool:
    """Whether Python may look at the values: not while a graph is traced."""
    return bool(tf.executing_eagerly()) and hasattr(values, "numpy")
