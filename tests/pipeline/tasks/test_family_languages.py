"""The same job on a family's checkpoint gives the same answers in three frameworks, in several languages and scripts."""

import functools
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pytest

from models.boundary import Framework
from models.checkpoint import Checkpoint, read_tokenizer_files
from models.checkpoint_writer import write_checkpoint
from models.config import RobertaPreLayerNormConfig
from tests.models.frameworks import INSTALLED
from tests.pipeline.tasks.in_process import Row, annotate, job_spec
from tests.pipeline.tasks.test_families import FOLDERS, HERE, checkpoint
from tests.pipeline.tasks.test_frameworks_agree import assert_agree, columns_of, real_texts

DATA = Path(__file__).resolve().parents[2] / "data"
FRAMEWORKS = cast("list[Framework]", INSTALLED)
LANGUAGES = ("en", "fr", "ru", "ja", "mixed")
FEW, MANY = 6, 100
"""Texts of each language."""

LABELS: dict[str, Any] = {"name": "text-classification", "top_k": "all"}
ENTITIES: dict[str, Any] = {"name": "token-classification"}
WORDS: dict[str, Any] = {"name": "token-classification", "aggregation": "average", "stride": 16, "ignore_labels": []}
ANSWERS: dict[str, Any] = {"name": "question-answering", "top_k": 3, "question": "Où est 東京?"}
FILLS: dict[str, Any] = {"name": "fill-mask", "top_k": 3}
VECTORS: dict[str, Any] = {"name": "feature-extraction"}

COMMITTED: list[tuple[str, str, dict[str, Any]]] = [
    ("roberta", "token-classification", WORDS),
    ("xlm-roberta", "token-classification", ENTITIES),
    ("xlm-roberta", "question-answering", ANSWERS),
    ("xlm-roberta", "fill-mask", FILLS),
    ("xlm-roberta-xl", "text-classification", LABELS),
]
EVERY = [
    (family, str(task["name"]), task)
    for family in ("roberta", "xlm-roberta", "camembert", "xlm-roberta-xl")
    for task in (LABELS, ENTITIES, WORDS, ANSWERS, FILLS, VECTORS)
]


def texts_of(language: str) -> Iterator[str]:
    """Real texts of a language; mixed: a sentence of each in one text, with punctuation of several scripts."""
    messages: dict[str, list[str]] = json.loads((DATA / "languages" / "texts.json").read_text(encoding="utf-8"))
    messages["en"] = real_texts(DATA)
    if language != "mixed":
        yield from messages[language]
        return
    for number in range(MANY):
        en, fr, ru, ja = (messages[name][number] for name in ("en", "fr", "ru", "ja"))
        yield (
            f"{ru} {ja[:20]}「{fr}」— {en[:40]} ﬁn ½ ＡＢ 🙂"
            if number % 2
            else f"{en[:40]}, {ja}{fr} e\u0301te\u0301: «{ru}»"
        )


def sample(count: int) -> list[str]:
    """So many texts of every language, one language after the other."""
    return [text for name in LANGUAGES for _, text in zip(range(count), texts_of(name), strict=False)]


@functools.cache
def committed(family: str, task: str) -> Path:
    """A checkpoint of this repository's files alone: what a family lacks is XLM-RoBERTa's tokenizer or CamemBERT's head,
    which fit: the tokenizers of both multilingual families are one, and so are the widths of all."""
    folder = Path(tempfile.mkdtemp(prefix="languages-")) / family / task
    folder.mkdir(parents=True)
    tokenizer = HERE / (family if (HERE / family / "tokenizer.json").is_file() else "xlm-roberta")
    if (HERE / family / task).is_dir():
        for path in (*(HERE / family / task).iterdir(), *tokenizer.glob("*token*.json")):
            shutil.copyfile(path, folder / path.name)
        return folder
    encoder = Checkpoint.open(str(HERE / family / "token-classification"))
    head = Checkpoint.open(str(HERE / "camembert" / task))
    tensors = {name: array for name, array in encoder.stream() if not name.startswith("classifier")}
    tensors |= {name: array for name, array in head.stream() if name.startswith("qa_outputs")}
    fields = {**encoder.config.to_dict(), "architectures": ["XLMRobertaForQuestionAnswering"]}
    fields = {name: value for name, value in fields.items() if name not in ("id2label", "label2id")}
    config = RobertaPreLayerNormConfig.from_dict(fields)
    write_checkpoint(
        url=str(folder), config=config, tensors=tensors, tokenizer_files=read_tokenizer_files(str(tokenizer))
    )
    return folder


def check_frameworks(folder: Path, task: dict[str, Any], texts: list[str]) -> list[Row]:
    """Rows of the first framework, which those of the others are equal to."""
    columns = columns_of(task, texts)
    if task["name"] == "fill-mask":  # between two characters, as Japanese has no spaces; no token is longer than a byte
        columns = {"text": pa.array([f"{text[:5]}<mask>{text[5:15]}" for text in texts])}
    spec = job_spec(task=task, checkpoint=folder)
    first, *others = (annotate(spec=spec, columns=columns, framework=framework) for framework in FRAMEWORKS)
    for found in others:
        assert_agree(found, first)
    assert [row["error"] for row in first] == [None] * len(texts)
    return first


def check_spans(rows: list[Row], texts: list[str], task: str) -> None:
    """Whatever was found is written in its text where the answer says."""
    column, word = {"token-classification": ("entities", "word"), "question-answering": ("answers", "answer")}[task]
    for row, text in zip(rows, texts, strict=True):
        for span in row[column]:
            assert span[word] == text[span["start"] : span["end"]]


def names(value: Any) -> str | None:
    return value if isinstance(value, str) else value.get("aggregation")


@pytest.mark.parametrize(("family", "name", "task"), COMMITTED, ids=names)
def test_the_frameworks_agree_on_texts_of_five_scripts(family: str, name: str, task: dict[str, Any]) -> None:
    texts = sample(FEW)
    rows = check_frameworks(committed(family, name), task, texts)
    if name in ("token-classification", "question-answering"):
        check_spans(rows, texts, name)


@pytest.mark.slow
@pytest.mark.usefixtures("shared")
@pytest.mark.parametrize(("family", "name", "task"), EVERY, ids=names)
def test_the_frameworks_agree_on_500_texts(family: str, name: str, task: dict[str, Any]) -> None:
    texts = sample(MANY)
    assert len(set(texts)) == 500
    assert (FOLDERS / family / name).is_dir()
    rows = check_frameworks(checkpoint(family, name), task, texts)
    if name in ("token-classification", "question-answering"):
        check_spans(rows, texts, name)
