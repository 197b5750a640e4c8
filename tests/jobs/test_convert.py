"""`preln convert`: tables for people, JSON for machines, exit codes, and no framework without need."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from jobs.cli import app
from models.errors import PrelnError

SOURCE = "jobs/checkpoints/random-tiny"


@pytest.fixture
def preln(repository: Path) -> Any:
    def run(*words: str) -> Any:
        return CliRunner().invoke(app, ["convert", *words], catch_exceptions=True)

    return run


@pytest.fixture
def source(repository: Path) -> str:
    return str(repository / SOURCE)


def test_a_summary_is_printed_and_with_verbose_every_tensor(preln: Any, source: str, tmp_path: Path) -> None:
    short = preln(source, str(tmp_path / "a"), "--format", "h5")
    assert short.exit_code == 0, short.output
    assert "classifier.out_proj.weight" not in short.output
    assert "tensors: 43 mapped (--verbose prints each)" in short.output
    changed = preln(source, str(tmp_path / "c"), "--head", "encoder")
    assert changed.output.count("unexpected") == 5, "four tensors, and their count"
    done = preln(source, str(tmp_path / "b"), "--format", "h5", "--verbose")
    assert done.exit_code == 0, done.output
    assert "classifier.out_proj.weight" in done.output
    assert "43 mapped" in done.output
    assert "of the head 'sequence-classification' now" in done.output


def test_json_names_every_tensor_with_its_fate(preln: Any, source: str, tmp_path: Path) -> None:
    done = preln(source, str(tmp_path / "b"), "--head", "encoder", "--json")
    printed = json.loads(done.output)
    assert printed["counts"] == {"mapped": 39, "unexpected": 4}
    assert {"fate": "unexpected", "name": "", "stored_name": "classifier.dense.bias", "shape": [64], "detail": ""} in (
        printed["tensors"]
    )


def test_a_refusal_prints_the_tensors_too_and_names_the_first(preln: Any, source: str, tmp_path: Path) -> None:
    done = preln(source, str(tmp_path / "b"), "--head", "masked-lm")
    assert "missing" in done.output
    assert isinstance(done.exception, PrelnError)
    assert "lm_head.dense.weight" in str(done.exception)


def test_check_says_the_same_with_0_and_different_with_3(preln: Any, source: str, tmp_path: Path) -> None:
    preln(source, str(tmp_path / "b"), "--format", "safetensors-flax")
    same = preln("--check", source, str(tmp_path / "b"))
    assert (same.exit_code, "largest difference 0" in same.output) == (0, True)
    preln(source, str(tmp_path / "c"), "--dtype", "bfloat16")
    apart = preln("--check", source, str(tmp_path / "c"), "--json")
    assert apart.exit_code == 3
    assert 0 < json.loads(apart.output)["largest_of_all"] < 0.1
    assert preln("--check", source, str(tmp_path / "c"), "--tolerance", "0.1").exit_code == 0


@pytest.mark.parametrize("option", ["--from", "--head", "--format", "--dtype"])
def test_a_word_that_no_option_knows_is_refused_with_those_it_knows(
    option: str, preln: Any, source: str, tmp_path: Path
) -> None:
    done = preln(source, str(tmp_path / "b"), option, "nonsense")
    assert f"{option} is 'nonsense'; choose one of" in str(done.exception)


def test_conversion_without_pickles_imports_no_framework(repository: Path, source: str, tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from models.convert import convert\n"
        f"convert(source={source!r}, destination={str(tmp_path / 'b')!r}, weights_format='h5')\n"
        "print(*sorted({'torch', 'tensorflow', 'keras', 'jax', 'flax', 'ray'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", program], cwd=repository, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == ""
