"""The `preln` command: its verbs, and how errors are printed.

A verb's module imports only what its options need, and the rest when it runs, so that `--help` and shell completion answer at
once.
"""

import os
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

from jobs.annotate import annotate
from jobs.audit import audit
from jobs.bench import bench
from jobs.calibrate import calibrate
from jobs.convert import convert
from jobs.demo import demo
from jobs.diff import diff
from jobs.doctor import doctor
from jobs.evaluate import evaluate
from jobs.exit_codes import exit_code_of
from jobs.interruption import INTERRUPTED
from jobs.logs import logs
from jobs.plan import plan
from jobs.report import report
from jobs.sample_rows import sample
from jobs.schedule import schedule
from jobs.score import score
from jobs.show import show
from jobs.status import status
from jobs.stop import stop
from jobs.submit import submit
from jobs.submitted import jobs
from jobs.tokenizer import tokenizer
from jobs.train import train
from jobs.verify import verify
from pipeline import __version__
from pipeline.errors import PrelnError
from pipeline.telemetry import journal


class Interruptible(TyperGroup):
    """Verbs that say so when they are interrupted; a run that has begun says more itself."""

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]  # typer makes its contexts itself
        """Run the verb. On Ctrl-C or SIGTERM, also while its modules are imported: one line and exit code 130."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            sys.stderr.write("Interrupted: run the same command to resume.\n")
            raise typer.Exit(INTERRUPTED) from None


app = typer.Typer(
    name="preln",
    cls=Interruptible,
    help="Annotate text in bulk with pre-LayerNorm RoBERTa on Ray: every row once, as Parquet.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for verb in (
    annotate,
    plan,
    status,
    verify,
    show,
    report,
    audit,
    diff,
    sample,
    score,
    submit,
    jobs,
    logs,
    stop,
    schedule,
    convert,
    evaluate,
    calibrate,
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


DEBUG_VARIABLE = "PRELN_DEBUG"
"""Set to 1, errors come with their tracebacks."""


def main() -> None:
    """The `preln` command. A PrelnError is one line and an exit code (`jobs.exit_codes`); so is an unexpected error, whose
    traceback goes into a file, or with PRELN_DEBUG=1 to the terminal."""
    try:
        journal.speak_on_the_terminal()
        app()
    except PrelnError as error:
        if debugging():
            traceback.print_exc()
        say(str(error))
        sys.exit(exit_code_of(error))
    except Exception as error:
        if debugging():
            raise
        say(unexpected(error))
        sys.exit(1)


def debugging() -> bool:
    """Whether the user asks for tracebacks."""
    return os.environ.get(DEBUG_VARIABLE, "") not in ("", "0")


def say(message: str) -> None:
    """Print one line on standard error, red on a terminal."""
    from jobs.terminal import Terminal

    Terminal(stderr=True).print(f"preln: {message}", style="red")


def unexpected(error: Exception) -> str:
    """Print an unexpected error in one line, and where its traceback is."""
    what = " ".join(f"{type(error).__name__}: {error}".split())
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="preln-error-", suffix=".log", delete=False, encoding="utf-8"
        ) as log:
            log.write("".join(traceback.format_exception(error)))
        where = f"the traceback is in {Path(log.name)}"
    except OSError:
        where = f"{DEBUG_VARIABLE}=1 prints the traceback"
    return f"internal error: {what[:300]}; {where}"
