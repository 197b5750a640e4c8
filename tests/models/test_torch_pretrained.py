"""Loading and saving of the torch classes: every format, every mismatch told, names as in the reference's files."""

import importlib.util
import logging
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

if importlib.util.find_spec("torch") is None:
    pytest.skip("torch is not installed", allow_module_level=True)

import fsspec
import torch

import models
import models.roberta_torch as roberta
from models.boundary import Head
from models.checkpoint import Checkpoint
from models.errors import CheckpointError, MismatchError
from models.tensors import ARCHITECTURES
from tests.models import golden
from tests.models.tiny import every_class_and_format, tiny_config, token_ids

# Tiny tensors: a second thread only waits, for long where other processes share the cores.
torch.set_num_threads(1)

pytestmark = pytest.mark.torch

FORMATS = ("safetensors", "safetensors-tf", "safetensors-flax", "h5", "msgpack", "pickle")
needs_golden = pytest.mark.skipif(not golden.MODELS.is_dir(), reason="the reference data ../shared/golden is absent")


def build(kind: str = "Model", **overrides: Any) -> Any:
    torch.manual_seed(5)
    return getattr(roberta, f"RobertaPreLayerNorm{kind}")(tiny_config(**overrides)).eval()


def ids(*shape: int) -> Any:
    return torch.from_numpy(token_ids(*shape))


def same_weights(one: Any, other: Any) -> None:
    left, right = one.state_dict(), other.state_dict()
    assert list(left) == list(right)
    for name, tensor in left.items():
        assert torch.equal(tensor, right[name]), name


@pytest.mark.parametrize(("kind", "weights_format"), every_class_and_format(FORMATS))
def test_every_class_reads_back_bit_for_bit_from_every_format(kind: str, weights_format: Any, tmp_path: Path) -> None:
    model = build(kind, is_decoder=kind == "ForCausalLM", add_cross_attention=kind == "ForCausalLM")
    model.save_pretrained(str(tmp_path), weights_format=weights_format)
    loaded, info = type(model).from_pretrained(
        str(tmp_path), output_loading_info=True, allow_pickle=weights_format == "pickle"
    )
    same_weights(loaded, model)
    assert info == {"missing_keys": [], "unexpected_keys": [], "mismatched_keys": [], "error_msgs": []}
    assert not loaded.training


@pytest.mark.parametrize("positions", ["relative_key", "relative_key_query"])
@pytest.mark.parametrize("weights_format", FORMATS)
def test_distances_and_an_untied_decoder_travel_in_every_format(
    positions: str, weights_format: Any, tmp_path: Path
) -> None:
    model = build("ForMaskedLM", position_embedding_type=positions, tie_word_embeddings=False)
    model.save_pretrained(str(tmp_path), weights_format=weights_format)
    same_weights(type(model).from_pretrained(str(tmp_path), allow_pickle=weights_format == "pickle"), model)


def test_a_checkpoint_is_saved_in_shards_and_at_a_url() -> None:
    model = build("ForTokenClassification")
    model.save_pretrained("memory://models/ner", max_shard_size="4KB", tokenizer_files={"vocab.json": b"{}"})
    system = fsspec.filesystem("memory")
    assert system.exists("/models/ner/model.safetensors.index.json")
    assert system.cat_file("/models/ner/vocab.json") == b"{}"
    same_weights(type(model).from_pretrained("memory://models/ner"), model)
    system.rm("/models", recursive=True)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_the_type_is_float32_unless_asked_and_auto_is_the_stored_one(dtype: str, tmp_path: Path) -> None:
    model = build().to(getattr(torch, dtype))
    model.save_pretrained(str(tmp_path))
    load = roberta.RobertaPreLayerNormModel.from_pretrained
    assert load(str(tmp_path)).dtype == torch.float32
    assert load(str(tmp_path), dtype="auto").dtype == getattr(torch, dtype)
    same_weights(load(str(tmp_path), dtype=dtype), model)
    assert load(str(tmp_path)).config.dtype == dtype


def test_tied_weights_are_written_once_and_tied_after_loading(tmp_path: Path) -> None:
    model = build("ForMaskedLM")
    model.save_pretrained(str(tmp_path))
    assert not [name for name in Checkpoint.open(str(tmp_path)).tensors if "decoder" in name]
    loaded = type(model).from_pretrained(str(tmp_path))
    assert loaded.lm_head.decoder.weight is loaded.get_input_embeddings().weight
    assert loaded.lm_head.decoder.bias is loaded.lm_head.bias


def test_a_head_s_file_loads_into_the_bare_model_and_back_saying_what_is_missing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    build("ForMaskedLM").save_pretrained(str(tmp_path / "mlm"))
    with caplog.at_level(logging.WARNING, logger="models"):
        model, info = roberta.RobertaPreLayerNormModel.from_pretrained(str(tmp_path / "mlm"), output_loading_info=True)
    assert info["missing_keys"] == ["pooler.dense.weight", "pooler.dense.bias"]
    assert "lm_head.dense.weight" in info["unexpected_keys"]
    assert "started afresh in RobertaPreLayerNormModel: pooler.dense.weight" in caplog.text
    model.save_pretrained(str(tmp_path / "base"))
    loaded, info = roberta.RobertaPreLayerNormForTokenClassification.from_pretrained(
        str(tmp_path / "base"), output_loading_info=True, num_labels=7
    )
    assert info["missing_keys"] == ["classifier.weight", "classifier.bias"]
    assert loaded.classifier.weight.shape == (7, 32)
    assert (loaded.classifier.bias == 0).all()
    assert torch.equal(loaded.get_input_embeddings().weight, model.get_input_embeddings().weight)


def test_a_masked_lm_s_file_is_a_causal_lm_s(tmp_path: Path) -> None:
    build("ForMaskedLM").save_pretrained(str(tmp_path))
    model, info = roberta.RobertaPreLayerNormForCausalLM.from_pretrained(
        str(tmp_path), is_decoder=True, output_loading_info=True
    )
    assert info["missing_keys"] == info["unexpected_keys"] == []
    assert model(ids(1, 4)).past_key_values is not None


def test_another_label_count_is_refused_unless_it_is_to_be_ignored(tmp_path: Path) -> None:
    build("ForSequenceClassification").save_pretrained(str(tmp_path))
    load = roberta.RobertaPreLayerNormForSequenceClassification.from_pretrained
    for error in (MismatchError, RuntimeError, ValueError):
        with pytest.raises(error, match=r"'classifier.out_proj.weight' is \(2, 32\), .* has \(5, 32\)"):
            load(str(tmp_path), num_labels=5)
    model, info = load(str(tmp_path), num_labels=5, ignore_mismatched_sizes=True, output_loading_info=True)
    assert [name for name, _, _ in info["mismatched_keys"]] == [
        "classifier.out_proj.weight",
        "classifier.out_proj.bias",
    ]
    assert model(ids(1, 3)).logits.shape == (1, 5)


def test_pickle_is_refused_unless_allowed(tmp_path: Path) -> None:
    model = build("ForMaskedLM")
    model.save_pretrained(str(tmp_path), weights_format="pickle")
    with pytest.raises(CheckpointError, match=r"is a pickle, which can run code: allow it by allow_pickle=True"):
        type(model).from_pretrained(str(tmp_path))


def test_a_pickle_that_would_run_code_is_refused_even_if_allowed(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "ran",))

    model = build("ForMaskedLM")
    model.save_pretrained(str(tmp_path), weights_format="pickle")
    torch.save({"lm_head.bias": Evil()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"refused by torch\.load"):
        type(model).from_pretrained(str(tmp_path), allow_pickle=True)
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(Evil(), protocol=2))
    with pytest.raises(CheckpointError, match=r"refused by torch\.load"):
        type(model).from_pretrained(str(tmp_path), allow_pickle=True)
    assert not (tmp_path / "ran").exists()


@needs_golden
@pytest.mark.parametrize("model", golden.model_names())
def test_state_dict_names_are_the_reference_s(model: str) -> None:
    kind = model.split("-")[0]
    reference = torch.load(golden.MODELS / model / "pytorch_model.bin", weights_only=True)
    built = getattr(models, f"RobertaPreLayerNorm{kind}").from_pretrained(str(golden.MODELS / model))
    assert sorted(built.state_dict()) == sorted(reference)
    for name, tensor in built.state_dict().items():
        assert torch.equal(tensor, reference[name]), name
    assert built.load_state_dict(reference, strict=True)


@needs_golden
@pytest.mark.parametrize("file", ["tf_model.h5", "flax_model.msgpack", "pytorch_model.bin"])
@pytest.mark.parametrize("model", golden.one_a_structure(but="relative"))
def test_the_reference_s_files_of_every_framework_hold_the_same_weights(model: str, file: str, tmp_path: Path) -> None:
    for name in ("config.json", file):
        shutil.copy(golden.MODELS / model / name, tmp_path)
    kind = getattr(models, f"RobertaPreLayerNorm{model.split('-')[0]}")
    loaded, info = kind.from_pretrained(str(tmp_path), allow_pickle=True, output_loading_info=True)
    if (model, file) == ("ForMaskedLM-untied", "tf_model.h5"):
        # B8: the reference's TF never saved an untied decoder.
        assert info["missing_keys"] == ["lm_head.decoder.weight"]
        return
    assert info["missing_keys"] == info["unexpected_keys"] == []
    same_weights(loaded, kind.from_pretrained(str(golden.MODELS / model)))


@needs_golden
def test_our_tensor_names_are_those_of_the_reference_s_files(tmp_path: Path) -> None:
    for model in golden.model_names():
        kind = getattr(models, f"RobertaPreLayerNorm{model.split('-')[0]}")
        kind.from_pretrained(str(golden.MODELS / model)).save_pretrained(str(tmp_path))
        ours, theirs = Checkpoint.open(str(tmp_path)), Checkpoint.open(str(golden.MODELS / model))
        assert ours.weights_digest() == theirs.weights_digest()
        assert ours.config.architectures == theirs.config.architectures


@pytest.mark.parametrize("head", list(ARCHITECTURES))
def test_the_tensor_table_names_every_parameter_of_its_class(head: Head) -> None:
    name = ARCHITECTURES[head]
    model = getattr(models, name)(tiny_config(position_embedding_type="relative_key"))
    ours = {("" if not model.bare else "roberta_prelayernorm.") + key: p.shape for key, p in model.named_parameters()}
    ours = {key.replace("lm_head.decoder.bias", "lm_head.bias"): tuple(shape) for key, shape in ours.items()}
    assert ours == model.expected_tensors()


def test_an_argument_that_is_no_field_of_the_config_is_refused(tmp_path: Path) -> None:
    model = build()
    model.save_pretrained(str(tmp_path), safe_serialization=False)
    assert (tmp_path / "pytorch_model.bin").exists()
    load = type(model).from_pretrained
    with pytest.raises(TypeError, match="no field 'num_lables'"):
        load(str(tmp_path), allow_pickle=True, num_lables=3)
    assert load(str(tmp_path), allow_pickle=True, torch_dtype="bfloat16").dtype == torch.bfloat16
    relabelled = load(str(tmp_path), allow_pickle=True, id2label={0: "a", 1: "b"}).config
    assert relabelled.label2id == {"a": 0, "b": 1}


def test_an_unknown_name_is_refused_with_those_there_are() -> None:
    with pytest.raises(AttributeError, match="models has no 'RobertaModel'; it has RobertaPreLayerNormModel"):
        _ = models.RobertaModel


def test_arrays_from_a_file_are_copied_before_training(tmp_path: Path) -> None:
    model = build("ForMaskedLM")
    model.save_pretrained(str(tmp_path))
    before = (tmp_path / "model.safetensors").read_bytes()
    loaded = type(model).from_pretrained(str(tmp_path)).train()
    torch.optim.SGD(loaded.parameters(), lr=1.0).zero_grad()
    loaded(ids(2, 5), labels=ids(2, 5)).loss.backward()
    torch.optim.SGD(loaded.parameters(), lr=1.0).step()
    assert (tmp_path / "model.safetensors").read_bytes() == before
    assert not np.array_equal(loaded.lm_head.bias.detach().numpy(), model.lm_head.bias.detach().numpy())
