"""What a bad thing is, and the ways in which files, rows and jobs are made bad."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.pipeline.bad_run import parquet

Settings = Mapping[str, Any]
Make = Callable[[Path], Settings | None]
GOOD_ROW = {"text": "A good text."}


@dataclass(frozen=True)
class Bad:
    """One bad thing. make: lays it into a folder, and returns how the job then differs from a good one.

    gets: verdict and reason. says: what its message must contain: the thing, and the next step. yaml: the job file, where
    that is the bad thing. good_rows: rows beside it that are answered all the same.
    """

    what: str
    gets: tuple[str, str]
    says: tuple[str, ...]
    make: Make = field(default=lambda folder: None)
    yaml: str | None = None
    good_rows: int = 0


REFUSED = "refused"
ROW = "row error"
FILE = "file failed"


def written(
    name: str, content: bytes | str, *, settings: Settings | None = None, beside_a_good_one: bool = False
) -> Make:
    """An input file of these bytes."""

    def make(folder: Path) -> Settings | None:
        path = folder / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        if beside_a_good_one:
            parquet(folder / "in" / "good.parquet", {"text": ["A good text."]})
        return settings

    return make


def lines(*rows: object, settings: Settings | None = None) -> Make:
    """JSON lines with a good one in front; bytes and text stand as they are."""
    content = b"".join(
        (row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in (GOOD_ROW, *rows)
    )
    return written("rows.jsonl", content, settings=settings)


def job(settings: Settings) -> Make:
    """A good input, and a job that differs by these settings."""

    def make(folder: Path) -> Settings:
        parquet(folder / "in" / "a.parquet", {"id": [1], "text": ["A good text."]})
        return {
            key: str(value).replace("FOLDER", str(folder)) if "FOLDER" in str(value) else value
            for key, value in settings.items()
        }

    return make


def cut(name: str, keep: float) -> Callable[[Path], None]:
    """A file of a folder, cut off."""

    def breaking(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(len(content) * keep)])

    return breaking
