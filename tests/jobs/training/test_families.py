"""Training takes a checkpoint of every family and writes one of that family."""

from pathlib import Path

import pytest

from jobs.training.network import HeadPlan, build, write_network
from models.checkpoint import Checkpoint
from models.load import load
from tests.models.test_families import FIRST, FOLDERS, OTHERS


@pytest.mark.torch
@pytest.mark.parametrize("family", OTHERS)
def test_a_trained_network_is_written_as_its_family_s(family: str, tmp_path: Path) -> None:
    """The encoder comes from the checkpoint, a head that it lacks starts afresh, and load() takes what is written."""
    source = Checkpoint.open(str(FOLDERS / family / FIRST[family]))
    network = build({"mask": HeadPlan(task="fill-mask")}, base=source.config, checkpoint=source.url, seed=3)
    network.encoder.encoder.layer[0].output.dense.bias.data += 1.0
    write_network(network, url=str(tmp_path / "trained"), tokenizer_files={}, dtype="float32")
    written = Checkpoint.open(str(tmp_path / "trained"))
    assert written.config.model_type == family
    assert written.config.architectures == [source.config.family.class_prefix + "ForMaskedLM"]
    before, after = dict(source.stream()), dict(written.stream())
    changed = {name for name in before.keys() & after.keys() if (before[name] != after[name]).any()}
    assert {name for name in changed if "lm_head" not in name} == {
        "roberta_prelayernorm.encoder.layer.0.output.dense.bias"
    }
    assert load(checkpoint=written, heads=["masked-lm"], device="cpu")
