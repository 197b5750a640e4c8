"""What the ids of a checkpoint's tokenizer stand for: text, white space, the marks around a text."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from tokenizers import Tokenizer

from models.tokenizer import CheckpointTokenizer

SPACE_MARK = "▁"
"""What Metaspace writes for a space."""
_CLEANED = (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're")
"""Strings whose first space (of the quote, the last) the reference's clean_up_tokenization_spaces removes."""


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The ids of a tokenizer, V of them: `size` is the model's count, which may be more than the tokenizer has."""

    tokenizer: CheckpointTokenizer
    size: int

    @cached_property
    def strings(self) -> pa.StringArray:
        """[V], the text of each id alone, with its leading space; U+FFFD for a part of a character."""
        count = max(self.size, self.tokenizer.vocab_size)
        return pa.array(self.decode([[token] for token in range(count)]), pa.string())

    @cached_property
    def blank_V(self) -> npt.NDArray[np.bool_]:
        """Which ids stand for nothing but white space."""
        if self.tokenizer.byte_level:
            return np.array([text.isspace() for text in self.strings.to_pylist()])
        pieces = self.pieces(range(len(self.strings)))
        return np.array([bool(piece) and not piece.strip(SPACE_MARK + " ") for piece in pieces])

    @cached_property
    def fills(self) -> pa.StringArray:
        """[V], the text that each id puts in the place of a mask, leading space included."""
        if self.tokenizer.byte_level:
            return self.strings
        pieces = self.pieces(range(len(self.strings)))
        return pa.array([piece.replace(SPACE_MARK, " ") for piece in pieces], pa.string())

    @cached_property
    def marks(self) -> tuple[int, int]:
        """The ids before and after a text: `<s>` and `</s>`."""
        first, last = self.tokenizer.backend.encode("").ids
        return first, last

    @cached_property
    def prefixed(self) -> Tokenizer:
        """The tokenizer that puts a space before a text, or before each word of a list; itself if it does so anyway."""
        if self.tokenizer.add_prefix_space:
            return self.tokenizer.backend
        fields = json.loads(self.tokenizer.backend.to_str())
        for part in ("pre_tokenizer", "post_processor"):
            if fields.get(part) and "add_prefix_space" in fields[part]:
                fields[part]["add_prefix_space"] = True
        return Tokenizer.from_str(json.dumps(fields))

    def decode(self, ids: Sequence[Sequence[int]], *, skip_specials: bool = False) -> list[str]:
        """The text of each list of ids, cleaned of spaces where the tokenizer's settings ask for that."""
        texts: list[str] = self.tokenizer.backend.decode_batch(ids, skip_special_tokens=skip_specials)
        return [_cleaned(text) for text in texts] if self.tokenizer.clean_up_tokenization_spaces else texts

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The vocabulary's own spelling of ids, such as `ĠParis`."""
        return [self.tokenizer.backend.id_to_token(token) or "" for token in ids]

    def join(self, pieces: Sequence[str]) -> str:
        """The text of pieces given in the vocabulary's spelling."""
        text: str = self.tokenizer.backend.decoder.decode(list(pieces))
        return text


def _cleaned(text: str) -> str:
    for spaced in _CLEANED:
        text = text.replace(spaced, spaced.strip())
    return text
