"""`preln logs`: a submission's id in, the log of its driver out."""

from typing import Annotated

import typer

from jobs import submission
from jobs.submit import LOCALHOST, Address


def logs(
    submission_id: Annotated[str, typer.Argument(metavar="ID", help="As `preln submit` told it.")],
    address: Address = LOCALHOST,
    follow: Annotated[
        bool, typer.Option("--follow/--no-follow", help="Go on until the job has ended, and return its exit code.")
    ] = True,
) -> None:
    """Print the log of a submitted job, from its beginning."""
    client = submission.client_of(address)
    submission.info_of(client, submission_id)
    if not follow:
        print(client.get_job_logs(submission_id), end="", flush=True)
        return
    try:
        for text in submission.follow(client, submission_id):
            print(text, end="", flush=True)
    except KeyboardInterrupt:
        raise typer.Exit(submission.EXIT_STOPPED) from None
    raise typer.Exit(submission.exit_code(client, submission_id))
