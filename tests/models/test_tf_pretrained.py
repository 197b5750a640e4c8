"""Loading and saving of the TensorFlow classes: every format, every mismatch told, and what torch wrote and reads."""

import importlib.util
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest

if importlib.util.find_spec("tensorflow") is None:
    pytest.skip("tensorflow is not installed", allow_module_level=True)

import fsspec
import keras
import tensorflow as tf

import models
import models.roberta_tf as roberta
from models.boundary import Head
from models.checkpoint import Checkpoint
from models.errors import CheckpointError, MismatchError
from models.roberta_tf.weights import neutral_variables, to_numpy
from models.tensors import ARCHITECTURES
from tests.models import golden
from tests.models.tiny import tiny_config, token_ids

pytestmark = pytest.mark.tensorflow

FORMATS = ("safetensors", "safetensors-tf", "safetensors-flax", "h5", "msgpack")
needs_golden = pytest.mark.skipif(not golden.MODELS.is_dir(), reason="the reference data ../shared/golden is absent")


def build(kind: str = "Model", **overrides: Any) -> Any:
    keras.utils.set_random_seed(5)
    return getattr(roberta, f"TFRobertaPreLayerNorm{kind}")(tiny_config(**{"num_hidden_layers": 2, **overrides}))


def ids(*shape: int) -> Any:
    return tf.constant(token_ids(*shape))


def same_weights(one: Any, other: Any) -> None:
    assert list(one.expected_tensors()) == list(other.expected_tensors())
    for name in one.expected_tensors():
        left, right = to_numpy(one, name), to_numpy(other, name)
        assert (left.dtype, left.tobytes()) == (right.dtype, right.tobytes()), name


@pytest.mark.parametrize(
    ("kind", "weights_format"),
    [
        ("Model", "h5"),
        ("ForMultipleChoice", "safetensors"),
        ("ForCausalLM", "msgpack"),
        *(pytest.param("ForCausalLM", form, marks=pytest.mark.slow) for form in FORMATS if form != "msgpack"),
    ],
)
def test_every_class_reads_back_bit_for_bit_from_every_format(kind: str, weights_format: Any, tmp_path: Path) -> None:
    model = build(kind, is_decoder=kind == "ForCausalLM", add_cross_attention=kind == "ForCausalLM")
    model.save_pretrained(str(tmp_path), weights_format=weights_format)
    loaded, info = type(model).from_pretrained(str(tmp_path), output_loading_info=True)
    same_weights(loaded, model)
    assert info == {"missing_keys": [], "unexpected_keys": [], "mismatched_keys": [], "error_msgs": []}


@pytest.mark.slow  # test_frameworks_agree.py sends both through every format, between every two frameworks
@pytest.mark.parametrize("weights_format", FORMATS)
def test_distances_and_an_untied_decoder_travel_in_every_format(weights_format: Any, tmp_path: Path) -> None:
    model = build("ForMaskedLM", position_embedding_type="relative_key", tie_word_embeddings=False)
    model.save_pretrained(str(tmp_path), weights_format=weights_format)
    same_weights(type(model).from_pretrained(str(tmp_path)), model)


def test_a_checkpoint_is_saved_in_shards_and_at_a_url() -> None:
    model = build("ForTokenClassification")
    model.save_pretrained("memory://models/ner", max_shard_size="4KB", tokenizer_files={"vocab.json": b"{}"})
    system = fsspec.filesystem("memory")
    assert system.exists("/models/ner/model.safetensors.index.json")
    assert system.cat_file("/models/ner/vocab.json") == b"{}"
    same_weights(type(model).from_pretrained("memory://models/ner"), model)
    system.rm("/models", recursive=True)


@pytest.mark.parametrize("dtype", ["bfloat16", pytest.param("float16", marks=pytest.mark.slow)])
def test_the_type_is_float32_unless_asked_and_auto_is_the_stored_one(dtype: str, tmp_path: Path) -> None:
    build().save_pretrained(str(tmp_path / "full"))
    load = roberta.TFRobertaPreLayerNormModel.from_pretrained
    model = load(str(tmp_path / "full"), dtype=dtype)
    model.save_pretrained(str(tmp_path))
    assert load(str(tmp_path)).dtype == "float32"
    assert load(str(tmp_path), dtype="auto").dtype == dtype
    assert load(str(tmp_path), torch_dtype=tf.as_dtype(dtype)).dtype == dtype
    same_weights(load(str(tmp_path), dtype=dtype), model)
    assert load(str(tmp_path)).config.dtype == dtype


def test_tied_weights_are_written_once_and_tied_after_loading(tmp_path: Path) -> None:
    model = build("ForMaskedLM")
    model.save_pretrained(str(tmp_path))
    assert not [name for name in Checkpoint.open(str(tmp_path)).tensors if "decoder" in name]
    loaded = type(model).from_pretrained(str(tmp_path))
    assert loaded.lm_head.decoder.weight is loaded.get_input_embeddings().weight


def test_a_head_s_file_loads_into_the_bare_model_and_back_saying_what_is_missing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    build("ForMaskedLM").save_pretrained(str(tmp_path / "mlm"))
    with caplog.at_level(logging.WARNING, logger="models"):
        model, info = roberta.TFRobertaPreLayerNormModel.from_pretrained(
            str(tmp_path / "mlm"), output_loading_info=True
        )
    assert info["missing_keys"] == ["pooler.dense.weight", "pooler.dense.bias"]
    assert "lm_head.dense.weight" in info["unexpected_keys"]
    assert "started afresh in TFRobertaPreLayerNormModel: pooler.dense.weight" in caplog.text
    model.save_pretrained(str(tmp_path / "base"))
    loaded, info = roberta.TFRobertaPreLayerNormForTokenClassification.from_pretrained(
        str(tmp_path / "base"), output_loading_info=True, num_labels=7
    )
    assert info["missing_keys"] == ["classifier.weight", "classifier.bias"]
    assert loaded.classifier.kernel.shape == (32, 7)
    assert (loaded.classifier.bias.numpy() == 0).all()
    words = loaded.get_input_embeddings().weight.numpy()
    assert (words == model.get_input_embeddings().weight.numpy()).all()


def test_a_masked_lm_s_file_is_a_causal_lm_s(tmp_path: Path) -> None:
    build("ForMaskedLM").save_pretrained(str(tmp_path))
    model, info = roberta.TFRobertaPreLayerNormForCausalLM.from_pretrained(
        str(tmp_path), is_decoder=True, output_loading_info=True
    )
    assert info["missing_keys"] == info["unexpected_keys"] == []
    assert model(ids(1, 4)).past_key_values is not None


def test_another_label_count_is_refused_unless_it_is_to_be_ignored(tmp_path: Path) -> None:
    build("ForSequenceClassification").save_pretrained(str(tmp_path))
    load = roberta.TFRobertaPreLayerNormForSequenceClassification.from_pretrained
    for error in (MismatchError, RuntimeError, ValueError):
        with pytest.raises(error, match=r"'classifier.out_proj.weight' is \(2, 32\), .* has \(5, 32\)"):
            load(str(tmp_path), num_labels=5)
    model, info = load(str(tmp_path), num_labels=5, ignore_mismatched_sizes=True, output_loading_info=True)
    assert [name for name, _, _ in info["mismatched_keys"]] == [
        "classifier.out_proj.weight",
        "classifier.out_proj.bias",
    ]
    assert model(ids(1, 3)).logits.shape == (1, 5)


def test_a_pickle_is_named_as_what_only_torch_reads(tmp_path: Path) -> None:
    build().config.save_pretrained(str(tmp_path))
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(CheckpointError, match="is a pickle"):
        roberta.TFRobertaPreLayerNormModel.from_pretrained(str(tmp_path))
    with pytest.raises(ValueError, match="run `preln convert --allow-pickle` on it first"):
        roberta.TFRobertaPreLayerNormModel.from_pretrained(str(tmp_path), allow_pickle=True)


@needs_golden
@pytest.mark.parametrize("file", ["tf_model.h5", "flax_model.msgpack"])
@pytest.mark.parametrize("model", ["Model", "ForCausalLM-cross", "ForMaskedLM-untied", "ForMultipleChoice"])
def test_the_reference_s_files_of_every_framework_hold_the_same_weights(model: str, file: str, tmp_path: Path) -> None:
    for name in ("config.json", file):
        shutil.copy(golden.MODELS / model / name, tmp_path)
    kind = getattr(models, f"TFRobertaPreLayerNorm{model.split('-')[0]}")
    loaded, info = kind.from_pretrained(str(tmp_path), output_loading_info=True)
    if (model, file) == ("ForMaskedLM-untied", "tf_model.h5"):
        # B8: the reference's TF never saved an untied decoder.
        assert info["missing_keys"] == ["lm_head.decoder.weight"]
        return
    assert info["missing_keys"] == info["unexpected_keys"] == []
    same_weights(loaded, kind.from_pretrained(str(golden.MODELS / model)))


@needs_golden
def test_our_h5_has_every_tensor_where_the_reference_s_has_it(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    model = models.TFRobertaPreLayerNormForMaskedLM.from_pretrained(str(golden.MODELS / "ForMaskedLM"))
    model.save_pretrained(str(tmp_path), safe_serialization=False)
    found: list[set[str]] = []
    for file in (tmp_path / "tf_model.h5", golden.MODELS / "ForMaskedLM" / "tf_model.h5"):
        with h5py.File(file) as opened:
            names: list[str] = []
            opened.visititems(lambda name, item, names=names: names.append(name) if hasattr(item, "shape") else None)
        found.append(set(names))
    ours, theirs = found
    assert ours <= theirs
    # The reference writes the embeddings a second time, below the head that shares them.
    assert all(name.startswith("lm_head/") and "/embeddings/" in name for name in theirs - ours)


@needs_golden
@pytest.mark.parametrize("model", golden.one_a_structure())
def test_our_tensor_names_are_those_of_the_reference_s_files(model: str, tmp_path: Path) -> None:
    kind = getattr(models, f"TFRobertaPreLayerNorm{model.split('-')[0]}")
    kind.from_pretrained(str(golden.MODELS / model)).save_pretrained(str(tmp_path))
    ours, theirs = Checkpoint.open(str(tmp_path)), Checkpoint.open(str(golden.MODELS / model))
    assert ours.weights_digest() == theirs.weights_digest()
    assert ours.config.architectures == theirs.config.architectures


@pytest.mark.parametrize("head", list(ARCHITECTURES))
def test_the_tensor_table_leads_to_every_variable_of_its_class(head: Head) -> None:
    model = getattr(models, f"TF{ARCHITECTURES[head]}")(tiny_config(position_embedding_type="relative_key"))
    named = neutral_variables(model)
    assert {name: to_numpy(model, name).shape for name in named} == model.expected_tensors()
    assert {id(variable) for variable in named.values()} == {id(variable) for variable in model.trainable_variables}


def test_an_argument_that_is_no_field_of_the_config_is_refused(tmp_path: Path) -> None:
    model = build()
    model.save_pretrained(str(tmp_path))
    load = type(model).from_pretrained
    with pytest.raises(TypeError, match="no field 'num_lables'"):
        load(str(tmp_path), num_lables=3)
    assert load(str(tmp_path), id2label={0: "a", 1: "b"}, from_pt=True).config.label2id == {"a": 0, "b": 1}
    with pytest.raises(ValueError, match="dtype is 'int8'; choose one of float32"):
        load(str(tmp_path), dtype="int8")
