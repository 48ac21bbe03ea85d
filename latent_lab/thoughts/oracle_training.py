"""How an oracle is trained: the thoughts of a finished run, collected once, and the one engine."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import yaml

from latent_lab import checkpoint
from latent_lab.adapters import LoRA, virtual_in, wrap
from latent_lab.backbone import Backbone, ModelError
from latent_lab.batching import bucketed
from latent_lab.compose import typed
from latent_lab.config import NOT_RESULT, ConfigError, TrainConfig
from latent_lab.engine import STATE, Engine
from latent_lab.files import remove
from latent_lab.grading.answers import normalise
from latent_lab.grading.evaluate import Solver, evenly, rate
from latent_lab.grading.extraction import extract
from latent_lab.grading.session import CHECKPOINT, solver_of, trained_config
from latent_lab.grading.statistics import wilson
from latent_lab.grading.task import Answers
from latent_lab.job import Job
from latent_lab.overrides import parse
from latent_lab.problems import Problem
from latent_lab.run import CONFIG, RESULT, Run, accelerator, open_run_together, say_complete, seed_everything
from latent_lab.schedule import Phase
from latent_lab.sequences import Frame, encode, join
from latent_lab.thoughts.grammar import Grammar, grammar_of
from latent_lab.thoughts.oracle import Asked, HeadOracle, Oracle, OracleBatch, kind_of, lay, lay_apart
from latent_lab.thoughts.oracle_options import OracleOptions
from latent_lab.thoughts.oracle_scores import asked_steps, step_reading, thoughts
from latent_lab.thoughts.questions import Example, Material, Mixture, labelled, plain_texts, text_example
from latent_lab.thoughts.store import ThoughtStore, collect

log = logging.getLogger(__name__)

THOUGHTS = "thoughts"
"""Folder of a run that holds the stores it was trained and validated on."""
ROOM = 4
"""Tokens an answer may be longer than the longest training target."""


@dataclass
class Read:
    """The run whose thoughts are read."""

    folder: Path
    config: TrainConfig
    plain: dict[str, Any]
    weights: str
    """Hash of its weights."""


def read_run(job: Job) -> Read:
    """Open the run that ``stage.run`` names: a folder, or a name below ``outputs``. Raises :class:`ConfigError`."""
    given = job.config.stage.run
    path = Path(given).expanduser()
    folder = path if (path / CONFIG).is_file() else Path(job.config.outputs) / given
    if not given or not (folder / RESULT).is_file():
        raise ConfigError(
            "stage.run", given, "allowed: a finished run's folder, or its name below outputs, whose thoughts to read"
        )
    plain = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))
    config = trained_config(folder)
    if not config.stage.has_slots:
        raise ConfigError("stage.run", given, "that run has no thoughts; allowed: a run trained with latent slots")
    if virtual_in(folder / CHECKPOINT):
        raise ConfigError(
            "stage.run", given, "an oracle has no place for its virtual tokens; allowed: runs with peft=none, lora or rows"
        )
    if config.stage.slots_when_said(config.stage.phases()[-1].stage):
        raise ConfigError("stage.run", given, "that run writes between its thoughts; allowed: one whose prompts hold them")
    return Read(folder, config, plain, checkpoint.weights_hash(folder / CHECKPOINT))


def settled(job: Job, read: Read) -> dict[str, Any]:
    """The plain configuration of an oracle's run: dataset and, unless it is separate, model of the run that is read.

    Raises :class:`ConfigError` where the command line gives others, or what an oracle has no use for.
    """
    options = job.config.oracle
    if not isinstance(options, OracleOptions):
        raise ConfigError("oracle", None, "stage=oracle needs one; allowed: self, lora, separate, head")
    fixed = {"dataset": "the oracle is trained on the problems of stage.run", "peft": "say oracle=lora for adapters"}
    fixed |= {"init_from": "the oracle starts from stage.run"}
    if options.kind != "separate":
        fixed["model"] = f"oracle={options.kind} is made from the model of stage.run; another one takes oracle=separate"
    for text in job.overrides:
        key = parse(text).key_or_group.partition(".")[0]
        if key in fixed:
            raise ConfigError(parse(text).key_or_group, text.partition("=")[2], f"{fixed[key]}; allowed: leave it out")
    plain = {**job.plain, "dataset": read.plain["dataset"]}
    if options.kind != "separate":
        plain["model"] = read.plain["model"]
    plain["stage"] = {**plain["stage"], "weights": read.weights}
    return plain


def train(job: Job) -> dict[str, Any]:
    """Train the oracle a job asks for and return its result."""
    read = read_run(job)
    plain = settled(job, read)
    config: TrainConfig = typed(plain)
    if config.threads:
        torch.set_num_threads(config.threads)
    folder = Path(config.outputs) / job.slug
    ignore = NOT_RESULT | {"stage.run"}  # how the run was named; which it is, the hash of its weights says
    options = {"command": job.command, "ignore": ignore, "overwrite": config.overwrite}
    with accelerator(config.device, config.precision) as at, open_run_together(at, folder, plain, **options) as run:
        if run.result is not None:
            say_complete(run.folder)
            return run.result
        run.track(config.tracker, job_type="train", group=job.group)
        result = work(config, at, run, read)
        at.wait_for_everyone()
        run.finish(result)
        if at.is_main_process:
            remove(run.folder / STATE)
        at.wait_for_everyone()
    score = result["step_exact_match"]
    log.info("%s: %.1f%% of %d steps read exactly from thoughts", run.folder, 100 * (score["value"] or 0), score["n"])
    return result


def work(config: TrainConfig, at: Any, run: Run, read: Read) -> dict[str, Any]:
    """Collect, train, and grade the best weights on the validation split, beside the floors."""
    seed_everything(config.seed)
    options: OracleOptions = config.oracle
    reader, _, _ = solver_of(read.folder, read.config, at, config.eval_batch_size, Answers())
    reader = replace(reader, rank=0, world=1)  # thoughts are collected by one process, which must not wait for the others' share
    problems = {split: taken(read.config, split, config, options) for split in ("train", "valid")}
    for split in problems:  # every process needs them; the main one collects them first
        if at.is_main_process:
            thoughts_of(reader, read, split, problems[split], run.folder / THOUGHTS / split, options)
        at.wait_for_everyone()
    stores = {s: thoughts_of(reader, read, s, problems[s], run.folder / THOUGHTS / s, options) for s in problems}
    grammar = grammar_of(problems["train"])
    course = OracleCourse(config, read, stores, grammar, made(config, read, stores, grammar))
    before = kept(reader, read, course.oracle, problems["valid"])
    ended = Engine(at, run, config, course.oracle, course).fit()

    course.oracle = Oracle.load(run.folder / CHECKPOINT).to(at.device)
    reading = course.reading()
    run.samples(reading.pop("rows"))
    is_own = options.kind in ("self", "lora")
    after = kept(tuned(reader, read, course.oracle) if is_own else None, read, course.oracle, problems["valid"])
    return {
        "split": "valid",
        "run": read.folder.name,
        "kind": options.kind,
        "accuracy": reading["step_exact_match"],
        **reading,
        "forgetting": {name: {"before": before[name], "after": after[name]} for name in before},
        "seed": config.seed,
        "steps": ended.step,
        "best_step": ended.best_step,
        "parameters": sum(p.numel() for p in course.oracle.parameters()),
        "train_problems": len(stores["train"].rows),
        "train_steps_read": len(course.material["train"].items),
        "seconds": round(ended.seconds, 1),
    }


def taken(trained: TrainConfig, split: Any, config: TrainConfig, options: OracleOptions) -> list[Problem]:
    """Problems of a split that are read: those the run itself used, the first so many, and the oracle's own limits."""
    limits = {
        "train": (trained.train_limit, config.train_limit, options.train_problems),
        "valid": (trained.valid_limit, config.valid_limit, options.valid_problems),
    }[split]
    return trained.dataset.load(split)[: min(n for n in (trained.limit, config.limit, *limits) if n is not None)]


def thoughts_of(
    reader: Solver, read: Read, split: str, problems: Sequence[Problem], folder: Path, options: OracleOptions
) -> ThoughtStore:
    """Collect the thoughts of a split (or open what was collected)."""
    encoded = read.config.stage.encode(problems, reader.backbone.tokenizer)
    identity = {"weights": read.weights, "split": split}
    store = collect(folder, reader, problems, encoded, layers=options.read_layers, identity=identity)
    if not store.rows or not int(store.num_slots.max()):
        raise ModelError(f"{read.folder}: its {split} split has no problem with a thought to read")
    return store


def made(config: TrainConfig, read: Read, stores: dict[str, ThoughtStore], grammar: Grammar) -> Oracle:
    """The oracle before it is trained."""
    options: OracleOptions = config.oracle
    first = stores["train"].layer(stores["train"].layers[0])
    known = (int(first.shape[2]), int(first.shape[1]), int(getattr(read.config.stage, "latents_per_step", 1)))
    if options.kind == "separate":
        backbone = config.model.load(stores["train"].problems)
    else:
        backbone = checkpoint.load(read.folder / CHECKPOINT)[0]
    if options.kind == "lora":
        backbone = wrap(backbone, LoRA(rank=options.rank, alpha=options.alpha))
    if options.kind == "head":
        oracle: Oracle = head(backbone, options, known, stores["train"], grammar)
    else:
        oracle = Oracle(backbone, options, *known)
    layers = [stores["train"].layer(number) for number in stores["train"].layers]
    present = torch.arange(known[1])[None] < stores["train"].num_slots[:, None]
    oracle.adapter.fit(torch.cat([states[present] for states in layers]))
    return oracle


def head(
    backbone: Backbone, options: OracleOptions, known: tuple[int, int, int], store: ThoughtStore, grammar: Grammar
) -> Oracle:
    """A head that can write the longest target, for every kind of question of its mixture."""
    material = Material(store, grammar, store.layers, known[2])
    bare = Oracle(backbone, options, *known)
    examples = Mixture(material, bare.writer, options).draw("kinds")
    longest = max(len(bare.writer.target(e.target)) for e in examples if e.question)
    kinds = {kind_of(e.question) for e in examples if e.question}
    return HeadOracle(backbone, options, *known, longest=longest, kinds=sorted(kinds))


class OracleCourse:
    """The questions of training, epoch by epoch, and the validation: steps written freely from validation thoughts."""

    def __init__(
        self, config: TrainConfig, read: Read, stores: dict[str, ThoughtStore], grammar: Grammar, oracle: Oracle
    ) -> None:
        self.config, self.oracle = config, oracle
        layers = stores["train"].layers
        self.material = {split: Material(store, grammar, layers, oracle.latents_per_step) for split, store in stores.items()}
        self.mixture = Mixture(self.material["train"], oracle.writer, config.oracle)
        if not len(self.mixture):
            raise ConfigError(
                "stage.run", config.stage.run, "no step of its training problems has a slot; allowed: a run that has"
            )
        self.texts = plain_texts(self.material["train"], oracle.backbone.tokenizer, framed(read, oracle))
        self.phases: Sequence[Phase] = config.stage.phases()
        self._drawn: tuple[int, list[Example]] = (-1, [])
        self._check_room()

    @cached_property
    def max_new_tokens(self) -> int:
        """Longest training target, and some room."""
        targets = {e.target for e in self.examples(0) if e.question}
        return max(len(self.oracle.writer.target(target)) for target in targets) + ROOM

    def examples(self, epoch: int) -> list[Example]:
        """The examples of an epoch; they depend on (seed, epoch) alone."""
        if self._drawn[0] != epoch:
            self._drawn = (epoch, self.mixture.draw(f"{self.config.seed}/{epoch}"))
        return self._drawn[1]

    def num_batches(self, phase: Phase) -> int:
        """Optimiser steps in an epoch."""
        return -(-len(self.mixture) // self.config.batch_size)

    def batches(self, phase: Phase, epoch: int) -> list[list[int]]:
        """All kinds of questions in every batch: batches of one kind would pull the model to and fro."""
        return bucketed([(0,)] * len(self.mixture), self.config.batch_size, f"{self.config.seed}/oracle/{epoch}")

    def asked(self, example: Example) -> Asked:
        """An example as ids."""
        writer, material = self.oracle.writer, self.material["train"]
        if example.question is None:
            ids, labels = text_example(self.texts[example.problem])
            return Asked((), (), None, ids, labels)
        vectors = material.vectors(example.problem, example.slots)
        text = material.rows[example.problem]["question"] if example.given == "text_only" else None
        prompt, columns = writer.prompt(example.question.text, len(vectors), text)
        target = writer.target(example.target)
        labelled(prompt, target)  # asserts that the first token of the target is supervised
        return Asked(prompt, columns, vectors if example.given == "vector" else None, target, question=example.question)

    def collate(self, phase: Phase, epoch: int, numbers: Sequence[int]) -> OracleBatch:
        """Lay examples out."""
        examples = self.examples(epoch)
        return lay_apart([self.asked(examples[i]) for i in numbers], self.oracle.backbone.pad, self.oracle.width)

    def reading(self) -> dict[str, Any]:
        """Steps read from validation thoughts, with floors."""
        return step_reading(self.oracle, self.material["train"], self.material["valid"], self.max_new_tokens, self.config.seed)

    def validate(self, phase: Phase) -> dict[str, Any]:
        """Share of validation steps that are written exactly."""
        material = self.material["valid"]
        items, oracle = material.items, self.oracle
        questions = asked_steps(oracle, material, items)
        readings = oracle.ask(thoughts(oracle, material, items), questions, max_new_tokens=self.max_new_tokens)
        hits = sum(reading.text == material.step(item).strip() for item, reading in zip(items, readings, strict=True))
        score = wilson(hits, len(items))
        return {
            "valid/accuracy": hits / max(len(items), 1),
            "valid/n": len(items),
            "valid/low": score.low,
            "valid/high": score.high,
        }

    def save(self, folder: Path, phase: Phase) -> None:
        """Write the oracle as it is."""
        self.oracle.save(folder)

    def _check_room(self) -> None:
        room = getattr(self.oracle.model.config, "max_position_embeddings", None) or 10**9
        for example in self.examples(0):
            row = self.asked(example)
            if len(row.prompt) + len(row.target) > room:
                raise ModelError(
                    f"a question about problem {self.material['train'].rows[example.problem]['id']} is "
                    f"{len(row.prompt) + len(row.target)} tokens long; the oracle has positions for {room}: take a model with "
                    "more, or set the task's weight to 0 (oracle.tasks) and oracle.text_share=0"
                )


# Forgetting


def tuned(reader: Solver, read: Read, oracle: Oracle) -> Solver:
    """The run's own task with the oracle's language model in place of the run's."""
    _, info, _ = checkpoint.load(read.folder / CHECKPOINT)
    reasoner = checkpoint.thinking(read.folder / CHECKPOINT, oracle.backbone, info).to(oracle.device).eval()
    return replace(reader, reasoner=reasoner, backbone=oracle.backbone)


def framed(read: Read, oracle: Oracle) -> Frame:
    """What stood around the run's questions; nothing for a separate model, whose tokenizer is another."""
    return Frame() if oracle.options.kind == "separate" else read.config.stage.around(oracle.backbone.tokenizer)


def kept(reader: Solver | None, read: Read, oracle: Oracle, problems: Sequence[Problem]) -> dict[str, Any]:
    """What the oracle's language model can do besides answering: ``text`` (writing chain and answer) and ``latent`` (thinking).

    Free-running accuracy; nothing for a head, which leaves the model alone, and no ``latent`` for a separate model.
    """
    kind = oracle.options.kind
    if kind == "head":
        return {}
    found = {"text": wilson(sum(written(oracle, problems, framed(read, oracle))), len(problems)).as_dict()}
    if kind != "separate" and reader is not None:
        encoded = read.config.stage.encode(problems, reader.backbone.tokenizer)
        found["latent"] = rate(reader.graded(problems, encoded))
    return found


@torch.no_grad()
def written(oracle: Oracle, problems: Sequence[Problem], around: Frame) -> list[bool]:
    """Whether each problem is answered rightly with its chain in words."""
    oracle.eval()
    right = []
    encoded = encode(problems, oracle.backbone.tokenizer, around=around)
    longest = max(sum(map(len, p.steps)) + len(p.answer) for p in encoded) + ROOM
    room = getattr(oracle.model.config, "max_position_embeddings", None) or 10**9
    longest = max(min(longest, room - max(len(p.question) for p in encoded)), 1)
    pairs = list(zip(problems, encoded, strict=True))
    for part in evenly(pairs, oracle.batch_size):
        batch = lay([Asked(join(e, None, with_target=False).ids, (), None) for _, e in part], oracle.backbone.pad, oracle.width)
        batch = batch.to(oracle.device)
        new = oracle.lm.generate(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            max_new_tokens=longest,
            do_sample=False,
            eos_token_id=oracle.writer.end,
            pad_token_id=oracle.backbone.pad,
        )[:, batch.input_ids.shape[1] :]
        for (problem, _), ids in zip(part, new.tolist(), strict=True):
            answer = extract(oracle.writer.text(ids), read_by(oracle))
            right.append(answer is not None and normalise(answer.answer) == normalise(problem.answer))
    return right


def read_by(oracle: Oracle) -> tuple[str, ...]:
    """The rule that finds an answer in what the oracle's model writes."""
    return ("node",) if oracle.writer.is_symbolic else ("marker",)
