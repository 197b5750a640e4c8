"""The torch classes traced, exported, compiled, and under torch's own transformations of a program."""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from tests.models.frameworks import CLASSES
from tests.models.tiny import KINDS, inputs_of, near, token_ids

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.torch

TORCH = CLASSES["torch"]
# A causal mask, a third axis, two outputs: what else the heads do is a linear layer.
HARD = ("ForCausalLM", "ForMultipleChoice", "ForQuestionAnswering")
EXPORTED = [kind if kind in HARD else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS]


def tensors(kind: str) -> dict[str, Any]:
    return {name: torch.from_numpy(array.copy()) for name, array in inputs_of(kind).items()}


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace.*:DeprecationWarning")  # deprecated in torch 2.13, still promised
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning:torch.nn.functional")  # torch's own look at padding_idx
@pytest.mark.parametrize("kind", EXPORTED)
def test_a_traced_model_answers_the_same(kind: str) -> None:
    model = TORCH.build(kind, is_decoder=kind == "ForCausalLM", torchscript=True)
    ids = torch.from_numpy(token_ids(2, 2, 7) if kind == "ForMultipleChoice" else token_ids(2, 7))
    traced = torch.jit.trace(model, (ids,))
    other = ids.flip(0)
    near(traced(other)[0].detach(), model(other)[0].detach())


@pytest.mark.parametrize("kind", EXPORTED)
def test_an_exported_model_answers_the_same(kind: str) -> None:
    model, batch = TORCH.build(kind, is_decoder=kind == "ForCausalLM"), tensors(kind)
    exported = torch.export.export(model, (), batch).module()
    near(exported(**batch)[0].detach(), model(**batch)[0].detach())


def test_an_exported_sequence_may_have_another_length() -> None:
    model = TORCH.build("ForSequenceClassification")
    length = torch.export.Dim("length", min=2, max=38)
    shapes = {"input_ids": {1: length}, "attention_mask": {1: length}}
    exported = torch.export.export(model, (), tensors(""), dynamic_shapes=shapes).module()
    other = {"input_ids": torch.from_numpy(token_ids(3, 5)), "attention_mask": torch.ones(3, 5, dtype=torch.long)}
    near(exported(**other).logits.detach(), model(**other).logits.detach())


def test_a_compiled_graph_is_whole() -> None:
    model, batch = TORCH.build("ForSequenceClassification"), tensors("")
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    near(compiled(**batch).logits.detach(), model(**batch).logits.detach())


def test_gradients_of_a_function_of_the_parameters_can_be_taken() -> None:
    model, batch = TORCH.build("ForSequenceClassification"), tensors("")
    parameters = dict(model.named_parameters())

    def loss(values: dict[str, Any]) -> Any:
        return torch.func.functional_call(model, values, (), batch).logits.sum()

    found = torch.func.grad(loss)(parameters)
    loss(parameters).backward()
    near(found["classifier.out_proj.weight"].detach(), parameters["classifier.out_proj.weight"].grad)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_hidden_states_and_attention_maps(kind: str) -> None:
    output = TORCH.build(kind)(**tensors(kind), output_hidden_states=True, output_attentions=True)
    for tensor in (output.hidden_states[0], output.attentions[0]):
        tensor.retain_grad()
    output[0].flatten()[0].backward()
    assert output.hidden_states[0].grad is not None
    assert output.attentions[0].grad is not None


@pytest.mark.parametrize("maps", [True, False])
def test_autocast_keeps_masked_rows_finite(maps: bool) -> None:
    model = TORCH.kept("ForCausalLM", is_decoder=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = TORCH.call(model, token_ids(1, 4), attention_mask=np.array([[0, 0, 1, 1]]), output_attentions=maps)
    assert torch.isfinite(output.logits).all()


def test_importing_models_imports_no_framework() -> None:
    code = (
        "import sys, models, models.load, models.config, models.checkpoint, models.tokenizer; "
        "print([m for m in ('torch', 'tensorflow', 'keras', 'jax', 'flax', 'ray') if m in sys.modules]); "
        "from models import RobertaPreLayerNormForMaskedLM, RobertaPreLayerNormConfig; print('torch' in sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.split("\n")[:2] == ["[]", "True"]
