"""The jobs of docs/training.md are valid, and its three training loops learn equally well."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.training.keys import tables
from jobs.training.spec import TrainSpec
from tests.test_docs import blocks

CHANCE = 0.095
"""Three standard deviations of the difference of two accuracies of 0.9 on 180 rows; seen: 0.06."""
LEARNT = 0.8


def test_the_training_files_of_the_page_are_valid(repository: Path) -> None:
    found = re.findall(r"```yaml\n(.+?)```", (repository / "docs/training.md").read_text("utf-8"), re.DOTALL)
    whole = [block for block in found if "tasks:" in block]
    assert len(whole) == 2
    first = TrainSpec.from_yaml(whole[0])
    TrainSpec.from_yaml(whole[1])
    for block in (block for block in found if "tasks:" not in block):
        TrainSpec.parse({**first.model_dump(), **yaml.safe_load(block)})


def test_the_page_has_every_key_of_a_training_file(repository: Path) -> None:
    page = (repository / "docs/training.md").read_text("utf-8")
    assert tables() in page, "put what `python -m jobs.training.keys` prints into docs/training.md"
    assert not re.search(r"\|  \|$", tables(), re.MULTILINE), "a key without a docstring"


@pytest.mark.torch
@pytest.mark.tensorflow
@pytest.mark.flax
@pytest.mark.slow
def test_a_torch_loop_keras_fit_and_optax_learn_the_same(
    repository: Path, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (shared / "data/clinc150/data_full.json").exists()
    monkeypatch.chdir(repository)
    page = repository / "docs/training.md"
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks(page):
        exec(compile("\n" * (block.line - 1) + block.code, str(page), "exec"), namespace)
    accuracy = namespace["accuracy"]
    assert sorted(accuracy) == ["keras", "optax", "torch"]
    assert min(accuracy.values()) > LEARNT
    assert max(accuracy.values()) - min(accuracy.values()) < CHANCE, accuracy
