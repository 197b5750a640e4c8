"""Reads what `--json` prints: events that keep to the committed schema."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema

SCHEMA = Path(__file__).resolve().parents[1] / "docs" / "events.schema.json"


@cache
def _validator() -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))


def events_of(text: str) -> list[dict[str, Any]]:
    """The events that a command printed, each of them valid."""
    events = [json.loads(line) for line in text.splitlines()]
    for event in events:
        _validator().validate(event)
    return events
