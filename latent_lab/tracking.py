"""Trackers: what ``tracker=`` selects. Each is a small typed configuration that fulfils :class:`latent_lab.run.Tracker`."""

import importlib
import json
import os
import secrets
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from latent_lab.files import atomic, flatten
from latent_lab.provenance import redact_command

Rows = Sequence[Sequence[str | float | None]]


class TrackerError(ValueError):
    """A tracker that cannot start; the message says what to install or change."""


@dataclass
class NoTracker:
    """The run's own files are all."""

    def start(self, run_name: str, folder: Path, config: dict[str, Any], job_type: str, group: str | None) -> None:
        """Do nothing."""

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Do nothing."""

    def table(self, name: str, columns: Sequence[str], rows: Rows, step: int) -> None:
        """Do nothing."""

    def summary(self, result: dict[str, Any]) -> None:
        """Do nothing."""

    def finish(self, *, failed: bool) -> None:
        """Do nothing."""


@dataclass
class Wandb:
    """Weights & Biases. A continued run stays one run there; curves are drawn over ``global_step``."""

    project: str = "latent_lab"
    """Project to log to."""
    entity: str | None = None
    """User or team; null takes the account's default."""
    group: str | None = None
    """Runs shown together; null takes what the run belongs to."""
    tags: list[str] = field(default_factory=list)
    """Labels to filter runs by."""
    mode: str = "online"
    """``online``, or ``offline``: files only, sent later by ``wandb sync``. The variable WANDB_MODE goes before it."""

    def __post_init__(self) -> None:
        if self.mode not in ("online", "offline"):
            raise ValueError(f"mode={self.mode}: allowed are online, offline")

    def start(self, run_name: str, folder: Path, config: dict[str, Any], job_type: str, group: str | None) -> None:
        """Open the run whose id is kept in the folder; TrackerError without the package or an account."""
        self._wandb = _package("wandb")
        mode = os.environ.get("WANDB_MODE", self.mode)
        try:
            with _redacted_arguments():
                self._run = self._wandb.init(
                    project=self.project,
                    entity=self.entity,
                    group=self.group or group,
                    tags=self.tags,
                    name=run_name,
                    job_type=job_type,
                    config=config,
                    id=_identifier(folder / "wandb_id"),
                    resume=None if mode == "offline" else "allow",
                    dir=str(folder),
                    mode=mode,
                    settings=self._wandb.Settings(console="off"),
                )
        except self._wandb.errors.Error as error:
            raise TrackerError(f"tracker=wandb: {error}; log in with `wandb login`, or say tracker.mode=offline") from error
        # W&B's own step must never decrease, which a run continued from a checkpoint breaks; a metric of our own may.
        self._run.define_metric("global_step", hidden=True)
        self._run.define_metric("*", step_metric="global_step")

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Send a row with its ``global_step``."""
        self._run.log({**metrics, "global_step": step})

    def table(self, name: str, columns: Sequence[str], rows: Rows, step: int) -> None:
        """Send a table."""
        table = self._wandb.Table(columns=list(columns), data=[list(row) for row in rows], allow_mixed_types=True)
        self._run.log({name: table, "global_step": step})

    def summary(self, result: dict[str, Any]) -> None:
        """Set the run's summary."""
        self._run.summary.update(result)

    def finish(self, *, failed: bool) -> None:
        """Close the run, as failed or finished."""
        self._run.finish(exit_code=int(failed))


@dataclass
class Trackio:
    """Trackio: a local dashboard (``trackio show``) over a database in TRACKIO_DIR, which belongs on a local disk."""

    project: str = "latent_lab"
    """Project to log to."""
    group: str | None = None
    """Runs shown together; null takes what the run belongs to."""

    def start(self, run_name: str, folder: Path, config: dict[str, Any], job_type: str, group: str | None) -> None:
        """Open a new run, or the one this folder already has; TrackerError without the package."""
        self._trackio = _package("trackio")
        self._step = 0
        continued = (folder / "trackio_id").exists()
        _identifier(folder / "trackio_id")
        # Trackio reports on stdout, which is for results.
        with redirect_stdout(sys.stderr):
            self._trackio.init(
                project=self.project,
                name=run_name,
                group=self.group or group,
                # It keeps keys that begin with "_" for itself; only ``_target_`` does, and that is the same for every run.
                config={key: value for key, value in config.items() if not key.startswith("_")} | {"job_type": job_type},
                resume="allow" if continued else "never",
                embed=False,
            )

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Send a row."""
        self._step = step
        self._trackio.log(dict(metrics), step=step)

    def table(self, name: str, columns: Sequence[str], rows: Rows, step: int) -> None:
        """Send a table."""
        self._step = step
        self._trackio.log({name: self._trackio.Table(columns=list(columns), data=[list(row) for row in rows])}, step=step)

    def summary(self, result: dict[str, Any]) -> None:
        """Send the result's numbers as metrics of the last step, named ``result/...``: Trackio has no summary."""
        self._trackio.log(_numbers(result), step=self._step)

    def finish(self, *, failed: bool) -> None:
        """Write what is left and close the run."""
        with redirect_stdout(sys.stderr):
            self._trackio.finish()


@dataclass
class TensorBoard:
    """TensorBoard event files in the run's folder: ``tensorboard --logdir outputs``."""

    def start(self, run_name: str, folder: Path, config: dict[str, Any], job_type: str, group: str | None) -> None:
        """Open an event file and store the config in it; TrackerError without the package."""
        _package("tensorboard")
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / "tensorboard"))
        self._step = 0
        self._text("config", {"job_type": job_type, "group": group, **config})

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Write scalars."""
        self._step = step
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)

    def table(self, name: str, columns: Sequence[str], rows: Rows, step: int) -> None:
        """Write a table as Markdown text."""
        lines = [columns, ["---"] * len(columns), *rows]
        self._step = step
        self._writer.add_text(name, "\n".join("| " + " | ".join(_markdown(cell) for cell in line) + " |" for line in lines), step)

    def summary(self, result: dict[str, Any]) -> None:
        """Write the result as text, and its numbers as scalars named ``result/...`` at the last step."""
        self._text("result", result)
        for name, value in _numbers(result).items():
            self._writer.add_scalar(name, value, self._step)

    def finish(self, *, failed: bool) -> None:
        """Write what is left and close the file."""
        self._writer.close()

    def _text(self, name: str, value: dict[str, Any]) -> None:
        block = "\n".join("    " + line for line in json.dumps(value, indent=1, ensure_ascii=False).splitlines())
        self._writer.add_text(name, block, self._step)


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise TrackerError(
            f'tracker={name} needs a package that is not installed ({error.name}): pip install "latent_lab[{name}]"'
        ) from error


def _identifier(path: Path) -> str:
    """The id kept in a file of the run, which is made with the first one; an emptied run folder gets a new one."""
    if not path.exists():
        with atomic(path) as temporary:
            temporary.write_text(secrets.token_hex(6) + "\n", encoding="ascii")
    return path.read_text(encoding="ascii").strip()


@contextmanager
def _redacted_arguments() -> Iterator[None]:
    """W&B stores the command line it finds in ``sys.argv``; let it find one without secrets."""
    arguments = sys.argv
    sys.argv = redact_command(arguments)
    try:
        yield
    finally:
        sys.argv = arguments


def _numbers(result: dict[str, Any]) -> dict[str, float]:
    return {f"result/{key.replace('.', '/')}": v for key, v in flatten(result).items() if isinstance(v, int | float)}


def _markdown(cell: str | float | None) -> str:
    """A cell that stays one cell, and markup a model wrote that stays text."""
    text = "" if cell is None else str(cell)
    for mark, harmless in (("&", "&amp;"), ("<", "&lt;"), ("|", "&#124;"), ("\n", "<br>")):
        text = text.replace(mark, harmless)
    return text
