"""What accelerate, the Trainer and scripts give to save_pretrained, and what a Trainer leaves that does not call it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.checkpoint import Checkpoint
from models.errors import CheckpointError
from tests.models.frameworks import Classes, each
from tests.models.test_pretrained import same_weights

KIND = "ForSequenceClassification"
LABELS = {0: "no", 1: "yes", 2: "perhaps"}


@each()
def test_only_the_main_process_writes(framework: Classes, tmp_path: Path) -> None:
    model = framework.build(KIND)
    model.save_pretrained(tmp_path / "other", is_main_process=False)
    assert not (tmp_path / "other").exists()
    model.save_pretrained(tmp_path / "main", is_main_process=True, push_to_hub=False, token=None, variant=None)
    same_weights(framework, framework.load(KIND, tmp_path / "main"), model)


@each()
def test_what_saving_can_t_do_is_refused_by_name(framework: Classes, tmp_path: Path) -> None:
    model = framework.kept(KIND)
    for name, value in (("push_to_hub", True), ("variant", "fp16"), ("saved_model", True)):
        with pytest.raises(ValueError, match=rf"save_pretrained\({name}={value!r}\) is not supported"):
            model.save_pretrained(tmp_path, **{name: value})
    with pytest.raises(TypeError, match="knows no argument 'max_shard'"):
        model.save_pretrained(tmp_path, max_shard="1GB")
    assert not list(tmp_path.iterdir())


@each("torch")
@pytest.mark.parametrize("kind", [KIND, "ForMaskedLM", "Model"])
@pytest.mark.parametrize("prefix", ["", "_orig_mod.module."])
def test_a_gathered_state_dict_is_written_instead_of_the_model_s(
    framework: Classes, kind: str, prefix: str, tmp_path: Path
) -> None:
    import torch

    model = framework.build(kind)
    state = {prefix + name: torch.full_like(tensor, 0.5) for name, tensor in model.state_dict().items()}
    saved: list[int] = []

    def save(content: Any, place: Any) -> None:
        saved.append(len(content))
        torch.save(content, place)

    model.save_pretrained(tmp_path, True, state, save)
    assert not saved, "safetensors are written by us, as the reference does"
    loaded = framework.load(kind, tmp_path)
    assert all((array == 0.5).all() for array in framework.tensors(loaded).values())
    with pytest.raises(ValueError, match=r"state_dict has no '.*query\.weight'"):
        model.save_pretrained(
            tmp_path, state_dict={name: value for name, value in state.items() if "query" not in name}
        )
    model.save_pretrained(tmp_path / "pickle", save_function=save, safe_serialization=False)
    assert saved == [len(state)]
    same_weights(framework, framework.load(kind, tmp_path / "pickle", allow_pickle=True), model)


@each("torch")
def test_what_a_trainer_saves_of_a_class_that_is_not_its_own_works_with_a_config_or_fails_loudly(
    framework: Classes, tmp_path: Path
) -> None:
    """transformers' Trainer writes the state_dict alone: no config.json, so no labels."""
    import torch
    from safetensors.torch import save_file

    model = framework.build(KIND, id2label=LABELS)
    for folder, save in (
        (
            "safetensors",
            lambda path: save_file(model.state_dict(), path / "model.safetensors", metadata={"format": "pt"}),
        ),
        ("pickle", lambda path: torch.save(model.state_dict(), path / "pytorch_model.bin")),
    ):
        place = tmp_path / folder
        place.mkdir()
        save(place)
        torch.save({"learning_rate": 1e-4}, place / "training_args.bin")
        pickles = {"allow_pickle": folder == "pickle"}
        with pytest.raises(CheckpointError, match=r"no config\.json; .*call model\.save_pretrained\(\) on this folder"):
            framework.load(KIND, place, **pickles)
        loaded = framework.load(KIND, place, config=model.config, **pickles)
        same_weights(framework, loaded, model)
        assert loaded.config.id2label == LABELS
    model.save_pretrained(tmp_path / "safetensors")
    assert framework.load(KIND, tmp_path / "safetensors").config.id2label == LABELS
    assert Checkpoint.open(str(tmp_path / "safetensors")).config.architectures == [type(model).__name__]


@each("torch")
def test_parameters_are_counted_with_and_without_the_frozen(framework: Classes) -> None:
    model = framework.build(KIND)
    for parameter in model.base_model.parameters():
        parameter.requires_grad_(False)
    head = sum(np.prod(shape) for name, shape in model.expected_tensors().items() if name.startswith("classifier"))
    assert model.num_parameters(only_trainable=True) == head < model.num_parameters()
