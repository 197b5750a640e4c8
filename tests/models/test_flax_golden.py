"""The Flax classes answer as the reference's torch classes do, to the stated tolerances."""

import functools
import importlib.util
from typing import Any

import numpy as np
import pytest

if importlib.util.find_spec("flax") is None or importlib.util.find_spec("jax") is None:
    pytest.skip("flax is not installed", allow_module_level=True)

import jax
from flax.traverse_util import flatten_dict

import models.roberta_flax
from models.roberta_flax.weights import to_tensors
from models.tensors import PREFIX
from tests.models import golden

pytestmark = [
    pytest.mark.flax,
    pytest.mark.skipif(not golden.MODELS.is_dir(), reason="the reference data ../shared/golden is absent"),
]

FUSED = ("Model", "ForCausalLM", "ForCausalLM-cross")


@functools.cache
def load(model: str) -> Any:
    case_class = "FlaxRobertaPreLayerNorm" + model.split("-")[0]
    return getattr(models.roberta_flax, case_class).from_pretrained(str(golden.MODELS / model))


def arrays(case: golden.Case) -> dict[str, Any]:
    """The case's keyword inputs; a scalar is a switch."""
    return {name: a if a.ndim else bool(a) for name, a in case.inputs.items()}


def numpy(output: Any) -> dict[str, golden.Array]:
    return {name: np.asarray(array) for name, array in golden.flatten(output)}


@pytest.mark.parametrize(("model", "name"), golden.case_names())
def test_the_outputs_of_every_case_are_the_reference_s(model: str, name: str) -> None:
    case = golden.cases_of(model)[name]
    wants_maps = any("attentions" in output for output in case.expected)
    output = load(model)(**arrays(case), output_attentions=wants_maps, output_hidden_states=True)
    golden.compare(numpy(output), case.outputs())


def fused_cases() -> list[Any]:
    """Every kind of mask where no head mask or relative position keeps a model from the fused attention.

    Heads see nothing of how it was computed: beyond one encoder, one decoder and one with cross-attention they are slow.
    """
    masks = ("ids_only", "masked", "mask_3d", "cross_no_mask", "cross_mask_3d")
    found = [(m, name) for m, name in golden.case_names() if "relative" not in m and name in masks]
    return [case if case[0] in FUSED else pytest.param(*case, marks=pytest.mark.slow) for case in found]


@pytest.mark.parametrize(("model", "name"), fused_cases())
def test_without_attention_maps_the_fused_attention_answers_the_same(model: str, name: str) -> None:
    case = golden.cases_of(model)[name]
    output = numpy(load(model)(**arrays(case), output_hidden_states=True))
    golden.compare(output, {key: value for key, value in case.outputs().items() if "attentions" not in key})


@pytest.mark.parametrize("model", [m for m in golden.model_names() if "loss" in golden.cases_of(m)])
def test_the_gradients_of_every_loss_are_the_reference_s(model: str) -> None:
    case = golden.cases_of(model)["loss"]
    built = load(model)
    # Compiled as a whole, as a training step is: by itself every operation would be, forward and back.
    gradients = jax.jit(jax.grad(lambda params: built(**arrays(case), params=params).loss))(built.params)
    assert set(flatten_dict(gradients)) == built.required_params
    found = to_tensors(params=gradients, names=built.expected_tensors(), bare=built.bare)
    golden.compare_gradients(found, case.gradients())


def decoders() -> list[Any]:
    """(model, whether the cache has a fixed size); one that grows has a new shape a step, so one model is enough."""
    found = [m for m in golden.model_names() if "decode_steps" in golden.cases_of(m)]
    grows = [pytest.param(m, False, marks=() if m == "ForCausalLM-cross" else pytest.mark.slow) for m in found]
    return [(m, True) for m in found] + grows


@pytest.mark.parametrize(("model", "fixed"), decoders())
def test_decoding_step_by_step_with_the_cache_is_the_reference_s(model: str, fixed: bool) -> None:
    case = golden.cases_of(model)["decode_steps"]
    built = load(model)
    ids = case.inputs["input_ids"]
    masked = arrays(golden.cases_of(model)["masked"])
    cross = {name: masked[name] for name in ("encoder_hidden_states", "encoder_attention_mask") if name in masked}
    step = jax.jit(functools.partial(built, use_cache=True))
    past, outputs = built.init_cache(3, 12) if fixed else None, []
    for piece in (ids[:, :4], *np.split(ids[:, 4:], 5, axis=1)):
        output = step(input_ids=piece, past_key_values=past, **cross)
        past = output.past_key_values
        outputs.append(np.asarray(output[0]))
    joined = np.concatenate(outputs, axis=1)
    np.testing.assert_allclose(joined, case.expected["out"], rtol=0, atol=golden.LOGITS_TOLERANCE)


def test_parameters_lie_where_the_linen_module_makes_them() -> None:
    for model in golden.model_names():
        built = load(model)
        inputs = arrays(golden.cases_of(model)["masked"])
        made = jax.eval_shape(lambda built=built, inputs=inputs: built.module.init(built.key, **inputs))["params"]
        assert {path: leaf.shape for path, leaf in flatten_dict(made).items()} == {
            path: leaf.shape for path, leaf in flatten_dict(built.params).items()
        }
        assert all(name.startswith(PREFIX) or not built.bare for name in built.expected_tensors())
