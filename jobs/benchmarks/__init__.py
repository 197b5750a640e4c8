"""Benchmarks that anyone can rerun: `python -m jobs.benchmarks.NAME`."""
