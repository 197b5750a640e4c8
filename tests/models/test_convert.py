"""Checkpoints of others become folders of this model that compute what they computed; what can't is refused in words."""

import argparse
import importlib.util
import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from models.checkpoint import Checkpoint
from models.checkpoint_writer import write_checkpoint
from models.config import RobertaPreLayerNormConfig
from models.convert import ConversionError, convert
from models.difference import difference, largest_difference
from models.errors import CheckpointError
from models.origin import open_origin
from models.tensors import PREFIX, expected_tensors
from tests.models.tiny import tiny_config, token_ids

needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
FORMATS = ["safetensors", "safetensors-tf", "safetensors-flax", "h5", "msgpack"]
TOLERANCE = 2e-5  # float32, the same sums in another order

WIDTH, INNER, VOCABULARY, LAYERS, POSITIONS, HEADS = 32, 37, 61, 2, 40, 4


def random_tensors(config: RobertaPreLayerNormConfig, head: Any = "masked-lm") -> dict[str, Any]:
    rng = np.random.default_rng(5)
    shapes = expected_tensors(config=config, head=head)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def saved(folder: Path, head: Any = "masked-lm", **overrides: Any) -> dict[str, Any]:
    config = tiny_config(**overrides)
    tensors = random_tensors(config, head)
    files = {"tokenizer.json": b"{}"}
    write_checkpoint(url=str(folder), config=config, tensors=tensors, tokenizer_files=files)
    return tensors


def fates(done: Any) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for fate in done.fates:
        found.setdefault(fate.fate, []).append(fate.name or fate.stored_name)
    return found


# Folders of this model


@pytest.mark.parametrize("weights_format", FORMATS)
def test_every_format_leads_to_every_other_bit_for_bit(weights_format: Any, tmp_path: Path) -> None:
    tensors = saved(tmp_path / "a")
    convert(source=str(tmp_path / "a"), destination=str(tmp_path / "b"), weights_format=weights_format)
    convert(source=str(tmp_path / "b"), destination=str(tmp_path / "c"))
    found = dict(Checkpoint.open(str(tmp_path / "c")).stream())
    assert all(np.array_equal(found[name], tensors[name]) for name in tensors)
    assert Checkpoint.open(str(tmp_path / "c")).digest() == Checkpoint.open(str(tmp_path / "a")).digest()


def test_the_source_s_own_names_are_told(tmp_path: Path) -> None:
    saved(tmp_path / "a")
    convert(source=str(tmp_path / "a"), destination=str(tmp_path / "b"), weights_format="h5")
    done = convert(source=str(tmp_path / "b"), destination=str(tmp_path / "c"))
    names = {fate.name: fate.stored_name for fate in done.fates}
    assert names["lm_head.layer_norm.weight"] == "lm_head/layer_norm/gamma:0"


@needs_torch
def test_a_pickle_is_written_with_its_tied_names_and_read_if_allowed(tmp_path: Path) -> None:
    tensors = saved(tmp_path / "a")
    convert(source=str(tmp_path / "a"), destination=str(tmp_path / "b"), weights_format="bin")
    with pytest.raises(CheckpointError, match="--allow-pickle"):
        convert(source=str(tmp_path / "b"), destination=str(tmp_path / "c"))
    convert(source=str(tmp_path / "b"), destination=str(tmp_path / "c"), allow_pickle=True)
    found = dict(Checkpoint.open(str(tmp_path / "c")).stream())
    assert all(np.array_equal(found[name], tensors[name]) for name in tensors)

    import torch

    state = torch.load(tmp_path / "b" / "pytorch_model.bin", weights_only=True)
    assert torch.equal(state["lm_head.decoder.weight"], state[PREFIX + "embeddings.word_embeddings.weight"])


def test_the_encoder_alone_is_taken_out_and_the_rest_is_told(tmp_path: Path) -> None:
    saved(tmp_path / "a")
    done = convert(source=str(tmp_path / "a"), destination=str(tmp_path / "b"), head="encoder")
    assert fates(done)["unexpected"] == [name for name in fates(done)["unexpected"] if name.startswith("lm_head.")]
    assert Checkpoint.open(str(tmp_path / "b")).heads() == ["encoder"]
    assert json.loads((tmp_path / "b/config.json").read_text())["architectures"] == ["RobertaPreLayerNormModel"]


def test_a_head_that_is_not_there_is_refused_with_every_tensor_named_and_nothing_written(tmp_path: Path) -> None:
    saved(tmp_path / "a")
    with pytest.raises(
        ConversionError, match=r"'sequence-classification'.*'classifier\.dense\.weight' is missing"
    ) as e:
        convert(source=str(tmp_path / "a"), destination=str(tmp_path / "b"), head="sequence-classification")
    assert len(fates(e.value.conversion)["missing"]) == 4
    assert not (tmp_path / "b").exists()


def test_another_size_than_the_config_s_is_refused_naming_both(tmp_path: Path) -> None:
    saved(tmp_path / "a")
    file = tmp_path / "a/config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "intermediate_size": 32}))
    with pytest.raises(ConversionError, match=r"\(37, 32\), config\.json asks for \(32, 32\)"):
        convert(source=str(tmp_path / "a"), destination=str(tmp_path / "b"), head="masked-lm")


def test_a_folder_that_holds_a_checkpoint_is_not_written_over(tmp_path: Path) -> None:
    saved(tmp_path / "a")
    with pytest.raises(CheckpointError, match=r"config\.json, model\.safetensors already"):
        convert(source=str(tmp_path / "a"), destination=str(tmp_path / "a"))


def test_a_head_beside_its_encoder_becomes_one_whole_folder(tmp_path: Path) -> None:
    tensors = saved(tmp_path / "encoder")
    config = tiny_config(num_labels=3)
    head = {k: v for k, v in random_tensors(config, "token-classification").items() if k.startswith("classifier.")}
    vars(config)["base_model_name_or_path"] = "encoder"
    write_checkpoint(url=str(tmp_path / "head"), config=config, tensors=head)
    convert(source=str(tmp_path / "head"), destination=str(tmp_path / "whole"), head="token-classification")
    whole = Checkpoint.open(str(tmp_path / "whole"))
    assert len(whole.sources) == 1
    found = dict(whole.stream())
    words = PREFIX + "embeddings.word_embeddings.weight"
    assert np.array_equal(found[words], tensors[words])
    assert np.array_equal(found["classifier.weight"], head["classifier.weight"])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_weights_are_stored_in_the_type_that_is_asked_for(dtype: Any, tmp_path: Path) -> None:
    saved(tmp_path / "a")
    convert(source=str(tmp_path / "a"), destination=str(tmp_path / "b"), dtype=dtype)
    assert Checkpoint.open(str(tmp_path / "b")).stored_dtype == dtype
    assert json.loads((tmp_path / "b/config.json").read_text())["dtype"] == dtype


def test_a_type_that_the_format_lacks_is_refused(tmp_path: Path) -> None:
    saved(tmp_path / "a")
    with pytest.raises(CheckpointError, match="bfloat16, which HDF5 has no type for"):
        convert(source=str(tmp_path / "a"), destination=str(tmp_path / "b"), dtype="bfloat16", weights_format="h5")


# DinkyTrain's folders


def dinky_folder(folder: Path, **fields: Any) -> dict[str, Any]:
    """A masked LM named as there: `roberta.`, LayerNorms in self-attention, and position ids."""
    config = tiny_config(type_vocab_size=1)
    tensors = random_tensors(config)
    stored = {name.replace(PREFIX, "roberta."): array for name, array in tensors.items()}
    for layer in range(config.num_hidden_layers):
        for leaf in ("weight", "bias"):
            stored[f"roberta.encoder.layer.{layer}.attention.self.LayerNorm.{leaf}"] = np.ones(WIDTH, np.float32)
    stored["roberta.embeddings.position_ids"] = np.arange(40)[None]
    stored["lm_head.decoder.weight"] = tensors[PREFIX + "embeddings.word_embeddings.weight"]
    stored["lm_head.decoder.bias"] = tensors["lm_head.bias"]
    write_checkpoint(url=str(folder), config=config, tensors=stored)
    report = {**config.to_diff_dict(), "model_type": "roberta", "architectures": ["RobertaForMaskedLM"], **fields}
    (folder / "config.json").write_text(json.dumps(report))
    return tensors


@pytest.mark.parametrize("kind", ["auto", "efficient-mlm", "dinkytrain"])
@pytest.mark.parametrize("model_type", ["roberta", "roberta-prelayernorm"])
def test_efficient_mlm_s_names_and_leftovers_become_this_model_s(kind: Any, model_type: str, tmp_path: Path) -> None:
    tensors = dinky_folder(tmp_path / "a", model_type=model_type)
    done = convert(source=str(tmp_path / "a"), destination=str(tmp_path / "b"), kind=kind)
    assert done.head == "masked-lm"
    assert set(fates(done)) == {"mapped", "dropped"}
    assert len(fates(done)["dropped"]) == 5  # two a layer, and the position ids
    assert any("tokenizer" in note for note in done.notes)
    found = dict(Checkpoint.open(str(tmp_path / "b")).stream())
    assert sorted(found) == sorted(tensors)
    assert all(np.array_equal(found[name], tensors[name]) for name in tensors)


def test_plain_roberta_is_refused_as_efficient_mlm_s(tmp_path: Path) -> None:
    config = tiny_config()
    stored = {k.replace(PREFIX, "roberta."): v for k, v in random_tensors(config).items() if "LayerNorm" not in k}
    write_checkpoint(url=str(tmp_path / "a"), config=config, tensors=stored)
    report = {**config.to_diff_dict(), "model_type": "roberta"}
    (tmp_path / "a/config.json").write_text(json.dumps(report))
    with pytest.raises(CheckpointError, match="plain RoBERTa"):
        convert(source=str(tmp_path / "a"), destination=str(tmp_path / "b"), kind="efficient-mlm")


# fairseq


def fairseq_model(**extra: tuple[int, ...]) -> dict[str, Any]:
    """Random tensors under fairseq's names, as --encoder-normalize-before trains them."""
    shapes: dict[str, tuple[int, ...]] = {
        "embed_tokens.weight": (VOCABULARY, WIDTH),
        "embed_positions.weight": (POSITIONS, WIDTH),
        "layernorm_embedding.weight": (WIDTH,),
        "layernorm_embedding.bias": (WIDTH,),
        "layer_norm.weight": (WIDTH,),
        "layer_norm.bias": (WIDTH,),
    }
    for i in range(LAYERS):
        sizes = {"self_attn_layer_norm": (), "final_layer_norm": (), "fc1": (INNER, WIDTH), "fc2": (WIDTH, INNER)}
        sizes |= {f"self_attn.{name}": (WIDTH, WIDTH) for name in ("q_proj", "k_proj", "v_proj", "out_proj")}
        for name, size in sizes.items():
            shapes[f"layers.{i}.{name}.weight"] = size or (WIDTH,)
            shapes[f"layers.{i}.{name}.bias"] = size[:1] or (WIDTH,)
    shapes = {"encoder.sentence_encoder." + name: shape for name, shape in shapes.items()}
    for name in ("dense", "layer_norm"):
        shapes[f"encoder.lm_head.{name}.weight"] = (WIDTH, WIDTH) if name == "dense" else (WIDTH,)
        shapes[f"encoder.lm_head.{name}.bias"] = (WIDTH,)
    shapes["encoder.lm_head.bias"] = (VOCABULARY,)
    rng = np.random.default_rng(0)
    found = {name: rng.normal(0, 0.3, size).astype(np.float32) for name, size in {**shapes, **extra}.items()}
    found["encoder.lm_head.weight"] = found["encoder.sentence_encoder.embed_tokens.weight"]
    return found


def write_fairseq(path: Path, model: dict[str, Any], **more: Any) -> str:
    import torch

    tensors = {name: torch.from_numpy(array) for name, array in model.items()}
    torch.save({"model": tensors, "extra_state": {"epoch": 3, "loss": np.float64(2.5)}, **more}, path)
    return str(path)


SETTINGS = {"encoder_attention_heads": HEADS, "activation_fn": "relu", "dropout": 0.2, "attention_dropout": 0.0}


def fairseq_logits(model: dict[str, Any], ids: Any) -> Any:
    """The masked LM's logits by fairseq's own order of things, from its names: norm, attend, add; norm, feed, add."""
    import torch
    from torch.nn import functional as F

    weights = {name.removeprefix("encoder."): torch.from_numpy(array) for name, array in model.items()}

    def linear(x: Any, name: str) -> Any:
        return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def norm(x: Any, name: str) -> Any:
        return F.layer_norm(x, (WIDTH,), weights[f"{name}.weight"], weights[f"{name}.bias"])

    stem = "sentence_encoder"
    positions = torch.arange(ids.shape[1]) + 2
    x = weights[f"{stem}.embed_tokens.weight"][ids] + weights[f"{stem}.embed_positions.weight"][positions]
    x = norm(x, f"{stem}.layernorm_embedding")
    for i in range(LAYERS):
        layer = f"{stem}.layers.{i}"
        y = norm(x, f"{layer}.self_attn_layer_norm")
        q, k, v = (
            linear(y, f"{layer}.self_attn.{n}_proj").unflatten(-1, (HEADS, -1)).transpose(1, 2) for n in ("q", "k", "v")
        )
        seen = (q @ k.transpose(-1, -2) / (WIDTH // HEADS) ** 0.5).softmax(-1) @ v
        x = x + linear(seen.transpose(1, 2).flatten(2), f"{layer}.self_attn.out_proj")
        y = norm(x, f"{layer}.final_layer_norm")
        x = x + linear(F.relu(linear(y, f"{layer}.fc1")), f"{layer}.fc2")
    x = norm(x, f"{stem}.layer_norm")
    x = norm(F.gelu(linear(x, "lm_head.dense")), "lm_head.layer_norm")
    return F.linear(x, weights["lm_head.weight"], weights["lm_head.bias"])


@needs_torch
@pytest.mark.parametrize("form", ["args", "cfg"])
def test_a_fairseq_checkpoint_answers_as_in_fairseq(form: str, tmp_path: Path) -> None:
    import torch

    from models.roberta_torch import RobertaPreLayerNormForMaskedLM

    model = fairseq_model()
    model["encoder.sentence_encoder.version"] = np.array([3.0], np.float32)
    report = {"args": argparse.Namespace(**SETTINGS)} if form == "args" else {"args": None, "cfg": {"model": SETTINGS}}
    source = write_fairseq(tmp_path / "checkpoint_best.pt", model, **report)
    done = convert(source=source, destination=str(tmp_path / "b"), allow_pickle=True)
    assert done.head == "masked-lm"
    assert fates(done)["dropped"] == ["encoder.sentence_encoder.version"]
    converted = RobertaPreLayerNormForMaskedLM.from_pretrained(str(tmp_path / "b"))
    assert converted.config.hidden_act == "relu"
    assert (converted.config.type_vocab_size, converted.config.layer_norm_eps) == (1, 1e-5)
    assert (converted.config.hidden_dropout_prob, converted.config.attention_probs_dropout_prob) == (0.2, 0.0)
    ids = torch.from_numpy(token_ids(2, 7))
    with torch.no_grad():
        torch.testing.assert_close(converted(ids).logits, fairseq_logits(model, ids), rtol=0, atol=TOLERANCE)


@needs_torch
def test_an_untied_decoder_stays_untied(tmp_path: Path) -> None:
    model = fairseq_model()
    model["encoder.lm_head.weight"] = model["encoder.lm_head.weight"] + 1
    source = write_fairseq(tmp_path / "a.pt", model, args=argparse.Namespace(**SETTINGS))
    done = convert(source=source, destination=str(tmp_path / "b"), allow_pickle=True, kind="fairseq")
    assert not done.config.tie_word_embeddings
    found = dict(Checkpoint.open(str(tmp_path / "b")).stream())
    assert np.array_equal(found["lm_head.decoder.weight"], model["encoder.lm_head.weight"])


@needs_torch
def test_a_fairseq_file_without_settings_tells_what_was_assumed(tmp_path: Path) -> None:
    source = write_fairseq(tmp_path / "a.pt", fairseq_model())
    (tmp_path / "dict.txt").write_text("13 850314647\n")
    with pytest.raises(CheckpointError, match="--attention-heads"):
        convert(source=source, destination=str(tmp_path / "b"), allow_pickle=True)
    done = convert(source=source, destination=str(tmp_path / "b"), allow_pickle=True, attention_heads=HEADS)
    assert done.config.num_attention_heads == HEADS
    notes = " ".join(done.notes)
    assert "gelu was assumed" in notes
    assert "dict.txt is fairseq's numbering of tokens and no tokenizer" in notes


@needs_torch
def test_one_of_several_classification_heads_is_converted_by_name(tmp_path: Path) -> None:
    extra: dict[str, tuple[int, ...]] = {}
    for name, labels in (("mnli", 3), ("rte", 2)):
        extra |= {f"classification_heads.{name}.dense.weight": (WIDTH, WIDTH)}
        extra |= {f"classification_heads.{name}.dense.bias": (WIDTH,)}
        extra |= {f"classification_heads.{name}.out_proj.weight": (labels, WIDTH)}
        extra |= {f"classification_heads.{name}.out_proj.bias": (labels,)}
    model = fairseq_model(**extra)
    reading: dict[str, Any] = {
        "source": write_fairseq(tmp_path / "a.pt", model, args=argparse.Namespace(**SETTINGS)),
        "destination": str(tmp_path / "b"),
        "allow_pickle": True,
    }
    with pytest.raises(CheckpointError, match="mnli, rte; name one by --classification-head"):
        convert(**reading)
    with pytest.raises(CheckpointError, match="masked-lm, sequence-classification; name one by --head"):
        convert(**reading, classification_head="mnli")
    done = convert(**reading, classification_head="mnli", head="sequence-classification")
    assert done.config.num_labels == 3
    assert "classification_heads.rte.dense.weight" in fates(done)["unexpected"]
    found = dict(Checkpoint.open(str(tmp_path / "b")).stream())
    assert np.array_equal(found["classifier.out_proj.weight"], model["classification_heads.mnli.out_proj.weight"])


@needs_torch
def test_a_fairseq_file_without_normalize_before_is_refused_as_plain_roberta(tmp_path: Path) -> None:
    model = {k: v for k, v in fairseq_model().items() if ".sentence_encoder.layer_norm." not in k}
    source = write_fairseq(tmp_path / "a.pt", model, args=argparse.Namespace(**SETTINGS))
    with pytest.raises(CheckpointError, match="without --encoder-normalize-before"):
        convert(source=source, destination=str(tmp_path / "b"), allow_pickle=True)


@needs_torch
@pytest.mark.parametrize("content", [{"weights": {}}, {"model": {"x": 1}}, [1, 2]])
def test_a_pickle_that_is_no_fairseq_checkpoint_is_refused(content: Any, tmp_path: Path) -> None:
    import torch

    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="no fairseq checkpoint"):
        convert(source=str(tmp_path / "a.pt"), destination=str(tmp_path / "b"), allow_pickle=True)


@needs_torch
def test_a_fairseq_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    import torch

    class Harm:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "harm",))

    torch.save({"model": {}, "cfg": Harm()}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="weights_only"):
        convert(source=str(tmp_path / "a.pt"), destination=str(tmp_path / "b"), allow_pickle=True)
    assert not (tmp_path / "harm").exists()


def test_a_fairseq_file_is_refused_unless_pickle_is_allowed(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(b"x")
    with pytest.raises(CheckpointError, match="a pickle, which can run code"):
        convert(source=str(tmp_path / "a.pt"), destination=str(tmp_path / "b"))


# Comparing


def compared(tmp_path: Path, **options: Any) -> Any:
    first, second = (open_origin(url=str(tmp_path / name)) for name in ("a", "b"))
    return difference(first=first, second=second, **options)


def test_a_checkpoint_in_another_format_is_the_same(tmp_path: Path) -> None:
    saved(tmp_path / "a")
    convert(source=str(tmp_path / "a"), destination=str(tmp_path / "b"), weights_format="msgpack")
    found = compared(tmp_path)
    assert found.same
    assert set(found.largest.values()) == {0.0}


def test_the_largest_difference_of_each_tensor_is_told_and_a_tolerance_forgives_it(tmp_path: Path) -> None:
    tensors = saved(tmp_path / "a")
    tensors["lm_head.bias"] = tensors["lm_head.bias"] + np.float32(0.25)
    write_checkpoint(url=str(tmp_path / "b"), config=tiny_config(), tensors=tensors)
    found = compared(tmp_path)
    assert list(found.beyond) == ["lm_head.bias"]
    assert found.largest["lm_head.bias"] == pytest.approx(0.25, abs=1e-6)
    assert not found.same
    assert compared(tmp_path, tolerance=0.3).same


def test_names_shapes_types_and_config_that_differ_are_told(tmp_path: Path) -> None:
    saved(tmp_path / "a")
    config = tiny_config(vocab_size=70, hidden_act="relu")
    tensors = {k: v.astype(ml_dtypes.bfloat16) for k, v in random_tensors(config, "token-classification").items()}
    write_checkpoint(url=str(tmp_path / "b"), config=config, tensors=tensors)
    found = compared(tmp_path)
    assert "lm_head.dense.weight" in found.only_first
    assert set(found.only_second) == {"classifier.weight", "classifier.bias"}
    assert found.shapes == {PREFIX + "embeddings.word_embeddings.weight": ((61, 32), (70, 32))}
    assert found.config == {"vocab_size": (61, 70), "hidden_act": ("gelu", "relu")}
    assert set(found.dtypes.values()) == {("float32", "bfloat16")}


def test_nan_equals_nan_and_nothing_else() -> None:
    a = np.array([np.nan, np.inf, 1.0])
    assert largest_difference(a, a) == 0.0
    assert largest_difference(a, np.array([0.0, np.inf, 1.0])) == np.inf
