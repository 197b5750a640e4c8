"""`preln VERB`, and `python -m jobs VERB`, which is what `ray job submit` runs."""

import sys

from jobs.interruption import INTERRUPTED, end_when_asked
from jobs.streams import open_streams


def main() -> None:
    """The command, from its first moment on one that can be interrupted."""
    open_streams()
    end_when_asked()
    try:
        from jobs.cli import main as run  # here, since importing takes longer than an impatient person

        run()
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted: nothing was started.\n")
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
