"""The classes of every framework answer as the reference's torch classes do, to the stated tolerances."""

import functools
from typing import Any

import numpy as np
import pytest

from models.tensors import PREFIX
from tests.models import golden
from tests.models.frameworks import Classes, each, each_with

# Every layer and head that a graph could get wrong, once: tracing takes longer than answering.
TRACED = (
    "Model-relative_key_query",
    "ForCausalLM-cross",
    "ForMaskedLM-untied",
    "ForMultipleChoice",
    "ForQuestionAnswering",
)
FUSED = ("Model", "ForCausalLM", "ForCausalLM-cross")
FUSED_MASKS = ("ids_only", "masked", "mask_3d", "cross_no_mask", "cross_mask_3d")


@functools.cache
def load(framework: Classes, model: str) -> Any:
    return framework.load(golden.kind_of(model), golden.MODELS / model)


@each_with("model, name", golden.case_names())
def test_the_outputs_of_every_case_are_the_reference_s(framework: Classes, model: str, name: str) -> None:
    case = golden.cases_of(model)[name]
    wanted = {"output_attentions": any("attentions" in one for one in case.names), "output_hidden_states": True}
    golden.compare(framework.answer(load(framework, model), {**case.inputs, **wanted}), case)


def is_slow_without_maps(model: str, name: str) -> bool:
    """In Flax: a head sees nothing of how attention was computed, and a head mask or distances keep it from being fused."""
    return model not in FUSED or name not in FUSED_MASKS


@each_with(
    "model, name", golden.case_names(), slow={"flax": is_slow_without_maps, "tensorflow": lambda *_: True}
)  # TensorFlow has no fused attention outside of graphs
def test_without_attention_maps_the_fused_attention_answers_the_same(framework: Classes, model: str, name: str) -> None:
    case = golden.cases_of(model)[name]
    found = framework.answer(load(framework, model), {**case.inputs, "output_hidden_states": True})
    golden.compare(found, case, maps=False)


@each_with("model", golden.model_names(having="loss"))
def test_the_gradients_of_every_loss_are_the_reference_s(framework: Classes, model: str) -> None:
    case, built = golden.cases_of(model)["loss"], load(framework, model)
    found = framework.gradients(built, case.inputs)
    assert set(found) == set(built.expected_tensors())
    golden.compare_gradients(found, case.gradients())


def steps(framework: Classes, model: str, *, past: Any) -> np.ndarray:
    """The first output of a prefill of four tokens and of five single steps, joined."""
    ids = golden.cases_of(model)["decode_steps"].inputs["input_ids"]
    masked = golden.cases_of(model)["masked"].inputs
    cross = {name: masked[name] for name in ("encoder_hidden_states", "encoder_attention_mask") if name in masked}
    step, outputs = framework.program(load(framework, model)), []
    for piece in (ids[:, :4], *np.split(ids[:, 4:], 5, axis=1)):
        output = step(input_ids=piece, past_key_values=past, **cross)
        past = output.past_key_values
        outputs.append(np.asarray(output[0]))
    return np.concatenate(outputs, axis=1)


def is_slow_to_grow(model: str) -> bool:
    """In Flax a cache that grows has a new shape at each step, so one model is enough."""
    return model != "ForCausalLM-cross"


@each_with("model", golden.model_names(having="decode_steps"), slow={"flax": is_slow_to_grow})
def test_decoding_step_by_step_with_the_cache_is_the_reference_s(framework: Classes, model: str) -> None:
    expected = golden.cases_of(model)["decode_steps"].expected["out"]
    np.testing.assert_allclose(steps(framework, model, past=None), expected, rtol=0, atol=golden.LOGITS_TOLERANCE)


@pytest.mark.parametrize("model", golden.model_names(having="decode_steps"))
@each("flax")
def test_decoding_with_a_cache_of_a_fixed_size_is_the_reference_s(framework: Classes, model: str) -> None:
    expected = golden.cases_of(model)["decode_steps"].expected["out"]
    past = load(framework, model).init_cache(3, 12)
    np.testing.assert_allclose(steps(framework, model, past=past), expected, rtol=0, atol=golden.LOGITS_TOLERANCE)


@pytest.mark.parametrize("model", [model for model in golden.model_names() if model in TRACED])
@each("tensorflow")
def test_a_graph_answers_as_eager_execution_does(framework: Classes, model: str) -> None:
    import tensorflow as tf

    case, built = golden.cases_of(model)["masked"], load(framework, model)
    call = tf.function(lambda named: built(named, output_attentions=True, output_hidden_states=True), jit_compile=False)
    output = call({name: tf.constant(array) for name, array in case.inputs.items()})
    golden.compare({name: np.asarray(tensor) for name, tensor in golden.flatten(output)}, case)


@each("flax")
def test_parameters_lie_where_the_linen_module_makes_them(framework: Classes) -> None:
    import jax
    from flax.traverse_util import flatten_dict

    for model in golden.model_names():
        built, inputs = load(framework, model), golden.cases_of(model)["masked"].inputs
        made = jax.eval_shape(lambda built=built, inputs=inputs: built.module.init(built.key, **inputs))["params"]
        assert {path: leaf.shape for path, leaf in flatten_dict(made).items()} == {
            path: leaf.shape for path, leaf in flatten_dict(built.params).items()
        }
        assert all(name.startswith(PREFIX) or not built.bare for name in built.expected_tensors())
