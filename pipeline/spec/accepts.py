"""What the tasks of a job accept, by task name."""

from collections.abc import Mapping

from pipeline.spec.job_spec import JobSpec
from pipeline.tasks import TextClassification
from pipeline.tasks.acceptance import Accept, Certificate


def accepts_of(spec: JobSpec) -> dict[str, Accept]:
    """The tasks' `accept` options, of those that have one."""
    return {
        name: named.task.accept
        for name, named in spec.named_tasks.items()
        if isinstance(named.task, TextClassification) and named.task.accept is not None
    }


def with_accepts(spec: JobSpec, accepts: Mapping[str, Accept]) -> JobSpec:
    """The spec with other `accept` options of these tasks."""
    if not accepts:
        return spec
    if spec.task is not None:
        (accept,) = accepts.values()
        return spec.model_copy(update={"task": spec.task.model_copy(update={"accept": accept})})
    changed = {name: spec.tasks[name].model_copy(update={"accept": accept}) for name, accept in accepts.items()}
    return spec.model_copy(update={"tasks": {**spec.tasks, **changed}})


def certificates_of(spec: JobSpec) -> dict[str, Certificate]:
    """What the labelled rows of each task support, where they were answered."""
    return {name: accept.certificate for name, accept in accepts_of(spec).items() if accept.certificate is not None}


def with_certificates(spec: JobSpec, certificates: Mapping[str, Certificate]) -> JobSpec:
    """The spec with what was certified before for those of its tasks that accept labels; without a digest of its own, that of
    the certificate."""
    return with_accepts(
        spec,
        {
            name: accept.with_state(digest=accept.digest or certificates[name].digest, certificate=certificates[name])
            for name, accept in accepts_of(spec).items()
            if name in certificates
        },
    )
