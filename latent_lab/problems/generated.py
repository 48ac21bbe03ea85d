"""What generated datasets share: sizes, a seed, and that the same settings are drawn once in a process."""

import functools
import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from latent_lab.problems import SPLITS, Problem, Split


@dataclass
class Generated(ABC):
    """A dataset whose problem ``i`` depends on its settings, the split and ``i`` alone, on any machine."""

    train_size: int = 40_000
    """Problems in the training split."""
    valid_size: int = 512
    """Problems in the validation split."""
    test_size: int = 1_000
    """Problems in the test split."""
    size: int | None = None
    """Problems of whichever split is loaded; null takes the three above."""
    seed: int = 0
    """Seed of the problems drawn (which split a problem may be in does not depend on it)."""

    def __post_init__(self) -> None:
        for name in ("train_size", "valid_size", "test_size", "size"):
            if (getattr(self, name) or 0) < 0:
                raise ValueError(f"{name}={getattr(self, name)}: allowed are 0 and more")

    def load(self, split: Split) -> list[Problem]:
        """Return the split's problems. Those of the last settings stay in memory: loading them again costs nothing."""
        sizes = {"train": self.train_size, "valid": self.valid_size, "test": self.test_size}
        return list(drawn(Settings(repr(self), self), split, sizes[split] if self.size is None else self.size))

    @abstractmethod
    def draw(self, split: Split, size: int) -> list[Problem]:
        """Draw the first ``size`` problems of a split."""


@dataclass
class OneByOne(Generated):
    """A generated dataset that draws each problem by itself."""

    @abstractmethod
    def problem(self, split: Split, index: int) -> Problem:
        """Draw problem ``index`` of a split."""

    def draw(self, split: Split, size: int) -> list[Problem]:
        """See :class:`Generated`."""
        return [self.problem(split, index) for index in range(size)]


@dataclass(frozen=True)
class Settings:
    """A dataset that can be looked up: two with the same fields are the same."""

    fields: str
    dataset: Generated = field(compare=False)


@functools.lru_cache(maxsize=len(SPLITS))
def drawn(settings: Settings, split: Split, size: int) -> tuple[Problem, ...]:
    """The first ``size`` problems of a split."""
    return tuple(settings.dataset.draw(split, size))


def split_of(*words: str) -> Split:
    """Assign what words say to one split for ever, by a hash of them: 80% train, 10% valid, 10% test."""
    bucket = int.from_bytes(hashlib.blake2b(" ".join(words).encode(), digest_size=4).digest(), "big") % 10
    return SPLITS[0] if bucket < 8 else SPLITS[bucket - 7]
