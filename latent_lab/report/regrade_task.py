"""``task=regrade``: somebody's outputs on word problems graded again, without and with the arithmetic tool."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from latent_lab.job import Job


@dataclass
class Regrade:
    """Grade a file of outputs by the published rules and by corrected ones; no model is loaded, and no run is needed."""

    needs_run: ClassVar[bool] = False
    needs_dataset: ClassVar[bool] = False
    takes_judge: ClassVar[bool] = True

    path: str = ""
    """File of the outputs, a list of records (.json) or a record a line (.jsonl), each with ``question``, ``text_output`` (what
    the model wrote, also with the question before it), ``answer_output`` (the answer read from it) and ``answer`` (gold)."""

    def run(self, job: "Job") -> dict[str, Any]:
        """Grade, write ``samples.jsonl``, ``tables.csv``, ``confusion.png`` and then ``result.json``, and return the result."""
        from latent_lab.report.regrade import regrade

        return regrade(self, job)
