"""``task=thoughts``: read a run's thoughts in every way there is, prove by intervention what of it matters, and show it all."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

from latent_lab.compose import typed
from latent_lab.config import ConfigError, EvalConfig
from latent_lab.run import CONFIG, RESULT
from latent_lab.thoughts.ladder import Thresholds

if TYPE_CHECKING:
    from latent_lab.job import Job


@dataclass
class ThoughtsTask:
    """Collect thoughts, read them, change them, and say how far each reading may be trusted."""

    layers: list[str] = field(default_factory=list)
    """Layers that are stored and probed, by number (``0`` is the thought itself, ``n`` the state after block n, negative from the
    end) or, with a point, by fraction of the depth (``0.5``). Empty: the thought and every block."""
    dtype: str = "float32"
    """How they are stored: ``float32``, ``float16`` or ``bfloat16``."""
    train_size: int = 4_000
    """Problems of the run's training split whose thoughts readers are fitted on."""
    oracle_run: str | None = None
    """A finished run of ``stage=oracle`` that reads this run; null: ``RUN-oracle-KIND``, which is trained first if missing."""
    other_run: str | None = None
    """The same run with another seed: its thoughts are one of the controls."""
    only: list[str] = field(default_factory=list)
    """Parts to do: ``lenses``, ``probes``, ``oracle``, ``interventions``; empty: all. A level that rests on
    a part left out stays untested."""
    intervened: int = 80
    """Problems whose thoughts are removed, replaced and moved; exchanges of columns take all."""
    examples: int = 12
    """Problems in the page's explorer, drawn with a fixed seed."""
    thresholds: Thresholds = field(default_factory=Thresholds)
    """What each level of the ladder takes."""
    title: str = "What is it thinking?"
    """Headline of the page."""

    def __post_init__(self) -> None:
        for name, least in (("train_size", 100), ("intervened", 1), ("examples", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)}: allowed are {least} and more")
        if self.dtype not in ("float32", "float16", "bfloat16"):
            raise ValueError(f"dtype={self.dtype}: allowed are float32, float16, bfloat16")
        try:
            _ = self.wanted_layers
        except ValueError:
            raise ValueError(f"layers={self.layers}: give numbers of layers, or fractions of the depth such as 0.5") from None
        if odd := [part for part in self.only if part not in PARTS]:
            raise ValueError(f"only={odd[0]}: allowed are {', '.join(PARTS)}")
        if wrong := self.thresholds.complaint:
            raise ValueError(f"thresholds.{wrong}")

    @property
    def wanted_layers(self) -> list[int | float]:
        """``layers`` as numbers; empty: all."""
        return [float(layer) if "." in layer else int(layer) for layer in self.layers]

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts to do."""
        return tuple(self.only) or PARTS

    def run(self, job: "Job") -> dict[str, Any]:
        """Do all of it, write the page and then ``result.json`` into ``out``, and return the result."""
        self.check_runs(job.config)
        from latent_lab.report.thoughts_make import thoughts

        return thoughts(self, job)

    def check_runs(self, config: EvalConfig) -> None:
        """Raise :class:`ConfigError` where ``oracle_run`` is no oracle or ``other_run`` no run that thinks, before any work."""
        if self.oracle_run is not None and not getattr(stage_of("oracle_run", self.oracle_run, config), "trains_oracle", False):
            raise ConfigError(
                "task.oracle_run", self.oracle_run, "that run is no oracle; allowed: a finished run of stage=oracle"
            )
        if self.other_run is not None and not getattr(stage_of("other_run", self.other_run, config), "has_slots", False):
            rest = "that run has no latent slots; allowed: the same run as run= with another seed"
            raise ConfigError("task.other_run", self.other_run, rest)


def stage_of(key: str, name: str, config: EvalConfig) -> Any:
    """The stage of a finished training run, by its folder or its name below ``outputs``; None of what is no training run."""
    folder = config.folder(name)
    if not (folder / RESULT).is_file():
        rest = f"that is no finished run; allowed: its folder, or its name below {config.outputs}"
        raise ConfigError(f"task.{key}", name, rest)
    stored = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))
    return typed(stored["stage"]) if "stage" in stored else None


PARTS = ("lenses", "probes", "oracle", "interventions")
