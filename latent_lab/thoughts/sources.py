"""Sources: the vectors a reader is given. One is real; all others are controls that cannot know what the reader is asked.

A score means something only beside the same reader's scores on these (activation oracles, arXiv 2512.15674, report none).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from latent_lab.thoughts.probe_targets import Targets
from latent_lab.thoughts.store import StoreError, ThoughtStore

SOURCES = {
    "real": "the thought itself",
    "none": "no vector at all: the reader knows the question only",
    "zero": "the zero vector",
    "mean": "the mean thought of that slot over the training problems",
    "random": "a Gaussian vector of the same length",
    "shuffled": "the thought of another problem, same slot",
    "shuffled_in_stratum": "the same, from a problem with equally many steps whose step is of the same kind",
    "label_swapped": "the thought of a problem whose step differs in what is asked",
    "start": "the state at the start marker",
    "other_seed": "the thought of a model trained with another seed, same problem",
    "text_only": "no vector, but the text of the problem: what re-deriving the step could reach",
}
"""Every source by its name, and what it gives."""

VECTORLESS = ("none", "text_only")
"""Sources without a vector: a reader leaves the injection out."""


@dataclass(frozen=True)
class Vectors:
    """Vectors for ``n`` questions, and what it takes to replace them."""

    real: Tensor
    """``[n, width]``."""
    slots: Sequence[int]
    """``[n]``: slot each of them stands in."""
    problems: Sequence[str]
    """``[n]``: id of the problem each is from; a control never takes a vector of the same problem."""
    strata: Sequence[str]
    """``[n]``: what ``shuffled_in_stratum`` keeps equal."""
    labels: Sequence[str]
    """``[n]``: what is asked of each; ``label_swapped`` takes one with another label."""
    means: Tensor
    """``[slots, width]``: mean thought of each slot over training problems."""
    start: Tensor | None = None
    """``[n, width]``: state at the start marker."""
    other_seed: Tensor | None = None
    """``[n, width]``."""

    @property
    def names(self) -> tuple[str, ...]:
        """The sources that can be given here."""
        missing = {name for name in ("start", "other_seed") if getattr(self, name) is None}
        return tuple(name for name in SOURCES if name not in missing)

    def source(self, name: str, seed: int = 0) -> Tensor | None:
        """``[n, width]`` of a source; None for one without vectors. ValueError for a name that is not in :attr:`names`."""
        if name not in self.names:
            raise ValueError(f"source={name}: allowed here are {', '.join(self.names)}")
        if name in VECTORLESS:
            return None
        if name in ("start", "other_seed"):
            given: Tensor = getattr(self, name)
            return given
        donors = self.donors_of(name, seed)
        if donors is not None:
            return self.real[donors]
        return {
            "real": lambda: self.real,
            "zero": lambda: torch.zeros_like(self.real),
            "mean": lambda: self.means[torch.tensor(self.slots, device=self.real.device)],
            "random": lambda: self._random(seed),
        }[name]()

    def donors_of(self, name: str, seed: int = 0) -> Tensor | None:
        """``[n]``: whose vector a source gives to each; None for a source whose vectors are nobody's here."""
        if name == "shuffled_in_stratum":
            return self.donors(self.strata, seed)
        if name in ("shuffled", "label_swapped"):
            differs = self.labels if name == "label_swapped" else None
            return self.donors([str(slot) for slot in self.slots], seed, differs=differs)
        return None

    def every(self, labels: Mapping[str, Tensor]) -> Iterator[tuple[str, str | None, "Vectors"]]:
        """Each source that has vectors: its name, the one field it is for, and what gives it.

        The field is None but for ``label_swapped``, which comes last, once for each field of ``labels [n]`` that holds more than
        one label, so that there is another to swap in.
        """
        for name in self.names:
            if name not in VECTORLESS and name != "label_swapped":
                yield name, None, self
        for field, y in labels.items():
            if len(y.unique()) > 1:
                yield "label_swapped", field, replace(self, labels=[str(label) for label in y.tolist()])

    def donors(self, groups: Sequence[str], seed: int, *, differs: Sequence[str] | None = None) -> Tensor:
        """``[n]``: for each vector another problem's in the same group, with another label where ``differs`` is given.

        Groups are walked in an order drawn from ``seed``. A vector that no other can replace (alone in its group) takes one from
        any other problem; that only makes a control harder to tell from the real source.
        """
        order = torch.randperm(len(groups), generator=torch.Generator().manual_seed(seed)).tolist()
        members: dict[str, list[int]] = {}
        for i in order:
            members.setdefault(groups[i], []).append(i)
        place = {i: k for group in members.values() for k, i in enumerate(group)}
        whole = {i: k for k, i in enumerate(order)}
        found = []
        for i, group in enumerate(groups):
            tries = ((members[group], place[i], differs), (order, whole[i], differs), (order, whole[i], None))
            donors = (self._donor(i, *each) for each in tries)
            found.append(next((donor for donor in donors if donor is not None), i))
        return torch.tensor(found, device=self.real.device)

    def _donor(self, i: int, pool: Sequence[int], start: int, differs: Sequence[str] | None) -> int | None:
        """The next in a pool that is of another problem, with another label where that is asked; None if there is none."""
        for k in range(1, len(pool)):
            j = pool[(start + k) % len(pool)]
            if self.problems[j] != self.problems[i] and (differs is None or differs[j] != differs[i]):
                return j
        return None

    def _random(self, seed: int) -> Tensor:
        noise = torch.randn(self.real.shape, generator=torch.Generator().manual_seed(seed)).to(self.real)
        return noise * (self.real.norm(dim=-1, keepdim=True) / noise.norm(dim=-1, keepdim=True).clamp(min=1e-9))


@dataclass(frozen=True)
class Origins:
    """What the sources of a store's thoughts are made from, for every reader that is asked about single slots."""

    store: ThoughtStore
    """The thoughts that are read."""
    y: Targets
    """Labels of the same problems."""
    start: Tensor | None = None
    """``[problems, width]``: state at the start marker, held against layer 0."""
    other_seed: ThoughtStore | None = None
    """Thoughts of a model trained with another seed, about the same problems."""

    def __post_init__(self) -> None:
        other = self.other_seed
        if other and [row["id"] for row in other.rows] != [row["id"] for row in self.store.rows]:
            raise StoreError(f"{other.folder} holds other problems than {self.store.folder}; collect both from the same split")

    def vectors(self, layer: int, slot: int, step: int, states: Tensor, index: Tensor, means: Tensor) -> Vectors:
        """The sources for the problems ``index``, asked in ``slot`` about ``step``.

        ``states [problems, width]`` are this slot's in ``layer``; ``means [slots, width]`` are of training problems.
        """
        strata = self.y.strata(step)
        return Vectors(
            real=states[index],
            slots=[slot] * len(index),
            problems=[self.y.problems[i] for i in index.tolist()],
            strata=[strata[i] for i in index.tolist()],
            labels=[""] * len(index),
            means=means,
            start=self.start[index] if self.start is not None and layer == 0 else None,
            other_seed=self.other_seed.layer(layer)[index, slot] if self.other_seed else None,
        )
