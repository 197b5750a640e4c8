"""Makes a folder of random heads around one encoder, stored as training stores them."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from jobs.checkpoints.make_random import make_random, random_config
from models.boundary import Head
from models.checkpoint_copy import BASE_FIELD
from models.checkpoint_writer import write_checkpoint
from models.config import RobertaPreLayerNormConfig
from models.tensors import PREFIX, expected_tensors

ENCODER = "encoder"
HEADS: Mapping[str, Head] = {
    "intents": "sequence-classification",
    "mood": "sequence-classification",
    "entities": "token-classification",
    "masks": "masked-lm",
    "questions": "question-answering",
}
MOODS = {0: "glad", 1: "sad", 2: "neither"}


def write_heads(folder: Path, heads: Mapping[str, Head] = HEADS) -> Path:
    """`folder/NAME` of each head beside `folder/encoder`; two of a kind differ."""
    make_random(folder=folder / ENCODER, head="encoder")
    tokenizer = {
        path.name: path.read_bytes() for path in (folder / ENCODER).iterdir() if path.suffix in (".json", ".txt")
    }
    tokenizer.pop("config.json")
    for number, (name, head) in enumerate(heads.items()):
        config = random_config(head=head)
        fields = json.loads(config.to_json_string()) | {BASE_FIELD: ENCODER}
        if name == "mood":
            fields |= {"id2label": MOODS, "label2id": {label: key for key, label in MOODS.items()}}
        config = RobertaPreLayerNormConfig.from_dict(fields)
        random = np.random.default_rng(number)
        own = {
            tensor: random.normal(0, 0.3, shape).astype(np.float32)
            for tensor, shape in expected_tensors(config=config, head=head).items()
            if not tensor.startswith(PREFIX)
        }
        write_checkpoint(url=str(folder / name), config=config, tensors=own, tokenizer_files=tokenizer)
    return folder
