"""Adds to a tokenizer the tokens that a checkpoint folder adds to its vocabulary.

`added_tokens.json` has token -> id, `added_tokens_decoder` in tokenizer_config.json id -> token with its settings, which win.
"""

import json
from collections.abc import Mapping
from typing import Any

from tokenizers import AddedToken, Tokenizer

ADDED_NAME = "added_tokens.json"
FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


def added_tokens(files: Mapping[str, bytes]) -> dict[int, AddedToken]:
    """Id -> token of every token that the folder's files add, in the order of the ids."""
    settings = json.loads(files.get("tokenizer_config.json", b"{}"))
    mapped = json.loads(files.get("special_tokens_map.json", b"{}"))
    special = {
        token["content"] if isinstance(token, dict) else token
        for source in (settings, mapped)
        for token in source.get("additional_special_tokens") or ()
    }
    found = {
        int(number): AddedToken(token, special=token in special, normalized=token not in special)
        for token, number in json.loads(files.get(ADDED_NAME, b"{}")).items()
    }
    for number, token in (settings.get("added_tokens_decoder") or {}).items():
        found[int(number)] = AddedToken(token["content"], **{flag: token[flag] for flag in FLAGS if flag in token})
    return dict(sorted(found.items()))


def add_tokens(backend: Tokenizer, files: Mapping[str, bytes]) -> None:
    """Add tokens that the tokenizer lacks. Raises ValueError if a token would not get the id that the files give it."""
    known = set(backend.get_added_tokens_decoder())
    for number, token in added_tokens(files).items():
        if number in known:
            continue
        backend.add_special_tokens([token]) if token.special else backend.add_tokens([token])
        given = backend.token_to_id(token.content)
        if given != number:
            raise ValueError(
                f"the added token {token.content!r} has the id {number} in the files and {given} in the vocabulary"
            )


def changes_digest(files: Mapping[str, bytes]) -> bool:
    """Whether earlier versions ignored these tokens, of a folder without tokenizer.json, and so answered differently."""
    if "tokenizer.json" in files:
        return False
    vocabulary: Mapping[str, Any] = json.loads(files.get("vocab.json", b"{}"))
    return any(token.content not in vocabulary for token in added_tokens(files).values())
