"""The committed demo checkpoint: its heads share one small encoder, its pages exist, and it has learnt something, in every
framework.
"""

from typing import Any

import pyarrow as pa
import pytest

from jobs import demo
from jobs.demo import LEAST_INTENT, SHOWN, TASKS, answers_of, below_floor
from jobs.embedded import DEMO
from models.boundary import Framework
from models.checkpoint import Checkpoint
from models.named_heads import open_heads
from models.tensors import PREFIX
from pipeline.inference.questions import facts_of, heads_of
from pipeline.spec.job_spec import JobSpec
from tests.pipeline.tasks.in_process import annotate
from tests.pipeline.tasks.test_reference_answers import FRAMEWORKS

LARGEST = 15_000_000  # bytes of the folder; it is in the repository for good
SENTENCES = {
    "how do i say thank you very much in spanish": "translate",
    "what will the weather be like in london tomorrow": "weather",
    "please transfer one hundred dollars from checking to savings": "transfer",
    "tell me a joke about cats": "tell_joke",
    "set a timer for ten minutes": "timer",
}

PERSON, PLACE = "PER", "LOC"
RIGHT: dict[str, tuple[str | None, list[tuple[str, str]], str | None]] = {
    "What's the weather going to be like in Lisbon this weekend?": ("weather", [("Lisbon", PLACE)], None),
    "Do I need a visa for three weeks in Vietnam?": ("international_visa", [("Vietnam", PLACE)], None),
    "What vaccinations are recommended for Kenya?": ("vaccines", [("Kenya", PLACE)], None),
    "Find me a hotel near the harbour with free breakfast.": ("book_hotel", [], None),
    "Tomasz Kowalski took the ferry from Gdynia to Karlskrona with two bicycles.": (
        None,
        [("Tomasz Kowalski", PERSON), ("Gdynia", PLACE), ("Karlskrona", PLACE)],
        None,
    ),
    "My neighbour Elena Petrova plays the viola in the city orchestra of Graz.": (
        None,
        [("Elena Petrova", PERSON), ("Graz", PLACE)],
        None,
    ),
    "UNESCO has its headquarters in Paris.": (None, [("UNESCO", "ORG"), ("Paris", PLACE)], None),
    "It is the largest city in the <mask>.": (None, [], "world"),
    "The city has a <mask> of about two million people.": (None, [], "population"),
    "A cat is a small <mask>.": (None, [], "animal"),
}
"""What a reader would answer to each row that `preln demo` shows: the intent, if there is one; entities; the masked word."""
FUNCTION_WORDS = {"a", "an", "and", "at", "by", "for", "from", "in", "is", "of", "on", "or", "the", "to", "was", "with"}


def spec() -> JobSpec:
    values: dict[str, Any] = {"input": {"urls": "-", "columns": {"context": "text"}}, "output": "-", "tasks": TASKS}
    return JobSpec.parse({**values, "model": str(DEMO)})


def test_the_encoder_is_stored_once_and_all_is_small() -> None:
    assert sum(path.stat().st_size for path in DEMO.rglob("*") if path.is_file()) < LARGEST
    assert any(name.startswith(PREFIX) for name in Checkpoint.open(str(DEMO / "encoder")).sources[0].tensors)
    for name in TASKS:
        own, encoder = Checkpoint.open(str(DEMO / name)).sources
        assert not any(tensor.startswith(PREFIX) for tensor in own.tensors)
        assert "encoder" in encoder.paths[0]
        assert Checkpoint.open(str(DEMO / name)).stored_dtype == "float16"


def test_its_card_says_first_what_it_is_for_and_its_sources_are_attributed() -> None:
    card = (DEMO / "CARD.md").read_text(encoding="utf-8")
    assert card.splitlines()[2].startswith("For trying out the pipeline only")
    assert "| intents (150), accuracy |" in card
    assert "CC BY-SA 4.0" in (DEMO / "ATTRIBUTION.md").read_text(encoding="utf-8")


def test_its_heads_fit_together_and_have_150_intents() -> None:
    one = spec()
    facts = facts_of(one)
    assert set(open_heads(checkpoint=str(DEMO), heads=heads_of(one, facts), tokenizer=True)) == set(TASKS)
    assert len(facts["intents"].labels) == 150


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_it_knows_what_is_asked_of_it(framework: Framework) -> None:
    rows = annotate(spec=spec(), columns={"text": pa.array(list(SENTENCES))}, framework=framework)
    assert [row["intents_label"] for row in rows] == list(SENTENCES.values())


def shown_rows() -> list[dict[str, Any]]:
    return annotate(spec=spec(), columns={"text": pa.array(SHOWN)})


@pytest.mark.torch
def test_what_the_demo_shows_is_what_a_reader_would_answer() -> None:
    assert list(RIGHT) == list(SHOWN)
    for row in shown_rows():
        intent, entities, word = RIGHT[row["text"]]
        shown = answers_of(row)
        assert row["intents_label"] == intent if intent else row["intents_score"] < LEAST_INTENT, row["text"]
        assert [(one["word"].strip(), one["entity_group"]) for one in row["entities_entities"]] == entities
        assert word is None or row["masks_masks"][0]["fills"][0]["token_str"].strip() == word
        assert len(shown) == sum(part not in (None, []) for part in (intent, entities, word)), shown


@pytest.mark.torch
def test_no_shown_intent_is_unsure_and_no_shown_entity_is_a_function_word_or_ends_in_punctuation() -> None:
    for row in shown_rows():
        lines = dict(line.split(": ", 1) for line in answers_of(row))
        if "intents" in lines:
            assert float(lines["intents"].split()[-1]) >= LEAST_INTENT == 0.5
        for one in row["entities_entities"]:
            assert one["word"].strip()[-1].isalnum()
            assert one["word"].strip().lower() not in FUNCTION_WORDS


@pytest.mark.torch
def test_questions_are_shown_only_above_their_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    (row, *_) = [row for row in shown_rows() if row["questions_answers"]]
    numbers = below_floor()
    assert numbers is not None
    assert numbers[0] <= numbers[1] == 0.092
    assert not any(line.startswith("questions") for line in answers_of(row))
    monkeypatch.setattr(demo, "below_floor", lambda: None)
    assert f"questions (Where?): {row['questions_answers'][0]['answer']}" in answers_of(row)
