"""What made a result: command, code, versions and machine, without any secret."""

import hashlib
import importlib.metadata
import os
import platform
import re
import socket
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

PACKAGES = (
    *("latent_lab", "torch", "transformers", "tokenizers", "accelerate", "peft", "datasets", "safetensors", "numpy", "scipy"),
    *("hydra-core", "omegaconf", "wandb", "trackio", "tensorboard"),
)
"""Packages whose versions are recorded, where installed."""
MASK = "***"
SECRET_NAME = re.compile(r"(?:^|[_.\-])(?:(?:api)?key|token|secret|passw(?:or)?d|passphrase|credentials?)$", re.IGNORECASE)
PLAIN_NAME = re.compile(
    r"(?:^|[_.\-])(?:(?:bos|eos|pad|unk|sep|cls|mask|start|end|latent|thought|pause|plan|memory|reason|step|answer|special)_token"
    r"|(?:sort|group|cache|question|answer|steps?|id|label|field|column)_key)$",
    re.IGNORECASE,
)
"""Names that end like a secret's but describe a model or dataset: masked, two configs that differ there would look equal."""
SECRET_VARIABLE = re.compile(r"_(?:KEY|TOKEN|SECRET|PASSWORD)$", re.IGNORECASE)
SHORTEST_SECRET = 8
"""Characters from which the value of an environment variable is looked for in text; a shorter one would mask ordinary words."""
ASSIGNMENT = re.compile(r"""([\w.\-]+)([=:]\s*)('[^']*'|"[^"]*"|[^,{}\[\]'"]+)""")


def redact(value: Any, key: str = "") -> Any:
    """Copy a config, or the value of one ``key``, with ``***`` in place of every secret; tuples become lists.

    A secret is text under a key that ends in key, token, secret, password or credentials (not ``eos_token``, ``tokenizer``,
    ``max_new_tokens``), and any occurrence of the value of an environment variable whose name ends in _KEY, _TOKEN, _SECRET or
    _PASSWORD (8 characters or more).
    """
    if isinstance(value, Mapping):
        return {name: redact(inner, key if _is_secret(key) else str(name)) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [redact(inner, key) for inner in value]
    if not isinstance(value, str):
        return value
    return MASK if value and _is_secret(key) else _without_variables(value)


def redact_command(command: Sequence[str]) -> list[str]:
    """Copy a command line with ``***`` in place of every secret, be it ``judge.api_key=...`` or ``judge={api_key: ...}``."""
    return [_redact_argument(_without_variables(argument)) for argument in command]


def provenance(command: Sequence[str]) -> dict[str, Any]:
    """Say what is about to run: command without secrets, time (UTC), code revision, package versions, machine."""
    return {
        "command": redact_command(command),
        "started": now(),
        "git": _git_state(),
        "python": platform.python_version(),
        "packages": _versions(),
        "platform": platform.platform(),
        "host": socket.gethostname(),
        "cpu_count": os.cpu_count(),
    }


def now() -> str:
    """The time in UTC, to the second: ``2026-01-31T09:30:00+00:00``."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _redact_argument(argument: str) -> str:
    key, sign, _ = argument.partition("=")
    if sign and _is_secret(key):
        return f"{key}={MASK}"
    return ASSIGNMENT.sub(lambda match: f"{match[1]}{match[2]}{MASK}" if _is_secret(match[1]) else match[0], argument)


def _is_secret(key: str) -> bool:
    return bool(SECRET_NAME.search(key)) and not PLAIN_NAME.search(key)


def _without_variables(text: str) -> str:
    for name, value in os.environ.items():
        if len(value) >= SHORTEST_SECRET and SECRET_VARIABLE.search(name):
            text = text.replace(value, MASK)
    return text


def _versions() -> dict[str, str]:
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _git_state(file: str = __file__) -> dict[str, Any] | None:
    """Revision and changes of the checkout that ``file`` is part of; None where there is none.

    ``changes`` is null in a clean tree, else a hash over the diff to the revision and the names of the files git does not know.
    """
    path = Path(file).resolve()

    def git(*arguments: str) -> bytes:
        command = ["git", "--no-optional-locks", "-C", str(path.parent), *arguments]
        return subprocess.run(command, check=True, capture_output=True).stdout

    try:
        # A package in a virtual environment may lie inside somebody else's checkout, whose revision would say nothing about it.
        git("ls-files", "--error-unmatch", path.name)
        revision = git("rev-parse", "HEAD").decode().strip()
        changes = git("status", "--porcelain") + git("diff", "HEAD", "--binary", "--no-ext-diff", "--no-color")
    except (FileNotFoundError, subprocess.CalledProcessError):
        return None
    digest = hashlib.sha256(changes).hexdigest()[:16] if changes else None
    return {"revision": revision, "dirty": bool(changes), "changes": digest}
