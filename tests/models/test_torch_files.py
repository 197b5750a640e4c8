"""What only torch's files have: pickles and who may read them, names of a state dict, arrays that are views of a file."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fsspec.implementations.local import LocalFileSystem

from models.errors import CheckpointError
from tests.models import golden
from tests.models.frameworks import CLASSES
from tests.models.tiny import token_ids

torch = pytest.importorskip("torch")
pickle_file = pytest.importorskip("models.roberta_torch.pickle_file")
read_pickles = pickle_file.read_pickles

pytestmark = pytest.mark.torch

TORCH = CLASSES["torch"]


def test_pickle_is_refused_unless_allowed(tmp_path: Path) -> None:
    TORCH.build("ForMaskedLM").save_pretrained(str(tmp_path), weights_format="pickle")
    with pytest.raises(CheckpointError, match=r"is a pickle, which can run code: allow it by allow_pickle=True"):
        TORCH.load("ForMaskedLM", tmp_path)


def test_a_pickle_that_would_run_code_is_refused_even_if_allowed(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "ran",))

    TORCH.build("ForMaskedLM").save_pretrained(str(tmp_path), weights_format="pickle")
    torch.save({"lm_head.bias": Evil()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"refused by torch\.load"):
        TORCH.load("ForMaskedLM", tmp_path, allow_pickle=True)
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(Evil(), protocol=2))
    with pytest.raises(CheckpointError, match=r"refused by torch\.load"):
        TORCH.load("ForMaskedLM", tmp_path, allow_pickle=True)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_of_very_many_names_is_refused_before_it_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool
) -> None:
    """In both of torch's formats; a file of few names is read as before."""
    path = tmp_path / "pytorch_model.bin"
    state = {f"layer.{number}.weight": torch.zeros(1) for number in range(200)}
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    assert len(read_pickles(LocalFileSystem(), [str(path)])) == len(state)
    monkeypatch.setattr(pickle_file, "HEADER_LIMIT", 5_000)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was loaded"))
    with pytest.raises(CheckpointError, match="the names of its tensors have more than 5000 bytes"):
        read_pickles(LocalFileSystem(), [str(path)])


@pytest.mark.parametrize("model", golden.legacy_folders("pytorch_model.bin"))
def test_state_dict_names_are_the_reference_s(model: str) -> None:
    reference = torch.load(golden.legacy_folders("pytorch_model.bin")[model] / "pytorch_model.bin", weights_only=True)
    built = TORCH.load(golden.kind_of(model), golden.MODELS / model)
    assert sorted(built.state_dict()) == sorted(reference)
    for name, tensor in built.state_dict().items():
        assert torch.equal(tensor, reference[name]), name
    assert built.load_state_dict(reference, strict=True)


def test_arrays_from_a_file_are_copied_before_training(tmp_path: Path) -> None:
    model, ids = TORCH.build("ForMaskedLM"), torch.from_numpy(token_ids(2, 5))
    model.save_pretrained(str(tmp_path))
    before = (tmp_path / "model.safetensors").read_bytes()
    loaded = TORCH.load("ForMaskedLM", tmp_path).train()
    torch.optim.SGD(loaded.parameters(), lr=1.0).zero_grad()
    loaded(ids, labels=ids).loss.backward()
    torch.optim.SGD(loaded.parameters(), lr=1.0).step()
    assert (tmp_path / "model.safetensors").read_bytes() == before
    assert not np.array_equal(loaded.lm_head.bias.detach().numpy(), model.lm_head.bias.detach().numpy())
