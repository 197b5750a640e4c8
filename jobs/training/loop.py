"""The training loop: plain torch, in one process or many.

A step takes `accumulation` batches on each of `workers` processes and averages their gradients. Batches, masks and dropout
are functions of (seed, step), never of what ran before, which is why a killed run ends with the same bits (snapshots).
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed
from torch.nn.attention import SDPBackend, sdpa_kernel

from jobs.training import snapshots
from jobs.training.batches import Chosen, Padded, epoch_batches, masked, padded
from jobs.training.examples import Example
from jobs.training.network import Network
from jobs.training.spec import TrainSpec
from jobs.training.step_clock import StepClock
from pipeline.store.storage import join

EVALUATIONS = 10
"""Evaluations of a run, unless evaluate_every says otherwise."""
APART = 20
"""Fewest steps between them, by default: otherwise a short run would spend its time evaluating."""
DEFAULT_EPOCHS = 3.0
EVAL_SEED = 1
"""Of the masks in evaluation: the same tokens are guessed each time."""
SNAPSHOTS = "training"
"""Folder in the output where a run's snapshots and history lie."""
BETAS = (0.9, 0.98)


@dataclass(frozen=True)
class Place:
    """Which of how many processes this is, and where its network is."""

    rank: int = 0
    workers: int = 1
    device: str = "cpu"


@dataclass(frozen=True, eq=False)
class Data:
    """Examples to learn from and to evaluate on, by task; ids of the vocabulary that batches need."""

    train: Mapping[str, Sequence[Example]]
    evaluation: Mapping[str, Sequence[Example]]
    pad_id: int
    mask_id: int
    vocabulary: int


@dataclass(frozen=True)
class Progress:
    """What a step or an evaluation reports. seconds_left: at most, until the last step; None if not known yet."""

    step: int
    steps: int
    loss: float
    rate: float
    seconds_left: float | None = None
    evaluation: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass(eq=False)
class Run:
    """One training run on one process."""

    spec: TrainSpec
    network: Network
    data: Data
    place: Place
    fingerprint: str
    on_progress: Callable[[Progress], None]
    history: list[dict[str, Any]] = field(default_factory=list)
    step: int = 0
    best_loss: float = math.inf
    best: dict[str, Tensor] = field(default_factory=dict)
    waited: int = 0
    loss_sum: float = 0.0
    loss_steps: int = 0

    def __post_init__(self) -> None:
        self.lengths = {
            task: [example.length * len(example.rows) for example in examples]
            for task, examples in self.data.train.items()
        }
        self._epochs: dict[int, list[Chosen]] = {}
        self.optimizer = torch.optim.AdamW(self._groups(), lr=self.spec.learning_rate, betas=BETAS, fused=True)
        # The same in every epoch, whichever a run begins in, though chance makes some a batch longer or shorter.
        self.per_epoch = len(self._batches(0))
        share = self.spec.accumulation * self.place.workers
        self.steps = self.spec.steps or max(1, round((self.spec.epochs or DEFAULT_EPOCHS) * self.per_epoch / share))
        self.evaluate_every = self.spec.evaluate_every or min(self.steps, max(APART, self.steps // EVALUATIONS))
        self.save_every = self.spec.save_every or self.evaluate_every
        self.bfloat16 = self.spec.dtype == "bfloat16" or (
            self.spec.dtype == "auto" and _has_bfloat16(self.place.device)
        )
        evaluated = sum(one.length * len(one.rows) for part in self.data.evaluation.values() for one in part)
        self.clock = StepClock(evaluation_in_steps=evaluated / (self.spec.batch_tokens * self.spec.accumulation))

    def train(self) -> list[dict[str, Any]]:
        """Run to the end from where a snapshot stands; the history, one entry an evaluation. The network is left with
        the best weights where patience is set, else with the last."""
        self._resume()
        while self.step < self.steps and not self._patience_is_over():
            with self.clock.measured("step"):
                loss = self._one_step()
            self.step += 1
            self.loss_sum, self.loss_steps = self.loss_sum + loss, self.loss_steps + 1
            self.on_progress(self._progress(loss))
            if self.step % self.evaluate_every == 0 or self.step == self.steps:
                with self.clock.measured("evaluation"):
                    scores = self._evaluate()
                self.on_progress(self._progress(self.history[-1]["train_loss"], scores=scores))
            # Also at the end, so that the command given again has nothing to learn.
            if self.step % self.save_every == 0 or self.step == self.steps:
                with self.clock.measured("snapshot"):
                    self._save()
        if self.spec.patience is not None and self.best:
            self.network.load_state_dict(self.best, strict=False)
            self.network.heads.eval()
        return self.history

    def _groups(self) -> list[dict[str, Any]]:
        matrices = [parameter for parameter in self.network.parameters() if parameter.dim() > 1]
        rest = [parameter for parameter in self.network.parameters() if parameter.dim() <= 1]
        return [{"params": matrices, "weight_decay": self.spec.weight_decay}, {"params": rest, "weight_decay": 0.0}]

    def _batches(self, epoch: int) -> list[Chosen]:
        if epoch not in self._epochs:
            repeats = {name: task.repeat for name, task in self.spec.tasks.items()}
            self._epochs = {
                epoch: epoch_batches(
                    self.lengths, seed=self.spec.seed, epoch=epoch, tokens=self.spec.batch_tokens, repeats=repeats
                )
            }
        return self._epochs[epoch]

    def _chosen(self, number: int) -> Chosen:
        epoch, place = divmod(number, self.per_epoch)
        batches = self._batches(epoch)
        return batches[place % len(batches)]

    def _batch(self, chosen: Chosen, random: np.random.Generator) -> Padded:
        examples = self.data.train[chosen.task]
        return self._masked(chosen.task, [examples[member] for member in chosen.members.tolist()], random)

    def _masked(self, task: str, examples: Sequence[Example], random: np.random.Generator) -> Padded:
        batch = padded(examples, pad_id=self.data.pad_id)
        if self.spec.tasks[task].task != "fill-mask":
            return batch
        rate = self.spec.tasks[task].mask_rate
        return masked(batch, rate=rate, mask_id=self.data.mask_id, vocabulary=self.data.vocabulary, random=random)

    def _one_step(self) -> float:
        """One update of the weights: the mean loss of this worker's parts, averaged over all workers.

        Every part has a seed of its own, so that the number of workers changes nothing.
        """
        self.network.train()
        self.optimizer.zero_grad(set_to_none=True)
        parts = self.spec.accumulation * self.place.workers
        total = 0.0
        for part in range(self.place.rank, parts, self.place.workers):
            number = self.step * parts + part
            torch.manual_seed(int(np.random.SeedSequence([self.spec.seed, number]).generate_state(1)[0]))
            chosen = self._chosen(number)
            batch = self._batch(chosen, np.random.default_rng([self.spec.seed, number]))
            with self._arithmetic():
                loss, _, _ = self.network.loss(chosen.task, batch)
            (loss * self.spec.tasks[chosen.task].weight / parts).backward()
            total += float(loss.detach()) / parts
        total = self._average_gradients(total)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.spec.clip)
        rate = self.rate(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        return total

    def _progress(self, loss: float, *, scores: dict[str, dict[str, float]] | None = None) -> Progress:
        """After a step, or with scores after its evaluation."""
        before = self.step - 1 if scores is None else self.step
        left = self.clock.left(
            step=self.steps - self.step,
            evaluation=_times(self.evaluate_every, after=before, until=self.steps),
            snapshot=_times(self.save_every, after=self.step - 1, until=self.steps),
        )
        rate = self.rate(self.step - 1)
        return Progress(self.step, self.steps, loss, rate, seconds_left=left, evaluation=scores or {})

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        warm = max(1, round(self.spec.warmup * self.steps)) if self.spec.warmup else 0
        if step < warm:
            return self.spec.learning_rate * (step + 1) / warm
        share = (step - warm) / max(1, self.steps - warm)
        falls = {"linear": 1 - share, "cosine": (1 + math.cos(math.pi * share)) / 2, "none": 1.0}
        return self.spec.learning_rate * falls[self.spec.decay]

    def _arithmetic(self) -> contextlib.AbstractContextManager[Any]:
        if not self.bfloat16:
            return contextlib.nullcontext()
        device = self.place.device.partition(":")[0]
        stack = contextlib.ExitStack()
        stack.enter_context(torch.autocast(device, torch.bfloat16))
        if device == "cpu":
            # The fused kernel's backward took half of a step in bfloat16; two plain products take a tenth.
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        return stack

    def _average_gradients(self, loss: float) -> float:
        if self.place.workers == 1:
            return loss
        # Each task's head has gradients only where its batch was: all processes send all, zeros where they have none.
        parameters = list(self.network.parameters())
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in parameters])
        sums = torch.cat([flat, torch.tensor([loss], device=flat.device)])
        distributed.all_reduce(sums)
        place = 0
        for parameter in parameters:
            parameter.grad = sums[place : place + parameter.numel()].view_as(parameter).clone()
            place += parameter.numel()
        return float(sums[-1])

    def _evaluate(self) -> dict[str, dict[str, float]]:
        scores = evaluate(self.network, self.data, masked_batch=self._masked, tokens=self.spec.batch_tokens)
        train_loss = self.loss_sum / max(1, self.loss_steps)
        self.loss_sum, self.loss_steps = 0.0, 0
        self.history.append({"step": self.step, "train_loss": train_loss, "evaluation": scores})
        if not scores:
            return scores
        weights = {name: self.spec.tasks[name].weight for name in scores}
        loss = sum(scores[name]["loss"] * weights[name] for name in scores) / sum(weights.values())
        if loss < self.best_loss:
            self.best_loss, self.waited = loss, 0
            if self.spec.patience is not None:
                named = dict(self.network.named_parameters())
                self.best = {name: value.detach().cpu().clone() for name, value in named.items()}
        else:
            self.waited += 1
        return scores

    def _patience_is_over(self) -> bool:
        return self.spec.patience is not None and self.waited >= self.spec.patience

    def _resume(self) -> None:
        found = snapshots.newest(join(self.spec.output, SNAPSHOTS), fingerprint=self.fingerprint)
        if found is None:
            return
        self.best = snapshots.restore(found, model=self.network, optimizer=self.optimizer)
        facts = found.facts
        self.step, self.history = facts["step"], facts["history"]
        self.best_loss, self.waited = facts["best_loss"] or math.inf, facts["waited"]
        self.loss_sum, self.loss_steps = facts.get("losses", (0.0, 0))

    def _save(self) -> None:
        if self.place.rank:
            return
        facts = {
            "step": self.step,
            "history": self.history,
            "best_loss": None if math.isinf(self.best_loss) else self.best_loss,
            "waited": self.waited,
            "losses": [self.loss_sum, self.loss_steps],
            "fingerprint": self.fingerprint,
        }
        snapshots.write_snapshot(
            join(self.spec.output, SNAPSHOTS),
            model=self.network,
            optimizer=self.optimizer,
            best=self.best,
            facts=facts,
        )


def evaluate(
    network: Network,
    data: Data,
    *,
    masked_batch: Callable[[str, Sequence[Example], np.random.Generator], Padded],
    tokens: int,
) -> dict[str, dict[str, float]]:
    """Loss and accuracy of each task that has evaluation data; float32, no dropout."""
    network.eval()
    scores = {}
    for task, examples in data.evaluation.items():
        total, right, count, seen = 0.0, 0.0, 0.0, 0
        random = np.random.default_rng(EVAL_SEED)
        for part in _in_order(examples, tokens):
            with torch.no_grad():
                loss, hits, asked = network.loss(task, masked_batch(task, part, random))
            total, seen = total + float(loss) * len(part), seen + len(part)
            right, count = right + float(hits), count + float(asked)
        numbers = network.plans[task].labels.kind == "regression"
        scores[task] = {"loss": total / seen, "squared_error" if numbers else "accuracy": right / max(1.0, count)}
    return scores


def _times(every: int, *, after: int, until: int) -> int:
    """How often something happens that comes at every so many steps, and at the last."""
    return until // every - after // every + (until % every > 0 and after < until)


def _in_order(examples: Sequence[Example], tokens: int) -> Iterator[list[Example]]:
    part: list[Example] = []
    for example in sorted(examples, key=lambda one: one.length):
        if part and (len(part) + 1) * example.length * len(example.rows) > tokens:
            yield part
            part = []
        part.append(example)
    if part:
        yield part


def _has_bfloat16(device: str) -> bool:
    if device.startswith("cuda"):
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())
