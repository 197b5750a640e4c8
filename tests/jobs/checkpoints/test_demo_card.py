"""The demo checkpoint's card shows every number, including those below the baseline."""

from jobs.checkpoints.demo_recipe.card import (
    ATTRIBUTION,
    CLAIMS,
    COMPARED,
    OTHERS,
    card,
    disagreements,
    domain_accuracy,
)
from jobs.checkpoints.demo_recipe.domains import DOMAIN_OF, DOMAINS

REPORTS = {
    "intents-test": {"accuracy": 0.95, "domain_accuracy": 0.96},
    "entities-test": {"f1": 0.30},
    "questions-test": {"exact_match": 0.10, "f1": 0.11},
    "introductions-test": {"mask_accuracy": 0.2},
}


def test_the_card_says_what_it_is_for_first_and_every_number_beside_its_floor() -> None:
    differing = {(data, framework): (number, 70) for data in COMPARED for number, framework in enumerate(OTHERS)}
    page = card(reports=REPORTS, differing=differing, hashes={"texts.jsonl": "ab12"}, steps=(10, 20), machine="a CPU")
    assert page.splitlines()[2].startswith("For trying out the pipeline only")
    assert "| intents (150), accuracy | 0.950 | 0.912 | above |" in page
    assert "| entities, F1 on the UNER test | 0.300 | 0.470 | **below** |" in page
    assert "| questions, F1 on XQuAD | 0.110 | 0.121 | **below** |" in page
    assert all(claim.name in page for claim in CLAIMS)
    assert "| domains (10) of those intents, accuracy | 0.960 | 0.965 | **below** |" in page
    assert "| intents-test | 70 | 0 | 1 |" in page
    assert "| texts.jsonl | `ab12` |" in page


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
