"""`preln convert`: converts any checkpoint to a folder of this model and reports every tensor, or compares two."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from models.errors import PrelnError

if TYPE_CHECKING:
    from models.convert import Conversion
    from models.difference import CheckpointDifference


DIFFERENT = 3  # exit code of --check
KINDS = ("auto", "hf", "fairseq", "dinkytrain", "efficient-mlm")
HEADS = (
    "encoder",
    "masked-lm",
    "causal-lm",
    "sequence-classification",
    "multiple-choice",
    "token-classification",
    "question-answering",
)
FORMATS = ("safetensors", "safetensors-tf", "safetensors-flax", "h5", "msgpack", "bin")
DTYPES = ("stored", "float32", "float16", "bfloat16")
"""The options' values as plain words, since `--help` imports no model. A test compares them with the types."""
COLOURS = {"mapped": "green", "dropped": "dim", "unexpected": "yellow", "missing": "red", "another shape": "red"}


def convert(
    source: Annotated[str, typer.Argument(metavar="SRC", help="Checkpoint folder or fairseq .pt file, at any URL.")],
    destination: Annotated[str, typer.Argument(metavar="DST", help="New folder; with --check the other checkpoint.")],
    kind: Annotated[str, typer.Option("--from", help=f"What SRC is: {', '.join(KINDS)}.")] = "auto",
    head: Annotated[
        str | None,
        typer.Option("--head", help=f"What DST is for: {', '.join(HEADS)}. SRC's own by default.", show_default=False),
    ] = None,
    weights_format: Annotated[str, typer.Option("--format", help=f"{', '.join(FORMATS)}.")] = "safetensors",
    dtype: Annotated[str, typer.Option("--dtype", help=f"{', '.join(DTYPES)}.")] = "stored",
    max_shard_size: Annotated[str, typer.Option("--max-shard-size", help="Split weights above this.")] = "5GB",
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Read pickles (.pt, .bin), weights only; needs PyTorch.")
    ] = False,
    attention_heads: Annotated[
        int | None,
        typer.Option(
            "--attention-heads", help="For a fairseq file without its number of heads.", min=1, show_default=False
        ),
    ] = None,
    classification_head: Annotated[
        str | None,
        typer.Option("--classification-head", help="For a fairseq file that has several.", show_default=False),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing: compare SRC and DST. Exit code 3 when they differ.")
    ] = False,
    tolerance: Annotated[
        float, typer.Option("--tolerance", help="With --check: differences up to this do not count.", min=0.0)
    ] = 0.0,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Print every tensor, not only those that changed.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, for machines.")] = False,
) -> None:
    """Convert a checkpoint of any framework, of fairseq or of DinkyTrain, or compare two."""
    from models.convert import ConversionError
    from models.convert import convert as convert_checkpoint
    from models.difference import difference
    from models.origin import open_origin

    _check_choice("--from", kind, KINDS)
    _check_choice("--head", head, (None, *HEADS))
    _check_choice("--format", weights_format, FORMATS)
    _check_choice("--dtype", dtype, DTYPES)
    if check:
        origin = partial(
            open_origin,
            kind=kind,  # type: ignore[arg-type]  # checked above
            allow_pickle=allow_pickle,
            attention_heads=attention_heads,
            classification_head=classification_head,
        )
        first, second = origin(url=source), origin(url=destination)
        found = difference(first=first, second=second, tolerance=tolerance)
        _print_difference(found, source, destination, as_json=as_json)
        raise typer.Exit(0 if found.same else DIFFERENT)
    try:
        done = convert_checkpoint(
            source=source,
            destination=destination,
            kind=kind,  # type: ignore[arg-type]  # checked above
            head=head,  # type: ignore[arg-type]
            weights_format=weights_format,  # type: ignore[arg-type]
            dtype=dtype,  # type: ignore[arg-type]
            max_shard_size=max_shard_size,
            allow_pickle=allow_pickle,
            attention_heads=attention_heads,
            classification_head=classification_head,
        )
    except ConversionError as error:
        _print_conversion(error.conversion, as_json=as_json, destination=None, verbose=verbose)
        raise
    _print_conversion(done, as_json=as_json, destination=destination, verbose=verbose)


def _check_choice(option: str, value: str | None, allowed: tuple[Any, ...] | list[str]) -> None:
    if value not in allowed:
        shown = ", ".join(str(choice) for choice in allowed if choice is not None)
        raise PrelnError(f"{option} is '{value}'; choose one of {shown}")


def _print_conversion(done: Conversion, *, as_json: bool, destination: str | None, verbose: bool) -> None:
    """What happened to the tensors: how many, and each that was not simply taken over; with verbose, each."""
    from rich.table import Table

    from jobs.terminal import Terminal

    counts: dict[str, int] = {}
    for fate in done.fates:
        counts[fate.fate] = counts.get(fate.fate, 0) + 1
    if as_json:
        result = {
            "destination": destination,
            "head": done.head,
            "counts": counts,
            "notes": list(done.notes),
            "tensors": [asdict(fate) for fate in done.fates],
        }
        print(json.dumps(result))
        return
    table = Table("", "in the source", "written as", "shape", box=None, pad_edge=False)
    for fate in done.fates:
        if fate.fate == "mapped" and not verbose:
            continue
        shape = " x ".join(map(str, fate.shape))
        table.add_row(fate.fate, fate.stored_name, fate.name or fate.detail, shape, style=COLOURS[fate.fate])
    console = Terminal()
    if table.row_count:
        console.print(table)
    more = "" if verbose else " (--verbose prints each)"
    console.print("tensors: " + ", ".join(f"{count} {fate}" for fate, count in counts.items()) + more)
    for note in done.notes:
        console.print(f"note: {note}")
    if destination is not None:
        console.print(f"{destination} is a checkpoint of the head '{done.head}' now.")


def _print_difference(found: CheckpointDifference, first: str, second: str, *, as_json: bool) -> None:
    """Print what differs between two checkpoints: tensors only in one, shapes, config fields, stored types, values."""
    from rich.table import Table

    from jobs.terminal import Terminal

    if as_json:
        print(
            json.dumps({**asdict(found), "same": found.same, "largest_of_all": max(found.largest.values(), default=0)})
        )
        return
    console = Terminal()
    table = Table("", "tensor or field", first, second, box=None, pad_edge=False)
    for name in found.only_first:
        table.add_row("only in one", name, "there", "missing")
    for name in found.only_second:
        table.add_row("only in one", name, "missing", "there")
    for what, pairs in (("shape", found.shapes), ("config", found.config), ("stored type", found.dtypes)):
        for name, (ours, theirs) in pairs.items():
            table.add_row(what, name, str(ours), str(theirs))
    for name, largest in sorted(found.beyond.items(), key=lambda item: -item[1]):
        table.add_row("values", name, f"{largest:.3g} apart", "")
    if table.row_count:
        console.print(table)
    alike = len(found.largest) - len(found.beyond)
    largest = max(found.largest.values(), default=0.0)
    console.print(f"{alike} tensors alike, {len(found.beyond)} apart; largest difference {largest:.3g}")
    console.print("The same." if found.same else "They differ.")
