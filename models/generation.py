"""Greedy generation without a framework: a prompt's ids and each step's best next ids in, what to feed next out.

Greedy decoding's bookkeeping in NumPy, the same for every framework. Legend: B batch, S prompt length, G generated.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from models.checks import check_length
from models.config import RobertaPreLayerNormConfig

Ids = npt.NDArray[np.int64]

DEFAULT_MAX_LENGTH = 20  # prompt and generated tokens, the reference's default


@dataclass(eq=False)
class GreedySearch:
    """Rows that grow by one token a step until each has met an end token or the length is reached.

    Pads in the prompt, on either side, are masked out; positions count real tokens. A finished row is continued with pads.
    """

    prompt_BS: Ids
    mask_BS: Ids
    new_tokens: int
    end_ids: tuple[int, ...]
    pad_id: int
    generated: list[Ids] = field(default_factory=list)

    @property
    def done(self) -> bool:
        """Nothing more to generate."""
        return len(self.generated) >= self.new_tokens or bool(self.finished_B.all())

    @property
    def finished_B(self) -> npt.NDArray[np.bool_]:
        """Rows that have met an end token."""
        if not self.generated:
            return np.zeros(len(self.prompt_BS), bool)
        return np.logical_or.reduce(np.isin(np.stack(self.generated, axis=1), self.end_ids), axis=1)

    def last_real_B(self) -> Ids:
        """Where in the prompt each row's last real token is: its logits predict the first new token."""
        length = self.mask_BS.shape[1]
        last_B: Ids = length - 1 - np.argmax(self.mask_BS[:, ::-1] != 0, axis=1)
        return last_B

    def add(self, best_B: Ids) -> Ids:
        """Take each row's best next id; returns the ids really added, pads for finished rows."""
        added_B = np.where(self.finished_B, self.pad_id, best_B).astype(np.int64)
        self.generated.append(added_B)
        return added_B

    def mask(self) -> Ids:
        """[B, S + G], 1 for tokens to attend to."""
        columns = [(added_B != self.pad_id).astype(np.int64) for added_B in self.generated]
        return np.concatenate([self.mask_BS, *(column[:, None] for column in columns)], axis=1)

    def sequences(self) -> Ids:
        """[B, S + G], the prompt and what was generated."""
        return np.concatenate([self.prompt_BS, *(added_B[:, None] for added_B in self.generated)], axis=1)


def plan_search(
    *,
    prompt_BS: Ids,
    mask_BS: Ids | None,
    config: RobertaPreLayerNormConfig,
    max_new_tokens: int | None = None,
    max_length: int | None = None,
    end_ids: int | Sequence[int] | None = None,
    pad_id: int | None = None,
) -> GreedySearch:
    """A search over a prompt; raises ValueError for an empty prompt or one that can't grow that far.

    Without a mask, pads are masked out. max_length counts the prompt; max_new_tokens wins over it.
    """
    pad = config.pad_token_id if pad_id is None else pad_id
    mask = (prompt_BS != config.pad_token_id).astype(np.int64) if mask_BS is None else mask_BS.astype(np.int64)
    if prompt_BS.ndim != 2 or not prompt_BS.shape[1] or (mask.sum(axis=1) == 0).any():
        raise ValueError(f"a prompt of shape {prompt_BS.shape} has a row without tokens; begin it with bos_token_id")
    whole = DEFAULT_MAX_LENGTH if max_length is None else max_length
    new_tokens = whole - prompt_BS.shape[1] if max_new_tokens is None else max_new_tokens
    if new_tokens < 1:
        raise ValueError(
            f"nothing to generate: the prompt has {prompt_BS.shape[1]} tokens, max_length is {whole}; "
            "raise max_length or give max_new_tokens"
        )
    real = int((prompt_BS != config.pad_token_id).sum(axis=1).max())
    check_length(tokens=real + new_tokens - 1, config=config)
    ends = config.eos_token_id if end_ids is None else end_ids
    return GreedySearch(
        prompt_BS=prompt_BS,
        mask_BS=mask,
        new_tokens=new_tokens,
        end_ids=(ends,) if isinstance(ends, int) else tuple(ends),
        pad_id=pad,
    )
