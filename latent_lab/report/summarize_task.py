"""``task=summarize``: iterated summarisation and its rivals, at equal tokens."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from latent_lab.deliberation.settings import Settings

if TYPE_CHECKING:
    from latent_lab.job import Job


@dataclass
class SummarizeTask(Settings):
    """Think about problems again and again, vote, and say what is right at how many tokens."""

    needs_run: ClassVar[bool] = False
    takes_backend: ClassVar[bool] = True

    def run(self, job: "Job") -> dict[str, Any]:
        """Deliberate, write ledger, samples, tables, figures and page, and then ``result.json``, and return the result."""
        from latent_lab.report.summarize import summarize

        return summarize(self, job)
