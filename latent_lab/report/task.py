"""``task=report``: everything ``task=answers`` measures, what can be read in the thoughts, and a page that shows it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from latent_lab.job import Job


@dataclass
class ReportTask:
    """Grade a run and write ``report.html`` beside ``result.json``."""

    problems: int = 10
    """Problems shown one by one, drawn at random with a fixed seed from those graded."""
    longer: int = 1
    """For ``dataset=arithmetic``: also answer sums of so many digits more than were trained; 0 leaves that out."""
    longer_size: int = 500
    """How many of those."""
    thoughts: str | None = None
    """Folder of a finished ``task=thoughts`` about the same run: its verdict and its explorer come onto the page."""
    title: str = "A model that thinks in vectors"
    """Headline of the page."""

    def __post_init__(self) -> None:
        for name, least in (("problems", 1), ("longer", 0), ("longer_size", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)}: allowed are {least} and more")

    def run(self, job: "Job") -> dict[str, Any]:
        """Grade, read, write the page and then ``result.json`` into ``out``, and return the result."""
        from latent_lab.report.make import report

        return report(self, job)
