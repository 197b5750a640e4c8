"""What a user of the torch classes can do with them, and where the specification overrules the reference."""

import importlib.util
import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

if importlib.util.find_spec("torch") is None:
    pytest.skip("torch is not installed", allow_module_level=True)

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import models.roberta_torch as roberta
from tests.models.tiny import KINDS, SEQUENCE_KINDS, padded_ids, tiny_config, token_ids

# Tiny tensors: a second thread only waits, for long where other processes share the cores.
torch.set_num_threads(1)

pytestmark = pytest.mark.torch

TOLERANCE = 2e-5  # float32, the same sums in another order


def build(kind: str = "Model", **overrides: Any) -> Any:
    torch.manual_seed(11)
    return getattr(roberta, f"RobertaPreLayerNorm{kind}")(tiny_config(**overrides)).eval()


def ids(*shape: int, seed: int = 0) -> Any:
    return torch.from_numpy(token_ids(*shape, seed=seed))


def inputs(kind: str) -> dict[str, Any]:
    padded, mask = (torch.from_numpy(array) for array in padded_ids())
    if kind == "ForMultipleChoice":
        padded, mask = (torch.stack((array, array.flip(0)), dim=1) for array in (padded, mask))
    return {"input_ids": padded, "attention_mask": mask}


def labels(kind: str) -> dict[str, Any]:
    if kind == "ForQuestionAnswering":
        return {"start_positions": torch.tensor([1, 2, 3]), "end_positions": torch.tensor([2, 3, 3])}
    if kind in ("ForSequenceClassification", "ForMultipleChoice"):
        return {"labels": torch.tensor([0, 1, 1])}
    high = 2 if kind == "ForTokenClassification" else 61
    return {"labels": torch.from_numpy(np.random.default_rng(4).integers(0, high, (3, 9)))}


def near(found: Any, expected: Any, tolerance: float = TOLERANCE) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)


# Inputs


@pytest.mark.parametrize("kind", KINDS)
def test_embeddings_of_the_ids_answer_as_the_ids(kind: str) -> None:
    model = build(kind)
    given_ids = ids(3, 2, 9) if kind == "ForMultipleChoice" else ids(3, 9)
    embeds = model.get_input_embeddings()(given_ids)
    near(model(inputs_embeds=embeds)[0], model(input_ids=given_ids)[0])


@pytest.mark.parametrize("kind", KINDS)
def test_tuples_hold_what_the_named_output_holds(kind: str) -> None:
    model = build(kind, is_decoder=kind == "ForCausalLM")
    wants = {"output_attentions": True, "output_hidden_states": True}
    named = model(**inputs(kind), **(labels(kind) if kind != "Model" else {}), **wants)
    plain = model(**inputs(kind), **(labels(kind) if kind != "Model" else {}), **wants, return_dict=False)
    assert isinstance(plain, tuple)
    assert len(plain) == len(named.to_tuple())
    for one, other in zip(plain, named.to_tuple(), strict=True):
        if isinstance(one, torch.Tensor):
            near(one, other, 0.0)


def test_the_bare_model_s_tuple_keeps_the_place_of_a_missing_pooler() -> None:
    model = roberta.RobertaPreLayerNormModel(tiny_config(), add_pooling_layer=False).eval()
    last, pooled = model(ids(2, 5), return_dict=False)
    assert last.shape == (2, 5, 32)
    assert pooled is None
    assert "pooler_output" not in model(ids(2, 5))


def test_both_or_neither_of_ids_and_embeddings_are_refused() -> None:
    model = build()
    with pytest.raises(ValueError, match="both input_ids and inputs_embeds"):
        model(input_ids=ids(1, 3), inputs_embeds=torch.zeros(1, 3, 32))
    with pytest.raises(ValueError, match="neither input_ids nor inputs_embeds"):
        build("ForMultipleChoice")()


def test_what_is_out_of_range_is_refused_with_value_and_limit() -> None:
    model = build()
    with pytest.raises(ValueError, match=r"input_ids holds 61, outside 0 … 60 \(vocab_size 61\)"):
        model(torch.tensor([[5, 61]]))
    with pytest.raises(ValueError, match=r"token_type_ids holds 2, outside 0 … 1 \(type_vocab_size 2\)"):
        model(ids(1, 2), token_type_ids=torch.tensor([[0, 2]]))
    with pytest.raises(ValueError, match=r"position_ids holds 40, outside 0 … 39 \(max_position_embeddings 40\)"):
        model(ids(1, 2), position_ids=torch.tensor([[0, 40]]))
    with pytest.raises(ValueError, match=r"attention_mask has shape \(1, 1, 1, 4\); it must be"):
        model(ids(1, 4), attention_mask=torch.ones(1, 1, 1, 4))
    with pytest.raises(ValueError, match=r"head_mask has shape \(3,\); it must be \(4,\) or \(3, 4\)"):
        model(ids(1, 4), head_mask=torch.ones(3))


def test_longer_than_the_position_table_is_refused_naming_the_limit() -> None:
    model = build()
    assert model(ids(1, 38)).last_hidden_state.shape == (1, 38, 32)
    for arguments in ({"input_ids": ids(1, 39)}, {"inputs_embeds": torch.zeros(1, 39, 32)}):
        with pytest.raises(ValueError, match=r"39 tokens, the model takes at most 38 .*max_length=38"):
            model(**arguments)


def test_pads_do_not_count_towards_the_limit() -> None:
    padded = torch.cat((ids(1, 38), torch.ones(1, 6, dtype=torch.long)), dim=1)
    near(build()(padded, (padded != 1).long()).last_hidden_state[:, :38], build()(ids(1, 38)).last_hidden_state)


# Masks and padding


@pytest.mark.parametrize("kind", SEQUENCE_KINDS)
def test_padding_does_not_change_the_answers_of_real_tokens(kind: str) -> None:
    model = build(kind, is_decoder=kind == "ForCausalLM")
    batch = inputs(kind)
    whole = model(**batch)[0]
    for row, length in enumerate((9, 6, 4)):
        alone = model(batch["input_ids"][row : row + 1, :length])[0][0]
        near(whole[row] if kind == "ForSequenceClassification" else whole[row, :length], alone)


@settings(max_examples=15, deadline=None)
@given(st.permutations(range(4)), st.integers(1, 12), st.booleans())
def test_the_order_of_the_batch_never_matters(order: list[int], length: int, is_decoder: bool) -> None:
    model = build(is_decoder=is_decoder, use_cache=False)
    batch = ids(4, length, seed=length)
    near(model(batch[order]).last_hidden_state, model(batch).last_hidden_state[order])


@pytest.mark.parametrize("maps", [True, False])
def test_a_row_that_sees_nothing_attends_to_all_keys_alike(maps: bool) -> None:
    model = build(is_decoder=True, use_cache=False)
    mask = torch.tensor([[0, 0, 1, 1]])
    output = model(ids(1, 4), attention_mask=mask, output_attentions=maps)
    explicit = model(ids(1, 4), attention_mask=mask, output_attentions=True)
    near(output.last_hidden_state, explicit.last_hidden_state)
    near(explicit.attentions[0][0, :, 0], torch.full((4, 4), 0.25), 1e-6)


def test_boolean_masks_are_taken_and_what_is_half_masked_is_not_seen() -> None:
    model, mask = build(), torch.tensor([[1, 1, 0]])
    masked = model(ids(1, 3), mask).last_hidden_state
    near(model(ids(1, 3), mask.bool()).last_hidden_state, masked, 0.0)
    # Half of the type's minimum hides a token as well as all of it.
    near(model(ids(1, 3), mask * 0.5 + 0.5).last_hidden_state[:, :2], masked[:, :2])


def test_head_masks_are_differentiable_and_weigh_the_maps() -> None:
    model = build()
    mask = torch.ones(3, 4).requires_grad_()
    model(ids(2, 5), head_mask=mask).last_hidden_state.sum().backward()
    assert mask.grad is not None
    assert (mask.grad != 0).all()
    half = model(ids(2, 5), head_mask=torch.full((4,), 0.5), output_attentions=True).attentions[0]
    near(half.sum(-1), torch.full((2, 4, 5), 0.5), 1e-6)


# Decoder, cache and generation


@pytest.mark.parametrize("positions", ["absolute", "relative_key", "relative_key_query"])
@pytest.mark.parametrize("steps", [1, 3])
def test_cached_and_uncached_logits_agree(positions: str, steps: int) -> None:
    model = build("ForCausalLM", is_decoder=True, position_embedding_type=positions)
    batch = ids(2, 9)
    whole = model(batch).logits
    past: Any = None
    pieces = []
    for piece in (batch[:, :3], *batch[:, 3:].split(steps, dim=1)):
        output = model(piece, past_key_values=past)
        past = output.past_key_values
        pieces.append(output.logits)
    near(torch.cat(pieces, dim=1), whole)
    assert past.get_seq_length() == 9


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_prompt_with_pads_goes_on_right_from_its_cache(side: str) -> None:
    model = build("ForCausalLM", is_decoder=True)
    prompt, mask = (torch.from_numpy(array) for array in padded_ids())
    if side == "left":
        prompt, mask = prompt.flip(1), mask.flip(1)
    following = ids(3, 1, seed=9)
    past = model(prompt, attention_mask=mask).past_key_values
    longer = torch.cat((mask, torch.ones(3, 1, dtype=torch.long)), dim=1)
    cached = model(following, attention_mask=longer, past_key_values=past).logits[:, 0]
    for row in range(3):
        alone = torch.cat((prompt[row][mask[row] == 1], following[row]))[None]
        near(cached[row], model(alone).logits[0, -1])


def test_embeddings_with_a_cache_count_the_past() -> None:
    model = build(is_decoder=True)
    batch = ids(2, 6)
    embeds = model.get_input_embeddings()(batch)
    past = model(inputs_embeds=embeds[:, :4]).past_key_values
    stepped = model(inputs_embeds=embeds[:, 4:], past_key_values=past).last_hidden_state
    near(stepped, model(batch).last_hidden_state[:, 4:])


@pytest.mark.parametrize("cross", [True, False])
def test_a_cache_as_tuples_goes_on_with_a_warning(cross: bool) -> None:
    model = build("ForCausalLM", is_decoder=True, add_cross_attention=cross)
    states = {"encoder_hidden_states": torch.randn(2, 5, 32)} if cross else {}
    batch = ids(2, 6)
    past = model(batch[:, :4], **states).past_key_values
    legacy = past.to_legacy_cache()
    assert len(legacy[0]) == (4 if cross else 2)
    if not cross:
        legacy = tuple((*layer, None, None) for layer in legacy)
    with pytest.warns(UserWarning, match="tuple of tuples"):
        stepped = model(batch[:, 4:], past_key_values=legacy, **states).logits
    near(stepped, model(batch, **states).logits[:, 4:])


def test_cross_attention_goes_on_from_the_cache_alone() -> None:
    model = build("ForCausalLM", is_decoder=True, add_cross_attention=True)
    states, batch = torch.randn(2, 5, 32), ids(2, 6)
    past = model(batch[:, :4], encoder_hidden_states=states).past_key_values
    near(
        model(batch[:, 4:], past_key_values=past).logits,
        model(batch, encoder_hidden_states=states).logits[:, 4:],
    )


def test_maps_without_encoder_states_have_no_cross_attentions() -> None:
    model = build(is_decoder=True, add_cross_attention=True)
    output = model(ids(2, 4), output_attentions=True)
    assert output.cross_attentions is None
    assert len(output.attentions) == 3


def test_an_encoder_keeps_no_cache_and_a_decoder_only_if_asked() -> None:
    assert build()(ids(1, 4), use_cache=True).past_key_values is None
    assert build(is_decoder=True)(ids(1, 4)).past_key_values is not None
    assert build(is_decoder=True)(ids(1, 4), use_cache=False).past_key_values is None


def test_a_step_does_not_change_the_cache_it_was_given() -> None:
    model = build(is_decoder=True)
    past = model(ids(1, 4)).past_key_values
    first = model(ids(1, 1), past_key_values=past).last_hidden_state
    near(model(ids(1, 1), past_key_values=past).last_hidden_state, first, 0.0)
    assert past.get_seq_length() == 4
    assert past.reorder(torch.tensor([0, 0])).layers[0].self_key.shape[0] == 2


@pytest.mark.parametrize("side", ["none", "left", "right"])
@pytest.mark.parametrize("use_cache", [True, False])
def test_generation_takes_the_forward_pass_s_best_token_each_time(side: str, use_cache: bool) -> None:
    model = build("ForCausalLM", is_decoder=True)
    prompt, mask = (torch.from_numpy(array) for array in padded_ids())
    if side == "none":
        prompt = ids(3, 9)
    if side == "left":
        prompt, mask = prompt.flip(1), mask.flip(1)
    found = model.generate(prompt, max_new_tokens=5, eos_token_id=-1, use_cache=use_cache)
    assert found.shape == (3, 14)
    assert (found[:, :9] == prompt).all()
    for row in range(3):
        text = prompt[row][prompt[row] != 1]
        for token in found[row, 9:]:
            assert token == model(text[None]).logits[0, -1].argmax()
            text = torch.cat((text, token[None]))


def test_generation_ends_a_row_at_its_end_token_and_pads_it() -> None:
    model = build("ForCausalLM", is_decoder=True)
    prompt = ids(2, 4)
    free = model.generate(prompt, max_new_tokens=6, eos_token_id=-1)
    ended = model.generate(prompt, max_new_tokens=6, eos_token_id=int(free[0, 4]))
    assert ended[0, 4] == free[0, 4]
    assert (ended[0, 5:] == 1).all()


def test_generation_beyond_the_model_is_refused_before_it_begins() -> None:
    model = build("ForCausalLM", is_decoder=True)
    with pytest.raises(ValueError, match="a sequence has 42 tokens, the model takes at most 38"):
        model.generate(ids(1, 3), max_new_tokens=40)
    with pytest.raises(ValueError, match="nothing to generate"):
        model.generate(ids(1, 30))


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
