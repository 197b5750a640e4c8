"""The reference's inputs and outputs, read from ../shared/golden/models: one reader for all three frameworks.

A framework's test gives `answer(model, case inputs) -> mapping of NumPy arrays` and compares with `Case.expected`.
"""

import functools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

GOLDEN = Path(__file__).resolve().parents[3] / "shared" / "golden"
MODELS = GOLDEN / "models"

# golden/README.md: right in float32, measured between the reference's own frameworks.
LOGITS_TOLERANCE = 3e-5
LAST_HIDDEN_TOLERANCE = 1e-5
ATTENTION_TOLERANCE = 5e-6
CACHE_TOLERANCE = 3e-5
LOSS_TOLERANCE = 2e-5
GRADIENT_TOLERANCE = 1e-4  # relative to the largest entry of the gradient …
GRADIENT_FLOOR = 1e-2  # … or to this part of the model's largest: key biases have gradient 0, all else is rounding


Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Case:
    """One call of the reference: model folder, case name, keyword inputs and torch's outputs by name."""

    model: str
    name: str
    inputs: Mapping[str, Array]
    expected: Mapping[str, Array]

    @property
    def folder(self) -> Path:
        return MODELS / self.model

    @property
    def class_name(self) -> str:
        """The class without its framework's prefix, e.g. RobertaPreLayerNormForMaskedLM."""
        return "RobertaPreLayerNorm" + self.model.split("-")[0]

    def outputs(self) -> dict[str, Array]:
        """Expected outputs without gradients."""
        return {name: array for name, array in self.expected.items() if not name.startswith("grad/")}

    def gradients(self) -> dict[str, Array]:
        """Expected gradients by parameter name."""
        return {name[5:]: array for name, array in self.expected.items() if name.startswith("grad/")}


@functools.cache
def cases_of(model: str) -> dict[str, Case]:
    """All cases of one model folder."""
    with np.load(MODELS / model / "cases.npz") as stored:
        arrays = {key: stored[key] for key in stored.files}
    names = dict.fromkeys(key.split("/")[0] for key in arrays)
    return {name: Case(model, name, _under(arrays, f"{name}/in/"), _under(arrays, f"{name}/torch/")) for name in names}


def case_names() -> list[tuple[str, str]]:
    """Every (model, case) but the stepwise ones; empty where the reference data is absent."""
    if not MODELS.is_dir():
        return []
    return [
        (folder.name, name)
        for folder in sorted(MODELS.iterdir())
        if folder.is_dir()
        for name in cases_of(folder.name)
        if name != "decode_steps"
    ]


def model_names() -> list[str]:
    """Every model folder; empty where the reference data is absent."""
    return sorted(folder.name for folder in MODELS.iterdir() if folder.is_dir()) if MODELS.is_dir() else []


def one_a_structure(*, but: str | None = None) -> list[Any]:
    """Every model folder; those that have no tensor which another has not are marked slow.

    but: part of the names of folders to leave out.
    """
    same = (
        "ForSequenceClassification-",
        "Model-chunked",
        "Model-decoder",
        "Model-gelu_new",
        "Model-relative_key_query",
    )
    names = [name for name in model_names() if but is None or but not in name]
    return [pytest.param(name, marks=pytest.mark.slow) if name.startswith(same) else name for name in names]


def flatten(output: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """An output mapping under the golden files' names: hidden_states.0, past.0.self_k, …"""
    for name, value in output.items():
        if name == "past_key_values":
            for layer, parts in enumerate(value):
                for part, tensor in zip(("self_k", "self_v", "cross_k", "cross_v"), parts, strict=False):
                    yield f"past.{layer}.{part}", tensor
        elif isinstance(value, tuple | list):
            for i, tensor in enumerate(value):
                yield f"{name}.{i}", tensor
        else:
            yield name, value


def tolerance(name: str) -> float:
    """The tolerance of an output by its golden name."""
    if name == "loss":
        return LOSS_TOLERANCE
    if "attentions" in name:
        return ATTENTION_TOLERANCE
    if name.startswith("past."):
        return CACHE_TOLERANCE
    if name in ("last_hidden_state", "pooler_output"):
        return LAST_HIDDEN_TOLERANCE
    return LOGITS_TOLERANCE


def compare(found: Mapping[str, Array], expected: Mapping[str, Array]) -> None:
    """Same names, same shapes, values within the tolerances."""
    assert sorted(found) == sorted(expected)
    for name, array in expected.items():
        assert found[name].shape == array.shape, name
        np.testing.assert_allclose(found[name], array, rtol=0, atol=tolerance(name), err_msg=name)


def compare_gradients(found: Mapping[str, Array], expected: Mapping[str, Array]) -> None:
    """Every expected gradient is found, to the relative tolerance."""
    largest = max(float(np.abs(array).max()) for array in expected.values())
    for name, array in expected.items():
        scale = max(float(np.abs(array).max()), GRADIENT_FLOOR * largest)
        np.testing.assert_allclose(found[name], array, rtol=0, atol=GRADIENT_TOLERANCE * scale, err_msg=name)


def encodings() -> list[dict[str, Any]]:
    """The calls of the reference's pipelines in golden/annotations."""
    cases: list[dict[str, Any]] = json.loads((GOLDEN / "annotations" / "annotations.json").read_text())["cases"]
    return cases


def _under(arrays: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    return {key[len(prefix) :]: array for key, array in arrays.items() if key.startswith(prefix)}
