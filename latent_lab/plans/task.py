"""``task=plans``: does a run do what it announces? One step's tokens are exchanged or left out, and the step is read."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from latent_lab.job import Job


@dataclass
class PlansTask:
    """Answers with their plans as ``task=answers`` has them, and the same problems with one block of the gold plan changed."""

    step: int = 0
    """The step whose block is changed, counted from 0; problems without such a step stay out."""

    def __post_init__(self) -> None:
        if self.step < 0:
            raise ValueError(f"step={self.step}: allowed are 0 (the first step) and more")

    def run(self, job: "Job") -> dict[str, Any]:
        """Grade, change, write ``samples.jsonl`` and then ``result.json`` into ``out``, and return the result."""
        from latent_lab.plans.effects import plans

        return plans(self, job)
