"""The Flax classes and their parameters under JAX's transformations, in their types, and in Flax's own files."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.models import golden
from tests.models.frameworks import CLASSES
from tests.models.tiny import near, token_ids

jax = pytest.importorskip("jax")
pytest.importorskip("flax")

import jax.numpy as jnp  # noqa: E402
from flax import serialization  # noqa: E402
from flax.traverse_util import flatten_dict  # noqa: E402

pytestmark = pytest.mark.flax

FLAX = CLASSES["flax"]
IDS = token_ids(3, 9)


def same_trees(found: Any, expected: Any, tolerance: float = 0.0) -> None:
    assert bool(jax.tree.structure(found) == jax.tree.structure(expected))
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        near(one, other, tolerance)


def test_parameters_are_given_to_the_call_or_kept_by_the_model() -> None:
    model = FLAX.kept()
    bare = type(model)(model.config, _do_init=False)
    with pytest.raises(ValueError, match="made with _do_init=False and keeps no parameters"):
        bare(IDS)
    same_trees(bare(IDS, params=model.params), model(IDS))
    same_trees(bare.init_weights(jax.random.PRNGKey(11)), model.params)
    same_trees(model.module.apply({"params": model.params}, IDS), model(IDS))
    with pytest.raises(ValueError, match="params lack 'LayerNorm/bias'"):
        bare.params = {"pooler": model.params["pooler"]}


def test_a_checkpoint_s_parameters_may_be_kept_by_the_caller(tmp_path: Path) -> None:
    model = FLAX.kept("ForTokenClassification")
    model.save_pretrained(str(tmp_path))
    bare, params = FLAX.load("ForTokenClassification", tmp_path, _do_init=False)
    same_trees(params, model.params)
    with pytest.raises(ValueError, match="keeps no parameters"):
        _ = bare.params


def test_jit_and_vmap_answer_as_the_call_does() -> None:
    model = FLAX.kept("ForCausalLM", is_decoder=True)
    called = jax.jit(lambda params, batch: model(batch, params=params, output_attentions=True))
    same_trees(called(model.params, IDS), model(IDS, output_attentions=True), 2e-5)
    rows = jax.vmap(lambda row: model(row[None], use_cache=False).logits[0])(IDS)
    near(rows, model(IDS).logits)


def test_training_without_a_key_for_dropout_is_refused() -> None:
    with pytest.raises(ValueError, match="train=True needs dropout_rng"):
        FLAX.kept()(IDS, train=True)


@pytest.mark.parametrize("name", ["bfloat16", "float16"])
def test_the_computation_s_type_is_chosen_and_parameters_stay(name: str) -> None:
    model = FLAX.kept("ForCausalLM", is_decoder=True)
    half = type(model)(model.config, seed=11, dtype=name)
    output = jax.jit(half)(IDS, labels=IDS)
    assert output.logits.dtype == name
    assert output.loss.dtype == jnp.float32
    assert {leaf.dtype.name for leaf in jax.tree.leaves(half.params)} == {"float32"}
    cast = half.to_bf16(half.params) if name == "bfloat16" else half.to_fp16(half.params)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(cast)} == {name}
    assert {leaf.dtype.name for leaf in jax.tree.leaves(half.to_fp32(cast))} == {"float32"}


def test_a_msgpack_file_is_what_flax_itself_writes(tmp_path: Path) -> None:
    model = FLAX.kept("ForMaskedLM")
    model.save_pretrained(str(tmp_path), safe_serialization=False)
    same_trees(serialization.msgpack_restore((tmp_path / "flax_model.msgpack").read_bytes()), model.params)
    (tmp_path / "flax_model.msgpack").write_bytes(serialization.to_bytes(model.params))
    same_trees(FLAX.load("ForMaskedLM", tmp_path).params, model.params)


@pytest.mark.parametrize("model", golden.legacy_folders("flax_model.msgpack"))
def test_parameters_are_the_reference_s_tree(model: str, tmp_path: Path) -> None:
    kind, folder = golden.kind_of(model), golden.legacy_folders("flax_model.msgpack")[model]
    loaded = FLAX.load(kind, golden.MODELS / model)
    if "relative" in model:
        # B9: the reference's Flax knows no distances, so its files have none.
        assert any("distance_embedding" in path for path in flatten_dict(loaded.params))
        return
    for name in ("config.json", "flax_model.msgpack"):
        shutil.copy(folder / name, tmp_path)
    same_trees(loaded.params, serialization.msgpack_restore((tmp_path / "flax_model.msgpack").read_bytes()))
    same_trees(FLAX.load(kind, tmp_path).params, loaded.params)
