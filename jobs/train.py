"""`preln train`: runs a training spec, and writes a checkpoint folder for `preln annotate`."""

import importlib.util
import json
from pathlib import Path
from typing import Annotated

import typer

from pipeline.errors import SpecError


def train(
    spec_file: Annotated[Path, typer.Argument(help="Training file (YAML).", metavar="TRAIN.YAML")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the history as JSON.")] = False,
) -> None:
    """Pretrain an encoder or fine-tune heads on it. To resume a killed run, give the same command again.

    In this process, or by Ray Train on the cluster where the file names `resources`.
    """
    from jobs.connect import connect
    from jobs.training.spec import TrainSpec

    try:
        spec = TrainSpec.from_yaml(spec_file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SpecError(f"{spec_file}: {error.strerror or error}") from None
    if importlib.util.find_spec("torch") is None:
        raise SpecError("training needs PyTorch: pip install 'preln[train]'")
    if spec.resources is None:
        from jobs.training.run import train as train_here

        trained = train_here(spec)
        history = trained.history
    else:
        from jobs.training.on_ray import train_on_ray

        connect()
        history = train_on_ray(spec)
    if as_json:
        print(json.dumps(history))
    else:
        print(f"Done: the checkpoint is in {spec.output}")
