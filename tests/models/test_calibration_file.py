"""calibration.json: part of a checkpoint's digest, applied to its logits, and refused where it is not this model's."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.calibration_file import CALIBRATION_NAME, Calibration
from models.checkpoint import Checkpoint
from models.checkpoint_copy import copy_checkpoint
from models.errors import CheckpointError
from tests.pipeline.small import CHECKPOINT

DIGEST = "9103bd8e7fd35401"
"""The first digits of the embedded checkpoint's digest, which stands in output folders of every release."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(CHECKPOINT, tmp_path / "checkpoint"))


def calibration(folder: Path, **changes: Any) -> Calibration:
    labels = tuple(Checkpoint.open(str(folder)).config.id2label.values())
    values: dict[str, Any] = {"labels": labels, "function": "softmax", "temperatures": (2.0,), **changes}
    return Calibration(**values)


def test_a_folder_without_a_calibration_keeps_its_digest_and_one_with_it_has_another(folder: Path) -> None:
    plain = Checkpoint.open(str(folder))
    assert plain.digest().startswith(DIGEST)
    found = set()
    for one in (calibration(folder), calibration(folder, temperatures=(3.0,)), calibration(folder, fitted={"rows": 3})):
        (folder / CALIBRATION_NAME).write_bytes(one.to_json())
        opened = Checkpoint.open(str(folder))
        assert opened.calibration == one
        found.add((opened.digest(), opened.stamp()))
    assert len(found) == 2, "what was fitted on is for the reader, and changes no answer"
    assert not found & {(plain.digest(), plain.stamp())}


def test_a_copy_of_a_checkpoint_has_its_calibration(folder: Path, tmp_path: Path) -> None:
    (folder / CALIBRATION_NAME).write_bytes(calibration(folder).to_json())
    copied = copy_checkpoint(url=str(folder), into=tmp_path / "copy")
    assert Checkpoint.open(str(copied)).digest() == Checkpoint.open(str(folder)).digest()


def test_logits_are_divided_by_their_labels_temperatures(folder: Path) -> None:
    one = calibration(folder, function="sigmoid", temperatures=(1.0, 2.0, 4.0))
    assert one.applied(np.array([[1.0, 1.0, -1.0]])).tolist() == [[1.0, 0.5, -0.25]]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda fields: "{", "is not JSON"),
        (lambda fields: "[" * 200_000, "is not JSON"),
        (lambda fields: [1], "was not written by `preln calibrate`"),
        (lambda fields: {"scale": 0.5, "zero_point": 3}, "was not written by `preln calibrate`"),
        (lambda fields: {**fields, "version": 2}, "is of version 2, and this preln reads 1"),
        (lambda fields: {**fields, "labels": ["a", "b"]}, "other labels than config.json"),
        (lambda fields: {**fields, "function": "none"}, "has the function 'none'"),
        (lambda fields: {**fields, "temperatures": []}, "must have 1 positive temperatures"),
        (lambda fields: {**fields, "temperatures": [0.0]}, "must have 1 positive temperatures"),
        (lambda fields: {**fields, "temperatures": [float("nan")]}, "must have 1 positive temperatures"),
        (lambda fields: {**fields, "temperatures": [True]}, "must have 1 positive temperatures"),
        (lambda fields: {**fields, "function": "sigmoid"}, "must have 4 positive temperatures"),
        (lambda fields: {**fields, "thresholds": {"other": 0.5}}, "a threshold for 'other'"),
        (lambda fields: {**fields, "thresholds": {"random-0": 2}}, "thresholds between 0 and 1"),
        (lambda fields: {**fields, "thresholds": [0.5]}, "thresholds between 0 and 1"),
    ],
)
def test_a_malformed_or_foreign_calibration_is_refused_in_one_line(
    folder: Path, change: Callable[[dict[str, Any]], object], fault: str
) -> None:
    changed = change(json.loads(calibration(folder).to_json()))
    (folder / CALIBRATION_NAME).write_text(changed if isinstance(changed, str) else json.dumps(changed))
    with pytest.raises(CheckpointError) as caught:
        Checkpoint.open(str(folder))
    assert str(caught.value).startswith(f"{folder}: {CALIBRATION_NAME} ")
    assert fault in str(caught.value)
    assert "\n" not in str(caught.value)
