"""What `audit` finds: nothing in a sound folder, the injected fault in others; and the bound that a sample supports."""

import gzip
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jobs.checkpoints.make_random import make_random
from jobs.exit_codes import WRONG
from models.boundary import Framework
from pipeline.analysis.audit import Audit, audit
from pipeline.analysis.binomial import at_most, upper_bound
from pipeline.errors import CheckpointError, OutputError
from pipeline.inference.questions import MODEL_LOADER
from pipeline.spec.job_spec import JobSpec
from tests.command import in_this_process
from tests.pipeline import bad_run
from tests.pipeline.analysis.faults import ANOTHER, OFF_BY_ONE

pytestmark = [pytest.mark.torch]
ROWS = 30


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint and another one, inputs in two formats, and the output of a run without a fault."""
    folder = tmp_path_factory.mktemp("audit")
    make_random(folder=folder / "checkpoint", head="sequence-classification")
    shutil.copytree(folder / "checkpoint", folder / "checkpoint-other")
    tensors = load_file(folder / "checkpoint-other/model.safetensors")
    save_file(
        {name: np.flip(one).copy() for name, one in tensors.items()}, folder / "checkpoint-other/model.safetensors"
    )
    (folder / "in").mkdir()
    lines = [
        json.dumps({"text": "" if row % 7 == 3 else f"The ferry number {row} left.", "id": row}) for row in range(ROWS)
    ]
    (folder / "in/a.jsonl").write_text("\n".join(lines[:20]))
    (folder / "in/b.jsonl.gz").write_bytes(gzip.compress("\n".join(lines[20:]).encode()))
    annotated(folder, output="out", loader=MODEL_LOADER)
    return folder


def annotated(folder: Path, *, output: str, loader: str) -> None:
    """Annotate the folder's input in shards of four rows."""
    values = {
        "input": {"urls": str(folder / "in"), "format": "jsonl"},
        "model": {"checkpoint": str(folder / "checkpoint"), "dtype": "float32"},
        "task": {"name": "text-classification", "top_k": "all"},
        "output": str(folder / output),
        "resources": {"gpus": 0},
        "shards": {"rows": 4, "bytes": 200},
    }
    assert bad_run.annotate(JobSpec.parse(values), loader=loader).state == "done"


def audited(folder: Path, output: str = "out", *, rows: int = 12, framework: Framework | None = None) -> Audit:
    return audit(str(folder / output), rows=rows, seed=5, framework=framework, isolate=False)


def test_a_sound_folder_agrees_and_the_bound_is_that_of_its_sample(sound: Path) -> None:
    found = audited(sound)
    assert (found.rows, found.sampled, found.agree, found.differ, found.unread) == (ROWS, 12, 12, 0, {})
    assert found.bound == pytest.approx(1 - 0.05 ** (1 / 12))
    assert found.largest <= 1e-6
    assert audited(sound, rows=1000).bound == 0.0  # every row was recomputed


@pytest.mark.parametrize("framework", [pytest.param("flax", marks=pytest.mark.flax)])
def test_another_framework_agrees(sound: Path, framework: Framework) -> None:
    found = audited(sound, framework=framework)
    assert (found.agree, found.framework) == (12, framework)


@pytest.mark.parametrize("loader", [OFF_BY_ONE, ANOTHER])
def test_an_injected_fault_is_found(sound: Path, loader: str) -> None:
    name = loader.partition(":")[2]
    annotated(sound, output=name, loader=loader)
    found = audited(sound, name)
    assert found.differ >= 8  # all but the empty texts
    assert found.agree + found.differ == 12
    assert found.bound > 0.5
    assert {one.column for one in found.differences} <= {"label", "score", "scores"}


def test_rows_of_a_file_that_has_changed_are_not_compared_and_counted(sound: Path, tmp_path: Path) -> None:
    shutil.copytree(sound / "in", tmp_path / "kept")
    try:
        with (sound / "in/a.jsonl").open("a") as file:
            file.write("\n" + json.dumps({"text": "Another."}))
        found = audited(sound)
    finally:
        shutil.copy2(tmp_path / "kept/a.jsonl", sound / "in/a.jsonl")
    assert 0 < found.sampled < 12
    assert found.sampled + sum(found.unread.values()) == 12
    assert all("changed since the plan" in why for why in found.unread)


def test_another_checkpoint_than_the_folder_names_is_refused(sound: Path, tmp_path: Path) -> None:
    shutil.copytree(sound / "checkpoint", tmp_path / "kept")
    shutil.rmtree(sound / "checkpoint")
    try:
        shutil.copytree(sound / "checkpoint-other", sound / "checkpoint")
        with pytest.raises((OutputError, CheckpointError), match="checkpoint digest"):
            audited(sound)
    finally:
        shutil.rmtree(sound / "checkpoint")
        shutil.copytree(tmp_path / "kept", sound / "checkpoint")


def test_the_verb_prints_the_bound_and_ends_with_3_where_rows_differ(
    sound: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    preln = in_this_process(monkeypatch, capsys)
    ended = preln("audit", sound / "out", "-n", 5)
    assert ended.code == 0, ended.err
    assert "5 agree, 0 differ" in ended.out
    assert f"With 95 % confidence, at most {1 - 0.05 ** (1 / 5):.2%} of the rows are wrong." in ended.out
    annotated(sound, output="faulty", loader=OFF_BY_ONE)
    ended = preln("audit", sound / "faulty", "-n", 5, "--json")
    assert (ended.code, json.loads(ended.out)["sampled"]) == (3, 5)
    assert preln("audit", sound / "out", "--dtype", "int8").code == WRONG


def test_the_bound_is_that_of_clopper_and_pearson() -> None:
    """Values from the beta distribution: the 0.95 quantile of Beta(k + 1, n - k)."""
    beta = pytest.importorskip("scipy.stats", reason="scikit-learn, which brings scipy, is not installed").beta
    for wrong, sampled in ((0, 200), (1, 200), (17, 200), (199, 200), (3, 5), (40, 10_000)):
        assert upper_bound(wrong=wrong, sampled=sampled) == pytest.approx(beta.ppf(0.95, wrong + 1, sampled - wrong))
    assert upper_bound(wrong=5, sampled=5) == 1.0
    assert at_most(200, 200, 0.5) == pytest.approx(1.0)
