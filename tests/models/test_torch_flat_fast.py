"""Each way in which the flat path is fast answers as the plain way does; what can't be had is done without, and said."""

import importlib.util
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

if importlib.util.find_spec("torch") is None:
    pytest.skip("torch is not installed", allow_module_level=True)

import torch
from torch.nn import functional

from models.boundary import Ask, Dtype, Head, Tokens
from models.families import PRE_LAYER_NORM, every_family
from models.load import load
from models.roberta_torch.flat import ROWS_FROM, ROWS_STEP, FlatRoberta
from models.roberta_torch.flat_attention import VECTOR, GroupAttention, no_varlen
from models.roberta_torch.flat_layers import FlatLinear
from tests.models.flat import everywhere
from tests.models.flat import pack as pack_with_types
from tests.models.frameworks import CLASSES
from tests.models.tiny import tiny_config

pytestmark = pytest.mark.torch

TOLERANCES: dict[Dtype, float] = {"float32": 2e-5, "bfloat16": 0.05}
"""The same sums in another order; bfloat16 has 8 bits of mantissa."""
ROUNDING = 2.0**-8  # half of the distance of two neighbours in bfloat16, relative
LENGTHS = (1, 15, 16, 17, 17, 31, 33, 33, 33, 2)
SICK = 60  # a token whose embedding is nan
every_order_of_norms = pytest.mark.parametrize("model_type", [PRE_LAYER_NORM, "roberta", "xlm-roberta-xl"])
"""Norms before, norms after, and none on the embeddings."""


def loaded(folder: Path, *, dtype: Dtype = "float32", sick: bool = False, **overrides: Any) -> FlatRoberta:
    sizes = {"max_position_embeddings": 64, "num_hidden_layers": 3, "type_vocab_size": 1} | overrides
    with every_family():
        model = CLASSES["torch"].build("Model", **sizes)
    if sick:
        with torch.no_grad():
            model.embeddings.word_embeddings.weight[SICK] = torch.nan
    model.save_pretrained(str(folder))
    flat = load(checkpoint=str(folder), heads=["encoder"], device="cpu", dtype=dtype)
    assert isinstance(flat, FlatRoberta)
    return flat


def pack(*lengths: int, causal: bool = False) -> Tokens:
    ids = np.random.default_rng(3).integers(4, SICK, sum(lengths)).astype(np.int32)
    return Tokens(ids, np.concatenate(([0], np.cumsum(lengths))).astype(np.int32), causal=causal)


def hidden(flat: FlatRoberta, tokens: Tokens, positions: np.ndarray | None = None) -> np.ndarray:
    if positions is None:
        positions = np.arange(len(tokens.input_ids_T), dtype=np.int32)
    return flat(tokens, {"encoder": Ask(positions)})["encoder"]["hidden"]


@every_order_of_norms
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("lengths", [LENGTHS, LENGTHS[::-1], (40,), (3, 2), (20, 20, 20), (15, 1)])
def test_reading_whole_vectors_of_keys_does_not_change_the_answers(
    lengths: tuple[int, ...], dtype: Dtype, model_type: str, tmp_path: Path
) -> None:
    flat, tokens = loaded(tmp_path, dtype=dtype, model_type=model_type), pack(*lengths)
    assert flat.whole_vectors
    for positions in (None, tokens.cu_seqlens[:-1]):
        fast = hidden(flat, tokens, positions)
        flat.whole_vectors = False
        np.testing.assert_allclose(fast, hidden(flat, tokens, positions), rtol=0, atol=TOLERANCES[dtype])
        flat.whole_vectors = True


@every_order_of_norms
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_fast_path_answers_as_the_class_does_to_each_sequence_alone(
    dtype: Dtype, model_type: str, tmp_path: Path
) -> None:
    flat, tokens = loaded(tmp_path, dtype=dtype, model_type=model_type), pack(*LENGTHS)
    with every_family(), torch.inference_mode():
        model = CLASSES["torch"].load("Model", str(tmp_path))
        ids = torch.from_numpy(tokens.input_ids_T.astype(np.int64))
        pairs = zip(tokens.cu_seqlens[:-1].tolist(), tokens.cu_seqlens[1:].tolist(), strict=True)
        plain = np.concatenate([model(ids[None, start:stop]).last_hidden_state[0].numpy() for start, stop in pairs])
    np.testing.assert_allclose(hidden(flat, tokens), plain, rtol=0, atol=2 * TOLERANCES[dtype])


def test_keys_of_a_group_are_whole_vectors_wherever_the_pack_has_room_for_them() -> None:
    attend = GroupAttention([], causal=False, whole_vectors=True)
    assert attend.window(0, 2, 15, 100) == (0, VECTOR)
    assert attend.window(85, 1, 15, 100) == (84, VECTOR)  # nothing follows: it reaches back
    assert attend.window(0, 1, 15, 15) == (0, 15)  # a pack of its own
    assert attend.window(0, 3, 16, 100) == (0, 16)
    assert GroupAttention([], causal=True, whole_vectors=True).window(0, 2, 15, 100) == (0, 15)


@every_order_of_norms
def test_a_nan_stays_with_its_sequence(model_type: str, tmp_path: Path) -> None:
    flat, tokens = loaded(tmp_path, sick=True, model_type=model_type), pack(*LENGTHS)
    healthy = hidden(flat, tokens)
    assert np.isfinite(healthy).all()
    for sick in range(len(LENGTHS)):
        start, stop = tokens.cu_seqlens[sick : sick + 2]
        ids = tokens.input_ids_T.copy()
        ids[start] = SICK
        found = hidden(flat, Tokens(ids, tokens.cu_seqlens))
        assert np.isnan(found[start:stop]).all()
        others = np.delete(np.arange(len(ids)), np.s_[start:stop])
        np.testing.assert_allclose(found[others], healthy[others], rtol=0, atol=TOLERANCES["float32"])


@every_order_of_norms
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("causal", [True, False])
def test_rows_that_fill_up_a_step_do_not_change_the_answers(
    causal: bool, dtype: Dtype, model_type: str, tmp_path: Path
) -> None:
    flat = loaded(tmp_path, dtype=dtype, is_decoder=causal, model_type=model_type)
    lengths = [13] * (ROWS_FROM // 13 + 1)
    tokens = pack(*lengths, causal=causal)
    assert len(tokens.input_ids_T) % ROWS_STEP
    for positions in (None, tokens.cu_seqlens[:-1], tokens.cu_seqlens[3:4], np.empty(0, np.int32)):
        answers = []
        for steps in (True, False):
            flat.steps = steps
            answers.append(hidden(flat, tokens, positions))
        assert answers[0].shape == answers[1].shape
        np.testing.assert_allclose(answers[0], answers[1], rtol=0, atol=TOLERANCES[dtype])


def test_passes_of_many_tokens_have_few_numbers_of_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flat, rows = loaded(tmp_path), []
    flat.steps = True
    plain = FlatLinear.__call__

    def watched(self: FlatLinear, rows_TH: torch.Tensor) -> torch.Tensor:
        rows.append(len(rows_TH))
        return plain(self, rows_TH)

    monkeypatch.setattr(FlatLinear, "__call__", watched)
    for count in range(40, 60):
        hidden(flat, pack(*[13] * count), np.arange(count, dtype=np.int32))
    assert {count % ROWS_STEP for count in rows} == {0}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_product_with_its_activation_or_sum_is_rounded_once(dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    linear = torch.nn.Linear(64, 48).to(dtype)
    rows_TH, sum_TO = torch.randn(37, 64).to(dtype), torch.randn(37, 48).to(dtype)
    plain_TO = functional.linear(rows_TH.double(), linear.weight.detach().double(), linear.bias.detach().double())
    flat = FlatLinear(linear)
    if dtype == torch.bfloat16 and flat.packed is None:
        pytest.skip("this processor has no products in bfloat16")
    rounding = ROUNDING if dtype == torch.bfloat16 else 1e-5
    with torch.inference_mode():
        for found_TO, expected_TO in (
            (flat.activated(rows_TH, functional.gelu), functional.gelu(plain_TO)),
            (flat.activated(rows_TH, torch.tanh), None),
            (flat.added(rows_TH, sum_TO), plain_TO + sum_TO.double()),
        ):
            expected_TO = torch.tanh(flat(rows_TH)).double() if expected_TO is None else expected_TO
            # 1e-5: exact GELU is a polynomial in oneDNN.
            torch.testing.assert_close(found_TO.double(), expected_TO, rtol=rounding, atol=1e-5)


# PyTorch's own import of its compiler.
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
@every_order_of_norms
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_compiled_parts_answer_as_uncompiled_ones_and_are_compiled_once(
    dtype: Dtype, model_type: str, tmp_path: Path
) -> None:
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        pytest.skip("no C++ compiler here")
    flat = loaded(tmp_path, dtype=dtype, model_type=model_type)
    assert flat.compiled is None  # on a CPU nothing is gained
    packs = [pack(*LENGTHS), pack(1), pack(2), pack(40, 40, 3)]
    plain = [hidden(flat, tokens) for tokens in packs]
    flat.compile_parts(wanted=True)
    assert flat.compiled is not None
    with torch._dynamo.config.patch(error_on_recompile=True):
        for tokens, expected in zip(packs, plain, strict=True):
            np.testing.assert_allclose(hidden(flat, tokens), expected, rtol=0, atol=TOLERANCES[dtype])
            firsts = tokens.cu_seqlens[:-1]
            np.testing.assert_allclose(hidden(flat, tokens, firsts), expected[firsts], rtol=0, atol=TOLERANCES[dtype])
    flat.compile_parts(wanted=False)
    assert flat.compiled is None


def test_where_nothing_can_be_compiled_answers_come_uncompiled_and_the_log_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise RuntimeError("Cannot find a working triton installation")

    flat, tokens = loaded(tmp_path), pack(*LENGTHS)
    expected = hidden(flat, tokens)
    monkeypatch.setattr(torch, "compile", refuse)
    with caplog.at_level(logging.WARNING):
        flat.compile_parts(wanted=True)
        found = [hidden(flat, tokens) for _ in range(2)]
    (record,) = caplog.records
    assert "uncompiled on cpu" in record.getMessage()
    assert "(RuntimeError: Cannot find a working triton installation)" in record.getMessage()
    np.testing.assert_array_equal(found[0], expected)


@pytest.mark.gpu
def test_a_gpu_in_half_precision_compiles_and_answers_as_uncompiled(tmp_path: Path) -> None:
    loaded(tmp_path)
    heads: list[Head] = ["encoder"]
    flat = load(checkpoint=str(tmp_path), heads=heads, device="cuda", dtype="bfloat16")
    assert isinstance(flat, FlatRoberta)
    assert flat.compiled is not None
    tokens = pack(*LENGTHS)
    compiled = hidden(flat, tokens)
    flat.compile_parts(wanted=False)
    np.testing.assert_allclose(compiled, hidden(flat, tokens), rtol=0, atol=TOLERANCES["bfloat16"])


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


@every_order_of_norms
@pytest.mark.parametrize("causal", [True, False])
def test_all_sequences_in_one_kernel_answer_as_the_groups(
    causal: bool, model_type: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flat = loaded(tmp_path, is_decoder=causal, type_vocab_size=2, model_type=model_type)
    tokens = pack_with_types(causal=causal)
    asked = everywhere(tokens)
    assert not flat.varlen
    groups = hidden(flat, tokens, asked)
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", varlen_reference)
    flat.varlen = True
    np.testing.assert_allclose(hidden(flat, tokens, asked), groups, rtol=0, atol=TOLERANCES["float32"])


@pytest.mark.parametrize(
    ("overrides", "dtype", "capability", "hip", "said"),
    [
        ({}, torch.bfloat16, (9, 0), None, None),
        ({}, torch.float16, (8, 0), None, None),
        ({}, torch.float32, (9, 0), None, "not in half precision"),
        ({}, torch.float16, (7, 5), None, "older than Ampere"),
        ({}, torch.bfloat16, (9, 4), "7.1", "ROCm"),
        ({"position_embedding_type": "relative_key"}, torch.bfloat16, (9, 0), None, "relative_key positions"),
        ({"hidden_size": 40, "num_attention_heads": 2}, torch.bfloat16, (9, 0), None, "heads of width 20"),
        ({"hidden_size": 528, "num_attention_heads": 2}, torch.bfloat16, (9, 0), None, "heads of width 264"),
    ],
)
def test_what_varlen_attn_does_not_take_is_said_by_name(
    overrides: dict[str, Any],
    dtype: torch.dtype,
    capability: tuple[int, int],
    hip: str | None,
    said: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(torch.version, "hip", hip)
    config = tiny_config(**{"hidden_size": 128, "num_attention_heads": 2, **overrides})
    reason = no_varlen(config, dtype=dtype, device=torch.device("cuda"))
    assert reason is None if said is None else said in str(reason)
    assert no_varlen(config, dtype=dtype, device=torch.device("cpu")) == "not on CUDA"
