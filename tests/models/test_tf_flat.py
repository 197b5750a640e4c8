"""The flat path answers as the padded classes do: one model, two ways in."""

import functools
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

if importlib.util.find_spec("tensorflow") is None:
    pytest.skip("tensorflow is not installed", allow_module_level=True)

import keras
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import models.roberta_tf as roberta
from models.boundary import Ask, Head, Tokens
from models.checkpoint import Checkpoint
from models.checkpoint_writer import write_checkpoint
from models.checks import ACTIVATIONS
from models.config import RobertaPreLayerNormConfig
from models.load import load
from models.tensors import PREFIX

pytestmark = pytest.mark.tensorflow

FLAT_TOLERANCE = 2e-5  # float32, the same sums in another order
GPU_TOLERANCE = 5e-3  # TensorFlow lets a GPU multiply float32 in TF32, 10 bits of mantissa
HALF_TOLERANCE = 0.05  # bfloat16 has 8 bits of mantissa
ON_CPU: Any = {"framework": "tensorflow", "device": "cpu"}
LENGTHS = (5, 9, 2, 9, 30, 5, 1)
CLASSES: dict[str, str] = {
    "encoder": "TFRobertaPreLayerNormModel",
    "masked-lm": "TFRobertaPreLayerNormForMaskedLM",
    "causal-lm": "TFRobertaPreLayerNormForCausalLM",
    "sequence-classification": "TFRobertaPreLayerNormForSequenceClassification",
    "multiple-choice": "TFRobertaPreLayerNormForMultipleChoice",
    "token-classification": "TFRobertaPreLayerNormForTokenClassification",
    "question-answering": "TFRobertaPreLayerNormForQuestionAnswering",
}


def config(**overrides: Any) -> RobertaPreLayerNormConfig:
    sizes: dict[str, Any] = {
        "vocab_size": 61,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "max_position_embeddings": 40,
        "initializer_range": 0.4,
        "layer_norm_eps": 1e-5,
    }
    return RobertaPreLayerNormConfig(**{**sizes, **overrides})


def saved(head: Head, folder: Path | str, **overrides: Any) -> Any:
    keras.utils.set_random_seed(7)
    model = getattr(roberta, CLASSES[head])(config(**overrides))
    model.save_pretrained(str(folder))
    return model


@functools.cache
def both(head: Head, **overrides: Any) -> tuple[Any, Any]:
    """(the padded class, the flat model of its checkpoint), for all tests that do not change them."""
    folder = f"memory://tf-flat/{head}-{'-'.join(f'{name}={value}' for name, value in overrides.items())}"
    model = saved(head, folder, **overrides)
    return model, load(checkpoint=folder, heads=[head], **ON_CPU)


def pack(lengths: Sequence[int] = LENGTHS, *, causal: bool = False) -> Tokens:
    """Random sequences, `<pad>` typed in the text among them."""
    draw = np.random.default_rng(3)
    ids = draw.integers(0, 61, sum(lengths)).astype(np.int32)
    ids[7] = ids[20] = 1
    types = draw.integers(0, 2, sum(lengths)).astype(np.int32)
    return Tokens(ids, np.concatenate(([0], np.cumsum(lengths))).astype(np.int32), types, causal)


def rows(tokens: Tokens) -> list[slice]:
    return [slice(a, b) for a, b in zip(tokens.cu_seqlens[:-1], tokens.cu_seqlens[1:], strict=True)]


def alone(model: Any, tokens: Tokens) -> list[Any]:
    """The padded class on each sequence by itself."""
    assert tokens.token_type_ids_T is not None
    outputs = []
    for row in rows(tokens):
        ids = tokens.input_ids_T[row][None]
        types = tokens.token_type_ids_T[row][None]
        if isinstance(model, roberta.TFRobertaPreLayerNormForMultipleChoice):
            ids, types = ids[None], types[None]
        outputs.append(model(input_ids=ids, token_type_ids=types))
    return outputs


def everywhere(tokens: Tokens) -> np.ndarray:
    return np.random.default_rng(5).permutation(len(tokens.input_ids_T)).astype(np.int32)


@pytest.mark.parametrize(
    ("positions", "is_decoder"), [("absolute", False), ("absolute", True), ("relative_key_query", False)]
)
def test_hidden_states_are_those_of_each_sequence_alone(positions: str, is_decoder: bool) -> None:
    model, flat = both("encoder", position_embedding_type=positions, is_decoder=is_decoder)
    tokens = pack(causal=is_decoder)
    asked = everywhere(tokens)
    whole = np.concatenate([output.last_hidden_state[0] for output in alone(model, tokens)])
    found = flat(tokens, {"encoder": Ask(asked)})["encoder"]["hidden"]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, whole[asked], rtol=0, atol=FLAT_TOLERANCE)


@pytest.mark.slow
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(st.integers(1, 20), min_size=1, max_size=6),
    heads=st.sampled_from([1, 2, 4]),
    layers=st.integers(0, 2),
    act=st.sampled_from(ACTIVATIONS),
    pad=st.integers(0, 3),
)
def test_any_config_and_any_pack_answers_as_each_sequence_alone(
    lengths: list[int], heads: int, layers: int, act: str, pad: int, tmp_path: Path
) -> None:
    model = saved(
        "encoder", tmp_path, num_attention_heads=heads, num_hidden_layers=layers, hidden_act=act, pad_token_id=pad
    )
    tokens = pack([21, *lengths])
    flat = load(checkpoint=str(tmp_path), heads=["encoder"], **ON_CPU)
    found = flat(tokens, {"encoder": Ask(np.arange(len(tokens.input_ids_T), dtype=np.int32))})["encoder"]["hidden"]
    whole = np.concatenate([output.last_hidden_state[0] for output in alone(model, tokens)])
    np.testing.assert_allclose(found, whole, rtol=0, atol=FLAT_TOLERANCE)


def test_a_head_s_folder_beside_its_encoder_s_loads(tmp_path: Path) -> None:
    model = saved("token-classification", tmp_path / "whole", num_labels=4)
    whole = Checkpoint.open(str(tmp_path / "whole"))
    tensors = dict(whole.stream())
    for name, wanted in (("base", True), ("ner", False)):
        settings_ = config(num_labels=4, **({} if wanted else {"base_model_name_or_path": "base"}))
        part = {key: array for key, array in tensors.items() if key.startswith(PREFIX) == wanted}
        write_checkpoint(url=str(tmp_path / name), config=settings_, tensors=part)
    tokens, asked = pack(), np.array([3, 1], np.int32)
    flat = load(checkpoint=str(tmp_path / "ner"), heads=["token-classification"], **ON_CPU)
    found = flat(tokens, {"token-classification": Ask(asked)})["token-classification"]["logits"]
    np.testing.assert_allclose(found, alone(model, tokens)[0].logits[0].numpy()[asked], rtol=0, atol=FLAT_TOLERANCE)


@pytest.mark.parametrize("head", ["sequence-classification", "multiple-choice"])
def test_a_head_on_the_first_token_answers_as_its_class(head: Head) -> None:
    model, flat = both(head, num_labels=3)
    tokens = pack()
    found = flat(tokens, {head: Ask(tokens.cu_seqlens[:-1])})
    expected = np.concatenate([output.logits for output in alone(model, tokens)])
    np.testing.assert_allclose(found[head]["logits"], expected, rtol=0, atol=FLAT_TOLERANCE)


def test_token_and_span_heads_answer_as_their_classes() -> None:
    tokens = pack()
    asked = everywhere(tokens)
    model, flat = both("token-classification", num_labels=5)
    found = flat(tokens, {"token-classification": Ask(asked)})["token-classification"]["logits"]
    whole = np.concatenate([output.logits[0] for output in alone(model, tokens)])
    np.testing.assert_allclose(found, whole[asked], rtol=0, atol=FLAT_TOLERANCE)

    model, flat = both("question-answering")
    answers = flat(tokens, {"question-answering": Ask(asked)})["question-answering"]
    for side in ("start_logits", "end_logits"):
        whole = np.concatenate([output[side][0] for output in alone(model, tokens)])
        np.testing.assert_allclose(answers[side], whole[asked], rtol=0, atol=FLAT_TOLERANCE)


def test_mask_answers_are_the_largest_of_the_whole_vocabulary_s_softmax() -> None:
    model, flat = both("masked-lm")
    tokens, asked = pack(), np.array([33, 2, 40], np.int32)
    logits = np.concatenate([output.logits[0] for output in alone(model, tokens)])[asked]
    probs, ids = tf.math.top_k(tf.nn.softmax(logits), 4)
    best = flat(tokens, {"masked-lm": Ask(asked, top_k=4)})["masked-lm"]
    assert best["ids"].dtype == np.int32
    assert (best["ids"] == ids.numpy()).all()
    np.testing.assert_allclose(best["probs"], probs, rtol=0, atol=FLAT_TOLERANCE)

    candidates = np.array([50, 3, 17], np.int32)
    ranked = flat(tokens, {"masked-lm": Ask(asked, candidates_K=candidates)})["masked-lm"]
    expected, places = tf.math.top_k(tf.nn.softmax(logits).numpy()[:, candidates], 3)
    assert (ranked["ids"] == candidates[places.numpy()]).all()
    np.testing.assert_allclose(ranked["probs"], expected, rtol=0, atol=FLAT_TOLERANCE)


@pytest.mark.parametrize(("head", "tied"), [("masked-lm", True), ("causal-lm", False)])
def test_gold_ids_are_answered_by_their_log_probability(head: Head, tied: bool) -> None:
    causal = head == "causal-lm"
    model, flat = both(head, is_decoder=causal, tie_word_embeddings=tied)
    tokens = pack(causal=causal)
    asked, gold = np.array([12, 0, 44], np.int32), np.array([60, 5, 1], np.int32)
    logits = np.concatenate([output.logits[0] for output in alone(model, tokens)])[asked]
    expected = tf.nn.log_softmax(logits).numpy()[range(3), gold.tolist()]
    found = flat(tokens, {head: Ask(asked, gold_G=gold)})[head]["log_probs"]
    np.testing.assert_allclose(found, expected, rtol=0, atol=FLAT_TOLERANCE)


def test_the_mean_is_over_each_sequence_s_asked_positions() -> None:
    model, flat = both("encoder", position_embedding_type="absolute", is_decoder=False)
    tokens = pack()
    asked = np.concatenate([np.arange(row.start, row.stop, 2) for row in rows(tokens)]).astype(np.int32)
    found = flat(tokens, {"encoder": Ask(asked, reduce="mean")})["encoder"]["hidden"]
    expected = [output.last_hidden_state[0, ::2].numpy().mean(0) for output in alone(model, tokens)]
    np.testing.assert_allclose(found, np.stack(expected), rtol=0, atol=FLAT_TOLERANCE)


def test_several_heads_share_one_encoder_pass(tmp_path: Path) -> None:
    saved("masked-lm", tmp_path)
    flat = load(checkpoint=str(tmp_path), heads=["encoder", "masked-lm"], **ON_CPU)
    tokens, asked = pack(), np.array([0], np.int32)
    answers = flat(tokens, {"encoder": Ask(asked), "masked-lm": Ask(asked, top_k=1)})
    assert set(answers) == {"encoder", "masked-lm"}
    built: Any = flat
    assert built.heads["encoder"].base_model is built.heads["masked-lm"].base_model
    assert built.heads["masked-lm"].lm_head.decoder.weight is built.base.get_input_embeddings().weight


@pytest.mark.parametrize("dtype", ["bfloat16", pytest.param("float16", marks=pytest.mark.slow)])
def test_half_precision_answers_in_float32_near_the_full_one(dtype: Any, tmp_path: Path) -> None:
    model = saved("sequence-classification", tmp_path, initializer_range=0.1)
    tokens = pack()
    ask = {"sequence-classification": Ask(tokens.cu_seqlens[:-1])}
    heads: list[Head] = ["sequence-classification"]
    expected = np.concatenate([output.logits for output in alone(model, tokens)])
    half = load(checkpoint=str(tmp_path), heads=heads, **ON_CPU, dtype=dtype)(tokens, ask)
    found = half["sequence-classification"]["logits"]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=HALF_TOLERANCE)


def test_what_can_t_be_answered_is_refused_with_the_reason() -> None:
    _, flat = both("masked-lm")
    tokens, asked = pack(), np.array([0], np.int32)
    with pytest.raises(ValueError, match="head 'encoder' is not loaded; this model has masked-lm"):
        flat(tokens, {"encoder": Ask(asked)})
    with pytest.raises(ValueError, match="give top_k, candidates_K or gold_G"):
        flat(tokens, {"masked-lm": Ask(asked)})
    with pytest.raises(ValueError, match="positions_G holds 999"):
        flat(tokens, {"masked-lm": Ask(np.array([999], np.int32), top_k=1)})
    long = Tokens(np.full(39, 5, np.int32), np.array([0, 39], np.int32))
    with pytest.raises(ValueError, match="a sequence has 39 tokens, the model takes at most 38"):
        flat(long, {"masked-lm": Ask(asked, top_k=1)})
    with pytest.raises(ValueError, match=r"input_ids holds 61, outside 0 … 60 \(vocab_size 61\)"):
        flat(Tokens(np.array([61], np.int32), np.array([0, 1], np.int32)), {"masked-lm": Ask(asked, top_k=1)})


def test_no_positions_asked_gives_empty_answers() -> None:
    _, flat = both("masked-lm")
    answers = flat(pack(), {"masked-lm": Ask(np.empty(0, np.int32), top_k=3)})["masked-lm"]
    assert answers["ids"].shape == (0, 3)
    assert answers["probs"].shape == (0, 3)


@pytest.mark.parametrize("causal", [pytest.param(False, marks=pytest.mark.slow), True])
def test_padded_groups_answer_as_equal_ones_do(causal: bool, tmp_path: Path) -> None:
    saved("encoder", tmp_path, is_decoder=causal)
    tokens = pack((3, 9, 10, 2, 30, 9, 1, 31), causal=causal)
    ask: dict[str, Ask] = {"encoder": Ask(everywhere(tokens))}
    _, equal = both("encoder", position_embedding_type="absolute", is_decoder=causal)
    padded: Any = load(checkpoint=str(tmp_path), heads=["encoder"], **ON_CPU)
    padded.padded = True
    found, expected = padded(tokens, ask)["encoder"]["hidden"], equal(tokens, ask)["encoder"]["hidden"]
    np.testing.assert_allclose(found, expected, rtol=0, atol=FLAT_TOLERANCE)


def test_no_length_or_number_of_sequences_traces_the_graph_again() -> None:
    _, flat = both("encoder", position_embedding_type="absolute", is_decoder=False)
    for lengths in ((3,), (5, 5, 1), (30, 2), (1, 2, 3, 4)):
        flat(pack((21, *lengths)), {"encoder": Ask(np.array([0], np.int32))})
    assert flat.graphs[False].experimental_get_tracing_count() == 1


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_gpu_answers_as_the_cpu_does(dtype: Any, tmp_path: Path) -> None:
    saved("encoder", tmp_path, initializer_range=0.1)
    tokens = pack()
    ask: dict[str, Ask] = {"encoder": Ask(everywhere(tokens))}
    expected = load(checkpoint=str(tmp_path), heads=["encoder"], **ON_CPU)(tokens, ask)["encoder"]["hidden"]
    flat = load(checkpoint=str(tmp_path), heads=["encoder"], framework="tensorflow", device="cuda", dtype=dtype)
    tolerance = GPU_TOLERANCE if dtype == "float32" else HALF_TOLERANCE
    np.testing.assert_allclose(flat(tokens, ask)["encoder"]["hidden"], expected, rtol=0, atol=tolerance)
