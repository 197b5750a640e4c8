"""TensorFlow's flat path: on a CPU one graph serves every pack."""

import numpy as np
import pytest

from tests.models.flat import both, hidden, pack
from tests.models.frameworks import CLASSES

pytestmark = pytest.mark.tensorflow

TENSORFLOW = CLASSES["tensorflow"]


def test_no_length_or_number_of_sequences_traces_the_graph_again() -> None:
    _, flat = both(TENSORFLOW, "encoder", position_embedding_type="absolute", is_decoder=False)
    for lengths in ((3,), (5, 5, 1), (30, 2), (1, 2, 3, 4)):
        hidden(flat, pack((21, *lengths)), np.array([0], np.int32))
    assert flat.graphs[False].experimental_get_tracing_count() == 1
