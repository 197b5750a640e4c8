"""Converts the folder of real text and labels to the demo recipe's JSON Lines.

What is held out stays out everywhere: every twentieth introduction, the sentences of the entities' test set (they are
part of the treebank's text too), all test sets, and XQuAD altogether.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Set
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from jobs.checkpoints.demo_recipe.questions import ask_all
from jobs.checkpoints.demo_recipe.running_text import marked

Row = dict[str, Any]
HELD_OUT = 20
"""Of the introductions, each so manieth is held out."""
WNUT_TYPES = {"person": "PER", "location": "LOC", "corporation": "ORG", "group": "ORG"}
"""WNUT's types as UNER has them; its creative works and products are none of UNER's."""
DATABASES = ("data.noun", "data.verb", "data.adj", "data.adv")


def write_demo_data(*, source: Path, glosses: Path | None, into: Path, seed: int) -> dict[str, str]:
    """Write all files; name -> SHA-256. glosses: folder of WordNet's database files, left out when None."""
    into.mkdir(parents=True, exist_ok=True)
    intros = _parquet(source / "wiki_intros/wiki_intros.parquet")
    held = [text for place, text in enumerate(intros) if place % HELD_OUT == 0]
    learnt = [text for place, text in enumerate(intros) if place % HELD_OUT]
    test = list(_iob2(source / "uner_ewt/test.iob2"))
    secret = {_bare(row["text"]) for row in test}
    treebank = [text for text in _parquet(source / "ud_ewt_text/sentences.parquet") if _bare(text) not in secret]
    plain = [*learnt, *treebank, *(_glosses(glosses) if glosses is not None else [])]
    clinc = json.loads((source / "clinc150/data_full.json").read_text(encoding="utf-8"))
    treebank_words = list(_iob2(source / "uner_ewt/dev.iob2"))
    tweets, unseen = (list(_wnut(source / f"wnut17/{part}.conll")) for part in ("train", "dev"))
    files: dict[str, Iterable[Row]] = {
        "texts.jsonl": ({"text": text} for text in plain),
        "introductions.jsonl": ({"text": text} for text in learnt),
        "introductions-test.jsonl": ({"text": text} for text in held),
        "intents.jsonl": _intents(clinc["train"]),
        "intents-val.jsonl": _intents(clinc["val"]),
        "intents-test.jsonl": _intents(clinc["test"]),
        "entities.jsonl": [*treebank_words, *tweets],
        "entities-unseen.jsonl": unseen,
        "entities-text.jsonl": [
            *_marked(treebank_words, written=True, secret=secret),
            *_marked(tweets, written=False, secret=secret),
        ],
        "entities-text-unseen.jsonl": _marked(unseen, written=False, secret=secret),
        "entities-test.jsonl": test,
        "entities-text-test.jsonl": _marked(test, written=True),
        "questions.jsonl": ask_all(learnt, seed=seed),
        "questions-val.jsonl": ask_all(held, seed=seed),
        "questions-test.jsonl": _xquad(source / "xquad/xquad.en.json"),
    }
    return {name: _write(into / name, rows) for name, rows in files.items()}


def _parquet(file: Path) -> list[str]:
    return list(pq.read_table(file, columns=["text"])["text"].to_pylist())


def _bare(text: str) -> str:
    return "".join(text.split())


def _glosses(folder: Path) -> Iterator[str]:
    """A line a sense: its words, then what they mean, without the quoted examples' marks."""
    for name in DATABASES:
        for line in (folder / name).read_text(encoding="utf-8").splitlines():
            if line.startswith(" ") or " | " not in line:
                continue
            fields, _, gloss = line.partition(" | ")
            parts = fields.split(" ")
            words = [parts[4 + 2 * i].replace("_", " ") for i in range(int(parts[3], 16))]
            yield f"{', '.join(words)}: {gloss.strip()}"


def _intents(pairs: Iterable[tuple[str, str]]) -> Iterator[Row]:
    return ({"text": text, "label": label} for text, label in pairs)


def _iob2(file: Path) -> Iterator[Row]:
    """Sentences of Universal NER: the text, its words, and their tags; `B-OTH` and the like are no entity."""
    for block in file.read_text(encoding="utf-8").split("\n\n"):
        lines = block.splitlines()
        text = next((line.removeprefix("# text = ") for line in lines if line.startswith("# text = ")), "")
        cells = [line.split("\t") for line in lines if line and not line.startswith("#")]
        if cells:
            tags = [cell[2] if cell[2][2:] in ("PER", "LOC", "ORG") else "O" for cell in cells]
            yield {"text": text, "words": [cell[1] for cell in cells], "tags": tags}


def _wnut(file: Path) -> Iterator[Row]:
    words: list[str] = []
    tags: list[str] = []
    for line in [*file.read_text(encoding="utf-8").splitlines(), ""]:
        word, _, tag = line.partition("\t")
        if word.strip():
            kind = WNUT_TYPES.get(tag.strip()[2:])
            words, tags = [*words, word], [*tags, f"{tag[:2]}{kind}" if kind else "O"]
        elif words:
            yield {"text": " ".join(words), "words": words, "tags": tags}
            words, tags = [], []


def _marked(rows: Iterable[Row], *, written: bool, secret: Set[str] = frozenset()) -> Iterator[Row]:
    """The rows as running text: as it was written, or else its words joined as if typed, without those in `secret`."""
    return (_marked_row(row, written=written) for row in rows if _bare(row["text"]) not in secret)


def _marked_row(row: Row, *, written: bool) -> Row:
    found = marked(words=row["words"], tags=row["tags"], text=row["text"] if written else None)
    entities = [{"entity_group": one.kind, "start": one.start, "end": one.end} for one in found.entities]
    return {"text": found.text, "entities": entities}


def _xquad(file: Path) -> Iterator[Row]:
    for article in json.loads(file.read_text(encoding="utf-8"))["data"]:
        for paragraph in article["paragraphs"]:
            for qa in paragraph["qas"]:
                answers = {
                    "text": [answer["text"] for answer in qa["answers"]],
                    "answer_start": [answer["answer_start"] for answer in qa["answers"]],
                }
                yield {"question": qa["question"], "context": paragraph["context"], "answers": answers}


def _write(file: Path, rows: Iterable[Row]) -> str:
    content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    file.write_bytes(content)
    return hashlib.sha256(content).hexdigest()
