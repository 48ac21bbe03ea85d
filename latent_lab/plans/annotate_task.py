"""``task=annotate``: a language model writes chains of thought whose steps say whether they draw on memory or on reason."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from latent_lab.job import Job

ORDERS = ("as_needed", "memory_first")


@dataclass
class AnnotateTask:
    """Problems with steps tagged ``[rag]`` or ``[reason]``, by the model of ``judge=``; ``plan=memory_reason`` trains on them.

    With ``judge.show_gold=false`` the writer never sees the answer, and chains that end in another are left out.
    """

    needs_run: ClassVar[bool] = False
    takes_judge: ClassVar[bool] = True
    needs_talk: ClassVar[bool] = True

    order: str = "as_needed"
    """Steps of memory and reason in whatever order (``as_needed``), or all of memory before all of reason (``memory_first``)."""
    tries: int = 3
    """How often the model is asked for what it did not write in the right form, each time with another seed."""
    choices: list[str] = field(default_factory=list)
    """Answers to choose from, as in ``[True,False]``; empty: any answer."""

    def __post_init__(self) -> None:
        if self.order not in ORDERS:
            raise ValueError(f"order={self.order}: allowed are {', '.join(ORDERS)}")
        if self.tries < 1:
            raise ValueError(f"tries={self.tries}: allowed are 1 and more")

    def run(self, job: "Job") -> dict[str, Any]:
        """Write ``problems.jsonl``, ``samples.jsonl`` and then ``result.json`` into ``out``, and return the result."""
        from latent_lab.plans.annotate import annotate

        return annotate(self, job)
