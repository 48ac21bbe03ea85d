"""Which runs a table is about: those that names and patterns stand for, grouped by all but their seed, and labelled."""

import glob
import json
import os
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from latent_lab.config import MOST_RUNS_NAMED, NOT_RESULT, ConfigError, EvalConfig
from latent_lab.job import Job
from latent_lab.overrides import in_a_name, parse
from latent_lab.run import CONFIG, PROVENANCE, RESULT

TRAINING = "latent_lab.config.TrainConfig"
"""What the configuration of a training run, finished or not, is called in its ``config.yaml``."""

ORACLE = "latent_lab.stages.oracle.OracleStage"
"""The same of the stage that trains oracles."""


@dataclass(frozen=True)
class Trained:
    """A training run as its folder tells of it."""

    folder: Path
    config: dict[str, Any]
    """How it was trained: plain values."""

    @property
    def seed(self) -> int:
        """Its seed."""
        return int(self.config["seed"])

    @property
    def is_finished(self) -> bool:
        """Whether it has its result."""
        return (self.folder / RESULT).is_file()

    @property
    def is_oracle(self) -> bool:
        """Whether it is a run of stage=oracle, which answers no problems."""
        return bool(self.config["stage"].get("_target_") == ORACLE)

    @property
    def result(self) -> dict[str, Any]:
        """What its training ended with."""
        stored: dict[str, Any] = json.loads((self.folder / RESULT).read_text(encoding="utf-8"))
        return stored

    @property
    def command(self) -> list[str]:
        """The command that trained it, as it was last given."""
        command: list[str] = json.loads((self.folder / PROVENANCE).read_text(encoding="utf-8"))["attempts"][-1]["command"]
        return command

    @property
    def overrides(self) -> dict[str, str]:
        """What that command said of the result, but for the seed."""
        said = [override for override in map(parse, self.command[3:]) if not override.is_hydra_override()]
        ignored = NOT_RESULT | {"seed"}
        return {o.key_or_group: in_a_name(o.value()) for o in said if o.key_or_group.partition(".")[0] not in ignored}

    @property
    def identity(self) -> dict[str, Any]:
        """What runs of other seeds share: the configuration without the seed."""
        return {key: value for key, value in self.config.items() if key not in NOT_RESULT | {"seed"}}

    @property
    def begun(self) -> dict[str, Any]:
        """The same without the seed where it names the checkpoint begun from: each seed may have one of its own."""
        start = self.identity.get("init_from")
        return self.identity | {"init_from": without_seed(start, self.seed) if start else None}


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seed alone."""

    label: str
    runs: tuple[Trained, ...]
    """In the order of their seeds."""


def groups(patterns: Sequence[str], job: Job) -> list[Group]:
    """The groups that a job's table is to have, in the order given; :class:`ConfigError` where there can be no such table."""
    config: EvalConfig = job.config
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise ConfigError("task", "table", "it works in one process; allowed: without torchrun (evaluations it made are used)")
    if patterns and config.run:
        raise ConfigError("run", config.run, f"task.runs names the runs ({', '.join(patterns)}); allowed: one of the two")
    runs = find(patterns or [config.run], Path(config.outputs))
    if unfinished := [run for run in runs if not run.is_finished]:
        commands = "; ".join(shlex.join(run.command) for run in unfinished)
        rest = f"not finished; allowed: finished runs, so repeat what trains them ({commands}), or leave them out"
        raise ConfigError("task.runs", ", ".join(run.folder.name for run in unfinished), rest)
    return grouped(runs)


def all_oracles(found: Sequence[Group]) -> bool:
    """Whether all runs are oracles; :class:`ConfigError` where only some are."""
    runs = [run for group in found for run in group.runs]
    oracles = [run.folder.name for run in runs if run.is_oracle]
    if oracles and len(oracles) < len(runs):
        rest = "oracles answer no problems, the others do; allowed: one sort"
        raise ConfigError("task.runs", ", ".join(oracles), rest)
    return bool(oracles)


def find(patterns: Sequence[str], outputs: Path) -> list[Trained]:
    """The training runs that names and patterns stand for, each once, in the order given; a pattern's in that of their names."""
    found: dict[Path, Trained] = {}
    for pattern in patterns:
        if "*" in pattern or "?" in pattern:
            folders = matching(pattern, outputs)
        else:
            folders = [EvalConfig(run=pattern, outputs=str(outputs)).run_folder] if pattern else []
        runs = list(training_runs(folders))
        if not runs:
            known = sorted(training_runs(outputs.glob("*")), key=lambda run: -run.folder.stat().st_mtime)
            names = [*(run.folder.name for run in known[:MOST_RUNS_NAMED]), *["..."] * (len(known) > MOST_RUNS_NAMED)]
            there = "; ".join(names) or f"none in {outputs} yet"
            rest = f"no training run is called so; allowed: names below outputs ({there}), or patterns such as first-*"
            raise ConfigError("task.runs", pattern, rest)
        for run in runs:
            found.setdefault(run.folder.resolve(), run)
    return list(found.values())


def matching(pattern: str, outputs: Path) -> list[Path]:
    """The folders below ``outputs``, or if none there those from here, whose path fits; only * and ? have a meaning."""
    readable = pattern.replace("[", "[[]")
    below = [outputs / name for name in glob.glob(readable, root_dir=outputs)]
    return sorted(below or map(Path, glob.glob(readable)), key=lambda path: in_order(str(path)))


def in_order(text: str) -> list[tuple[int, str]]:
    """A key that sorts texts with the numbers in them by value."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", text)]


def training_runs(folders: Iterator[Path] | Sequence[Path]) -> Iterator[Trained]:
    """Those of the folders that hold a training run, finished or not."""
    for folder in folders:
        if (folder / CONFIG).is_file():
            config = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))
            if isinstance(config, dict) and config.get("_target_") == TRAINING:
                yield Trained(folder, config)


def grouped(runs: Sequence[Trained]) -> list[Group]:
    """Put runs together that differ in their seed alone; two that do not even differ there are refused: they are one seed.

    Seeds have begun from one checkpoint, or each from that of its own seed.
    """
    shared = Counter(as_key(run.identity) for run in runs)
    together: dict[str, list[Trained]] = {}
    for run in runs:
        key = as_key(run.identity)
        together.setdefault(key if shared[key] > 1 else as_key(run.begun), []).append(run)
    members = [sorted(those, key=lambda run: run.seed) for those in together.values()]
    for those in members:
        for one, other in pairwise(those):
            if one.seed == other.seed:
                names = f"{one.folder.name}, {other.folder.name}"
                rest = f"they are the same run twice (seed {one.seed}, all settings equal); allowed: one of them"
                raise ConfigError("task.runs", names, rest)
    return [Group(label, tuple(those)) for label, those in zip(labels(members), members, strict=True)]


def as_key(identity: dict[str, Any]) -> str:
    """An identity as a text."""
    return json.dumps(identity, sort_keys=True, default=str)


def labels(members: Sequence[Sequence[Trained]]) -> list[str]:
    """A short label for each group: its runs' own names without what they share and the seed, else the settings that differ."""
    named = [common([without_seed(str(run.config["name"] or ""), run.seed) for run in those]) for those in members]
    folders = [without_seed(those[0].folder.name, those[0].seed) for those in members]
    for made in (without_prefix(named), by_settings([those[0] for those in members]), folders):
        if all(made) and len(set(made)) == len(made):
            return made
    return [those[0].folder.name for those in members]


def without_seed(name: str, seed: int) -> str:
    """A name or path without the part that says this seed, such as ``-seed1`` or ``,seed=1``."""
    return re.sub(rf"[-_,.]?seed[-_=]?{seed}(?!\d)", "", name)


def common(names: Sequence[str]) -> str:
    """What all names are; empty where they differ."""
    return names[0] if len(set(names)) == 1 else ""


def without_prefix(names: Sequence[str]) -> list[str]:
    """Names without the words, each ended by ``-`` or ``/``, that all begin with; a single name stays."""
    words = [re.split(r"(?<=[-/])", name) for name in names]
    while len(words) > 1 and all(len(each) > 1 for each in words) and len({each[0] for each in words}) == 1:
        words = [each[1:] for each in words]
    return ["".join(each) for each in words]


def by_settings(runs: Sequence[Trained]) -> list[str]:
    """``key=value`` of what some of the runs' commands say and not all; where one does not, what it was trained with."""
    said = [run.overrides for run in runs]
    keys = [key for key in dict.fromkeys(key for each in said for key in each) if len({each.get(key) for each in said}) > 1]
    made = []
    for run, each in zip(runs, said, strict=True):
        values = {key: each.get(key) or trained_with(run.config, key) for key in keys}
        made.append(", ".join(f"{key}={value}" for key, value in values.items() if value is not None))
    return made


def trained_with(config: dict[str, Any], key: str) -> str | None:
    """A setting as a name would write it; None for a group of settings, and where there is no such key."""
    value: Any = config
    for part in key.split("."):
        value = value.get(part, {}) if isinstance(value, dict) else {}
    return None if isinstance(value, dict) else in_a_name(value)
