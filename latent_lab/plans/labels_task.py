"""``task=labels``: does each step do what its label says, memory or reason? Somebody says who reads it without the label."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from latent_lab.grading.judge_prompt import load_prompt

if TYPE_CHECKING:
    from latent_lab.job import Job


@dataclass
class LabelsTask:
    """Labels of steps, those of a run's replies or a dataset's chains, judged by ``judge=``; of a run, also its first errors."""

    needs_run: ClassVar[bool] = False
    takes_judge: ClassVar[bool] = True
    needs_judge: ClassVar[bool] = True

    prompt: str = "v1"
    """Version of the question what each step does, or a file of your own with the slots ``{question}`` and ``{output}``."""
    error_prompt: str = "v1"
    """The same for the question which step of a wrong answer is the first wrong one; it has ``{gold}``, too."""
    tries: int = 3
    """How often a judge is asked for what it did not reply in the right form, each time with another seed."""

    def __post_init__(self) -> None:
        self.prompts()
        if self.tries < 1:
            raise ValueError(f"tries={self.tries}: allowed are 1 and more")

    def prompts(self) -> dict[str, Any]:
        """Both questions; ValueError for one that cannot be used."""
        try:
            errors = load_prompt(self.error_prompt, "first_error")
        except ValueError as error:
            raise ValueError(f"error_{error}") from error
        return {"labels": load_prompt(self.prompt, "labels", ("question", "output")), "errors": errors}

    def run(self, job: "Job") -> dict[str, Any]:
        """Judge, write ``samples.jsonl`` and then ``result.json`` into ``out``, and return the result."""
        from latent_lab.plans.labels_judged import labels

        return labels(self, job)
