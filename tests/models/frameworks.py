"""An adapter that puts each framework's classes behind NumPy, for tests that hold for all three.

`each()` and `each_with()` are the parameters of such tests, each with its framework's marker, so that a framework which
is not installed is skipped. Rows have 9 tokens wherever they can: JAX compiles every operation once for each shape.
"""

import functools
import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import models
from models.boundary import FlatModel, Head
from models.config import RobertaPreLayerNormConfig
from models.load import load
from tests.models import golden
from tests.models.tiny import tiny_config

Array = npt.NDArray[Any]
Inputs = Mapping[str, Any]
Rule = Callable[..., bool]

MODULES = {"torch": "torch", "tensorflow": "tensorflow", "flax": "flax"}
INSTALLED = [name for name, module in MODULES.items() if importlib.util.find_spec(module) is not None]


class Classes(ABC):
    """The seven classes of one framework.

    Inputs are NumPy arrays or plain values by keyword; outputs and gradients come back as NumPy, gradients under
    neutral names and in torch's layout.
    """

    name: Any
    prefix = ""
    formats: tuple[str, ...] = ("safetensors", "safetensors-tf", "safetensors-flax", "h5", "msgpack")
    own_file = ""
    """What save_pretrained(safe_serialization=False) writes."""

    def named(self, kind: str) -> Any:
        """The class of a kind, e.g. "ForMaskedLM"."""
        return getattr(models, f"{self.prefix}RobertaPreLayerNorm{kind}")

    def load(self, kind: str, url: object, **overrides: Any) -> Any:
        """from_pretrained, ready to answer."""
        return self.named(kind).from_pretrained(str(url), **overrides)

    def flat(self, url: object, *heads: Head, **options: Any) -> Any:
        """The flat model of a checkpoint, on the CPU unless another device is given."""
        order: dict[str, Any] = {"device": "cpu", **options}
        loaded: FlatModel = load(checkpoint=str(url), framework=self.name, heads=list(heads), **order)
        return loaded

    @abstractmethod
    def fresh(self, kind: str, config: RobertaPreLayerNormConfig, *, seed: int = 11) -> Any:
        """A new model that starts from the seed, ready to answer."""

    def build(self, kind: str = "Model", **overrides: Any) -> Any:
        """A tiny model of the test's own."""
        return self.fresh(kind, tiny_config(**overrides))

    def kept(self, kind: str = "Model", **overrides: Any) -> Any:
        """A tiny model for all tests that do not change it."""
        return _kept(self.name, kind, tuple(sorted(overrides.items())))

    @abstractmethod
    def array(self, value: Any) -> Any:
        """A NumPy array as the framework's; any other value as it is."""

    def call(self, model: Any, *places: Any, **inputs: Any) -> Any:
        """The model's own output object, without gradients."""
        return model(*map(self.array, places), **{name: self.array(value) for name, value in inputs.items()})

    def answer(self, model: Any, inputs: Inputs) -> dict[str, Array]:
        """A call's outputs under the golden files' names."""
        return {name: np.asarray(tensor) for name, tensor in golden.flatten(self.call(model, **inputs))}

    def program(self, model: Any) -> Callable[..., Any]:
        """`call` of this model for many calls of few shapes, its inputs arrays only."""
        return functools.partial(self.call, model)

    def embedded(self, model: Any, ids: Array) -> Array:
        """The word embeddings of ids."""
        return np.asarray(self.call(model.get_input_embeddings(), ids))

    @abstractmethod
    def gradients(self, model: Any, inputs: Inputs, *, of: str | None = None) -> dict[str, Array]:
        """Of an argument, or of every parameter on which the sum of the first output depends; dropout off."""

    @abstractmethod
    def training_gradients(self, model: Any, inputs: Inputs, *, seed: int = 3) -> dict[str, Array]:
        """The same of the parameters, with the dropout of a training step from the seed."""

    @abstractmethod
    def training_call(self, model: Any, ids: Array, *, seed: int = 3, **inputs: Any) -> Any:
        """`call` with that dropout."""

    @abstractmethod
    def tensors(self, model: Any) -> dict[str, Array]:
        """The parameters that a checkpoint has."""

    @abstractmethod
    def parameters(self, model: Any) -> int:
        """How many tensors the model itself has to learn."""

    @abstractmethod
    def dtype(self, name: str) -> Any:
        """The framework's own name of a type."""

    def save_in(self, dtype: str, model: Any, folder: Path) -> None:
        """Save a model's values in a type."""
        model.save_pretrained(str(folder / "whole"))
        type(model).from_pretrained(str(folder / "whole"), dtype=dtype).save_pretrained(str(folder))


class Torch(Classes):
    name = "torch"
    formats = (*Classes.formats, "pickle")
    own_file = "pytorch_model.bin"

    def load(self, kind: str, url: object, **overrides: Any) -> Any:
        _one_thread()
        return super().load(kind, url, **overrides)

    def fresh(self, kind: str, config: RobertaPreLayerNormConfig, *, seed: int = 11) -> Any:
        import torch

        _one_thread()
        torch.manual_seed(seed)
        return self.named(kind)(config).eval()

    def array(self, value: Any) -> Any:
        import torch

        return torch.from_numpy(value.copy()) if isinstance(value, np.ndarray) else value

    def call(self, model: Any, *places: Any, **inputs: Any) -> Any:
        import torch

        with torch.no_grad():
            return super().call(model, *places, **inputs)

    def gradients(self, model: Any, inputs: Inputs, *, of: str | None = None) -> dict[str, Array]:
        from models.roberta_torch.weights import neutral_parameters

        given = {name: self.array(value) for name, value in inputs.items()}
        if of is not None:
            given[of].requires_grad_()
        model.zero_grad()
        model(**given)[0].sum().backward()
        if of is not None:
            return {of: given[of].grad.numpy()}
        found = neutral_parameters(model, bare=model.bare)
        return {name: p.grad.numpy().copy() for name, p in found.items() if p.grad is not None}

    def training_gradients(self, model: Any, inputs: Inputs, *, seed: int = 3) -> dict[str, Array]:
        return self._training(model, seed, lambda: self.gradients(model, inputs))

    def training_call(self, model: Any, ids: Array, *, seed: int = 3, **inputs: Any) -> Any:
        return self._training(model, seed, lambda: self.call(model, ids, **inputs))

    def _training(self, model: Any, seed: int, run: Callable[[], Any]) -> Any:
        import torch

        torch.manual_seed(seed)
        model.train()
        try:
            return run()
        finally:
            model.eval()

    def tensors(self, model: Any) -> dict[str, Array]:
        from models.roberta_torch.weights import neutral_parameters, to_numpy

        named = neutral_parameters(model, bare=model.bare)
        return {name: to_numpy(named[name]) for name in model.expected_tensors()}

    def parameters(self, model: Any) -> int:
        return len(list(model.parameters()))

    def dtype(self, name: str) -> Any:
        import torch

        return getattr(torch, name)


class TensorFlow(Classes):
    name = "tensorflow"
    prefix = "TF"
    own_file = "tf_model.h5"

    def fresh(self, kind: str, config: RobertaPreLayerNormConfig, *, seed: int = 11) -> Any:
        import keras

        keras.utils.set_random_seed(seed)
        return self.named(kind)(config)

    def array(self, value: Any) -> Any:
        import tensorflow as tf

        return tf.constant(value) if isinstance(value, np.ndarray) else value

    def gradients(
        self, model: Any, inputs: Inputs, *, of: str | None = None, training: bool = False
    ) -> dict[str, Array]:
        import tensorflow as tf

        from models.roberta_tf.weights import neutral_variables

        given = {name: self.array(value) for name, value in inputs.items()}
        with tf.GradientTape() as tape:
            if of is not None:
                tape.watch(given[of])
            total = tf.reduce_sum(model(**given, training=training)[0])
        if of is not None:
            return {of: np.asarray(tape.gradient(total, given[of]))}
        named = neutral_variables(model)
        found = {}
        for name, gradient in zip(named, tape.gradient(total, [v.value for v in named.values()]), strict=True):
            if gradient is not None:
                array = np.asarray(tf.convert_to_tensor(gradient))
                found[name] = array.T if named[name].name == "kernel" else array
        return found

    def training_gradients(self, model: Any, inputs: Inputs, *, seed: int = 3) -> dict[str, Array]:
        self._start(model, seed)
        return self.gradients(model, inputs, training=True)

    def training_call(self, model: Any, ids: Array, *, seed: int = 3, **inputs: Any) -> Any:
        self._start(model, seed)
        return self.call(model, ids, **inputs, training=True)

    def _start(self, model: Any, seed: int) -> None:
        for generator in (model.seed_generator, model.base_model.seed_generator):
            generator.state.assign([seed, 4])

    def tensors(self, model: Any) -> dict[str, Array]:
        from models.roberta_tf.weights import to_numpy

        return {name: to_numpy(model, name) for name in model.expected_tensors()}

    def parameters(self, model: Any) -> int:
        return len(model.trainable_variables)

    def dtype(self, name: str) -> Any:
        import tensorflow as tf

        return tf.as_dtype(name)


class Flax(Classes):
    name = "flax"
    prefix = "Flax"
    own_file = "flax_model.msgpack"

    def fresh(self, kind: str, config: RobertaPreLayerNormConfig, *, seed: int = 11) -> Any:
        return self.named(kind)(config, seed=seed)

    def array(self, value: Any) -> Any:
        import jax.numpy as jnp

        return jnp.asarray(value) if isinstance(value, np.ndarray) else value

    def program(self, model: Any) -> Callable[..., Any]:
        """Compiled as a whole: by itself every operation would be compiled for every shape."""
        import jax

        return functools.partial(self.call, jax.jit(model))

    def embedded(self, model: Any, ids: Array) -> Array:
        return np.asarray(model.get_input_embeddings()[ids])

    def gradients(self, model: Any, inputs: Inputs, *, of: str | None = None) -> dict[str, Array]:
        import jax

        # Compiled as a whole, as a training step is: by itself every operation would be, forward and back.
        if of is not None:
            gradient = jax.grad(lambda value: model(**{**inputs, of: value})[0].sum())
            return {of: np.asarray(jax.jit(gradient)(inputs[of]))}
        tree = jax.jit(jax.grad(lambda params: model(**inputs, params=params)[0].sum()))(model.params)
        return self._tensors(model, tree)

    def training_gradients(self, model: Any, inputs: Inputs, *, seed: int = 3) -> dict[str, Array]:
        import jax

        return self.gradients(model, {**inputs, "train": True, "dropout_rng": jax.random.PRNGKey(seed)})

    def training_call(self, model: Any, ids: Array, *, seed: int = 3, **inputs: Any) -> Any:
        import jax

        return self.call(model, ids, **inputs, train=True, dropout_rng=jax.random.PRNGKey(seed))

    def tensors(self, model: Any) -> dict[str, Array]:
        return self._tensors(model, model.params)

    def parameters(self, model: Any) -> int:
        import jax

        return len(jax.tree.leaves(model.params))

    def dtype(self, name: str) -> Any:
        import jax.numpy as jnp

        return getattr(jnp, name)

    def save_in(self, dtype: str, model: Any, folder: Path) -> None:
        # A model's type is that of its computations here; parameters stay in float32 unless they are cast.
        cast = {"bfloat16": model.to_bf16, "float16": model.to_fp16}[dtype]
        model.save_pretrained(str(folder), params=cast(model.params))

    def _tensors(self, model: Any, tree: Any) -> dict[str, Array]:
        from models.roberta_flax.weights import to_tensors

        return to_tensors(params=tree, names=model.expected_tensors(), bare=model.bare)


CLASSES: Mapping[str, Classes] = {"torch": Torch(), "tensorflow": TensorFlow(), "flax": Flax()}


@functools.cache
def _kept(name: str, kind: str, overrides: tuple[tuple[str, Any], ...]) -> Any:
    return CLASSES[name].build(kind, **dict(overrides))


def _one_thread() -> None:
    """Tiny tensors: a second thread only waits, for long where other processes share the cores."""
    import torch

    torch.set_num_threads(1)


def each(*names: str) -> pytest.MarkDecorator:
    """A test's `framework` is each of these, or of all."""
    return pytest.mark.parametrize("framework", [_parameter(name) for name in names or MODULES])


def each_with(
    arguments: str,
    values: Iterable[Any],
    *,
    slow: Mapping[str, Rule] | None = None,
    but: Mapping[str, Rule] | None = None,
) -> pytest.MarkDecorator:
    """A test's `framework` with its other arguments: every framework with all values.

    slow: by framework, the values that only `make slow` tests: another framework or another test has them. but: the
    values that a framework does not know.
    """
    parameters = []
    for name in MODULES:
        is_slow, is_unknown = ((rules or {}).get(name, lambda *_: False) for rules in (slow, but))
        for value in values:
            given = value if isinstance(value, tuple) else (value,)
            if not is_unknown(*given):
                parameters.append(_parameter(name, *given, marks=[pytest.mark.slow] if is_slow(*given) else []))
    return pytest.mark.parametrize(f"framework, {arguments}", parameters)


def _parameter(name: str, *values: Any, marks: Iterable[Any] = ()) -> Any:
    id_ = "-".join([name, *(str(value) for value in values)])
    return pytest.param(CLASSES[name], *values, id=id_, marks=[getattr(pytest.mark, name), *marks])
