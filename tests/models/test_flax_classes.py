"""What a user of the Flax classes can do with them, and where the specification overrules the reference."""

import functools
import importlib.util
import math
from typing import Any

import numpy as np
import pytest

if importlib.util.find_spec("flax") is None or importlib.util.find_spec("jax") is None:
    pytest.skip("flax is not installed", allow_module_level=True)

import jax
import jax.numpy as jnp
from hypothesis import given, settings
from hypothesis import strategies as st

import models.roberta_flax as roberta
from models.config import RobertaPreLayerNormConfig
from models.roberta_flax.layers import layer_norm
from tests.models.tiny import KINDS, SEQUENCE_KINDS, padded_ids, tiny_config, token_ids

pytestmark = pytest.mark.flax

TOLERANCE = 2e-5  # float32, the same sums in another order
SHIFTED_TOLERANCE = 2e-2  # of a LayerNorm at mean 1,000: float32 keeps four digits behind the point there


@functools.cache
def _built(kind: str, overrides: tuple[tuple[str, Any], ...]) -> Any:
    return getattr(roberta, f"FlaxRobertaPreLayerNorm{kind}")(
        tiny_config(**{"num_hidden_layers": 2, **dict(overrides)}), seed=11
    )


def build(kind: str = "Model", **overrides: Any) -> Any:
    """A model shared by the tests that do not change it."""
    return _built(kind, tuple(sorted(overrides.items())))


def fresh(kind: str = "Model", **overrides: Any) -> Any:
    """A model of this test's own."""
    return _built.__wrapped__(kind, tuple(sorted(overrides.items())))


def ids(*shape: int, seed: int = 0) -> Any:
    return jnp.asarray(token_ids(*shape, seed=seed))


def inputs(kind: str) -> dict[str, Any]:
    padded, mask = padded_ids()
    if kind == "ForMultipleChoice":
        padded, mask = (np.stack((array, array[::-1]), axis=1) for array in (padded, mask))
    return {"input_ids": padded, "attention_mask": mask}


def labels(kind: str) -> dict[str, Any]:
    if kind == "ForQuestionAnswering":
        return {"start_positions": np.array([1, 2, 3]), "end_positions": np.array([2, 3, 3])}
    if kind in ("ForSequenceClassification", "ForMultipleChoice"):
        return {"labels": np.array([0, 1, 1])}
    high = 2 if kind == "ForTokenClassification" else 61
    return {"labels": np.random.default_rng(4).integers(0, high, (3, 9))}


def near(found: Any, expected: Any, tolerance: float = TOLERANCE) -> None:
    assert bool(jax.tree.structure(found) == jax.tree.structure(expected))  # type: ignore[operator]
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance)


# Inputs


@pytest.mark.parametrize("kind", ["Model", "ForMultipleChoice"])
def test_embeddings_of_the_ids_answer_as_the_ids(kind: str) -> None:
    model = build(kind)
    given_ids = ids(3, 2, 9) if kind == "ForMultipleChoice" else ids(3, 9)
    embeds = model.get_input_embeddings()[given_ids]
    near(model(inputs_embeds=embeds)[0], model(input_ids=given_ids)[0])


@pytest.mark.parametrize("kind", KINDS)
def test_tuples_hold_what_the_named_output_holds(kind: str) -> None:
    model = build(kind, is_decoder=kind == "ForCausalLM")
    given_labels = labels(kind) if kind != "Model" else {}
    wants = {"output_attentions": True, "output_hidden_states": True}
    named = model(**inputs(kind), **given_labels, **wants)
    plain = model(**inputs(kind), **given_labels, **wants, return_dict=False)
    assert isinstance(plain, tuple)
    near(plain, named.to_tuple(), 0.0)


def test_the_bare_model_s_tuple_keeps_the_place_of_a_missing_pooler() -> None:
    model = roberta.FlaxRobertaPreLayerNormModel(tiny_config(num_hidden_layers=2), add_pooling_layer=False)
    last, pooled = model(ids(3, 9), return_dict=False)
    assert last.shape == (3, 9, 32)
    assert pooled is None
    assert "pooler_output" not in model(ids(3, 9))
    assert "pooler" not in model.params


def test_both_or_neither_of_ids_and_embeddings_are_refused() -> None:
    with pytest.raises(ValueError, match="both input_ids and inputs_embeds"):
        build()(input_ids=ids(1, 3), inputs_embeds=jnp.zeros((1, 3, 32)))
    with pytest.raises(ValueError, match="neither input_ids nor inputs_embeds"):
        build("ForMultipleChoice")()
    with pytest.raises(TypeError, match="labels"):
        build()(ids(1, 3), labels=ids(1, 3))


def test_what_is_out_of_range_is_refused_with_value_and_limit() -> None:
    model = build()
    with pytest.raises(ValueError, match=r"input_ids holds 61, outside 0 … 60 \(vocab_size 61\)"):
        model(np.array([[5, 61]]))
    with pytest.raises(ValueError, match=r"token_type_ids holds 2, outside 0 … 1 \(type_vocab_size 2\)"):
        model(ids(1, 2), token_type_ids=np.array([[0, 2]]))
    with pytest.raises(ValueError, match=r"position_ids holds 40, outside 0 … 39 \(max_position_embeddings 40\)"):
        model(ids(1, 2), position_ids=np.array([[0, 40]]))
    with pytest.raises(ValueError, match=r"attention_mask has shape \(1, 1, 1, 4\); it must be"):
        model(ids(1, 4), attention_mask=np.ones((1, 1, 1, 4)))
    with pytest.raises(ValueError, match=r"head_mask has shape \(3,\); it must be \(4,\) or \(2, 4\)"):
        model(ids(1, 4), head_mask=np.ones(3))
    for arguments in ({"input_ids": ids(1, 39)}, {"inputs_embeds": jnp.zeros((1, 39, 32))}):
        with pytest.raises(ValueError, match=r"39 tokens, the model takes at most 38 .*max_length=38"):
            model(**arguments)


# Masks and padding


@pytest.mark.parametrize("kind", SEQUENCE_KINDS)
def test_padding_does_not_change_the_answers_of_real_tokens(kind: str) -> None:
    model = build(kind, is_decoder=kind == "ForCausalLM")
    whole = model(**inputs(kind))[0]
    alone = model(inputs(kind)["input_ids"][2:, :4])[0][0]
    near(whole[2] if kind == "ForSequenceClassification" else whole[2, :4], alone)


@settings(max_examples=5, deadline=None)
@given(st.permutations(range(3)), st.integers(0, 99), st.booleans())
def test_the_order_of_the_batch_never_matters(order: list[int], seed: int, is_decoder: bool) -> None:
    model, batch = build(is_decoder=is_decoder, use_cache=False), token_ids(3, 9, seed=seed)
    found = np.asarray(model(batch).last_hidden_state)
    near(np.asarray(model(batch[order]).last_hidden_state), found[order])


@pytest.mark.parametrize("maps", [True, False])
def test_a_row_that_sees_nothing_attends_to_all_keys_alike(maps: bool) -> None:
    model = build(is_decoder=True, use_cache=False)
    mask = np.tile([0, 0, 1, 1, 1, 1, 1, 1, 1], (3, 1))
    output = model(ids(3, 9), attention_mask=mask, output_attentions=maps)
    explicit = model(ids(3, 9), attention_mask=mask, output_attentions=True)
    near(output.last_hidden_state, explicit.last_hidden_state)
    near(explicit.attentions[0][0, :, 0], jnp.full((4, 9), 1 / 9), 1e-6)


def test_fractional_head_masks_weigh_the_maps_and_have_gradients() -> None:
    model = build()
    half = model(ids(3, 9), head_mask=np.full(4, 0.5), output_attentions=True).attentions[0]
    near(half.sum(-1), jnp.full((3, 4, 9), 0.5), 1e-6)
    gradient = jax.jit(jax.grad(lambda mask: model(ids(3, 9), head_mask=mask).pooler_output.sum()))(jnp.ones((2, 4)))
    assert (gradient != 0).all()


def test_a_shifted_input_keeps_its_variance_in_the_layer_norm() -> None:
    config = RobertaPreLayerNormConfig(layer_norm_eps=1e-12)
    values = np.random.default_rng(0).normal(size=(4, 64))
    normed, _ = layer_norm(config, jnp.float32).init_with_output(jax.random.PRNGKey(0), values + 1000.0)
    exact = (values - values.mean(-1, keepdims=True)) / values.std(-1, keepdims=True)
    # E[x²] - E[x]² in float32 is off by 0.4 here.
    near(normed, exact, SHIFTED_TOLERANCE)


# Decoder, cache and generation


@pytest.mark.parametrize("positions", ["absolute", "relative_key_query"])
@pytest.mark.parametrize("fixed", [True, False])
def test_cached_and_uncached_logits_agree(positions: str, fixed: bool) -> None:
    model = build("ForCausalLM", is_decoder=True, position_embedding_type=positions)
    batch = ids(3, 9)
    past: Any = model.init_cache(3, 12) if fixed else None
    step, pieces = jax.jit(model), []
    for piece in (batch[:, :8], batch[:, 8:]):
        output = step(piece, past_key_values=past)
        past = output.past_key_values
        pieces.append(output.logits)
    near(jnp.concatenate(pieces, axis=1), model(batch).logits)
    assert int(past.get_seq_length()) == 9
    if fixed:
        with pytest.raises(ValueError, match="the cache has 12 slots, 9 of them taken: no room for 9 more tokens"):
            model(batch, past_key_values=past)


@pytest.mark.parametrize("fixed", [True, False])
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_prompt_with_pads_goes_on_right_from_its_cache(side: str, fixed: bool) -> None:
    model = build("ForCausalLM", is_decoder=True)
    prompt, mask = padded_ids()
    if side == "left":
        prompt, mask = prompt[:, ::-1], mask[:, ::-1]
    following = ids(3, 1, seed=9)
    called = jax.jit(model)
    past = called(prompt, attention_mask=mask, past_key_values=model.init_cache(3, 14) if fixed else None)
    longer = np.concatenate((mask, np.ones((3, 1), np.int64)), axis=1)
    cached = called(following, attention_mask=longer, past_key_values=past.past_key_values).logits[:, 0]
    alone = np.concatenate((prompt[2][mask[2] == 1], following[2]))[None]
    near(cached[2], called(alone).logits[0, -1])


def test_embeddings_with_a_cache_count_the_past() -> None:
    model, batch = build(is_decoder=True), ids(3, 9)
    embeds = model.get_input_embeddings()[batch]
    called = jax.jit(model)
    past = called(inputs_embeds=embeds[:, :8]).past_key_values
    stepped = called(inputs_embeds=embeds[:, 8:], past_key_values=past).last_hidden_state
    near(stepped, model(batch).last_hidden_state[:, 8:])


@pytest.mark.parametrize("cross", [True, False])
def test_a_cache_as_tuples_goes_on_with_a_warning(cross: bool) -> None:
    model = build("ForCausalLM", is_decoder=True, add_cross_attention=cross)
    states = {"encoder_hidden_states": np.random.default_rng(0).normal(size=(3, 5, 32))} if cross else {}
    batch = ids(3, 9)
    called = jax.jit(model)
    past = called(batch[:, :8], **states).past_key_values
    legacy = past.to_legacy_cache()
    assert len(legacy[0]) == (4 if cross else 2)
    if not cross:
        legacy = tuple((*layer, None, None) for layer in legacy)
    with pytest.warns(UserWarning, match="tuple of tuples"):
        stepped = called(batch[:, 8:], past_key_values=legacy, **states).logits
    near(stepped, model(batch, **states).logits[:, 8:])
    # The encoder's states are in the cache, so they need not be given again.
    near(called(batch[:, 8:], past_key_values=past).logits, stepped)


def test_maps_without_encoder_states_have_no_cross_attentions() -> None:
    output = build(is_decoder=True, add_cross_attention=True)(ids(3, 9), output_attentions=True)
    assert output.cross_attentions is None
    assert len(output.attentions) == 2


def test_an_encoder_keeps_no_cache_and_a_decoder_only_if_asked() -> None:
    assert build()(ids(3, 9), use_cache=True).past_key_values is None
    past = build(is_decoder=True)(ids(3, 9)).past_key_values
    assert build(is_decoder=True)(ids(3, 9), use_cache=False).past_key_values is None
    assert past.reorder(jnp.array([0, 0])).layers[0].self_key.shape[0] == 2


@pytest.mark.parametrize("side", ["left", "right"])
def test_generation_takes_the_forward_pass_s_best_token_each_time(side: str) -> None:
    model = build("ForCausalLM", is_decoder=True)
    prompt, _ = padded_ids()
    if side == "left":
        prompt = prompt[:, ::-1]
    found = np.asarray(model.generate(prompt, max_new_tokens=4, eos_token_id=-1))
    assert found.shape == (3, 13)
    assert (found[:, :9] == prompt).all()
    assert (model.generate(prompt, max_new_tokens=4, eos_token_id=-1, use_cache=False) == found).all()
    # The whole text at once: every generated token is the best one after those before it.
    text = np.concatenate((prompt[2][prompt[2] != 1], found[2, 9:]))
    best = jax.jit(model)(text[None]).logits[0].argmax(-1)
    assert (best[3:-1] == found[2, 9:]).all()


def test_generation_ends_a_row_at_its_end_token_and_refuses_what_is_too_long() -> None:
    model = build("ForCausalLM", is_decoder=True)
    prompt = ids(3, 9)
    free = model.generate(prompt, max_new_tokens=4, eos_token_id=-1)
    ended = model.generate(prompt, max_new_tokens=4, eos_token_id=int(free[0, 9]))
    assert ended[0, 9] == free[0, 9]
    assert (ended[0, 10:] == 1).all()
    with pytest.raises(ValueError, match="a sequence has 42 tokens, the model takes at most 38"):
        model.generate(ids(1, 3), max_new_tokens=40)


# Losses


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("Model", "ForQuestionAnswering")])
def test_every_integer_type_is_a_class_label(kind: str) -> None:
    model, given_labels = build(kind), labels(kind)["labels"]
    loss = model(**inputs(kind), labels=given_labels).loss
    assert loss.shape == ()
    for dtype in (np.int8, np.uint8, np.int32):
        near(model(**inputs(kind), labels=given_labels.astype(dtype)).loss, loss, 0.0)


def test_the_kind_of_loss_is_decided_by_each_batch() -> None:
    model = build("ForSequenceClassification", num_labels=3)
    single = model(**inputs(""), labels=np.array([0, 1, 2]))
    near(single.loss, -np.asarray(jax.nn.log_softmax(single.logits))[range(3), range(3)].mean())
    many = np.array([[0.0, 1, 1], [1, 0, 0], [0, 0, 0]], np.float32)
    multiple = model(**inputs(""), labels=many)
    prob = jax.nn.sigmoid(multiple.logits)
    near(multiple.loss, -(many * jnp.log(prob) + (1 - many) * jnp.log(1 - prob)).mean())
    assert model.config.problem_type is None


def test_labels_out_of_range_are_refused_and_ignored_ones_not() -> None:
    model = build("ForTokenClassification", num_labels=2)
    with pytest.raises(ValueError, match=r"labels hold 2, outside 0 … 1 \(-100 is ignored\)"):
        model(ids(3, 9), labels=np.full((3, 9), 2))
    with pytest.raises(ValueError, match="labels hold -1"):
        model(ids(3, 9), labels=np.full((3, 9), -1))
    assert math.isnan(model(ids(3, 9), labels=np.full((3, 9), -100)).loss.item())


def test_answer_positions_beyond_the_text_are_ignored_and_may_have_an_extra_axis() -> None:
    model = build("ForQuestionAnswering")
    output = model(ids(3, 9), start_positions=np.array([[1], [99], [-5]]), end_positions=np.array([[2], [9], [-1]]))
    start, end = (np.asarray(jax.nn.log_softmax(output[side])) for side in ("start_logits", "end_logits"))
    near(output.loss, -(start[0, 1] + start[2, 0] + end[0, 2] + end[2, 0]) / 4)
    assert model(ids(3, 9), start_positions=np.array([1, 1, 1])).loss is None
    with pytest.raises(ValueError, match="question answering needs num_labels=2"):
        build("ForQuestionAnswering", num_labels=3)


def test_a_causal_loss_can_be_a_sum_over_a_given_number() -> None:
    model, batch = build("ForCausalLM", is_decoder=True), ids(3, 9)
    near(model(batch, labels=batch, num_items_in_batch=12).loss, 2 * model(batch, labels=batch).loss)


# Parameters, jit, grad, vmap, types


def test_parameters_are_given_to_the_call_or_kept_by_the_model() -> None:
    model, batch = build(), ids(3, 9)
    bare = roberta.FlaxRobertaPreLayerNormModel(model.config, _do_init=False)
    with pytest.raises(ValueError, match="made with _do_init=False and keeps no parameters"):
        bare(batch)
    near(bare(batch, params=model.params), model(batch), 0.0)
    near(bare.init_weights(jax.random.PRNGKey(11)), model.params, 0.0)
    near(model.module.apply({"params": model.params}, batch), model(batch), 0.0)
    with pytest.raises(ValueError, match="params lack 'LayerNorm/bias'"):
        bare.params = {"pooler": model.params["pooler"]}


def test_jit_and_vmap_answer_as_the_call_does() -> None:
    model, batch = build("ForCausalLM", is_decoder=True), ids(3, 9)
    called = jax.jit(lambda params, batch: model(batch, params=params, output_attentions=True))
    near(called(model.params, batch), model(batch, output_attentions=True))
    rows = jax.vmap(lambda row: model(row[None], use_cache=False).logits[0])(batch)
    near(rows, model(batch).logits)


def test_checkpointed_gradients_are_the_same() -> None:
    model = fresh("ForCausalLM", is_decoder=True, num_hidden_layers=1)
    rng = jax.random.PRNGKey(3)

    def loss(params: Any) -> Any:
        return model(ids(3, 9), labels=ids(3, 9), params=params, dropout_rng=rng, train=True)[0]

    plain = jax.jit(jax.grad(loss))(model.params)
    model.gradient_checkpointing_enable()
    # A function of its own: jit keeps what it compiled of a function.
    near(jax.jit(jax.grad(lambda params: loss(params)))(model.params), plain, 1e-4)
    traced = jax.eval_shape(lambda batch: model(batch, train=True, dropout_rng=rng), ids(3, 9))
    assert traced.past_key_values is None
    model.gradient_checkpointing_disable()
    assert not model.is_gradient_checkpointing


def test_dropout_follows_its_key_and_is_drawn_per_element() -> None:
    model, batch = build(attention_probs_dropout_prob=0.5), ids(3, 9)
    with pytest.raises(ValueError, match="train=True needs dropout_rng"):
        model(batch, train=True)
    rng = jax.random.PRNGKey(1)
    first = model(batch, train=True, dropout_rng=rng, output_attentions=True)
    near(model(batch, train=True, dropout_rng=rng).last_hidden_state, first.last_hidden_state)
    other = model(batch, train=True, dropout_rng=jax.random.PRNGKey(2)).last_hidden_state
    assert not np.array_equal(other, first.last_hidden_state)
    dropped = np.asarray(first.attentions[0]) == 0
    assert (dropped[0] != dropped[1]).any()
    assert (dropped[:, 0] != dropped[:, 1]).any()


def test_parameters_start_as_the_reference_s() -> None:
    model = fresh("ForMaskedLM", initializer_range=0.02, hidden_size=64)
    words = model.get_input_embeddings()
    assert (words[1] == 0).all()
    assert (model.params["roberta_prelayernorm"]["embeddings"]["position_embeddings"]["embedding"][1] == 0).all()
    assert abs(float(words[2:].std()) - 0.02) < 0.002
    assert (model.params["lm_head"]["bias"] == 0).all()
    assert (model.params["lm_head"]["layer_norm"]["scale"] == 1).all()


@pytest.mark.parametrize("name", ["bfloat16", "float16"])
def test_the_computation_s_type_is_chosen_and_parameters_stay(name: str) -> None:
    model = fresh("ForCausalLM", is_decoder=True)
    half = roberta.FlaxRobertaPreLayerNormForCausalLM(model.config, seed=11, dtype=name)
    output = jax.jit(half)(ids(3, 9), labels=ids(3, 9))
    assert output.logits.dtype == name
    assert output.loss.dtype == jnp.float32
    assert {leaf.dtype.name for leaf in jax.tree.leaves(half.params)} == {"float32"}
    cast = half.to_bf16(half.params) if name == "bfloat16" else half.to_fp16(half.params)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(cast)} == {name}
    assert {leaf.dtype.name for leaf in jax.tree.leaves(half.to_fp32(cast))} == {"float32"}


# Surgery


@pytest.mark.parametrize("tied", [True, False])
def test_a_resized_vocabulary_keeps_the_old_words(tied: bool) -> None:
    model, batch = fresh("ForMaskedLM", tie_word_embeddings=tied), ids(3, 9)
    before = model(batch).logits
    table = model.resize_token_embeddings(70)
    assert (table.shape, model.config.vocab_size, model.params["lm_head"]["bias"].shape) == ((70, 32), 70, (70,))
    assert (model.get_output_embeddings() is model.get_input_embeddings()) == tied
    near(model(batch).logits[..., :61], before)
    assert model.resize_token_embeddings(pad_to_multiple_of=64).shape == (128, 32)
    model.resize_token_embeddings(61)
    near(model(batch).logits, before)


def test_embeddings_can_be_put_in_place() -> None:
    tied, untied = fresh("ForMaskedLM"), fresh("ForMaskedLM", tie_word_embeddings=False)
    table = jnp.ones((61, 32))
    tied.set_input_embeddings(table)
    assert (tied.get_output_embeddings() == 1).all()
    untied.set_output_embeddings(table)
    assert (untied.params["lm_head"]["decoder"]["kernel"] == 1).all()
    assert build("ForTokenClassification").get_output_embeddings() is None
    with pytest.raises(ValueError, match="has no decoder of its own; call set_input_embeddings"):
        tied.set_output_embeddings(table)
    with pytest.raises(ValueError, match=r"'embeddings/word_embeddings/embedding' is \(61, 32\), \(9, 32\) was given"):
        fresh().set_input_embeddings(jnp.ones((9, 32)))


def test_pruned_heads_answer_as_masked_ones_and_are_remembered(tmp_path: Any) -> None:
    model, batch = fresh("ForTokenClassification"), ids(3, 9)
    mask = np.ones((2, 4))
    mask[0, [1, 2]] = mask[1, 0] = 0
    masked = model(batch, head_mask=mask).logits
    model.prune_heads({0: [1], 1: [0]})
    model.prune_heads({0: [2]})
    assert model.config.pruned_heads == {0: [1, 2], 1: [0]}
    near(model(batch).logits, masked)
    model.save_pretrained(str(tmp_path))
    near(type(model).from_pretrained(str(tmp_path))(batch).logits, masked)
    with pytest.raises(ValueError, match="layer 0 would keep no head"):
        model.prune_heads({0: [0, 3]})
