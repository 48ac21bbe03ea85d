"""``task=iterations``: what thinking again about the same problems does to the answers, out of published results."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from latent_lab.job import Job


@dataclass
class IterationsTask:
    """Analyse results of iterated summarisation, method against method; no model is loaded, and no run is needed.

    With ``judge=openai`` or ``local`` a language model says beside the rules what each sentence does.
    """

    needs_run: ClassVar[bool] = False
    needs_dataset: ClassVar[bool] = False
    takes_judge: ClassVar[bool] = True
    takes_rules: ClassVar[bool] = False

    path: str = ""
    """A table (.csv) with a row for each method, run and problem; the ``results.json`` of a run; or a folder of such files.
    :mod:`latent_lab.deliberation.forms` names their columns and fields."""

    def run(self, job: "Job") -> dict[str, Any]:
        """Analyse, write samples, table, figure and page, and then ``result.json``, and return the result."""
        from latent_lab.report.iterations import iterations

        return iterations(self, job)
