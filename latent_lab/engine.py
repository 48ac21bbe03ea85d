"""The one training loop, on Accelerate, for everything that trains.

A *course* says what is trained on, in which order, and how it is validated; a *learner* is a module whose one ``forward`` returns
loss sums. Every token of an optimiser step weighs the same, however the step is cut into micro-batches and processes: sums are
divided by the count of the whole accumulated, all-rank batch.

What happens at a step depends on (seed, phase, epoch, position in the epoch) and the weights alone, so a killed run that
continues from its last checkpoint ends with the same bytes.
"""

import json
import logging
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from torch import nn

from latent_lab.config import Optim, TrainConfig
from latent_lab.files import atomic_folder, write_json
from latent_lab.progress import progress
from latent_lab.run import Run
from latent_lab.schedule import Phase, rate

log = logging.getLogger(__name__)

STATE, POSITION = "state", "position.json"


class Learner(Protocol):
    """The module that trains: ``weights`` of its loss terms, their sums from ``forward(batch)``, their token counts."""

    weights: dict[str, float]

    def counts(self, batch: Any) -> dict[str, float]:
        """Tokens each loss sum is over."""
        ...


class Course(Protocol):
    """What is trained on, in which order, and how it is validated."""

    phases: Sequence[Phase]

    def num_batches(self, phase: Phase) -> int:
        """Optimiser steps in an epoch of a phase."""
        ...

    def batches(self, phase: Phase, epoch: int) -> list[list[int]]:
        """Problem numbers of each of them."""
        ...

    def collate(self, phase: Phase, epoch: int, numbers: Sequence[int]) -> Any:
        """Lay problems out as one batch."""
        ...

    def validate(self, phase: Phase) -> dict[str, Any]:
        """Score the model as it is; must hold ``valid/accuracy``. Every process takes part and gets the same scores."""
        ...

    def save(self, folder: Path, phase: Phase) -> None:
        """Write the model as it is into an empty folder (main process only)."""
        ...


@dataclass
class Position:
    """Where a run stands; all that a checkpoint needs besides weights, optimiser and random generators."""

    epoch: int = 0
    """Epochs done, over all phases."""
    batch: int = 0
    """Optimiser steps done in the current epoch."""
    step: int = 0
    best: float | None = None
    best_step: int | None = None
    seconds: float = 0.0


def optimizers(learner: nn.Module, optim: Optim) -> list[torch.optim.Optimizer]:
    """AdamW for everything, or Muon (Jordan et al. 2024) for the blocks' matrices and AdamW for the rest.

    Muon orthogonalises each update of a weight matrix; embeddings, output tables, norms and biases stay with AdamW, as its
    authors advise. On small models from scratch it needs several times fewer steps.
    """
    trained = [p for p in learner.parameters() if p.requires_grad]
    adamw: dict[str, Any] = {"lr": optim.lr, "betas": tuple(optim.betas), "weight_decay": optim.weight_decay, "fused": True}
    if optim.name == "adamw":
        return [torch.optim.AdamW(trained, **adamw)]
    blocks = [module for module in learner.modules() if isinstance(module, nn.ModuleList)]
    mine = {id(p): p for block in blocks for p in block.parameters() if p.requires_grad and p.ndim == 2}
    rest = [p for p in trained if id(p) not in mine]  # adapters may train none of one kind, and torch takes no empty list
    made: list[torch.optim.Optimizer] = [torch.optim.AdamW(rest, **adamw)] if rest else []
    if mine:
        made.append(torch.optim.Muon(list(mine.values()), lr=optim.matrix_lr, weight_decay=optim.weight_decay))
    return made


def shares(numbers: Sequence[int], rank: int, world: int, micro: int | None) -> list[list[int]]:
    """Cut an optimiser step into this process's micro-batches: equally many on every process, some perhaps empty."""
    most = math.ceil(len(numbers) / world)
    micro = min(micro or most, most)
    mine = list(numbers[rank::world])
    return [mine[i : i + micro] for i in range(0, most, micro)]


def beginnings(course: Course) -> tuple[dict[int, Phase], int]:
    """After how many steps each phase begins (one without steps never does), and how many there are in all."""
    begun: dict[int, Phase] = {}
    total = 0
    for phase in course.phases:
        if steps := phase.num_steps(course.num_batches(phase)):
            begun[total] = phase
        total += steps
    return begun, total


class Engine:
    """Trains a learner on a course inside a run."""

    def __init__(self, accelerator: Accelerator, run: Run, config: TrainConfig, learner: nn.Module, course: Course) -> None:
        self.accelerator, self.run, self.config, self.course = accelerator, run, config, course
        self.plain: Any = learner
        self.learner, *self.optimizers = accelerator.prepare(learner, *optimizers(learner, config.optim))
        self.peaks = [[group["lr"] for group in o.param_groups] for o in self.optimizers]
        self.at = Position()
        self.beginnings, self.total = beginnings(course)
        self.total = self.total if config.max_steps is None else min(self.total, config.max_steps)
        self.saved_at = time.monotonic()

    def fit(self) -> Position:
        """Train to the end of the course, from the last checkpoint if there is one; the best weights lie in ``checkpoint/``.

        Best by validation accuracy, among the validations of the last phase; of equals the earliest.
        """
        self._resume()
        if not self.total:  # max_steps=0: what was loaded is graded as it is
            self._validate(self.course.phases[-1])
            return self.at
        started = time.monotonic() - self.at.seconds
        with progress("training", self.total, unit="steps", is_main=self.accelerator.is_main_process) as advance:
            advance(self.at.step)
            if not self.at.step:
                self._validate_beginning()
            for phase, numbers, ends_epoch, ends_phase in self._steps():
                is_logged = ends_phase or (self.at.step + 1) % self.config.log_every == 0
                metrics = self._step(phase, numbers, is_logged)
                self.at.step, self.at.batch = self.at.step + 1, self.at.batch + 1
                self.at.seconds = time.monotonic() - started
                if is_logged:
                    self.run.log({"stage": phase.stage, **metrics, "seconds": round(self.at.seconds, 3)}, self.at.step)
                every = self.config.eval_every
                is_end = phase.is_validated and (ends_phase or (ends_epoch and every is None))
                if is_end or self.at.step == self.total or (every and self.at.step % every == 0):
                    self._validate(phase)
                self._validate_beginning()  # here, not before the next step: a state saved in between stands after its row
                advance(1)
                self._save_if_due()
        self.at.seconds = time.monotonic() - started
        return self.at

    def _steps(self) -> Iterator[tuple[Phase, list[int], bool, bool]]:
        """From the current position on: phase and problem numbers of each step, and whether it ends its epoch and its phase."""
        epochs = [(phase, epoch) for phase in self.course.phases for epoch in range(math.ceil(phase.epochs))]
        for phase, epoch in epochs[self.at.epoch :]:
            is_start = self.at.batch == 0 and (epoch == 0 or phase.fresh_each_epoch)
            if is_start and (phase.fresh_optimizer or phase.fresh_each_epoch):
                for optimizer in self.optimizers:
                    optimizer.optimizer.state.clear()
            self.phase_epoch = epoch
            num_batches = self.course.num_batches(phase)
            left = phase.num_steps(num_batches) - epoch * num_batches
            plan = self.course.batches(phase, epoch)[:left]
            for i in range(self.at.batch, len(plan)):
                stops = self.at.step + 1 == self.total
                ends_epoch = stops or i + 1 == len(plan)
                yield phase, plan[i], ends_epoch, stops or (ends_epoch and len(plan) == left)
                if stops:
                    return
            self.at.epoch, self.at.batch = self.at.epoch + 1, 0

    def _step(self, phase: Phase, numbers: Sequence[int], is_logged: bool) -> dict[str, float]:
        """One optimiser step; returns its losses (means over the whole step) and gradient norm when they are logged."""
        accelerator, weights = self.accelerator, self.plain.weights
        self.learner.train()
        world = accelerator.num_processes
        parts = shares(numbers, accelerator.process_index, world, self.config.micro_batch_size)
        batches = [self.course.collate(phase, self.phase_epoch, part or numbers[:1]).to(accelerator.device) for part in parts]
        # An empty part still runs one problem, weighed 0: every process must take part in every forward and backward pass.
        counted = [
            self.plain.counts(batch) if part else dict.fromkeys(weights, 0) for batch, part in zip(batches, parts, strict=True)
        ]
        counts = self._over_processes({name: float(sum(c[name] for c in counted)) for name in weights})
        sums = dict.fromkeys(weights, 0.0)
        for i, (batch, part) in enumerate(zip(batches, parts, strict=True)):
            last = i == len(batches) - 1
            with nullcontext() if last else accelerator.no_sync(self.learner):
                with accelerator.autocast():
                    terms = self.learner(batch)
                # DDP averages gradients over processes; the sum is wanted.
                scale = world * float(bool(part))
                loss = sum(weights[name] * scale / max(counts[name], 1.0) * term for name, term in terms.items())
                accelerator.backward(loss)
            if is_logged:
                sums = {name: sums[name] + terms[name].item() * float(bool(part)) for name in weights}
        norm = self._update()
        if not is_logged:
            return {}
        sums = self._over_processes(sums)
        losses = {f"train/{name}": sums[name] / counts[name] for name in weights if counts[name]}
        return losses | {"train/grad_norm": float(norm), "train/lr": self.optimizers[0].param_groups[0]["lr"]}

    def _update(self) -> float:
        optim = self.config.optim
        norm = self.accelerator.clip_grad_norm_(self.learner.parameters(), optim.clip or math.inf)
        share = rate(self.at.step, self.total, optim)
        for optimizer, peaks in zip(self.optimizers, self.peaks, strict=True):
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * share
            optimizer.step()
            optimizer.zero_grad()
        return norm

    def _over_processes(self, values: dict[str, float]) -> dict[str, float]:
        if self.accelerator.num_processes == 1:
            return values
        summed = self.accelerator.reduce(torch.tensor(list(values.values()), device=self.accelerator.device, dtype=torch.float64))
        return dict(zip(values, summed.tolist(), strict=True))

    def _validate(self, phase: Phase) -> None:
        accuracy = self._score(phase, "")
        log.info("step %d of %d, stage %d: accuracy %.1f%% on validation", self.at.step, self.total, phase.stage, 100 * accuracy)
        counts = phase is self.course.phases[-1] or self.at.step == self.total
        if counts and (self.at.best is None or accuracy > self.at.best):
            self.at.best, self.at.best_step = accuracy, self.at.step
            with self._folder("checkpoint") as folder:
                if self.accelerator.is_main_process:
                    self.course.save(folder, phase)

    def _validate_beginning(self) -> None:
        """If a phase is about to begin and it was asked for, note how good the model is at it already; no weights are chosen."""
        phase = self.beginnings.get(self.at.step) if self.config.eval_at_start and self.at.step < self.total else None
        if phase and phase.is_validated:
            accuracy = self._score(phase, "_at_start")
            log.info("stage %d begins: accuracy %.1f%% on validation", phase.stage, 100 * accuracy)

    def _score(self, phase: Phase, suffix: str) -> float:
        """Validate, add the scores to the metrics under their names and the suffix, and return the accuracy."""
        self.learner.eval()
        scores = self.course.validate(phase)
        named = {f"{name}{suffix}": value for name, value in scores.items()}
        self.run.log({"stage": phase.stage, **named, "seconds": round(self.at.seconds, 3)}, self.at.step)
        return float(scores["valid/accuracy"])

    def _folder(self, name: str) -> AbstractContextManager[Path]:
        main, barrier = self.accelerator.is_main_process, self.accelerator.wait_for_everyone
        return atomic_folder(self.run.folder / name, is_main=main, barrier=barrier)

    def _save_if_due(self) -> None:
        due = time.monotonic() - self.saved_at >= self.config.save_every
        if self.accelerator.num_processes > 1:  # their clocks differ: the main process decides
            due = bool(self._over_processes({"due": float(due and self.accelerator.is_main_process)})["due"])
        if due and self.at.step < self.total:
            self.save()

    def save(self) -> None:
        """Write all that is needed to continue from here; it replaces what was there, whole."""
        with self._folder(STATE) as folder:
            self.accelerator.save_state(str(folder))
            if self.accelerator.is_main_process:
                write_json(folder / POSITION, asdict(self.at))
        self.saved_at = time.monotonic()

    def _resume(self) -> None:
        state = self.run.folder / STATE
        if state.exists():
            # Quantised matrices name parts of themselves that no module takes back; what is frozen came with the model.
            self.accelerator.load_state(str(state), strict=all(p.requires_grad for p in self.plain.parameters()))
            self.at = Position(**json.loads((state / POSITION).read_text(encoding="utf-8")))
            log.info("continuing from step %d of %d", self.at.step, self.total)
        # Without a state everything is done again, a validation before the first step too.
        self.run.rewind(self.at.step if state.exists() else -1)
