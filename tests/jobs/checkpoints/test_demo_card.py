"""The demo checkpoint's card shows every number, including those below the baseline."""

import json
from typing import Any

import pytest

from jobs.checkpoints.demo_recipe.card import (
    ATTRIBUTION,
    CLAIMS,
    COMPARED,
    HEADS,
    card,
    disagreements,
    domain_accuracy,
    text_f1,
)
from jobs.checkpoints.demo_recipe.domains import DOMAIN_OF, DOMAINS
from jobs.embedded import DEMO, DEMO_NUMBERS
from models.checkpoint import Checkpoint

MEASURED = {
    "intents-test/accuracy": 0.95,
    "intents-test/domain_accuracy": 0.96,
    "entities-test/f1": 0.30,
    "entities-text-test/text_f1": 0.25,
    "questions-test/exact_match": 0.10,
    "questions-test/f1": 0.11,
    "introductions-test/mask_accuracy": 0.2,
}
NUMBERS = {
    "made": {"steps": [10, 20], "machine": "a CPU", "note": "A note.", "hashes": {"texts.jsonl": "ab12"}},
    "measured": {key: {"value": value} for key, value in MEASURED.items()},
    "differing": {data: {"rows": 70, "tensorflow": 0, "flax": 1} for data in COMPARED},
}


def test_the_card_says_what_it_is_for_first_and_every_number_beside_its_floor() -> None:
    page = card(NUMBERS)
    assert page.splitlines()[2].startswith("For trying out the pipeline only")
    assert "| intents (150), accuracy | 0.950 | 0.912 | above |" in page
    assert "| entities in lists of words, F1 on the UNER test | 0.300 | 0.470 | **below** |" in page
    assert "| entities in running text, F1 on the UNER test | 0.250 |  |  |" in page
    assert "| questions, F1 on XQuAD | 0.110 | 0.121 | **below** |" in page
    assert all(claim.name in page for claim in CLAIMS)
    assert "| domains (10) of those intents, accuracy | 0.960 | 0.965 | **below** |" in page
    assert "| intents-test | 70 | 0 | 1 |" in page
    assert "| texts.jsonl | `ab12` |" in page


def test_the_committed_card_is_that_of_the_committed_numbers_and_heads() -> None:
    numbers = json.loads((DEMO / DEMO_NUMBERS).read_text(encoding="utf-8"))
    assert (DEMO / "CARD.md").read_text(encoding="utf-8") == card(numbers)
    assert numbers["digests"] == {head: Checkpoint.open(str(DEMO / head)).digest() for head in HEADS}
    assert (DEMO / "ATTRIBUTION.md").read_text(encoding="utf-8") == ATTRIBUTION


def test_an_entity_in_running_text_counts_if_its_type_and_borders_are_right() -> None:
    def entity(kind: str, start: int, end: int) -> dict[str, object]:
        return {"entity_group": kind, "start": start, "end": end}

    rows: list[dict[str, Any]] = [
        {"entities": [entity("LOC", 0, 5)], "predicted_entities": [entity("LOC", 0, 5), entity("PER", 9, 12)]},
        {"entities": [entity("LOC", 0, 5)], "predicted_entities": [entity("LOC", 0, 6)]},
        {"entities": [], "predicted_entities": None},
    ]
    assert text_f1(rows) == pytest.approx(2 * 1 / (2 + 3))


def test_every_source_of_the_recipe_is_attributed() -> None:
    for source in ("Wikipedia", "Treebank", "WordNet", "CLINC150", "Universal NER", "WNUT17", "XQuAD", "CC BY-SA 4.0"):
        assert source in ATTRIBUTION


def test_answers_differ_by_what_they_say_and_not_by_their_scores() -> None:
    tags = [[{"label": "O", "score": 0.9}], [{"label": "B-PER", "score": 0.8}], None]
    other = [[{"label": "O", "score": 0.1}], [{"label": "O", "score": 0.8}], None]
    rows = [[{"answer": answer} for answer in answers] for answers in (tags, other)]
    assert disagreements(*rows, column="answer") == (1, 3)


def test_an_intent_of_the_right_domain_counts_for_the_domains() -> None:
    pairs = [("apr", "apr"), ("apr", "new_card"), ("apr", "w2"), ("apr", None)]
    assert domain_accuracy([{"label": gold, "predicted_label": found} for gold, found in pairs]) == 0.5
    assert [len(intents.split()) for intents in DOMAINS.values()] == [15] * 10
    assert len(DOMAIN_OF) == 150
