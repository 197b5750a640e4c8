"""Times a forward pass or a training step of one framework's class, ours or transformers', and its peak memory.

A process of its own: it runs in our environment or in the reference's, imports nothing of ours but `models`, and speaks
JSON lines: it says when it is ready, measures once for every line it reads, and ends with its peak memory. Both
implementations have the same names and arguments, so that this file measures either.

Legend: B batch, S sequence, L labels.
"""

import argparse
import importlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

LEARNING_RATE = 1e-4
PREFIXES = {"torch": "", "tensorflow": "TF", "flax": "Flax"}
Once = Callable[[], Any]


def main() -> None:
    """Load, say what the first two passes answered, then measure on demand."""
    parser = argparse.ArgumentParser()
    for name in ("module", "framework", "kind", "folder", "mode"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("batch", "length", "labels", "threads"):
        parser.add_argument(f"--{name}", type=int, required=True)
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        # Every framework sizes its pools by the processors that it may use.
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    rng = np.random.default_rng(0)
    ids_BS = rng.integers(4, 1000, (options.batch, options.length))
    per_token = options.kind != "ForSequenceClassification"
    labels = rng.integers(0, options.labels, ids_BS.shape if per_token else options.batch)
    named = importlib.import_module(options.module)
    model_class = getattr(named, f"{PREFIXES[options.framework]}RobertaPreLayerNorm{options.kind}")
    make = {"torch": torch_passes, "tensorflow": tensorflow_passes, "flax": flax_passes}[options.framework]
    forward, train = make(model_class, options.folder, ids_BS, labels)
    answer = forward()
    once = forward if options.mode == "forward" else train
    if once is train:
        once()  # warm-up of the step; the forward pass was its own
    once()
    say({"ready": True, "answer": np.asarray(answer, np.float64).ravel()[:64].tolist()})
    for _ in sys.stdin:
        start, start_cpu = time.perf_counter(), time.process_time()
        once()
        say({"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - start_cpu})
    say({"peak_bytes": peak_bytes()})


def peak_bytes() -> int:
    """The most memory that this program had; Linux' ru_maxrss would count what the one that started it had."""
    try:
        with open("/proc/self/status", encoding="utf-8") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def say(message: dict[str, Any]) -> None:
    """One JSON line."""
    print(json.dumps(message), flush=True)


def torch_passes(model_class: Any, folder: str, ids_BS: Any, labels: Any) -> tuple[Once, Once]:
    """(forward in evaluation mode, one SGD step with dropout), eager."""
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    model = model_class.from_pretrained(folder)
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    inputs = {"input_ids": torch.from_numpy(ids_BS), "attention_mask": torch.ones(ids_BS.shape, dtype=torch.int64)}
    targets = torch.from_numpy(labels)

    def forward() -> Any:
        model.eval()
        with torch.no_grad():
            return model(**inputs).logits.numpy()

    def train() -> float:
        model.train()
        optimizer.zero_grad()
        loss = model(**inputs, labels=targets).loss
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return forward, train


def tensorflow_passes(model_class: Any, folder: str, ids_BS: Any, labels: Any) -> tuple[Once, Once]:
    """The same as graphs (tf.function, without XLA)."""
    import tensorflow as tf

    model = model_class.from_pretrained(folder)
    inputs = {"input_ids": tf.constant(ids_BS, tf.int32), "attention_mask": tf.ones(ids_BS.shape, tf.int32)}
    targets = tf.constant(labels)

    @tf.function
    def forward_graph() -> Any:
        return model(**inputs, training=False).logits

    @tf.function
    def train_graph() -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(model(**inputs, labels=targets, training=True).loss)
        variables = model.trainable_variables
        for variable, gradient in zip(variables, tape.gradient(loss, variables), strict=True):
            if gradient is not None:
                variable.assign_sub(LEARNING_RATE * tf.convert_to_tensor(gradient))
        return loss

    return lambda: forward_graph().numpy(), lambda: float(train_graph())


def flax_passes(model_class: Any, folder: str, ids_BS: Any, labels: Any) -> tuple[Once, Once]:
    """The same under jit; the loss is written here, since the reference's classes have none."""
    import jax
    import jax.numpy as jnp

    model = model_class.from_pretrained(folder)
    inputs = {"input_ids": jnp.asarray(ids_BS), "attention_mask": jnp.ones(ids_BS.shape, jnp.int32)}
    targets = jnp.asarray(labels)
    state = {"params": model.params, "key": jax.random.PRNGKey(0)}

    @jax.jit
    def forward_graph(params: Any) -> Any:
        return model(**inputs, params=params).logits

    def train_step(params: Any, key: Any) -> Any:
        def loss_of(params: Any) -> Any:
            logits = model(**inputs, params=params, train=True, dropout_rng=key).logits
            log_probs = jax.nn.log_softmax(logits.astype(jnp.float32))
            return -jnp.take_along_axis(log_probs, targets[..., None], axis=-1).mean()

        loss, gradients = jax.value_and_grad(loss_of)(params)
        return jax.tree.map(lambda values, slope: values - LEARNING_RATE * slope, params, gradients), loss

    train_graph = jax.jit(train_step)

    def train() -> float:
        state["key"], key = jax.random.split(state["key"])
        state["params"], loss = train_graph(state["params"], key)
        return float(loss)

    return lambda: np.asarray(forward_graph(state["params"])), train


if __name__ == "__main__":
    main()
