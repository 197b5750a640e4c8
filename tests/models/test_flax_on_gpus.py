"""Flax as it runs on a GPU, looked at on a CPU: lowered for CUDA it attends through cuDNN, in rows of few shapes."""

import importlib.util
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

if importlib.util.find_spec("flax") is None:
    pytest.skip("flax is not installed", allow_module_level=True)

import jax

from models.boundary import Ask, Dtype, Head, Tokens
from models.checkpoint_writer import write_checkpoint
from models.load import load
from models.loading import start_of
from models.packed_rows import PIECE_ROWS, powers_up_to, row_pieces
from models.roberta_flax.flat import no_cudnn
from models.tensors import expected_tensors
from tests.models.tiny import tiny_config

pytestmark = pytest.mark.flax

TOLERANCE = 2e-5
CHECKS = ("check_cudnn_version", "check_compute_capability")
CUDNN = 91_000


def loaded(folder: Path, *, dtype: Dtype = "float32", head: Head = "encoder", **overrides: Any) -> Any:
    config = tiny_config(max_position_embeddings=514, type_vocab_size=1, **overrides)
    rng = np.random.default_rng(3)
    tensors = {
        name: np.full(shape, float(start_of(name) == "ones"), np.float32)
        if start_of(name) in ("ones", "zeros")
        else rng.standard_normal(shape, np.float32) * np.float32(0.3)
        for name, shape in expected_tensors(config=config, head=head).items()
    }
    write_checkpoint(url=str(folder), config=config, tensors=tensors)
    return load(checkpoint=str(folder), framework="flax", heads=[head], dtype=dtype, device="cpu")


def pack(*lengths: int) -> Tokens:
    ids = np.random.default_rng(1).integers(4, 50, sum(lengths)).astype(np.int32)
    return Tokens(ids, np.cumsum([0, *lengths]).astype(np.int32))


@pytest.fixture
def cudnn(monkeypatch: pytest.MonkeyPatch) -> None:
    """JAX asks for a cuDNN where it lowers for one: two checks of its own answer for a machine that has none."""
    module = importlib.import_module("jax._src.cudnn.fused_attention_stablehlo")
    moved = [name for name in CHECKS if not hasattr(module, name)]
    assert not moved, (
        f"{', '.join(moved)} of {module.__name__} have moved in jax {jax.__version__}: find them, or drop this"
    )
    monkeypatch.setattr(module, CHECKS[0], lambda: CUDNN)
    monkeypatch.setattr(module, CHECKS[1], lambda capability: float(capability) <= 8.0)


def lowered_for_cuda(flat: Any, rows: int) -> str:
    slots_RS = np.zeros((rows, 512), np.int32)
    inputs = (slots_RS, slots_RS, slots_RS, slots_RS)
    traced = flat.encode.trace(flat.params, *inputs, np.zeros(32, np.int32), causal=False)
    return str(traced.lower(lowering_platforms=("cuda",)).as_text())


def test_attention_is_cudnn_s_and_no_scores_are_written_in_float32(tmp_path: Path, cudnn: None) -> None:
    flat = loaded(tmp_path, dtype="bfloat16", hidden_size=128, num_attention_heads=2)
    flat.lay_out(few_shapes=True, kernel="cudnn")
    text = lowered_for_cuda(flat, 4)
    assert "__cudnn$fmha" in text
    assert not re.findall(r"tensor<[\dx]*512x512xf32>", text)
    flat.lay_out(few_shapes=True, kernel=None)
    without = lowered_for_cuda(flat, 4)
    assert "__cudnn" not in without


def test_what_cudnn_does_not_take_is_said(tmp_path: Path) -> None:
    class Gpu:
        platform = "gpu"

    import jax.numpy as jnp

    half: dict[str, Any] = {"dtype": jnp.bfloat16, "device": Gpu()}
    assert no_cudnn(tiny_config(hidden_size=128, num_attention_heads=2), **half) is None
    assert "width 10" in str(no_cudnn(tiny_config(hidden_size=20, num_attention_heads=2), **half))
    assert "half" in str(no_cudnn(tiny_config(), dtype=jnp.float32, device=Gpu()))
    assert "relative_key" in str(
        no_cudnn(tiny_config(hidden_size=16, num_attention_heads=2, position_embedding_type="relative_key"), **half)
    )


def test_rows_of_few_shapes_answer_as_narrow_ones_and_nothing_is_compiled_for_later_packs(tmp_path: Path) -> None:
    flat = loaded(tmp_path)
    rng = np.random.default_rng(0)
    packs = [pack(*rng.integers(1, 60, count).tolist()) for count in (3, 40, 90)]
    everything = [Ask(np.arange(len(tokens.input_ids_T), dtype=np.int32)) for tokens in packs]
    narrow = [
        flat(tokens, {"encoder": ask})["encoder"]["hidden"] for tokens, ask in zip(packs, everything, strict=True)
    ]
    flat.lay_out(few_shapes=True, kernel=None)
    flat.compile_shapes()
    compiled = flat.encode._cache_size()
    assert compiled == 2 * len(PIECE_ROWS)
    for tokens, ask, expected in zip(packs, everything, narrow, strict=True):
        found = flat(tokens, {"encoder": ask})["encoder"]["hidden"]
        np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)
        firsts = flat(tokens, {"encoder": Ask(tokens.cu_seqlens[:-1])})["encoder"]["hidden"]
        np.testing.assert_allclose(firsts, expected[tokens.cu_seqlens[:-1]], rtol=0, atol=TOLERANCE)
    assert flat.encode._cache_size() == compiled


def test_packs_in_arrival_order_fill_rows_of_one_width() -> None:
    from models.packed_rows import pack_rows
    from pipeline.inference.batching import TokenBudget, packs

    rng = np.random.default_rng(0)
    lengths = np.clip(60 * np.exp(0.9 * rng.standard_normal(8_000)), 4, 512).astype(np.int64)
    fills = {}
    for in_order in (False, True):
        rows = tokens = 0
        for chosen in packs(lengths_W=lengths, budget=TokenBudget(tokens=65_536), in_order=in_order):
            one = pack(*lengths[chosen].tolist())
            rows += pack_rows(tokens=one, width=512).rows
            tokens += len(one.input_ids_T)
        fills[in_order] = tokens / (512 * rows)
    assert fills[True] > 0.985
    assert fills[True] > fills[False] + 0.05


def test_pieces_of_few_sizes_cover_the_rows() -> None:
    assert row_pieces(rows=132, sizes=(64, 16, 4)) == [(0, 64), (64, 64), (128, 4)]
    assert row_pieces(rows=28, sizes=(64, 16, 4)) == [(0, 16), (16, 4), (20, 4), (24, 4)]
    assert powers_up_to(16) == (16, 8, 4, 2, 1)
    assert row_pieces(rows=7, sizes=powers_up_to(16)) == [(0, 4), (4, 2), (6, 1)]
