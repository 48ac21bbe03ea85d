"""Chains: one problem, thought about again and again by one method. The records that every reader yields, and their checks."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from latent_lab.grading.answers import normalise
from latent_lab.problems import DataError


@dataclass(frozen=True, slots=True)
class Iteration:
    """One time that a problem was thought about. What a form does not tell is None."""

    is_right: bool
    answer: str | None = None
    """As it was read from the reasoning; None where none was found."""
    is_cut: bool | None = None
    """Whether the reasoning ended because it had become too long."""
    reasoning: str | None = None
    summary: str | None = None
    """What is handed to the next iteration."""
    reasoning_tokens: int | None = None
    summary_tokens: int | None = None
    summary_answer: str | None = None
    """As it was read from the summary."""
    is_summary_right: bool | None = None
    """Whether that is right; False also where none was found."""
    is_gold_in_summary: bool | None = None


@dataclass(frozen=True)
class Chain:
    """All iterations of one method on one problem in one run."""

    method: str
    run: str
    """Which repetition it is, such as ``seed0``. Chains of one run may share their first iteration across methods."""
    problem: str
    iterations: tuple[Iteration, ...]
    where: str
    """Where it was read, such as ``results.csv, row 7``."""
    gold: str | None = None
    year: str | None = None
    """The competition's, where the form tells it."""
    is_error: bool = False
    """Whether the program broke off: no iteration was kept, and all of them count as wrong, without an answer."""

    @property
    def right(self) -> tuple[bool, ...]:
        """Whether each iteration is right."""
        return tuple(each.is_right for each in self.iterations)

    @cached_property
    def answers(self) -> tuple[str | None, ...]:
        """The answer of each iteration as equal answers are written."""
        return tuple(None if each.answer is None else normalise(each.answer) for each in self.iterations)


@dataclass(frozen=True)
class Table:
    """Chains that can be compared: each method, run and problem once, all equally long, each problem with one gold answer."""

    chains: tuple[Chain, ...]

    @property
    def has_answers(self) -> bool:
        """Whether the form tells answers, not only what is right."""
        return any(each.answer is not None for chain in self.chains for each in chain.iterations)

    @property
    def has_golds(self) -> bool:
        """Whether every problem's gold answer is told, so that answers can vote."""
        return self.has_answers and all(chain.gold is not None for chain in self.chains)

    @property
    def num_iterations(self) -> int:
        """Iterations of every chain; the first counts."""
        return len(self.chains[0].iterations)

    @property
    def methods(self) -> dict[str, list[Chain]]:
        """The chains of each method by problem and run: the order of rows must not move an interval."""
        found: dict[str, list[Chain]] = {}
        for chain in sorted(self.chains, key=lambda chain: (chain.method, chain.problem, chain.run)):
            found.setdefault(chain.method, []).append(chain)
        return found

    @property
    def problems(self) -> list[str]:
        """Every problem once."""
        return list(dict.fromkeys(chain.problem for chain in self.chains))

    def first(self, limit: int | None) -> "Table":
        """The chains of the first so many problems."""
        kept = set(self.problems[:limit])
        return Table(tuple(chain for chain in self.chains if chain.problem in kept))


def checked(chains: Sequence[Chain]) -> Table:
    """Make a table of chains, or raise :class:`DataError` at the first that cannot be compared with those before it."""
    seen: dict[tuple[str, str, str], Chain] = {}
    golds: dict[str, Chain] = {}
    for chain in chains:
        first = chains[0]
        if len(chain.iterations) != len(first.iterations):
            raise DataError(
                f"{chain.where}: {len(chain.iterations)} iterations, {first.where} has {len(first.iterations)}; allowed: "
                "equally many in every chain"
            )
        name = (chain.method, chain.run, chain.problem)
        if (other := seen.setdefault(name, chain)) is not chain:
            raise DataError(
                f"{chain.where}: problem {chain.problem!r} of method {chain.method!r} in run {chain.run!r} stands in "
                f"{other.where} already; allowed: once, with all its iterations; remove one"
            )
        other = golds.setdefault(chain.problem, chain)
        if chain.gold is not None and other.gold is not None and normalise(chain.gold) != normalise(other.gold):
            raise DataError(
                f"{chain.where}: the gold answer of problem {chain.problem!r} is {chain.gold!r}, in {other.where} it is "
                f"{other.gold!r}; allowed: one for all chains of a problem"
            )
    return Table(tuple(chains))
