"""TensorFlow as it runs on a GPU, tried on a CPU: packed rows of few shapes, which XLA compiles."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.boundary import Head, Tokens
from models.packed_rows import PIECE_ROWS
from tests.gpu.golden_cases import HEADS, TOLERANCES, distance
from tests.models.flat import everywhere, hidden, pack, saved
from tests.models.frameworks import CLASSES
from tests.models.tiny import near

pytestmark = pytest.mark.tensorflow

TENSORFLOW = CLASSES["tensorflow"]
LOOPS_AND_WAITS = {"While", "StatelessWhile", "Where", "TensorListReserve", "TensorListSetItem", "TensorListConcatV2"}
"""A loop, its arrays, and what `boolean_mask` is made of: a result whose size the host has to wait for."""
SMALL = {"num_hidden_layers": 1}
SLOW_HEADS = ("encoder", "masked-lm", "sequence-classification", "token-classification", "question-answering")


def rows_under_xla(model: Any) -> None:
    model.lay_out(few_shapes=True)


@pytest.mark.parametrize(
    "head", [pytest.param(head, marks=[pytest.mark.slow] if head in SLOW_HEADS else []) for head in HEADS]
)
def test_rows_under_xla_answer_as_the_reference(head: Head, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "models.roberta_tf.flat_rows.PIECE_ROWS", PIECE_ROWS[-1:]
    )  # the sizes of other packs take seconds
    found = distance(head=head, framework="tensorflow", dtype="float32", device="cpu", prepared=rows_under_xla)
    assert found < TOLERANCES["float32"]


@pytest.mark.parametrize(
    "overrides",
    [
        {"is_decoder": True, "position_embedding_type": "relative_key", "max_position_embeddings": 24, **SMALL},
        pytest.param({"model_type": "roberta"}, marks=pytest.mark.slow),
        pytest.param({"num_hidden_layers": 0}, marks=pytest.mark.slow),
        pytest.param({"chunk_size_feed_forward": 3}, marks=pytest.mark.slow),
    ],
)
def test_rows_answer_as_groups_of_equal_lengths(overrides: dict[str, Any], tmp_path: Path) -> None:
    """Also where rows are wider than the table of distances reaches."""
    saved(TENSORFLOW, "encoder", tmp_path, **overrides)
    flat = TENSORFLOW.flat(tmp_path, "encoder")
    tokens = pack((3, 9, 10, 2, 21, 9, 1, 23), causal=overrides.get("is_decoder", False))
    asked = everywhere(tokens)
    expected = hidden(flat, tokens, asked)
    firsts = hidden(flat, tokens, tokens.cu_seqlens[:-1])
    flat.lay_out(few_shapes=True, compiled=False)
    near(hidden(flat, tokens, asked), expected)
    near(hidden(flat, tokens, tokens.cu_seqlens[:-1]), firsts)


def test_a_text_of_typed_pads_may_be_longer_than_a_row(tmp_path: Path) -> None:
    saved(TENSORFLOW, "encoder", tmp_path, **SMALL)
    flat = TENSORFLOW.flat(tmp_path, "encoder")
    ids = np.full(70, flat.config.pad_token_id, np.int32)
    ids[::9] = 5
    tokens = Tokens(ids, np.array([0, 70], np.int32))
    expected = hidden(flat, tokens)
    flat.lay_out(few_shapes=True, compiled=False)
    near(hidden(flat, tokens), expected)


def test_float32_is_multiplied_in_float32(tmp_path: Path) -> None:
    import tensorflow as tf

    saved(TENSORFLOW, "encoder", tmp_path, num_hidden_layers=0)
    tf.config.experimental.enable_tensor_float_32_execution(True)
    TENSORFLOW.flat(tmp_path, "encoder")
    assert not tf.config.experimental.tensor_float_32_execution_enabled()


def operations(function: Any) -> set[str]:
    """What a concrete function computes with, its inner functions' operations among them."""
    graph = function.graph.as_graph_def()
    inner = (node for one in graph.library.function for node in one.node_def)
    return {node.op for node in (*graph.node, *inner)}


def test_a_layer_has_no_loop_and_waits_for_no_size(tmp_path: Path) -> None:
    import tensorflow as tf

    saved(TENSORFLOW, "encoder", tmp_path, **SMALL)
    flat = TENSORFLOW.flat(tmp_path, "encoder")
    spec_RS, spec_U = tf.TensorSpec((4, 32), tf.int32), tf.TensorSpec((8,), tf.int32)
    flat.lay_out(few_shapes=True)
    ours = operations(flat.rows.encode.get_concrete_function(*[spec_RS] * 4, spec_U, causal=False))
    assert "BatchMatMulV2" in ours
    assert not ours & LOOPS_AND_WAITS
    assert operations(flat.graphs[False].get_concrete_function()) & LOOPS_AND_WAITS  # so that a loop would be seen


def test_every_shape_is_compiled_at_load_and_none_for_later_packs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = PIECE_ROWS[1:]  # the largest takes seconds to compile
    monkeypatch.setattr("models.roberta_tf.flat_rows.PIECE_ROWS", sizes)
    saved(TENSORFLOW, "encoder", tmp_path, **SMALL)
    flat = TENSORFLOW.flat(tmp_path, "encoder")
    flat.lay_out(few_shapes=True)
    facts = flat.try_out()
    assert facts["attention"] == "packed rows under XLA"
    assert facts["compiled"] is True
    compiled = 2 * len(sizes)
    assert flat.rows.encode.experimental_get_tracing_count() == compiled
    rng = np.random.default_rng(0)
    for count in (3, 150, 700):
        tokens = pack((21, *rng.integers(1, 30, count).tolist()))
        for asked in (tokens.cu_seqlens[:-1], everywhere(tokens)):
            assert np.isfinite(hidden(flat, tokens, asked)).all()
    assert flat.rows.encode.experimental_get_tracing_count() == compiled


def test_what_xla_can_t_compile_runs_without_it_and_is_reported(tmp_path: Path) -> None:
    import tensorflow as tf

    saved(TENSORFLOW, "encoder", tmp_path, **SMALL)
    flat = TENSORFLOW.flat(tmp_path, "encoder")
    tokens = pack()
    expected = hidden(flat, tokens)
    inner = flat.base.encoder.layer[0].intermediate
    known = inner.activation
    inner.activation = lambda wide: known(tf.ensure_shape(tf.py_function(lambda x: x, [wide], wide.dtype), wide.shape))
    flat.lay_out(few_shapes=True)
    facts = flat.try_out()
    assert str(facts["attention"]).startswith("packed rows without XLA (")
    assert facts["compiled"] is False
    near(hidden(flat, tokens), expected)
