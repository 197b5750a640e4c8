"""Writes docs/errors.md from what each bad input got.

python -m tests.pipeline.bad_page > docs/errors.md      writes the page
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.pipeline.bad import Bad
from tests.pipeline.bad_files import MORE_FILES
from tests.pipeline.bad_run import Got, attempt
from tests.pipeline.bad_things import BAD_THINGS

HEAD = """# Error reference

Bad files, rows, jobs and checkpoints, and the message that `preln annotate` gives for each. A test runs each
of them and compares this page. `FOLDER` and `REPOSITORY` stand for the folders where it ran.

- **refused**: one line before any replica starts; exit code 2. Nothing is written.
- **row error**: the row is in the output with null answers and this `error`; the other rows are answered.
  Too many of them (`limits.error_rows` and `limits.error_share`) stop the run with exit code 3; `empty` never counts.
- **file failed**: the report and `preln status` name the file; the other files are annotated; exit code 3,
  and the next run tries it again.

[recovery.md](recovery.md) says what to do after a failed run.
"""
BAD_OF = {**BAD_THINGS, "Files": [*BAD_THINGS["Files"], *MORE_FILES]}
SECTIONS = {
    "Files": "Files that can't be read, or can't be read together.",
    "Rows": "Rows that can't be answered. Their other columns are as in the input.",
    "Jobs": "Jobs that can't run as written.",
    "Checkpoints": "Checkpoints that can't be used. Only their headers are read before a run is refused.",
}


def outcome(bad: Bad, folder: Path) -> Got:
    """What a bad input gets, run in a folder of its own."""
    settings = bad.make(folder) or {}
    return attempt(folder, yaml=bad.yaml, settings=list(settings.items()))


def render(outcome_of: Callable[[Bad], Got]) -> str:
    """The page."""
    parts = [HEAD]
    for section, words in SECTIONS.items():
        parts.append(f"\n## {section}\n\n{words}\n\n| input | outcome | message |\n| --- | --- | --- |\n")
        parts += [line_of(bad, outcome_of(bad)) for bad in BAD_OF[section]]
    return "".join(parts)


def line_of(bad: Bad, got: Got) -> str:
    """A row of the table."""
    reason = f", `{got.reasons[0]}`" if got.verdict == "row error" else ""
    words = got.messages[0].replace("|", "\\|").replace("`", "'")
    return f"| {bad.what} | {got.verdict}{reason} | {words} |\n"


def main() -> None:
    """Print the page."""

    def in_a_new_folder(bad: Bad) -> Got:
        with tempfile.TemporaryDirectory() as folder:
            return outcome(bad, Path(folder).resolve())

    print(render(in_a_new_folder), end="")


if __name__ == "__main__":
    main()
