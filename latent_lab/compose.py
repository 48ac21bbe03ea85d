"""From overrides to a composed configuration, and from that to dataclasses; what is wrong is said in one line.

With :mod:`latent_lab.overrides` and the door, all that knows Hydra and OmegaConf.
"""

import importlib
import re
import types
import typing
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import field, fields, is_dataclass, make_dataclass
from typing import Any

import hydra
import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.errors import HydraException, InstantiationException, MissingConfigException
from hydra.plugins.config_source import ConfigResult, ConfigSource
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException, ValidationError

from latent_lab.config import GROUPS, ConfigError, meant
from latent_lab.overrides import check_grammar, config_folder, given, option

COMPOSITION_ERRORS = (HydraException, OmegaConfBaseException, ValueError, yaml.YAMLError)


def component(dotted: str) -> type:
    """The dataclass of that name; nothing else is ever built from a configuration, whoever wrote it."""
    module, _, name = dotted.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, ValueError, AttributeError) as error:
        raise ConfigError("_target_", dotted, f"it cannot be imported ({error}); allowed: package.module.Class") from error
    if not (isinstance(found, type) and is_dataclass(found)):
        raise ConfigError("_target_", dotted, "allowed: dataclasses")
    return found


def schema(dotted: str) -> DictConfig:
    """The defaults and types of a dataclass; its ``_target_`` makes ``instantiate`` build that very class again."""
    target = ("_target_", str, field(default=dotted, kw_only=True))
    return OmegaConf.structured(make_dataclass(dotted.rpartition(".")[2], [target], bases=(component(dotted),)))


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
    return hydra.initialize_config_dir(str(config_folder()), version_base="1.3")


def compose(door: str, overrides: list[str]) -> DictConfig:
    """Compose ``conf/DOOR.yaml``, resolved; what is wrong with the overrides (in Hydra's grammar) is a :class:`ConfigError`."""
    check_grammar(overrides)
    with composing():
        try:
            composed = hydra.compose(door, overrides)
            OmegaConf.resolve(composed)
        except COMPOSITION_ERRORS as error:
            raise explained(error, door, overrides) from error
    return composed


def typed(composed: DictConfig | dict[str, Any]) -> Any:
    """Build the dataclasses a composed or stored configuration describes: the one place that instantiates.

    A component's own complaint (a ValueError that starts ``field=value: ``, or ``field.part=value: `` for settings within one)
    becomes a :class:`ConfigError` about the whole key.
    """
    node = composed if isinstance(composed, DictConfig) else OmegaConf.merge(schema(composed["_target_"]), composed)
    for part in (node, *node.values()):
        if isinstance(part, DictConfig) and "_target_" in part:
            component(part["_target_"])
    try:
        return hydra.utils.instantiate(node, _convert_="object")
    except InstantiationException as error:
        where = re.search(r"full_key: (\S+)", str(error))
        prefix = f"{where[1]}." if where else ""
        if unknown := re.search(r"unexpected keyword argument '(\w+)'", str(error.__cause__)):
            rest = "this version knows no such setting; allowed: runs made by this version, so train it again"
            raise ConfigError(prefix + unknown[1], OmegaConf.select(node, prefix + unknown[1]), rest) from error
        if not isinstance(error.__cause__, ValueError):
            raise
        field_, value, rest = re.fullmatch(r"(?s)(?:([\w.]+)=(.*?): )?(.*)", str(error.__cause__)).groups()  # type: ignore[union-attr]
        key = prefix + field_ if field_ else prefix.rstrip(".")
        raise ConfigError(key, value, rest.replace("allowed are", "allowed:", 1)) from error


def explained(error: Exception, door: str, overrides: list[str]) -> ConfigError:
    """Say what Hydra or OmegaConf complains about in one line: the key, what was given, what is allowed."""
    if isinstance(error, ConfigError):
        return error
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
            return unknown_key(root, key, value, overrides, suffix)
    reason = " ".join(str(cause).split())
    # What is left has no words of its own for the key: the culprit is the override that composes no more.
    for count in range(len(overrides)):
        try:
            OmegaConf.resolve(hydra.compose(door, overrides[: count + 1]))
        except COMPOSITION_ERRORS:
            key = overrides[count].partition("=")[0]
            return ConfigError(key, given(key, overrides), f"{reason}; allowed: what --cfg job shows")
    return ConfigError(f"{door}.yaml", None, reason)


def unknown_key(root: DictConfig, key: str, value: Any, overrides: list[str], suffix: str = "") -> ConfigError:
    """The error for a key nobody declared; names the keys beside it, and the one that was probably meant."""
    parent = key.rpartition(".")[0]
    node = OmegaConf.select(root, parent) if parent else root
    if not node:
        return ConfigError(key, value, f"{parent} is null; allowed: only after {parent}=OPTION")
    known = sorted(dotted_keys(OmegaConf.to_container(root)), key=lambda name: name.rpartition(".")[0] != parent)
    beside = ", ".join(dotted_keys({str(name): None for name in node})) or "none"
    chosen = option(parent, overrides) if parent in GROUPS else None
    missing = f"{parent}={chosen} has no such key" if chosen else "there is no such key"
    return ConfigError(key, value, f"{missing}; allowed: {beside}{meant(key, [*known, *GROUPS])}{suffix}")


def dotted_keys(plain: Any, prefix: str = "") -> Iterator[str]:
    """Every key of a configuration in full, branches before their leaves."""
    for name, value in plain.items():
        if name not in ("_target_", "hydra"):
            yield f"{prefix}{name}"
            yield from dotted_keys(value, f"{prefix}{name}.") if isinstance(value, dict) else ()


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
