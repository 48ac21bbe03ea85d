"""Overrides, ``KEY=VALUE`` and ``GROUP=OPTION``: from what a person types to what Hydra reads, and to the name of a run."""

import hashlib
import itertools
import json
import os
import re
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, OverrideParseException

from latent_lab.config import GROUPS, NOT_RESULT, ConfigError, meant

LONGEST_SLUG = 120
"""Characters; many file systems end at 255, and suffixes must still fit."""

PATHS = (
    *(
        "run",
        "init_from",
        "out",
        "outputs",
        "name",
        "model.path",
        "model.state",
        "plan.model",
        "dataset.path",
        "task.runs",
        "task.path",
    ),
    *("judge.path", "judge.model", "judge.base_url", "judge.prompt"),
    *(f"{group}.{key}" for group in ("backend", "summariser") for key in ("path", "model", "base_url", "tokenizer")),
    *(f"task.{kind}" for kind in ("reason", "again", "summarise", "summarise_chunk", "running")),
)
"""Keys whose value is a path or a run's name, quoted for Hydra whatever characters it holds."""


def config_folder() -> Path:
    """The absolute path of ``conf/``: inside an installed package, or beside the package in a checkout."""
    package = Path(__file__).resolve().parent
    return package / "conf" if (package / "conf").is_dir() else package.parent / "conf"


def options(group: str) -> list[str]:
    """The choices of a config group, sorted."""
    return sorted(file.stem for file in Path(config_folder(), group).glob("*.yaml"))


def all_as_hydra_reads(overrides: list[str], is_sweep: bool = False) -> list[str]:
    """Do :func:`as_hydra_reads` for a whole command line, in which ``path`` is the task's: ``task=regrade path=FILE``."""
    if any(override.startswith("task=") for override in overrides):
        overrides = [re.sub("^path=", "task.path=", override) for override in overrides]
    return [text for override in overrides for text in as_hydra_reads(override, is_sweep)]


def as_hydra_reads(override: str, is_sweep: bool = False) -> list[str]:
    """Turn an override as a person types it into what Hydra's grammar takes.

    A digit is no legal choice of a group (``stage=3``) unless quoted, a folder is no option (``model=./mine``), names of runs
    hold ``=`` and ``,``, and a sign (``+key=value``) adds nothing, since every key is declared. What is quoted already, and
    everything else, stays as it is.
    """
    if not override.startswith(("+hydra", "++hydra")):
        override = override.lstrip("+")
    key, _, value = override.partition("=")
    if not value or value[0] in "'\"[{$":
        return [override]
    if key == "model" and ("/" in value or (value not in options("model") and os.path.isdir(value))):
        return ["model=folder", f"model.path={quoted_paths(value, is_sweep)}"]
    if key in PATHS and value != "null":  # nothing, and no file of that name
        return [f"{key}={quoted_paths(value, is_sweep)}"]
    if key in GROUPS:
        return [f"{key}=" + re.sub(r"(?<![^,])\d+(?![^,])", r"'\g<0>'", value)]
    return [override]


def as_typed(word: str) -> str:
    """A word of a command without the quotes that Hydra needs and a person does not type."""
    bare = re.sub(r"^([\w.]+)='(.*)'$", r"\1=\2", word)
    return bare if as_hydra_reads(bare) == [word] else word


def quoted_paths(value: str, is_sweep: bool) -> str:
    """Quote a path, or each of a sweep's; a path with a comma in it counts as one where it exists."""
    beneath = os.path.join(os.environ.get("LATENT_LAB_OUTPUTS", "outputs"), value)
    one = not is_sweep or os.path.exists(value) or os.path.exists(beneath)  # Path.exists raises for names too long to be files
    return ",".join("'" + path.replace("'", r"\'") + "'" for path in ([value] if one else value.split(",")))


def parse(override: str, loader: ConfigLoader | None = None) -> Override:
    """Parse one override, or raise :class:`ConfigError`; ``loader`` is what a sweep over ``glob(*)`` looks options up with."""
    key, equals, value = override.partition("=")
    if key.startswith("~"):
        raise ConfigError(key[1:], override, f"nothing can be removed; allowed: {key[1:]}=VALUE")
    if not key or not equals:
        raise ConfigError(key or override, None, f"allowed: {key or 'KEY'}=VALUE{meant(key, GROUPS)}")
    try:
        return OverridesParser.create(config_loader=loader).parse_overrides([override])[0]
    except OverrideParseException as error:
        rest = f"it cannot be read; allowed: plain values, or text in two pairs of quotes, as in {key}=\"'TEXT'\""
        raise ConfigError(key, value, rest) from error


def check_grammar(overrides: list[str]) -> None:
    """Raise :class:`ConfigError` for what Hydra would refuse in words about its own insides."""
    for override in map(parse, overrides):
        key, value = override.key_or_group, override.get_value_string()
        if override.is_sweep_override() and key in GROUPS:
            raise ConfigError(key, value.replace("'", ""), "allowed: one option, or several with -m")
        if override.is_sweep_override():
            several = f"several with -m, a list as {key}=[{value}], text as {key}=\"'{value}'\""
            raise ConfigError(key, value, f"allowed: one value ({several})")
        if key in GROUPS and not isinstance(override.value(), str):
            raise ConfigError(key, value, f"allowed: {', '.join(options(key))}")


def combinations(overrides: list[str], loader: ConfigLoader) -> list[list[str]]:
    """The overrides of every job of a sweep, the last one changing fastest; of several with one key the last counts."""
    choices: dict[str, list[str]] = {}
    for override in (parse(text, loader) for text in overrides):
        key, value = override.get_key_element(), override.get_value_string()
        try:
            values = list(override.sweep_string_iterator()) if override.is_sweep_override() else [value]
        except (HydraException, TypeError):  # interval(0,1), which has no end; glob(3), which Hydra takes for a number
            values = []
        if not values:
            raise ConfigError(key, value, "that is no value at all; allowed: A,B or range(1,4) or, for options, glob(*)")
        choices[key] = [f"{key}={each}" for each in values]
    return [list(combination) for combination in itertools.product(*choices.values())]


def given(key: str, overrides: list[str]) -> str | None:
    """What the command line says about ``key`` or something inside it, else about what is around it (the last word counts)."""
    parsed = [*map(parse, reversed(overrides))]
    inside = [each for each in parsed if f"{each.key_or_group}.".startswith(f"{key}.")]
    around = [each for each in parsed if f"{key}.".startswith(f"{each.key_or_group}.")]
    for override in (*inside, *around):
        value = override.value()
        return value if isinstance(value, str) else override.get_value_string()
    return None


def option(group: str, overrides: list[str]) -> str | None:
    """The option of a group that the command line names last, or None."""
    named = [each.value() for each in map(parse, overrides) if each.key_or_group == group]
    return named[-1] if named and isinstance(named[-1], str) else None


def slug(overrides: list[str]) -> str:
    """Name a run by the overrides that change its result: groups first, then keys by name; ``default`` if there are none."""
    chosen: dict[str, str] = {}
    for override in map(parse, overrides):
        key = override.key_or_group
        if not NOT_RESULT & {key, key.partition(".")[0]} and not override.is_hydra_override():
            chosen[override.key_or_group] = in_a_name(override.value())
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
