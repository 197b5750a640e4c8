"""Loading and saving of the classes of every framework: every format, every mismatch reported, the reference's names."""

import json
import logging
import re
import shutil
from pathlib import Path
from typing import Any

import fsspec
import h5py
import numpy as np
import pytest

import models
from models.boundary import Head
from models.checkpoint import Checkpoint
from models.checkpoint_copy import copy_checkpoint
from models.errors import CheckpointError, MismatchError
from models.msgpack_file import read_msgpack, write_msgpack
from models.tensors import ARCHITECTURES, PREFIX
from tests.golden import selection
from tests.models import golden
from tests.models.frameworks import CLASSES, Classes, each, each_with
from tests.models.tiny import KINDS, every_class_and_format, tiny_config, token_ids

TORCH_FORMATS = CLASSES["torch"].formats
NOTHING: dict[str, list[Any]] = {"missing_keys": [], "unexpected_keys": [], "mismatched_keys": [], "error_msgs": []}


def same_weights(framework: Classes, one: Any, other: Any) -> None:
    left, right = framework.tensors(one), framework.tensors(other)
    assert list(left) == list(right)
    for name, array in left.items():
        assert (array.dtype, array.shape) == (right[name].dtype, right[name].shape), name
        assert array.tobytes() == right[name].tobytes(), name


def reload(framework: Classes, model: Any, folder: Path, *, weights_format: Any = "safetensors") -> tuple[Any, Any]:
    """(the model saved in a format and loaded again, its loading info)."""
    model.save_pretrained(str(folder), weights_format=weights_format)
    pickles = {"allow_pickle": True} if weights_format == "pickle" else {}
    found: tuple[Any, Any] = type(model).from_pretrained(str(folder), output_loading_info=True, **pickles)
    return found


# Formats


def class_and_format() -> list[Any]:
    """(framework, class, format): every pair, those marked slow that have neither a new class nor a new format.

    TensorFlow takes seconds to build a model, and how a file is read is the same for all: one class a format is enough.
    """
    found = []
    for framework in CLASSES.values():
        for parameter in every_class_and_format(framework.formats):
            kind, weights_format = getattr(parameter, "values", parameter)
            marks = [getattr(pytest.mark, framework.name), *getattr(parameter, "marks", [])]
            if framework.name == "tensorflow" and kind not in KINDS[: len(framework.formats)]:
                marks.append(pytest.mark.slow)
            id_ = f"{framework.name}-{kind}-{weights_format}"
            found.append(pytest.param(framework, kind, weights_format, marks=marks, id=id_))
    return found


@pytest.mark.parametrize(("framework", "kind", "weights_format"), class_and_format())
def test_every_class_reads_back_bit_for_bit_from_every_format(
    framework: Classes, kind: str, weights_format: Any, tmp_path: Path
) -> None:
    model = framework.build(
        kind,
        is_decoder=kind == "ForCausalLM",
        add_cross_attention=kind == "ForCausalLM",
        tie_word_embeddings=kind != "ForMaskedLM",
        position_embedding_type="relative_key" if kind == "Model" else "absolute",
    )
    loaded, info = reload(framework, model, tmp_path, weights_format=weights_format)
    same_weights(framework, loaded, model)
    assert info == NOTHING
    assert not getattr(loaded, "training", False)


@each_with(
    "weights_format, positions",
    [(form, positions) for form in TORCH_FORMATS for positions in ("relative_key", "relative_key_query")],
    # test_frameworks_agree.py sends both through every format, between every two frameworks
    slow={"tensorflow": lambda *_: True, "flax": lambda *_: True},
    but=dict.fromkeys(("tensorflow", "flax"), lambda form, _: form == "pickle"),
)
def test_distances_and_an_untied_decoder_travel_in_every_format(
    framework: Classes, weights_format: Any, positions: str, tmp_path: Path
) -> None:
    model = framework.build("ForMaskedLM", position_embedding_type=positions, tie_word_embeddings=False)
    same_weights(framework, reload(framework, model, tmp_path, weights_format=weights_format)[0], model)


@each()
def test_a_checkpoint_is_saved_in_shards_and_at_a_url(framework: Classes) -> None:
    model = framework.build("ForTokenClassification")
    model.save_pretrained("memory://models/ner", max_shard_size="4KB", tokenizer_files={"vocab.json": b"{}"})
    system = fsspec.filesystem("memory")
    assert system.exists("/models/ner/model.safetensors.index.json")
    assert system.cat_file("/models/ner/vocab.json") == b"{}"
    same_weights(framework, framework.load("ForTokenClassification", "memory://models/ner"), model)
    system.rm("/models", recursive=True)


@each_with("dtype", ["bfloat16", "float16"], slow={"tensorflow": lambda dtype: dtype == "float16"})
def test_the_type_is_float32_unless_asked_and_auto_is_the_stored_one(
    framework: Classes, dtype: str, tmp_path: Path
) -> None:
    framework.save_in(dtype, framework.build(), tmp_path)
    opened = Checkpoint.open(str(tmp_path))
    assert {info.dtype.name for info in opened.tensors.values()} == {dtype}
    stored = {name: array.astype(np.float32) for name, array in opened.stream()}
    for asked, expected in (
        ({}, "float32"),
        ({"dtype": "auto"}, dtype),
        ({"dtype": dtype}, dtype),
        ({"torch_dtype": framework.dtype(dtype)}, dtype),
    ):
        model = framework.load("Model", tmp_path, **asked)
        assert type_of(model) == expected
        assert model.config.dtype == dtype
        found = framework.tensors(model)
        assert all(np.array_equal(found[name].astype(np.float32), array) for name, array in stored.items())
    with pytest.raises(ValueError, match="dtype is 'int8'"):
        framework.load("Model", tmp_path, dtype="int8")


def type_of(model: Any) -> str:
    """The model's dtype without the framework's way to write it."""
    return re.findall(r"b?float\d+", str(model.dtype))[0]


@each()
def test_tied_weights_are_written_once_and_tied_after_loading(framework: Classes, tmp_path: Path) -> None:
    loaded, _ = reload(framework, framework.build("ForMaskedLM"), tmp_path)
    assert not [name for name in Checkpoint.open(str(tmp_path)).tensors if "decoder" in name]
    words, decoder = loaded.get_input_embeddings(), loaded.get_output_embeddings()
    assert getattr(decoder, "weight", decoder) is getattr(words, "weight", words)


def into_shards(folder: Path, file: str) -> None:
    """A folder's whole weights as two shards with an index, laid out as the reference's `max_shard_size` does."""
    whole = folder / file
    stem, ending = file.rsplit(".", 1)
    shards: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
    if ending == "h5":
        with h5py.File(whole, "r") as opened:
            found = {}
            opened.visititems(lambda place, item: found.update({place: item[()]}) if hasattr(item, "shape") else None)
        named = {place.split("/", 2)[2]: array for place, array in found.items()}
    else:
        named = read_msgpack(system=fsspec.filesystem("file"), path=str(whole))
    for number, (name, array) in enumerate(named.items()):
        shards[number % 2][name] = array
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        path = folder / f"{stem}-0000{number}-of-00002.{ending}"
        weight_map |= {name.replace(".", "/") if ending == "msgpack" else name: path.name for name in shard}
        if ending == "h5":
            with h5py.File(path, "w") as opened:
                for name, array in shard.items():
                    opened.create_dataset(name, data=array)
                opened.attrs["layer_names"] = [name.encode() for name in shard]
        else:
            write_msgpack(system=fsspec.filesystem("file"), path=str(path), tensors=shard)
    (folder / f"{file}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    whole.unlink()


@each_with(
    "weights_format, file",
    [("h5", "tf_model.h5"), ("msgpack", "flax_model.msgpack")],
    slow={"tensorflow": lambda form, _: form == "msgpack", "flax": lambda form, _: form == "h5"},
)
def test_the_reference_s_shards_of_tensorflow_and_flax_are_read(
    framework: Classes, weights_format: Any, file: str, tmp_path: Path
) -> None:
    model = framework.build("ForMaskedLM")
    model.save_pretrained(str(tmp_path / "whole"), weights_format=weights_format)
    into_shards(tmp_path / "whole", file)
    loaded, info = framework.load("ForMaskedLM", tmp_path / "whole", output_loading_info=True)
    same_weights(framework, loaded, model)
    assert info == NOTHING
    copied = copy_checkpoint(url=str(tmp_path / "whole"), into=tmp_path / "copy")
    assert Checkpoint.open(str(copied)).weights_digest() == Checkpoint.open(str(tmp_path / "whole")).weights_digest()
    next((tmp_path / "whole").glob("*-00002-of-00002*")).unlink()
    with pytest.raises(CheckpointError, match=rf"{file}.index.json names .*-00002-of-00002\..*, which is missing"):
        framework.load("ForMaskedLM", tmp_path / "whole")


# Mismatches


@each()
def test_a_head_s_file_loads_into_the_bare_model_and_back_saying_what_is_missing(
    framework: Classes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    framework.build("ForMaskedLM").save_pretrained(str(tmp_path / "mlm"))
    with caplog.at_level(logging.WARNING, logger="models"):
        model, info = framework.load("Model", tmp_path / "mlm", output_loading_info=True)
    assert info["missing_keys"] == ["pooler.dense.weight", "pooler.dense.bias"]
    assert "lm_head.dense.weight" in info["unexpected_keys"]
    assert f"started afresh in {framework.prefix}RobertaPreLayerNormModel: pooler.dense.weight" in caplog.text
    model.save_pretrained(str(tmp_path / "base"))
    loaded, info = framework.load("ForTokenClassification", tmp_path / "base", output_loading_info=True, num_labels=7)
    assert info["missing_keys"] == ["classifier.weight", "classifier.bias"]
    found, before = framework.tensors(loaded), framework.tensors(model)
    assert found["classifier.weight"].shape == (7, 32)
    assert (found["classifier.bias"] == 0).all()
    words = f"{PREFIX}embeddings.word_embeddings.weight"
    assert np.array_equal(found[words], before[words])


@each()
def test_a_masked_lm_s_file_is_a_causal_lm_s(framework: Classes, tmp_path: Path) -> None:
    framework.build("ForMaskedLM").save_pretrained(str(tmp_path))
    model, info = framework.load("ForCausalLM", tmp_path, is_decoder=True, output_loading_info=True)
    assert info["missing_keys"] == info["unexpected_keys"] == []
    assert framework.call(model, token_ids(3, 9)).past_key_values is not None


@each()
def test_another_label_count_is_refused_unless_it_is_to_be_ignored(framework: Classes, tmp_path: Path) -> None:
    kind = "ForSequenceClassification"
    framework.build(kind).save_pretrained(str(tmp_path))
    for error in (MismatchError, RuntimeError, ValueError):
        with pytest.raises(error, match=r"'classifier.out_proj.weight' is \(2, 32\), .* has \(5, 32\)"):
            framework.load(kind, tmp_path, num_labels=5)
    model, info = framework.load(kind, tmp_path, num_labels=5, ignore_mismatched_sizes=True, output_loading_info=True)
    mismatched = [name for name, _, _ in info["mismatched_keys"]]
    assert mismatched == ["classifier.out_proj.weight", "classifier.out_proj.bias"]
    assert framework.call(model, token_ids(3, 9)).logits.shape == (3, 5)


@each()
def test_an_argument_that_is_no_field_of_the_config_is_refused(framework: Classes, tmp_path: Path) -> None:
    framework.build().save_pretrained(str(tmp_path))
    with pytest.raises(TypeError, match="no field 'num_lables'"):
        framework.load("Model", tmp_path, num_lables=3)
    ignored = {} if framework.name == "torch" else {"from_pt": True}
    assert framework.load("Model", tmp_path, id2label={0: "a", 1: "b"}, **ignored).config.label2id == {"a": 0, "b": 1}


@each("tensorflow", "flax")
def test_a_pickle_is_named_as_what_only_torch_reads(framework: Classes, tmp_path: Path) -> None:
    tiny_config().save_pretrained(str(tmp_path))
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(CheckpointError, match="is a pickle"):
        framework.load("Model", tmp_path)
    with pytest.raises(ValueError, match="preln convert --allow-pickle"):
        framework.load("Model", tmp_path, allow_pickle=True)


# The reference's files


@each_with("model", golden.model_names(), slow={"tensorflow": lambda model: model not in selection.STRUCTURES})
def test_our_tensor_names_are_those_of_the_reference_s_files(framework: Classes, model: str, tmp_path: Path) -> None:
    framework.load(golden.kind_of(model), golden.MODELS / model).save_pretrained(str(tmp_path))
    ours, theirs = Checkpoint.open(str(tmp_path)), Checkpoint.open(str(golden.MODELS / model))
    assert ours.weights_digest() == theirs.weights_digest()
    assert ours.config.architectures == theirs.config.architectures


OBJECT = re.compile(r"/tf_roberta[a-z_]*(_\d+)?/")
"""The name of the TensorFlow object that was saved, which varies and does not count."""


@each_with("model", selection.STRUCTURES)
def test_our_own_format_has_every_tensor_where_the_reference_s_has_it(
    framework: Classes, model: str, tmp_path: Path
) -> None:
    framework.load(golden.kind_of(model), golden.MODELS / model).save_pretrained(
        str(tmp_path), safe_serialization=False
    )
    ours, theirs = (
        {OBJECT.sub("/", name): shape for name, shape in shapes.items()}
        for shapes in (
            selection.listed(selection.tensor_shapes(tmp_path / framework.own_file), model),
            golden.legacy_names(model, framework.own_file),
        )
    )
    assert all(theirs[name] == shape for name, shape in ours.items() if name in theirs)
    # The reference's TensorFlow writes the embeddings a second time, below the language model's head that shares them …
    assert all(name.startswith("lm_head/") and "/embeddings/" in name for name in theirs.keys() - ours.keys())
    # … and knows neither distances, as its Flax, nor an untied decoder: ours are saved too.
    assert all("distance_embedding" in name or "/decoder/" in name for name in ours.keys() - theirs.keys())


LEGACY = [(model, file) for file in selection.LEGACY for model in golden.legacy_folders(file)]


def is_slow_to_read(model: str, file: str) -> bool:
    """TensorFlow takes seconds to build a model; with all of the reference data four of them are enough."""
    few = ("Model", "ForCausalLM-cross", "ForMaskedLM-untied", "ForMultipleChoice", *selection.LEGACY.values())
    return model not in few


@each_with(
    "model, file",
    LEGACY,
    slow={"tensorflow": is_slow_to_read},
    but=dict.fromkeys(("tensorflow", "flax"), lambda _, file: file == "pytorch_model.bin"),
)
def test_the_reference_s_files_of_every_framework_hold_the_same_weights(
    framework: Classes, model: str, file: str, tmp_path: Path
) -> None:
    shutil.copytree(golden.legacy_folders(file)[model], tmp_path, dirs_exist_ok=True)
    (tmp_path / "model.safetensors").unlink(missing_ok=True)
    for other in selection.LEGACY.keys() - {file}:
        (tmp_path / other).unlink(missing_ok=True)
    kind = golden.kind_of(model)
    pickles = {"allow_pickle": True} if file == "pytorch_model.bin" else {}
    loaded, info = framework.load(kind, tmp_path, output_loading_info=True, **pickles)
    if (model, file) == ("ForMaskedLM-untied", "tf_model.h5"):
        # B8: the reference's TF never saved an untied decoder.
        assert info["missing_keys"] == ["lm_head.decoder.weight"]
    elif "relative" in model and file != "pytorch_model.bin":
        # B9: the reference's TF and Flax know no distances, so their files have none.
        assert all("distance_embedding" in name for name in info["missing_keys"])
        assert len(info["missing_keys"]) == 3
    else:
        assert info["missing_keys"] == info["unexpected_keys"] == []
        same_weights(framework, loaded, framework.load(kind, golden.MODELS / model))


@each_with("head", list(ARCHITECTURES))
def test_the_tensor_table_names_every_parameter_of_its_class(framework: Classes, head: Head) -> None:
    kind = ARCHITECTURES[head].removeprefix("RobertaPreLayerNorm")
    model = framework.build(kind, position_embedding_type="relative_key")
    assert {name: array.shape for name, array in framework.tensors(model).items()} == model.expected_tensors()
    assert framework.parameters(model) == len(model.expected_tensors())


def test_an_unknown_name_is_refused_with_those_there_are() -> None:
    with pytest.raises(AttributeError, match="models has no 'RobertaModel'; it has RobertaPreLayerNormModel"):
        _ = models.RobertaModel
