"""Runs over a local folder that end by `os._exit` at each access to the disk in turn.

python -m tests.pipeline.dying_run FOLDER     prints one JSON object: how many deaths, and what was wrong after which

Every run is a fork of this process, which does nothing itself: a death is a real one, without finally and without flush.
"""

import builtins
import json
import os
import shutil
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.run_options import RunOptions
from pipeline.store import local_disk
from tests.pipeline.drill_promise import assert_done, assert_manifest_is_exact, assert_objects_are_whole
from tests.pipeline.drill_run import BAD, Drill

WISHES = RunOptions(retry_errors=True, prune=True)
TEXTS = ["one", BAD, "three", "four"]
DIED, SOUND, UNSOUND = 9, 0, 1
MOST = 500


class Steps:
    """Counts touches of the disk, and ends the process at one of them."""

    def __init__(self, last: int) -> None:
        self._left = last

    def touch(self) -> None:
        """One more."""
        if self._left == 0:
            os._exit(DIED)
        self._left -= 1

    def before_and_after(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, with a touch on both sides."""

        def touched(*arguments: Any, **keywords: Any) -> Any:
            self.touch()
            result = function(*arguments, **keywords)
            self.touch()
            return result

        return touched

    def opening(self, *arguments: Any, **keywords: Any) -> Any:
        """A file whose content may be written by half."""
        self.touch()
        file = builtins.open(*arguments, **keywords)  # noqa: SIM115 - Halving closes it
        write = file.write

        def half_and_half(content: bytes) -> int:
            middle = len(content) // 2
            write(content[:middle])
            file.flush()
            self.touch()
            return int(write(content[middle:])) + middle

        return Halving(file, half_and_half)

    def install(self) -> None:
        """From now on."""
        for name in ("replace", "link", "unlink", "fsync"):
            setattr(os, name, self.before_and_after(getattr(os, name)))
        local_disk.open = self.opening  # type: ignore[attr-defined]


class Halving:
    """An open file with another way to write."""

    def __init__(self, file: Any, write: Callable[[bytes], int]) -> None:
        self._file = file
        self.write = write

    def __enter__(self) -> "Halving":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def in_a_fork(action: Callable[[], None]) -> int:
    """Exit status of a process that does this and nothing else."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.fsync = lambda fd: None  # the machine lives on; waiting for its disk would be most of the test
    try:
        action()
    except BaseException:
        traceback.print_exc()
        os._exit(UNSOUND)
    os._exit(SOUND)


def prepare(drill: Drill) -> None:
    """Annotated once, then changed in every way."""
    drill.put_file("a.parquet", TEXTS)
    drill.put_file("b.txt.gz", TEXTS)
    drill.put_file("d.txt", ["to be pruned"])
    assert drill.annotate().state == "done"
    drill.put_file("a.parquet", ["uno", "due", "tre"])
    drill.put_file("e.jsonl", ["new"])
    drill.delete_file("d.txt")


def die_everywhere(folder: Path) -> dict[str, Any]:
    """One death after the other, each in a fresh copy of the same folder, until a run gets through."""
    root, kept = folder / "job", folder / "kept"
    (folder / "texts").mkdir(parents=True)
    drill = Drill(str(root))
    texts_file = folder / "texts" / "texts.json"

    def first() -> None:
        prepare(drill)
        texts_file.write_text(json.dumps([[*key, texts] for key, texts in drill.texts.items()]))

    if in_a_fork(first) != SOUND:
        return {"deaths": 0, "unsound": ["preparing"]}
    drill.texts = {(uri, version): texts for uri, version, texts in json.loads(texts_file.read_text())}
    drill.repaired = True
    root.rename(kept)
    unsound: list[str] = []
    for last in range(MOST):
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(kept, root, copy_function=shutil.copy2)

        def run(last: int = last) -> None:
            Steps(last).install()
            drill.annotate(WISHES)

        def look() -> None:
            assert_objects_are_whole(drill)
            assert_manifest_is_exact(drill)
            assert_done(drill, drill.annotate(WISHES))
            left = [path.name for path in root.rglob(f"{local_disk.TEMPORARY_PREFIX}*")]
            assert not left, left

        ended = in_a_fork(run)
        if in_a_fork(look) != SOUND:
            unsound.append(f"touch {last}")
        if ended != DIED:
            return {"deaths": last, "unsound": unsound, "went_through": ended == SOUND}
    return {"deaths": MOST, "unsound": unsound, "went_through": False}


if __name__ == "__main__":
    print(json.dumps(die_everywhere(Path(sys.argv[1]))))
