"""A checkpoint's URL in, what identifies its content out: a digest, and a stamp that is cheap to compare."""

from collections.abc import Iterable
from dataclasses import dataclass

from models.named_heads import HeadFolders


@dataclass(frozen=True)
class CheckpointState:
    """What a checkpoint's content is (digest), and the cheap stamp of its files by which that need not be read again."""

    digest: str
    stamp: str


def checkpoint_state(url: str, *, known: CheckpointState | None, names: Iterable[str] | None) -> CheckpointState:
    """The state of a checkpoint, or of all its heads of these names; bytes are read only where the stamp is not the one
    known. Raises CheckpointError."""
    opened = HeadFolders.open(checkpoint=url, names=names)
    stamp = opened.stamp()
    if known is not None and known.stamp == stamp:
        return known
    return CheckpointState(digest=opened.digest(), stamp=stamp)
