"""`preln logs`: prints the log of a submitted job."""

from typing import Annotated

import typer

from jobs.submit import LOCALHOST, Address


def logs(
    submission_id: Annotated[str, typer.Argument(metavar="ID", help="The id that `preln submit` printed.")],
    address: Address = LOCALHOST,
    follow: Annotated[
        bool,
        typer.Option("--follow/--no-follow", help="Follow the log until the job has ended, and return its exit code."),
    ] = True,
) -> None:
    """Print the log of a submitted job, from its beginning."""
    from jobs.submission import submission
    from jobs.submission.job_api import JobApi
    from jobs.terminal import Terminal, harmless_log

    api = JobApi.at(address, say=Terminal(stderr=True).print)
    api.job(submission_id)
    if not follow:
        print(harmless_log(api.log(submission_id)), end="", flush=True)
        return
    try:
        for text in submission.follow(api, submission_id):
            print(harmless_log(text), end="", flush=True)
    except KeyboardInterrupt:
        raise typer.Exit(submission.EXIT_STOPPED) from None
    raise typer.Exit(submission.exit_code(api, submission_id))
