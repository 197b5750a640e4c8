"""Jobs that accept labels: what is refused before anything runs, what is stored, and how drift reads; without Ray."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import preln
from pipeline.certification import calibration_spec, uncertified, with_digests
from pipeline.errors import OutputError, SpecError
from pipeline.inference.questions import facts_of
from pipeline.output.drift import ScoreCounts, counts_of, drift_of
from pipeline.output.folder import OutputFolder
from pipeline.output.job import FrozenJob, identity_of
from pipeline.prepare import open_job
from pipeline.spec.accepts import accepts_of, with_certificates
from pipeline.spec.job_spec import JobSpec
from pipeline.store.storage import canonical
from pipeline.tasks.acceptance import BINS, Certificate
from tests.pipeline.small import CHECKPOINT, OfflineCluster, spec

CERTIFICATE = Certificate(
    digest="d", threshold=0.5, rows=100, left_out=2, tested=80, accepted=60, wrong=1, scores=(*[0] * 50, *[2] * 50)
)
TEXTS = [
    f"{word} number {number}" for number in range(34) for word in ("parcel", "weather", "a song", "tax return", "no")
]


def job_of(folder: Path, **accept: Any) -> JobSpec:
    pq.write_table(pa.table({"text": ["a", "b"]}), folder / "in.parquet")
    if not (folder / "labelled.parquet").exists():
        pq.write_table(pa.table({"text": ["a", "b"], "label": ["random-0", "random-1"]}), folder / "labelled.parquet")
    wish = {"error_rate": 0.1, "calibration": str(folder / "labelled.parquet"), **accept}
    task = {"name": "text-classification", "accept": wish}
    return spec(task=task, source=str(folder / "in.parquet"), output=str(folder / "out"))


def opened(job: JobSpec) -> FrozenJob:
    return open_job(spec=job, cluster=OfflineCluster())[0]


def certified(job: JobSpec, certificate: Certificate = CERTIFICATE) -> FrozenJob:
    """The job as it is stored once it is certified, without answering anything."""
    found = opened(job)
    certificate = replace(certificate, digest=accepts_of(found.spec)["text-classification"].digest)
    ours = with_certificates(found.spec, {"text-classification": certificate})
    identity = identity_of(spec=ours, facts=facts_of(ours), digest=found.checkpoint.digest, dtype=found.dtype)
    return OutputFolder(found.output).freeze(replace(found, spec=ours, identity=identity))


def test_a_job_that_accepts_nothing_special_has_the_identity_it_always_had(tmp_path: Path) -> None:
    plain = opened(job_of(tmp_path).model_copy(update={"task": spec().task}))
    assert not [key for key in plain.identity if "accept" in key]
    assert b"certificates" not in plain.to_json()


def test_the_threshold_is_stored_and_used_again(tmp_path: Path) -> None:
    job = job_of(tmp_path)
    assert list(uncertified(opened(job).spec)) == ["text-classification"]
    stored = certified(job)
    assert stored.identity["task.accept's threshold"] == 0.5
    again = opened(job)
    assert not uncertified(again.spec)
    assert accepts_of(again.spec) == accepts_of(stored.spec)
    assert accepts_of(again.spec)["text-classification"].certificate == replace(
        CERTIFICATE, digest=accepts_of(again.spec)["text-classification"].digest
    )


def test_labelled_rows_at_another_address_are_the_same_and_changed_ones_another_job(tmp_path: Path) -> None:
    certified(job_of(tmp_path))
    (tmp_path / "moved.parquet").write_bytes((tmp_path / "labelled.parquet").read_bytes())
    assert not uncertified(opened(job_of(tmp_path, calibration=str(tmp_path / "moved.parquet"))).spec)
    pq.write_table(pa.table({"text": ["a", "c"], "label": ["random-0", "random-1"]}), tmp_path / "labelled.parquet")
    with pytest.raises(OutputError, match=r"belongs to another job: task.accept.calibration's digest is"):
        opened(job_of(tmp_path))


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"error_rate": 0.2}, "task.accept.error_rate is 0.1 there and 0.2 here"),
        ({"confidence": 0.9}, "0.95 there and 0.9"),
    ],
)
def test_another_promise_is_another_job(tmp_path: Path, change: dict[str, Any], difference: str) -> None:
    certified(job_of(tmp_path))
    with pytest.raises(OutputError, match=difference):
        opened(job_of(tmp_path, **change))


def test_the_first_of_two_drivers_decides_the_threshold(tmp_path: Path) -> None:
    job = job_of(tmp_path)
    second = opened(job)
    certified(job)
    theirs = with_certificates(second.spec, {"text-classification": replace(CERTIFICATE, threshold=0.5000001)})
    identity = identity_of(spec=theirs, facts=facts_of(theirs), digest=second.checkpoint.digest, dtype=second.dtype)
    frozen = OutputFolder(second.output).freeze(replace(second, spec=theirs, identity=identity))
    assert accepts_of(frozen.spec)["text-classification"].certificate is not None
    assert frozen.identity["task.accept's threshold"] == 0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"error_rate": 0}, "task.accept.error_rate"),
        ({"error_rate": 1.5}, "task.accept.error_rate"),
        ({"confidence": 1}, "task.accept.confidence"),
        ({"calibration": "s3://key:secret@bucket/x"}, "task.accept.calibration.*credentials"),
        ({"calibration": "/nowhere/x.parquet"}, "task.accept.calibration: .*matches no file"),
        ({"rate": 0.1}, "task.accept.*rate"),
    ],
)
def test_a_wish_that_can_not_be_met_is_refused_by_its_key(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        opened(job_of(tmp_path, **change))
    assert "secret@" not in str(caught.value)


def test_scores_that_are_no_probabilities_are_refused(tmp_path: Path) -> None:
    job = job_of(tmp_path)
    assert job.task is not None
    job = job.model_copy(update={"task": job.task.model_copy(update={"function": "none"})})
    with pytest.raises(SpecError, match=r"task.accept: needs scores from 0 to 1"):
        opened(job)


def test_labelled_rows_are_asked_the_jobs_own_question(tmp_path: Path) -> None:
    job = JobSpec.parse(
        {
            "input": {"urls": str(tmp_path), "columns": {"mood.text": "body", "topic.text": "title"}},
            "model": CHECKPOINT,
            "tasks": {
                "mood": {"name": "text-classification", "accept": {"error_rate": 0.1, "calibration": "m.jsonl"}},
                "topic": "text-classification",
            },
            "output": "out",
        }
    )
    asked = calibration_spec(job, "mood", output="elsewhere", dtype="bfloat16")
    assert list(asked.tasks) == ["mood"]
    assert asked.input.columns == {"mood.text": "body"}
    assert (asked.input.keep, asked.model.dtype, accepts_of(asked)) == (["label"], "bfloat16", {})


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows whose true label is the model's own answer, except for the fifth with the lowest scores."""
    answers = preln.annotate(TEXTS, model=CHECKPOINT, task="text-classification", dtype="float32", isolate=False)
    scores = answers["score"].to_numpy()
    wrong = scores < np.quantile(scores, 0.2)
    labels = ["another" if bad else label for bad, label in zip(wrong, answers["label"].to_pylist(), strict=True)]
    path = tmp_path_factory.mktemp("labelled") / "labelled.parquet"
    pq.write_table(pa.table({"text": TEXTS, "truth": labels}), path)
    return path


@pytest.mark.torch
def test_texts_in_memory_are_accepted_from_the_score_that_their_labelled_rows_certify(labelled: Path) -> None:
    wish = {"error_rate": 0.1, "calibration": str(labelled), "label": "truth"}
    options: dict[str, Any] = {"model": CHECKPOINT, "dtype": "float32", "isolate": False}
    answers = preln.annotate([*TEXTS, " "], task="text-classification", accept=wish, **options)
    accepted = answers["accepted"].to_pylist()
    assert accepted[-1] is None, "a row without an answer is neither accepted nor not"
    scores = answers["score"].to_numpy()[:-1]
    least = scores[np.array(accepted[:-1])].min()
    assert accepted[:-1] == (scores >= least).tolist()
    truth = pq.read_table(labelled)["truth"].to_pylist()
    wrong = [true == "another" for true, taken in zip(truth, accepted, strict=False) if taken]
    assert sum(wrong) / len(wrong) <= 0.1
    assert 0.5 < len(wrong) / len(TEXTS) < 1
    named = preln.annotate(TEXTS, tasks={"mine": {"name": "text-classification", "accept": wish}}, **options)
    assert named["mine_accepted"].to_pylist() == accepted[:-1]
    with pytest.warns(UserWarning, match="no label is accepted: no score keeps at most 0.001"):
        none = preln.annotate(TEXTS, task="text-classification", accept={**wish, "error_rate": 0.001}, **options)
    assert not any(none["accepted"].to_pylist())


@pytest.mark.torch
@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"label": ["x"] * 30}, "task.accept.label: the column 'label' has no label of the model; it has x"),
        ({"truth": ["x"] * 30}, "task.accept.calibration: .*no column 'label'"),
        ({"label": ["random-0"] * 60, "text_pair": ["y"] * 60}, "it has the column 'text_pair', which the model reads"),
    ],
)
def test_labelled_rows_that_can_not_serve_are_refused(tmp_path: Path, labels: dict[str, Any], message: str) -> None:
    pq.write_table(
        pa.table({"text": TEXTS[: len(next(iter(labels.values())))], **labels}), tmp_path / "labelled.parquet"
    )
    wish = {"error_rate": 0.95, "calibration": str(tmp_path / "labelled.parquet")}
    with pytest.raises(SpecError, match=message):
        preln.annotate(TEXTS, model=CHECKPOINT, task="text-classification", accept=wish, dtype="float32", isolate=False)


def drift(job: FrozenJob, counts: list[int], accepted: int = 0) -> str:
    counted = {"text-classification": ScoreCounts(np.array(counts, np.int64), accepted)}
    (found,) = drift_of(job, counted)
    return str(found)


def test_drift_is_said_in_words_by_how_far_scores_are_from_the_labelled_ones(tmp_path: Path) -> None:
    job = certified(job_of(tmp_path), replace(CERTIFICATE, rows=10_000, scores=(*[0] * 50, *[200] * 50)))
    same = [0] * 50 + [40] * 50
    assert "no drift" in drift(job, same, accepted=1_000)
    assert "50.0% accepted, 75.0% of labelled rows" in drift(job, same, accepted=1_000)
    assert "small drift" in drift(job, [0] * 48 + [800, 800] + [800] * 50)
    assert "moderate drift" in drift(job, [0] * 45 + [800] * 55)
    assert "large drift: these rows are unlike the labelled ones" in drift(job, [40] * BINS)
    assert drift_of(job, {}) == ()


def test_scores_are_counted_without_the_rows_that_have_errors(tmp_path: Path) -> None:
    job = certified(job_of(tmp_path))
    table = pa.table({"score": pa.array([0.55, None, 0.999], pa.float32()), "accepted": [True, None, False]})
    counted = counts_of(table, job=job)["text-classification"]
    assert (int(counted.counts_B.sum()), int(counted.counts_B[55]), counted.accepted) == (2, 1, 1)


def test_a_record_without_certificates_is_read_as_before(tmp_path: Path) -> None:
    stored = certified(job_of(tmp_path))
    fields = json.loads(stored.to_json())
    assert fields.pop("certificates")["text-classification"]["threshold"] == 0.5
    older = FrozenJob.from_json(json.dumps(fields).encode(), where="out")
    assert uncertified(older.spec)
    assert canonical(str(tmp_path / "labelled.parquet")) == accepts_of(older.spec)["text-classification"].calibration
    assert with_digests(older.spec) is not older.spec
