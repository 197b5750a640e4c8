"""A checkpoint's URL in, what identifies its content out: a digest, and a stamp that is cheap to compare."""

from collections.abc import Iterable
from dataclasses import dataclass

from models.families import PRE_LAYER_NORM
from models.named_heads import HeadFolders


@dataclass(frozen=True)
class CheckpointState:
    """What a checkpoint's content is (digest), and the cheap stamp of its files by which that need not be read again.

    model_type: its family, None for RobertaPreLayerNorm.
    """

    digest: str
    stamp: str
    model_type: str | None = None


def checkpoint_state(url: str, *, known: CheckpointState | None, names: Iterable[str] | None) -> CheckpointState:
    """The state of a checkpoint, or of all its heads of these names; bytes are read only where the stamp is not the one
    known. Raises CheckpointError."""
    opened = HeadFolders.open(checkpoint=url, names=names)
    stamp = opened.stamp()
    if known is not None and known.stamp == stamp:
        return known
    (model_type,) = {checkpoint.config.model_type for checkpoint in opened.checkpoints.values()}
    family = None if model_type == PRE_LAYER_NORM else model_type
    return CheckpointState(digest=opened.digest(), stamp=stamp, model_type=family)
