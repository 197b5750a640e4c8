"""Measurements that anybody can run again: `python -m jobs.benchmarks.NAME`."""
