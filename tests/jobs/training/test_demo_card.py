"""Reports of evaluations in; proof that the card says every number, also one below its floor, out."""

from jobs.training.demo_card import ATTRIBUTION, CLAIMS, card

REPORTS = {
    "intents-test": {"accuracy": 0.95},
    "entities-test": {"f1": 0.30},
    "questions-test": {"exact_match": 0.10, "f1": 0.11},
    "introductions-test": {"mask_accuracy": 0.2},
}


def test_the_card_says_what_it_is_for_first_and_every_number_beside_its_floor() -> None:
    page = card(reports=REPORTS, hashes={"texts.jsonl": "ab12"}, steps=(10, 20), machine="a CPU")
    assert page.splitlines()[2].startswith("For trying the pipeline, and for nothing else")
    assert "| intents (150), accuracy | 0.950 | 0.912 | above |" in page
    assert "| entities, F1 on the UNER test | 0.300 | 0.470 | **below** |" in page
    assert "| questions, F1 on XQuAD | 0.110 | 0.121 | **below** |" in page
    assert all(claim.name in page for claim in CLAIMS)
    assert "| texts.jsonl | `ab12` |" in page


def test_every_source_of_the_recipe_is_attributed() -> None:
    for source in ("Wikipedia", "Treebank", "WordNet", "CLINC150", "Universal NER", "WNUT17", "XQuAD", "CC BY-SA 4.0"):
        assert source in ATTRIBUTION
