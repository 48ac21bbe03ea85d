"""The configuration: typed schemas, and the checks no single field can make.

A component is its own schema. An option file names the dataclass (``defaults: [/schema/package.module.Class@_here_, _self_]``)
and states only what differs from its defaults, so a new method is one class and one YAML file.

Nothing here imports torch: a wrong override must cost a second, not a model load.
"""

import difflib
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from omegaconf import MISSING

from latent_lab.problems import SPLITS, DataError, Problem
from latent_lab.provenance import redact
from latent_lab.run import CONFIG, DEVICES, PRECISIONS, RESULT

GROUPS = (
    "model",
    "peft",
    "stage",
    "plan",
    "dataset",
    "oracle",
    "judge",
    "backend",
    "summariser",
    "task",
    "tracker",
    "experiment",
    "debug",
)
"""What is chosen as GROUP=OPTION, in the order in which a run's name lists it."""

REACHING = (
    *("api_key_env", "timeout_s", "max_in_flight", "requests_per_minute", "tokens_per_minute"),
    *("max_attempts", "max_wait_s", "budget_tokens", "budget_usd", "batch_size"),
    *("batch", "batch_poll_s"),
)
"""How a model is reached, how fast, and when it stops: a larger budget goes on where a smaller one ended."""

NOT_RESULT = frozenset(
    {
        "tracker",
        "device",
        "threads",
        "outputs",
        "name",
        "run",
        "out",
        "overwrite",
        "micro_batch_size",
        "eval_batch_size",
        "eval_at_start",
        "log_every",
        "save_every",
        *(f"{group}.{key}" for group in ("judge", "backend", "summariser") for key in REACHING),
        *("judge.max_errors", "judge.calibration_floor", "task.max_errors", "task.page", "task.port", "task.export"),
    }
)
"""Keys that say where and how a run works, not what comes out: no part of its name, free to differ when it resumes."""

OPTIMIZERS = ("adamw", "muon")
TOOLS = ("repair", "calculator")
SCHEDULES = ("constant", "linear", "cosine")
BATCH_BY = ("shape", "length")

AT_LEAST = {
    **dict.fromkeys(("batch_size", "micro_batch_size", "eval_batch_size", "eval_every", "log_every"), 1),
    **dict.fromkeys(("limit", "train_limit", "valid_limit", "threads"), 1),
    **dict.fromkeys(("save_every", "seed", "max_steps"), 0),
}
"""Smallest values of top-level keys."""


MOST_RUNS_NAMED = 5
"""How many finished runs, the latest first, a message names."""


class ConfigError(ValueError):
    """A setting that cannot be; the message is one line: the key, what was given, what is allowed."""

    def __init__(self, key: str, given: Any, rest: str) -> None:
        given = redact(given, key)  # judge.api_key=... is a mistake, but no reason to show the key
        super().__init__(f"{key}: given {'nothing' if given in (None, '') else given}; {rest}")


@dataclass
class Nothing:
    """The option ``none`` of a group."""


@dataclass
class Optim:
    """The optimiser and the course of its learning rate."""

    name: str = "adamw"
    """``adamw``; or ``muon``: Muon for the weight matrices of the blocks, AdamW for everything else."""
    lr: float = 1e-3
    """AdamW's peak learning rate."""
    matrix_lr: float = 0.02
    """Muon's peak learning rate."""
    weight_decay: float = 0.01
    """Decoupled weight decay."""
    betas: list[float] = field(default_factory=lambda: [0.9, 0.95])
    """AdamW's two decay rates."""
    schedule: str = "constant"
    """After the warm-up: ``constant``, ``linear`` or ``cosine``, down to ``final``."""
    warmup: int = 0
    """Steps over which the rate rises from zero."""
    final: float = 0.0
    """Share of ``lr`` left at the last step (linear, cosine)."""
    clip: float = 1.0
    """Largest gradient norm; 0 turns clipping off."""


@dataclass
class TrainConfig:
    """Everything ``python -m latent_lab.train`` can be told; the first eight fields are config groups."""

    model: Any = MISSING
    """The backbone."""
    peft: Any = None
    """What of it is trained: everything, or adapters."""
    stage: Any = MISSING
    """How problems become sequences, and for how long each stage trains."""
    plan: Any = None
    """What the tokens before each step say of it, with ``stage=planning``."""
    dataset: Any = MISSING
    """The problems."""
    oracle: Any = None
    """What reads the thoughts while they are trained."""
    judge: Any = None
    """Nobody: judging is a part of evaluation."""
    tracker: Any = None
    """Where metrics are shown, besides the run's own files."""
    optim: Optim = field(default_factory=Optim)
    """The optimiser."""
    batch_size: int = 64
    """Sequences per optimiser step, over all processes."""
    micro_batch_size: int | None = None
    """Sequences per forward pass and process; null takes the whole share of the process at once."""
    batch_by: str = "shape"
    """What is alike in a batch: the ``shape`` (slots, tokens before and after them), or the ``length`` alone, which leaves less
    padding where nothing is thought."""
    compile: bool = False
    """Compile the passes over one slot: some seconds a layer before the first step, then fewer operations to launch."""
    eval_batch_size: int = 256
    """Problems decoded at once during validation."""
    max_steps: int | None = None
    """Stop after so many optimiser steps in all; 0 trains nothing and grades what was loaded."""
    limit: int | None = None
    """Use only the first so many problems of each split."""
    train_limit: int | None = None
    """The same for the training split alone."""
    valid_limit: int | None = None
    """The same for the validation split alone."""
    eval_every: int | None = None
    """Steps between validations; null validates at the end of each epoch."""
    eval_at_start: bool = False
    """Validate when a stage begins, too, before its first step, as ``valid/accuracy_at_start``; it chooses no weights."""
    log_every: int = 10
    """Steps between two lines of metrics."""
    save_every: float = 60
    """Seconds between checkpoints."""
    seed: int = 0
    """Seed of weights, order of problems and everything drawn."""
    name: str | None = None
    """Folder below ``outputs``; null names the run by what was asked for."""
    init_from: str | None = None
    """Where to start, in place of the stage before: a checkpoint's folder; or a run by its name, such as
    ``experiment=stories_cot,seed=1``, which is trained first where it is missing."""
    overwrite: bool = False
    """Do the run again, even where its result is stored."""
    device: str = "auto"
    """``auto``, ``cpu`` or ``cuda``."""
    precision: str = "auto"
    """``auto`` (bf16 where the device is fast at it, else fp32), ``fp32`` or ``bf16``."""
    threads: int | None = None
    """CPU threads; null leaves the choice to torch."""
    outputs: str = "outputs"
    """Folder that holds all runs."""

    def __post_init__(self) -> None:
        if getattr(self.stage, "takes_plan", False):  # a stage lays problems out, and what it writes depends on the plan
            self.stage.plan = None if isinstance(self.plan, Nothing | None) else self.plan

    def problems(self, split: str) -> list[Problem]:
        """The ``train`` or ``valid`` split, cut to the limits; :class:`latent_lab.problems.DataError` where nothing is left."""
        problems: list[Problem] = self.dataset.load(split)
        limits = [n for n in (self.limit, {"train": self.train_limit, "valid": self.valid_limit}[split]) if n is not None]
        problems = problems[: min(limits)] if limits else problems
        if not problems:
            raise DataError(f"the {split} split of the dataset is empty; it takes at least one problem")
        return problems


@dataclass
class EvalConfig:
    """Everything ``python -m latent_lab.eval`` can be told; ``task`` and the next four are config groups."""

    run: str = ""
    """A run's folder, or its name below ``outputs``; several, as ``A,B``, are compared by ``task=answers``; a task that grades
    nothing can do without."""
    task: Any = MISSING
    """What is measured."""
    dataset: Any = None
    """The problems; null takes the dataset the run was trained on."""
    judge: Any = None
    """Who says what a wrong answer failed by."""
    backend: Any = None
    """Who thinks in ``task=summarize``."""
    summariser: Any = None
    """Who summarises there."""
    tool: Any = "none"
    """What computes beside the model: ``repair`` (its chain is computed again afterwards), ``calculator`` (results are written
    for it while it generates), both as ``[repair,calculator]``, or ``none``."""
    oracle: Any = None
    """What reads the thoughts."""
    tracker: Any = None
    """Where results are shown, besides the files written."""
    split: str = "test"
    """``train``, ``valid`` or ``test``."""
    out: str | None = None
    """Folder for the results; null chooses one inside the run's, and without a run one below ``outputs``."""
    limit: int | None = None
    """Use only the first so many problems."""
    batch_size: int = 256
    """Problems decoded at once."""
    seed: int = 0
    """Seed of everything drawn."""
    overwrite: bool = False
    """Do it again, even where the result is stored."""
    device: str = "auto"
    """``auto``, ``cpu`` or ``cuda``."""
    precision: str = "auto"
    """``auto`` (bf16 where the device is fast at it, else fp32), ``fp32`` or ``bf16``."""
    threads: int | None = None
    """CPU threads; null leaves the choice to torch."""
    outputs: str = "outputs"
    """Folder that holds all runs."""

    @property
    def run_folder(self) -> Path:
        """The folder ``run`` stands for: a path as given if a run is there, else a name below ``outputs``.

        The folder of an evaluation stands for the run that it graded, so ``run=outputs/demo`` is what ``make demo`` trained.
        """
        path = self.folder(self.run)
        stored = yaml.safe_load((path / CONFIG).read_text(encoding="utf-8")) if (path / CONFIG).is_file() else None
        if not isinstance(stored, dict) or not (graded := stored.get("run")):
            return path
        beside = path.parent / graded  # found wherever the command is given, where both lie below the same outputs
        places = [beside, Path(stored.get("outputs", "")) / graded, self.folder(graded)]
        return next((place for place in places if place != path and (place / CONFIG).is_file()), places[-1])

    @property
    def runs(self) -> tuple[str, ...]:
        """The runs that ``run`` names. A comma may be part of a name: what is there as one run counts as one."""

        def parts(pieces: list[str]) -> list[str] | None:
            for count in range(len(pieces), 0, -1):
                name = ",".join(pieces[:count])
                if name and (self.folder(name) / CONFIG).is_file():
                    rest = parts(pieces[count:]) if pieces[count:] else []
                    if rest is not None:
                        return [name, *rest]
            return None

        return tuple(parts(self.run.split(",")) or [self.run])

    @property
    def tools(self) -> tuple[str, ...]:
        """The tools that ``tool`` names."""
        given = self.tool if isinstance(self.tool, list) else [self.tool]
        return tuple(str(tool) for tool in given if tool not in (None, "none"))

    def folder(self, run: str) -> Path:
        """A folder as given if a run is there, else one below ``outputs``."""
        path = Path(run).expanduser()
        return path if (path / CONFIG).is_file() else Path(self.outputs) / run


def check(config: TrainConfig | EvalConfig) -> None:
    """Raise :class:`ConfigError` for a value out of range, or for settings that make no sense together."""
    for key, least in AT_LEAST.items():
        value = vars(config).get(key)
        if value is not None and not value >= least:
            raise ConfigError(key, value, f"allowed: {least} and more")
    if config.seed >= 2**32:
        raise ConfigError("seed", config.seed, f"allowed: 0 to {2**32 - 1}")
    check_choice("device", config.device, DEVICES)
    check_choice("precision", config.precision, PRECISIONS)
    if config.device == "cpu" and config.precision == "bf16":
        raise ConfigError("precision", "bf16", "allowed: auto, fp32 (with device=cpu, where bf16 is many times slower)")
    for key in ("path", "name"):
        if config.dataset is not None and vars(config.dataset).get(key) == "":
            raise ConfigError(f"dataset.{key}", None, f"allowed: the problems to read; write dataset.{key}=...")
    if isinstance(config, TrainConfig):
        check_optim(config.optim)
        check_training(config)
    else:
        check_evaluation(config)


def check_optim(optim: Optim) -> None:
    """The part of :func:`check` that concerns the optimiser."""
    check_choice("optim.name", optim.name, OPTIMIZERS)
    check_choice("optim.schedule", optim.schedule, SCHEDULES)
    for key, is_right, allowed in (
        ("lr", optim.lr > 0, "numbers above 0"),
        ("matrix_lr", optim.matrix_lr > 0, "numbers above 0"),
        ("weight_decay", optim.weight_decay >= 0, "0 and more"),
        ("betas", len(optim.betas) == 2 and all(0 <= b < 1 for b in optim.betas), "two numbers from 0 to below 1"),
        ("warmup", optim.warmup >= 0, "0 and more (steps)"),
        ("final", 0 <= optim.final <= 1, "0 to 1 (a share of optim.lr)"),
        ("clip", optim.clip >= 0, "0 (off) and more"),
    ):
        if not is_right:
            raise ConfigError(f"optim.{key}", getattr(optim, key), f"allowed: {allowed}")


def check_compile(config: TrainConfig) -> None:
    """Raise :class:`ConfigError` where one-token passes cannot be compiled, or where there are none."""
    loop = config.stage.loop()
    if not config.stage.has_slots or loop.rounds is not None or (loop.feeds == "tokens" and not loop.multipass):
        raise ConfigError("compile", True, "this stage has no passes of one token; allowed: false")
    if config.stage.matches_layers:
        raise ConfigError("compile", True, "this stage compares the states of all layers, pass by pass; allowed: false")
    plain = ("stage.feedback", "after_norm"), ("model.gradient_checkpointing", False), ("model.quantize", "none")
    for name, usual in plain:
        group, _, key = name.partition(".")
        if getattr(getattr(config, group), key, usual) != usual:
            raise ConfigError("compile", True, f"not together with {name}; allowed: false, or {name}={str(usual).lower()}")
    if not any(map(shutil.which, (os.environ.get("CXX") or "g++", "clang++"))):
        raise ConfigError("compile", True, "this machine has no C++ compiler (g++ or clang++); allowed: false")


def check_training(config: TrainConfig) -> None:
    """The part of :func:`check` that concerns training alone."""
    micro, name = config.micro_batch_size, config.name
    if micro is not None and micro > config.batch_size:
        raise ConfigError("micro_batch_size", micro, f"allowed: at most batch_size={config.batch_size}")
    check_choice("batch_by", config.batch_by, BATCH_BY)
    if config.batch_by == "length" and config.stage.has_slots:
        raise ConfigError("batch_by", "length", "slots must be alike, or each batch waits for its longest row; allowed: shape")
    if config.compile:
        check_compile(config)
    trains_oracle, has_oracle = getattr(config.stage, "trains_oracle", False), not isinstance(config.oracle, Nothing | None)
    if has_oracle and not trains_oracle:
        raise ConfigError("oracle", type(config.oracle).__name__, "this stage trains none; allowed: none, or stage=oracle")
    if trains_oracle and not has_oracle:
        raise ConfigError("oracle", None, "stage=oracle trains one; allowed: self, lora, separate, head")
    if trains_oracle and not getattr(config.stage, "run", ""):
        raise ConfigError(
            "stage.run", None, "allowed: a finished run's folder, or its name below outputs, whose thoughts to read"
        )
    if not isinstance(config.plan, Nothing | None) and not getattr(config.stage, "takes_plan", False):
        raise ConfigError("plan", type(config.plan).__name__, "this stage writes no plan; allowed: none, or stage=planning")
    sees = getattr(config.stage, "text_sees", "all")
    if sees != "all" and config.stage.blocks is None:
        raise ConfigError("stage.text_sees", sees, "there are no planning tokens to see; allowed: all, or a plan= that has some")
    if sees != "all" and hasattr(config.peft, "num_tokens"):
        kind = type(config.peft).__name__.lower()
        raise ConfigError("peft", kind, f"stage.text_sees={sees} would hide its virtual tokens; allowed: none, lora, rows")
    if getattr(config.stage, "words", False) and config.stage.blocks is None:
        raise ConfigError("stage.words", True, "there is no plan to write in words; allowed: false, or a plan= beside none")
    if getattr(config.stage, "takes_plan", False) and config.stage.has_slots and config.stage.blocks is None:
        rest = "a step is thought after its planning tokens; allowed: [0], a plan= that has some, or stage=coconut"
        raise ConfigError("stage.stages", config.stage.stages, rest)
    if getattr(config.plan, "model", None) == "" and (config.stage.has_slots or sees != "all"):
        rest = (
            "the run with plan=none that would embed the steps can have no thoughts, and no segments; allowed: a finished run, "
        )
        raise ConfigError("plan.model", "", rest + "a folder, or a name on the hub")
    if not isinstance(config.judge, Nothing | None):
        raise ConfigError("judge", type(config.judge).__name__, "training judges no answers; allowed: none")
    quantize, state = getattr(config.model, "quantize", "none"), getattr(config.model, "state", None)
    if quantize != "none" and isinstance(config.peft, Nothing | None):
        raise ConfigError(
            "model.quantize", quantize, "quantised matrices cannot be trained; allowed: with a peft= beside none, else none"
        )
    if state is not None and not Path(state).expanduser().is_file():
        raise ConfigError("model.state", state, "there is no such file; allowed: a state dict to read, or null")
    if name is not None and (name.startswith("/") or ".." in Path(name).parts or not name.strip()):
        raise ConfigError("name", name, "allowed: the name of a folder below outputs")
    if config.init_from is not None and not (Path(config.init_from).is_dir() or is_name_of_run(config.init_from)):
        rest = "there is no such folder; allowed: a checkpoint's folder, or a run's overrides joined by commas, to train first"
        raise ConfigError("init_from", config.init_from, rest)


def is_name_of_run(text: str) -> bool:
    """Whether a text is a run's name as the overrides give it: ``key=value`` joined by commas, and no path."""
    return "/" not in text and all("=" in part.strip("=") for part in text.split(","))


def check_evaluation(config: EvalConfig) -> None:
    """The part of :func:`check` that concerns evaluation alone."""
    check_choice("split", config.split, SPLITS)
    if not isinstance(config.judge, Nothing | None) and not getattr(config.task, "takes_judge", False):
        raise ConfigError("judge", type(config.judge).__name__, "this task judges no answers; allowed: none")
    is_rules = not isinstance(config.judge, Nothing | None) and not hasattr(config.judge, "talking")
    if is_rules and not getattr(config.task, "takes_rules", True):
        raise ConfigError("judge", type(config.judge).__name__, "the rules always count here; allowed: none, openai, local")
    if getattr(config.task, "needs_talk", False) and not hasattr(config.judge, "talking"):
        raise ConfigError("judge", type(config.judge).__name__, "this task has a language model write; allowed: openai, local")
    if getattr(config.task, "needs_judge", False) and isinstance(config.judge, Nothing | None):
        raise ConfigError("judge", None, "this task has steps judged; allowed: rules, openai, local")
    for key in ("backend", "summariser"):
        if not isinstance(getattr(config, key), Nothing | None) and not getattr(config.task, "takes_backend", False):
            raise ConfigError(key, type(getattr(config, key)).__name__, "this task asks no model to deliberate; allowed: none")
    for tool in config.tools:
        check_choice("tool", tool, ("none", *TOOLS))
    if config.tools and not getattr(config.task, "takes_tool", False):
        raise ConfigError("tool", ", ".join(config.tools), "this task lets no tool help; allowed: none")
    if len(config.runs) > 1 and not getattr(config.task, "takes_runs", False):
        raise ConfigError("run", config.run, "this task grades one run at a time; allowed: one of them, or several with -m")
    if not config.run and not getattr(config.task, "needs_run", True):
        if config.dataset is None and getattr(config.task, "needs_dataset", True):
            raise ConfigError(
                "dataset", None, "allowed: the problems to describe, as in dataset=gsm8k, or run= to take that run's"
            )
    elif not config.run or (len(config.runs) == 1 and not (config.run_folder / CONFIG).is_file()):
        finished = sorted(Path(config.outputs).glob(f"*/{RESULT}"), key=lambda file: -file.stat().st_mtime)
        names = [*(file.parent.name for file in finished[:MOST_RUNS_NAMED]), *["..."] * (len(finished) > MOST_RUNS_NAMED)]
        known = "; ".join(names) or f"none in {config.outputs} yet"
        raise ConfigError("run", config.run, f"there is no such run; allowed: its folder, or its name below outputs ({known})")


def check_choice(key: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raise :class:`ConfigError` unless ``value`` is one of ``allowed``."""
    if value not in allowed:
        raise ConfigError(key, value, f"allowed: {', '.join(allowed)}{meant(value, allowed)}")


def meant(given: str, allowed: Iterable[str]) -> str:
    """``; did you mean X?``, where the last part of X is the same or a close match; empty if there is none."""
    by_leaf: dict[str, str] = {}
    for name in allowed:
        by_leaf.setdefault(name.rpartition(".")[2], name)
    close = difflib.get_close_matches(given.rpartition(".")[2], by_leaf, 1, cutoff=0.7)
    return f"; did you mean {by_leaf[close[0]]}?" if close else ""
