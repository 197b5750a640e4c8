"""`preln bench` measures what it says, and refuses wrong answers."""

import importlib.util
import re
import subprocess
import sys

import numpy as np
import pytest

from jobs.benchmarks.ours import VOCABULARY, Fills
from jobs.benchmarks.report import machine, table
from jobs.benchmarks.rounds import Measured, in_rounds, least_operations
from jobs.benchmarks.texts import LONGEST, corpus


@pytest.mark.parametrize(("lengths", "least", "most"), [("sigma0.9", 40, 80), ("fixed512", 500, 512)])
def test_texts_have_the_lengths_that_were_asked_for(lengths: str, least: int, most: int) -> None:
    printed = corpus(lengths=lengths, count=64)
    counts = [len(ids) for ids in printed.ids]
    assert least <= np.median(counts) <= most
    assert max(counts) <= LONGEST
    assert printed.tokens == sum(counts)
    assert len(set(printed.texts)) > 60


def test_a_masked_text_has_one_mask_and_the_length_that_was_asked_for() -> None:
    masked = corpus(lengths="sigma0.9", count=64, masked=True)
    assert [text.split().count("<mask>") for text in masked.texts] == [1] * 64
    assert all(one.count(999) == 1 for one in masked.ids)  # the sample's mask
    plain = corpus(lengths="sigma0.9", count=64)
    assert len(plain.texts) == 64
    assert not any("<mask>" in text for text in plain.texts)
    assert masked.tokens == pytest.approx(plain.tokens, rel=0.02)


def test_fills_differ_by_their_probabilities_and_not_by_which_of_two_near_equal_tokens_is_the_last() -> None:
    reference = np.asarray(Fills(np.array([[7, 8]]), np.array([[0.5, 0.2000]], np.float32)))
    assert reference.shape == (1, VOCABULARY)
    near = np.asarray(Fills(np.array([[7, 9]]), np.array([[0.5, 0.2001]], np.float32)))
    assert np.abs(near - reference).max() == pytest.approx(1e-4, rel=1e-2)
    other = np.asarray(Fills(np.array([[6, 8]]), np.array([[0.5, 0.2000]], np.float32)))
    assert np.abs(other - reference).max() == pytest.approx(0.3)


def test_operations_grow_with_tokens_and_with_the_square_of_the_length() -> None:
    one = least_operations([100], layers=12, width=768)
    assert least_operations([100, 100], layers=12, width=768) == 2 * one
    assert one / 100 == pytest.approx(169.9e6 + 36_864 * 100, rel=1e-3)


class Wrong:
    """A variant whose answers are not the model's."""

    name, dtype, framework = "wrong", "float32", "torch"


def test_a_variant_that_answers_something_else_is_not_measured() -> None:
    with pytest.raises(RuntimeError, match=r"wrong .* answers something else: off by 0.5"):
        in_rounds(
            [(Wrong, lambda _: np.full((2, 2), 0.5))],
            inputs=None,
            reference=np.array([[0.0, 1.0], [1.0, 0.0]]),
            tokens=1,
            operations=1.0,
            rounds=1,
            now=lambda: 0.0,
            peaks={},
        )


def test_a_rate_is_that_of_the_median_round() -> None:
    printed = Measured("ours", "float32", "torch", tokens=100, operations=1e9, seconds=[1.0, 2.0, 9.0])
    assert printed.rate == 50
    assert printed.flops == 5e8


@pytest.mark.parametrize("way", ["transformers pipeline", "sentence-transformers (padded)"])
def test_ratios_are_to_the_usual_way_and_to_its_best(way: str) -> None:
    names = {f"{way}, batch 1": 2.0, f"{way}, batch 32": 4.0, "preln, torch": 1.0}
    measured = [Measured(name, "float32", "torch", 100, 1e9, seconds=[seconds]) for name, seconds in names.items()]
    printed = table(measured, {("torch", "float32"): 2e9})
    assert "| preln, torch | float32 | 100 | 4.00 | 2.00 | 0.50 |" in printed
    assert f"| x {way.split()[0 if 'sentence' in way else 1]}, batch 32 |" in printed


def test_a_table_s_machine_is_named_with_its_vectors() -> None:
    assert re.search(r"\((neither AVX2 nor AVX-512|.*AVX.*|.*AMX.*)\)", machine("cpu").partition(", Python")[0])


@pytest.mark.parametrize(
    ("task", "family"),
    [
        ("feature-extraction", "roberta-prelayernorm"),
        ("text-classification", "roberta"),
        ("fill-mask", "roberta-prelayernorm"),
    ],
)
def test_bench_prints_a_table_of_ours_alone(task: str, family: str) -> None:
    words = [
        "bench",
        "text",
        "--task",
        task,
        "--family",
        family,
        "--layers",
        "1",
        "--width",
        "64",
        "--texts",
        "8",
        "--rounds",
        "1",
        "--no-peers",
    ]
    # A process of its own: it takes one processor for itself.
    done = subprocess.run([sys.executable, "-m", "jobs", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(r"\| preln, torch \| float32 \| [\d,]+ \|", done.stdout)
    assert "Bare products in the same rounds: torch float32" in done.stdout
    assert f"; {family}, 1 layers of width 64" in done.stdout
    assert re.search(r"\[0:\d\d\] warming up 1 of \d+: preln, torch float32", done.stderr)
    assert re.search(r"\[0:\d\d\] 1 of \d+: .* [\d,]+ tokens/s \(median so far [\d,]+\)", done.stderr)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("task", ["feature-extraction", "text-classification", "fill-mask"])
def test_alternatives_answer_as_ours_do(task: str) -> None:
    for package in ("transformers", "sentence_transformers", "onnx", "onnxruntime", "openvino"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed (extra 'bench')")
    words = ["bench", "text", "--task", task, "--layers", "1", "--width", "64", "--texts", "8", "--rounds", "1"]
    # It fails where answers differ.
    done = subprocess.run([sys.executable, "-m", "jobs", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "| transformers eager, sorted | float32 |" in done.stdout
    assert ("| sentence-transformers (" in done.stdout) == (task != "text-classification")
    assert ("| transformers pipeline, batch 32 |" in done.stdout) == (task != "feature-extraction")
    assert ("| OpenVINO, sorted |" in done.stdout) == (task != "feature-extraction")


def test_bench_says_what_it_needs_before_it_begins() -> None:
    help_text = subprocess.run(
        [sys.executable, "-m", "jobs", "bench", "--help"], capture_output=True, text=True, check=True
    )
    assert "preln[bench]" in help_text.stdout


BARE = """
import runpy, sys

class Bare:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"ray", "pyarrow", "h5py", "msgpack"}:
            raise ImportError(name)

sys.meta_path.insert(0, Bare())
runpy.run_module("jobs.bench", run_name="__main__")
"""


def test_bench_model_runs_on_a_bare_machine_with_pytorch() -> None:
    words = ["model", "--layers", "1", "--width", "64", "--texts", "8", "--rounds", "1", "--no-peers"]
    done = subprocess.run([sys.executable, "-c", BARE, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "| preln, torch | float32 |" in done.stdout


@pytest.mark.parametrize(
    ("flags", "left"),
    [({"avx2"}, ["float32"]), ({"avx512_bf16"}, ["float32", "bfloat16"]), (set(), ["float32", "bfloat16", "float16"])],
)
def test_a_type_without_instructions_is_left_out_and_said(
    flags: set[str], left: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from jobs.bench import measurable

    monkeypatch.setattr("jobs.benchmarks.classes.cpu_flags", lambda: flags)
    types = ["float32", "bfloat16", "float16"]
    assert measurable(types, "cpu") == left
    said = capsys.readouterr().err
    assert all((f"{one} is left out" in said) == (one not in left) for one in types)
    assert measurable(types, "cuda") == types
    if flags == {"avx2"}:
        with pytest.raises(ValueError, match="no instructions for bfloat16"):
            measurable(["bfloat16"], "cpu")
