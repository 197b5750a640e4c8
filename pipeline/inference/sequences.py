"""The distinct token sequences that the model reads for a bundle of shards, and which task asks what of each.

Windows with the same tokens, of one task or of several, share a sequence and so an encoder pass. NumPy only: runs on a
bare GPU machine.
Legend: S sequences, W windows of one task, T tokens, G positions asked by one task.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from models.boundary import Ask, HeadAsk, Tokens
from pipeline.ragged import Int32s, Int64s, members, offsets_of


@dataclass(frozen=True, eq=False)
class Asked:
    """What one task asks about all shards of a bundle.

    key: the head's name in the model. sequence_W: each window's sequence. window_S: the window that is asked on behalf of all
    windows of a sequence, -1 if this task has none. position_offsets: [W + 1], where each window's positions begin.
    """

    key: str
    ask: HeadAsk
    sequence_W: Int64s
    window_S: Int64s
    positions_G: Int32s
    position_offsets: Int64s
    gold_G: Int32s | None

    @property
    def answered_W(self) -> Int64s:
        """The window whose answers each window gets: its own, or an equal one that was asked for both."""
        return self.window_S[self.sequence_W]

    def of(self, chosen_S: Int64s, cu_seqlens: Int32s) -> Ask | None:
        """This task's question about some sequences; None if it asks nothing about them."""
        windows = self.window_S[chosen_S]
        here = windows >= 0
        windows, starts = windows[here], cu_seqlens[:-1][here]
        if not len(windows):
            return None
        asked = members(self.position_offsets, windows)
        counts = self.position_offsets[windows + 1] - self.position_offsets[windows]
        return Ask(
            positions_G=self.positions_G[asked] + np.repeat(starts, counts).astype(np.int32),
            top_k=self.ask.top_k,
            candidates_K=None if self.ask.candidates is None else np.asarray(self.ask.candidates, np.int32),
            gold_G=None if self.gold_G is None else self.gold_G[asked],
            reduce=self.ask.reduce,
        )


@dataclass(frozen=True, eq=False)
class Sequences:
    """The flat tokens of all shards of a bundle, and what each task asks about them.

    shard_offsets: where each shard's sequences begin, and the last one's end. causal: the same for all tasks.
    """

    input_ids_T: Int32s
    token_offsets: Int64s
    token_type_ids_T: Int32s | None
    shard_offsets: Int64s
    causal: bool
    asked: Mapping[str, Asked]

    @property
    def lengths_S(self) -> Int64s:
        """Tokens of each sequence."""
        return np.diff(self.token_offsets)

    @property
    def shard_tokens(self) -> list[int]:
        """Tokens of each shard; sequences that its tasks share count once."""
        return [int(count) for count in np.diff(self.token_offsets[self.shard_offsets])]

    def question(self, part: Sequence[int]) -> tuple[Tokens, dict[str, Ask]]:
        """The model's input for some sequences, and what all tasks ask about them."""
        chosen = np.asarray(part, np.int64)
        tokens = members(self.token_offsets, chosen)
        lengths = self.token_offsets[chosen + 1] - self.token_offsets[chosen]
        cu_seqlens = offsets_of(lengths).astype(np.int32)
        asks = {one.key: one.of(chosen, cu_seqlens) for one in self.asked.values()}
        return (
            Tokens(
                input_ids_T=self.input_ids_T[tokens],
                cu_seqlens=cu_seqlens,
                token_type_ids_T=None if self.token_type_ids_T is None else self.token_type_ids_T[tokens],
                causal=self.causal,
            ),
            {key: ask for key, ask in asks.items() if ask is not None},
        )
