"""What each task of a job may know about the model, and what it asks of it."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache

from models.boundary import Device, Head, HeadAsk
from models.checkpoint import Checkpoint
from models.embedder_folder import read_embedder
from models.named_heads import head_folder
from models.tokenizer import load_tokenizer
from pipeline.errors import SpecError
from pipeline.inference.child import LoadOrder
from pipeline.spec.job_spec import JobSpec
from pipeline.tasks.task import ModelFacts

MODEL_LOADER = "models.load:load"
EMBEDS = "feature-extraction"


def facts_of(spec: JobSpec) -> dict[str, ModelFacts]:
    """What each of the job's tasks may know about its head's checkpoint, by task name; read once per process.

    Raises CheckpointError, SpecError.
    """
    return {
        name: _model_facts(spec.model.checkpoint, task.head_folder, spec.model.max_length, task.task.name == EMBEDS)
        for name, task in spec.named_tasks.items()
    }


def asks_of(spec: JobSpec, facts: Mapping[str, ModelFacts]) -> dict[str, HeadAsk]:
    """What each of the job's tasks asks of the model."""
    return {
        name: replace(task.task.asks(facts[name]), name=task.head_folder) for name, task in spec.named_tasks.items()
    }


def heads_of(spec: JobSpec, facts: Mapping[str, ModelFacts]) -> tuple[Head, ...] | dict[str, Head]:
    """The heads that the model must have: their kinds if the job has `task`, else name -> kind."""
    if spec.tasks:
        return {name: ask.head for name, ask in asks_of(spec, facts).items()}
    ((name, task),) = spec.named_tasks.items()
    return task.task.heads(facts[name])


def load_order(spec: JobSpec, *, dtype: str, device: Device, loader: str = MODEL_LOADER) -> LoadOrder:
    """What the model's process loads for this job, and on which device."""
    return LoadOrder(
        loader=loader,
        checkpoint=spec.model.checkpoint,
        framework=spec.model.framework,
        heads=heads_of(spec, facts_of(spec)),
        dtype=dtype,
        device=device,
    )


@cache
def _model_facts(root: str, folder: str | None, wanted_length: int | None, embeds: bool) -> ModelFacts:
    checkpoint = root if folder is None else head_folder(checkpoint=root, name=folder)
    opened = Checkpoint.open(checkpoint)
    config = opened.config
    tokenizer = load_tokenizer(checkpoint)
    limit = config.max_position_embeddings - config.pad_token_id - 1
    limit = min(limit, tokenizer.model_max_length or limit)
    embedder = read_embedder(checkpoint) if embeds else None
    default = limit if embedder is None else min(limit, embedder.max_length or limit)
    if wanted_length is not None and wanted_length > limit:
        raise SpecError(
            f"model.max_length: {wanted_length} tokens are more than the {limit} that {checkpoint} can take"
        )
    return ModelFacts(
        config=config,
        tokenizer=tokenizer,
        max_length=wanted_length or default,
        embedder=embedder,
        calibration=opened.calibration,
    )
