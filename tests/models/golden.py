"""The reference's inputs and outputs: all of ../shared/golden where that is beside the repository, else those in tests/golden.

A framework's test calls its model with `Case.inputs` and gives what came out, as NumPy arrays by name, to `compare`. A
committed case has the names of all outputs and the values of some (tests/golden/selection.py).
"""

import atexit
import functools
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from tests.golden import selection

COMMITTED, REFERENCE = selection.HERE, selection.REFERENCE
GOLDEN = REFERENCE if REFERENCE.is_dir() else COMMITTED
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
    """One call of the reference: model folder, case name, keyword inputs, the names of all outputs, and torch's values.

    A scalar among the inputs is a switch.
    """

    model: str
    name: str
    inputs: Mapping[str, Any]
    names: Sequence[str]
    expected: Mapping[str, Array]

    def outputs(self) -> dict[str, Array]:
        """Expected outputs without gradients."""
        return {name: array for name, array in self.expected.items() if not name.startswith("grad/")}

    def gradients(self) -> dict[str, Array]:
        """Expected gradients by parameter name."""
        return {name[5:]: array for name, array in self.expected.items() if name.startswith("grad/")}


@functools.cache
def cases_of(model: str) -> dict[str, Case]:
    """All cases of one model folder."""
    file = MODELS / model / "cases.safetensors"
    if file.exists():
        arrays = load_file(file)
        with safe_open(file, "numpy") as opened:
            names = json.loads(opened.metadata()["outputs"])
    else:
        with np.load(MODELS / model / "cases.npz") as stored:
            arrays = {key: stored[key] for key in stored.files}
        names = {}
        for case, source, name in (key.split("/", 2) for key in arrays):
            names.setdefault(case, []).extend([name] if source == "torch" else [])
    cases = {}
    for name, outputs in names.items():
        inputs = {key: array if array.ndim else bool(array) for key, array in _under(arrays, f"{name}/in/").items()}
        cases[name] = Case(model, name, inputs, outputs, _under(arrays, f"{name}/torch/"))
    return cases


def case_names() -> list[tuple[str, str]]:
    """Every (model, case) but the stepwise ones."""
    return [(model, name) for model in model_names() for name in cases_of(model) if name != "decode_steps"]


def model_names(*, having: str | None = None) -> list[str]:
    """Every model folder, or those with a case of this name."""
    names = sorted(folder.name for folder in MODELS.iterdir() if folder.is_dir())
    return names if having is None else [name for name in names if having in cases_of(name)]


def kind_of(model: str) -> str:
    """The class of a model folder, as tests/models/tiny.py names it."""
    return model.split("-")[0]


def legacy_folders(file: str) -> dict[str, Path]:
    """Model -> the folder with its config and this file, for each model of which it is there."""
    if GOLDEN == COMMITTED:
        return {selection.LEGACY[file]: COMMITTED / "legacy" / file}
    return {model: MODELS / model for model in model_names()}


def legacy_names(model: str, file: str) -> dict[str, list[int]]:
    """Where the reference's file has its tensors, and their shapes, as `selection.listed` chooses them."""
    names: dict[str, dict[str, dict[str, list[int]]]] = json.loads((COMMITTED / "legacy" / "names.json").read_text())
    return names[model][file]


def annotation_calls() -> list[dict[str, Any]]:
    """The calls of the reference's pipelines, with their results."""
    calls: list[dict[str, Any]] = json.loads((GOLDEN / "annotations" / "annotations.json").read_text())["cases"]
    return calls


def annotation_checkpoint(name: str) -> Path:
    """The checkpoint folder of a model that those calls name."""
    return REFERENCE / "annotations" / name if GOLDEN == REFERENCE else assembled_checkpoint(name)


@functools.cache
def assembled_checkpoint(name: str) -> Path:
    """A committed annotation checkpoint with its tokenizer, and with the tensors that another committed model has too."""
    stored = COMMITTED / "annotations" / name
    folder = Path(tempfile.mkdtemp(prefix="preln-golden-"))
    atexit.register(shutil.rmtree, folder)
    shutil.copytree(COMMITTED / "annotations" / "tokenizer", folder, dirs_exist_ok=True)
    shutil.copy(stored / "config.json", folder)
    with safe_open(stored / "model.safetensors", "numpy") as opened:
        rest = json.loads(opened.metadata()["rest"])
    tensors = load_file(COMMITTED / "models" / rest["model"] / "model.safetensors")
    own = {tensor: array for tensor, array in tensors.items() if tensor not in rest["without"]}
    own |= load_file(stored / "model.safetensors")
    save_file(own, folder / "model.safetensors", {"format": "pt"})
    return folder


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


def compare(found: Mapping[str, Array], case: Case, *, maps: bool = True) -> None:
    """All outputs are there, and those with an expected value have its shape and are within the tolerances.

    maps: attention maps were asked for, where the case has any.
    """

    def wanted(name: str) -> bool:
        return not name.startswith("grad/") and (maps or "attentions" not in name)

    assert sorted(found) == sorted(filter(wanted, case.names))
    for name, array in case.expected.items():
        if wanted(name):
            assert found[name].shape == array.shape, name
            np.testing.assert_allclose(found[name], array, rtol=0, atol=tolerance(name), err_msg=name)


def compare_gradients(found: Mapping[str, Array], expected: Mapping[str, Array]) -> None:
    """Every expected gradient is found, to the relative tolerance."""
    largest = max(float(np.abs(array).max()) for array in expected.values())
    for name, array in expected.items():
        scale = max(float(np.abs(array).max()), GRADIENT_FLOOR * largest)
        np.testing.assert_allclose(found[name], array, rtol=0, atol=GRADIENT_TOLERANCE * scale, err_msg=name)


def _under(arrays: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    return {key[len(prefix) :]: array for key, array in arrays.items() if key.startswith(prefix)}
