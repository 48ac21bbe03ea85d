"""The configuration: typed schemas, the checks no single field can make, and the way from overrides to a :class:`Job`.

A component is its own schema. An option file names the dataclass (``defaults: [/schema/package.module.Class@_here_, _self_]``)
and states only what differs from its defaults, so a new method is one class and one YAML file.

Nothing here imports torch: a wrong override must cost a second, not a model load.
"""

import difflib
import hashlib
import importlib
import json
import re
import types
import typing
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, fields, is_dataclass, make_dataclass
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.errors import (
    CompactHydraException,
    HydraException,
    InstantiationException,
    MissingConfigException,
    OverrideParseException,
)
from hydra.plugins.config_source import ConfigResult, ConfigSource
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException, ValidationError

from latent_lab.problems import SPLITS
from latent_lab.run import DEVICES, PRECISIONS

GROUPS = ("model", "stage", "dataset", "oracle", "judge", "task", "tracker", "experiment", "debug")
"""What is chosen as GROUP=OPTION, in the order in which a run's name lists it."""

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
        "log_every",
        "save_every",
    }
)
"""Top-level keys that say where and how a run works, not what comes out: no part of its name, free to differ when it resumes."""

OPTIMIZERS = ("adamw", "muon")
SCHEDULES = ("constant", "linear", "cosine")

LONGEST_SLUG = 120
"""Characters; many file systems end at 255, and suffixes must still fit."""

PATHS = ("run", "init_from", "out", "outputs", "name", "model.path", "dataset.path")
"""Keys whose value is a path or a run's name, quoted for Hydra whatever characters it holds."""


class ConfigError(ValueError):
    """A setting that cannot be; the message is one line: the key, what was given, what is allowed."""

    def __init__(self, key: str, given: Any, rest: str) -> None:
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
    """Everything ``python -m latent_lab.train`` can be told; the first six fields are config groups."""

    model: Any = MISSING
    """The backbone."""
    stage: Any = MISSING
    """How problems become sequences, and for how long each stage trains."""
    dataset: Any = MISSING
    """The problems."""
    oracle: Any = None
    """What reads the thoughts while they are trained."""
    judge: Any = None
    """Who grades answers that rules cannot grade."""
    tracker: Any = None
    """Where metrics are shown, besides the run's own files."""
    optim: Optim = field(default_factory=Optim)
    """The optimiser."""
    batch_size: int = 64
    """Sequences per optimiser step, over all processes."""
    micro_batch_size: int | None = None
    """Sequences per forward pass and process; null takes the whole share of the process at once."""
    eval_batch_size: int = 256
    """Problems decoded at once during validation."""
    max_steps: int | None = None
    """Stop after so many optimiser steps in all."""
    limit: int | None = None
    """Use only the first so many problems of each split."""
    train_limit: int | None = None
    """The same for the training split alone."""
    valid_limit: int | None = None
    """The same for the validation split alone."""
    eval_every: int | None = None
    """Steps between validations; null validates at the end of each epoch."""
    log_every: int = 10
    """Steps between two lines of metrics."""
    save_every: float = 60
    """Seconds between checkpoints."""
    seed: int = 0
    """Seed of weights, order of problems and everything drawn."""
    name: str | None = None
    """Folder below ``outputs``; null names the run by what was asked for."""
    init_from: str | None = None
    """Checkpoint folder to start from, in place of the stage before."""
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


@dataclass
class EvalConfig:
    """Everything ``python -m latent_lab.eval`` can be told; ``task`` and the next four are config groups."""

    run: str = MISSING
    """A run's folder, or its name below ``outputs``."""
    task: Any = MISSING
    """What is measured."""
    dataset: Any = None
    """The problems; null takes the dataset the run was trained on."""
    judge: Any = None
    """Who grades answers that rules cannot grade."""
    oracle: Any = None
    """What reads the thoughts."""
    tracker: Any = None
    """Where results are shown, besides the files written."""
    split: str = "test"
    """``train``, ``valid`` or ``test``."""
    out: str | None = None
    """Folder for the results; null chooses one inside the run's."""
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
        """The folder ``run`` stands for: a path as given if it exists, else a name below ``outputs``."""
        return Path(self.run) if Path(self.run).is_dir() else Path(self.outputs) / self.run


def check(config: TrainConfig | EvalConfig) -> None:
    """Raise :class:`ConfigError` for a value out of range, or for settings that make no sense together."""
    if isinstance(config, TrainConfig):
        check_training(config)
    elif not config.run_folder.is_dir():
        names = [folder.parent.name for folder in Path(config.outputs).glob("*/config.yaml")]
        known = ", ".join(sorted(names)) or f"none in {config.outputs} yet"
        raise ConfigError("run", config.run, f"there is no such folder; allowed: a path, or a run's name ({known})")
    else:
        check_choice("split", config.split, SPLITS)
    check_choice("device", config.device, DEVICES)
    check_choice("precision", config.precision, PRECISIONS)
    if config.device == "cpu" and config.precision == "bf16":
        raise ConfigError("precision", "bf16", "allowed: auto, fp32 (with device=cpu, where bf16 is many times slower)")
    for key in ("path", "name"):
        if config.dataset is not None and vars(config.dataset).get(key) == "":
            raise ConfigError(f"dataset.{key}", None, f"allowed: the problems to read; write dataset.{key}=...")
    at_least = {"batch_size": 1, "micro_batch_size": 1, "eval_batch_size": 1, "max_steps": 1, "eval_every": 1, "log_every": 1}
    at_least |= {"limit": 1, "train_limit": 1, "valid_limit": 1, "threads": 1, "save_every": 0, "seed": 0}
    for key, least in at_least.items():
        value = vars(config).get(key)
        if value is not None and value < least:
            raise ConfigError(key, value, f"allowed: {least} and more")


def check_training(config: TrainConfig) -> None:
    """The part of :func:`check` that concerns training alone."""
    from latent_lab.stages.curriculum import Curriculum

    optim, stage = config.optim, config.stage
    check_choice("optim.name", optim.name, OPTIMIZERS)
    check_choice("optim.schedule", optim.schedule, SCHEDULES)
    for key, value, right, allowed in (
        ("lr", optim.lr, optim.lr > 0, "numbers above 0"),
        ("matrix_lr", optim.matrix_lr, optim.matrix_lr > 0, "numbers above 0"),
        ("weight_decay", optim.weight_decay, optim.weight_decay >= 0, "0 and more"),
        ("betas", optim.betas, len(optim.betas) == 2 and all(0 <= b < 1 for b in optim.betas), "two numbers from 0 to below 1"),
        ("warmup", optim.warmup, optim.warmup >= 0, "0 and more (steps)"),
        ("final", optim.final, 0 <= optim.final <= 1, "0 to 1 (a share of optim.lr)"),
        ("clip", optim.clip, optim.clip >= 0, "0 (off) and more"),
    ):
        if not right:
            raise ConfigError(f"optim.{key}", value, f"allowed: {allowed}")
    if config.micro_batch_size is not None and config.micro_batch_size > config.batch_size:
        raise ConfigError("micro_batch_size", config.micro_batch_size, f"allowed: at most batch_size={config.batch_size}")
    if isinstance(stage, Curriculum) and stage.kind != "coconut":
        plain = Curriculum()
        for key in ("latents_per_step", "max_stage", "pad_to_max", "latents_from"):
            if getattr(stage, key) != getattr(plain, key):
                raise ConfigError(
                    f"stage.{key}", getattr(stage, key), f"stage.kind={stage.kind} has no latent slots; allowed: leave it out"
                )
    if isinstance(stage, Curriculum) and not isinstance(config.oracle, Nothing | None):
        raise ConfigError("oracle", type(config.oracle).__name__, "this stage trains none; allowed: none")
    if config.name is not None and (config.name.startswith("/") or ".." in Path(config.name).parts or not config.name.strip()):
        raise ConfigError("name", config.name, "allowed: the name of a folder below outputs")
    if config.init_from is not None and not Path(config.init_from).is_dir():
        raise ConfigError("init_from", config.init_from, "there is no such folder; allowed: a checkpoint's folder")


def check_choice(key: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raise :class:`ConfigError` unless ``value`` is one of ``allowed``."""
    if value not in allowed:
        raise ConfigError(key, value, f"allowed: {', '.join(allowed)}{meant(value, allowed)}")


# Schemas and composition


def config_folder() -> str:
    """The absolute path of ``conf/``: inside an installed package, or beside the package in a checkout."""
    package = Path(__file__).resolve().parent
    return str(package / "conf" if (package / "conf").is_dir() else package.parent / "conf")


def schema(dotted: str) -> DictConfig:
    """The defaults and types of a dataclass; its ``_target_`` makes ``instantiate`` build that very class again."""
    module, _, name = dotted.rpartition(".")
    component = getattr(importlib.import_module(module), name)
    return OmegaConf.structured(
        make_dataclass(name, [("_target_", str, field(default=dotted, kw_only=True))], bases=(component,))
    )


class SchemaSource(ConfigSource):
    """Serves ``/schema/package.module.Class``: that dataclass as a typed schema, imported only when an option asks for it."""

    @staticmethod
    def scheme() -> str:
        """The prefix under which the search path of ``conf/train.yaml`` and ``conf/eval.yaml`` lists this source."""
        return "schema"

    def load_config(self, config_path: str) -> ConfigResult:
        """Import the class and return its schema."""
        return ConfigResult(self.provider, "schema://", schema(config_path.removeprefix("schema/")), {"package": None})

    def available(self) -> bool:
        """Always: classes are looked up one by one."""
        return True

    def is_group(self, config_path: str) -> bool:
        """Only the root is a group."""
        return config_path == "schema"

    def is_config(self, config_path: str) -> bool:
        """Whatever lies below the root is meant as a class."""
        return config_path.startswith("schema/")

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        """Nothing: schemas are no options to choose from."""
        return []


Plugins.instance().register(SchemaSource)


def composing() -> AbstractContextManager[Any]:
    """Hydra as it already runs, or started for the moment."""
    if GlobalHydra.instance().is_initialized():
        return nullcontext()
    return hydra.initialize_config_dir(config_folder(), version_base="1.3")


def options(group: str) -> list[str]:
    """The choices of a config group, sorted."""
    return sorted(file.stem for file in Path(config_folder(), group).glob("*.yaml"))


def compose(door: str, overrides: list[str]) -> DictConfig:
    """Compose ``conf/DOOR.yaml``, resolved; what is wrong with the overrides (in Hydra's grammar) is a :class:`ConfigError`."""
    check_grammar(overrides)
    with composing():
        try:
            composed = hydra.compose(door, overrides)
            OmegaConf.resolve(composed)
        except (CompactHydraException, OmegaConfBaseException, ValueError, yaml.YAMLError) as error:
            raise explained(error, door, overrides) from error
    for key in undeclared(composed):
        raise unknown_key(composed, key, given(key, overrides))
    return composed


def typed(composed: DictConfig | dict[str, Any]) -> Any:
    """Build the dataclasses a composed or stored configuration describes: the one place that instantiates.

    A component's own complaint (a ValueError that starts ``field=value: ``) becomes a :class:`ConfigError` about the whole key.
    """
    node = composed if isinstance(composed, DictConfig) else OmegaConf.merge(schema(composed["_target_"]), composed)
    try:
        return hydra.utils.instantiate(node, _convert_="object")
    except InstantiationException as error:
        if not isinstance(error.__cause__, ValueError):
            raise
        where = re.search(r"full_key: (\S+)", str(error))
        prefix = f"{where[1]}." if where else ""
        field_, value, rest = re.fullmatch(r"(?s)(?:(\w+)=(.*?): )?(.*)", str(error.__cause__)).groups()  # type: ignore[union-attr]
        key = prefix + field_ if field_ else prefix.rstrip(".")
        raise ConfigError(key, value, rest.replace("allowed are", "allowed:", 1)) from error


# Messages


def parse(override: str) -> Override:
    """Parse one override, or raise :class:`ConfigError`."""
    key, equals, value = override.partition("=")
    if key.startswith("~"):
        raise ConfigError(key[1:], override, f"nothing can be removed; allowed: {key[1:]}=VALUE")
    if not key or not equals:
        raise ConfigError(key or override, None, f"allowed: {key or 'KEY'}=VALUE{meant(key, GROUPS)}")
    try:
        return OverridesParser.create().parse_overrides([override])[0]
    except OverrideParseException as error:
        rest = f"it cannot be read; allowed: plain values, or text in two pairs of quotes, as in {key}=\"'TEXT'\""
        raise ConfigError(key, value, rest) from error


def check_grammar(overrides: list[str]) -> None:
    """Raise :class:`ConfigError` for what Hydra would refuse in words about its own insides."""
    for text in overrides:
        override = parse(text)
        key, value = override.key_or_group, text.partition("=")[2]
        if override.is_sweep_override():
            several = f"several with -m, a list as {key}=[{value}], text as {key}=\"'{value}'\""
            raise ConfigError(key, value, f"allowed: one value ({several})")
        if key in GROUPS and text.startswith("+"):
            raise ConfigError(key, text, f"allowed: {text.lstrip('+')}, without the sign")
        if key in GROUPS and not isinstance(override.value(), str):
            raise ConfigError(key, value, f"allowed: {', '.join(options(key))}")


def explained(error: Exception, door: str, overrides: list[str]) -> ConfigError:
    """Say what Hydra or OmegaConf complains about in one line: the key, what was given, what is allowed."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file is not None and error.options is not None:
        group, _, choice = error.missing_cfg_file.rpartition("/")
        return ConfigError(group, choice, f"allowed: {', '.join(error.options)}{meant(choice, error.options)}")
    cause = error.__cause__ or error.__context__ or error
    if isinstance(cause, OmegaConfBaseException) and cause.full_key and cause.parent_node is not None:
        file = re.match(r"In '(\w+/[^']+)'", str(error))
        root, key = cause.parent_node._get_root(), re.sub(r"\[\d+\]", "", cause.full_key)
        value, suffix = (cause.value, f" (in {file[1]}.yaml)") if file else (given(key, overrides), "")
        if isinstance(cause, ValidationError):
            return ConfigError(key, value, f"allowed: {allowed_type(root, key)}{suffix}")
        if isinstance(cause, ConfigAttributeError | ConfigKeyError):
            return unknown_key(root, key, value, suffix)
    reason = " ".join(str(cause).split())
    # What is left has no words of its own for the key: the culprit is the override that composes no more.
    for count in range(len(overrides)):
        try:
            OmegaConf.resolve(hydra.compose(door, overrides[: count + 1]))
        except (CompactHydraException, OmegaConfBaseException, ValueError, yaml.YAMLError):
            key = overrides[count].partition("=")[0]
            return ConfigError(key, given(key, overrides), f"{reason}; allowed: what --cfg job shows")
    return ConfigError(f"{door}.yaml", None, reason)


def unknown_key(root: DictConfig, key: str, value: Any, suffix: str = "") -> ConfigError:
    """The error for a key nobody declared; names the keys beside it, and the one that was probably meant."""
    parent = key.rpartition(".")[0]
    node = OmegaConf.select(root, parent) if parent else root
    if not node:
        return ConfigError(key, value, f"{parent} is null; allowed: only after {parent}=OPTION")
    known = sorted((name for name in dotted_keys(root) if name != key), key=lambda name: name.rpartition(".")[0] != parent)
    beside = [str(name) for name in node if name not in ("_target_", "hydra", key.rpartition(".")[2])]
    rest = f"there is no such key; allowed: {', '.join(beside) or 'none'}"
    return ConfigError(key, value, f"{rest}{meant(key, [*known, *GROUPS])}{suffix}")


def meant(given: str, allowed: Iterable[str]) -> str:
    """``; did you mean X?``, where the last part of X is the same or a close match; empty if there is none."""
    by_leaf: dict[str, str] = {}
    for name in allowed:
        by_leaf.setdefault(name.rpartition(".")[2], name)
    close = difflib.get_close_matches(given.rpartition(".")[2], by_leaf, 1, cutoff=0.7)
    return f"; did you mean {by_leaf[close[0]]}?" if close else ""


def given(key: str, overrides: list[str]) -> str | None:
    """What the command line says about ``key`` or something inside or around it (the last word counts), or None."""
    for override in map(parse, reversed(overrides)):
        names = (f"{key}.", f"{override.key_or_group}.")
        if names[0].startswith(names[1]) or names[1].startswith(names[0]):
            value = override.value()
            return value if isinstance(value, str) else (override.input_line or "").partition("=")[2]
    return None


def dotted_keys(node: DictConfig, prefix: str = "") -> Iterator[str]:
    """Every key of a configuration in full, branches before their leaves."""
    for name in map(str, node):
        if name not in ("_target_", "hydra"):
            yield f"{prefix}{name}"
            child = node._get_node(name)
            if isinstance(child, DictConfig) and not child._is_none() and not child._is_missing():
                yield from dotted_keys(child, f"{prefix}{name}.")


def undeclared(node: DictConfig, prefix: str = "") -> Iterator[str]:
    """Keys that a ``+key=value`` has added to a dataclass that does not have them."""
    for key in dotted_keys(node, prefix):
        parent, _, name = key.rpartition(".")
        owner = OmegaConf.get_type(OmegaConf.select(node, parent) if parent else node)
        known = {declared.name for declared in fields(owner)} if is_dataclass(owner) else set()
        if name not in known and (is_dataclass(owner) or parent in GROUPS):
            yield key


def allowed_type(root: DictConfig, key: str) -> str:
    """What kind of value a key takes, in words."""
    parent, _, name = key.rpartition(".")
    owner = OmegaConf.get_type(OmegaConf.select(root, parent) if parent else root)
    return in_words(typing.get_type_hints(owner)[name])


def in_words(annotation: Any) -> str:
    """A type as a reader who knows no Python would say it."""
    if isinstance(annotation, types.UnionType):
        return " or ".join(in_words(option) for option in typing.get_args(annotation))
    if typing.get_origin(annotation) is list:
        each = {int: "integers", float: "numbers", str: "texts"}[typing.get_args(annotation)[0]]
        return f"a list of {each}, as in [A,B]"
    if is_dataclass(annotation):
        return f"one of its keys at a time ({', '.join(declared.name for declared in fields(annotation))})"
    simple = {int: "an integer", float: "a number", bool: "true or false", str: "text", types.NoneType: "null"}
    return simple.get(annotation, "keys and values")


# Jobs


@dataclass(frozen=True)
class Job:
    """One checked piece of work: what a door hands on."""

    config: Any
    """The typed configuration, components built: a :class:`TrainConfig` or an :class:`EvalConfig`."""
    plain: dict[str, Any]
    """The same, resolved, as plain dictionaries, lists and values; :func:`typed` builds it again."""
    slug: str
    """Folder name of the run: ``name`` if given, else the overrides that change the result."""
    door: str
    """``train`` or ``eval``."""
    overrides: list[str]
    """This job's overrides."""
    is_sweep: bool
    """Whether the command line asked for several jobs (-m)."""

    @property
    def place(self) -> str:
        """Where the result goes, as far as the command line tells; two jobs with one place are the same job."""
        return self.plain.get("out") or f"{self.plain.get('run', '')}/{self.slug}"

    @property
    def command(self) -> list[str]:
        """The command that does this job alone."""
        return ["python", "-m", f"latent_lab.{self.door}", *self.overrides]

    def sibling(self, **choices: str) -> "Job":
        """The job with other group choices and all else equal: ``job.sibling(stage="2")``.

        Its name is its own again, and it is not done again where its result is stored.
        """
        dropped = {*choices, "name", "overwrite"}
        kept = [text for text in self.overrides if parse(text).key_or_group not in dropped]
        return job(self.door, [*kept, *(f"{group}={choice}" for group, choice in choices.items())], self.is_sweep)


def job(door: str, overrides: list[str], is_sweep: bool = False) -> Job:
    """Compose, build and check one job from overrides as a person types them; raise :class:`ConfigError`."""
    overrides = [text for override in overrides for text in as_hydra_reads(override)]
    composed = compose(door, overrides)
    for key in sorted(OmegaConf.missing_keys(composed)):
        raise ConfigError(key, None, f"allowed: {allowed_type(composed, key)}; write {key}=VALUE")
    config = typed(composed)
    check(config)
    plain = OmegaConf.to_container(composed)
    name = getattr(config, "name", None)
    readable = [re.sub(r"^(\w+)='(\d+)'$", r"\1=\2", text) for text in overrides]
    return Job(config, typing.cast(dict[str, Any], plain), name or slug(overrides), door, readable, is_sweep)


def jobs(door: str, overrides: list[str]) -> list[Job]:
    """Every job of a sweep (-m), all checked before the first one works."""
    overrides = [text for override in overrides for text in as_hydra_reads(override, is_sweep=True)]
    for override in overrides:
        parse(override)
    with composing():
        parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
        try:
            combinations = BasicSweeper.split_arguments(parser.parse_overrides(overrides), None)[0]
        except HydraException as error:
            raise explained(error, door, []) from error
        planned: dict[str, Job] = {}
        for combination in combinations:
            try:
                each = job(door, combination, is_sweep=True)
            except ConfigError as error:
                error.args = (f"{error} (in the job {' '.join(combination)})",)
                raise
            other = planned.setdefault(each.place, each)
            if result_part(other.plain) != result_part(each.plain):
                key = "name" if door == "train" else "out"
                hint = f"allowed: one for each job, as in {key}='{each.plain[key]}-${{seed}}'"
                raise ConfigError(key, each.plain[key], f"several jobs would share it; {hint}")
    return list(planned.values())


def result_part(plain: dict[str, Any]) -> dict[str, Any]:
    """The part of a plain configuration that decides what comes out, and for an evaluation the run it grades."""
    return {key: value for key, value in plain.items() if key == "run" or key not in NOT_RESULT}


def slug(overrides: list[str]) -> str:
    """Name a run by the overrides that change its result: groups first, then keys by name; ``default`` if there are none."""
    chosen: dict[str, str] = {}
    for override in map(parse, overrides):
        key = override.key_or_group
        if key.partition(".")[0] not in NOT_RESULT | {"hydra"} and not key.startswith("hydra/"):
            chosen[key] = in_a_name(override.value())
    order = sorted(chosen, key=lambda key: (GROUPS.index(key) if key in GROUPS else len(GROUPS), key))
    text = ",".join(f"{key}={chosen[key]}" for key in order) or "default"
    safe = re.sub(r"[^\w.,=+-]", "_", text, flags=re.ASCII)
    if len(safe) <= LONGEST_SLUG:
        return safe
    return f"{safe[: LONGEST_SLUG - 9]}-{hashlib.blake2b(text.encode(), digest_size=4).hexdigest()}"


def in_a_name(value: Any) -> str:
    """One way to write each value: ``1e-3`` and ``0.001`` are ``0.001``, ``2.0`` is ``2``, quotes are dropped."""
    if isinstance(value, list):
        return "+".join(map(in_a_name, value))
    if isinstance(value, dict):
        return "+".join(f"{key}.{in_a_name(item)}" for key, item in value.items())
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, str) else json.dumps(value)


def as_hydra_reads(override: str, is_sweep: bool = False) -> list[str]:
    """Turn an override as a person types it into what Hydra's grammar takes.

    A digit is no legal choice of a group (``stage=3``) unless quoted, a folder is no option (``model=./mine``), and names of
    runs hold ``=`` and ``,``. What is quoted already, and everything else, stays as it is.
    """
    key, _, value = override.partition("=")
    bare = key.lstrip("+~")
    if not value or value[0] in "'\"[{$":
        return [override]
    if bare == "model" and ("/" in value or (value not in options("model") and Path(value).is_dir())):
        return [f"{key}=folder", f"model.path={quoted_paths(value, is_sweep)}"]
    if bare in PATHS:
        return [f"{key}={quoted_paths(value, is_sweep)}"]
    if bare in GROUPS:
        return [f"{key}=" + re.sub(r"(?<![^,])\d+(?![^,])", r"'\g<0>'", value)]
    return [override]


def quoted_paths(value: str, is_sweep: bool) -> str:
    """Quote a path, or each of a sweep's; a path with a comma in it counts as one where it exists."""
    one = not is_sweep or Path(value).exists() or Path("outputs", value).exists()
    return ",".join("'" + path.replace("'", r"\'") + "'" for path in ([value] if one else value.split(",")))
