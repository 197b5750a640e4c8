"""Parses the JSON files of a checkpoint folder, whoever wrote them."""

import json
from typing import Any

from models.errors import CheckpointError


def json_object(content: bytes, *, where: str) -> dict[str, Any]:
    """The object that a file holds. where: the folder and the file, for messages.

    Raises CheckpointError unless it is a JSON object whose texts are all made of characters.
    """
    fields = json_value(content, where=where)
    if not isinstance(fields, dict):
        raise CheckpointError(f"{where} holds a {type(fields).__name__}, not an object of fields; copy it again")
    return fields


def json_value(content: bytes, *, where: str) -> Any:
    """The same for a file that may hold any value."""
    try:
        value = json.loads(content)
        # A lone surrogate passes JSON, and fails wherever the text is stored or printed.
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise CheckpointError(f"{where} has a text with a lone surrogate, which is no character; fix it") from None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{where} is not JSON ({error}); copy it again") from None
    return value
