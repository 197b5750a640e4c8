"""The whole flow on a real Ray, from and to a real S3 server, over real text, against the model called directly."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs
import pyarrow.parquet as pq
import pytest
import torch

from models.boundary import Ask, FlatModel, Tokens
from models.load import load
from models.tokenizer import load_tokenizer
from pipeline import run
from pipeline.cluster.placement import Cluster
from pipeline.output.job import FrozenJob
from pipeline.output.plan import Plan
from pipeline.output.report import Report
from pipeline.output.sink import Receipt
from pipeline.output.status import read_status
from pipeline.spec.job_spec import JobSpec
from pipeline.store.storage import find, join, put, read_bytes
from tests.conftest import S3Server
from tests.pipeline.corpus import LABELS, Corpus, lay_out, random_classifier, repeated
from tests.pipeline.run_here import run_here

pytestmark = [pytest.mark.ray, pytest.mark.torch, pytest.mark.storage]

FLOAT32_SCORES = 1e-5
"""How far a float32 score may be from that of the same text alone: sums in another order, two layers deep."""
MAX_LENGTH = 24
"""Tokens a text is cut to here, which keeps this module within its minutes; `make slow` runs whole texts."""
ROWS = 10_033
KILLED_AFTER = 6
"""Shards that the killed driver had committed."""
ALONE = 200
"""Texts that are also given to the model each by itself."""


class Quiet:
    """A watcher that remembers."""

    def __init__(self) -> None:
        self.plans: list[Plan] = []
        self.receipts: list[Receipt] = []

    def planned(self, job: FrozenJob, plan: Plan) -> None:
        self.plans.append(plan)

    def committed(self, receipt: Receipt) -> None:
        self.receipts.append(receipt)


def annotate(spec: JobSpec) -> tuple[Report, Quiet]:
    """Run a job on the Ray that the test has started."""
    watcher = Quiet()
    return run.annotate(spec=spec, cluster=Cluster(lambda: None), watcher=watcher), watcher


@pytest.fixture(scope="module")
def wiki(data: Path) -> pa.Table:
    """10,033 introductions; where only a sample of them is here, over and over, each with a number of its own."""
    table = pq.read_table(data / "wiki_intros/wiki_intros.parquet")
    return table if table.num_rows == ROWS else repeated(table, rows=ROWS)


@pytest.fixture(scope="module")
def corpus(wiki: pa.Table, s3_server: S3Server) -> Corpus:
    return lay_out(wiki, url=f"{s3_server.make_bucket()}/in")


@pytest.fixture(scope="module")
def classifier(data: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("classifier")
    return random_classifier(url=str(folder), tokenizer=data / "roberta-tokenizer", layers=2, width=64, seed=4)


def scores_of(model: FlatModel, id_lists: list[list[int]]) -> np.ndarray:
    """Softmax scores [B, L] of some texts, by the model called directly."""
    cu_seqlens = np.concatenate([[0], np.cumsum([len(ids) for ids in id_lists])]).astype(np.int32)
    tokens = Tokens(input_ids_T=np.concatenate(id_lists).astype(np.int32), cu_seqlens=cu_seqlens)
    logits = model(tokens, {"sequence-classification": Ask(positions_G=cu_seqlens[:-1])})["sequence-classification"][
        "logits"
    ]
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def ids_of(checkpoint: str, texts: list[str], max_length: int) -> list[list[int]]:
    backend = load_tokenizer(checkpoint).backend
    backend.enable_truncation(max_length)
    return [encoding.ids for encoding in backend.encode_batch(texts)]


def s3_dataset(url: str) -> pa.Table:
    """Everything under a folder's data/, through pyarrow's own S3 client."""
    endpoint = os.environ["AWS_ENDPOINT_URL"]
    s3 = pyarrow.fs.S3FileSystem(endpoint_override=endpoint, region="us-east-1")
    return ds.dataset(url.removeprefix("s3://") + "/data", filesystem=s3, format="parquet").to_table()


def label_scores(rows: pd.DataFrame) -> np.ndarray:
    """The scores [B, L] of rows, in the order of LABELS."""
    return np.array(
        [[{s["label"]: s["score"] for s in scores}[label] for label in LABELS] for scores in rows["scores"]]
    )


def keys_of(spec: JobSpec) -> list[str]:
    """The names of a job's objects."""
    return sorted(file.uri.rpartition("/")[2] for file in find(join(spec.output.url, "data")))


def kill_when(process: subprocess.Popen[bytes], *, output: str, shards: int) -> None:
    """SIGKILL a driver as soon as it has committed some shards; its workers may write what they have for a moment longer."""
    deadline = time.monotonic() + 300
    while len(find(join(output, "data"))) < shards:
        assert process.poll() is None, "the driver ended before it could be killed"
        assert time.monotonic() < deadline, "the driver committed nothing"
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def killed_and_resumed(spec: JobSpec, *, folder: Path, repository: Path) -> tuple[Report, Quiet]:
    """The second run of a job whose first driver was killed in the middle."""
    job_file = folder / "job.yaml"
    job_file.write_text(spec.to_yaml())
    process = subprocess.Popen(
        [sys.executable, "-m", "jobs", "annotate", str(job_file)],
        cwd=repository,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    kill_when(process, output=spec.output.url, shards=KILLED_AFTER)
    return annotate(spec)


@pytest.fixture(scope="module")
def annotated(
    corpus: Corpus,
    classifier: str,
    s3_server: S3Server,
    local_ray: None,
    repository: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[JobSpec, Report, Quiet]:
    """All texts classified: a driver that was killed in the middle, and the same job run again to its end."""
    values = {
        "input": corpus.url,
        "model": {"checkpoint": classifier, "dtype": "float32", "max_length": MAX_LENGTH},
        "task": {"name": "text-classification", "top_k": "all"},
        "output": f"{s3_server.make_bucket()}/out",
        "shards": {"rows": 256, "bytes": 80_000},
    }
    spec = JobSpec.parse(values)
    report, watcher = killed_and_resumed(spec, folder=tmp_path_factory.mktemp("job"), repository=repository)
    return spec, report, watcher


@pytest.mark.timeout(600)
def test_a_killed_run_goes_on_with_the_missing_shards_only(annotated: tuple[JobSpec, Report, Quiet]) -> None:
    _, report, watcher = annotated
    there = len(watcher.plans[0].written)
    assert KILLED_AFTER <= there < report.shards
    assert report.state == "done"
    assert len(watcher.receipts) == report.shards - there
    assert report.total_rows == ROWS
    assert not report.total_errors


def test_every_row_comes_back_once_and_in_order_within_its_file(
    annotated: tuple[JobSpec, Report, Quiet], corpus: Corpus
) -> None:
    spec, *_ = annotated
    table = s3_dataset(spec.output.url)
    assert table.num_rows == ROWS
    frame = table.select(["source", "row", "text"]).to_pandas()
    for name, texts in corpus.texts.items():
        of_file = frame[frame["source"] == f"{corpus.url}/{name}"]
        in_order = of_file.sort_values("row", kind="stable")
        assert in_order["text"].tolist() == texts
        assert not of_file.duplicated(["source", "row"]).any()
    for file in find(join(spec.output.url, "data")):  # and each object is in order by itself
        rows = pq.read_table(io.BytesIO(read_bytes(file.uri)), columns=["row"])["row"].to_numpy()
        assert (np.diff(rows) > 0).all()


def test_answers_are_those_of_the_model_called_directly(
    annotated: tuple[JobSpec, Report, Quiet], classifier: str
) -> None:
    spec, *_ = annotated
    table = s3_dataset(spec.output.url).to_pandas()
    torch.set_num_threads(1)  # a second thread costs more than it brings with this little work
    model = load(checkpoint=classifier, framework="torch", heads=["sequence-classification"], dtype="float32")
    ids = ids_of(classifier, table["text"].tolist(), MAX_LENGTH)
    order = np.argsort([len(tokens) for tokens in ids])
    direct = np.empty((len(ids), len(LABELS)))
    for chunk in np.array_split(order, 200):
        direct[chunk] = scores_of(model, [ids[index] for index in chunk])
    ours = label_scores(table)
    assert np.abs(ours - direct).max() < FLOAT32_SCORES
    assert np.abs(table["score"].to_numpy() - direct.max(axis=1)).max() < FLOAT32_SCORES
    assert len(set(table["label"])) > 1
    clear = np.sort(direct, axis=1)[:, -1] - np.sort(direct, axis=1)[:, -2] > 2 * FLOAT32_SCORES
    assert (np.array(LABELS)[direct.argmax(axis=1)] == table["label"])[clear].all()
    for index in np.random.default_rng(0).choice(len(ids), ALONE, replace=False):
        assert np.abs(ours[index] - scores_of(model, [ids[index]])[0]).max() < FLOAT32_SCORES


def test_one_glob_reads_everything_in_pandas_and_duckdb(
    annotated: tuple[JobSpec, Report, Quiet], tmp_path: Path
) -> None:
    spec, *_ = annotated
    for file in find(join(spec.output.url, "data")):
        (tmp_path / file.uri.rpartition("/")[2]).write_bytes(read_bytes(file.uri))
    frame = pd.read_parquet(tmp_path)
    counted = (
        duckdb.connect()
        .execute(f"SELECT count(*), count(DISTINCT source || ':' || row), count(label) FROM '{tmp_path}/*.parquet'")
        .fetchone()
    )
    assert len(frame) == ROWS
    assert counted == (ROWS, ROWS, ROWS)


def test_nothing_is_done_twice(annotated: tuple[JobSpec, Report, Quiet]) -> None:
    spec, *_ = annotated
    before = {file.uri: file.version for file in find(spec.output.url)}
    report, watcher = annotate(spec)
    assert report.state == "done"
    assert not watcher.receipts
    assert {file.uri: file.version for file in find(spec.output.url)} == before
    assert read_status(spec.output.url).complete


def test_answers_do_not_depend_on_budget_cut_or_replicas(
    annotated: tuple[JobSpec, Report, Quiet], corpus: Corpus, tmp_path: Path
) -> None:
    spec, *_ = annotated
    ours = s3_dataset(spec.output.url).to_pandas().set_index("text")["score"]
    other = JobSpec.parse(
        {
            "input": f"{corpus.url}/e.txt",
            "model": spec.model.model_dump(),
            "task": "text-classification",
            "output": str(tmp_path / "out"),
            "resources": {"replicas": 2, "batch_tokens": 333},
            "shards": {"rows": 50, "bytes": 9_999},
        }
    )
    report, _ = annotate(other)
    again = ds.dataset(tmp_path / "out/data").to_table().to_pandas().set_index("text")["score"]
    assert report.state == "done"
    assert len(again) == len(corpus.texts["e.txt"])
    assert np.abs(again - ours[again.index]).max() < FLOAT32_SCORES


@pytest.mark.slow
def test_whole_texts_of_a_killed_and_resumed_run_are_those_of_one_that_was_not(
    corpus: Corpus, classifier: str, s3_server: S3Server, local_ray: None, repository: Path, tmp_path: Path
) -> None:
    bucket = s3_server.make_bucket()
    resumed, undisturbed = (
        JobSpec.parse(
            {
                "input": corpus.url,
                "model": {"checkpoint": classifier, "dtype": "float32"},
                "task": {"name": "text-classification", "top_k": "all"},
                "output": f"{bucket}/{name}",
                "shards": {"rows": 256, "bytes": 80_000},
            }
        )
        for name in ("resumed", "undisturbed")
    )
    report, watcher = killed_and_resumed(resumed, folder=tmp_path, repository=repository)
    assert len(watcher.plans[0].written) >= KILLED_AFTER
    assert report.state == "done"
    whole, _ = annotate(undisturbed)
    assert whole.state == "done"
    assert whole.tally.tokens > 2 * MAX_LENGTH * whole.total_rows, "these are whole texts"
    one, other = (keys_of(spec) for spec in (resumed, undisturbed))
    assert one == other
    assert len(one) == report.shards == whole.shards
    frames = (s3_dataset(spec.output.url).to_pandas() for spec in (resumed, undisturbed))
    got, wanted = (frame.sort_values(["source", "row"], ignore_index=True) for frame in frames)
    assert len(wanted) == ROWS
    answers = ["label", "score", "scores"]
    pd.testing.assert_frame_equal(got.drop(columns=answers), wanted.drop(columns=answers))
    got_scores, wanted_scores = (label_scores(frame) for frame in (got, wanted))
    assert np.abs(got_scores - wanted_scores).max() < FLOAT32_SCORES
    assert np.abs(got["score"] - wanted["score"]).max() < FLOAT32_SCORES
    in_order = np.sort(wanted_scores, axis=1)
    clear = in_order[:, -1] - in_order[:, -2] > 2 * FLOAT32_SCORES
    assert (got["label"] == wanted["label"])[clear].all()


def test_bad_rows_are_answered_by_an_error_and_stop_nothing(local_ray: None, repository: Path, tmp_path: Path) -> None:
    good = [{"id": index, "text": f"Sentence number {index}."} for index in range(40)]
    lines = [json.dumps(row).encode() for row in good]
    lines[3] = b'{"id": 3, "text": null}'
    lines[5] = b'{"id": 5, "text": "   "}'
    lines[7] = b'{"id": 7, "text": 12}'
    lines[11] = b'{"id": 11, "text": "cut o'
    lines[13] = b'{"id": 13, "text": "\xff\xfe"}'
    (tmp_path / "in").mkdir()
    (tmp_path / "in/rows.jsonl").write_bytes(b"\n".join(lines))
    words = ["a word", b"caf\xe9".decode("latin-1"), None, "the end"]
    pq.write_table(pa.table({"id": [100, 101, 102, 103], "text": words}), tmp_path / "in/rows.parquet")
    report, _ = annotate(
        JobSpec.parse(
            {
                "input": str(tmp_path / "in"),
                "model": {"checkpoint": str(repository / "jobs/checkpoints/random-tiny"), "dtype": "float32"},
                "task": {"name": "feature-extraction", "pooling": "cls"},
                "output": str(tmp_path / "out"),
            }
        )
    )
    rows = ds.dataset(tmp_path / "out/data").to_table().to_pylist()
    assert report.state == "done"
    assert len(rows) == 44
    reasons = {row["row"] if row["id"] is None else row["id"]: row["error"]["reason"] for row in rows if row["error"]}
    broken = {sum(len(line) + 1 for line in lines[:index]) for index in (11, 13)}
    assert {key: value for key, value in reasons.items() if key not in broken} == {
        3: "empty",
        5: "empty",
        7: "wrong-type",
        102: "empty",
    }
    assert {reasons[key] for key in broken} == {"malformed-json", "invalid-utf8"}
    assert all((row["embedding"] is None) == (row["error"] is not None) for row in rows)
    assert len(rows[0]["embedding"]) == 64


def test_slices_with_and_without_nulls_read_back_as_one_dataset(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name, note in (("a", None), ("b", "strings")):
        rows = [{"text": f"Text {index} of {name}.", "note": note} for index in range(5)]
        (tmp_path / f"in/{name}.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    report = run_here(
        input=str(tmp_path / "in/*.jsonl"),
        model={"checkpoint": str(repository / "jobs/checkpoints/random-tiny"), "dtype": "float32"},
        task="text-classification",
        output=str(tmp_path / "out"),
    )
    assert report.state == "done"
    glob = f"{tmp_path}/out/data/*.parquet"
    assert ds.dataset(tmp_path / "out/data").to_table()["note"].null_count == 5
    assert pd.read_parquet(tmp_path / "out/data")["note"].notna().sum() == 5
    assert duckdb.connect().execute(f"SELECT count(note), count(*) FROM '{glob}'").fetchone() == (5, 10)


def test_the_driver_imports_no_framework(ray_address: str, repository: Path, tmp_path: Path) -> None:
    put(str(tmp_path / "in.txt"), b"One line.\nAnother line.\n")
    program = (
        "import sys; from jobs.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "found = {'torch', 'tensorflow', 'keras', 'jax', 'flax'} & set(sys.modules)\n"
        "assert not found, found"
    )
    arguments = ["annotate", "--task", "text-classification", "--model", "jobs/checkpoints/random-tiny"]
    files = ["--input", str(tmp_path / "in.txt"), "--output", str(tmp_path / "out"), "--dtype", "float32"]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments, *files],
        cwd=repository,
        env={**os.environ, "RAY_ADDRESS": ray_address},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "2 rows" in done.stdout
