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

    votes: int = 0
    """Answers whose plans are drawn, all other tokens greedy, for a vote beside one of as many in which every token is drawn; 0:
    none."""
    temperature: float = 1.0
    """With ``votes``: what the scores of tokens are divided by before one is drawn."""
    top_p: float = 0.95
    """With ``votes``: drawn are the fewest likeliest tokens that hold this share of the probability."""

    def __post_init__(self) -> None:
        if self.step < 0:
            raise ValueError(f"step={self.step}: allowed are 0 (the first step) and more")
        if self.votes < 0 or self.votes == 1:
            raise ValueError(f"votes={self.votes}: allowed are 0 (no vote), or 2 and more")
        if not self.votes and (self.temperature, self.top_p) != (1.0, 0.95):
            raise ValueError("votes=0: nothing is drawn, so temperature and top_p say nothing; leave them out, or give votes")
        if not self.temperature > 0:
            raise ValueError(f"temperature={self.temperature}: allowed are numbers above 0")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p={self.top_p}: allowed are shares above 0, up to 1")

    def run(self, job: "Job") -> dict[str, Any]:
        """Grade, change, write ``samples.jsonl`` and then ``result.json`` into ``out``, and return the result."""
        from latent_lab.plans.effects import plans

        return plans(self, job)
