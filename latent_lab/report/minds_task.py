"""``task=minds``: models side by side, by how right they are and by what can be read and edited in their thoughts."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from latent_lab.job import Job


@dataclass
class MindsTask:
    """One figure out of finished ``task=thoughts`` results; those that share a label are seeds of one model."""

    needs_run: ClassVar[bool] = False
    needs_dataset: ClassVar[bool] = False

    results: list[str] = field(default_factory=list)
    """``LABEL:FOLDER`` each, in the order drawn; a label with several folders is averaged over them."""
    by: str = ""
    """A setting of the trained runs, as ``stage.supervision`` or ``model.width``: each label becomes a line over its values."""

    def __post_init__(self) -> None:
        for given in self.results:
            label, _, folder = given.partition(":")
            if not label or not folder:
                raise ValueError(
                    f"results={self.results}: given {given}; allowed are LABEL:FOLDER, as in [open:outputs/a,closed:outputs/b]"
                )

    def run(self, job: "Job") -> dict[str, Any]:
        """Write ``flagship.png`` (with ``by``: ``sweep.png``) and then ``result.json`` into ``out``, and return the result."""
        from latent_lab.report.minds import minds

        return minds(self, job)
