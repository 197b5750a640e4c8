"""A job and its checkpoint in, what each task may know of the model and asks of it out."""

from collections.abc import Mapping
from functools import cache

from models.boundary import Head, HeadAsk
from models.checkpoint import Checkpoint
from models.named_heads import head_folder
from models.tokenizer import load_tokenizer
from pipeline.errors import SpecError
from pipeline.spec.job_spec import JobSpec
from pipeline.tasks.task import ModelFacts


def model_facts(spec: JobSpec) -> ModelFacts:
    """What the task of a job of one may know of its checkpoint; read once a process. Raises CheckpointError, SpecError."""
    return _model_facts(spec.model.checkpoint, "", spec.model.max_length)


def facts_of(spec: JobSpec) -> dict[str, ModelFacts]:
    """What each of the job's tasks may know of its head's checkpoint, by the names of `JobSpec.each`."""
    return {name: _model_facts(spec.model.checkpoint, name, spec.model.max_length) for name in spec.each()}


def asks_of(spec: JobSpec, facts: Mapping[str, ModelFacts]) -> dict[str, HeadAsk]:
    """What each of the job's tasks asks of the model."""
    return {name: one.one_task.asks(facts[name]) for name, one in spec.each().items()}


def heads_of(spec: JobSpec, facts: Mapping[str, ModelFacts]) -> tuple[Head, ...] | dict[str, Head]:
    """The heads that the model must have: kinds in a job of one task, else name -> kind."""
    if not spec.tasks:
        return spec.one_task.heads(facts[""])
    return {name: ask.head for name, ask in asks_of(spec, facts).items()}


@cache
def _model_facts(root: str, name: str, wanted_length: int | None) -> ModelFacts:
    checkpoint = head_folder(checkpoint=root, name=name) if name else root
    config = Checkpoint.open(checkpoint).config
    tokenizer = load_tokenizer(checkpoint)
    limit = config.max_position_embeddings - config.pad_token_id - 1
    limit = min(limit, tokenizer.model_max_length or limit)
    if wanted_length is not None and wanted_length > limit:
        raise SpecError(
            f"model.max_length: {wanted_length} tokens are more than {checkpoint} can take, which is {limit}"
        )
    return ModelFacts(config=config, tokenizer=tokenizer, max_length=wanted_length or limit)
