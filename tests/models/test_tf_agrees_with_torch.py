"""TensorFlow and torch answer alike on random configs, in answers, losses and gradients, and read each other's files."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

if importlib.util.find_spec("tensorflow") is None or importlib.util.find_spec("torch") is None:
    pytest.skip("tensorflow and torch are not both installed", allow_module_level=True)

import tensorflow as tf
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import models
from models.checks import ACTIVATIONS
from models.roberta_tf.weights import neutral_variables
from models.roberta_torch.weights import neutral_parameters
from tests.models import golden
from tests.models.tiny import KINDS, padded_ids, tiny_config

pytestmark = [pytest.mark.tensorflow, pytest.mark.torch]

TOLERANCE = 2e-5  # float32, the same sums in another order
QUIET = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def pair(kind: str, folder: Path, **overrides: Any) -> tuple[Any, Any]:
    """(torch's model, TensorFlow's model of the folder that torch saved)."""
    torch.manual_seed(5)
    config = tiny_config(**{"num_hidden_layers": 2, **QUIET, **overrides})
    theirs = getattr(models, f"RobertaPreLayerNorm{kind}")(config)
    theirs.save_pretrained(str(folder))
    return theirs, getattr(models, f"TFRobertaPreLayerNorm{kind}").from_pretrained(str(folder))


def inputs(kind: str) -> dict[str, Any]:
    ids, mask = padded_ids()
    draw = np.random.default_rng(4)
    if kind == "ForMultipleChoice":
        ids, mask = (np.stack((array, array[::-1]), axis=1) for array in (ids, mask))
    batch = {"input_ids": ids, "attention_mask": mask, "token_type_ids": draw.integers(0, 2, ids.shape)}
    if kind == "ForQuestionAnswering":
        return {**batch, "start_positions": np.array([1, 2, 99]), "end_positions": np.array([-2, 3, 3])}
    if kind in ("ForSequenceClassification", "ForMultipleChoice"):
        return {**batch, "labels": np.array([0, 1, 1])}
    if kind == "Model":
        return batch
    return {**batch, "labels": draw.integers(0, 2 if kind == "ForTokenClassification" else 61, ids.shape)}


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(KINDS),
    act=st.sampled_from(ACTIVATIONS),
    positions=st.sampled_from(["absolute", "relative_key", "relative_key_query"]),
    heads=st.sampled_from([1, 2, 4]),
    is_decoder=st.booleans(),
    tied=st.booleans(),
    pad=st.integers(0, 3),
)
def test_random_configs_agree_in_every_output_and_gradient(
    kind: str, act: str, positions: str, heads: int, is_decoder: bool, tied: bool, pad: int, tmp_path: Path
) -> None:
    theirs, ours = pair(
        kind,
        tmp_path,
        hidden_act=act,
        position_embedding_type=positions,
        num_attention_heads=heads,
        is_decoder=is_decoder,
        tie_word_embeddings=tied,
        pad_token_id=pad,
        initializer_range=0.2,
    )
    batch = inputs(kind)
    wants = {"output_attentions": True, "output_hidden_states": True}
    expected = theirs(**{name: torch.from_numpy(np.asarray(array)) for name, array in batch.items()}, **wants)
    with tf.GradientTape() as tape:
        found = ours(**batch, **wants)
        total = tf.reduce_sum(found[0])
    arrays = {name: np.asarray(tensor) for name, tensor in golden.flatten(found)}
    for name, tensor in golden.flatten(expected):
        np.testing.assert_allclose(arrays.pop(name), tensor.detach().numpy(), rtol=0, atol=TOLERANCE, err_msg=name)
    assert not arrays
    expected[0].sum().backward()
    parameters, variables = neutral_parameters(theirs, bare=theirs.bare), neutral_variables(ours)
    gradients = dict(zip(variables, tape.gradient(total, [v.value for v in variables.values()]), strict=True))
    known = {name: parameter.grad.numpy() for name, parameter in parameters.items() if parameter.grad is not None}
    ours_by_name = {}
    for name, gradient in gradients.items():
        if gradient is not None:
            array = np.asarray(tf.convert_to_tensor(gradient))
            ours_by_name[name] = array.T if variables[name].name == "kernel" else array
    golden.compare_gradients(ours_by_name, known)


@pytest.mark.parametrize("weights_format", ["safetensors", "safetensors-tf", "h5"])
def test_torch_reads_what_tensorflow_writes_bit_for_bit(weights_format: Any, tmp_path: Path) -> None:
    theirs, ours = pair("ForMaskedLM", tmp_path / "torch", tie_word_embeddings=False)
    ours.save_pretrained(str(tmp_path / "tf"), weights_format=weights_format)
    again = type(theirs).from_pretrained(str(tmp_path / "tf"))
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
