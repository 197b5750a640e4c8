"""Identifies a checkpoint's content: by a digest, and by a stamp that is cheap to compare."""

from collections.abc import Iterable
from dataclasses import dataclass

from models.families import PRE_LAYER_NORM
from models.named_heads import HeadFolders


@dataclass(frozen=True)
class CheckpointState:
    """The digest of a checkpoint's content, and a cheap stamp of its files: while it is the same, nothing is read again.

    model_type: its family, None for RobertaPreLayerNorm.
    """

    digest: str
    stamp: str
    model_type: str | None = None


def checkpoint_state(url: str, *, known: CheckpointState | None, names: Iterable[str] | None) -> CheckpointState:
    """The state of a checkpoint, or of its heads of these names; files are read only if the stamp is not the known one.

    Raises CheckpointError.
    """
    opened = HeadFolders.open(checkpoint=url, names=names)
    stamp = opened.stamp()
    if known is not None and known.stamp == stamp:
        return known
    (model_type,) = {checkpoint.config.model_type for checkpoint in opened.checkpoints.values()}
    family = None if model_type == PRE_LAYER_NORM else model_type
    return CheckpointState(digest=opened.digest(), stamp=stamp, model_type=family)
