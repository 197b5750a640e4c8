"""The flat path answers as the padded classes do in every framework: one model, two ways in."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.boundary import Ask, Head, Tokens
from models.checkpoint import Checkpoint
from models.checkpoint_writer import write_checkpoint
from models.checks import ACTIVATIONS
from models.tensors import PREFIX
from tests.models.flat import HALF_TOLERANCE, both, everywhere, hidden, pack, rows, saved, seen_by
from tests.models.frameworks import Classes, each, each_with
from tests.models.tiny import near, tiny_config

GPU_TOLERANCE = {"torch": 1e-3, "tensorflow": 5e-3}
"""In float32, which a GPU sums in another order; TensorFlow's has not been measured, so it is wide."""


def softmax(logits: Any) -> np.ndarray:
    powers = np.exp(np.asarray(logits, np.float64))
    whole: np.ndarray = powers / powers.sum(-1, keepdims=True)
    return whole


def is_slow_encoder(positions: str, is_decoder: bool) -> bool:
    """Distances and causal masks are not seen together where they are in different parts of the code."""
    return (positions, is_decoder) not in (("absolute", False), ("absolute", True), ("relative_key_query", False))


@each_with(
    "positions, is_decoder",
    [
        (positions, causal)
        for positions in ("absolute", "relative_key", "relative_key_query")
        for causal in (False, True)
    ],
    slow=dict.fromkeys(("tensorflow", "flax"), is_slow_encoder),
)
def test_hidden_states_are_those_of_each_sequence_alone(framework: Classes, positions: str, is_decoder: bool) -> None:
    model, flat = both(framework, "encoder", position_embedding_type=positions, is_decoder=is_decoder)
    tokens = pack(causal=is_decoder)
    asked = everywhere(tokens)
    near(hidden(flat, tokens, asked), seen_by(framework, model, tokens)["last_hidden_state"][asked])


@each_with("examples", [10], slow={"tensorflow": lambda _: True, "flax": lambda _: True})
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(st.integers(1, 20), min_size=1, max_size=6),
    heads=st.sampled_from([1, 2, 4]),
    layers=st.integers(0, 3),
    act=st.sampled_from(ACTIVATIONS),
    pad=st.integers(0, 3),
)
def test_any_config_and_any_pack_answers_as_each_sequence_alone(
    framework: Classes, examples: int, lengths: list[int], heads: int, layers: int, act: str, pad: int, tmp_path: Path
) -> None:
    sizes = {"num_attention_heads": heads, "num_hidden_layers": layers, "hidden_act": act, "pad_token_id": pad}
    model, tokens = saved(framework, "encoder", tmp_path, **sizes), pack([21, *lengths])
    near(hidden(framework.flat(tmp_path, "encoder"), tokens), seen_by(framework, model, tokens)["last_hidden_state"])


@each()
def test_a_head_s_folder_beside_its_encoder_s_loads(framework: Classes, tmp_path: Path) -> None:
    model = saved(framework, "token-classification", tmp_path / "whole", num_labels=4)
    tensors = dict(Checkpoint.open(str(tmp_path / "whole")).stream())
    for name, wanted in (("base", True), ("ner", False)):
        config = tiny_config(num_labels=4, **({} if wanted else {"base_model_name_or_path": "base"}))
        part = {key: array for key, array in tensors.items() if key.startswith(PREFIX) == wanted}
        write_checkpoint(url=str(tmp_path / name), config=config, tensors=part)
    tokens, asked = pack(), np.array([3, 1], np.int32)
    flat = framework.flat(tmp_path / "ner", "token-classification")
    found = flat(tokens, {"token-classification": Ask(asked)})["token-classification"]["logits"]
    near(found, seen_by(framework, model, tokens)["logits"][asked])


@each_with("head", ["sequence-classification", "multiple-choice"])
def test_a_head_on_the_first_token_answers_as_its_class(framework: Classes, head: Head) -> None:
    model, flat = both(framework, head, num_labels=3)
    tokens = pack()
    found = flat(tokens, {head: Ask(tokens.cu_seqlens[:-1])})
    near(found[head]["logits"], seen_by(framework, model, tokens)["logits"])


@each()
def test_token_and_span_heads_answer_as_their_classes(framework: Classes) -> None:
    tokens = pack()
    asked = everywhere(tokens)
    model, flat = both(framework, "token-classification", num_labels=5)
    found = flat(tokens, {"token-classification": Ask(asked)})["token-classification"]["logits"]
    near(found, seen_by(framework, model, tokens)["logits"][asked])

    model, flat = both(framework, "question-answering")
    answers = flat(tokens, {"question-answering": Ask(asked)})["question-answering"]
    whole = seen_by(framework, model, tokens)
    for side in ("start_logits", "end_logits"):
        near(answers[side], whole[side][asked])


@each()
def test_mask_answers_are_the_largest_of_the_whole_vocabulary_s_softmax(framework: Classes) -> None:
    model, flat = both(framework, "masked-lm")
    tokens, asked = pack(), np.array([33, 2, 40], np.int32)
    whole = softmax(seen_by(framework, model, tokens)["logits"][asked])
    best = flat(tokens, {"masked-lm": Ask(asked, top_k=4)})["masked-lm"]
    assert best["ids"].dtype == np.int32
    assert (best["ids"] == np.argsort(-whole, axis=-1)[:, :4]).all()
    near(best["probs"], -np.sort(-whole, axis=-1)[:, :4])

    candidates = np.array([50, 3, 17], np.int32)
    ranked = flat(tokens, {"masked-lm": Ask(asked, candidates_K=candidates)})["masked-lm"]
    order = np.argsort(-whole[:, candidates], axis=-1)
    assert (ranked["ids"] == candidates[order]).all()
    near(ranked["probs"], np.take_along_axis(whole[:, candidates], order, axis=-1))


LANGUAGE_HEADS: list[Head] = ["masked-lm", "causal-lm"]


@each_with(
    "head, tied, torchscript",
    [(head, *how) for head in LANGUAGE_HEADS for how in ((True, False), (False, False), (True, True))],
    slow=dict.fromkeys(("tensorflow", "flax"), lambda head, tied, torchscript: tied == (head == "causal-lm")),
    but=dict.fromkeys(("tensorflow", "flax"), lambda head, tied, torchscript: torchscript),
)
def test_gold_ids_are_answered_by_their_log_probability(
    framework: Classes, head: Head, tied: bool, torchscript: bool
) -> None:
    causal = head == "causal-lm"
    model, flat = both(framework, head, is_decoder=causal, tie_word_embeddings=tied, torchscript=torchscript)
    tokens = pack(causal=causal)
    asked, gold = np.array([12, 0, 44], np.int32), np.array([60, 5, 1], np.int32)
    expected = np.log(softmax(seen_by(framework, model, tokens)["logits"][asked]))[range(3), gold]
    near(flat(tokens, {head: Ask(asked, gold_G=gold)})[head]["log_probs"], expected)


@each()
def test_the_mean_is_over_each_sequence_s_asked_positions(framework: Classes) -> None:
    model, flat = both(framework, "encoder", position_embedding_type="absolute", is_decoder=False)
    tokens = pack()
    asked = np.concatenate([np.arange(row.start, row.stop, 2) for row in rows(tokens)]).astype(np.int32)
    found = flat(tokens, {"encoder": Ask(asked, reduce="mean")})["encoder"]["hidden"]
    whole = seen_by(framework, model, tokens)["last_hidden_state"]
    near(found, [whole[row][::2].mean(0) for row in rows(tokens)])


@each()
def test_several_heads_share_one_encoder_pass(framework: Classes, tmp_path: Path) -> None:
    model = saved(framework, "masked-lm", tmp_path)
    flat = framework.flat(tmp_path, "encoder", "masked-lm")
    tokens, asked = pack(), np.array([0], np.int32)
    assert set(flat(tokens, {"encoder": Ask(asked), "masked-lm": Ask(asked, top_k=1)})) == {"encoder", "masked-lm"}
    if framework.name == "flax":
        import jax

        trees = [flat.params, *(head.params for head in flat.heads.values())]
        assert sum({id(leaf): leaf.size for leaf in jax.tree.leaves(trees)}.values()) == model.num_parameters()
    else:
        assert flat.heads["encoder"].base_model is flat.heads["masked-lm"].base_model is flat.base
        assert flat.heads["masked-lm"].lm_head.decoder.weight is flat.base.get_input_embeddings().weight


@each_with("dtype", ["bfloat16", "float16"], slow={"tensorflow": lambda dtype: dtype == "float16"})
def test_half_precision_answers_in_float32_near_the_full_one(framework: Classes, dtype: str, tmp_path: Path) -> None:
    head: Head = "sequence-classification"
    model, tokens = saved(framework, head, tmp_path, initializer_range=0.1), pack()
    found = framework.flat(tmp_path, head, dtype=dtype)(tokens, {head: Ask(tokens.cu_seqlens[:-1])})[head]["logits"]
    assert found.dtype == np.float32
    near(found, seen_by(framework, model, tokens)["logits"], HALF_TOLERANCE)


@each()
def test_what_can_t_be_answered_is_refused_with_the_reason(framework: Classes) -> None:
    _, flat = both(framework, "masked-lm")
    tokens, asked = pack(), np.array([0], np.int32)
    ask = Ask(asked, top_k=1)
    long = Tokens(np.full(39, 5, np.int32), np.array([0, 39], np.int32))
    for match, question in {
        "head 'encoder' is not loaded; this model has masked-lm": (tokens, {"encoder": Ask(asked)}),
        "give top_k, candidates_K or gold_G": (tokens, {"masked-lm": Ask(asked)}),
        "positions_G holds 999": (tokens, {"masked-lm": Ask(np.array([999], np.int32), top_k=1)}),
        "a sequence has 39 tokens, the model takes at most 38": (long, {"masked-lm": ask}),
        r"input_ids holds 61, outside 0 … 60 \(vocab_size 61\)": (
            Tokens(np.array([61], np.int32), np.array([0, 1], np.int32)),
            {"masked-lm": ask},
        ),
    }.items():
        with pytest.raises(ValueError, match=match):
            flat(*question)


@each()
def test_no_positions_asked_gives_empty_answers(framework: Classes) -> None:
    _, flat = both(framework, "masked-lm")
    answers = flat(pack(), {"masked-lm": Ask(np.empty(0, np.int32), top_k=3)})["masked-lm"]
    assert (answers["ids"].shape, answers["probs"].shape) == ((0, 3), (0, 3))


@pytest.mark.gpu
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@each("torch", "tensorflow")
def test_a_gpu_answers_as_the_cpu(framework: Classes, dtype: str, causal: bool, tmp_path: Path) -> None:
    saved(framework, "encoder", tmp_path, is_decoder=causal, initializer_range=0.1)
    tokens = pack(causal=causal)
    asked = everywhere(tokens)
    flat = framework.flat(tmp_path, "encoder", device="cuda", dtype=dtype)
    assert framework.name != "torch" or flat.varlen == (dtype != "float32")
    tolerance = GPU_TOLERANCE[framework.name] if dtype == "float32" else HALF_TOLERANCE
    near(hidden(flat, tokens, asked), hidden(framework.flat(tmp_path, "encoder"), tokens, asked), tolerance)
