"""A run on two Ray workers ends like the same run in one process."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from jobs.training.spec import TrainSpec
from models.checkpoint import Checkpoint

SAME = 2e-5
"""Weights after a few steps: gradients are summed in another order."""


@pytest.mark.ray
@pytest.mark.torch
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray Train's own imports
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_two_workers_end_with_the_weights_of_one_that_accumulates(
    local_ray: None, make_spec: Callable[..., TrainSpec], tmp_path: Path
) -> None:
    from jobs.training.on_ray import train_on_ray
    from jobs.training.run import train

    names = ("text-classification", "fill-mask")
    alone = train(
        make_spec(*names, output="alone", steps=4, accumulation=2), on_progress=lambda progress: None, device="cpu"
    )
    shared = make_spec(*names, output="shared", steps=4, resources={"workers": 2, "cpus": 0.5})
    history = train_on_ray(shared)
    assert history[-1]["train_loss"] == pytest.approx(alone.history[-1]["train_loss"], abs=1e-4)
    for name in names:
        first, second = (
            {key: np.array(value) for key, value in Checkpoint.open(str(tmp_path / run / name)).stream()}
            for run in ("alone", "shared")
        )
        for key, value in first.items():
            np.testing.assert_allclose(second[key], value, atol=SAME, err_msg=key)
