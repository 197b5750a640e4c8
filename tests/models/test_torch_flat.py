"""The flat path answers as the padded classes do: one model, two ways in."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

if importlib.util.find_spec("torch") is None:
    pytest.skip("torch is not installed", allow_module_level=True)

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import models.roberta_torch as roberta
from models.boundary import Ask, Head, Tokens
from models.checkpoint import Checkpoint
from models.checkpoint_writer import write_checkpoint
from models.checks import ACTIVATIONS
from models.config import RobertaPreLayerNormConfig
from models.load import load
from models.tensors import PREFIX

# Tiny tensors: a second thread only waits, for long where other processes share the cores.
torch.set_num_threads(1)

pytestmark = pytest.mark.torch

FLAT_TOLERANCE = 2e-5  # float32, the same sums in another order
HALF_TOLERANCE = 0.05  # bfloat16 has 8 bits of mantissa
LENGTHS = (5, 9, 2, 9, 30, 5, 1)
CLASSES: dict[str, str] = {
    "encoder": "RobertaPreLayerNormModel",
    "masked-lm": "RobertaPreLayerNormForMaskedLM",
    "causal-lm": "RobertaPreLayerNormForCausalLM",
    "sequence-classification": "RobertaPreLayerNormForSequenceClassification",
    "multiple-choice": "RobertaPreLayerNormForMultipleChoice",
    "token-classification": "RobertaPreLayerNormForTokenClassification",
    "question-answering": "RobertaPreLayerNormForQuestionAnswering",
}


def config(**overrides: Any) -> RobertaPreLayerNormConfig:
    sizes: dict[str, Any] = {
        "vocab_size": 61,
        "hidden_size": 16,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "max_position_embeddings": 40,
        "initializer_range": 0.4,
        "layer_norm_eps": 1e-5,
    }
    return RobertaPreLayerNormConfig(**{**sizes, **overrides})


def saved(head: Head, folder: Path, **overrides: Any) -> Any:
    torch.manual_seed(7)
    model = getattr(roberta, CLASSES[head])(config(**overrides)).eval()
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


def alone(model: Any, tokens: Tokens) -> list[Any]:
    """The padded class on each sequence by itself."""
    assert tokens.token_type_ids_T is not None
    outputs = []
    for row in rows(tokens):
        ids = torch.from_numpy(tokens.input_ids_T[row]).long()[None]
        types = torch.from_numpy(tokens.token_type_ids_T[row]).long()[None]
        if isinstance(model, roberta.RobertaPreLayerNormForMultipleChoice):
            ids, types = ids[None], types[None]
        with torch.no_grad():
            outputs.append(model(input_ids=ids, token_type_ids=types))
    return outputs


def everywhere(tokens: Tokens) -> np.ndarray:
    return np.random.default_rng(5).permutation(len(tokens.input_ids_T)).astype(np.int32)


@pytest.mark.parametrize("positions", ["absolute", "relative_key", "relative_key_query"])
@pytest.mark.parametrize("is_decoder", [False, True])
def test_hidden_states_are_those_of_each_sequence_alone(positions: str, is_decoder: bool, tmp_path: Path) -> None:
    model = saved("encoder", tmp_path, position_embedding_type=positions, is_decoder=is_decoder)
    flat = load(checkpoint=str(tmp_path), heads=["encoder"], device="cpu")
    tokens = pack(causal=is_decoder)
    asked = everywhere(tokens)
    whole = np.concatenate([output.last_hidden_state[0].numpy() for output in alone(model, tokens)])
    found = flat(tokens, {"encoder": Ask(asked)})["encoder"]["hidden"]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, whole[asked], rtol=0, atol=FLAT_TOLERANCE)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(st.integers(1, 20), min_size=1, max_size=6),
    heads=st.sampled_from([1, 2, 4]),
    layers=st.integers(0, 3),
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
    flat = load(checkpoint=str(tmp_path), heads=["encoder"], device="cpu")
    found = flat(tokens, {"encoder": Ask(np.arange(len(tokens.input_ids_T), dtype=np.int32))})["encoder"]["hidden"]
    whole = np.concatenate([output.last_hidden_state[0].numpy() for output in alone(model, tokens)])
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
    flat = load(checkpoint=str(tmp_path / "ner"), heads=["token-classification"], device="cpu")
    found = flat(tokens, {"token-classification": Ask(asked)})["token-classification"]["logits"]
    np.testing.assert_allclose(found, alone(model, tokens)[0].logits[0, asked].numpy(), rtol=0, atol=FLAT_TOLERANCE)


@pytest.mark.parametrize("head", ["sequence-classification", "multiple-choice"])
def test_a_head_on_the_first_token_answers_as_its_class(head: Head, tmp_path: Path) -> None:
    model = saved(head, tmp_path, num_labels=3)
    tokens = pack()
    found = load(checkpoint=str(tmp_path), heads=[head], device="cpu")(tokens, {head: Ask(tokens.cu_seqlens[:-1])})
    expected = np.concatenate([output.logits.numpy() for output in alone(model, tokens)])
    np.testing.assert_allclose(found[head]["logits"], expected, rtol=0, atol=FLAT_TOLERANCE)


def test_token_and_span_heads_answer_as_their_classes(tmp_path: Path) -> None:
    tokens = pack()
    asked = everywhere(tokens)
    model = saved("token-classification", tmp_path / "token", num_labels=5)
    flat = load(checkpoint=str(tmp_path / "token"), heads=["token-classification"], device="cpu")
    found = flat(tokens, {"token-classification": Ask(asked)})["token-classification"]["logits"]
    whole = np.concatenate([output.logits[0].numpy() for output in alone(model, tokens)])
    np.testing.assert_allclose(found, whole[asked], rtol=0, atol=FLAT_TOLERANCE)

    model = saved("question-answering", tmp_path / "span")
    flat = load(checkpoint=str(tmp_path / "span"), heads=["question-answering"], device="cpu")
    answers = flat(tokens, {"question-answering": Ask(asked)})["question-answering"]
    for side in ("start_logits", "end_logits"):
        whole = np.concatenate([output[side][0].numpy() for output in alone(model, tokens)])
        np.testing.assert_allclose(answers[side], whole[asked], rtol=0, atol=FLAT_TOLERANCE)


def test_mask_answers_are_the_largest_of_the_whole_vocabulary_s_softmax(tmp_path: Path) -> None:
    model = saved("masked-lm", tmp_path)
    tokens, asked = pack(), np.array([33, 2, 40], np.int32)
    logits = torch.cat([output.logits[0] for output in alone(model, tokens)])[asked]
    probs, ids = torch.softmax(logits, dim=-1).topk(4)
    flat = load(checkpoint=str(tmp_path), heads=["masked-lm"], device="cpu")
    best = flat(tokens, {"masked-lm": Ask(asked, top_k=4)})["masked-lm"]
    assert best["ids"].dtype == np.int32
    assert (best["ids"] == ids.numpy()).all()
    np.testing.assert_allclose(best["probs"], probs.numpy(), rtol=0, atol=FLAT_TOLERANCE)

    candidates = np.array([50, 3, 17], np.int32)
    ranked = flat(tokens, {"masked-lm": Ask(asked, candidates_K=candidates)})["masked-lm"]
    expected, places = torch.softmax(logits, dim=-1)[:, candidates].topk(3)
    assert (ranked["ids"] == candidates[places.numpy()]).all()
    np.testing.assert_allclose(ranked["probs"], expected.numpy(), rtol=0, atol=FLAT_TOLERANCE)


@pytest.mark.parametrize("settings_", [{}, {"tie_word_embeddings": False}, {"torchscript": True}])
@pytest.mark.parametrize("head", ["masked-lm", "causal-lm"])
def test_gold_ids_are_answered_by_their_log_probability(head: Head, settings_: dict[str, bool], tmp_path: Path) -> None:
    causal = head == "causal-lm"
    model = saved(head, tmp_path, is_decoder=causal, **settings_)
    tokens = pack(causal=causal)
    asked, gold = np.array([12, 0, 44], np.int32), np.array([60, 5, 1], np.int32)
    logits = torch.cat([output[0][0] for output in alone(model, tokens)])[asked]
    expected = torch.log_softmax(logits, dim=-1)[range(3), gold.tolist()]
    flat = load(checkpoint=str(tmp_path), heads=[head], device="cpu")
    found = flat(tokens, {head: Ask(asked, gold_G=gold)})[head]["log_probs"]
    np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=FLAT_TOLERANCE)


def test_the_mean_is_over_each_sequence_s_asked_positions(tmp_path: Path) -> None:
    model = saved("encoder", tmp_path)
    tokens = pack()
    asked = np.concatenate([np.arange(row.start, row.stop, 2) for row in rows(tokens)]).astype(np.int32)
    flat = load(checkpoint=str(tmp_path), heads=["encoder"], device="cpu")
    found = flat(tokens, {"encoder": Ask(asked, reduce="mean")})["encoder"]["hidden"]
    expected = [output.last_hidden_state[0, ::2].mean(0).numpy() for output in alone(model, tokens)]
    np.testing.assert_allclose(found, np.stack(expected), rtol=0, atol=FLAT_TOLERANCE)


def test_several_heads_share_one_encoder_pass(tmp_path: Path) -> None:
    saved("masked-lm", tmp_path)
    flat = load(checkpoint=str(tmp_path), heads=["encoder", "masked-lm"], device="cpu")
    tokens, asked = pack(), np.array([0], np.int32)
    answers = flat(tokens, {"encoder": Ask(asked), "masked-lm": Ask(asked, top_k=1)})
    assert set(answers) == {"encoder", "masked-lm"}
    parameters = {id(p) for model in flat.heads.values() for p in model.parameters()}  # type: ignore[attr-defined]
    assert len(parameters) == len(list(flat.heads["masked-lm"].parameters()))  # type: ignore[attr-defined]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_answers_in_float32_near_the_full_one(dtype: Any, tmp_path: Path) -> None:
    saved("sequence-classification", tmp_path, initializer_range=0.1)
    tokens = pack()
    ask = {"sequence-classification": Ask(tokens.cu_seqlens[:-1])}
    heads: list[Head] = ["sequence-classification"]
    full = load(checkpoint=str(tmp_path), heads=heads, device="cpu")(tokens, ask)
    half = load(checkpoint=str(tmp_path), heads=heads, device="cpu", dtype=dtype)(tokens, ask)
    found = half["sequence-classification"]["logits"]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, full["sequence-classification"]["logits"], rtol=0, atol=HALF_TOLERANCE)


def test_what_can_t_be_answered_is_refused_with_the_reason(tmp_path: Path) -> None:
    saved("masked-lm", tmp_path)
    flat = load(checkpoint=str(tmp_path), heads=["masked-lm"], device="cpu")
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


def test_no_positions_asked_gives_empty_answers(tmp_path: Path) -> None:
    saved("masked-lm", tmp_path)
    flat = load(checkpoint=str(tmp_path), heads=["masked-lm"], device="cpu")
    answers = flat(pack(), {"masked-lm": Ask(np.empty(0, np.int32), top_k=3)})["masked-lm"]
    assert answers["ids"].shape == (0, 3)
    assert answers["probs"].shape == (0, 3)


def varlen_reference(
    query_TND: Any,
    key_TND: Any,
    value_TND: Any,
    cu_seq_q: Any,
    cu_seq_k: Any,
    max_q: int,
    max_k: int,
    *,
    window_size: tuple[int, int],
    num_splits: int,
) -> Any:
    """What torch's varlen_attn answers, written with one call a sequence; it has no CPU form of its own."""
    assert torch.equal(cu_seq_q, cu_seq_k)
    assert cu_seq_q.dtype == torch.int32
    assert max_q == max_k == int(cu_seq_q.diff().max())
    pieces = []
    for start, stop in zip(cu_seq_q[:-1].tolist(), cu_seq_q[1:].tolist(), strict=True):
        parts = (part[start:stop].transpose(0, 1)[None] for part in (query_TND, key_TND, value_TND))
        query, key, value = parts
        is_causal = window_size == (-1, 0)
        attended = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=is_causal)
        pieces.append(attended[0].transpose(0, 1))
    return torch.cat(pieces)


@pytest.mark.parametrize("causal", [True, False])
def test_all_sequences_in_one_kernel_answer_as_the_groups(
    causal: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved("encoder", tmp_path, is_decoder=causal)
    flat: Any = load(checkpoint=str(tmp_path), heads=["encoder"], device="cpu")
    tokens = pack(causal=causal)
    ask: dict[str, Ask] = {"encoder": Ask(everywhere(tokens))}
    assert not flat.varlen
    groups = flat(tokens, ask)["encoder"]["hidden"]
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", varlen_reference)
    flat.varlen = True
    np.testing.assert_allclose(flat(tokens, ask)["encoder"]["hidden"], groups, rtol=0, atol=FLAT_TOLERANCE)


@pytest.mark.gpu
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_a_gpu_answers_as_the_cpu(causal: bool, dtype: Any, tmp_path: Path) -> None:
    saved("encoder", tmp_path, is_decoder=causal, initializer_range=0.1)
    tokens = pack(causal=causal)
    ask: dict[str, Ask] = {"encoder": Ask(everywhere(tokens))}
    expected = load(checkpoint=str(tmp_path), heads=["encoder"], device="cpu")(tokens, ask)["encoder"]["hidden"]
    flat: Any = load(checkpoint=str(tmp_path), heads=["encoder"], device="cuda", dtype=dtype)
    assert flat.varlen == (dtype != "float32")
    tolerance = 1e-3 if dtype == "float32" else HALF_TOLERANCE
    np.testing.assert_allclose(flat(tokens, ask)["encoder"]["hidden"], expected, rtol=0, atol=tolerance)
