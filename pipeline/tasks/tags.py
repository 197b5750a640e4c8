"""Label names of a checkpoint in, their tags and prefixes out: B-PER is the beginning of a PER.

Legend: L labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

SCHEMES = ("BI", "BIES", "BILU")
"""Prefixes that are read as such, where the checkpoint's labels use each of a scheme's: B begins, E and L end, S and U do
both. So E-MAIL is a label of its own in a checkpoint that has no S- labels."""


@dataclass(frozen=True, eq=False)
class Tags:
    """What the labels say of an entity.

    names: each tag's name. tag_L: number of each label's tag. begins_L: whether the label begins an entity even after one of
    the same tag. ends_L: whether no later label can continue it.
    """

    names: tuple[str, ...]
    tag_L: npt.NDArray[np.int64]
    begins_L: npt.NDArray[np.bool_]
    ends_L: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, labels: Sequence[str]) -> "Tags":
        """From label names in the order of their ids."""
        used = {label[0] for label in labels if label[1:2] == "-"}
        prefixes = {"B", "I"}.union(*(scheme for scheme in SCHEMES if used.issuperset(scheme)))
        split = [
            (label[0], label[2:]) if label[1:2] == "-" and label[0] in prefixes else ("", label) for label in labels
        ]
        names = tuple(dict.fromkeys(name for _, name in split))
        return cls(
            names=names,
            tag_L=np.array([names.index(name) for _, name in split]),
            begins_L=np.array([prefix != "" and prefix in "BSU" for prefix, _ in split]),
            ends_L=np.array([prefix != "" and prefix in "ELSU" for prefix, _ in split]),
        )
