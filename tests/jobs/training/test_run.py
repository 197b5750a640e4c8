"""Small training runs learn, resume, stop, and write checkpoints that annotate."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from jobs.training.spec import TrainSpec
from models.boundary import Ask, Tokens
from models.checkpoint import Checkpoint
from models.load import load
from models.tokenizer import load_tokenizer
from pipeline.errors import SpecError
from tests.jobs.small_training import DATA, intents

pytestmark = pytest.mark.torch

MakeSpec = Callable[..., TrainSpec]


class Killed(BaseException):
    """What a kill looks like from inside."""


def train(spec: TrainSpec, *, kill_at: int | None = None) -> list[dict[str, object]]:
    from jobs.training.loop import Progress
    from jobs.training.run import train as run

    def on_progress(progress: Progress) -> None:
        if progress.step == kill_at:
            raise Killed

    return run(spec, on_progress=on_progress, device="cpu").history


def weights(folder: Path) -> dict[str, np.ndarray]:
    return {name: np.array(array) for name, array in Checkpoint.open(str(folder)).stream()}


@pytest.mark.parametrize("task", sorted(DATA))
def test_every_kind_of_head_learns(make_spec: MakeSpec, task: str) -> None:
    history = train(make_spec(task, steps=60, evaluate_every=20))
    losses = [entry["evaluation"][task]["loss"] for entry in history]  # type: ignore[index]
    assert losses[-1] < 0.9 * losses[0]


def test_a_killed_run_ends_with_the_bits_of_an_unbroken_one(make_spec: MakeSpec, tmp_path: Path) -> None:
    names = ("text-classification", "fill-mask")
    unbroken = train(make_spec(*names, output="unbroken", steps=20, save_every=4))
    killed = make_spec(*names, output="killed", steps=20, save_every=4)
    with pytest.raises(Killed):
        train(killed, kill_at=11)
    snapshots = sorted(file.name for file in (tmp_path / "killed/training").iterdir())
    assert snapshots == ["step-00000004.safetensors", "step-00000008.safetensors"]
    steps: list[int] = []
    from jobs.training.run import train as run

    resumed = run(killed, on_progress=lambda progress: steps.append(progress.step), device="cpu").history
    assert steps[0] == 9
    assert resumed == unbroken
    for name in names:
        first, second = weights(tmp_path / "unbroken" / name), weights(tmp_path / "killed" / name)
        assert first.keys() == second.keys()
        assert all(np.array_equal(first[key], second[key]) for key in first)


@pytest.mark.storage
def test_a_run_on_an_object_store_is_killed_resumed_and_read_from_there(make_spec: MakeSpec, s3_bucket: str) -> None:
    there = {"output": f"{s3_bucket}/trained"}
    spec = make_spec("text-classification", steps=12, save_every=4).model_copy(update=there)
    with pytest.raises(Killed):
        train(spec, kill_at=9)
    assert train(spec) == train(make_spec("text-classification", output="unbroken", steps=12, save_every=4))
    Checkpoint.open(f"{s3_bucket}/trained").check(heads=["sequence-classification"], tokenizer=True)


def test_a_snapshot_that_is_cut_off_is_passed_over_for_the_one_before_it(make_spec: MakeSpec, tmp_path: Path) -> None:
    spec = make_spec("text-classification", steps=20, save_every=4)
    with pytest.raises(Killed):
        train(spec, kill_at=11)
    newest = tmp_path / "out/training/step-00000008.safetensors"
    newest.write_bytes(newest.read_bytes()[:1000])
    assert train(spec) == train(make_spec("text-classification", output="unbroken", steps=20, save_every=4))


def test_another_run_in_the_same_folder_is_refused(make_spec: MakeSpec) -> None:
    with pytest.raises(Killed):
        train(make_spec("text-classification", steps=20, save_every=4), kill_at=9)
    with pytest.raises(SpecError, match="snapshots of another training run"):
        train(make_spec("text-classification", steps=20, save_every=4, learning_rate=1e-3))


def test_patience_stops_early_and_keeps_the_best_weights(make_spec: MakeSpec) -> None:
    # A rate at which it soon gets worse.
    spec = make_spec("fill-mask", steps=200, evaluate_every=5, patience=2, learning_rate=0.3, warmup=0.0)
    history = train(spec)
    assert len(history) < 40
    losses = [entry["evaluation"]["fill-mask"]["loss"] for entry in history]  # type: ignore[index]
    assert min(losses) in losses[:-2]


def test_several_heads_share_an_encoder_that_is_stored_once(make_spec: MakeSpec, tmp_path: Path) -> None:
    train(make_spec("text-classification", "token-classification", "question-answering", save_dtype="float16"))
    sizes = {folder: (tmp_path / "out" / folder / "model.safetensors").stat().st_size for folder in ("encoder", *DATA)
             if (tmp_path / "out" / folder).exists()}  # fmt: skip
    assert sizes["encoder"] > 5 * max(size for folder, size in sizes.items() if folder != "encoder")
    checkpoint = Checkpoint.open(str(tmp_path / "out/text-classification"))
    checkpoint.check(heads=["sequence-classification"], tokenizer=True)
    assert checkpoint.config.id2label == {0: "fruit", 1: "tool"}
    assert checkpoint.stored_dtype == "float16"


def test_what_was_trained_answers_behind_the_boundary(make_spec: MakeSpec, tmp_path: Path) -> None:
    train(make_spec("text-classification", steps=80, learning_rate=5e-3))
    folder = str(tmp_path / "out")
    model = load(checkpoint=folder, framework="torch", heads=["sequence-classification"], dtype="float32", device="cpu")
    tokenizer, rows = load_tokenizer(folder), intents()
    ids = [tokenizer.backend.encode(row["text"]).ids for row in rows]
    offsets = np.cumsum([0, *map(len, ids)]).astype(np.int32)
    tokens = Tokens(input_ids_T=np.concatenate(ids).astype(np.int32), cu_seqlens=offsets)
    logits = model(tokens, {"sequence-classification": Ask(positions_G=offsets[:-1])})["sequence-classification"][
        "logits"
    ]
    right = [("fruit", "tool")[best] == row["label"] for best, row in zip(logits.argmax(-1), rows, strict=True)]
    assert np.mean(right) > 0.95


def test_a_checkpoint_is_gone_on_from_and_new_heads_start_afresh(make_spec: MakeSpec, tmp_path: Path) -> None:
    train(make_spec("fill-mask", output="first"))
    spec = make_spec("text-classification", model={"checkpoint": str(tmp_path / "first")}, steps=1, learning_rate=1e-9)
    train(spec)
    before, after = weights(tmp_path / "first"), weights(tmp_path / "out")
    name = "roberta_prelayernorm.encoder.layer.0.output.dense.weight"
    np.testing.assert_allclose(after[name], before[name], atol=1e-6)
    assert "classifier.out_proj.weight" in after


def test_wrong_specs_are_told_in_words(make_spec: MakeSpec) -> None:
    with pytest.raises(SpecError, match="epochs or steps, not both"):
        make_spec("fill-mask", epochs=2)
    with pytest.raises(SpecError, match="either a checkpoint to go on from, or a tokenizer"):
        make_spec("fill-mask", model={"checkpoint": "a", "tokenizer": "b"})
    with pytest.raises(SpecError, match=r"less than or equal to 0\.4"):
        TrainSpec.parse(
            {"model": "m", "output": "o", "tasks": {"a": {"task": "fill-mask", "data": "d", "mask_rate": 0.5}}}
        )
    with pytest.raises(SpecError, match="no such file"):
        train(make_spec("fill-mask", tasks={"a": {"task": "fill-mask", "data": "nowhere.jsonl"}}))
