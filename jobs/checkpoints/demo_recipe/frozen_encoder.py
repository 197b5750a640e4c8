"""Token ids in, the demo encoder's outputs at chosen tokens out. The encoder is not trained here, so each text passes it once.

Legend: B batch, S sequence, H hidden size, N rows, P picked tokens.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

import models
from jobs.checkpoints.demo_recipe.checkpoint import TEXT_LIMIT
from jobs.training.batches import padded
from jobs.training.examples import Example
from models.tokenizer import load_tokenizer

BATCH_TOKENS = 8_192
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class TokenRow:
    """ids: of one text, specials included. picked: places in them whose outputs are wanted."""

    ids: npt.NDArray[np.int32]
    picked: tuple[int, ...]


class FrozenEncoder:
    """The encoder of a checkpoint with several heads, in float32."""

    def __init__(self, checkpoint: str) -> None:
        model: Any = models.RobertaPreLayerNormForTokenClassification.from_pretrained(f"{checkpoint}/entities")
        self._encoder = model.roberta_prelayernorm.float().eval()
        self._pad_id = model.config.pad_token_id
        self.tokenizer = load_tokenizer(f"{checkpoint}/entities", add_prefix_space=True).backend

    def outputs(self, rows: Sequence[TokenRow]) -> Floats:
        """[P, H], row after row."""
        found: list[Floats] = [np.empty(0, np.float32)] * len(rows)
        for members in _in_batches([len(row.ids) for row in rows]):
            batch = padded([Example(rows=(rows[member].ids[:TEXT_LIMIT],)) for member in members], pad_id=self._pad_id)
            ids, mask = torch.from_numpy(batch.input_ids), torch.from_numpy(batch.attention_mask)
            with torch.inference_mode():
                hidden_BSH = self._encoder(ids, attention_mask=mask).last_hidden_state.numpy()
            for place, member in enumerate(members):
                found[member] = hidden_BSH[place, list(rows[member].picked)]
        return np.concatenate(found)


def _in_batches(lengths_N: Sequence[int]) -> Iterator[list[int]]:
    members: list[int] = []
    for member in sorted(range(len(lengths_N)), key=lengths_N.__getitem__):
        if members and (len(members) + 1) * min(lengths_N[member], TEXT_LIMIT) > BATCH_TOKENS:
            yield members
            members = []
        members.append(member)
    if members:
        yield members
