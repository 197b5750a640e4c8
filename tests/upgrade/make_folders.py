"""Writes the half-written output folders of `tests/upgrade/` with the code of commit e717816. No test runs this.

    git worktree add ../old e717816
    cd ../old && PYTHONPATH=$PWD python REPOSITORY/tests/upgrade/make_folders.py

It ran once, at e717816, and what it wrote is committed: a later commit can't write these folders, it can only finish them.
For each folder `preln annotate` runs three times over an S3 server: once to its end (or until limits.error_rows stops it),
once until the driver is killed by SIGKILL in the middle (this is `before/`), and once to the end (what that adds is
`after/`). Addresses and versions, which names of shards are made of, are those of the S3 server, so that no path of a
machine is in them.
"""

import importlib
import io
import logging
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet as pq
import s3fs
import yaml
from moto.server import ThreadedMotoServer

HERE = Path(__file__).parent
# Last, so that all but this folder is the old commit's.
sys.path.append(str(HERE.parents[1]))
from tests.upgrade.inputs import BUCKET, FOLDERS, SENTENCES, Folder  # noqa: E402

OLD_COMMIT = "e717816"
HEADS = {"encoder": "encoder", "kind": "sequence-classification", "masks": "masked-lm", "tags": "token-classification"}
NAMES = {"kind": ("north", "south", "east"), "tags": ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")}
SLOW_SECONDS = 3.0
"""How long the store takes for an object while a run is to be stopped by its limits."""
LONGEST = 300.0

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class Gate:
    """A store's door: counts the objects that are put under data/, slows them down, and holds them back after some."""

    def __init__(self, application: Application) -> None:
        self._application = application
        self._lock = threading.Lock()
        self.open()

    def open(self, *, seconds: float = 0.0, most: int | None = None) -> None:
        """From now on each object takes so long, and only so many are stored; the next is held back for good."""
        self.held = threading.Event()
        self._seconds, self._left = seconds, most

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer a request."""
        if environ["REQUEST_METHOD"] == "PUT" and "/out/" in environ["PATH_INFO"]:
            if "/out/data/" in environ["PATH_INFO"]:
                time.sleep(self._seconds)
                with self._lock:
                    if self._left is not None:
                        self._left -= 1
                        if self._left < 0:
                            self.held.set()
            if self.held.is_set():
                time.sleep(60)
                start_response("503 Slow Down", [])
                return [b""]
        return self._application(environ, start_response)


def main() -> None:
    """Write every folder, or those named on the command line, and the checkpoint."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    old = Path.cwd()
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=old, capture_output=True, text=True, check=True).stdout
    pipeline = importlib.import_module("pipeline")
    assert commit.startswith(OLD_COMMIT), f"run this in a checkout of {OLD_COMMIT}, not of {commit}"
    assert Path(str(pipeline.__file__)).is_relative_to(old), f"{pipeline.__file__} is not in {old}"
    wanted = sys.argv[1:] or [folder.name for folder in FOLDERS]
    if not (HERE / "checkpoint").exists():
        write_checkpoint(HERE / "checkpoint")
    with store() as gate:
        fs = s3fs.S3FileSystem(skip_instance_cache=True, use_listings_cache=False)
        fs.mkdir(BUCKET)
        fs.put(f"{HERE / 'checkpoint'}/", f"{BUCKET}/checkpoint/", recursive=True)
        for folder in FOLDERS:
            if folder.name in wanted:
                make(folder, fs=fs, gate=gate)


@contextmanager
def store() -> Iterator[Gate]:
    """moto's S3 server behind a gate, and its address in the environment."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }
    running: Any = server._server
    running.app = gate = Gate(running.app)
    try:
        yield gate
    finally:
        server.stop()


def make(folder: Folder, *, fs: s3fs.S3FileSystem, gate: Gate) -> None:
    """Run the job of a folder three times, and keep what it has after the second and after the third."""
    root, local = f"{BUCKET}/{folder.name}", HERE / folder.name
    shutil.rmtree(local, ignore_errors=True)
    local.mkdir()
    job = job_of(folder)
    job_file = local / "job.yaml"
    job_file.write_text(yaml.safe_dump(job, sort_keys=False))

    put_input(folder.first, fs=fs, root=root)
    gate.open(seconds=SLOW_SECONDS if folder.stopped else 0.0)
    limits = ["--set", "limits.error_rows=0", "--set", "limits.error_share=0"] if folder.stopped else []
    assert preln("annotate", str(job_file), *limits) == (3 if folder.stopped else 0), "the first run"
    settled = keys_of_manifest(fs, root)

    put_input(folder.then, fs=fs, root=root)
    gate.open(most=folder.kept)
    kill_when(gate.held, "annotate", str(job_file))
    before = download(fs, root)

    gate.open()
    assert preln("annotate", str(job_file)) == 0, "the last run"
    assert preln("verify", f"{root}/out", "--input", f"{root}/in") == 0, "what it wrote"
    after = added_to(before, download(fs, root))
    written = {name for name in before if name.startswith("data/")}
    added = {name for name in after if name.startswith("data/")}
    assert settled, "no object is in a manifest"
    assert len(written - settled) >= folder.kept, "no object is known from its footer alone"
    assert added, "no object is missing"
    assert not any(name.startswith("_plans/") for name in after), "finishing planned something new"
    for name, content in {**folder.first, **folder.then}.items():
        path = local / "input" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    pack(local / "output.tar.xz", {"before": before, "after": after})
    print(
        f"{folder.name}: {len(settled)} settled, {len(written - settled)} only written, {len(added)} missing",
        flush=True,
    )


def job_of(folder: Folder) -> dict[str, Any]:
    """The whole job of a folder."""
    root = f"{BUCKET}/{folder.name}"
    checkpoint = f"{BUCKET}/checkpoint" + (f"/{folder.head}" if folder.head else "")
    return {
        **folder.job,
        "input": {"urls": f"{root}/in", **folder.job.get("input", {})},
        "model": {"checkpoint": checkpoint, "dtype": "float32"},
        "output": {"url": f"{root}/out", **folder.job.get("output", {})},
        "resources": {"gpus": 0, "replicas": 1},
    }


def preln(*words: str) -> int:
    """A command of the old code, to its end."""
    return driver(*words).wait(timeout=LONGEST)


def driver(*words: str) -> subprocess.Popen[bytes]:
    """A command of the old code in a session of its own."""
    with tempfile.TemporaryFile() as log:
        environment = {**os.environ, "OMP_NUM_THREADS": "2", "RAY_USAGE_STATS_ENABLED": "0"}
        environment.pop("RAY_ADDRESS", None)
        return subprocess.Popen(
            [sys.executable, "-m", "jobs", *words], cwd=Path.cwd(), env=environment, stdout=log, start_new_session=True
        )


def kill_when(event: threading.Event, *words: str) -> None:
    """SIGKILL a driver as soon as the event is set, and wait until its Ray is gone."""
    process = driver(*words)
    while not event.wait(1):
        assert process.poll() is None, "the driver ended before it could be killed; run this folder again"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    endpoint, until = os.environ["AWS_ENDPOINT_URL"], time.monotonic() + LONGEST
    while any(of_store(other, endpoint) for other in psutil.process_iter()):
        assert time.monotonic() < until, "workers of the killed driver are still there"
        time.sleep(0.5)


def of_store(process: psutil.Process, endpoint: str) -> bool:
    """Whether another process speaks to this store."""
    try:
        return process.pid != os.getpid() and process.environ().get("AWS_ENDPOINT_URL") == endpoint
    except psutil.Error:
        return False


def put_input(files: Mapping[str, bytes], *, fs: s3fs.S3FileSystem, root: str) -> None:
    """Input files into the store."""
    for name, content in files.items():
        fs.pipe_file(f"{root}/in/{name}", content)


def keys_of_manifest(fs: s3fs.S3FileSystem, root: str) -> set[str]:
    """Names below the output folder of what the newest manifest names."""
    newest = max(fs.ls(f"{root}/out/_manifest", detail=False))
    return {f"data/{key}" for key in pq.read_table(io.BytesIO(fs.cat_file(newest)))["key"].to_pylist()}


def download(fs: s3fs.S3FileSystem, root: str) -> dict[str, bytes]:
    """The output folder's objects by name."""
    prefix = f"{root}/out/".removeprefix("s3://")
    return {path.removeprefix(prefix): fs.cat_file(path) for path in fs.find(prefix)}


def added_to(before: Mapping[str, bytes], after: Mapping[str, bytes]) -> dict[str, bytes]:
    """What a run has put into a folder, without its own record, which has times in it."""
    changed = {name for name in before if name in after and after[name] != before[name]}
    assert not changed, f"the old code wrote anew: {changed}"
    return {name: content for name, content in after.items() if name not in before and not name.startswith("_runs/")}


def pack(target: Path, folders: Mapping[str, Mapping[str, bytes]]) -> None:
    """Objects as one archive: a folder's Parquet footers are much alike, so that it is an eighth of their size."""
    with tarfile.open(target, "w:xz", preset=9) as archive:
        for folder, objects in folders.items():
            for name, content in sorted(objects.items()):
                member = tarfile.TarInfo(f"{folder}/{name}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))


def write_checkpoint(target: Path) -> None:
    """Heads around one encoder of two layers of width 16, random and sure of themselves."""
    writer, tensors = importlib.import_module("models.checkpoint_writer"), importlib.import_module("models.tensors")
    config_of = importlib.import_module("models.config").RobertaPreLayerNormConfig
    train = importlib.import_module("jobs.training.bpe").train_tokenizer
    tokenizer = train([*SENTENCES] * 2, pieces=300, text_limit=64, compact=True)
    tokenizer = {name: tokenizer[name] for name in ("tokenizer.json", "tokenizer_config.json")}
    random = np.random.RandomState(7)
    for name, head in HEADS.items():
        config = config_of(
            vocab_size=300,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=66,
            type_vocab_size=1,
            layer_norm_eps=1e-5,
            pad_token_id=1,
            id2label=dict(enumerate(NAMES[name])) if name in NAMES else None,
            dtype="float32",
            architectures=[tensors.ARCHITECTURES[head]],
            **({} if name == "encoder" else {"base_model_name_or_path": "encoder"}),
        )
        shapes = tensors.expected_tensors(config=config, head=head)
        own = {key: shape for key, shape in shapes.items() if name == "encoder" or not key.startswith(tensors.PREFIX)}
        writer.write_checkpoint(
            url=str(target / name),
            config=config,
            tensors={key: _random(random, key, shape) for key, shape in own.items()},
            tokenizer_files=tokenizer,
        )


def _random(random: np.random.RandomState, name: str, shape: tuple[int, ...]) -> Any:
    if "orm.weight" in name:
        return np.ones(shape, np.float32)
    if name.endswith("bias"):
        return np.zeros(shape, np.float32)
    return (random.standard_normal(shape) * (0.5 if "_embeddings." in name else 2 / shape[-1] ** 0.5)).astype(
        np.float32
    )


if __name__ == "__main__":
    main()
