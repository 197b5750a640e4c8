"""`preln calibrate`: makes a classifier's scores mean something, in a new checkpoint folder.

Legend: N rows, L labels.
"""

from __future__ import annotations

import json
import tempfile
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.arguments import DtypeName, FrameworkName, Replicas, Settings, job_spec
from pipeline.errors import SpecError

if TYPE_CHECKING:
    from jobs.evaluation.calibration import Fit
    from models.calibration_file import ScoreFunction
    from pipeline.spec.job_spec import JobSpec

TASK = "text-classification"


def calibrate(
    model: Annotated[str, typer.Option("--model", help="Checkpoint folder, at any URL; it is not changed.")],
    data: Annotated[
        list[str],
        typer.Option(
            "--data",
            help="Labelled rows that the model was not trained on: file, folder or glob at any URL; may be repeated.",
        ),
    ],
    output: Annotated[str, typer.Option("--output", help="New checkpoint folder, at any URL.")],
    gold: Annotated[
        str, typer.Option("--gold", help="Column of the true label, or of a list of them where a row has several.")
    ] = "label",
    thresholds: Annotated[
        bool | None,
        typer.Option(
            "--thresholds/--no-thresholds",
            help="Also fit the score from which each label is listed; by default where a row may have several labels.",
            show_default=False,
        ),
    ] = None,
    rows: Annotated[
        str | None,
        typer.Option(
            "--rows",
            help="Folder for the annotated rows, which every node reaches; a new temporary one when absent.",
            show_default=False,
        ),
    ] = None,
    framework: FrameworkName = None,
    dtype: DtypeName = None,
    replicas: Replicas = None,
    settings: Settings = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, for machines.")] = False,
) -> None:
    """Fit temperatures (and thresholds) of a text-classification checkpoint to held-out labels.

    The new folder is the checkpoint with calibration.json, by which every framework's scores go, and reliability.svg.
    """
    from jobs.annotate import annotate_spec
    from jobs.evaluate import run_quietly
    from jobs.evaluation.calibrated_folder import write_calibrated
    from jobs.evaluation.measure import PREFIX
    from jobs.evaluation.picture import draw_reliability
    from jobs.terminal import Terminal
    from models.convert import check_destination
    from pipeline.store.storage import canonical, join

    check_destination(output)
    folder = rows or tempfile.mkdtemp(prefix="preln-calibration-")
    spec = job_spec(
        job=None,
        task=TASK,
        model=model,
        input_urls=data,
        output=join(folder, "annotated"),
        framework=framework,
        dtype=dtype,
        replicas=replicas,
        settings=[f"output.prefix={PREFIX}", *(settings or ()), "task.function=none", "task.top_k=all"],
    )
    function = score_function(spec)
    report = (run_quietly if as_json else annotate_spec)(spec)
    fit, left_out = fitted(spec, state=report.state, gold=gold, function=function, thresholds=thresholds)
    picture = draw_reliability(fit.bins)
    write_calibrated(
        source=canonical(model), destination=canonical(output), calibration=fit.calibration, picture=picture
    )
    notes = (
        [f"{left_out:,} rows without an answer, or with a label that the model does not have, are left out"]
        if left_out
        else []
    )
    notes += fit.notes
    notes += [] if picture else ["reliability.svg was not drawn: it needs matplotlib"]
    if as_json:
        values = {"output": output, "function": function, "temperatures": fit.calibration.temperatures}
        numbers = {"thresholds": fit.calibration.thresholds, "before": fit.before, "after": fit.after}
        print(json.dumps({**values, **numbers, "rows": fit.calibration.fitted["rows"], "notes": notes}))
        return
    console = Terminal()
    for line in [*lines_of(fit), *notes, f"The calibrated checkpoint is in {output}"]:
        console.print(line)


def score_function(spec: JobSpec) -> ScoreFunction:
    """By which function the checkpoint's scores are made. Raises SpecError for one whose scores are no probabilities."""
    from pipeline.inference.questions import facts_of
    from pipeline.tasks import TextClassification

    (facts,) = facts_of(spec).values()
    found = TextClassification().resolved_function(facts)
    if found == "none":
        raise SpecError(
            f"{spec.model.checkpoint}: its scores are numbers of a regression, which have nothing to calibrate"
        )
    return found


def fitted(
    spec: JobSpec, *, state: str, gold: str, function: ScoreFunction, thresholds: bool | None
) -> tuple[Fit, int]:
    """The calibration from annotated rows, and how many rows it leaves out. Raises SpecError, RunFailed."""
    import numpy as np

    from jobs.evaluation.calibration import fit
    from jobs.evaluation.confidence import label_scores, truth_marks
    from jobs.evaluation.measure import PREFIX, annotated_table
    from pipeline.errors import RunFailed
    from pipeline.inference.questions import facts_of

    if state != "done":
        raise RunFailed(f"the rows were not all answered ({state}); what was written is in {spec.output.url}")
    table = annotated_table(spec)
    if gold not in table.column_names:
        raise SpecError(f"the data has no column {gold!r} with the true labels; name another with --gold")
    (facts,) = facts_of(spec).values()
    labels = tuple(facts.labels)
    logits_NL = label_scores(table[f"{PREFIX}scores"], labels=labels)
    truth_NL, known_N = truth_marks(table[gold], labels=labels)
    used_N = known_N & ~np.isnan(logits_NL).any(axis=1)
    if function == "softmax":
        used_N &= truth_NL.sum(axis=1) == 1
    found = fit(
        logits_NL=logits_NL[used_N],
        truth_NL=truth_NL[used_N],
        labels=labels,
        function=function,
        thresholds=function == "sigmoid" if thresholds is None else thresholds,
    )
    return found, int((~used_N).sum())


def lines_of(fit: Fit) -> list[str]:
    """What was fitted and what it changes, for a terminal."""
    found = fit.calibration.temperatures
    shown = f"{found[0]:.3f}" if len(found) == 1 else f"from {min(found):.3f} to {max(found):.3f}, one a label"
    names = {"ece": "ECE", "brier": "Brier score", "negative_log_likelihood": "negative log likelihood"}
    return [
        f"{fit.calibration.fitted['rows']:,} rows: temperature {shown}; {len(fit.calibration.thresholds):,} thresholds",
        *(
            f"  {name}: {fit.before[key]:.4f} before, {fit.after[key]:.4f} after (each half by a fit on the other)"
            for key, name in names.items()
        ),
    ]
