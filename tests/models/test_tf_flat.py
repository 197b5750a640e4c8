"""TensorFlow's flat path: groups with pads answer as those without, and one graph serves every pack."""

from pathlib import Path

import numpy as np
import pytest

from tests.models.flat import both, everywhere, hidden, pack, saved
from tests.models.frameworks import CLASSES
from tests.models.tiny import near

pytestmark = pytest.mark.tensorflow

TENSORFLOW = CLASSES["tensorflow"]


@pytest.mark.parametrize(
    ("causal", "family"),
    [pytest.param(False, {}, marks=pytest.mark.slow), (True, {}), (False, {"model_type": "roberta"})],
)
def test_padded_groups_answer_as_equal_ones_do(causal: bool, family: dict[str, str], tmp_path: Path) -> None:
    saved(TENSORFLOW, "encoder", tmp_path, is_decoder=causal, **family)
    tokens = pack((3, 9, 10, 2, 30, 9, 1, 31), causal=causal)
    _, equal = both(TENSORFLOW, "encoder", position_embedding_type="absolute", is_decoder=causal, **family)
    padded = TENSORFLOW.flat(tmp_path, "encoder")
    padded.padded = True
    asked = everywhere(tokens)
    near(hidden(padded, tokens, asked), hidden(equal, tokens, asked))


def test_no_length_or_number_of_sequences_traces_the_graph_again() -> None:
    _, flat = both(TENSORFLOW, "encoder", position_embedding_type="absolute", is_decoder=False)
    for lengths in ((3,), (5, 5, 1), (30, 2), (1, 2, 3, 4)):
        hidden(flat, pack((21, *lengths)), np.array([0], np.int32))
    assert flat.graphs[False].experimental_get_tracing_count() == 1
