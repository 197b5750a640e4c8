"""Measures how many tokens and rows per second one core encodes and decodes for each task, on real texts.

`python -m tests.benchmarks.task_throughput` needs ../shared/data, no model and no Ray: encoding is that of the tasks with
RoBERTa's tokenizer, decoding is of random answers of the right shapes. CPU time of one thread, median of the rounds.
"""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one thread is what is measured

from models.boundary import Answers
from models.config import RobertaPreLayerNormConfig
from models.tokenizer import load_tokenizer
from pipeline.tasks import (
    FeatureExtraction,
    FillMask,
    MultipleChoice,
    QuestionAnswering,
    TextClassification,
    TextScoring,
    TokenClassification,
)
from pipeline.tasks.task import ModelFacts, Task

Result = TypeVar("Result")
DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
LABELS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-ORG", "I-ORG")
MASKED_TEXTS = 100
"""Texts of masked scoring: each makes as many copies as it has tokens."""


@dataclass(frozen=True)
class Case:
    """A task with the parts it reads."""

    task: Task
    parts: dict[str, pa.Array]

    @property
    def title(self) -> str:
        """The task and the options that are not its defaults."""
        options = self.task.model_dump(exclude_defaults=True)
        return " ".join(
            [str(type(self.task).model_fields["name"].default), *(f"{key}={value}" for key, value in options.items())]
        )


@dataclass(frozen=True)
class Speed:
    """Tokens read by the model, rows, and CPU seconds."""

    tokens: int
    rows: int
    encode_s: float
    decode_s: float


def cases(texts: pa.Array) -> list[Case]:
    """Every task in its default mode, and the costly other modes."""
    strings = texts.to_pylist()
    masked = pa.array([f"{text[:200]} <mask> {text[200:]}" for text in strings], pa.large_string())
    questions = pa.array([f"What is said of number {number}?" for number in range(len(strings))], pa.large_string())
    choices = pa.array([["yes", "no", "who can tell"]] * len(strings), pa.large_list(pa.large_string()))
    words = pa.array([text.split() for text in strings], pa.large_list(pa.large_string()))
    text, asked = {"text": texts}, {"context": texts, "question": questions}
    return [
        Case(TextClassification(), text),
        Case(TextClassification(top_k=3), text),
        Case(FeatureExtraction(), text),
        Case(FillMask(), {"text": masked}),
        Case(FillMask(sequence="hf"), {"text": masked}),
        Case(TokenClassification(), text),
        Case(TokenClassification(aggregation="average"), text),
        Case(TokenClassification(words=True, add_prefix_space=True), {"words": words}),
        Case(TokenClassification(word_rule="hf", aggregation="average"), text),
        Case(QuestionAnswering(), asked),
        Case(QuestionAnswering(top_k=5), asked),
        Case(QuestionAnswering(score_mode="hf"), asked),
        Case(MultipleChoice(), {"prompt": texts, "choices": choices}),
        Case(TextScoring(method="causal"), text),
        Case(TextScoring(method="masked"), {"text": texts[:MASKED_TEXTS]}),
    ]


def answers_for(task: Task, *, windows: int, asked: int, hidden: int) -> Answers:
    """Random answers of the shapes that the model gives."""
    random = np.random.default_rng(0)

    def scores(*shape: int) -> np.ndarray:
        return random.standard_normal(shape, np.float32)

    if isinstance(task, FillMask):
        return {
            "ids": random.integers(5, 50_000, (asked, task.top_k), np.int32),
            "probs": np.abs(scores(asked, task.top_k)),
        }
    if isinstance(task, QuestionAnswering):
        return {"start_logits": scores(asked), "end_logits": scores(asked)}
    if isinstance(task, FeatureExtraction):
        return {"hidden": scores(windows, hidden)}
    if isinstance(task, TextScoring):
        return {"log_probs": -np.abs(scores(asked))}
    return {"logits": scores(asked, 1 if isinstance(task, MultipleChoice) else len(LABELS))}


def measured(case: Case, *, facts: ModelFacts, rounds: int) -> Speed:
    """The median of the rounds, after a warm-up."""
    task, parts = case.task, case.parts
    task.encode({name: part.slice(0, 8) for name, part in parts.items()}, facts)
    encodes, decodes = [], []
    for _ in range(rounds):
        spent, encoding = _timed(lambda: task.encode(parts, facts))
        encodes.append(spent)
        windows = encoding.windows
        asked = len(windows["positions"].combine_chunks().values)
        answers = answers_for(task, windows=windows.num_rows, asked=asked, hidden=facts.config.hidden_size)
        spent, _ = _timed(lambda: task.decode(parts=parts, windows=windows, answers=answers, facts=facts))  # noqa: B023 - called at once
        decodes.append(spent)
    tokens = len(windows["input_ids"].combine_chunks().values)
    rows = len(next(iter(parts.values())))
    return Speed(tokens, rows, statistics.median(encodes), statistics.median(decodes))


def _timed(work: Callable[[], Result]) -> tuple[float, Result]:
    began = time.thread_time()
    result = work()
    return time.thread_time() - began, result


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the machine and the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=4_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    table = pq.read_table(DATA / "wiki_intros" / "wiki_intros.parquet")
    texts = table["text"].combine_chunks().cast(pa.large_string())[: options.texts]
    config = RobertaPreLayerNormConfig(max_position_embeddings=514, id2label=dict(enumerate(LABELS)))
    tokenizer = load_tokenizer(str(DATA / "roberta-tokenizer"))
    facts = ModelFacts(config=config, tokenizer=tokenizer, max_length=512)
    assert facts.vocabulary.strings is not None  # made once a process, so not timed
    assert facts.vocabulary.blank_V is not None
    print(f"{_processor()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; {options.texts} texts\n")
    print("| task | encode, tokens/s | decode, tokens/s | decode, rows/s |\n| --- | --- | --- | --- |")
    for case in cases(texts):
        speed = measured(case, facts=facts, rounds=options.rounds)
        rates = (speed.tokens / speed.encode_s, speed.tokens / speed.decode_s, speed.rows / speed.decode_s)
        print(f"| {case.title} | " + " | ".join(f"{_round(rate):,}" for rate in rates) + " |", flush=True)


def _round(rate: float) -> int:
    """Three digits."""
    digits = max(len(str(int(rate))) - 3, 0)
    return round(rate / 10**digits) * 10**digits


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


if __name__ == "__main__":
    main()
