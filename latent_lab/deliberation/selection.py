"""Which problems are thought about: by name, by place, by what became of them elsewhere, and a share of them for each machine."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from latent_lab.config import ConfigError
from latent_lab.problems import DataError, Problem

PLACES = re.compile(r"([0-9]{1,9})-([0-9]{1,9})")
SHARD = re.compile(r"([0-9]{1,6})/([0-9]{1,6})")


@dataclass
class Selection:
    """Settings that choose problems; all of them together leave those that each of them leaves."""

    ids: list[str] = field(default_factory=list)
    """Only these problems; empty: all."""
    exclude: list[str] = field(default_factory=list)
    """All but these."""
    range: str | None = None
    """Only those from one place of the split to another, both included and counted from 0, as in 0-29."""
    errors_of: str | None = None
    """Only those that another ``task=summarize`` (its folder, or its name below outputs) left with an error or without an
    answer in some chain."""
    wrong_of: str | None = None
    """Only those of which another ``task=summarize`` did not end every chain right. This looks at gold answers: what is right
    among such problems is no accuracy of the dataset, and the result says so."""
    problems: int | None = 200
    """The first so many of these problems are thought about; null: all."""
    shard: str | None = None
    """Of these, every n-th from the i-th, as ``i/n``: the shards 1/n to n/n share out all problems."""

    def __post_init__(self) -> None:
        for name in ("ids", "exclude"):
            given = getattr(self, name)
            if len(set(given)) < len(given):
                raise ValueError(f"{name}={given}: allowed are names, each once")
        if self.range is not None and not (0 <= self._range[0] <= self._range[1]):
            raise ValueError(f"range={self.range}: allowed are two places counted from 0, the smaller first, as in 0-29")
        if self.shard is not None and not (1 <= self._shard[0] <= self._shard[1]):
            raise ValueError(f"shard={self.shard}: allowed are i/n with i from 1 to n, as in 1/4")

    @property
    def _range(self) -> tuple[int, int]:
        """First and last place; (0, -1) for what is no range."""
        found = PLACES.fullmatch(self.range or "")
        return (int(found[1]), int(found[2])) if found else (0, -1)

    @property
    def _shard(self) -> tuple[int, int]:
        """Which of how many; (0, 0) for what is none."""
        found = SHARD.fullmatch(self.shard or "")
        return (int(found[1]), int(found[2])) if found else (0, 0)

    def selected(
        self, split: Sequence[Problem], limit: int | None = None, failed: Sequence[str] = (), wrong: Sequence[str] = ()
    ) -> list[Problem]:
        """The problems chosen of a split, in its order; ``failed`` and ``wrong``: what ``errors_of`` and ``wrong_of`` stand for.

        ConfigError for a problem that the split does not have, DataError where none is left.
        """
        known = {problem.id for problem in split}
        for name, wanted in (("ids", self.ids), ("exclude", self.exclude), ("errors_of", failed), ("wrong_of", wrong)):
            if unknown := [each for each in wanted if each not in known]:
                rest = f"the split has no such problem; allowed: {examples(split)}"
                raise ConfigError(f"task.{name}", unknown[0], rest)
        if self.errors_of and not failed:
            raise DataError(f"task.errors_of={self.errors_of}: every chain there has its answer; nothing is left to ask again")
        if self.wrong_of and not wrong:
            raise DataError(f"task.wrong_of={self.wrong_of}: every chain there ends right; nothing is left to think about")
        chosen = list(split)
        if self.range is not None:
            first, last = self._range
            if last >= len(split):
                raise ConfigError("task.range", self.range, f"the split has {len(split)} problems; allowed: 0-{len(split) - 1}")
            chosen = chosen[first : last + 1]
        only = [set(each) for each in (self.ids, failed, wrong) if each]
        chosen = [p for p in chosen if p.id not in self.exclude and all(p.id in each for each in only)]
        chosen = chosen[:limit][: self.problems]
        if self.shard is not None:
            number, of = self._shard
            chosen = chosen[number - 1 :: of]
        if not chosen:
            raise DataError(f"{self._said()}: no problem of {len(split)} is left; choose others, or another split or dataset")
        return chosen

    def _said(self) -> str:
        """What was asked of the selection."""
        given = {name: getattr(self, name) for name in ("ids", "exclude", "range", "errors_of", "wrong_of", "shard")}
        return ", ".join(f"task.{name}={value}" for name, value in given.items() if value) or "the split"


def examples(split: Sequence[Problem], most: int = 5) -> str:
    """The first names of a split."""
    return ", ".join([*(problem.id for problem in split[:most]), *["..."] * (len(split) > most)])
