"""`preln stop`: ends a submitted job."""

from typing import Annotated

import typer

from jobs.submit import LOCALHOST, Address


def stop(
    submission_id: Annotated[str, typer.Argument(metavar="ID", help="The id that `preln submit` printed.")],
    address: Address = LOCALHOST,
) -> None:
    """End a submitted job like Ctrl-C would; committed shards stay, and submitting it again resumes it."""
    from jobs.submission import submission
    from jobs.submission.job_api import JobApi

    status = submission.stop(JobApi.at(address), submission_id)
    print(f"{submission_id}: {status.value.lower()}")
