"""The torch classes changed, traced and exported; proof that they answer as they should, out."""

import importlib.util
import subprocess
import sys
from typing import Any

import pytest

if importlib.util.find_spec("torch") is None:
    pytest.skip("torch is not installed", allow_module_level=True)

import torch

from tests.models.tiny import KINDS
from tests.models.tiny_torch import build, ids, inputs, near

pytestmark = pytest.mark.torch


# Surgery


@pytest.mark.parametrize("tied", [True, False])
def test_a_resized_vocabulary_keeps_the_old_words(tied: bool) -> None:
    model = build("ForMaskedLM", tie_word_embeddings=tied)
    batch = ids(2, 5)
    before = model(batch).logits
    table = model.resize_token_embeddings(70)
    assert (table.num_embeddings, model.config.vocab_size, model.lm_head.bias.shape) == (70, 70, (70,))
    assert (model.get_output_embeddings().weight is table.weight) == tied
    near(model(batch).logits[..., :61], before)
    assert model.resize_token_embeddings(pad_to_multiple_of=64).num_embeddings == 128
    model.resize_token_embeddings(61)
    near(model(batch).logits, before)
    model(batch, labels=batch).loss.backward()


def test_an_embedding_put_in_place_is_tied_again() -> None:
    model = build("ForMaskedLM")
    table = torch.nn.Embedding(61, 32)
    model.set_input_embeddings(table)
    assert model.get_output_embeddings().weight is table.weight
    decoder = torch.nn.Linear(32, 61)
    model.set_output_embeddings(decoder)
    assert model.get_output_embeddings() is decoder
    assert build("ForTokenClassification").get_output_embeddings() is None


def test_pruned_heads_answer_as_masked_ones_and_are_remembered(tmp_path: Any) -> None:
    model, batch = build("ForTokenClassification"), ids(2, 5)
    mask = torch.ones(3, 4)
    mask[0, [1, 2]] = mask[2, 0] = 0
    # A masked head adds nothing but its share of the output bias, and so does a pruned one.
    masked = model(batch, head_mask=mask).logits
    model.prune_heads({0: [1], 2: [0]})
    model.prune_heads({0: [2]})
    assert model.config.pruned_heads == {0: [1, 2], 2: [0]}
    near(model(batch).logits, masked)
    model.save_pretrained(str(tmp_path))
    near(type(model).from_pretrained(str(tmp_path))(batch).logits, masked)
    with pytest.raises(ValueError, match="layer 0 would keep no head"):
        model.prune_heads({0: [0, 3]})


# Export


# A causal mask, a third axis, two outputs: what else the heads do is a linear layer.
HARD = ("ForCausalLM", "ForMultipleChoice", "ForQuestionAnswering")
EXPORTED = [kind if kind in HARD else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS]


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace.*:DeprecationWarning")  # deprecated in torch 2.13, still promised
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning:torch.nn.functional")  # torch's own look at padding_idx
@pytest.mark.parametrize("kind", EXPORTED)
def test_a_traced_model_answers_the_same(kind: str) -> None:
    model = build(kind, is_decoder=kind == "ForCausalLM", torchscript=True)
    given_ids = ids(2, 2, 7) if kind == "ForMultipleChoice" else ids(2, 7)
    traced = torch.jit.trace(model, (given_ids,))
    other = given_ids.flip(0)
    near(traced(other)[0], model(other)[0])


@pytest.mark.parametrize("kind", EXPORTED)
def test_an_exported_model_answers_the_same(kind: str) -> None:
    model = build(kind, is_decoder=kind == "ForCausalLM")
    batch = inputs(kind)
    exported = torch.export.export(model, (), batch).module()
    near(exported(**batch)[0], model(**batch)[0])


def test_an_exported_sequence_may_have_another_length() -> None:
    model = build("ForSequenceClassification")
    length = torch.export.Dim("length", min=2, max=38)
    shapes = {"input_ids": {1: length}, "attention_mask": {1: length}}
    exported = torch.export.export(model, (), inputs(""), dynamic_shapes=shapes).module()
    other = {"input_ids": ids(3, 5), "attention_mask": torch.ones(3, 5, dtype=torch.long)}
    near(exported(**other).logits, model(**other).logits)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_models_answer_in_their_type(dtype: torch.dtype) -> None:
    model = build("ForCausalLM", is_decoder=True).to(dtype)
    batch = ids(2, 5)
    output = model(batch, attention_mask=torch.ones(2, 5), labels=batch)
    assert output.logits.dtype == dtype
    assert output.loss.dtype == torch.float32


def test_importing_models_imports_no_framework() -> None:
    code = (
        "import sys, models, models.load, models.config, models.checkpoint, models.tokenizer; "
        "print([m for m in ('torch', 'tensorflow', 'keras', 'jax', 'flax', 'ray') if m in sys.modules]); "
        "from models import RobertaPreLayerNormForMaskedLM, RobertaPreLayerNormConfig; print('torch' in sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.split("\n")[:2] == ["[]", "True"]
