"""`python -m jobs VERB`: what `ray job submit` runs."""

from jobs.cli import main

main()
