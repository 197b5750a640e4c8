"""Training specs with small data and a small model, which run in a second."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs.embedded import CHECKPOINT
from jobs.training.spec import TrainSpec

TINY = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "hidden_dropout_prob": 0.1,
}
FRUIT, TOOLS = ("apple", "pear", "plum", "cherry"), ("hammer", "saw", "drill", "wrench")

Rows = list[dict[str, Any]]


def intents() -> Rows:
    """Texts whose label one word decides."""
    return [
        {"text": f"{verb} the {word} {place}", "label": label}
        for label, words in (("fruit", FRUIT), ("tool", TOOLS))
        for word in words
        for verb in ("buy", "find", "show me")
        for place in ("now", "in the shop", "at home")
    ]


def entities() -> Rows:
    """Lists of words with a name in each."""
    names = ("Anna Meyer", "Tom Baker", "Maria Lopez")
    places = ("Berlin", "New York", "Lagos")
    return [
        {
            "words": [*name.split(), "lives", "in", *place.split(), "."],
            "tags": ["B-PER", "I-PER", "O", "O", "B-LOC", *["I-LOC"] * (len(place.split()) - 1), "O"],
        }
        for name in names
        for place in places
    ] * 4


def questions() -> Rows:
    """SQuAD's columns."""
    rows = []
    for city, river in (("Berlin", "the Spree"), ("Paris", "the Seine"), ("London", "the Thames")):
        context = f"{city} is a large city. It lies on {river}, as everybody knows."
        answer = {"text": [river], "answer_start": [context.index(river)]}
        rows.append({"question": f"On what does {city} lie?", "context": context, "answers": answer})
    return rows * 4


DATA: dict[str, Callable[[], Rows]] = {
    "text-classification": intents,
    "token-classification": entities,
    "question-answering": questions,
    "fill-mask": intents,
}


def write_rows(file: Path, rows: Rows) -> str:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(file)


@pytest.fixture
def make_spec(tmp_path: Path) -> Callable[..., TrainSpec]:
    """A spec of one task or several over the embedded tokenizer; further fields as keywords."""

    def made(*names: str, output: str = "out", **fields: Any) -> TrainSpec:
        tasks = {}
        for name in names:
            data = write_rows(tmp_path / f"{name}.jsonl", DATA[name]())
            tasks[name] = {"task": name, "data": data, "eval": data}
        model = {"tokenizer": str(CHECKPOINT), "config": TINY}
        basic = {
            "model": model,
            "tasks": tasks,
            "output": str(tmp_path / output),
            "batch_tokens": 256,
            "dtype": "float32",
        }
        return TrainSpec.parse({**basic, "learning_rate": 3e-3, "steps": 8, **fields})

    return made
