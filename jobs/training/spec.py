"""A training run as a user writes it (YAML), checked, completed and printable: TrainSpec."""

from typing import Annotated, Any, Literal, TypeAlias

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from models.boundary import Head
from pipeline.errors import SpecError
from pipeline.spec.job_spec import Urls
from pipeline.spec.settings import YAML_FAULTS
from pipeline.urls import Url

TaskName: TypeAlias = Literal[
    "fill-mask", "text-classification", "token-classification", "question-answering", "multiple-choice"
]
HEAD_OF: dict[TaskName, Head] = {
    "fill-mask": "masked-lm",
    "text-classification": "sequence-classification",
    "token-classification": "token-classification",
    "question-answering": "question-answering",
    "multiple-choice": "multiple-choice",
}
ENCODER = "encoder"
"""Name of the folder that several heads share, which no head may have."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class TrainModel(_Section):
    """What training starts from: a checkpoint, or a config and a tokenizer."""

    checkpoint: Url | None = None
    """Folder to start from; heads that it lacks are initialised."""
    tokenizer: Url | None = None
    """Folder of a tokenizer (`preln tokenizer train`), for a model that is initialised."""
    config: dict[str, Any] = {}
    """Fields of config.json, such as {hidden_size: 256}: of the new model, or instead of the checkpoint's (dropout)."""

    @model_validator(mode="after")
    def _starts_somewhere(self) -> "TrainModel":
        if (self.checkpoint is None) == (self.tokenizer is None):
            raise ValueError("name either a checkpoint to go on from, or a tokenizer to start afresh with")
        return self


class TrainTask(_Section):
    """One head and what it learns from."""

    task: TaskName
    """fill-mask (pretraining), text-classification, token-classification, question-answering or multiple-choice."""
    data: Urls
    """Files, folders or globs to train on: Parquet, Arrow, JSON Lines, CSV, text."""
    eval: Urls | None = None
    """The same, to evaluate on; never trained on."""
    columns: dict[str, str] = {}
    """Part -> column, such as {text: body, label: topic}; a part that is not named is the column of its name."""
    labels: list[str] | None = None
    """Names of the labels in the order of their ids; those of the data, sorted, when absent."""
    mask_rate: float = Field(default=0.15, gt=0, le=0.4)
    """fill-mask: share of a text's tokens to mask, sampled again each time; up to 0.4 for small models."""
    repeat: int = Field(default=1, ge=1)
    """How often this data is seen while the longest task's is seen once."""
    weight: float = Field(default=1.0, gt=0)
    """Factor of this task's loss."""


class TrainResources(_Section):
    """What the run runs on, by Ray Train; one worker in this process when absent."""

    workers: int = Field(default=1, ge=1)
    """Processes that share each step's batches."""
    gpu: bool = False
    """Whether each has a GPU."""
    cpus: float = Field(default=1, gt=0)
    """CPU cores of each."""


def _model(value: object) -> object:
    return {"checkpoint": value} if isinstance(value, str) else value


class TrainSpec(_Section):
    """One training run: `tasks` learnt from `model` on, the checkpoint written to `output`."""

    model: Annotated[TrainModel, BeforeValidator(_model)]
    """A checkpoint's folder, or a mapping of the keys below."""
    tasks: dict[str, TrainTask] = Field(min_length=1)
    """Heads over one encoder, by name. One: `output` is its checkpoint. Several: each is a folder in `output` beside
    `encoder`, where the encoder lies once."""
    output: Url
    """Folder at any URL; the same command on the same folder resumes a killed run."""
    seed: int = 0
    """Of the new weights, batches, masks and dropout."""
    epochs: float | None = Field(default=None, gt=0)
    """Passes over the data; 3 when neither epochs nor steps are given."""
    steps: int | None = Field(default=None, ge=1)
    """Optimizer steps, instead of epochs."""
    batch_tokens: int = Field(default=4096, ge=16)
    """Tokens, pads included, of one pass through the model."""
    accumulation: int = Field(default=1, ge=1)
    """Passes whose gradients make one step, on each worker."""
    max_length: int | None = Field(default=None, ge=8)
    """Tokens of a text; the checkpoint's or the tokenizer's limit when absent."""
    learning_rate: float = Field(default=5e-4, gt=0)
    """Of AdamW, its highest: after the warmup."""
    warmup: float = Field(default=0.06, ge=0, lt=1)
    """Share of the steps in which the rate rises from 0."""
    decay: Literal["linear", "cosine", "none"] = "linear"
    """How the rate falls to 0 afterwards."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Of matrices; biases and LayerNorms have none."""
    clip: float = Field(default=1.0, gt=0)
    """Largest norm of a step's gradient."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of forward and backward (autocast; weights stay float32); auto is bfloat16 where the processor has it."""
    save_dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    """Type that the checkpoint is stored in."""
    evaluate_every: int | None = Field(default=None, ge=1)
    """Steps between evaluations; when absent, a tenth of all steps, but at least 20. The last step is always evaluated."""
    patience: int | None = Field(default=None, ge=1)
    """Stop after so many evaluations without a better loss, and keep the best weights."""
    save_every: int | None = Field(default=None, ge=1)
    """Steps between snapshots to resume from; as evaluate_every when absent."""
    resources: TrainResources | None = None
    """What each worker of a Ray cluster gets; one process on this machine when absent."""

    @model_validator(mode="after")
    def _is_possible(self) -> "TrainSpec":
        if self.epochs is not None and self.steps is not None:
            raise ValueError("give epochs or steps, not both")
        if ENCODER in self.tasks:
            raise ValueError(f"a task can't be named {ENCODER!r}: the shared encoder's folder is")
        wrong = [name for name in self.tasks if not name.replace("-", "").replace("_", "").isalnum()]
        if wrong:
            raise ValueError(f"a task's name is a folder's: letters, digits, - and _, not {wrong[0]!r}")
        if self.patience is not None and not any(task.eval for task in self.tasks.values()):
            raise ValueError("patience needs a task with eval: without evaluation nothing says when to stop")
        return self

    @classmethod
    def from_yaml(cls, text: str) -> "TrainSpec":
        """A spec from YAML. Raises SpecError with one line for each thing that is wrong."""
        try:
            values = yaml.safe_load(text)
        except (*YAML_FAULTS, RecursionError) as error:
            raise SpecError(f"the training file is not YAML: {' '.join(str(error).split())}") from None
        return cls.parse(values)

    @classmethod
    def parse(cls, values: object) -> "TrainSpec":
        """A spec from plain values. Raises SpecError."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            lines = [
                f"{'.'.join(map(str, problem['loc'])) or 'training'}: {problem['msg'].removeprefix('Value error, ')}"
                for problem in error.errors()
            ]
            raise SpecError("; ".join(lines)) from None
