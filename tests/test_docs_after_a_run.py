"""The commands of docs/after-a-run.md run, one after the other, on its job, with its files here and on object storage."""

import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import s3fs

from tests.command import Command, in_this_process

FENCE = re.compile(r"^```(yaml|sh)\n(.*?)^```", re.DOTALL | re.MULTILINE)


@pytest.fixture
def preln(
    repository: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    local_ray: None,
) -> Command:
    """In a folder where the page's job finds its input."""
    (tmp_path / "jobs").symlink_to(repository / "jobs")
    monkeypatch.chdir(tmp_path)
    return in_this_process(monkeypatch, capsys)


def run_the_page(preln: Command, repository: Path, *, at: str) -> None:
    """Its job and commands; what the page writes into `annotated` and `pages` goes to an address."""
    page = (repository / "docs/after-a-run.md").read_text(encoding="utf-8")
    blocks = FENCE.findall(page)
    job = next(content for kind, content in blocks if kind == "yaml")
    Path("intents.yaml").write_text(job.replace("output: annotated", f"output: {at}annotated"))
    commands = [line for kind, content in blocks if kind == "sh" for line in content.splitlines()]
    assert len(commands) >= 5
    for command in commands:
        first, *words = command.split()
        assert first == "preln"
        ended = preln(*(f"{at}{word}" if word.startswith(("annotated", "pages/")) else word for word in words))
        if command.endswith("bfloat16") and ended.code == 3:  # nearly equal labels, as the page says
            continue
        assert ended.code == 0, f"{command}: {ended.out}{ended.err}"


@pytest.mark.ray
@pytest.mark.torch
@pytest.mark.timeout(400)  # a dozen commands, also on a busy machine
def test_the_commands_of_the_page_run(preln: Command, repository: Path, tmp_path: Path) -> None:
    run_the_page(preln, repository, at="")
    assert (tmp_path / "pages/annotated.html").read_text(encoding="utf-8") == (tmp_path / "report.html").read_text(
        encoding="utf-8"
    )


@pytest.mark.ray
@pytest.mark.torch
@pytest.mark.storage
@pytest.mark.timeout(400)
def test_all_that_reads_an_output_folder_reads_and_writes_object_storage(
    preln: Command, repository: Path, s3_bucket: str
) -> None:
    def ran(*words: str) -> str:
        ended = preln(*words)
        assert ended.code == 0, f"{words}: {ended.out}{ended.err}"
        return ended.out

    run_the_page(preln, repository, at=f"{s3_bucket}/")
    store = s3fs.S3FileSystem(skip_instance_cache=True)
    output, review = f"{s3_bucket}/annotated", f"{s3_bucket}/review.jsonl"
    assert store.cat_file(f"{s3_bucket}/pages/annotated.html").startswith(b"<!DOCTYPE html>")
    ran("sample", output, "--task", "intents", "-n", "20", "--into", review)
    rows = [json.loads(line) for line in store.cat_file(review).splitlines()]
    rows[0]["label"] = "another"
    store.pipe_file(review, b"".join(json.dumps({**row, "reviewed": True}).encode() + b"\n" for row in rows))
    assert "Reviewed 20 of 20 rows of intents: 1 wrong." in ran("score", review)
    assert "0.00% of them (0) have another answer" in ran("diff", output, output, "--html", f"{s3_bucket}/diff.html")
    assert store.cat_file(f"{s3_bucket}/diff.html").startswith(b"<!DOCTYPE html>")
    texts = pa.table({"text": [row["text"] for row in rows], "topic": [row["label"] for row in rows[1:]] + ["yes"]})
    with store.open(f"{s3_bucket}/labelled.parquet", "wb") as file:
        pq.write_table(texts, file)
    names = {"--data": "labelled.parquet", "--output": "calibrated"}
    addresses = [word for option, name in names.items() for word in (option, f"{s3_bucket}/{name}")]
    ran("calibrate", "--model", "jobs/checkpoints/demo/intents", "--gold", "topic", "--dtype", "float32", *addresses)
    assert json.loads(store.cat_file(f"{s3_bucket}/calibrated/calibration.json"))
