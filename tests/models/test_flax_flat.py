"""The flat path answers as the padded Flax classes do: one model, two ways in. And packed rows hold what they shall."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

if importlib.util.find_spec("flax") is None or importlib.util.find_spec("jax") is None:
    pytest.skip("flax is not installed", allow_module_level=True)

import jax

import models.roberta_flax as roberta
from models.boundary import Ask, Head, Tokens
from models.errors import PrelnError
from models.load import load
from models.packed_rows import pack_rows, power_of_two, powers_up_to, row_pieces
from models.tensors import ARCHITECTURES
from tests.models.tiny import tiny_config

pytestmark = pytest.mark.flax

FLAT_TOLERANCE = 2e-5  # float32, the same sums in another order
HALF_TOLERANCE = 0.05  # bfloat16 has 8 bits of mantissa
LENGTHS = (5, 9, 2, 9, 30, 5, 1)


def saved(head: Head, folder: Path, **overrides: Any) -> Any:
    model = getattr(roberta, f"Flax{ARCHITECTURES[head]}")(tiny_config(num_hidden_layers=2, **overrides), seed=7)
    model.save_pretrained(str(folder))
    return model


def pack(lengths: Sequence[int] = LENGTHS, *, causal: bool = False) -> Tokens:
    """Random sequences, `<pad>` typed in the text among them."""
    draw = np.random.default_rng(3)
    ids = draw.integers(0, 61, sum(lengths)).astype(np.int32)
    ids[7] = ids[20] = 1
    types = draw.integers(0, 2, sum(lengths)).astype(np.int32)
    return Tokens(ids, np.concatenate(([0], np.cumsum(lengths))).astype(np.int32), types, causal)


def rows(tokens: Tokens) -> list[slice]:
    return [slice(a, b) for a, b in zip(tokens.cu_seqlens[:-1], tokens.cu_seqlens[1:], strict=True)]


def padded(tokens: Tokens) -> dict[str, Any]:
    """The sequences as rows of one batch under a mask."""
    assert tokens.token_type_ids_T is not None
    real = np.arange(tokens.lengths_B.max())[None] < tokens.lengths_B[:, None]
    ids, types = np.ones(real.shape, np.int32), np.zeros(real.shape, np.int32)
    ids[real], types[real] = tokens.input_ids_T, tokens.token_type_ids_T
    return {"input_ids": ids, "token_type_ids": types, "attention_mask": real.astype(np.int32)}


def seen_by(model: Any, tokens: Tokens) -> dict[str, np.ndarray]:
    """What the padded class answers, token axes flattened to the pack's."""
    batch = padded(tokens)
    real = batch["attention_mask"].astype(bool)
    if model.head == "multiple-choice":
        batch = {name: array[:, None] for name, array in batch.items()}
    answers = (
        {name: np.asarray(value) for name, value in model(**batch, use_cache=False).items()}
        if model.bare
        else {name: np.asarray(value) for name, value in model(**batch).items() if name != "past_key_values"}
    )
    return {name: array[real] if array.shape[:2] == real.shape else array for name, array in answers.items()}


def everywhere(tokens: Tokens) -> np.ndarray:
    return np.random.default_rng(5).permutation(len(tokens.input_ids_T)).astype(np.int32)


def near(found: Any, expected: Any, tolerance: float = FLAT_TOLERANCE) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    ("positions", "is_decoder"), [("absolute", False), ("absolute", True), ("relative_key_query", False)]
)
def test_hidden_states_are_those_of_each_sequence_alone(positions: str, is_decoder: bool, tmp_path: Path) -> None:
    model = saved("encoder", tmp_path, position_embedding_type=positions, is_decoder=is_decoder)
    flat = load(checkpoint=str(tmp_path), framework="flax", heads=["encoder"], device="cpu")
    tokens = pack(causal=is_decoder)
    asked = everywhere(tokens)
    found = flat(tokens, {"encoder": Ask(asked)})["encoder"]["hidden"]
    assert found.dtype == np.float32
    near(found, seen_by(model, tokens)["last_hidden_state"][asked])


def test_the_mean_is_over_each_sequence_s_asked_positions(tmp_path: Path) -> None:
    model = saved("encoder", tmp_path)
    tokens = pack()
    asked = np.concatenate([np.arange(row.start, row.stop, 2) for row in rows(tokens)]).astype(np.int32)
    flat = load(checkpoint=str(tmp_path), framework="flax", heads=["encoder"], device="cpu")
    flat.largest_piece = 1  # type: ignore[attr-defined]  # the means come from several pieces
    whole = seen_by(model, tokens)["last_hidden_state"]
    found = flat(tokens, {"encoder": Ask(asked, reduce="mean")})["encoder"]["hidden"]
    near(found, [whole[row][::2].mean(0) for row in rows(tokens)])


@pytest.mark.parametrize("head", ["sequence-classification", "multiple-choice"])
def test_a_head_on_the_first_token_answers_as_its_class(head: Head, tmp_path: Path) -> None:
    model = saved(head, tmp_path, num_labels=3)
    tokens = pack()
    flat = load(checkpoint=str(tmp_path), framework="flax", heads=[head], device="cpu")
    found = flat(tokens, {head: Ask(tokens.cu_seqlens[:-1])})
    near(found[head]["logits"], seen_by(model, tokens)["logits"])


def test_token_and_span_heads_answer_as_their_classes(tmp_path: Path) -> None:
    tokens = pack()
    asked = everywhere(tokens)
    model = saved("token-classification", tmp_path / "token", num_labels=5)
    flat = load(checkpoint=str(tmp_path / "token"), framework="flax", heads=["token-classification"], device="cpu")
    found = flat(tokens, {"token-classification": Ask(asked)})["token-classification"]["logits"]
    near(found, seen_by(model, tokens)["logits"][asked])

    model = saved("question-answering", tmp_path / "span")
    flat = load(checkpoint=str(tmp_path / "span"), framework="flax", heads=["question-answering"], device="cpu")
    answers = flat(tokens, {"question-answering": Ask(asked)})["question-answering"]
    whole = seen_by(model, tokens)
    for side in ("start_logits", "end_logits"):
        near(answers[side], whole[side][asked])


def test_a_masked_lm_answers_the_whole_vocabulary_s_softmax_and_shares_its_encoder(tmp_path: Path) -> None:
    model = saved("masked-lm", tmp_path)
    tokens, asked = pack(), np.array([33, 2, 40], np.int32)
    logits = seen_by(model, tokens)["logits"][asked]
    whole = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    flat = load(checkpoint=str(tmp_path), framework="flax", heads=["encoder", "masked-lm"], device="cpu")

    best = flat(tokens, {"masked-lm": Ask(asked, top_k=4)})["masked-lm"]
    assert best["ids"].dtype == np.int32
    assert (best["ids"] == np.argsort(-whole, axis=-1)[:, :4]).all()
    near(best["probs"], -np.sort(-whole, axis=-1)[:, :4])

    candidates = np.array([50, 3, 17], np.int32)
    ranked = flat(tokens, {"masked-lm": Ask(asked, candidates_K=candidates)})["masked-lm"]
    order = np.argsort(-whole[:, candidates], axis=-1)
    assert (ranked["ids"] == candidates[order]).all()
    near(ranked["probs"], np.take_along_axis(whole[:, candidates], order, axis=-1))

    none = flat(tokens, {"masked-lm": Ask(np.empty(0, np.int32), top_k=3)})["masked-lm"]
    assert (none["ids"].shape, none["probs"].shape) == ((0, 3), (0, 3))

    both = flat(tokens, {"encoder": Ask(asked[:1]), "masked-lm": Ask(asked, top_k=1)})
    assert set(both) == {"encoder", "masked-lm"}
    trees = [head.params for head in flat.heads.values()]  # type: ignore[attr-defined]
    held = {id(leaf): leaf.size for leaf in jax.tree.leaves([flat.params, *trees])}  # type: ignore[attr-defined]
    assert sum(held.values()) == model.num_parameters()

    # A slice of the vocabulary's scores at a time gives the same.
    flat.heads["masked-lm"].at_once = 2  # type: ignore[attr-defined]
    sliced = flat(tokens, {"masked-lm": Ask(asked, top_k=4)})["masked-lm"]
    near(sliced["probs"], best["probs"])

    with pytest.raises(ValueError, match="head 'question-answering' is not loaded; this model has encoder, masked-lm"):
        flat(tokens, {"question-answering": Ask(asked)})
    with pytest.raises(ValueError, match="give top_k, candidates_K or gold_G"):
        flat(tokens, {"masked-lm": Ask(asked)})
    long = Tokens(np.full(39, 5, np.int32), np.array([0, 39], np.int32))
    with pytest.raises(ValueError, match="a sequence has 39 tokens, the model takes at most 38"):
        flat(long, {"masked-lm": Ask(asked[:0], top_k=1)})


@pytest.mark.parametrize(("head", "tied"), [("masked-lm", False), ("causal-lm", True)])
def test_gold_ids_are_answered_by_their_log_probability(head: Head, tied: bool, tmp_path: Path) -> None:
    causal = head == "causal-lm"
    model = saved(head, tmp_path, is_decoder=causal, tie_word_embeddings=tied)
    tokens = pack(causal=causal)
    asked, gold = np.array([12, 0, 44], np.int32), np.array([60, 5, 1], np.int32)
    logits = seen_by(model, tokens)["logits"][asked]
    expected = np.asarray(jax.nn.log_softmax(logits))[range(3), gold]
    flat = load(checkpoint=str(tmp_path), framework="flax", heads=[head], device="cpu")
    near(flat(tokens, {head: Ask(asked, gold_G=gold)})[head]["log_probs"], expected)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_answers_in_float32_near_the_full_one(dtype: Any, tmp_path: Path) -> None:
    model = saved("sequence-classification", tmp_path, initializer_range=0.1)
    tokens = pack()
    heads: list[Head] = ["sequence-classification"]
    half = load(checkpoint=str(tmp_path), framework="flax", heads=heads, device="cpu", dtype=dtype)
    found = half(tokens, {heads[0]: Ask(tokens.cu_seqlens[:-1])})["sequence-classification"]["logits"]
    assert found.dtype == np.float32
    near(found, seen_by(model, tokens)["logits"], HALF_TOLERANCE)


def test_packs_of_many_sizes_are_compiled_for_few_shapes(tmp_path: Path) -> None:
    model = saved("sequence-classification", tmp_path)
    flat: Any = load(checkpoint=str(tmp_path), framework="flax", heads=["sequence-classification"], device="cpu")
    flat.largest_piece = 2 * power_of_two(flat.config.max_tokens)
    for count in (18, 31, 40, 52):
        tokens = pack([7] * count)
        found = flat(tokens, {"sequence-classification": Ask(tokens.cu_seqlens[:-1])})
    near(found["sequence-classification"]["logits"], seen_by(model, tokens)["logits"])
    # Pieces of one row and of two, asked for few or for many of their slots.
    assert flat.encode._cache_size() <= 4


def test_a_device_that_is_not_there_is_named(tmp_path: Path) -> None:
    saved("encoder", tmp_path)
    with pytest.raises(PrelnError, match="device is 'cpu:99', JAX sees 1 of that kind"):
        load(checkpoint=str(tmp_path), framework="flax", heads=["encoder"], device="cpu:99")
    with pytest.raises(PrelnError, match="device is 'toaster'"):
        load(checkpoint=str(tmp_path), framework="flax", heads=["encoder"], device="toaster")


def test_threads_are_those_that_the_replica_is_given() -> None:
    code = (
        "import os; from models.roberta_flax.device import claim_device; claim_device('cpu'); "
        "print(len(os.listdir('/proc/self/task')))"
    )
    threads = []
    for count in ("1", "3"):
        environment = {**os.environ, "PRELN_THREADS": count, "PYTHONPATH": os.pathsep.join(sys.path)}
        shown = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
        )
        threads.append(int(shown.stdout))
    assert threads[0] < threads[1]


# Packed rows


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 32), min_size=1, max_size=40))
def test_every_token_has_a_slot_of_its_own_beside_its_neighbours(lengths: list[int]) -> None:
    tokens = Tokens(np.arange(sum(lengths), dtype=np.int32), np.cumsum([0, *lengths]).astype(np.int32))
    packed = pack_rows(tokens=tokens, width=32)
    spread = packed.spread(tokens.input_ids_T, fill=-1)
    assert spread.shape == (packed.rows, 32)
    assert sorted(spread[spread >= 0].tolist()) == tokens.input_ids_T.tolist()
    for row in rows(tokens):
        slots = packed.slot_T[row]
        assert (np.diff(slots) == 1).all()
        assert slots[0] // 32 == slots[-1] // 32
        assert len(set(packed.sequence_X[slots])) == 1
    # Any two rows together hold more than one row's worth, so at most twice the rows that the tokens need.
    assert packed.rows <= max(1, 2 * -(-sum(lengths) // 32))


def test_rows_go_in_pieces_of_few_sizes() -> None:
    assert row_pieces(rows=23, sizes=powers_up_to(8)) == [(0, 8), (8, 8), (16, 4), (20, 2), (22, 1)]
    assert [power_of_two(size) for size in (0, 1, 2, 3, 512, 513)] == [1, 1, 2, 4, 512, 1024]
    assert power_of_two(3, least=16) == 16
