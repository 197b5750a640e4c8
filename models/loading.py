"""Compares what a model expects to what a checkpoint holds: mapped, missing, unexpected, or of another size.

Framework-free: names are neutral (models.tensors), shapes are tuples. Also says how missing tensors are initialised.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from models.config import RobertaPreLayerNormConfig
from models.errors import MismatchError
from models.foreign_config import as_config
from models.tensors import PREFIX, second_names

logger = logging.getLogger(__name__)

Shape = tuple[int, ...]
Start = Literal["zeros", "ones", "normal", "normal, pad row zero"]


@dataclass(frozen=True)
class LoadingReport:
    """Names by outcome; mismatched: (name, the file's shape, the model's shape)."""

    mapped: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    mismatched: list[tuple[str, Shape, Shape]] = field(default_factory=list)

    def as_info(self) -> dict[str, Any]:
        """The reference's `output_loading_info`."""
        return {
            "missing_keys": self.missing,
            "unexpected_keys": self.unexpected,
            "mismatched_keys": self.mismatched,
            "error_msgs": [],
        }

    def lines(self) -> list[str]:
        """One line a tensor, for printing."""
        return [
            *(f"mapped      {name}" for name in self.mapped),
            *(f"missing     {name}" for name in self.missing),
            *(f"unexpected  {name}" for name in self.unexpected),
            *(
                f"mismatched  {name}: {theirs} in the file, {ours} in the model"
                for name, theirs, ours in self.mismatched
            ),
        ]


# Fields of the reference's configs that ours has only where they are set; no answer depends on them.
IDLE_FIELDS = ("finetuning_task", "task_specific_params", "tokenizer_class", "prefix", "gradient_checkpointing")


def override_config(config: Any, overrides: Mapping[str, Any]) -> RobertaPreLayerNormConfig:
    """A copy of a config of any make with from_pretrained's further keywords in it; raises TypeError for one it does not
    have."""
    config = as_config(config)
    known = {*config.to_dict(), "num_labels", *IDLE_FIELDS}
    unknown = [name for name in overrides if name not in known]
    if unknown:
        raise TypeError(f"from_pretrained() knows no argument and the config no field '{unknown[0]}'")
    return RobertaPreLayerNormConfig.from_dict(config.to_dict(), **overrides)


def compare(
    *, expected: Mapping[str, Shape], found: Mapping[str, Shape], config: RobertaPreLayerNormConfig, bare: bool
) -> LoadingReport:
    """Sort all names. bare: report in the bare model's form, without the prefix.

    Second names of tied tensors are neither missing nor unexpected.
    """

    def shown(name: str) -> str:
        return name.removeprefix(PREFIX) if bare else name

    seconds = second_names(config)
    both = [name for name in expected if name in found]
    return LoadingReport(
        mapped=[shown(name) for name in both if found[name] == expected[name]],
        missing=[shown(name) for name in expected if name not in found],
        unexpected=[shown(name) for name in found if name not in expected and name not in seconds],
        mismatched=[(shown(name), found[name], expected[name]) for name in both if found[name] != expected[name]],
    )


def judge(*, report: LoadingReport, url: str, model: str, ignore_mismatched_sizes: bool) -> None:
    """Log what differs from what the model expects; raise MismatchError for other sizes unless they are to be ignored."""
    if report.mismatched and not ignore_mismatched_sizes:
        name, theirs, ours = report.mismatched[0]
        raise MismatchError(
            f"{url}: '{name}' is {theirs}, {model} has {ours} ({len(report.mismatched)} such tensors); "
            "fix the config, or pass ignore_mismatched_sizes=True to start those afresh"
        )
    fresh = [*report.missing, *(name for name, _, _ in report.mismatched)]
    if fresh:
        logger.warning("%s: not in the checkpoint, started afresh in %s: %s; train it", url, model, ", ".join(fresh))
    if report.unexpected:
        logger.warning("%s: in the checkpoint, not used by %s: %s", url, model, ", ".join(report.unexpected))


def start_of(name: str) -> Start:
    """How a tensor is initialised: N(0, initializer_range), row P of the word and position tables 0; LayerNorms 1; biases 0."""
    if name.endswith("bias"):
        return "zeros"
    if "LayerNorm." in name or "layer_norm." in name:
        return "ones"
    if name.endswith(("word_embeddings.weight", "position_embeddings.weight")):
        return "normal, pad row zero"
    return "normal"
