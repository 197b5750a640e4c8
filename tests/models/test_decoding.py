"""Caches and prompts: the classes of every framework answer from them as if they saw all tokens at once, and generate."""

from typing import Any

import numpy as np
import pytest

from tests.models.frameworks import Classes, each, each_with
from tests.models.tiny import encoder_states, near, padded_ids, token_ids

POSITIONS = ("absolute", "relative_key", "relative_key_query")


def decoder(framework: Classes, kind: str = "ForCausalLM", **overrides: Any) -> Any:
    return framework.kept(kind, is_decoder=True, **overrides)


def caches(framework: Classes, model: Any) -> list[Any]:
    """Nothing, and in Flax also an empty cache of a fixed size."""
    return [None, model.init_cache(3, 14)] if framework.name == "flax" else [None]


@each_with(
    "positions, steps",
    [(positions, steps) for positions in POSITIONS for steps in (1, 3)],
    slow={"flax": lambda positions, steps: positions == "relative_key" or steps == 1},
)
def test_cached_and_uncached_logits_agree(framework: Classes, positions: str, steps: int) -> None:
    model, batch = decoder(framework, position_embedding_type=positions), token_ids(3, 9)
    call = framework.program(model)
    whole = call(batch).logits
    for past in caches(framework, model):
        pieces = []
        for piece in (batch[:, :6], *np.split(batch[:, 6:], 3 // steps, axis=1)):
            output = call(piece, past_key_values=past)
            past = output.past_key_values
            pieces.append(output.logits)
        near(np.concatenate(pieces, axis=1), whole)
        assert int(past.get_seq_length()) == 9


@each("flax")
def test_a_cache_of_a_fixed_size_refuses_what_it_has_no_room_for(framework: Classes) -> None:
    model, batch = decoder(framework), token_ids(3, 9)
    past = framework.program(model)(batch, past_key_values=model.init_cache(3, 14)).past_key_values
    with pytest.raises(ValueError, match="the cache has 14 slots, 9 of them taken: no room for 9 more tokens"):
        model(batch, past_key_values=past)


@each_with("side", ["left", "right"])
def test_a_prompt_with_pads_goes_on_right_from_its_cache(framework: Classes, side: str) -> None:
    model = decoder(framework)
    call = framework.program(model)
    prompt, mask = padded_ids()
    if side == "left":
        prompt, mask = prompt[:, ::-1], mask[:, ::-1]
    following = token_ids(3, 1, seed=9)
    longer = np.concatenate((mask, np.ones((3, 1), np.int64)), axis=1)
    for cache in caches(framework, model):
        past = call(prompt, attention_mask=mask, past_key_values=cache).past_key_values
        cached = call(following, attention_mask=longer, past_key_values=past).logits[:, 0]
        # JAX compiles each length anew: the row with most pads.
        for row in (2,) if framework.name == "flax" else range(3):
            alone = np.concatenate((prompt[row][mask[row] == 1], following[row]))[None]
            near(cached[row], call(alone).logits[0, -1])


@each()
def test_embeddings_with_a_cache_count_the_past(framework: Classes) -> None:
    model, batch = decoder(framework, "Model"), token_ids(3, 9)
    embeds, call = framework.embedded(model, batch), framework.program(model)
    past = call(inputs_embeds=embeds[:, :6]).past_key_values
    stepped = call(inputs_embeds=embeds[:, 6:], past_key_values=past).last_hidden_state
    near(stepped, call(batch).last_hidden_state[:, 6:])


@each_with("cross", [True, False])
def test_a_cache_as_tuples_goes_on_with_a_warning(framework: Classes, cross: bool) -> None:
    call = framework.program(decoder(framework, add_cross_attention=cross))
    states, batch = {"encoder_hidden_states": encoder_states()} if cross else {}, token_ids(3, 9)
    legacy = call(batch[:, :6], **states).past_key_values.to_legacy_cache()
    assert len(legacy[0]) == (4 if cross else 2)
    if not cross:
        legacy = tuple((*layer, None, None) for layer in legacy)
    with pytest.warns(UserWarning, match="tuple of tuples"):
        stepped = call(batch[:, 6:], past_key_values=legacy, **states).logits
    near(stepped, call(batch, **states).logits[:, 6:])


@each()
def test_cross_attention_goes_on_from_the_cache_alone(framework: Classes) -> None:
    call = framework.program(decoder(framework, add_cross_attention=True))
    states, batch = encoder_states(), token_ids(3, 9)
    past = call(batch[:, :6], encoder_hidden_states=states).past_key_values
    found = call(batch[:, 6:], past_key_values=past).logits
    near(found, call(batch, encoder_hidden_states=states).logits[:, 6:])


@each()
def test_maps_without_encoder_states_have_no_cross_attentions(framework: Classes) -> None:
    model = decoder(framework, "Model", add_cross_attention=True)
    output = framework.call(model, token_ids(3, 9), output_attentions=True)
    assert output.cross_attentions is None
    assert len(output.attentions) == 2


@each()
def test_an_encoder_keeps_no_cache_and_a_decoder_only_if_asked(framework: Classes) -> None:
    encoder, ids = framework.kept(), token_ids(3, 9)
    assert framework.call(encoder, ids, use_cache=True).past_key_values is None
    assert framework.call(decoder(framework, "Model"), ids).past_key_values is not None
    assert framework.call(decoder(framework, "Model"), ids, use_cache=False).past_key_values is None


@each()
def test_a_step_does_not_change_the_cache_it_was_given(framework: Classes) -> None:
    call, ids = framework.program(decoder(framework, "Model")), token_ids(3, 9)
    past = call(ids[:, :6]).past_key_values
    first = call(ids[:, 6:], past_key_values=past).last_hidden_state
    near(call(ids[:, 6:], past_key_values=past).last_hidden_state, first, 0.0)
    assert int(past.get_seq_length()) == 6
    assert past.reorder(framework.array(np.array([0, 0]))).layers[0].self_key.shape[0] == 2


@each_with(
    "side, use_cache",
    [(side, use_cache) for side in ("none", "left", "right") for use_cache in (True, False)],
    slow={
        "tensorflow": lambda side, use_cache: side == "none" or (side, use_cache) == ("right", False),
        "flax": lambda side, use_cache: side == "none",
    },
)
def test_generation_takes_the_forward_pass_s_best_token_each_time(
    framework: Classes, side: str, use_cache: bool
) -> None:
    model = decoder(framework)
    prompt = token_ids(3, 9) if side == "none" else padded_ids()[0]
    if side == "left":
        prompt = prompt[:, ::-1]
    found = np.asarray(model.generate(framework.array(prompt), max_new_tokens=4, eos_token_id=-1, use_cache=use_cache))
    assert found.shape == (3, 13)
    assert (found[:, :9] == prompt).all()
    for row in range(3):
        # The whole text at once: every generated token is the best one after those before it.
        text = np.concatenate((prompt[row][prompt[row] != 1], found[row, 9:]))
        best = np.asarray(framework.program(model)(text[None]).logits)[0].argmax(-1)
        assert (best[-5:-1] == found[row, 9:]).all()


@each()
def test_generation_ends_a_row_at_its_end_token_and_pads_it(framework: Classes) -> None:
    model, prompt = decoder(framework), token_ids(3, 9)
    prompts = framework.array(prompt)
    free = np.asarray(model.generate(prompts, max_new_tokens=4, eos_token_id=-1))
    ended = np.asarray(model.generate(prompts, max_new_tokens=4, eos_token_id=int(free[0, 9])))
    assert ended[0, 9] == free[0, 9]
    assert (ended[0, 10:] == 1).all()


@each()
def test_generation_beyond_the_model_is_refused_before_it_begins(framework: Classes) -> None:
    model = decoder(framework)
    with pytest.raises(ValueError, match="a sequence has 42 tokens, the model takes at most 38"):
        model.generate(framework.array(token_ids(1, 3)), max_new_tokens=40)
    with pytest.raises(ValueError, match="nothing to generate"):
        model.generate(framework.array(token_ids(1, 30)))


class GenerationConfig:
    """What a GenerationConfig of transformers looks like from outside."""

    def __init__(self, **fields: Any) -> None:
        self.__dict__ |= {
            "max_length": 20,
            "do_sample": False,
            "num_beams": 1,
            "temperature": 0.7,
            "_secret": 1,
            **fields,
        }

    def to_dict(self) -> dict[str, Any]:
        """All of it."""
        return dict(self.__dict__)


@each()
def test_generation_takes_the_reference_s_keywords_and_configs(framework: Classes) -> None:
    model, prompt = decoder(framework), framework.array(token_ids(3, 9))
    plain = np.asarray(model.generate(prompt, max_new_tokens=4, eos_token_id=-1))
    config = GenerationConfig(max_new_tokens=4, eos_token_id=[-1], top_k=5)
    for options in (
        {
            "do_sample": False,
            "num_beams": 1,
            "max_new_tokens": 4,
            "eos_token_id": -1,
            "top_p": 0.9,
            "early_stopping": True,
        },
        {"generation_config": config},
        {"generation_config": config, "max_new_tokens": 4, "repetition_penalty": 1.0, "logits_processor": []},
        {"generation_config": {"max_length": 13, "eos_token_id": -1}, "return_dict_in_generate": False},
    ):
        assert (np.asarray(model.generate(prompt, **options)) == plain).all()
    assert (np.asarray(model.generate(inputs=prompt, generation_config=config)) == plain).all()
    assert np.asarray(model.generate(prompt, generation_config=config, max_new_tokens=1)).shape == (3, 10)


@each()
def test_what_greedy_generation_can_t_do_is_refused_by_name(framework: Classes) -> None:
    model, prompt = decoder(framework), framework.array(token_ids(3, 9))
    for name, value in (
        ("do_sample", True),
        ("num_beams", 4),
        ("num_return_sequences", 2),
        ("repetition_penalty", 1.2),
    ):
        with pytest.raises(ValueError, match=rf"generate\({name}={value}\) is not supported: it"):
            model.generate(prompt, **{name: value})
        with pytest.raises(ValueError, match=rf"generate\({name}={value}\)"):
            model.generate(prompt, generation_config=GenerationConfig(**{name: value}))
    with pytest.raises(ValueError, match="stopping_criteria"):
        model.generate(prompt, stopping_criteria=[len])
    with pytest.raises(TypeError, match="knows no argument 'max_new_token'"):
        model.generate(prompt, max_new_token=3)
    with pytest.raises(ValueError, match="needs input_ids"):
        model.generate(max_new_tokens=3)
