"""``task=summarize``: iterated summarisation and its rivals, at equal tokens."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from latent_lab.deliberation.export import check_forms
from latent_lab.deliberation.settings import Settings

if TYPE_CHECKING:
    from latent_lab.job import Job


@dataclass
class SummarizeTask(Settings):
    """Think about problems again and again, vote, and say what is right at how many tokens.

    With ``judge=openai`` or ``local`` a language model says beside the rules what each sentence does.
    """

    needs_run: ClassVar[bool] = False
    takes_backend: ClassVar[bool] = True
    takes_judge: ClassVar[bool] = True
    takes_rules: ClassVar[bool] = False

    page: bool = False
    """Show a page on 127.0.0.1 that follows the experiment."""
    port: int = 0
    """Port of the page, which is then shown; 0 takes a free one where ``page`` asks for it."""
    export: list[str] = field(default_factory=list)
    """Forms of other tools in which to write what was thought, also of a complete evaluation: ``lm_eval``, ``inspect``."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.port <= 65535:
            raise ValueError(f"port={self.port}: allowed are 0 (a free one) to 65535")
        check_forms(self.export)

    def run(self, job: "Job") -> dict[str, Any]:
        """Deliberate, write ledger, samples, tables, figures and page, and then ``result.json``, and return the result."""
        from latent_lab.report.summarize import summarize

        return summarize(self, job)
