"""Stories and sums in turn: two kinds of chains in one data set, for what should help with both."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from latent_lab.problems import Problem, Split
from latent_lab.problems.arithmetic import Arithmetic
from latent_lab.problems.generated import OneByOne
from latent_lab.problems.stories import Stories

KINDS = ("story", "sum")


@dataclass
class Mixed(OneByOne):
    """Every other problem is a story (:class:`Stories`), the others are sums (:class:`Arithmetic`)."""

    max_steps: int = 2
    """Most steps of a story; all numbers of steps from 1 on are equally likely."""
    digits: list[int] = field(default_factory=lambda: [2])
    """Digit counts of the sums, all equally likely."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.parts()  # what these two refuse is refused at once

    def parts(self) -> tuple[OneByOne, OneByOne]:
        """Where stories and sums come from."""
        even = [1 / max(len(self.digits), 1)] * len(self.digits)
        return (
            Stories(max_steps=self.max_steps, seed=self.seed),
            Arithmetic(digits=self.digits, probabilities=even, seed=self.seed),
        )

    def problem(self, split: Split, index: int) -> Problem:
        """Problem ``index`` of a split; ``meta`` says of which ``kind`` it is, besides what its part says."""
        number, which = divmod(index, len(KINDS))
        drawn = self.parts()[which].problem(split, number)
        return replace(drawn, id=f"{split}-{index}", meta={**drawn.meta, "kind": KINDS[which]})

    def shortcuts(self) -> dict[str, Callable[[Problem], float]]:
        """The rules for numbers in a text, which hold for both: adding all of them solves every sum."""
        return Stories().shortcuts()
