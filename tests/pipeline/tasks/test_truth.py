"""Gold labels turned into what a perfect model would say: the tasks give back the gold, through windows as well as without."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from models.config import RobertaPreLayerNormConfig
from models.tokenizer import load_tokenizer
from pipeline.arrow_lists import flat_list, list_lengths
from pipeline.tasks import QuestionAnswering, TokenClassification
from pipeline.tasks.entities import Aggregation
from pipeline.tasks.spans import Characters
from pipeline.tasks.task import ModelFacts

SURE = 10.0
"""Logit of what is right; what is wrong has its negative."""
TAGS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-ORG", "I-ORG"]
ENTITIES = {2_077: 1_088, 297: 144}
"""Sentences of Universal NER, all of its test part or the sample, and the entities in them."""
WITHIN_A_TOKEN = {1_190: 13, 271: 2}
"""Questions of XQuAD, all or the sample, and those whose answer begins or ends within a token."""
Chunk = tuple[str, int, int]


def facts(data: Path, *, max_length: int, labels: list[str] | None = None) -> ModelFacts:
    """RoBERTa's tokenizer beside a config that has no weights."""
    config = RobertaPreLayerNormConfig(id2label=dict(enumerate(labels or ["no", "yes"])), max_position_embeddings=514)
    return ModelFacts(config=config, tokenizer=load_tokenizer(str(data / "roberta-tokenizer")), max_length=max_length)


def chunks(tags: list[str]) -> list[Chunk]:
    """(type, first word, word behind the last) of each entity in IOB2, as seqeval's strict mode counts them."""
    found: list[Chunk] = []
    for number, tag in enumerate([*tags, "O"]):
        prefix, _, kind = tag.partition("-")
        if prefix == "I" and found and found[-1][2] == number and found[-1][0] == kind:
            found[-1] = (kind, found[-1][1], number + 1)
        elif prefix == "B":
            found.append((kind, number, number + 1))
    return found


@dataclass(frozen=True)
class Sentences:
    """Sentences as words with their tags."""

    words: list[list[str]]
    tags: list[list[str]]

    @classmethod
    def read(cls, path: Path) -> "Sentences":
        """From an IOB2 file of Universal NER."""
        words, tags = [], []
        for block in path.read_text(encoding="utf-8").strip().split("\n\n"):
            rows = [line.split("\t") for line in block.splitlines() if line and not line.startswith("#")]
            words.append([row[1] for row in rows])
            tags.append([row[2] for row in rows])
        return cls(words, tags)

    @cached_property
    def spans(self) -> list[list[tuple[str, int, int]]]:
        """(type, start, end) of each entity in characters of the words joined by spaces."""
        result = []
        for words, tags in zip(self.words, self.tags, strict=True):
            starts = np.cumsum([0, *(len(word) + 1 for word in words)])
            result.append([(kind, int(starts[a]), int(starts[b]) - 1) for kind, a, b in chunks(tags)])
        return result


@pytest.fixture(scope="module")
def sentences(data: Path) -> Sentences:
    return Sentences.read(data / "uner_ewt" / "test.iob2")


def token_logits(sentences: Sentences, windows: pa.Table) -> np.ndarray:
    """What a perfect model says of each asked token: its word's tag, and I- for what continues an entity's word."""
    item_G = np.repeat(windows["item"].to_numpy(), list_lengths(windows, "positions"))
    labels = []
    tables = []
    for words, tags in zip(sentences.words, sentences.tags, strict=True):
        starts = np.cumsum([0, *(len(word) + 1 for word in words)])[:-1]
        tables.append((starts, [TAGS.index(tag) for tag in tags]))
    for item, start in zip(item_G.tolist(), flat_list(windows, "start").tolist(), strict=True):
        starts, numbers = tables[item]
        word = int(np.searchsorted(starts, start, side="right")) - 1
        label = numbers[word]
        labels.append(label + 1 if TAGS[label].startswith("B-") and start > starts[word] else label)
    logits = np.full((len(labels), len(TAGS)), -SURE, np.float32)
    logits[np.arange(len(labels)), labels] = SURE
    return logits


@pytest.mark.parametrize("max_length", [512, 12], ids=["whole", "windows"])
@pytest.mark.parametrize("aggregation", ["simple", "first", "average", "max"])
def test_gold_entities_of_uner_come_back_from_texts(
    data: Path, sentences: Sentences, aggregation: Aggregation, max_length: int
) -> None:
    own = facts(data, max_length=max_length, labels=TAGS)
    task = TokenClassification(aggregation=aggregation)
    parts = {"text": pa.array([" ".join(words) for words in sentences.words], pa.large_string())}
    windows = task.encode(parts, own).windows
    assert (windows.num_rows > len(sentences.words)) == (max_length == 12)
    answers = {"logits": token_logits(sentences, windows)}
    (found,) = task.decode(parts=parts, windows=windows, answers=answers, facts=own).columns
    rows = [[(e["entity_group"], e["start"], e["end"]) for e in row] for row in found.to_pylist()]
    assert rows == sentences.spans


@pytest.mark.parametrize("max_length", [512, 12], ids=["whole", "windows"])
@pytest.mark.parametrize("aggregation", ["first", "average", "max"])
def test_gold_tags_of_uner_come_back_from_lists_of_words(
    data: Path, sentences: Sentences, aggregation: Aggregation, max_length: int
) -> None:
    own = facts(data, max_length=max_length, labels=TAGS)
    task = TokenClassification(words=True, add_prefix_space=True, aggregation=aggregation)
    parts = {"words": pa.array(sentences.words, pa.large_list(pa.large_string()))}
    encoding = task.encode(parts, own)
    assert encoding.errors.null_count == len(sentences.words)
    flat = [TAGS.index(tag) for tags in sentences.tags for tag in tags]
    first_N = np.cumsum([0, *map(len, sentences.words)])
    windows = encoding.windows
    item_G = np.repeat(windows["item"].to_numpy(), list_lengths(windows, "positions"))
    labels = np.array(flat)[first_N[item_G] + flat_list(windows, "word")]
    logits = np.full((len(labels), len(TAGS)), -SURE, np.float32)
    logits[np.arange(len(labels)), labels] = SURE
    entities, tags = task.decode(parts=parts, windows=windows, answers={"logits": logits}, facts=own).columns
    found_tags = [[word["label"] for word in row] for row in tags.to_pylist()]
    assert [chunks(row) for row in found_tags] == [chunks(row) for row in sentences.tags]
    assert sum(map(len, map(chunks, found_tags))) == ENTITIES[len(sentences.words)]
    rows = [[(e["entity_group"], e["start"], e["end"]) for e in row] for row in entities.to_pylist()]
    assert rows == sentences.spans


@dataclass(frozen=True)
class Questions:
    """XQuAD's questions with the place of their answer."""

    parts: dict[str, pa.Array]
    start_N: np.ndarray
    end_N: np.ndarray

    @classmethod
    def read(cls, path: Path) -> "Questions":
        """From a SQuAD file."""
        paragraphs = [part for article in json.loads(path.read_text())["data"] for part in article["paragraphs"]]
        rows = [(part["context"], qa["question"], qa["answers"][0]) for part in paragraphs for qa in part["qas"]]
        starts = np.array([answer["answer_start"] for *_, answer in rows])
        parts = {
            "context": pa.array([context for context, *_ in rows], pa.large_string()),
            "question": pa.array([question for _, question, _ in rows], pa.large_string()),
        }
        return cls(parts, starts, starts + [len(answer["text"]) for *_, answer in rows])


@pytest.mark.parametrize("score_mode", ["span", "hf"])
@pytest.mark.parametrize("window", [512, 96], ids=["whole", "windows"])
def test_gold_answers_of_xquad_come_back(data: Path, window: int, score_mode: str) -> None:
    questions = Questions.read(data / "xquad" / "xquad.en.json")
    own = facts(data, max_length=512)
    task = QuestionAnswering.model_validate(
        {"max_answer_length": 64, "max_seq_length": window, "doc_stride": 42, "score_mode": score_mode}
    )
    windows = task.encode(questions.parts, own).windows
    count = len(questions.start_N)
    assert windows.num_rows > (3 * count if window == 96 else count)
    item_G = np.repeat(windows["item"].to_numpy(), list_lengths(windows, "positions"))
    start_G, end_G = flat_list(windows, "start"), flat_list(windows, "end")
    real_G, gold_start_G, gold_end_G = (
        flat_list(windows, "token") >= 0,
        questions.start_N[item_G],
        questions.end_N[item_G],
    )
    begins = real_G & (start_G <= gold_start_G) & (gold_start_G < end_G)
    ends = real_G & (start_G < gold_end_G) & (gold_end_G <= end_G)
    logits = [np.where(where, SURE, -SURE).astype(np.float32) for where in (begins, ends)]
    answers, _ = task.decode(
        parts=questions.parts,
        windows=windows,
        answers={"start_logits": logits[0], "end_logits": logits[1]},
        facts=own,
    ).columns
    first = [row[0] for row in answers.to_pylist()]
    starts, stops = np.array([a["start"] for a in first]), np.array([a["end"] for a in first])
    gold = Characters(questions.parts["context"]).substrings(
        text_E=np.arange(len(first)), start_E=questions.start_N, end_E=questions.end_N
    )
    # A few gold answers end within a token, such as `19.3%` before `)`; the token is the least one can say.
    exact = (starts == questions.start_N) & (stops == questions.end_N)
    assert count - exact.sum() == WITHIN_A_TOKEN[count]
    assert [a["answer"] for a, same in zip(first, exact, strict=True) if same] == gold.filter(
        pa.array(exact)
    ).to_pylist()
    longer = stops - starts - (questions.end_N - questions.start_N)
    assert ((starts <= questions.start_N) & (stops >= questions.end_N) & (longer <= 2)).all()
