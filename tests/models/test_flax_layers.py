"""LayerNorm and dropout of our own in Flax: derivatives, accuracy, shares and seeds."""

import importlib.util
from typing import Any

import numpy as np
import pytest

if importlib.util.find_spec("flax") is None or importlib.util.find_spec("jax") is None:
    pytest.skip("flax is not installed", allow_module_level=True)

import jax
import jax.numpy as jnp
from flax import linen as nn

from models.config import RobertaPreLayerNormConfig
from models.roberta_flax.layers import Dropout, LayerNorm, layer_norm, normalise

pytestmark = pytest.mark.flax

DERIVATIVE_TOLERANCE = 2e-4  # of sums of cubes up to about 100
SHIFTED_TOLERANCE = 2e-2  # at mean 1,000, where float32 keeps four digits behind the point
SAME_TOLERANCE = {"float32": 2e-6, "bfloat16": 0.02}  # of values up to about 4, in two orders of operations


def near(found: Any, expected: Any, tolerance: float) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_layer_norm_is_linen_s_in_parameters_types_and_answers(dtype: str) -> None:
    values = jnp.asarray(np.random.default_rng(1).normal(size=(4, 64)), dtype)
    theirs = nn.LayerNorm(epsilon=1e-5, dtype=dtype, use_fast_variance=False)
    params = theirs.init(jax.random.PRNGKey(0), values)
    ours = LayerNorm(epsilon=1e-5, dtype=jnp.dtype(dtype))
    assert jax.tree.map(jnp.shape, ours.init(jax.random.PRNGKey(0), values)) == jax.tree.map(jnp.shape, params)
    found: Any = ours.apply(params, values)
    expected: Any = theirs.apply(params, values)
    assert found.dtype == expected.dtype == dtype
    near(found.astype(jnp.float32), expected.astype(jnp.float32), SAME_TOLERANCE[dtype])


def test_the_layer_norm_s_derivatives_are_those_of_its_formula_in_either_direction() -> None:
    def ours(values: Any, scale: Any, bias: Any) -> Any:
        return (normalise(values, scale, bias, jnp.float32(1e-5)) ** 3).sum()

    def formula(values: Any, scale: Any, bias: Any) -> Any:
        centred = values - values.mean(-1, keepdims=True)
        normed = centred / jnp.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
        return ((normed * scale + bias) ** 3).sum()

    draw = np.random.default_rng(0)
    values, scale, bias, towards = (
        jnp.asarray(draw.normal(size=size), jnp.float32) for size in ((3, 5, 8), 8, 8, (3, 5, 8))
    )
    for found, expected in zip(
        jax.grad(ours, (0, 1, 2))(values, scale, bias), jax.grad(formula, (0, 1, 2))(values, scale, bias), strict=True
    ):
        near(found, expected, DERIVATIVE_TOLERANCE)
    hessians = [jax.jvp(lambda x, f=f: jax.grad(f)(x, scale, bias), (values,), (towards,))[1] for f in (ours, formula)]
    near(hessians[0], hessians[1], DERIVATIVE_TOLERANCE)


def test_a_shifted_input_keeps_its_variance_in_the_layer_norm() -> None:
    values = np.random.default_rng(0).normal(size=(4, 64))
    norm = layer_norm(RobertaPreLayerNormConfig(layer_norm_eps=1e-12), jnp.float32)
    normed, _ = norm.init_with_output(jax.random.PRNGKey(0), values + 1000.0)
    exact = (values - values.mean(-1, keepdims=True)) / values.std(-1, keepdims=True)
    # E[x²] - E[x]² in float32 is off by 0.4 here.
    near(normed, exact, SHIFTED_TOLERANCE)


def test_dropout_zeroes_its_part_and_keeps_the_expectation() -> None:
    drop = Dropout(0.1)
    ones = jnp.ones((1000, 1001))  # an odd number of elements
    found = np.asarray(drop.apply({}, ones, deterministic=False, rngs={"dropout": jax.random.PRNGKey(0)}))
    # A million draws: the standard deviation of the share is 0.0003.
    assert abs((found == 0).mean() - 0.1) < 0.0015
    assert abs(found.mean() - 1.0) < 0.002
    assert (np.asarray(drop.apply({}, ones, deterministic=True)) == 1).all()
    everything = Dropout(1.0).apply({}, ones, deterministic=False, rngs={"dropout": jax.random.PRNGKey(0)})
    assert not np.asarray(everything).any()
