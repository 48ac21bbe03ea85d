"""``task=table``: one table and one figure out of many finished runs, averaged over seeds, each accuracy beside its floors."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from latent_lab.job import Job


@dataclass
class TableTask:
    """Grade runs as ``task=answers`` does and compare them: runs that differ in their seed alone share a row.

    Oracles are not graded again: their rows are what their training found on the validation split.
    """

    needs_run: ClassVar[bool] = False
    needs_dataset: ClassVar[bool] = False

    # Any, because OmegaConf knows no type for "a list or one text"; __post_init__ lets through nothing else.
    runs: Any = field(default_factory=list)
    """Names of runs, or patterns with * and ?, below ``outputs``: a list, or one of them; empty takes ``run=``. Rows keep the
    order given."""
    against: Any = field(default_factory=list)
    """Rows that every other one is held against, paired by problem and seed, tested and corrected by Holm: a list of labels, or
    one; the last word of a label will do. Rows that wrote plans are also held against them with the gold plan given."""
    shortcuts: bool = True
    """Also give a row to every rule that scores on the same problems without reasoning."""

    def __post_init__(self) -> None:
        self.runs = self._texts("runs", "names of runs and patterns, as in [first,other-*]")
        self.against = self._texts("against", "labels of rows, as in [none,filler]")

    def _texts(self, name: str, allowed: str) -> list[str]:
        given = getattr(self, name)
        texts = given if isinstance(given, list) else [given]
        if not all(isinstance(text, str | int) and str(text).strip() for text in texts):
            raise ValueError(f"{name}={given}: allowed are {allowed}")
        return [str(text) for text in texts]

    def run(self, job: "Job") -> dict[str, Any]:
        """Grade, write ``table.md``, ``table.png`` (not of oracles), then ``result.json`` into ``out``, and return the result."""
        from latent_lab.report.table_pairs import bases
        from latent_lab.report.table_runs import all_oracles, groups

        found = groups(self.runs, job)
        if all_oracles(found):
            from latent_lab.report.table_oracles import oracle_table

            return oracle_table(self, job, found)
        against = bases([group.label for group in found], self.against)
        from latent_lab.report.table import table  # only now: importing torch takes longer than all of the above

        return table(self, job, found, against)
