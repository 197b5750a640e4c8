"""Runs a training spec: writes a checkpoint folder, its history and its learning curve. Needs torch, not Ray.

`python -m jobs.training.run train.yaml` trains on a bare machine; `preln train` does the same, or gives it to Ray Train
where the spec names resources.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from jobs.training.curve import draw_curve
from jobs.training.loop import SNAPSHOTS, Place, Progress, Run
from jobs.training.network import write_network
from jobs.training.prepare import Prepared, prepare
from jobs.training.spec import TrainSpec
from pipeline.plurals import duration
from pipeline.store.storage import join, put

OnProgress = Callable[[Progress], None]
# oneDNN keeps its kernels by shape, and batches have ever new ones: by default gigabytes of them.
KERNELS = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "256"}


@dataclass(frozen=True)
class Trained:
    """What a run made: checkpoint folders, and the history, one entry an evaluation."""

    folders: list[str]
    history: list[dict[str, Any]]


def train(spec: TrainSpec, *, on_progress: OnProgress | None = None, device: str | None = None) -> Trained:
    """Train in this process, from the newest snapshot in the output if there is one. Raises SpecError."""
    place = Place(device=device or ("cuda" if torch.cuda.is_available() else "cpu"))
    return train_prepared(prepare(spec), place=place, on_progress=on_progress or progress_lines(spec))


def train_prepared(prepared: Prepared, *, place: Place, on_progress: OnProgress) -> Trained:
    """One process's part of a run; the first one writes."""
    for variable, value in KERNELS.items():
        os.environ.setdefault(variable, value)
    network = prepared.network().to(place.device)
    run = Run(
        spec=prepared.spec,
        network=network,
        data=prepared.data,
        place=place,
        fingerprint=prepared.fingerprint,
        on_progress=on_progress if place.rank == 0 else _silent,
    )
    history = run.train()
    if place.rank:
        return Trained(folders=[], history=history)
    spec = prepared.spec
    folders = write_network(network, url=spec.output, tokenizer_files=prepared.tokenizer_files, dtype=spec.save_dtype)
    put(join(spec.output, SNAPSHOTS, "history.json"), (json.dumps(history, indent=1) + "\n").encode())
    if (drawn := draw_curve(history)) is not None:
        put(join(spec.output, SNAPSHOTS, "curve.svg"), drawn)
    return Trained(folders=folders, history=history)


def _silent(progress: Progress) -> None:
    """Only the first process speaks."""


def progress_lines(spec: TrainSpec) -> "ProgressLines":
    """What prints the progress of a run of this spec."""
    return ProgressLines(at_most=spec.patience is not None)


class ProgressLines:
    """A line every so often: step, loss, rate, and the time left, evaluations included. at_most: training may stop earlier."""

    def __init__(self, *, at_most: bool = False, every_s: float = 10.0) -> None:
        self._about = "at most" if at_most else "about"
        self._every_s = every_s
        self._last = time.monotonic()

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if not progress.evaluation and now - self._last < self._every_s:
            return
        self._last = now
        parts = [f"step {progress.step:,}/{progress.steps:,}", f"loss {progress.loss:.4f}", f"rate {progress.rate:.2e}"]
        parts += [
            f"{task}: {' '.join(f'{name} {value:.4f}' for name, value in numbers.items())}"
            for task, numbers in progress.evaluation.items()
        ]
        if progress.seconds_left is not None and progress.step < progress.steps:
            parts.append(f"{self._about} {duration(progress.seconds_left)} left")
        sys.stderr.write("  ".join(parts) + "\n")
        sys.stderr.flush()


def main(arguments: Sequence[str] | None = None) -> None:
    """Train what a YAML file says."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if len(given) != 1:
        sys.exit("usage: python -m jobs.training.run train.yaml")
    trained = train(TrainSpec.from_yaml(Path(given[0]).read_text(encoding="utf-8")))
    print("\n".join(trained.folders))


if __name__ == "__main__":
    main()
