"""Loading and saving of the Flax classes: every format, every mismatch told, and the reference's own Flax files."""

import importlib.util
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

if importlib.util.find_spec("flax") is None or importlib.util.find_spec("jax") is None:
    pytest.skip("flax is not installed", allow_module_level=True)

import jax
import jax.numpy as jnp
from flax import serialization
from flax.traverse_util import flatten_dict

import models
import models.roberta_flax as roberta
from models.checkpoint import Checkpoint
from models.errors import MismatchError
from tests.models import golden
from tests.models.tiny import every_class_and_format, tiny_config

pytestmark = pytest.mark.flax

FORMATS = ("safetensors", "safetensors-tf", "safetensors-flax", "h5", "msgpack")
needs_golden = pytest.mark.skipif(not golden.MODELS.is_dir(), reason="the reference data ../shared/golden is absent")


def build(kind: str = "Model", **overrides: Any) -> Any:
    return getattr(roberta, f"FlaxRobertaPreLayerNorm{kind}")(tiny_config(**overrides), seed=5)


def same_weights(left: Any, right: Any) -> None:
    one, other = flatten_dict(left), flatten_dict(right)
    assert sorted(one) == sorted(other)
    for path, array in one.items():
        np.testing.assert_array_equal(array, other[path], err_msg="/".join(path))


@pytest.mark.parametrize(("kind", "weights_format"), every_class_and_format(FORMATS))
def test_every_class_reads_back_bit_for_bit_from_every_format(kind: str, weights_format: Any, tmp_path: Path) -> None:
    model = build(
        kind,
        is_decoder=kind == "ForCausalLM",
        add_cross_attention=kind == "ForCausalLM",
        tie_word_embeddings=kind != "ForMaskedLM",
        position_embedding_type="relative_key" if kind == "Model" else "absolute",
    )
    model.save_pretrained(str(tmp_path), weights_format=weights_format)
    loaded, info = type(model).from_pretrained(str(tmp_path), output_loading_info=True)
    same_weights(loaded.params, model.params)
    assert info == {"missing_keys": [], "unexpected_keys": [], "mismatched_keys": [], "error_msgs": []}
    bare, params = type(model).from_pretrained(str(tmp_path), _do_init=False)
    same_weights(params, model.params)
    with pytest.raises(ValueError, match="keeps no parameters"):
        _ = bare.params


def test_a_msgpack_file_is_what_flax_itself_writes(tmp_path: Path) -> None:
    model = build("ForMaskedLM")
    model.save_pretrained(str(tmp_path), safe_serialization=False)
    same_weights(serialization.msgpack_restore((tmp_path / "flax_model.msgpack").read_bytes()), model.params)
    (tmp_path / "flax_model.msgpack").write_bytes(serialization.to_bytes(model.params))
    same_weights(type(model).from_pretrained(str(tmp_path)).params, model.params)


@needs_golden
@pytest.mark.parametrize("model", golden.model_names())
def test_parameters_are_the_reference_s_tree(model: str, tmp_path: Path) -> None:
    kind = getattr(models, f"FlaxRobertaPreLayerNorm{model.split('-')[0]}")
    loaded = kind.from_pretrained(str(golden.MODELS / model))
    file = golden.MODELS / model / "flax_model.msgpack"
    if "relative" in model:
        # B9: the reference's Flax knows no distances, so its files have none.
        assert any("distance_embedding" in path for path in flatten_dict(loaded.params))
        return
    same_weights(loaded.params, serialization.msgpack_restore(file.read_bytes()))
    for name in ("config.json", "flax_model.msgpack"):
        shutil.copy(golden.MODELS / model / name, tmp_path)
    same_weights(kind.from_pretrained(str(tmp_path)).params, loaded.params)


@needs_golden
def test_our_tensor_names_are_those_of_the_reference_s_files(tmp_path: Path) -> None:
    for model in golden.model_names():
        kind = getattr(models, f"FlaxRobertaPreLayerNorm{model.split('-')[0]}")
        kind.from_pretrained(str(golden.MODELS / model)).save_pretrained(str(tmp_path))
        ours, theirs = Checkpoint.open(str(tmp_path)), Checkpoint.open(str(golden.MODELS / model))
        assert ours.weights_digest() == theirs.weights_digest()
        assert ours.config.architectures == theirs.config.architectures


def test_types_are_float32_unless_asked_and_auto_is_the_stored_one(tmp_path: Path) -> None:
    model = build()
    model.save_pretrained(str(tmp_path), params=model.to_bf16(model.params), max_shard_size="4KB")
    assert (tmp_path / "model.safetensors.index.json").exists()
    load = type(model).from_pretrained
    assert load(str(tmp_path)).dtype == jnp.float32
    assert load(str(tmp_path)).config.dtype == "bfloat16"
    assert load(str(tmp_path), dtype="auto").dtype == jnp.bfloat16
    assert load(str(tmp_path), torch_dtype=jnp.float16).dtype == jnp.float16
    same_weights(load(str(tmp_path)).params, jax.tree.map(jnp.float32, model.to_bf16(model.params)))
    with pytest.raises(ValueError, match="dtype is 'int8'"):
        load(str(tmp_path), dtype="int8")


def test_what_is_missing_unexpected_or_of_another_size_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    build("ForSequenceClassification").save_pretrained(str(tmp_path))
    with caplog.at_level(logging.WARNING, logger="models"):
        base, info = roberta.FlaxRobertaPreLayerNormModel.from_pretrained(str(tmp_path), output_loading_info=True)
    assert info["missing_keys"] == ["pooler.dense.weight", "pooler.dense.bias"]
    assert "classifier.dense.weight" in info["unexpected_keys"]
    assert "started afresh in FlaxRobertaPreLayerNormModel: pooler.dense.weight" in caplog.text
    assert base.params["pooler"]["dense"]["kernel"].shape == (32, 32)
    load = roberta.FlaxRobertaPreLayerNormForSequenceClassification.from_pretrained
    with pytest.raises(MismatchError, match=r"'classifier.out_proj.weight' is \(2, 32\), .* has \(5, 32\)"):
        load(str(tmp_path), num_labels=5, from_pt=True)
    model, info = load(str(tmp_path), num_labels=5, ignore_mismatched_sizes=True, output_loading_info=True)
    assert len(info["mismatched_keys"]) == 2
    assert model.params["classifier"]["out_proj"]["kernel"].shape == (32, 5)
    with pytest.raises(TypeError, match="no field 'num_lables'"):
        load(str(tmp_path), num_lables=3)


def test_a_masked_lm_s_file_is_a_causal_lm_s(tmp_path: Path) -> None:
    build("ForMaskedLM").save_pretrained(str(tmp_path))
    _, info = roberta.FlaxRobertaPreLayerNormForCausalLM.from_pretrained(
        str(tmp_path), is_decoder=True, output_loading_info=True
    )
    assert info["missing_keys"] == info["unexpected_keys"] == []
