"""Converts a checkpoint of any kind to a folder of this model, and reports what happened to every tensor.

Only pickles need a framework (PyTorch), and only those import one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import ml_dtypes
import numpy as np

from models.addresses import open_address
from models.boundary import Head
from models.calibration_file import CALIBRATION_NAME
from models.checkpoint_writer import WeightsFormat, write_checkpoint
from models.config import CONFIG_NAME, RobertaPreLayerNormConfig
from models.errors import CheckpointError
from models.h5_file import H5_NAME
from models.loading import LoadingReport, compare
from models.msgpack_file import MSGPACK_NAME
from models.origin import Origin, OriginKind, open_origin, torch_module
from models.safetensors_file import AnyArray
from models.tensors import HEADS, PREFIX, TIED, architecture, expected_tensors, stored_name
from models.weight_files import INDEX_NAME, PICKLE_INDEX_NAME, PICKLE_NAME, WEIGHTS_NAME

TargetFormat: TypeAlias = WeightsFormat | Literal["bin"]
StoredType: TypeAlias = Literal["stored", "float32", "float16", "bfloat16"]
Fate: TypeAlias = Literal["mapped", "missing", "unexpected", "another shape", "dropped"]

# Files that show that a folder already holds a checkpoint.
TAKEN = (CONFIG_NAME, WEIGHTS_NAME, INDEX_NAME, PICKLE_NAME, PICKLE_INDEX_NAME, H5_NAME, MSGPACK_NAME, CALIBRATION_NAME)
POOLER_NAME = PREFIX + "pooler.dense.weight"


@dataclass(frozen=True)
class TensorFate:
    """What happened to one tensor.

    name: as written, "" if it was not; stored_name: as found, "" if it was missing; shape: as found, or as
    needed if missing; detail: why it was dropped, or the shape that config.json asks for.
    """

    fate: Fate
    name: str
    stored_name: str
    shape: tuple[int, ...]
    detail: str = ""


@dataclass(frozen=True)
class Conversion:
    """head: what the folder is a checkpoint of; fates: one a tensor; notes: what was assumed or is left to do; mapped: the
    neutral names of what is written."""

    head: Head
    config: RobertaPreLayerNormConfig
    fates: tuple[TensorFate, ...]
    notes: tuple[str, ...]
    mapped: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether every tensor that the head needs was found in its size."""
        return not any(fate.fate in ("missing", "another shape") for fate in self.fates)


class ConversionError(CheckpointError):
    """A checkpoint that lacks tensors, so that nothing was written; `conversion` says what happened to each."""

    def __init__(self, message: str, *, conversion: Conversion) -> None:
        super().__init__(message)
        self.conversion = conversion


def convert(
    *,
    source: str,
    destination: str,
    kind: OriginKind = "auto",
    head: Head | None = None,
    weights_format: TargetFormat = "safetensors",
    dtype: StoredType = "stored",
    allow_pickle: bool = False,
    attention_heads: int | None = None,
    classification_head: str | None = None,
    max_shard_size: int | str = "5GB",
) -> Conversion:
    """Write the checkpoint at `source` as a folder of this model at `destination`; both at any path or URL.

    head: by default the one that the source's config names, or the only one whose tensors are all there.
    dtype: what the weights are stored in, "stored" as they are. attention_heads, classification_head: models.origin.
    Raises ConversionError where tensors are missing or of another size, CheckpointError for everything else that can't
    be converted; nothing is written then.
    """
    check_destination(destination)
    origin = open_origin(
        url=source,
        kind=kind,
        allow_pickle=allow_pickle,
        attention_heads=attention_heads,
        classification_head=classification_head,
    )
    plan = plan_conversion(origin=origin, head=head)
    if not plan.complete:
        lost = next(fate for fate in plan.fates if fate.fate in ("missing", "another shape"))
        detail = f" is {lost.shape}, {lost.detail}" if lost.fate == "another shape" else " is missing"
        raise ConversionError(
            f"{source}: no whole checkpoint of the head '{plan.head}': '{lost.name}'{detail}; nothing was written; "
            "take another --head ('encoder' needs no head's tensors), or another checkpoint",
            conversion=plan,
        )
    _write(origin, plan, destination, weights_format, dtype, max_shard_size)
    return plan


def plan_conversion(*, origin: Origin, head: Head | None = None) -> Conversion:
    """What `convert` would do, from names and shapes alone."""
    chosen = head or _head_of(origin)
    pooler = POOLER_NAME in origin.tensors if chosen == "encoder" else None
    expected = expected_tensors(config=origin.config, head=chosen, pooler=pooler)
    found = {name: tensor.shape for name, tensor in origin.tensors.items()}
    report = compare(expected=expected, found=found, config=origin.config, bare=False)
    config = RobertaPreLayerNormConfig.from_dict(origin.config.to_dict())
    vars(config).pop("base_model_name_or_path", None)
    config.architectures = [architecture(head=chosen, family=config.family)]
    notes = list(origin.notes)
    if chosen == "causal-lm" and not config.is_decoder:
        notes.append("config.json says is_decoder=False: load it with is_decoder=True to predict the next token")
    fates = _fates(origin, report, expected, chosen)
    return Conversion(head=chosen, config=config, fates=fates, notes=tuple(notes), mapped=tuple(report.mapped))


def _fates(
    origin: Origin, report: LoadingReport, expected: Mapping[str, tuple[int, ...]], head: Head
) -> tuple[TensorFate, ...]:
    """What happens to each tensor, in the order in which the report lists them.

    Names are as written: a bare encoder has no prefix.
    """

    def written(name: str) -> str:
        return written_name(name, head=head, config=origin.config)

    tensors = origin.tensors
    mapped = [
        TensorFate("mapped", written(name), tensors[name].stored_name, tensors[name].shape) for name in report.mapped
    ]
    others = [TensorFate("missing", written(name), "", expected[name]) for name in report.missing]
    others += [
        TensorFate("another shape", written(name), tensors[name].stored_name, theirs, f"config.json asks for {ours}")
        for name, theirs, ours in report.mismatched
    ]
    others += [
        TensorFate("unexpected", "", tensors[name].stored_name, tensors[name].shape) for name in report.unexpected
    ]
    dropped = [TensorFate("dropped", "", name, (), reason) for name, reason in origin.dropped.items()]
    return (*mapped, *others, *dropped)


def written_name(name: str, *, head: Head, config: RobertaPreLayerNormConfig) -> str:
    """A neutral name as the folder of a head has it."""
    return stored_name(name.removeprefix(PREFIX) if head == "encoder" else name, family=config.family)


def _head_of(origin: Origin) -> Head:
    """The head that the config names in `architectures`, else the only one whose tensors are all there.

    Raises CheckpointError.
    """
    named = {architecture(head=head, family=origin.config.family): head for head in HEADS}
    for name in origin.config.architectures or ():
        if name in named:
            return named[name]
    whole: list[Head] = []
    for head in HEADS:
        shapes = expected_tensors(config=origin.config, head=head)
        if all(name in origin.tensors and origin.tensors[name].shape == shape for name, shape in shapes.items()):
            whole.append(head)
    if {"masked-lm", "causal-lm"} <= set(whole):  # the same tensors
        whole.remove("masked-lm" if origin.config.is_decoder else "causal-lm")
    heads = [head for head in whole if head != "encoder"]
    if len(heads) > 1:
        raise CheckpointError(f"{origin.url}: it has several heads: {', '.join(heads)}; name one by --head")
    return heads[0] if heads else "encoder"


def check_destination(url: str) -> None:
    """Refuse a folder that already holds a checkpoint: a mixture of two would be read as one."""
    system, folder = open_address(url)
    try:
        names = {str(path).rsplit("/", 1)[-1] for path in system.ls(folder, detail=False)}
    except FileNotFoundError:
        return
    except NotADirectoryError:
        raise CheckpointError(f"{url}: a file; name a new folder") from None
    taken = sorted(names.intersection(TAKEN))
    if taken:
        raise CheckpointError(f"{url}: holds {', '.join(taken)} already; name a new folder, or empty this one first")


def _write(
    origin: Origin,
    plan: Conversion,
    destination: str,
    weights_format: TargetFormat,
    dtype: StoredType,
    max_shard_size: int | str,
) -> None:
    """Read the mapped tensors, cast them to dtype and write the folder. Raises CheckpointError."""
    neutral_of = {written_name(name, head=plan.head, config=plan.config): name for name in plan.mapped}
    neutral = [neutral_of[fate.name] for fate in plan.fates if fate.fate == "mapped"]
    arrays = {name: _cast(array, dtype) for name, array in origin.read(neutral)}
    tensors = {name.removeprefix(PREFIX) if plan.head == "encoder" else name: arrays[name] for name in neutral}
    plan.config.dtype = next(iter(tensors.values())).dtype.name
    if weights_format == "bin":
        _write_pickle(destination, plan.config, tensors, origin.tokenizer_files)
        return
    try:
        write_checkpoint(
            url=destination,
            config=plan.config,
            tensors=tensors,
            tokenizer_files=origin.tokenizer_files,
            max_shard_size=max_shard_size,
            weights_format=weights_format,
        )
    except CheckpointError:
        raise
    except ValueError as error:  # a type that the format has no name for, a size that is none
        raise CheckpointError(f"{destination}: {error}") from None


def _write_pickle(
    url: str, config: RobertaPreLayerNormConfig, tensors: Mapping[str, AnyArray], files: Mapping[str, bytes]
) -> None:
    system, folder = open_address(url)
    system.makedirs(folder, exist_ok=True)
    twice = {second: tensors[first] for second, first in TIED.items() if first in tensors and second not in tensors}
    doubled = {**tensors, **(twice if "lm_head.bias" in tensors else {})}
    arrays = {stored_name(name, family=config.family): array for name, array in doubled.items()}
    torch_module("pickle_file").write_arrays(system=system, path=f"{folder}/{PICKLE_NAME}", arrays=arrays)
    for name, content in files.items():
        system.pipe_file(f"{folder}/{name}", content)
    config.save_pretrained(url)


def _cast(array: AnyArray, dtype: StoredType) -> AnyArray:
    if dtype == "stored":
        return array
    return array.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else np.dtype(dtype), copy=False)
