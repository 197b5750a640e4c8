"""Copies the sample of the real texts of ../shared/data to this folder, unchanged.

`python -m tests.data.selection` writes this folder again. RoBERTa's vocabulary is cut to what the sample's texts need: each
token with the merges that lead to it, so that these texts have the ids that the whole vocabulary gives them.
"""

import gzip
import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from tokenizers import pre_tokenizers

from models.tokenizer import load_tokenizer

HERE = Path(__file__).resolve().parent
REFERENCE = HERE.parents[2] / "shared" / "data"

SENTENCES = Path("ud_ewt_text/sentences.parquet")
INTRODUCTIONS = Path("wiki_intros/wiki_intros.parquet")
ENTITIES = Path("uner_ewt/test.iob2")
QUESTIONS = Path("xquad/xquad.en.json")
TOKENIZER = Path("roberta-tokenizer")
DEFINITIONS = Path("kuberay-crds")

FIRST_SENTENCES = 160
EVERY_INTRODUCTION = 40
EVERY_SENTENCE_WITH_TAGS = 7
PARAGRAPHS_OF_AN_ARTICLE = 1
OWN_TEXTS = ("Hello world", "A B", "France is <mask>.", "<s>x</s>", "0123456789 (12)")
"""What tests of the tokenizer ask for."""


def rows_of(table: Path, *, first: int | None = None, every: int = 1) -> pa.Table:
    """Some rows of a table of (id, text)."""
    whole = pq.read_table(REFERENCE / table)
    return whole.take(list(range(0, first or whole.num_rows, every)))


def tagged_sentences() -> str:
    """Some sentences of the IOB2 file, as they stand there."""
    blocks = (REFERENCE / ENTITIES).read_text(encoding="utf-8").strip().split("\n\n")
    return "\n\n".join(blocks[::EVERY_SENTENCE_WITH_TAGS]) + "\n"


def questions() -> dict[str, Any]:
    """The first paragraphs of each article with all of their questions."""
    whole = json.loads((REFERENCE / QUESTIONS).read_text(encoding="utf-8"))
    articles = [{"paragraphs": article["paragraphs"][:PARAGRAPHS_OF_AN_ARTICLE]} for article in whole["data"]]
    return {"data": articles, "version": whole["version"]}


def definition(kind: str) -> dict[str, Any]:
    """A kind's served version without its descriptions, which are nine tenths of it."""
    text = (REFERENCE / DEFINITIONS / f"ray.io_{kind}.yaml").read_text(encoding="utf-8")
    whole = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    whole["spec"]["versions"] = [version for version in whole["spec"]["versions"] if version["name"] == "v1"]
    stripped: dict[str, Any] = _without_descriptions(whole)
    return stripped


def _without_descriptions(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_descriptions(item) for item in value]
    if not isinstance(value, dict):
        return value
    kept = {key: item for key, item in value.items() if key != "description" or not isinstance(item, str)}
    return {key: _without_descriptions(item) for key, item in kept.items()}


def tokenizer_of(texts: Iterable[str]) -> tuple[dict[str, int], list[str]]:
    """(vocabulary, merges) that give these texts their ids: the tokens in them, what these are merged from, and all bytes."""
    vocabulary: dict[str, int] = json.loads((REFERENCE / TOKENIZER / "vocab.json").read_text(encoding="utf-8"))
    merges = (REFERENCE / TOKENIZER / "merges.txt").read_text(encoding="utf-8").splitlines()
    parts_of = {"".join(merge.split(" ")): merge for merge in merges[1:] if " " in merge}
    backend = load_tokenizer(str(REFERENCE / TOKENIZER)).backend
    used: set[str] = set()
    for text in texts:
        used.update(token for start in ("", " ") for token in backend.encode(start + text).tokens)
    needed, waiting = set(pre_tokenizers.ByteLevel.alphabet()), list(used)
    while waiting:
        token = waiting.pop()
        if token not in needed:
            needed.add(token)
            waiting += parts_of[token].split(" ") if token in parts_of else []
    needed |= {"<s>", "<pad>", "</s>", "<unk>", "<mask>"}
    kept = [merge for merge in merges[1:] if "".join(merge.split(" ")) in needed and " " in merge]
    return {token: number for token, number in vocabulary.items() if token in needed}, [merges[0], *kept]


def texts_of(folder: Path) -> Iterator[str]:
    """Every text of a folder like this one."""
    yield from OWN_TEXTS
    for table in (SENTENCES, INTRODUCTIONS):
        yield from pq.read_table(folder / table)["text"].to_pylist()
    for block in (folder / ENTITIES).read_text(encoding="utf-8").strip().split("\n\n"):
        yield " ".join(line.split("\t")[1] for line in block.splitlines() if not line.startswith("#"))
    for article in json.loads((folder / QUESTIONS).read_text(encoding="utf-8"))["data"]:
        for paragraph in article["paragraphs"]:
            yield from (paragraph["context"], *(question["question"] for question in paragraph["qas"]))


def write(folder: Path) -> None:
    """All of the sample, into an empty folder."""
    for file in (SENTENCES, ENTITIES, QUESTIONS, INTRODUCTIONS, TOKENIZER / "vocab.json", DEFINITIONS / "LICENSE"):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
    for table, rows in (
        (SENTENCES, rows_of(SENTENCES, first=FIRST_SENTENCES)),
        (INTRODUCTIONS, rows_of(INTRODUCTIONS, every=EVERY_INTRODUCTION)),
    ):
        pq.write_table(rows, folder / table, compression="zstd")
    (folder / ENTITIES).write_text(tagged_sentences(), encoding="utf-8")
    (folder / QUESTIONS).write_text(_compact(questions()) + "\n", encoding="utf-8")
    vocabulary, merges = tokenizer_of(texts_of(folder))
    (folder / TOKENIZER / "vocab.json").write_text(_compact(vocabulary) + "\n", encoding="utf-8")
    (folder / TOKENIZER / "merges.txt").write_text("\n".join(merges) + "\n", encoding="utf-8")
    for kind in ("rayclusters", "rayjobs", "raycronjobs"):
        content = gzip.compress(_compact(definition(kind)).encode(), mtime=0)
        (folder / DEFINITIONS / f"ray.io_{kind}.json.gz").write_bytes(content)
    shutil.copy(REFERENCE / DEFINITIONS / "LICENSE", folder / DEFINITIONS)
    shutil.copy(REFERENCE / "uner_ewt" / "LICENSE.txt", folder / "LICENSE-CC-BY-SA-4.0.txt")


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


if __name__ == "__main__":
    write(HERE)
