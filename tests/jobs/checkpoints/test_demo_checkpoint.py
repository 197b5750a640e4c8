"""The committed demo checkpoint: its heads share one small encoder, its pages exist, and it has learnt something, in every
framework.
"""

from typing import Any

import pyarrow as pa
import pytest

from jobs.demo import TASKS
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
