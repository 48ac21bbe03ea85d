"""Jobs: checked pieces of work, one for a plain command line and one for each combination of a sweep's (-m)."""

import re
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from latent_lab.compose import compose, composing, typed
from latent_lab.config import NOT_RESULT, ConfigError, check
from latent_lab.overrides import all_as_hydra_reads, combinations, parse, slug


@dataclass(frozen=True)
class Job:
    """One checked piece of work: what a door hands on."""

    config: Any
    """The typed configuration, components built: a :class:`TrainConfig` or an :class:`EvalConfig`."""
    plain: dict[str, Any]
    """The same, resolved, as plain dictionaries, lists and values; :func:`latent_lab.compose.typed` builds it again."""
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
    def group(self) -> str:
        """What runs that differ in their seed alone have in common: the name trackers show them under."""
        return slug([text for text in self.overrides if parse(text).key_or_group not in ("seed", "name")])

    @property
    def command(self) -> list[str]:
        """The command that does this job alone."""
        return ["python", "-m", f"latent_lab.{self.door}", *self.overrides]

    def chosen(self, group: str) -> str | None:
        """The option of a group that the command line names; None where it leaves the choice to the defaults."""
        named = [text for text in map(parse, self.overrides) if text.key_or_group == group]
        return str(named[-1].value()) if named else None

    def sibling(self, **choices: str) -> "Job":
        """The job with other group choices and all else equal: ``job.sibling(stage="2")``.

        Its name is its own again, and it is not done again where its result is stored. ``none`` takes no settings.
        """
        dropped, emptied = {*choices, "name", "overwrite"}, {group for group, choice in choices.items() if choice == "none"}
        keys = {text: parse(text).key_or_group for text in self.overrides}
        kept = [text for text, key in keys.items() if key not in dropped and key.partition(".")[0] not in emptied]
        return job(self.door, [*kept, *(f"{group}={choice}" for group, choice in choices.items())], self.is_sweep)

    @property
    def first(self) -> "Job | None":
        """The job that ``init_from`` names by its overrides; it is to be trained first. None: a folder, or nothing.

        How and where this job works (device, threads, outputs ...) holds for that one, too.
        """
        name = getattr(self.config, "init_from", None)
        if not name or Path(name).is_dir():
            return None
        kept = [text for text in self.overrides if parse(text).key_or_group in NOT_RESULT - {"name", "overwrite"}]
        return job(self.door, [*name.split(","), *kept], self.is_sweep)


def job(door: str, overrides: list[str], is_sweep: bool = False) -> Job:
    """Compose, build and check one job from overrides as a person types them; raise :class:`ConfigError`."""
    overrides = all_as_hydra_reads(overrides)
    composed = compose(door, overrides)
    config = typed(composed)
    check(config)
    plain = OmegaConf.to_container(composed)
    name = getattr(config, "name", None)
    readable = [re.sub(r"^([\w.]+)='([\w./-]+)'$", r"\1=\2", text) for text in overrides]
    made = Job(config, typing.cast(dict[str, Any], plain), name or slug(overrides), door, readable, is_sweep)
    check_first(made)
    return made


def check_first(made: Job) -> None:
    """Raise :class:`ConfigError` where ``init_from`` names a run by overrides that make none."""
    try:
        _ = made.first
    except ConfigError as error:
        given = getattr(made.config, "init_from", None)
        raise ConfigError("init_from", given, f"there is no such folder, and as the name of a run: {error}") from error


def jobs(door: str, overrides: list[str]) -> list[Job]:
    """Every job of a sweep (-m), all checked before the first one works."""
    overrides = all_as_hydra_reads(overrides, is_sweep=True)
    planned: dict[str, Job] = {}
    with composing():
        for combination in combinations(overrides, GlobalHydra.instance().config_loader()):
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
