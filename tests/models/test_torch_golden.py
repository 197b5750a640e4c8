"""The torch classes answer as the reference does, to the stated tolerances."""

import functools
import importlib.util
from typing import Any

import numpy as np
import pytest

if importlib.util.find_spec("torch") is None:
    pytest.skip("torch is not installed", allow_module_level=True)

import torch

import models.roberta_torch
from tests.models import golden

# Tiny tensors: a second thread only waits, for long where other processes share the cores.
torch.set_num_threads(1)

pytestmark = [
    pytest.mark.torch,
    pytest.mark.skipif(not golden.MODELS.is_dir(), reason="the reference data ../shared/golden is absent"),
]


@functools.cache
def load(model: str) -> Any:
    case_class = "RobertaPreLayerNorm" + model.split("-")[0]
    return getattr(models.roberta_torch, case_class).from_pretrained(str(golden.MODELS / model))


def tensors(case: golden.Case) -> dict[str, Any]:
    """The case's keyword inputs as tensors; a scalar is a switch."""
    return {name: torch.from_numpy(a) if a.ndim else bool(a) for name, a in case.inputs.items()}


def numpy(output: Any) -> dict[str, golden.Array]:
    return {name: tensor.detach().numpy() for name, tensor in golden.flatten(output)}


@pytest.mark.parametrize(("model", "name"), golden.case_names())
def test_the_outputs_of_every_case_are_the_reference_s(model: str, name: str) -> None:
    case = golden.cases_of(model)[name]
    wants_maps = any("attentions" in output for output in case.expected)
    with torch.no_grad():
        output = load(model)(**tensors(case), output_attentions=wants_maps, output_hidden_states=True)
    golden.compare(numpy(output), case.outputs())


@pytest.mark.parametrize(("model", "name"), golden.case_names())
def test_without_attention_maps_the_fused_attention_answers_the_same(model: str, name: str) -> None:
    case = golden.cases_of(model)[name]
    with torch.no_grad():
        output = numpy(load(model)(**tensors(case), output_hidden_states=True))
    golden.compare(output, {key: value for key, value in case.outputs().items() if "attentions" not in key})


@pytest.mark.parametrize("model", [m for m in golden.model_names() if "loss" in golden.cases_of(m)])
def test_the_gradients_of_every_loss_are_the_reference_s(model: str) -> None:
    case = golden.cases_of(model)["loss"]
    built = load(model)
    built.zero_grad()
    built(**tensors(case)).loss.backward()
    found = {name: parameter.grad.numpy() for name, parameter in built.named_parameters() if parameter.grad is not None}
    golden.compare_gradients(found, case.gradients())


@pytest.mark.parametrize("model", [m for m in golden.model_names() if "decode_steps" in golden.cases_of(m)])
def test_decoding_step_by_step_with_the_cache_is_the_reference_s(model: str) -> None:
    case = golden.cases_of(model)["decode_steps"]
    built = load(model)
    ids = torch.from_numpy(case.inputs["input_ids"])
    masked = tensors(golden.cases_of(model)["masked"])
    cross = {name: masked[name] for name in ("encoder_hidden_states", "encoder_attention_mask") if name in masked}
    past, outputs = None, []
    with torch.no_grad():
        for piece in (ids[:, :4], *ids[:, 4:].split(1, dim=1)):
            output = built(input_ids=piece, past_key_values=past, use_cache=True, **cross)
            past = output.past_key_values
            outputs.append(output[0])
    np.testing.assert_allclose(
        torch.cat(outputs, dim=1).numpy(), case.expected["out"], rtol=0, atol=golden.LOGITS_TOLERANCE
    )
