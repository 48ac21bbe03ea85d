"""``task=answers``: one run is graded; several, or one with tools, become a study with tables, tests, figures and a page."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from latent_lab.grading.task import Answers

if TYPE_CHECKING:
    from latent_lab.job import Job


@dataclass
class AnswersTask(Answers):
    """Free-running greedy answers, which must stop by themselves, on one split of a dataset."""

    takes_runs: ClassVar[bool] = True
    takes_tool: ClassVar[bool] = True

    def run(self, job: "Job") -> dict[str, Any]:
        """Grade, write what belongs to it and then ``result.json`` into ``out``, and return the result."""
        if len(job.config.runs) == 1 and not job.config.tools:
            return super().run(job)
        from latent_lab.report.study import study  # only now: importing torch takes longer than all of the above

        return study(job)
