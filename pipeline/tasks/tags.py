"""Parses a checkpoint's label names into tags and prefixes: B-PER is the beginning of a PER.

Legend: L labels.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

SCHEMES = ("BI", "BIES", "BILU")
"""Prefixes by scheme, which applies if the checkpoint's labels use all of its prefixes: B begins, E and L end, S and U do
both. So E-MAIL is a whole label in a checkpoint without S- labels."""
MIDDLES = ("BMES", "BMEW")
"""The same with M for what is inside, and W like S."""
OUTSIDE = {"O", "OUT", "OUTSIDE", "<PAD>", "[PAD]"}
"""Labels that mean no entity."""
SPELLINGS = tuple(
    re.compile(pattern)
    for pattern in (
        "(?P<prefix>[bimeslw])-(?P<tag>.+)",
        "(?P<prefix>[BIMESLUW])_(?P<tag>.+)",
        "(?P<tag>.+)[-_](?P<prefix>[BIMESLUW])",
    )
)
"""Other ways to write a prefix, read as such where all labels but O are written so, with B and I (or M) among them."""


@dataclass(frozen=True, eq=False)
class Tags:
    """What the labels mean for entities.

    names: each tag's name. tag_L: number of each label's tag. begins_L: whether the label begins an entity even after one of
    the same tag. ends_L: whether no later label can continue it.
    """

    names: tuple[str, ...]
    tag_L: npt.NDArray[np.int64]
    begins_L: npt.NDArray[np.bool_]
    ends_L: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, labels: Sequence[str], *, answer_version: int = 2) -> "Tags":
        """From label names in the order of their ids. answer_version: of token-classification; 1 knows fewer schemes."""
        split = _read(labels, answer_version)
        names = tuple(dict.fromkeys(name for _, name in split))
        return cls(
            names=names,
            tag_L=np.array([names.index(name) for _, name in split]),
            begins_L=np.array([prefix != "" and prefix in "BSUW" for prefix, _ in split]),
            ends_L=np.array([prefix != "" and prefix in "ELSUW" for prefix, _ in split]),
        )


def plain_names(labels: Sequence[str], *, answer_version: int = 2) -> list[str]:
    """The labels of entities that no scheme was found for, so that each is the name of a tag."""
    split = _read(labels, answer_version)
    return [name for prefix, name in split if prefix == "" and name.upper() not in OUTSIDE]


def _read(labels: Sequence[str], answer_version: int) -> list[tuple[str, str]]:
    """(prefix, tag) of each label."""
    return _split(labels) if answer_version == 1 else _spelled_otherwise(labels) or _split(labels, *MIDDLES)


def _split(labels: Sequence[str], *more: str) -> list[tuple[str, str]]:
    """(prefix, tag) of labels such as B-PER; no prefix where a label has none of a scheme that is used."""
    used = {label[0] for label in labels if label[1:2] == "-"}
    prefixes = {"B", "I"}.union(*(scheme for scheme in (*SCHEMES, *more) if used.issuperset(scheme)))
    return [(label[0], label[2:]) if label[1:2] == "-" and label[0] in prefixes else ("", label) for label in labels]


def _spelled_otherwise(labels: Sequence[str]) -> list[tuple[str, str]] | None:
    """(prefix, tag) of labels that all are PER-B, B_PER, PER_B or b-per, but for O; None where they are not."""
    for pattern in SPELLINGS:
        found = [pattern.fullmatch(label) for label in labels]
        tagged = [match for match in found if match]
        plain = [label for label, match in zip(labels, found, strict=True) if not match]
        letters = {match["prefix"].upper() for match in tagged}
        outside = all(label.upper() in OUTSIDE for label in plain)
        if outside and ({"B", "I"} <= letters or {"B", "M"} <= letters):
            return [
                (match["prefix"].upper(), match["tag"]) if match else ("", label)
                for label, match in zip(labels, found, strict=True)
            ]
    return None
