"""``task=attention``: how much written text attends to planning tokens, and how much to the text around them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from latent_lab.job import Job


@dataclass
class AttentionTask:
    """Attention in every layer and head over the gold chains of a split, for runs with planning tokens."""

    def run(self, job: "Job") -> dict[str, Any]:
        """Write ``heads.csv``, ``heads.png`` and then ``result.json`` into ``out``, and return the result."""
        from latent_lab.report.attention import attention

        return attention(self, job)
