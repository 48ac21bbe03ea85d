"""A run is one folder: complete or absent, worked on by one process at a time, and reused when the same is asked for again.

``config.yaml`` is written first and ``result.json`` last, so a folder with a result is a finished run. Between them stand
``provenance.json`` (an entry an attempt), ``metrics.jsonl``, ``samples.jsonl`` and checkpoints.
"""

import fcntl
import json
import logging
import math
import os
import secrets
import socket
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import yaml

from latent_lab.files import TEMPORARY, append_line, atomic, flatten, remove, repair, write_json, write_lines
from latent_lab.provenance import now, provenance, redact

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator

log = logging.getLogger(__name__)

CONFIG, PROVENANCE, RESULT = "config.yaml", "provenance.json", "result.json"
METRICS, SAMPLES = "metrics.jsonl", "samples.jsonl"
LOCK = ".lock"
NOTHING = {"_target_": "latent_lab.config.Nothing"}
"""The option ``none`` of a group, as a stored config has it."""
DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("auto", "fp32", "bf16")


class RunConflict(ValueError):
    """A folder that holds something else than the run asked for; the message says what, and what to do."""


class DeviceError(ValueError):
    """A device this machine does not have; the message says what it has."""


class Tracker(Protocol):
    """Where metrics go besides ``metrics.jsonl``; :mod:`latent_lab.tracking` has those that ``tracker=`` selects."""

    def start(self, run_name: str, folder: Path, config: dict[str, Any], job_type: str, group: str | None) -> None:
        """Open, or continue, what belongs to the run in ``folder``; ``config`` holds no secrets."""
        ...

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Send the finite numbers of one step."""
        ...

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[str | float | None]], step: int) -> None:
        """Send a table."""
        ...

    def summary(self, result: dict[str, Any]) -> None:
        """Send the final result."""
        ...

    def finish(self, *, failed: bool) -> None:
        """Send what is left and close."""
        ...


@dataclass
class Run:
    """An opened run. In a job of several processes only the main one writes; on the others the methods do nothing."""

    folder: Path
    config: dict[str, Any]
    """Without secrets."""
    is_main: bool = True
    result: dict[str, Any] | None = None
    """What a complete run found; None while there is work to do."""
    _tracker: Tracker | None = field(default=None, init=False)
    _step: int = field(default=0, init=False)
    _has_samples: bool = field(default=False, init=False)

    def track(self, tracker: Tracker, *, job_type: str, group: str | None = None) -> None:
        """Send metrics, samples and result to a tracker, too, from now on; ``job_type`` is train or eval."""
        if self.is_main:
            tracker.start(self.folder.name, self.folder, self.config, job_type, group)
            self._tracker = tracker

    def log(self, metrics: Mapping[str, float | int | str], step: int) -> None:
        """Append a row to ``metrics.jsonl``, with null for a number that is not finite; finite numbers also go to the tracker."""
        if not self.is_main:
            return
        self._step = step
        row = {key: None if isinstance(v, float) and not math.isfinite(v) else v for key, v in metrics.items()}
        with (self.folder / METRICS).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **row}, ensure_ascii=False) + "\n")
        if self._tracker:
            numbers = {key: v for key, v in row.items() if isinstance(v, int | float)}
            if "stage" in row:  # a dashboard draws a curve a key: this gives each stage its own
                numbers |= {f"stage_{row['stage']}/{key}": v for key, v in numbers.items() if "/" in key}
            self._tracker.log(numbers, step)

    def rewind(self, step: float) -> None:
        """Drop the metric rows after ``step``, and a last row torn by a crash; the rows that stay keep their bytes."""
        path = self.folder / METRICS
        if not self.is_main or not path.exists():
            return
        lines = [line for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
        with atomic(path) as temporary:
            temporary.write_bytes(b"".join(line for line in lines if json.loads(line)["step"] <= step))

    def sample(self, row: Mapping[str, Any]) -> None:
        """Add a row to ``samples.jsonl`` as soon as it is known, for whoever follows; :meth:`samples` writes all in the end.

        The first row of a process begins the file anew.
        """
        if self.is_main:
            append_line(self.folder / SAMPLES, row, is_first=not self._has_samples)
            self._has_samples = True

    def samples(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write ``samples.jsonl``, and send it to the tracker as one table; there, a list or dict in a cell is its JSON."""
        if not self.is_main:
            return
        write_lines(self.folder / SAMPLES, rows)
        if self._tracker:
            columns = list(dict.fromkeys(key for row in rows for key in row))
            self._tracker.table("samples", columns, [[_cell(row.get(key)) for key in columns] for row in rows], self._step)

    def finish(self, result: dict[str, Any]) -> None:
        """Complete the run: write ``result.json``, tell the tracker, and close it."""
        if self.is_main:
            write_json(self.folder / RESULT, result)
            if self._tracker:
                self._tracker.summary(result)
            self._close_tracker(failed=False)
        # As a later process will read it: tuples as lists, keys as text.
        self.result = json.loads(json.dumps(result))

    def _close_tracker(self, *, failed: bool) -> None:
        tracker, self._tracker = self._tracker, None
        if tracker:
            tracker.finish(failed=failed)


def _cell(value: Any) -> str | float | None:
    return value if isinstance(value, str | float | int | None) else json.dumps(value, ensure_ascii=False)


@contextmanager
def open_run(
    folder: Path,
    config: Mapping[str, Any],
    *,
    command: Sequence[str],
    ignore: frozenset[str] = frozenset(),
    overwrite: bool = False,
    is_main: bool = True,
) -> Iterator[Run]:
    """Open the run of ``config`` in ``folder``, for one process at a time: a second one waits until the first has closed it.

    A complete run comes with its ``result``; an unfinished one is continued; ``overwrite`` empties the folder first. Dotted keys
    in ``ignore`` (``device``, or ``tracker`` with all below it) may differ from the stored config. Nothing secret is stored. The
    other processes of a job open the run with ``is_main=False`` once the main one has; they neither lock nor write, and see the
    same ``result``.

    Raises :class:`RunConflict` where the folder holds the run of another config, or files that are no run at all.
    """
    text = yaml.safe_dump(redact(config), sort_keys=False, allow_unicode=True)
    given = yaml.safe_load(text)
    if not is_main:
        yield Run(folder, given, is_main=False, result=_stored_result(folder))
        return
    folder.mkdir(parents=True, exist_ok=True)
    _refuse_foreign(folder)
    with _locked(folder):
        repair(folder)
        if overwrite:
            _empty(folder)
        if (folder / CONFIG).exists():
            _compare(folder, given, ignore)
        else:
            with atomic(folder / CONFIG) as temporary:
                temporary.write_text(text, encoding="utf-8")
        run = Run(folder, given, result=_stored_result(folder))
        if run.result is None:
            run.rewind(math.inf)
            _add_attempt(folder, command)
        try:
            yield run
        except BaseException:
            run._close_tracker(failed=True)
            raise
        run._close_tracker(failed=False)


def finished(folder: Path, config: Mapping[str, Any], ignore: frozenset[str] = frozenset()) -> dict[str, Any] | None:
    """Return the stored result of a complete run of ``config`` without opening it, or None; RunConflict as :func:`open_run`."""
    result = _stored_result(folder) if (folder / CONFIG).exists() else None
    if result is not None:
        _compare(folder, yaml.safe_load(yaml.safe_dump(redact(config))), ignore)
    return result


def say_complete(folder: Path) -> None:
    """Say that a folder's result is there already and is used as it is."""
    log.info("%s is complete; its stored result is used (overwrite=true does it again)", folder)


def say_result(folder: Path, lines: Iterable[str], files: Iterable[str]) -> None:
    """Say what a result says, and last of all which files its folder holds."""
    for line in lines:
        log.info("%s", line)
    log.info("%s: %s", folder, ", ".join(files))


@contextmanager
def open_run_together(at: "Accelerator", folder: Path, config: Mapping[str, Any], **options: Any) -> Iterator[Run]:
    """Open a run on every process of a job as :func:`open_run` does: the main one first, the others once it has."""
    if not at.is_main_process:
        at.wait_for_everyone()
    with open_run(folder, config, is_main=at.is_main_process, **options) as run:
        if at.is_main_process:
            at.wait_for_everyone()
        yield run


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; the operating system frees it when its holder ends, in whatever way."""
    with (folder / LOCK).open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            log.warning("%s is being worked on by %s; waiting for it to end", folder, file.read() or "another process")
            fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()} since {now()}")
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def _refuse_foreign(folder: Path) -> None:
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    if names and CONFIG not in names:
        raise RunConflict(
            f"{folder} is not a run: it holds {', '.join(names[:3])}{', ...' * (len(names) > 3)} but no {CONFIG}. "
            "Nothing was touched; give the run another folder with name=..."
        )


def _empty(folder: Path) -> None:
    """Delete all but the lock, the result first and the config last: killed at any moment, it leaves an unfinished run."""
    trash = folder / f"{TEMPORARY}{secrets.token_hex(4)}"
    entries = sorted(folder.iterdir(), key=lambda path: {RESULT: 0, CONFIG: 2}.get(path.name, 1))
    trash.mkdir()
    for path in entries:
        if path.name != LOCK:
            path.rename(trash / path.name)
    remove(trash)


def _compare(folder: Path, given: dict[str, Any], ignore: frozenset[str]) -> None:
    found = list(differing(yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8")), given, ignore).values())
    if found:
        lines = " " + "; ".join(found) + ". " if len(found) <= 3 else "".join(f"\n  {line}" for line in found) + "\n"
        raise RunConflict(
            f"{folder} holds a run with another config:{lines}Say overwrite=true to redo it, or name=... for another folder"
        )


def differing(stored: Mapping[str, Any], given: Mapping[str, Any], ignore: frozenset[str]) -> dict[str, str]:
    """In what two configs differ: by dotted key, the key with both values in words. What is in ``ignore`` may differ."""
    left, right = flatten(stored), flatten(_without_younger(stored, given))
    return {
        key: f"{key}: stored {_shown(left, key)}, given {_shown(right, key)}"
        for key in {**left, **right}
        if _shown(left, key) != _shown(right, key) and not any(f"{key}.".startswith(f"{ignored}.") for ignored in ignore)
    }


def _without_younger(stored: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """A config without what is younger than the stored one and changes nothing.

    These are groups of which nothing is chosen, and options at their defaults: an option is added with the default that leaves
    everything as it was.
    """
    usual = _defaults(given.get("_target_")) if given.get("_target_") == stored.get("_target_") else {}
    kept: dict[str, Any] = {}
    for key, value in given.items():
        is_known, before = key in stored, stored.get(key)
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            kept[key] = _without_younger(before, value)
        elif is_known or (value != NOTHING and not (key in usual and value == usual[key])):
            kept[key] = value
    return kept


def _defaults(target: str | None) -> dict[str, Any]:
    """The default of each option of a class named as in a config; a config in use has imported its classes."""
    module, _, name = (target or "").rpartition(".")
    made = getattr(sys.modules.get(module), name, None)
    found = fields(made) if isinstance(made, type) and is_dataclass(made) else ()
    usual = {each.name: each.default for each in found if each.default is not MISSING}
    return usual | {each.name: each.default_factory() for each in found if each.default_factory is not MISSING}


def _shown(flat: dict[str, Any], key: str) -> str:
    return json.dumps(flat[key], ensure_ascii=False, default=str) if key in flat else "nothing"


def _stored_result(folder: Path) -> dict[str, Any] | None:
    path = folder / RESULT
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _add_attempt(folder: Path, command: Sequence[str]) -> None:
    path = folder / PROVENANCE
    attempts = json.loads(path.read_text(encoding="utf-8"))["attempts"] if path.exists() else []
    write_json(path, {"attempts": [*attempts, provenance(command)]})


def seed_everything(seed: int) -> None:
    """Seed the generators of Python, NumPy and PyTorch (on every device); ValueError outside 0 to 2**32 - 1."""
    import random

    import numpy
    import torch

    if not 0 <= seed < 2**32:
        raise ValueError(f"seed={seed}: allowed are 0 to {2**32 - 1}")
    random.seed(seed)
    numpy.random.seed(seed)
    torch.manual_seed(seed)


def resolve_precision(device: str, precision: str, *, has_bf16: bool = True) -> tuple[str, str]:
    """Return the number format to compute in (fp32 or bf16) and the reason; ``has_bf16`` says whether the GPU has bf16.

    ``device=auto`` is judged like ``cuda``: what a machine has is known when work begins, and :func:`accelerator` asks again
    then. ValueError for an unknown word, and for bf16 on a CPU.
    """
    for key, value, allowed in (("device", device, DEVICES), ("precision", precision, PRECISIONS)):
        if value not in allowed:
            raise ValueError(f"{key}={value}: allowed are {', '.join(allowed)}")
    if device == "cpu":
        if precision == "bf16":
            raise ValueError("precision=bf16: with device=cpu allowed are auto, fp32, because CPUs are far slower in bf16")
        return "fp32", "the device is a CPU"
    if precision != "auto":
        return precision, "as asked"
    return ("bf16", "the GPU has it") if has_bf16 else ("fp32", "the GPU has no bf16")


@contextmanager
def accelerator(device: str = "auto", precision: str = "auto", **options: Any) -> Iterator["Accelerator"]:
    """Make Accelerate's accelerator for one job (``options`` are its own arguments) and clear its process-wide state afterwards.

    Otherwise the next job of a sweep, which runs in the same process, would inherit this one's precision. The process group of a
    job with several processes stays for the next job. ValueError as :func:`resolve_precision`, and where there is no such device.
    """
    resolve_precision(device, precision)
    import torch
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, GradientState

    has_cuda = torch.cuda.is_available()
    if device == "cuda" and not has_cuda:
        raise DeviceError("device: given cuda; PyTorch finds no GPU on this machine; allowed: auto, cpu")
    device = "cuda" if has_cuda and device != "cpu" else "cpu"
    has_bf16 = device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    precision, reason = resolve_precision(device, precision, has_bf16=has_bf16)
    log.info("device %s, precision %s: %s", device, precision, reason)
    try:
        yield Accelerator(cpu=device == "cpu", mixed_precision="bf16" if precision == "bf16" else "no", **options)
    finally:
        AcceleratorState._reset_state(True)
        GradientState._reset_state()


def device_at_work() -> "torch.device":
    """The device of the job at work (see :func:`accelerator`); outside of one, a GPU if there is one."""
    import torch
    from accelerate.state import PartialState

    if PartialState._shared_state:
        return PartialState().device
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
