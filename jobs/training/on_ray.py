"""Runs the same training on the workers of a Ray cluster, with Ray Train.

Every worker reads the data itself and takes its share of each step's batches; gradients are averaged. A worker that dies ends
the attempt, and Ray Train starts all again from the newest snapshot.
"""

import json
from pathlib import Path
from typing import Any

from jobs.training.loop import SNAPSHOTS, Place
from jobs.training.prepare import prepare
from jobs.training.run import progress_lines, train_prepared
from jobs.training.spec import TrainResources, TrainSpec
from pipeline.errors import RunFailed
from pipeline.store.storage import join, read_bytes

FAILURES = 3
"""Attempts after a worker's death before the run is given up."""


def train_on_ray(spec: TrainSpec) -> list[dict[str, Any]]:
    """Train on the connected cluster; the history. Ray Train keeps its own records below the output, in `training`.

    Raises SpecError before anything is started, RunFailed where the workers fail for good.
    """
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    resources = spec.resources or TrainResources()
    prepare(spec)  # what is wrong with the spec or the data is said here, not by a worker
    trainer = TorchTrainer(
        _on_a_worker,
        train_loop_config={"spec": spec.model_dump(mode="json")},
        scaling_config=ScalingConfig(
            num_workers=resources.workers,
            use_gpu=resources.gpu,
            resources_per_worker={"CPU": resources.cpus, **({"GPU": 1} if resources.gpu else {})},
        ),
        run_config=RunConfig(
            storage_path=_records(spec.output), name="ray", failure_config=FailureConfig(max_failures=FAILURES)
        ),
    )
    try:
        trainer.fit()
    except Exception as error:  # Ray Train's own classes differ between its versions
        raise RunFailed(f"training failed on the cluster: {error}") from error
    history: list[dict[str, Any]] = json.loads(read_bytes(join(spec.output, SNAPSHOTS, "history.json")))
    return history


def _records(output: str) -> str:
    """A place that Ray Train takes: a URL, or an absolute path."""
    place = join(output, SNAPSHOTS)
    return place if "://" in place else str(Path(place).absolute())


def _on_a_worker(config: dict[str, Any]) -> None:
    import ray.train
    import ray.train.torch

    context = ray.train.get_context()
    place = Place(
        rank=context.get_world_rank(),
        workers=context.get_world_size(),
        device=str(ray.train.torch.get_device()),
    )
    spec = TrainSpec.parse(config["spec"])
    train_prepared(prepare(spec), place=place, on_progress=progress_lines(spec))
