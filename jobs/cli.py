"""Words of a command line in, an exit code out: the verbs, and how an error reads."""

import sys

import typer
from rich.console import Console

from jobs.annotate import annotate
from jobs.bench import bench
from jobs.convert import convert
from jobs.demo import demo
from jobs.doctor import doctor
from jobs.evaluate import evaluate
from jobs.exit_codes import exit_code_of
from jobs.logs import logs
from jobs.plan import plan
from jobs.schedule import schedule
from jobs.status import status
from jobs.stop import stop
from jobs.submit import submit
from jobs.tokenizer import tokenizer
from jobs.train import train
from jobs.verify import verify
from pipeline import __version__
from pipeline.errors import PrelnError
from pipeline.telemetry import journal

app = typer.Typer(
    name="preln",
    help="Annotate text in bulk with pre-LayerNorm RoBERTa on Ray: every row once, as Parquet.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
for verb in (
    annotate,
    plan,
    status,
    verify,
    submit,
    logs,
    stop,
    schedule,
    convert,
    evaluate,
    train,
    bench,
    doctor,
    demo,
):
    app.command()(verb)
app.add_typer(tokenizer, name="tokenizer")


def _version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def options(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version, and stop."
    ),
) -> None:
    """Annotate text in bulk with pre-LayerNorm RoBERTa on Ray: every row once, as Parquet."""


def main() -> None:
    """The `preln` command. A PrelnError is one line and an exit code (`jobs.exit_codes`)."""
    try:
        journal.speak_on_the_terminal()
        app()
    except PrelnError as error:
        Console(stderr=True, highlight=False, soft_wrap=True, markup=False).print(f"preln: {error}", style="red")
        sys.exit(exit_code_of(error))
