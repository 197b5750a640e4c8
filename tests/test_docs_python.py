"""The examples of docs/python.md run."""

import re
from pathlib import Path

import pytest

from tests.pipeline.run_here import commands_run_here

EXAMPLES = re.compile(r"<!-- executed -->\n```python\n(.*?)```", re.DOTALL)


@pytest.mark.torch
@pytest.mark.parametrize("number", range(3))
def test_an_example_of_the_documentation_runs(
    number: int, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands_run_here(monkeypatch)
    monkeypatch.chdir(tmp_path)
    examples = EXAMPLES.findall((repository / "docs" / "python.md").read_text(encoding="utf-8"))
    assert len(examples) == 3
    exec(compile(examples[number], f"docs/python.md, example {number + 1}", "exec"), {})
