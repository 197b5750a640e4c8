"""The threat table of SECURITY.md names tests that exist, and each of its lines has one."""

import ast
import re
from pathlib import Path

NAMED = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")
FEWEST_LINES = 25


def lines_of_the_table(repository: Path) -> list[str]:
    text = (repository / "SECURITY.md").read_text(encoding="utf-8")
    section = text.split("## What comes from outside")[1].split("\n## ")[0]
    return [line for line in section.splitlines() if line.startswith("| ")][2:]


def test_each_line_of_the_threat_table_names_tests_that_exist(repository: Path) -> None:
    lines = lines_of_the_table(repository)
    assert len(lines) >= FEWEST_LINES
    for line in lines:
        named = NAMED.findall(line.rpartition(" | ")[2])
        assert named, f"no test: {line}"
        for file, name in named:
            tree = ast.parse((repository / file).read_text(encoding="utf-8"))
            defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
            assert name in defined, f"{file} has no {name}"


def test_no_string_of_ours_is_a_format_of_strings_from_outside(repository: Path) -> None:
    """What is formatted is a literal or a constant of its module, never a variable that a file could fill."""
    wrong = []
    for folder in ("pipeline", "models", "jobs", "preln"):
        for file in sorted((repository / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if not (
                    isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "format"
                ):
                    continue
                text = node.func.value
                name = text.id if isinstance(text, ast.Name) else ""
                if isinstance(text, ast.Constant) or name.isupper() or _is_own(ast.unparse(text)):
                    continue
                wrong.append(f"{file.relative_to(repository)}:{node.lineno} {ast.unparse(text)}.format")
    assert wrong == []


OWN = {
    "self": "a log record's own formatter",
    "HOW_TO[to]": "a constant",
    "name": "models/tensors.py: names of its table",
}
"""What else has a method of that name, or is a constant."""


def _is_own(expression: str) -> bool:
    return expression in OWN
