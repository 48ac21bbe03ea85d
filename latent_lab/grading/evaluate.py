"""Free-running evaluation: a reasoner answers problems by itself, in batches, and every answer is graded.

Problem -> prompt (question, markers, a fixed number of slots) -> latent loop and greedy decoding -> grade. Nothing of the gold
chain reaches the prompt. The controls are the same model on the same problems with its thoughts removed or replaced.
"""

import hashlib
import json
import logging
import time
from collections.abc import Sequence as Seq
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
import yaml
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from latent_lab import checkpoint
from latent_lab.backbone import Backbone, ModelError
from latent_lab.batching import collate
from latent_lab.config import NOT_RESULT, EvalConfig, Job, TrainConfig, typed
from latent_lab.grading.answers import digits_right, extract, is_equal, is_integer, normalise
from latent_lab.grading.statistics import mean_interval, wilson
from latent_lab.grading.task import Answers
from latent_lab.problems import DataError, Problem
from latent_lab.progress import progress
from latent_lab.reasoner import LatentReasoner, ThoughtEdit
from latent_lab.run import CONFIG, accelerator, open_run_together, seed_everything
from latent_lab.sequences import IGNORE, Encoded, LatentTokens, Sequence, encode, join
from latent_lab.supervision import StepDecoder

log = logging.getLogger(__name__)

CHECKPOINT = "checkpoint"

CONTROLS = {
    "removed": "the slots are left out of the prompt",
    "zeroed": "each thought is replaced by the zero vector",
    "another_problem": "each thought is replaced by another problem's",
}
"""Controls by name, and what they do to the thoughts; the model and the problems stay the same."""


class Layout(Protocol):
    """What evaluation needs of a stage."""

    def prompt(self, problem: Encoded, tokens: LatentTokens, num_slots: int) -> Sequence:
        """Question and what stands before the answer; nothing of the gold chain."""
        ...

    def writes_first(self) -> bool:
        """Whether the model writes steps before it begins to think."""
        ...

    def num_slots(self, stage: int) -> int:
        """Latent slots of a prompt at a stage."""
        ...


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model wrote for one problem."""

    id: str
    text: str
    num_tokens: int
    """Tokens written, the end-of-text token included."""
    num_thoughts: int
    stopped: bool
    """Whether it ended by itself; False: it was cut off at ``max_new_tokens``."""


@dataclass
class Solver:
    """A trained reasoner with all that is needed to let it answer."""

    reasoner: LatentReasoner
    backbone: Backbone
    layout: Layout
    num_slots: int
    max_new_tokens: int
    batch_size: int = 256
    rank: int = 0
    world: int = 1

    leaks_chain: bool = False
    """Take as many slots as the gold chain would fill instead of ``num_slots``; see ``task.thoughts``."""

    def slots_of(self, problem: Encoded, control: str | None = None) -> int:
        """Latent slots of a problem's prompt."""
        if control == "removed":
            return 0
        return min(self.num_slots, self.layout.num_slots(len(problem.steps))) if self.leaks_chain else self.num_slots

    def replies(self, problems: Seq[Encoded], control: str | None = None, *, quiet: bool = True) -> list[Reply]:
        """Answer every problem once, in their order; the work is shared by all processes and each gets all replies."""
        mine = sorted(problems, key=lambda p: (len(p.question), p.id))[self.rank :: self.world]
        written: list[Reply] = []
        with progress("answering", len(mine), unit="problems", is_main=self.rank == 0 and not quiet) as advance:
            for part in evenly(mine, self.batch_size):
                written += self._answer(part, control)
                advance(len(part))
        if self.world > 1:
            written = gather_object(written)
        by_id = {reply.id: reply for reply in written}
        if len(written) != len(problems) or len(by_id) != len(problems):
            raise RuntimeError(
                f"{len(written)} replies to {len(by_id)} ids for {len(problems)} problems: each must be answered once"
            )
        return [by_id[p.id] for p in problems]

    def prompts(self, problems: Seq[Encoded], control: str | None = None) -> list[Sequence]:
        """Prompts of one batch; where the layout writes steps before thinking, the model writes them now."""
        tokens = self.backbone.tokens
        slots = [self.slots_of(p, control) for p in problems]
        if self.layout.writes_first():
            questions = collate([join(p, None, with_target=False) for p in problems], self.backbone.pad).to(self.reasoner.device)
            ends = [self.backbone.tokenizer.eos_token_id, tokens.start]
            new = self._generate(questions.input_ids, questions.attention_mask, ends, None).tolist()
            before = [row[: min((row.index(e) for e in ends if e in row), default=len(row))] for row in new]
            problems = [replace(p, question=(*p.question, *b)) for p, b in zip(problems, before, strict=True)]
        return [self.layout.prompt(p, tokens, n) for p, n in zip(problems, slots, strict=True)]

    @torch.no_grad()
    def thoughts(self, problems: Seq[Encoded]) -> Tensor:
        """``[problems, slots, width]``: what the model thinks at its prompts, one batch."""
        batch = collate(self.prompts(problems), self.backbone.pad).to(self.reasoner.device)
        return self.reasoner(batch.input_ids, batch.attention_mask).thoughts

    def _answer(self, problems: Seq[Encoded], control: str | None) -> list[Reply]:
        prompts = self.prompts(problems, control)
        batch = collate(prompts, self.backbone.pad).to(self.reasoner.device)
        eos = self.backbone.tokenizer.eos_token_id
        edit = self._edit(batch.input_ids, batch.attention_mask, control)
        new = self._generate(batch.input_ids, batch.attention_mask, [eos], edit).tolist()
        replies = []
        for problem, prompt, row in zip(problems, prompts, new, strict=True):
            # Steps the model wrote before it thought stand in the prompt, and are part of what it wrote.
            first = [i for i in prompt.ids[len(problem.question) :] if i not in astuple(self.backbone.tokens)]
            stopped = eos in row
            row = row[: row.index(eos)] if stopped else row
            text = self.backbone.tokenizer.decode([*first, *row])
            replies.append(Reply(problem.id, text, len(first) + len(row) + stopped, prompt.num_slots, stopped))
        return replies

    def _generate(self, ids: Tensor, mask: Tensor, ends: list[int], edit: ThoughtEdit | None) -> Tensor:
        return self.reasoner.generate(
            ids, mask, max_new_tokens=self.max_new_tokens, eos_token_id=ends, pad_token_id=self.backbone.pad, edit=edit
        )

    def _edit(self, ids: Tensor, mask: Tensor, control: str | None) -> ThoughtEdit | None:
        if control == "zeroed":
            return lambda slot, thoughts, active: torch.zeros_like(thoughts)
        if control == "another_problem":
            with torch.no_grad():
                donors = self.reasoner(ids, mask).thoughts.roll(1, dims=0)
            return lambda slot, thoughts, active: donors[:, slot]
        return None


def evenly(items: Seq[Any], most: int) -> list[Seq[Any]]:
    """Cut into as few parts of at most ``most`` as possible, all about equally long: no batch of one, where none would differ."""
    count = -(-len(items) // most)
    return [items[len(items) * i // count : len(items) * (i + 1) // count] for i in range(count)]


def grade(problem: Problem, reply: Reply) -> dict[str, Any]:
    """Grade one reply; the row that goes to ``samples.jsonl``. ``correct`` is None where no answer could be found."""
    found = extract(reply.text) if reply.stopped else None
    gold = normalise(problem.answer)
    return {
        "id": problem.id,
        "question": problem.question,
        "gold": problem.answer,
        "output": reply.text,
        "answer": found.answer if found else None,
        "extractor": found.extractor if found else None,
        "correct": is_equal(found.answer, problem.answer) if found else None,
        "digits_right": digits_right(found.answer if found else "", gold) if is_integer(gold) else None,
        "stopped": reply.stopped,
        "tokens": reply.num_tokens,
        "thoughts": reply.num_thoughts,
        "steps": len(problem.steps),
        **{key: problem.meta[key] for key in ("digits", "carries") if key in problem.meta},
    }


def rate(rows: Seq[dict[str, Any]]) -> dict[str, Any]:
    """Share of correct answers with its Wilson interval; a reply without an answer is not correct."""
    return wilson(sum(row["correct"] is True for row in rows), len(rows)).as_dict()


def by(rows: Seq[dict[str, Any]], key: str) -> dict[str, Any]:
    """The rate within each value of a column."""
    return {str(value): rate([r for r in rows if r[key] == value]) for value in sorted({r[key] for r in rows if key in r})}


def summary(rows: Seq[dict[str, Any]]) -> dict[str, Any]:
    """What the graded rows amount to: exact match, digits, failures of form, cost, and the breakdowns."""
    digits = [row["digits_right"] for row in rows if row["digits_right"] is not None]
    count = max(len(rows), 1)
    return {
        "accuracy": rate(rows),
        "digits_right": mean_interval(digits).as_dict() if digits else None,
        "no_answer": sum(row["correct"] is None for row in rows),
        "not_stopped": sum(not row["stopped"] for row in rows),
        "tokens_per_answer": sum(row["tokens"] for row in rows) / count,
        "thoughts_per_answer": sum(row["thoughts"] for row in rows) / count,
        **{f"by_{key}": by(rows, key) for key in ("steps", "digits", "carries") if any(key in row for row in rows)},
    }


def majority(answer: str | None, problems: Seq[Problem]) -> dict[str, Any]:
    """What always giving the training split's most frequent answer would score."""
    return wilson(sum(answer is not None and is_equal(answer, p.answer) for p in problems), len(problems)).as_dict()


@torch.no_grad()
def teacher_forced(solver: Solver, sequences: Seq[Sequence]) -> dict[str, Any]:
    """Share of problems whose every labelled token is the likeliest one *given the gold tokens before it*.

    The figure published for Coconut-like models during training; it is told where the answer ends and is no accuracy.
    """
    right = 0
    for part in evenly(sequences, solver.batch_size):
        batch = collate(part, solver.backbone.pad).to(solver.reasoner.device)
        out = solver.reasoner(batch.input_ids, batch.attention_mask, batch.labels)
        hits = out.logits.argmax(-1) == out.targets
        right += sum(bool(row.all()) for row in hits.split((batch.labels != IGNORE).sum(1).tolist()))
    return wilson(right, len(sequences)).as_dict()


def floors(solver: Solver, encoded: Seq[Encoded], problems: Seq[Problem], majority_answer: str | None) -> dict[str, Any]:
    """What an accuracy must be held against: the majority answer, and the same model without its own thoughts."""
    scores = {"majority": majority(majority_answer, problems)}
    for control in CONTROLS if solver.num_slots else ():
        replies = solver.replies(encoded, control)
        scores[f"thoughts_{control}"] = rate([grade(p, r) for p, r in zip(problems, replies, strict=True)])
    return scores


def answers(task: Answers, job: Job) -> dict[str, Any]:
    """Do ``task=answers``: see :class:`latent_lab.grading.task.Answers`."""
    config: EvalConfig = job.config
    trained = trained_config(config.run_folder)
    with accelerator(config.device, config.precision) as at:
        problems = (config.dataset or trained.dataset).load(config.split)[: config.limit]
        identity = {
            "problems": fingerprint(problems),
            "checkpoint": fingerprint(config.run_folder / CHECKPOINT / "model.safetensors"),
        }
        folder = Path(config.out) if config.out else config.run_folder / "eval" / job.slug
        options = {"command": job.command, "ignore": NOT_RESULT, "overwrite": config.overwrite}
        with open_run_together(at, folder, {**job.plain, **identity}, **options) as run:
            if run.result is None:
                run.track(config.tracker, job_type="eval", group=config.run_folder.name)
                seed_everything(config.seed)
                solver, info, _ = solver_of(config, trained, at, task)
                result, rows = score(solver, problems, info, trained, with_floors=task.floors)
                run.samples(rows)
                run.finish({"task": "answers", "run": config.run, "split": config.split, **result})
            at.wait_for_everyone()
            result = run.result or {}
    log.info("%s: %s", folder, in_words(result))
    return result


def trained_config(run_folder: Path) -> TrainConfig:
    """The configuration a run was trained with, built again."""
    path = run_folder / CONFIG
    if not path.exists() or not (run_folder / CHECKPOINT).is_dir():
        raise ModelError(
            f"run: {run_folder} holds no finished training run (no {CONFIG} and {CHECKPOINT}/): train it to its end first"
        )
    config: TrainConfig = typed(yaml.safe_load(path.read_text(encoding="utf-8")))
    return config


def solver_of(
    config: EvalConfig, trained: TrainConfig, at: Accelerator, task: Answers
) -> tuple[Solver, checkpoint.Info, StepDecoder | None]:
    """Load a run's checkpoint, ready to answer."""
    if config.threads:
        torch.set_num_threads(config.threads)
    backbone, info, decoder = checkpoint.load(config.run_folder / CHECKPOINT, getattr(trained.model, "dtype", "float32"))
    reasoner = LatentReasoner(backbone.model, backbone.tokens).to(at.device).eval()
    solver = Solver(
        reasoner=reasoner,
        backbone=backbone,
        layout=trained.stage,
        num_slots=info.num_slots if task.num_slots is None else task.num_slots,
        max_new_tokens=task.max_new_tokens or info.max_new_tokens,
        batch_size=config.batch_size,
        rank=at.process_index,
        world=at.num_processes,
        leaks_chain=task.thoughts != "fixed",
    )
    return solver, info, decoder.to(at.device) if decoder else None


def score(
    solver: Solver, problems: list[Problem], info: checkpoint.Info, trained: TrainConfig, *, with_floors: bool = True
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Let a solver answer problems; return the result and a graded row for each problem."""
    encoded = encode(problems, solver.backbone.tokenizer)
    started = time.monotonic()
    replies = solver.replies(encoded, quiet=False)
    seconds = time.monotonic() - started
    rows = [grade(p, r) for p, r in zip(problems, replies, strict=True)]
    result = {
        **summary(rows),
        "floors": floors(solver, encoded, problems, info.majority) if with_floors else {},
        "teacher_forced_exact": teacher_forced(
            solver, [trained.stage.sequence(p, solver.backbone.tokens, info.stage) for p in encoded]
        ),
        "chain_tokens": sum(len(step) for p in encoded for step in p.steps) / max(len(encoded), 1),
        "seen_in_training": seen(problems, trained),
        "slots": solver.num_slots if not solver.leaks_chain else "gold_chain_leak",
        "stage": info.stage,
        "training_seed": trained.seed,
        "seconds": round(seconds, 3),
    }
    return result, rows


def seen(problems: Seq[Problem], trained: TrainConfig) -> int | None:
    """How many of the questions stand in the training split; None where that cannot be read any more."""
    try:
        known = {p.question for p in trained.dataset.load("train")}
    except DataError:
        return None
    return sum(p.question in known for p in problems)


def fingerprint(what: Path | Seq[Problem]) -> str:
    """A short hash of a file's bytes or of problems."""
    raw = what.read_bytes() if isinstance(what, Path) else json.dumps([astuple(p)[:4] for p in what]).encode()
    return hashlib.blake2b(raw, digest_size=8).hexdigest()


def in_words(result: dict[str, Any]) -> str:
    """A result in one line for the terminal."""

    def shown(score: dict[str, Any]) -> str:
        return f"{100 * score['value']:.1f}% [{100 * score['low']:.1f}, {100 * score['high']:.1f}]"

    beside = ", ".join(f"{name.replace('_', ' ')} {100 * score['value']:.1f}%" for name, score in result["floors"].items())
    return f"accuracy {shown(result['accuracy'])} of {result['accuracy']['n']} ({result['split']}); floors: {beside}"
