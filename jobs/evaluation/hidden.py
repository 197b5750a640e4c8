"""Masks some tokens of texts and remembers which."""

import numpy as np

from models.tokenizer import CheckpointTokenizer

FIRST_ORDINARY_ID = 4
"""Below it are <s>, <pad>, </s> and <unk>."""


def hide(
    text: str, *, tokenizer: CheckpointTokenizer, rate: float, random: np.random.Generator
) -> tuple[str, list[int]]:
    """The text with about `rate` of its tokens hidden, at least one, and their ids in order; what stays is encoded as before.

    A text whose remaining characters would be cut otherwise without the hidden ones comes back without masks.
    """
    encoding = tokenizer.backend.encode(text, add_special_tokens=False)
    whole = [
        place
        for place, ((start, end), token) in enumerate(zip(encoding.offsets, encoding.ids, strict=True))
        if token >= FIRST_ORDINARY_ID and end > start
    ]
    if not whole:
        return text, []
    count = max(1, round(rate * len(whole)))
    chosen = sorted(random.choice(whole, size=min(count, len(whole)), replace=False).tolist())
    parts, behind = [], 0
    for place in chosen:
        start, end = encoding.offsets[place]
        if start < behind:  # two tokens of one character
            return text, []
        parts += [text[behind:start], tokenizer.mask_token]
        behind = end
    hidden = "".join([*parts, text[behind:]])
    found = tokenizer.backend.encode(hidden, add_special_tokens=False).ids
    wanted = [tokenizer.mask_id if place in set(chosen) else token for place, token in enumerate(encoding.ids)]
    return (hidden, [encoding.ids[place] for place in chosen]) if found == wanted else (text, [])
