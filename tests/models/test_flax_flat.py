"""Flax's flat path: pieces, slices and compiled shapes of a pack, its devices and its threads."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.boundary import Ask
from models.errors import PrelnError
from models.packed_rows import power_of_two
from tests.models.flat import pack, rows, saved, seen_by
from tests.models.frameworks import CLASSES
from tests.models.tiny import near

pytestmark = pytest.mark.flax

FLAX = CLASSES["flax"]


@pytest.mark.parametrize("model_type", ["roberta-prelayernorm", "roberta"])
def test_pieces_of_a_pack_and_slices_of_the_vocabulary_change_nothing(model_type: str, tmp_path: Path) -> None:
    saved(FLAX, "masked-lm", tmp_path, model_type=model_type)
    whole, parts = (FLAX.flat(tmp_path, "encoder", "masked-lm") for _ in range(2))
    parts.largest_piece = 1
    parts.heads["masked-lm"].at_once = 2
    tokens = pack()
    every_second = np.concatenate([np.arange(row.start, row.stop, 2) for row in rows(tokens)]).astype(np.int32)
    asks = {
        "encoder": Ask(every_second, reduce="mean"),
        "masked-lm": Ask(np.array([33, 2, 40], np.int32), top_k=4),
    }
    expected, found = whole(tokens, asks), parts(tokens, asks)
    near(found["encoder"]["hidden"], expected["encoder"]["hidden"])
    near(found["masked-lm"]["probs"], expected["masked-lm"]["probs"])
    assert (found["masked-lm"]["ids"] == expected["masked-lm"]["ids"]).all()


def test_packs_of_many_sizes_are_compiled_for_few_shapes(tmp_path: Path) -> None:
    model = saved(FLAX, "sequence-classification", tmp_path)
    flat = FLAX.flat(tmp_path, "sequence-classification")
    flat.largest_piece = 2 * power_of_two(flat.config.max_tokens)
    found: Any = None
    for count in (18, 31, 40, 52):
        tokens = pack([7] * count)
        found = flat(tokens, {"sequence-classification": Ask(tokens.cu_seqlens[:-1])})
    near(found["sequence-classification"]["logits"], seen_by(FLAX, model, tokens)["logits"])
    # Pieces of one row and of two, asked for few or for many of their slots.
    assert flat.encode._cache_size() <= 4


def test_a_device_that_is_not_there_is_named(tmp_path: Path) -> None:
    saved(FLAX, "encoder", tmp_path)
    with pytest.raises(PrelnError, match="device is 'cpu:99', JAX sees 1 of that kind"):
        FLAX.flat(tmp_path, "encoder", device="cpu:99")
    with pytest.raises(PrelnError, match="device is 'toaster'"):
        FLAX.flat(tmp_path, "encoder", device="toaster")


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
