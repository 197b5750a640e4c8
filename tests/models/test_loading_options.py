"""What people's scripts give to from_pretrained and to the constructors: honoured, or harmless, or refused with the reason."""

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from models.config import RobertaPreLayerNormConfig
from models.errors import CheckpointError
from tests.models.frameworks import CLASSES, INSTALLED, Classes, each
from tests.models.test_pretrained import same_weights
from tests.models.tiny import near, tiny_config, token_ids

KIND = "ForTokenClassification"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small classifier of tokens."""
    path = tmp_path_factory.mktemp("ner")
    CLASSES[INSTALLED[0]].build(KIND, num_labels=3).save_pretrained(str(path))
    return path


class ReferenceConfig:
    """What a config of transformers looks like from outside: attributes, to_dict(), to_diff_dict()."""

    model_type = "roberta-prelayernorm"

    def __init__(self, **fields: Any) -> None:
        self.__dict__ |= {
            **tiny_config(**fields).to_dict(),
            "_attn_implementation": "sdpa",
            "_name_or_path": "somewhere",
        }

    def to_dict(self) -> dict[str, Any]:
        """Everything, its own type and generation's defaults among it."""
        return {**self.__dict__, "max_length": 20, "transformers_version": "4.57.6", "model_type": self.model_type}

    def to_diff_dict(self) -> dict[str, Any]:
        """Without what every model has."""
        return {**self.__dict__, "transformers_version": "4.57.6", "model_type": self.model_type}


HARMLESS: dict[str, Any] = {
    "attn_implementation": "sdpa",
    "low_cpu_mem_usage": True,
    "use_safetensors": True,
    "trust_remote_code": True,
    "device_map": "auto",
    "revision": "main",
    "cache_dir": "/nowhere",
    "token": None,
    "local_files_only": True,
    "quantization_config": None,
    "load_in_8bit": False,
    "weights_only": True,
    "_fast_init": True,
    "finetuning_task": "ner",
}


@each()
def test_the_reference_s_common_keywords_change_no_answer(framework: Classes, folder: Path) -> None:
    given = {name: value for name, value in HARMLESS.items() if name != "device_map" or framework.name != "torch"}
    given |= {"device_map": "cpu"} if framework.name == "torch" else {}
    same_weights(framework, framework.load(KIND, folder, **given), framework.load(KIND, folder))


REFUSALS: dict[str, tuple[Any, str]] = {
    "attn_implementation": ("flash_attention_2", "there is one attention"),
    "load_in_4bit": (True, "weights are plain numbers"),
    "variant": ("fp16", "names without a variant"),
    "state_dict": ({"a": 1}, "load_state_dict"),
    "max_memory": ({0: "1GB"}, "one device"),
    "proxies": ({"https": "x"}, "HTTPS_PROXY"),
    "weights_only": (False, "pickles are only ever read so"),
    "use_safetensors": (False, "they are read first"),
}


@each()
def test_what_can_t_be_honoured_is_refused_by_name(framework: Classes, folder: Path) -> None:
    for name, (value, reason) in REFUSALS.items():
        with pytest.raises(ValueError, match=rf"{name}=.*not supported.*{reason}"):
            framework.load(KIND, folder, **{name: value})
    placed = "a model lies on one device" if framework.name == "torch" else "is PyTorch's; use"
    with pytest.raises(ValueError, match=placed):
        framework.load(KIND, folder, device_map={"roberta_prelayernorm": 0, "classifier": "cpu"})


@each("torch")
def test_a_device_map_of_one_device_places_the_model_there(framework: Classes, folder: Path) -> None:
    import torch

    for device_map in ("cpu", torch.device("cpu"), {"": "cpu"}, {"": torch.device("cpu")}):
        assert framework.load(KIND, folder, device_map=device_map).device == torch.device("cpu")
    found = "cuda" if torch.cuda.is_available() else "cpu"
    assert framework.load(KIND, folder, device_map="auto").device.type == found
    with pytest.raises(ValueError, match="give one of them"):
        framework.load(KIND, folder, device_map="cpu", device="cpu")


@each()
def test_from_tf_and_from_flax_read_that_framework_s_file(
    framework: Classes, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = framework.build("ForSequenceClassification")
    for weights_format in ("safetensors", "h5", "msgpack"):
        framework.build("ForSequenceClassification").save_pretrained(str(tmp_path), weights_format=weights_format)
    own = {"from_tf": "h5", "from_flax": "msgpack", "from_pt": "safetensors"}
    for keyword, weights_format in own.items():
        changed = framework.build("ForSequenceClassification", initializer_range=0.1 * len(keyword))
        changed.save_pretrained(str(tmp_path), weights_format=weights_format)
        same_weights(framework, framework.load("ForSequenceClassification", tmp_path, **{keyword: True}), changed)
    with caplog.at_level(logging.WARNING, logger="models"):
        framework.load(KIND, folder, from_tf=True)
    assert "it has none; model.safetensors is read" in caplog.text
    with pytest.raises(ValueError, match="from_tf=True, from_flax=True"):
        framework.load(KIND, folder, from_tf=True, from_flax=True)
    model.save_pretrained(str(tmp_path / "h5"), weights_format="h5")
    with pytest.raises(CheckpointError, match=r"use_safetensors=True, and it has none; tf_model\.h5"):
        framework.load("ForSequenceClassification", tmp_path / "h5", use_safetensors=True)


@each()
def test_a_config_of_transformers_is_taken_like_ours(framework: Classes, folder: Path, tmp_path: Path) -> None:
    theirs = ReferenceConfig(num_labels=3, id2label={0: "O", 1: "PER", 2: "LOC"})
    built = framework.fresh(KIND, theirs)  # type: ignore[arg-type]
    assert isinstance(built.config, RobertaPreLayerNormConfig)
    assert built.config.id2label == {0: "O", 1: "PER", 2: "LOC"}
    built.save_pretrained(str(tmp_path))
    near(
        framework.call(framework.load(KIND, tmp_path), token_ids(3, 9)).logits,
        framework.call(built, token_ids(3, 9)).logits,
    )
    loaded = framework.load(KIND, folder, config=theirs)
    assert loaded.config.label2id == {"O": 0, "PER": 1, "LOC": 2}
    same_weights(framework, loaded, framework.load(KIND, folder))
    for config in (theirs.to_dict(), str(tmp_path), SimpleNamespace(**theirs.to_dict())):
        assert framework.load(KIND, folder, config=config).config.id2label[1] == "PER"
    theirs.model_type = "bert"
    with pytest.raises(ValueError, match="model_type is 'bert'"):
        framework.named(KIND)(theirs)
    with pytest.raises(TypeError, match="config is of type int, without the fields of a model"):
        framework.named(KIND)(7)


@each()
def test_weights_without_a_config_are_refused_or_take_the_one_given(
    framework: Classes, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    with pytest.raises(
        CheckpointError, match=r"no config.json; .* neither sizes nor labels: call model.save_pretrained"
    ):
        framework.load(KIND, tmp_path)
    config = tiny_config(id2label={0: "O", 1: "PER", 2: "LOC"})
    loaded = framework.load(KIND, tmp_path, config=config)
    same_weights(framework, loaded, framework.load(KIND, folder))
    assert loaded.config.id2label[2] == "LOC"


@each()
def test_pruned_heads_and_checkpointed_gradients_of_a_config_are_honoured(framework: Classes, tmp_path: Path) -> None:
    model = framework.build(KIND, pruned_heads={"0": [1, 1, 2]}, gradient_checkpointing=True)
    assert model.is_gradient_checkpointing
    assert model.config.pruned_heads == {0: [1, 2]}
    query = "roberta_prelayernorm.encoder.layer.0.attention.self.query.weight"
    assert framework.tensors(model)[query].shape == (16, 32)
    model.save_pretrained(str(tmp_path))
    loaded = framework.load(KIND, tmp_path)
    assert loaded.is_gradient_checkpointing
    assert np.isfinite(np.asarray(framework.call(loaded, token_ids(3, 9)).logits)).all()
    assert not framework.load(KIND, tmp_path, gradient_checkpointing=False).is_gradient_checkpointing
    for wrong in ({2: [0]}, {0: [4]}, {0: [0, 1, 2, 3]}):
        with pytest.raises(ValueError, match=r"config\.pruned_heads says heads"):
            framework.build(KIND, pruned_heads=wrong)
