"""The TensorFlow classes answer as the reference's torch classes do, to the stated tolerances."""

import functools
import importlib.util
from typing import Any

import numpy as np
import pytest

if importlib.util.find_spec("tensorflow") is None:
    pytest.skip("tensorflow is not installed", allow_module_level=True)

import tensorflow as tf

import models.roberta_tf
from models.roberta_tf.weights import neutral_variables
from models.tensors import PREFIX
from tests.models import golden

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.skipif(not golden.MODELS.is_dir(), reason="the reference data ../shared/golden is absent"),
]


# Every layer and head that a graph could get wrong, once: tracing takes longer than answering.
TRACED = (
    "Model-relative_key_query",
    "ForCausalLM-cross",
    "ForMaskedLM-untied",
    "ForMultipleChoice",
    "ForQuestionAnswering",
)


@functools.cache
def load(model: str) -> Any:
    case_class = "TFRobertaPreLayerNorm" + model.split("-")[0]
    return getattr(models.roberta_tf, case_class).from_pretrained(str(golden.MODELS / model))


def inputs(case: golden.Case) -> dict[str, Any]:
    """The case's keyword inputs; a scalar is a switch."""
    return {name: array if array.ndim else bool(array) for name, array in case.inputs.items()}


def numpy(output: Any) -> dict[str, golden.Array]:
    return {name: np.asarray(tensor) for name, tensor in golden.flatten(output)}


@pytest.mark.parametrize(("model", "name"), golden.case_names())
def test_the_outputs_of_every_case_are_the_reference_s(model: str, name: str) -> None:
    case = golden.cases_of(model)[name]
    wants_maps = any("attentions" in output for output in case.expected)
    output = load(model)(**inputs(case), output_attentions=wants_maps, output_hidden_states=True)
    golden.compare(numpy(output), case.outputs())


@pytest.mark.parametrize("model", [model for model in golden.model_names() if model in TRACED])
def test_a_graph_answers_as_eager_execution_does(model: str) -> None:
    case = golden.cases_of(model)["masked"]
    built = load(model)
    call = tf.function(lambda named: built(named, output_attentions=True, output_hidden_states=True), jit_compile=False)
    golden.compare(numpy(call({name: tf.constant(array) for name, array in case.inputs.items()})), case.outputs())


@pytest.mark.parametrize("model", [m for m in golden.model_names() if "loss" in golden.cases_of(m)])
def test_the_gradients_of_every_loss_are_the_reference_s(model: str) -> None:
    case = golden.cases_of(model)["loss"]
    built = load(model)
    with tf.GradientTape() as tape:
        loss = built(**inputs(case)).loss
    assert loss.shape == ()
    named = neutral_variables(built)
    gradients = tape.gradient(loss, [variable.value for variable in named.values()])
    found = {}
    for name, variable, gradient in zip(named, named.values(), gradients, strict=True):
        if gradient is not None:
            array = np.asarray(tf.convert_to_tensor(gradient))
            found[name.removeprefix(PREFIX) if built.bare else name] = array.T if variable.name == "kernel" else array
    golden.compare_gradients(found, case.gradients())


@pytest.mark.parametrize("model", [m for m in golden.model_names() if "decode_steps" in golden.cases_of(m)])
def test_decoding_step_by_step_with_the_cache_is_the_reference_s(model: str) -> None:
    case = golden.cases_of(model)["decode_steps"]
    built = load(model)
    ids = case.inputs["input_ids"]
    masked = golden.cases_of(model)["masked"].inputs
    cross = {name: masked[name] for name in ("encoder_hidden_states", "encoder_attention_mask") if name in masked}
    past, outputs = None, []
    for piece in (ids[:, :4], *np.split(ids[:, 4:], ids.shape[1] - 4, axis=1)):
        output = built(input_ids=piece, past_key_values=past, use_cache=True, **cross)
        past = output.past_key_values
        outputs.append(np.asarray(output[0]))
    np.testing.assert_allclose(
        np.concatenate(outputs, axis=1), case.expected["out"], rtol=0, atol=golden.LOGITS_TOLERANCE
    )
