"""The Python examples in docs/ run and print what they say they print.

A page's ```python blocks run in their order, in one namespace, from the repository's root. Where a line ends in
`print(…)  # text`, the block must print that text there.
"""

import contextlib
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).resolve().parents[1] / "docs"
FENCE = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
PRINTED = re.compile(r"^\s*print\(.*\)  # (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """One example; line: of its first line in the page."""

    code: str
    line: int

    @property
    def prints(self) -> list[str]:
        """What its print lines say they print."""
        return PRINTED.findall(self.code)


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [Block(code=m[1], line=text.count("\n", 0, m.start(1)) + 1) for m in FENCE.finditer(text)]


# Pages with tests of their own: test_docs_tasks.py, test_docs_training.py, test_docs_python.py.
ELSEWHERE = ("tasks.md", "from-hf-pipelines.md", "training.md", "python.md")
PAGES = sorted(page for page in DOCS.glob("*.md") if blocks(page) and page.name not in ELSEWHERE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_examples_of_a_page_run_and_print_what_they_say(
    page: Path, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repository)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks(page):
        # Empty lines before it, so that a traceback shows the page's own line.
        program = compile("\n" * (block.line - 1) + block.code, str(page), "exec")
        printed = io.StringIO()
        try:
            with contextlib.redirect_stdout(printed):
                exec(program, namespace)
        except ImportError as error:
            if "pip install 'preln[" in str(error) or error.name in ("torch", "tensorflow", "jax", "flax"):
                pytest.skip(f"{page.name}, line {block.line}: {error}")
            raise
        if block.prints:
            assert printed.getvalue().splitlines() == block.prints, f"{page.name}, line {block.line}"


def test_the_page_of_the_models_names_every_class(repository: Path) -> None:
    from models import KINDS

    text = (repository / "docs/models.md").read_text(encoding="utf-8")
    prefixes = ("", "TF", "Flax")
    wanted = {f"{prefix}RobertaPreLayerNorm{kind}" for prefix in prefixes for kind in KINDS}
    assert wanted <= set(re.findall(r"\b(?:TF|Flax)?RobertaPreLayerNorm\w+", text))
