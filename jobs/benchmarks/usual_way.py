"""The job as people usually write it, with Ray Data and transformers.

`python usual_way.py INPUT CHECKPOINT OUTPUT REPLICAS BATCH THREADS`, a process of its own that `jobs.benchmarks.whole_job`
measures. Needs `pip install 'preln[bench]'`.
"""

import logging
import os
import sys
from typing import Any

import ray


class Classifier:
    """transformers' pipeline in an actor."""

    def __init__(self, checkpoint: str, batch: int, threads: int) -> None:
        import torch
        from transformers import pipeline

        torch.set_num_threads(threads)
        self._batch = batch
        self._pipeline: Any = pipeline("text-classification", model=checkpoint, tokenizer=checkpoint)

    def __call__(self, table: dict[str, Any]) -> dict[str, Any]:
        answers = self._pipeline(table["text"].tolist(), batch_size=self._batch, truncation=True, max_length=512)
        return {
            **table,
            "label": [answer["label"] for answer in answers],
            "score": [answer["score"] for answer in answers],
        }


def main() -> None:
    """Read, map, write."""
    source, checkpoint, output, replicas, batch, threads = sys.argv[1:]
    ray.init(address="local", logging_level=logging.ERROR, object_store_memory=500_000_000, include_dashboard=False)
    (
        ray.data.read_parquet(source)
        .map_batches(
            Classifier,
            fn_constructor_args=(checkpoint, int(batch), int(threads)),
            batch_size=256,
            concurrency=int(replicas),
            num_cpus=max(1, (os.cpu_count() or 1) - 1),
        )
        .write_parquet(output)
    )


if __name__ == "__main__":
    main()
