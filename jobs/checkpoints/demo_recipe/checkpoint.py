"""Trains the demo checkpoint from scratch: one small encoder with four heads.

`python -m jobs.checkpoints.demo_recipe.checkpoint --data ../shared/data --glosses /usr/share/wordnet --work demo-training` writes
demo-training/multi-task. Plain torch, no Ray; killed, the same command goes on. Deterministic on one kind of processor.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jobs.checkpoints.demo_recipe.data import write_demo_data
from jobs.training.bpe import train_tokenizer
from jobs.training.records import read_records, texts_of
from jobs.training.run import train
from jobs.training.spec import TrainSpec

SEED = 20
PIECES = 8_192
TEXT_LIMIT = 256
PRETRAINING_STEPS = 6_000
TASK_STEPS = 2_500
BATCH_TOKENS = 4_096
ENCODER = {
    "hidden_size": 192,
    "num_hidden_layers": 6,
    "num_attention_heads": 6,
    "intermediate_size": 768,
}
# Few passes over the text: dropout would only slow what is learnt.
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
DROPOUT = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.0, "classifier_dropout": 0.2}


def main(arguments: Sequence[str] | None = None) -> None:
    """Prepare, pretrain, fine-tune all heads together."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of clinc150, uner_ewt, wnut17, wiki_intros, …")
    parser.add_argument("--glosses", type=Path, help="folder of WordNet's data.noun and the others")
    parser.add_argument("--work", type=Path, required=True, help="folder to work in")
    parser.add_argument("--pretraining-steps", type=int, default=PRETRAINING_STEPS)
    parser.add_argument("--task-steps", type=int, default=TASK_STEPS)
    options = parser.parse_args(arguments)
    rows = options.work / "rows"
    hashes = write_demo_data(source=options.data, glosses=options.glosses, into=rows, seed=SEED)
    (options.work / "hashes.json").write_text(json.dumps(hashes, indent=1) + "\n", encoding="utf-8")
    write_tokenizer(rows=rows, into=options.work / "tokenizer")
    train(pretraining(work=options.work, steps=options.pretraining_steps))
    train(all_tasks(work=options.work, steps=options.task_steps))


def write_tokenizer(*, rows: Path, into: Path) -> None:
    """A BPE of the texts and of the intents' utterances, all beginning as if after a space."""
    texts = [
        *texts_of(read_records(str(rows / "texts.jsonl")), column="text"),
        *texts_of(read_records(str(rows / "intents.jsonl")), column="text"),
    ]
    into.mkdir(parents=True, exist_ok=True)
    files = train_tokenizer(texts, pieces=PIECES, text_limit=TEXT_LIMIT, prefix_space=True, compact=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (into / name).write_bytes(files[name])


def pretraining(*, work: Path, steps: int) -> TrainSpec:
    """Masked language modelling at a rate of 0.3, which small models learn more from than from 0.15."""
    rows = work / "rows"
    return TrainSpec.parse(
        {
            "model": {"tokenizer": str(work / "tokenizer"), "config": {**ENCODER, **NO_DROPOUT}},
            "tasks": {"fill-mask": _fill_mask(rows, "texts", 0.3)},
            "output": str(work / "pretrained"),
            "seed": SEED,
            "steps": steps,
            "batch_tokens": BATCH_TOKENS,
            "learning_rate": 1e-3,
            "warmup": 0.08,
            "evaluate_every": max(1, steps // 6),
            "save_every": 250,
            "dtype": "bfloat16",
        }
    )


def all_tasks(*, work: Path, steps: int) -> TrainSpec:
    """All four heads from the pretrained encoder on, their batches mixed."""
    rows = work / "rows"
    return TrainSpec.parse(
        {
            "model": {"checkpoint": str(work / "pretrained"), "config": DROPOUT},
            "tasks": {
                "masks": _fill_mask(rows, "introductions", 0.2) | {"weight": 0.5},
                "intents": _task(rows, "text-classification", "intents") | {"repeat": 40},
                "entities": _task(rows, "token-classification", "entities", validated=False) | {"repeat": 30},
                "questions": _task(rows, "question-answering", "questions"),
            },
            "output": str(work / "multi-task"),
            "seed": SEED,
            "steps": steps,
            "batch_tokens": BATCH_TOKENS,
            "max_length": TEXT_LIMIT,
            "learning_rate": 7e-4,
            "evaluate_every": max(1, steps // 6),
            "save_every": 250,
            "dtype": "bfloat16",
            "save_dtype": "float16",
        }
    )


def _fill_mask(rows: Path, name: str, rate: float) -> dict[str, Any]:
    data = {"data": str(rows / f"{name}.jsonl"), "eval": str(rows / "introductions-test.jsonl")}
    return {"task": "fill-mask", "mask_rate": rate, **data}


def _task(rows: Path, task: str, name: str, *, validated: bool = True) -> dict[str, Any]:
    fields = {"task": task, "data": str(rows / f"{name}.jsonl")}
    return fields | ({"eval": str(rows / f"{name}-val.jsonl")} if validated else {})


if __name__ == "__main__":
    main()
