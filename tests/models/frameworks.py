"""An adapter that puts each framework's classes behind NumPy, for tests that hold for all three."""

import functools
import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

import models
from models.config import RobertaPreLayerNormConfig
from models.tensors import PREFIX
from tests.models import golden

Array = npt.NDArray[Any]
Inputs = Mapping[str, Any]

MODULES = {"torch": "torch", "tensorflow": "tensorflow", "flax": "flax"}
INSTALLED = [name for name, module in MODULES.items() if importlib.util.find_spec(module) is not None]


class Classes(ABC):
    """The seven classes of one framework.

    Inputs are NumPy arrays or plain values by keyword; outputs and gradients come back as NumPy, gradients under
    neutral names and in torch's layout.
    """

    prefix = ""

    def named(self, kind: str) -> Any:
        """The class of a kind, e.g. "ForMaskedLM"."""
        return getattr(models, f"{self.prefix}RobertaPreLayerNorm{kind}")

    def load(self, kind: str, url: str, **overrides: Any) -> Any:
        """from_pretrained, ready to answer."""
        return self.named(kind).from_pretrained(url, **overrides)

    @abstractmethod
    def fresh(self, kind: str, config: RobertaPreLayerNormConfig, *, seed: int = 11) -> Any:
        """A new model that starts from the seed, ready to answer."""

    @abstractmethod
    def answer(self, model: Any, inputs: Inputs) -> dict[str, Array]:
        """A call's outputs under the golden files' names."""

    def program(self, model: Any) -> Callable[[Inputs], dict[str, Array]]:
        """`answer` of this model for many calls of few shapes, its inputs arrays only."""
        return functools.partial(self.answer, model)

    @abstractmethod
    def gradients(self, model: Any, inputs: Inputs) -> dict[str, Array]:
        """Of the first output's sum, dropout off; parameters that it does not depend on may be absent."""

    @abstractmethod
    def tensors(self, model: Any) -> dict[str, Array]:
        """Every parameter."""


class Torch(Classes):
    def fresh(self, kind: str, config: RobertaPreLayerNormConfig, *, seed: int = 11) -> Any:
        import torch

        torch.manual_seed(seed)
        return self.named(kind)(config).eval()

    def _call(self, model: Any, inputs: Inputs) -> Any:
        import torch

        given = {k: torch.from_numpy(v.copy()) if isinstance(v, np.ndarray) else v for k, v in inputs.items()}
        return model(**given)

    def answer(self, model: Any, inputs: Inputs) -> dict[str, Array]:
        import torch

        with torch.no_grad():
            return {name: tensor.numpy() for name, tensor in golden.flatten(self._call(model, inputs))}

    def gradients(self, model: Any, inputs: Inputs) -> dict[str, Array]:
        from models.roberta_torch.weights import neutral_parameters

        model.zero_grad()
        self._call(model, inputs)[0].sum().backward()
        found = neutral_parameters(model, bare=model.bare)
        return {name: p.grad.numpy() for name, p in found.items() if p.grad is not None}

    def tensors(self, model: Any) -> dict[str, Array]:
        from models.roberta_torch.weights import neutral_parameters, to_numpy

        named = neutral_parameters(model, bare=model.bare)
        return {name: to_numpy(named[name]) for name in model.expected_tensors()}


class TensorFlow(Classes):
    prefix = "TF"

    def fresh(self, kind: str, config: RobertaPreLayerNormConfig, *, seed: int = 11) -> Any:
        import keras

        keras.utils.set_random_seed(seed)
        return self.named(kind)(config)

    def answer(self, model: Any, inputs: Inputs) -> dict[str, Array]:
        return {name: np.asarray(tensor) for name, tensor in golden.flatten(model(**inputs))}

    def gradients(self, model: Any, inputs: Inputs) -> dict[str, Array]:
        import tensorflow as tf

        from models.roberta_tf.weights import neutral_variables

        with tf.GradientTape() as tape:
            total = tf.reduce_sum(model(**inputs)[0])
        named = neutral_variables(model)
        found = {}
        for name, gradient in zip(named, tape.gradient(total, [v.value for v in named.values()]), strict=True):
            if gradient is not None:
                array = np.asarray(tf.convert_to_tensor(gradient))
                found[name] = array.T if named[name].name == "kernel" else array
        return found

    def tensors(self, model: Any) -> dict[str, Array]:
        from models.roberta_tf.weights import to_numpy

        return {name: to_numpy(model, name) for name in model.expected_tensors()}


class Flax(Classes):
    prefix = "Flax"

    def fresh(self, kind: str, config: RobertaPreLayerNormConfig, *, seed: int = 11) -> Any:
        return self.named(kind)(config, seed=seed)

    def answer(self, model: Any, inputs: Inputs) -> dict[str, Array]:
        return {name: np.asarray(array) for name, array in golden.flatten(model(**inputs))}

    def program(self, model: Any) -> Callable[[Inputs], dict[str, Array]]:
        """Compiled as a whole: by itself every operation would be compiled for every shape."""
        import jax

        called = jax.jit(model)
        return lambda inputs: {name: np.asarray(array) for name, array in golden.flatten(called(**inputs))}

    def gradients(self, model: Any, inputs: Inputs) -> dict[str, Array]:
        import jax

        tree = jax.jit(jax.grad(lambda params: model(**inputs, params=params)[0].sum()))(model.params)
        return self._tensors(model, tree)

    def tensors(self, model: Any) -> dict[str, Array]:
        return self._tensors(model, model.params)

    def _tensors(self, model: Any, tree: Any) -> dict[str, Array]:
        from models.roberta_flax.weights import to_tensors

        return to_tensors(params=tree, names=model.expected_tensors(), bare=model.bare)


CLASSES: Mapping[str, Classes] = {"torch": Torch(), "tensorflow": TensorFlow(), "flax": Flax()}


def neutral(name: str) -> str:
    """A name without the prefix."""
    return name.removeprefix(PREFIX)
