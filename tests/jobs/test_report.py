"""`preln report`: the page says what is in the folder, is valid HTML, fetches nothing, and escapes what the data has."""

import importlib.util
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.checkpoints.make_random import make_random
from jobs.report import bars, page_of
from models.boundary import Head
from pipeline.analysis.dataset import Dataset
from pipeline.analysis.histogram import BINS, Histogram
from pipeline.output.folder import OutputFolder
from pipeline.output.verify import verify
from pipeline.spec.job_spec import JobSpec
from tests.command import in_this_process
from tests.jobs.page import Page
from tests.pipeline import bad_run
from tests.pipeline.analysis.zero_model import LOADER
from tests.pipeline.run_here import run_here
from tests.pipeline.small import CHECKPOINT
from tests.pipeline.test_certification import TEXTS, labelled

__all__ = ["labelled"]
HOSTILE = "<script>alert(1)</script> &amp; \"'> \x1b[31m \u202e $x$ </pre></section>"
INK, BAR = (27, 31, 36), (47, 111, 187)
"""Of the page in light."""
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")

TASKS: dict[str, tuple[Head, dict[str, Any], dict[str, Any]]] = {
    "feature-extraction": ("encoder", {}, {"text": "One text."}),
    "fill-mask": ("masked-lm", {}, {"text": "One <mask>."}),
    "multiple-choice": ("multiple-choice", {}, {"prompt": "One?", "choices": ["a", "b"]}),
    "question-answering": ("question-answering", {}, {"question": "Who?", "context": "Anna is here."}),
    "text-classification": ("sequence-classification", {"top_k": 2}, {"text": "One text."}),
    "text-scoring": ("masked-lm", {}, {"text": "One text."}),
    "token-classification": ("token-classification", {"aggregation": "none"}, {"text": "Anna is here."}),
}


def made(folder: Path, *, checkpoint: str, task: object, rows: list[dict[str, Any]]) -> str:
    """An output folder in shards of two rows, made without Ray by the model that answers zero."""
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "in.parquet")
    values = {
        "input": str(folder / "in.parquet"),
        "model": {"checkpoint": checkpoint, "dtype": "float32"},
        "task": task,
        "output": str(folder / "out"),
        "resources": {"gpus": 0},
        "shards": {"rows": 2},
        "limits": {"error_rows": 100},
    }
    bad_run.annotate(JobSpec.parse(values), loader=LOADER)
    return str(folder / "out")


@pytest.fixture(scope="module")
def classified(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Classified texts, some hostile, some bad."""
    texts = ["One text.", HOSTILE, None, "Another.", "long " * 300, "x" * 2_000_000]
    return made(
        tmp_path_factory.mktemp("report"),
        checkpoint=CHECKPOINT,
        task="text-classification",
        rows=[{"text": text} for text in texts],
    )


def test_a_page_is_valid_fetches_nothing_and_says_what_the_folder_holds(classified: str) -> None:
    html = page_of(classified)
    page = Page(html)
    job = Dataset(classified).job
    for said in (
        "text-classification",
        job.fingerprint,
        job.checkpoint.digest,
        "empty: first rows",
        "3 current, 0 missing",
    ):
        assert said in page.text
    assert page.tags.count("svg") >= 3  # scores, lengths, speed
    assert "1 row (16.7%) with a text that was cut" in page.text
    assert "Slowest shards" in page.text
    assert "computing" in page.text


def test_what_the_data_holds_is_text_on_the_page(tmp_path: Path) -> None:
    output = made(tmp_path, checkpoint=CHECKPOINT, task="text-classification", rows=[{"text": HOSTILE}, {"text": None}])
    (data,) = list(Path(output, "data").iterdir())
    table = pq.read_table(data)
    error = pa.array([{"reason": HOSTILE, "message": HOSTILE}, None], table.schema.field("error").type)
    label = pa.array([HOSTILE, None])
    table = table.set_column(table.schema.get_field_index("error"), table.schema.field("error"), error)
    table = table.set_column(table.schema.get_field_index("label"), table.schema.field("label"), label)
    pq.write_table(table, data)
    page = Page(page_of(output))
    assert page.text.count("<script>alert(1)</script> &amp;") >= 4  # label, reason, message, text


@pytest.mark.parametrize("task", TASKS)
def test_every_task_is_reported(task: str, tmp_path: Path) -> None:
    head, options, row = TASKS[task]
    make_random(folder=tmp_path / "checkpoint", head=head)
    output = made(
        tmp_path, checkpoint=str(tmp_path / "checkpoint"), task={"name": task, **options}, rows=[row, row, row]
    )
    page = Page(page_of(output))
    assert "No row has an error." in page.text
    for answer in Dataset(output).answers:
        assert answer.column in page.text


def rescored(output: str, copy: Path, score: float | None) -> str:
    """A copy of an output folder whose rows all have this score."""
    shutil.copytree(output, copy)
    for data in (copy / "data").iterdir():
        table = pq.read_table(data)
        place = table.schema.get_field_index("mine_score")
        scores = pa.array([score] * table.num_rows, table.schema.field(place).type)
        pq.write_table(table.set_column(place, table.schema.field(place), scores), data)
    return str(copy)


@pytest.mark.torch
def test_drift_of_accepted_labels_is_on_the_page_as_verify_reports_it(tmp_path: Path, labelled: Path) -> None:
    pq.write_table(pa.table({"text": [*TEXTS, None]}), tmp_path / "in.parquet")
    wish = {"error_rate": 0.1, "calibration": str(labelled), "label": "truth"}
    output = str(tmp_path / "out")
    report = run_here(
        input=str(tmp_path / "in.parquet"),
        model={"checkpoint": CHECKPOINT, "dtype": "float32"},
        tasks={"mine": {"name": "text-classification", "accept": wish}},
        output=output,
        resources={"gpus": 0},
        shards={"rows": 100},
    )
    assert report.state == "done"
    page = Page(page_of(output))
    (drift,) = verify(output).drift
    assert drift.rows == len(TEXTS)
    assert "mine: accepted labels and drift" in page.text
    assert "Labels with a score of at least" in page.text
    assert "No drift: the scores are spread as those of the labelled rows." in page.text
    for said in (f"{drift.distance:.3f}", f"{drift.chance:.3f}", f"{drift.accepted:.1%}", f"{drift.expected:.1%}"):
        assert said in page.text
    page = Page(page_of(rescored(output, tmp_path / "unlike", 0.999)))
    assert "Large drift: these rows are unlike the labelled ones" in page.text
    page = Page(page_of(rescored(output, tmp_path / "blank", None)))
    assert "No row is answered yet, so drift is unknown." in page.text


def test_a_folder_whose_run_was_killed_is_reported_as_far_as_it_is(classified: str, tmp_path: Path) -> None:
    copy = tmp_path / "out"
    shutil.copytree(classified, copy)
    for name in ("_runs", "_manifest"):
        shutil.rmtree(copy / name)
    (copy / "_SUCCESS").unlink()
    (copy / "data" / Dataset(classified).shards[0].key).unlink()
    page = Page(page_of(str(copy)))
    assert "not complete: see preln status" in page.text
    assert "2 current, 1 missing" in page.text
    assert "No run has ended here yet." in page.text


def test_runs_recorded_by_older_versions_are_shown_without_what_they_lack(classified: str, tmp_path: Path) -> None:
    copy = tmp_path / "out"
    shutil.copytree(classified, copy)
    shutil.rmtree(copy / "_runs")
    OutputFolder(str(copy)).write_run(run="20250101T000000.000000Z-a", record={"state": "done", "rows": 6})
    assert "Speed over time is not recorded for this run" in Page(page_of(str(copy))).text


def test_the_verb_writes_the_page_and_names_the_extra_where_it_is_missing(
    classified: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    preln = in_this_process(monkeypatch, capsys)
    ended = preln("report", classified, "--into", tmp_path / "page.html")
    assert (ended.code, ended.out) == (0, f"report written to {tmp_path}/page.html\n")
    Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "jinja2" else found(name))
    ended = preln("report", classified)
    assert ended.code == 2
    assert "jinja2" in ended.err
    assert ended.err.endswith("pip install 'preln[report]'\n")
    assert ended.err.count("\n") == 1


@pytest.mark.browser
@pytest.mark.timeout(400)  # a browser starts twice, also on a busy machine
def test_a_browser_shows_the_page_without_an_error(classified: str, tmp_path: Path) -> None:
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is installed")
    (tmp_path / "page.html").write_text(page_of(classified), encoding="utf-8")
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--enable-logging=stderr",
        f"--user-data-dir={tmp_path}/user",
    ]

    def opened(page: Path) -> tuple[set[tuple[int, ...]], str]:
        """Colours of the page's picture, and what the browser logged."""
        shot = tmp_path / f"{page.stem}.png"
        run = subprocess.run(
            [browser, *flags, f"--screenshot={shot}", "--window-size=1000,3000", page.as_uri()],
            capture_output=True,
            text=True,
            timeout=180,
            check=True,
        )
        pixels = image.imread(shot)[..., :3]
        return {tuple(pixel) for pixel in (255 * pixels).round().astype(int).reshape(-1, 3)[::7].tolist()}, run.stderr

    image = pytest.importorskip("matplotlib.image")
    colours, logged = opened(tmp_path / "page.html")
    assert "CONSOLE" not in logged
    assert colours >= {(255, 255, 255), INK, BAR}, "paper, text and the bars of a plot"
    broken = tmp_path / "broken.html"
    broken.write_text((tmp_path / "page.html").read_text().replace("<main>", "<main><script>1</script>", 1))
    assert "CONSOLE" in opened(broken)[1], "the log has what the page's own policy refuses"


def test_a_histogram_counts_every_number_whatever_its_order() -> None:
    batches = [[0.5, 0.5], [float("nan")], [], [-3.0, 1e6], [0.25, float("inf")]]
    found, backwards = Histogram(), Histogram()
    for batch in batches:
        found.add(batch)
    for batch in reversed(batches):
        backwards.add(batch)
    assert found == backwards
    assert (found.count, found.not_finite, found.least, found.most) == (5, 2, -3.0, 1e6)
    assert found.mean == pytest.approx((0.5 + 0.5 - 3 + 1e6 + 0.25) / 5)
    counts, edges = found.shown()
    assert (sum(counts), len(edges)) == (5, len(counts) + 1)
    assert edges[0] <= -3.0
    assert edges[-1] >= 1e6
    assert len(counts) <= BINS


def test_bins_of_probabilities_end_at_one_and_those_of_integers_hold_equally_many() -> None:
    scores = Histogram()
    scores.add(np.linspace(0.01, 1.0, 500, dtype=np.float32))
    assert scores.shown()[1][-1] == 1.0
    assert len(scores.shown()[0]) == 32
    lengths = Histogram(whole=True)
    lengths.add(np.arange(29, 67))
    counts, edges = lengths.shown()
    assert (counts, edges[0], edges[-1]) == ([1] * 38, 28.5, 66.5)
    lengths.add(np.arange(80, 1000))
    assert set(lengths.shown()[0][1:-1]) == {32, 19}, "one bin has the 13 integers that are missing"
    single = Histogram()
    single.add([0.25, 0.25])
    assert single.shown()[0] == [2]


@pytest.mark.parametrize("values", [[1e300, -1e300], [5e-324], [0.0], [-0.0, 1e-310], [3.4e38, 1.0]])
def test_a_histogram_takes_any_finite_number(values: list[float]) -> None:
    found = Histogram()
    found.add(values)
    assert found.count == len(values)
    assert len(found.shown()[0]) <= BINS


def test_values_beyond_those_listed_are_summed() -> None:
    from collections import Counter

    rows = bars(Counter({f"v{number:03d}": 1 + (number == 7) for number in range(50)}), whole=51)
    assert rows[0] == ("v007", 2, 2 / 51, 1.0)
    assert rows[-1] == ("10 others", 10, 10 / 51, 0.0)
