"""What bad things got in, docs/bad-inputs.md out.

python -m tests.pipeline.bad_page > docs/bad-inputs.md      writes the page again
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.pipeline.bad_files import MORE_FILES
from tests.pipeline.bad_run import Got, attempt
from tests.pipeline.bad_things import BAD_THINGS, Bad

HEAD = """# What a bad thing gets

Every line below was run: the file, row, job or checkpoint made bad on purpose, and what `preln annotate` said of it.
A test runs them again and compares this page. `FOLDER` and `REPOSITORY` stand for the places where it ran.

- **refused**: in one line, before any replica starts; exit code 2. Nothing was written.
- **row error**: the row is in the output with null answers and this `error`; the rows beside it are answered.
  Too many of them (`limits.error_rows` and `limits.error_share`) stop the run with exit code 3; `empty` never counts.
- **file failed**: the file is named in the report and in `preln status`; the other files go on; exit code 3,
  and the next run tries it again.

What to do after a run that ended otherwise than well is in [recovery.md](recovery.md).
"""
BAD_OF = {**BAD_THINGS, "Files": [*BAD_THINGS["Files"], *MORE_FILES]}
SECTIONS = {
    "Files": "Files that can't be read, or can't be read together.",
    "Rows": "Rows that can't be answered. All columns but the answers are as in the input.",
    "Jobs": "Jobs that can't work as they are written.",
    "Checkpoints": "Checkpoints that answer nothing. Only headers are read before a run is refused.",
}


def outcome(bad: Bad, folder: Path) -> Got:
    """What a bad thing gets, in a folder of its own."""
    settings = bad.make(folder) or {}
    return attempt(folder, yaml=bad.yaml, settings=list(settings.items()))


def render(outcome_of: Callable[[Bad], Got]) -> str:
    """The page."""
    parts = [HEAD]
    for section, words in SECTIONS.items():
        parts.append(f"\n## {section}\n\n{words}\n\n| what | gets | and these words |\n| --- | --- | --- |\n")
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
