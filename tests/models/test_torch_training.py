"""Labels in; proof that the torch classes' losses, gradients and modes are right, out."""

import importlib.util
import math
from typing import Any

import pytest

if importlib.util.find_spec("torch") is None:
    pytest.skip("torch is not installed", allow_module_level=True)

import torch

from tests.models.tiny import KINDS, padded_ids
from tests.models.tiny_torch import build, ids, inputs, labels, near

pytestmark = pytest.mark.torch


# Losses


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("Model", "ForQuestionAnswering")])
def test_every_integer_type_is_a_class_label(kind: str, dtype: torch.dtype) -> None:
    model = build(kind)
    given_labels = labels(kind)["labels"]
    loss = model(**inputs(kind), labels=given_labels).loss
    near(model(**inputs(kind), labels=given_labels.to(dtype)).loss, loss, 0.0)
    assert loss.shape == ()


def test_the_kind_of_loss_is_decided_by_each_batch() -> None:
    model = build("ForSequenceClassification", num_labels=3)
    batch = inputs("")
    single = model(**batch, labels=torch.tensor([0, 1, 2]))
    near(single.loss, torch.nn.functional.cross_entropy(single.logits, torch.tensor([0, 1, 2])))
    many = torch.tensor([[0.0, 1, 1], [1, 0, 0], [0, 0, 0]])
    multiple = model(**batch, labels=many)
    near(multiple.loss, torch.nn.functional.binary_cross_entropy_with_logits(multiple.logits, many))
    assert model.config.problem_type is None


def test_labels_out_of_range_are_refused_and_ignored_ones_not() -> None:
    model = build("ForTokenClassification", num_labels=2)
    with pytest.raises(ValueError, match=r"labels hold 2, outside 0 … 1 \(-100 is ignored\)"):
        model(ids(1, 2), labels=torch.tensor([[0, 2]]))
    with pytest.raises(ValueError, match="labels hold -1"):
        model(ids(1, 2), labels=torch.tensor([[0, -1]]))
    assert math.isnan(model(ids(1, 2), labels=torch.full((1, 2), -100)).loss.item())


def test_answer_positions_beyond_the_text_are_ignored_and_may_have_an_extra_axis() -> None:
    model = build("ForQuestionAnswering")
    outside = {"start_positions": torch.tensor([1, 99]), "end_positions": torch.tensor([2, 99])}
    both = model(ids(2, 5), **outside).loss
    one = model(ids(2, 5)[:1], start_positions=torch.tensor([[1]]), end_positions=torch.tensor([[2]])).loss
    near(both, one)
    assert model(ids(1, 5), start_positions=torch.tensor([1])).loss is None


def test_a_causal_loss_can_be_a_sum_over_a_given_number() -> None:
    model = build("ForCausalLM", is_decoder=True)
    batch = ids(2, 5)
    near(model(batch, labels=batch, num_items_in_batch=8).loss, model(batch, labels=batch).loss)
    near(model(batch, labels=batch, num_items_in_batch=4).loss, 2 * model(batch, labels=batch).loss)


# Training


@pytest.mark.parametrize("kind", KINDS)
def test_checkpointed_gradients_are_the_same(kind: str) -> None:
    decoder = kind == "ForCausalLM"
    model = build(kind, is_decoder=decoder, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0).train()
    gradients = []
    for enable in (model.gradient_checkpointing_disable, model.gradient_checkpointing_enable):
        enable()
        model.zero_grad()
        output = model(**inputs(kind), **(labels(kind) if kind != "Model" else {}))
        output[0].sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    assert model.is_gradient_checkpointing
    assert len(gradients[0]) == len(gradients[1]) > 10
    for plain, checkpointed in zip(*gradients, strict=True):
        near(checkpointed, plain, 1e-4)


def test_checkpointed_training_keeps_no_cache() -> None:
    model = build(is_decoder=True).train()
    model.gradient_checkpointing_enable()
    assert model(ids(1, 4)).past_key_values is None


def test_dropout_follows_the_seed_and_the_mode() -> None:
    model, batch = build(hidden_dropout_prob=0.3).train(), ids(2, 5)
    torch.manual_seed(1)
    first = model(batch).last_hidden_state
    torch.manual_seed(1)
    near(model(batch).last_hidden_state, first, 0.0)
    assert not torch.equal(model(batch).last_hidden_state, first)
    model.eval()
    near(model(batch).last_hidden_state, model(batch).last_hidden_state, 0.0)


def test_chunks_of_the_feed_forward_change_nothing_and_must_divide() -> None:
    whole, chunked = build(), build(chunk_size_feed_forward=3)
    near(chunked(ids(2, 6)).last_hidden_state, whole(ids(2, 6)).last_hidden_state)
    with pytest.raises(ValueError, match=r"5 tokens, not a multiple of config.chunk_size_feed_forward 3"):
        chunked(ids(2, 5))


def test_a_fresh_model_starts_as_the_reference_s() -> None:
    model = build("ForMaskedLM", initializer_range=0.02, hidden_size=64)
    words = model.get_input_embeddings().weight
    assert (words[1] == 0).all()
    assert (model.roberta_prelayernorm.embeddings.position_embeddings.weight[1] == 0).all()
    assert abs(float(words[2:].detach().std()) - 0.02) < 0.002
    assert (model.lm_head.bias == 0).all()
    assert (model.lm_head.layer_norm.weight == 1).all()


def test_a_question_answerer_needs_two_labels() -> None:
    with pytest.raises(ValueError, match="question answering needs num_labels=2"):
        build("ForQuestionAnswering", num_labels=3)


@pytest.mark.parametrize("maps", [True, False])
def test_autocast_keeps_masked_rows_finite(maps: bool) -> None:
    model = build("ForCausalLM", is_decoder=True)
    mask = torch.tensor([[0, 0, 1, 1]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(ids(1, 4), attention_mask=mask, output_attentions=maps)
    assert torch.isfinite(output.logits).all()


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_hidden_states_and_attention_maps(kind: str) -> None:
    output = build(kind)(**inputs(kind), output_hidden_states=True, output_attentions=True)
    for tensor in (output.hidden_states[0], output.attentions[0]):
        tensor.retain_grad()
    output[0].flatten()[0].backward()
    assert output.hidden_states[0].grad is not None
    assert output.attentions[0].grad is not None


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "Model"])
def test_every_parameter_learns(kind: str) -> None:
    decoder = kind == "ForCausalLM"
    model = build(kind, is_decoder=decoder, add_cross_attention=decoder).train()
    states = {"encoder_hidden_states": torch.randn(3, 5, 32)} if decoder else {}
    model(**inputs(kind), **labels(kind), **states).loss.backward()
    assert not [name for name, parameter in model.named_parameters() if parameter.grad is None]


def test_the_rows_of_the_pad_get_no_gradient() -> None:
    model = build("ForTokenClassification").train()
    model(**inputs(""), labels=torch.zeros(3, 9, dtype=torch.long)).loss.backward()
    embeddings = model.roberta_prelayernorm.embeddings
    assert (embeddings.word_embeddings.weight.grad[1] == 0).all()
    assert (embeddings.position_embeddings.weight.grad[1] == 0).all()


def test_pads_without_a_mask_are_warned_about_once(caplog: pytest.LogCaptureFixture) -> None:
    model, padded = build(), torch.from_numpy(padded_ids()[0])
    model(padded)
    model(padded)
    assert caplog.text.count("pass the mask") == 1


def test_a_compiled_graph_is_whole() -> None:
    model, batch = build("ForSequenceClassification"), inputs("")
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    near(compiled(**batch).logits, model(**batch).logits)


def test_gradients_of_a_function_of_the_parameters_can_be_taken() -> None:
    model, batch = build("ForSequenceClassification"), inputs("")
    parameters = dict(model.named_parameters())

    def loss(values: dict[str, Any]) -> Any:
        return torch.func.functional_call(model, values, (), batch).logits.sum()

    found = torch.func.grad(loss)(parameters)
    loss(parameters).backward()
    near(found["classifier.out_proj.weight"], parameters["classifier.out_proj.weight"].grad)
