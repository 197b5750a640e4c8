"""A trained demo checkpoint in, its numbers by `preln evaluate`, its CARD.md and its ATTRIBUTION.md out.

`python -m jobs.checkpoints.demo_recipe.card --work demo-training --into FOLDER` evaluates every head on what was held out,
copies the encoder and the heads to FOLDER and writes both pages there. Every number stands beside its floor, also one below.
"""

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.checkpoints.demo_recipe.checkpoint import PIECES, SEED
from jobs.checkpoints.demo_recipe.domains import DOMAIN_OF
from jobs.training.records import Record, read_records
from jobs.training.spec import ENCODER
from models.boundary import Framework
from models.checkpoint import Checkpoint

HEADS = ("masks", "intents", "entities", "questions")


@dataclass(frozen=True)
class Claim:
    """One number of the card. floor: what a simple method reaches, None where there is none, and what that is."""

    name: str
    head: str
    task: str
    data: str
    number: str
    floor: float | None
    floor_is: str


COMPARED = {
    "intents-test": "predicted_label",
    "entities-test": "predicted_labels",
    "questions-test": "predicted_answers",
}
"""Held-out rows that all frameworks answer, and the column in which they must agree."""
OTHERS: tuple[Framework, ...] = ("tensorflow", "flax")

CLAIMS = (
    Claim("intents (150), accuracy", "intents", "text-classification", "intents-test", "accuracy", 0.912,
          "TF-IDF and logistic regression"),
    Claim("domains (10) of those intents, accuracy", "intents", "text-classification", "intents-test", "domain_accuracy",
          0.965, "TF-IDF and logistic regression"),
    Claim("entities, F1 on the UNER test", "entities", "token-classification", "entities-test", "f1", 0.470,
          "a linear tagger; spaCy's small English model reaches 0.566"),
    Claim("questions, exact match on XQuAD", "questions", "question-answering", "questions-test", "exact_match", 0.092,
          "rules"),
    Claim("questions, F1 on XQuAD", "questions", "question-answering", "questions-test", "f1", 0.121, "rules"),
    Claim("hidden tokens of held-out introductions, accuracy", "masks", "fill-mask", "introductions-test",
          "mask_accuracy", None, ""),
)  # fmt: skip

ATTRIBUTION = """# Attribution

The weights are published under CC BY-SA 4.0 (https://creativecommons.org/licenses/by-sa/4.0/). They were trained on:

- introductions of English Wikipedia articles, by their authors, CC BY-SA 4.0;
- the text of the English Web Treebank of Universal Dependencies, CC BY-SA 4.0;
- WordNet 3.0's glosses, Princeton University, WordNet licence;
- CLINC150, Larson et al. 2019, "An Evaluation Dataset for Intent Classification and Out-of-Scope Prediction", CC BY 3.0;
- Universal NER, English Web Treebank, Mayhew et al. 2024, CC BY-SA 4.0;
- WNUT17, Derczynski et al. 2017, "Results of the WNUT2017 Shared Task on Novel and Emerging Entity Recognition", CC BY 4.0.

Questions to learn from were generated from the introductions by this repository's rules
(`jobs/checkpoints/demo_recipe/questions.py`).
XQuAD (Artetxe et al. 2020, CC BY-SA 4.0) and all test sets were used for the card's numbers only.
"""


HEADING = """# The demo checkpoint

For trying the pipeline, and for nothing else: it is small, knows English only and was trained for very few
steps; decide nothing by its answers.

One encoder of 6 layers and width 192 with four heads: masks (fill-mask), intents (text-classification), entities
(token-classification) and questions (question-answering). float16. CC BY-SA 4.0, see ATTRIBUTION.md.

## Numbers

By `preln evaluate`, float32, on rows that were never learnt from. A number below its floor is the price of a small
encoder and few steps: it has seen 25 million tokens of text, and questions of our own rules only.
"""
AGREEMENT = """
The same rows in the three frameworks, float32; how many have another label, other tags or another answer than in PyTorch:

| rows | of | TensorFlow | Flax |
| --- | --- | --- | --- |
"""
RECIPE = """
## Recipe

`python -m jobs.checkpoints.demo_recipe.checkpoint`, seed {seed}: a byte-level BPE of {pieces:,} pieces, {pretraining:,} steps of
masked language modelling, {together:,} steps on all tasks together; then `python -m jobs.checkpoints.demo_recipe.card`. In
bfloat16, on {machine}.

On one kind of processor the recipe gives the same bits each time. SHA-256 of its rows:
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Evaluate, copy, and write both pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--work", type=Path, required=True, help="folder that jobs.checkpoints.demo_recipe.checkpoint worked in"
    )
    parser.add_argument("--into", type=Path, required=True, help="folder for the checkpoint and its pages")
    parser.add_argument("--machine", required=True, help="what it was trained on, in words for the card")
    options = parser.parse_args(arguments)
    first_of = {claim.data: claim for claim in reversed(CLAIMS)}
    reports = {data: evaluated(claim, work=options.work) for data, claim in first_of.items()}
    reports["intents-test"]["domain_accuracy"] = domain_accuracy(rows_of(first_of["intents-test"], work=options.work))
    differing = {}
    for data, column in COMPARED.items():
        ours = rows_of(first_of[data], work=options.work)
        for framework in OTHERS:
            evaluated(first_of[data], work=options.work, framework=framework)
            theirs = rows_of(first_of[data], work=options.work, framework=framework)
            differing[data, framework] = disagreements(ours, theirs, column=column)
    for folder in (ENCODER, *HEADS):
        shutil.copytree(options.work / "multi-task" / folder, options.into / folder, dirs_exist_ok=True)
    hashes = json.loads((options.work / "hashes.json").read_text(encoding="utf-8"))
    history = json.loads((options.work / "multi-task/training/history.json").read_text(encoding="utf-8"))
    pretrained = json.loads((options.work / "pretrained/training/history.json").read_text(encoding="utf-8"))
    steps = (pretrained[-1]["step"], history[-1]["step"])
    page = card(reports=reports, differing=differing, hashes=hashes, steps=steps, machine=options.machine)
    (options.into / "CARD.md").write_text(page, encoding="utf-8")
    (options.into / "ATTRIBUTION.md").write_text(ATTRIBUTION, encoding="utf-8")


def evaluated(claim: Claim, *, work: Path, framework: Framework = "torch") -> dict[str, Any]:
    """What `preln evaluate` reports of one head on one held-out set; kept, and not measured again."""
    folder = _folder(claim, work=work, framework=framework)
    if not (folder / "report.json").exists():
        given = ["--task", claim.task, "--model", str(work / "multi-task" / claim.head), "--framework", framework]
        data = ["--data", str(work / "rows" / f"{claim.data}.jsonl"), "--output", str(folder), "--dtype", "float32"]
        subprocess.run([sys.executable, "-m", "jobs", "evaluate", *given, *data], check=True)
    report: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return report


def _folder(claim: Claim, *, work: Path, framework: Framework) -> Path:
    digest = Checkpoint.open(str(work / "multi-task" / claim.head)).digest()
    return work / "evaluation" / digest[:12] / framework / claim.data


def rows_of(claim: Claim, *, work: Path, framework: Framework = "torch") -> list[Record]:
    """The annotated rows of an evaluation, in the order of the data."""
    rows = read_records(str(_folder(claim, work=work, framework=framework) / "annotated" / "data"))
    return sorted(rows, key=lambda row: (row["predicted_source"], row["predicted_row"]))


def domain_accuracy(rows: Sequence[Record]) -> float:
    """The share of rows whose predicted intent is of the true one's domain."""
    return sum(DOMAIN_OF.get(row["predicted_label"]) == DOMAIN_OF[row["label"]] for row in rows) / len(rows)


def disagreements(ours: Sequence[Record], theirs: Sequence[Record], *, column: str) -> tuple[int, int]:
    """(rows with another answer in this column, rows)."""
    pairs = zip(ours, theirs, strict=True)
    return sum(_said(one[column]) != _said(other[column]) for one, other in pairs), len(ours)


def _said(value: Any) -> Any:
    """An answer without its score."""
    if isinstance(value, list):
        return [_said(one) for one in value]
    return {key: part for key, part in value.items() if key != "score"} if isinstance(value, dict) else value


def card(
    *,
    reports: Mapping[str, Mapping[str, Any]],
    differing: Mapping[tuple[str, Framework], tuple[int, int]],
    hashes: Mapping[str, str],
    steps: tuple[int, int],
    machine: str,
) -> str:
    """CARD.md: what the checkpoint is for, its numbers beside their floors, the recipe and the data's hashes."""
    rows = ["| on held-out rows | measured | floor | | the floor is |", "| --- | --- | --- | --- | --- |"]
    for claim in CLAIMS:
        value = float(reports[claim.data][claim.number])
        floor = "" if claim.floor is None else f"{claim.floor:.3f}"
        judged = "" if claim.floor is None else "above" if value > claim.floor else "**below**"
        rows.append(f"| {claim.name} | {value:.3f} | {floor} | {judged} | {claim.floor_is} |")
    agreement = [
        f"| {data} | {differing[data, OTHERS[0]][1]:,} | "
        + " | ".join(f"{differing[data, framework][0]:,}" for framework in OTHERS)
        + " |"
        for data in COMPARED
    ]
    recipe = RECIPE.format(seed=SEED, pieces=PIECES, pretraining=steps[0], together=steps[1], machine=machine)
    digests = [f"| {name} | `{digest}` |" for name, digest in sorted(hashes.items())]
    parts = [HEADING, *rows, AGREEMENT.rstrip(), *agreement, recipe, "| file | SHA-256 |", "| --- | --- |", *digests]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    main()
