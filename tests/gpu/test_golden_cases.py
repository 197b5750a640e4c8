"""The committed cases themselves, on a CPU: what the acceptance suite holds a GPU against is right here."""

import pytest

from models.boundary import Dtype, Framework, Head
from tests.gpu.golden_cases import HEADS, TOLERANCES, distance


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(
    ("framework", "dtype"),
    [
        pytest.param("torch", "float32", marks=pytest.mark.torch),
        pytest.param("torch", "bfloat16", marks=pytest.mark.torch),
        pytest.param("flax", "float32", marks=pytest.mark.flax),
        pytest.param("tensorflow", "float32", marks=pytest.mark.tensorflow),
    ],
)
def test_a_cpu_answers_as_the_reference(framework: Framework, dtype: Dtype, head: Head) -> None:
    assert distance(head=head, framework=framework, dtype=dtype, device="cpu") < TOLERANCES[dtype]
