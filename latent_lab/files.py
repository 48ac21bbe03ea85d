"""Files and folders that appear whole or not at all."""

import json
import math
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TEMPORARY, REPLACED = ".tmp-", ".old-"
"""How names of unfinished files, and of folders about to be deleted, begin."""
BARE = r'[^\s",\[\]{}]+'
NUMBERS = re.compile(rf"\[\n *({BARE}(?:,\n *{BARE})*)\n *\]")
"""A list of numbers (or true, false, null) in indented JSON; no part of a string, where a line break is written as ``\\n``."""


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; what is written there takes its place when the block ends without an error."""
    temporary = path.with_name(f"{TEMPORARY}{secrets.token_hex(4)}-{path.name}")
    try:
        yield temporary
        _flush(temporary)
        temporary.replace(path)
        _flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as JSON, atomically, each list of numbers on a line of its own.

    ValueError names the first number that JSON cannot hold (NaN, infinity).
    """
    text = json.dumps(_finite(path, value), indent=1, ensure_ascii=False)
    text = NUMBERS.sub(lambda found: "[" + re.sub(r"\n *", " ", found[1]) + "]", text)
    with atomic(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object a line, atomically; ValueError names the first number that JSON cannot hold."""
    with atomic(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(_finite(path, row), ensure_ascii=False) + "\n")


def append_line(path: Path, row: Mapping[str, Any], *, is_first: bool = False) -> None:
    """Add one JSON object as a whole line, so that a reader sees all of it or nothing; the first one begins the file anew."""
    line = json.dumps(_finite(path, row), ensure_ascii=False) + "\n"
    with path.open("wb" if is_first else "ab", buffering=0) as file:
        file.write(line.encode())


@contextmanager
def atomic_folder(path: Path, *, is_main: bool = True, barrier: Callable[[], object] = lambda: None) -> Iterator[Path]:
    """Yield an empty folder beside ``path`` that takes its place, whole, when the block ends without an error.

    A crash at any moment leaves the old folder or the new one, if only after :func:`repair`. In a job of several processes every
    one enters with its ``is_main`` and the job's ``barrier``: all may write, the main process creates and publishes, and nobody
    leaves before the folder is in place. Nobody else may build the same folder at the same time.
    """
    staging = path.with_name(f"{TEMPORARY}{path.name}")
    if is_main:
        _settle(path)
        remove(staging)
        staging.mkdir(parents=True)
    barrier()
    try:
        yield staging
    except BaseException:
        if is_main:
            remove(staging)
        raise
    barrier()
    if is_main:
        for written in [*staging.rglob("*"), staging]:
            _flush(written)
        if path.exists():
            path.rename(path.with_name(f"{REPLACED}{path.name}"))
        staging.rename(path)
        _flush(path.parent)
        _settle(path)
    barrier()


def repair(folder: Path) -> None:
    """Put in order what a killed process left anywhere in ``folder``: half-done replacements of folders, and temporary files."""
    for old in list(folder.rglob(f"{REPLACED}*")):
        _settle(old.with_name(old.name.removeprefix(REPLACED)))
    for temporary in list(folder.rglob(f"{TEMPORARY}*")):
        remove(temporary)


def remove(path: Path) -> None:
    """Delete a file, link or folder, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def flatten(value: Any, key: str = "") -> dict[str, Any]:
    """Dotted keys to leaves: ``{"a": {"b": [1]}}`` becomes ``{"a.b.0": 1}``; an empty dict or list is a leaf."""
    items = list(value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list | tuple) else ())
    if not items:
        return {key: value}
    return {k: leaf for name, inner in items for k, leaf in flatten(inner, f"{key}.{name}" if key else str(name)).items()}


def _settle(path: Path) -> None:
    """Finish replacing a folder where a crash cut it short: the old one goes, or comes back where there is no new one."""
    old = path.with_name(f"{REPLACED}{path.name}")
    if path.exists():
        remove(old)
    elif old.exists():
        old.rename(path)


def _flush(path: Path) -> None:
    """Force a file or folder onto the disk, so that a rename never outlives its contents."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _finite(path: Path, value: Any) -> Any:
    for key, leaf in flatten(value).items():
        if isinstance(leaf, float) and not math.isfinite(leaf):
            raise ValueError(
                f"{path.name}: {key}={leaf} cannot be written as JSON: give a finite number, or None if there is none"
            )
    return value
