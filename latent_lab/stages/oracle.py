"""``stage=oracle``: train a language model to answer questions about the thoughts of a finished run. Imports no torch."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from latent_lab.schedule import Phase
from latent_lab.sequences import Encoded, LatentTokens, Sequence
from latent_lab.stages.base import Stage

if TYPE_CHECKING:
    from latent_lab.job import Job


class OracleLayoutError(ValueError):
    """An oracle was asked to lay a problem out: it answers questions about thoughts, not problems."""


@dataclass
class OracleStage(Stage):
    """Whose thoughts are read. What reads them, and what it is asked, is ``oracle=``."""

    run: str = ""
    """A finished run's folder, or its name below ``outputs``. Its training problems train the oracle, its validation problems
    validate it."""
    weights: str | None = None
    """Hash of that run's weights; written down by the training, so that a run trained anew is not taken for the old one."""
    trains_oracle = True

    def phases(self) -> list[Phase]:
        """See :class:`Stage`: one stretch; an epoch asks as many questions as there are steps in the thoughts collected."""
        return [self.phase(0, self.epochs[0])]

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.epochs) != 1:
            raise ValueError(f"epochs={self.epochs}: give one number, the passes in all")
        if self.template != "plain":
            raise ValueError(f"template={self.template}: an oracle is asked in words of its own; allowed: plain")

    def sequence(self, problem: Encoded, tokens: LatentTokens, stage: int, draw: str | None = None) -> Sequence:
        """See :class:`Stage`; an oracle lays no problem out."""
        raise OracleLayoutError(f"run: a run of stage=oracle answers questions about thoughts ({self.run}), not problems")

    def prompt(self, problem: Encoded, tokens: LatentTokens, stage: int, num_slots: int | None = None) -> Sequence:
        """See :meth:`sequence`."""
        return self.sequence(problem, tokens, stage)

    def shape(self, problem: Encoded, stage: int, draw: str | None = None) -> tuple[int, int, int]:
        """See :meth:`sequence`."""
        raise OracleLayoutError(f"run: a run of stage=oracle answers questions about thoughts ({self.run}), not problems")

    def train(self, job: "Job") -> dict[str, Any]:
        """Train the oracle; see :mod:`latent_lab.thoughts.oracle_training`."""
        from latent_lab.thoughts.oracle_training import train  # only now: it imports torch

        return train(job)
