"""The committed reference data and real texts are small, licensed, whole enough to prove what they prove, and copies."""

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

from tests.data import selection as texts
from tests.golden import selection as answers
from tests.models import golden as reader

READERS: dict[str, Callable[[Path], Any]] = {
    ".gz": lambda file: gzip.decompress(file.read_bytes()),
    ".parquet": lambda file: pq.read_table(file).to_pydict(),
    ".safetensors": lambda file: {
        name: (array.dtype, array.shape, array.tobytes()) for name, array in load_file(file).items()
    },
}
"""What libraries write differently from release to release is compared by its content."""

BY_HAND = {"README.md", "roberta-tokenizer/LICENSE", "languages/LICENSE", "languages/texts.json"}
"""Of the texts, what is not from ../shared."""


def files_of(folder: Path) -> list[Path]:
    return [file for file in folder.rglob("*") if file.is_file() and file.suffix not in (".py", ".pyc")]


def assert_copied(written: Path, committed: Path, *, own: set[str]) -> None:
    """Both folders have the same files with the same content; own: what was written by hand."""
    names = [{str(file.relative_to(folder)) for file in files_of(folder)} for folder in (written, committed)]
    assert names[0] == names[1] - own
    for name in names[0]:
        read = READERS.get(Path(name).suffix, Path.read_bytes)
        assert read(written / name) == read(committed / name), name


def test_it_is_small() -> None:
    def size(folder: Path) -> int:
        return sum(file.stat().st_size for file in files_of(folder))

    families = size(answers.HERE / "families")
    assert families <= 2_000_000
    assert size(answers.HERE) - families <= 4_000_000
    assert size(texts.HERE) <= 1_000_000


def test_every_class_and_every_legacy_format_is_there() -> None:
    folders = [folder.name for folder in (answers.HERE / "models").iterdir()]
    assert len({reader.kind_of(name) for name in folders}) == 7
    assert {folder.name for folder in (answers.HERE / "legacy").iterdir() if folder.is_dir()} == set(answers.LEGACY)


def test_every_text_has_its_licence_and_source() -> None:
    readme = (texts.HERE / "README.md").read_text(encoding="utf-8")
    for folder in (folder for folder in texts.HERE.iterdir() if folder.is_dir() and folder.name != "__pycache__"):
        (row,) = [line for line in readme.splitlines() if line.startswith(f"| {folder.name}/ |")]
        assert "CC BY-SA 4.0" in row or (folder / "LICENSE").exists()
    assert (
        (texts.HERE / "LICENSE-CC-BY-SA-4.0.txt").read_text(encoding="utf-8").startswith("Attribution-ShareAlike 4.0")
    )


def test_every_loss_and_every_switch_is_a_scalar() -> None:
    for file in answers.HERE.glob("models/*/cases.safetensors"):
        for name, array in load_file(file).items():
            assert array.shape == () or not name.endswith(("/loss", "/use_cache")), name


@pytest.mark.torch
@pytest.mark.usefixtures("shared")
def test_the_answers_are_copied_from_the_reference_data(tmp_path: Path) -> None:
    answers.write(tmp_path)
    assert_copied(tmp_path, answers.HERE, own={"README.md", "embedders.json"})
    for stored in (answers.HERE / "annotations").glob("*/model.safetensors"):
        whole = load_file(answers.REFERENCE / "annotations" / stored.parent.name / "model.safetensors")
        ours = load_file(reader.assembled_checkpoint(stored.parent.name) / "model.safetensors")
        assert ours.keys() == whole.keys()
        assert all(np.array_equal(ours[name], array) for name, array in whole.items())


@pytest.mark.usefixtures("shared")
def test_the_texts_are_copied_from_the_real_data(tmp_path: Path) -> None:
    texts.write(tmp_path)
    assert_copied(tmp_path, texts.HERE, own=BY_HAND)
