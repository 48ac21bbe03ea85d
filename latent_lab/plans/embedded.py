"""Steps by what a language model makes of them: what all plans that are learned from its states share.

The vectors are computed once, before training; what is trained never runs beside a second model. Imports no torch.
"""

import hashlib
import json
import logging
from abc import abstractmethod
from collections.abc import Sequence as Seq
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from latent_lab.files import write_json
from latent_lab.plans.base import PLAN, Label, Plan, PlanError
from latent_lab.problems import Problem, fingerprint

if TYPE_CHECKING:
    import numpy as np

log = logging.getLogger(__name__)

LABELS = "labels.json"
POOLING, SCALING = ("mean", "last"), ("none", "standard", "pca")


@dataclass
class Embedded(Plan):
    """A plan learned from the vectors of steps.

    Differs from paper: a step's tokens are known from how it was tokenised, not from counting line breaks, and vectors are
    standardised, so that no coordinate outweighs the others.
    """

    model: str = ""
    """Who embeds the steps, a causal language model: a finished run (its folder, or its name below ``outputs``), a folder, or a
    name on the hub. Empty: the run that is the same but for ``plan=none``, which is trained first where it is missing."""
    clusters: int = 5
    """How many kinds there are."""
    layer: int = -1
    """After which block the states are taken; 0 is the input embedding, -1 the last block (after the final norm)."""
    pooling: str = "mean"
    """A step's vector is the ``mean`` over its tokens, or the state of its ``last`` one."""
    in_context: bool = True
    """Let the model read question and earlier steps before a step; false: the step alone."""
    scaling: str = "standard"
    """``standard``: each coordinate is divided by its standard deviation; ``pca``: the first ``components`` principal axes;
    ``none``, as published."""
    components: int = 16
    """Principal axes kept by ``scaling=pca``."""

    name = "kind"  # what kinds are called, before their number

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, allowed in (("pooling", POOLING), ("scaling", SCALING)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}={getattr(self, name)}: allowed are {', '.join(allowed)}")
        for name, least in (("clusters", 2), ("components", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)}: allowed are {least} and more")
        self._known: dict[str, list[int]] = {}
        self.without = ""
        """Name of the run without tokens; the stage says it where ``model`` is empty."""

    @abstractmethod
    def divide(self, vectors: "Seq[np.ndarray]") -> "dict[str, np.ndarray]":
        """Learn from scaled vectors, ``[steps, width]`` for each problem, what :meth:`nearest` needs."""

    @abstractmethod
    def nearest(self, points: "np.ndarray") -> "np.ndarray":
        """``[n, width]`` scaled vectors to the numbers of their kinds, ``[n]``."""

    def fit(self, problems: Seq[Problem]) -> None:
        """See :class:`Plan`; what was fitted with the same settings, model and problems before is kept in ``outputs/.plans``."""
        key = self._key(problems)
        if (self._cache(key) / PLAN).is_file():
            self.load(self._cache(key))
            return
        super().fit(problems)
        self.state["key"] = key
        self._cache(key).mkdir(parents=True, exist_ok=True)
        self._remember()
        self.save(self._cache(key))

    def load(self, folder: Path) -> None:
        """See :class:`Plan`; labels known from earlier come along."""
        super().load(folder)
        if (file := self._cache(self.state["key"]) / LABELS).is_file():
            self._known = json.loads(file.read_text(encoding="utf-8"))

    def learn(self, problems: Seq[Problem]) -> None:
        """See :class:`Plan`."""
        import numpy as np

        from latent_lab.plans.kmeans import scaled, scaling, silhouette

        super().learn(problems)
        if self.without:
            self.state["model"] = self.without
        vectors = self._embed(problems)
        points = np.concatenate(vectors)
        if len(points) < self.clusters:
            raise PlanError(f"plan.clusters={self.clusters}: the training problems have {len(points)} steps; allowed: up to that")
        self.arrays = scaling(points, self.scaling, self.components)
        self.arrays |= self.divide([scaled(each, self.arrays) for each in vectors])
        found = self._numbers(vectors)
        sizes = np.bincount([k for each in found for k in each], minlength=self.clusters)
        self.state["sizes"] = sizes.tolist()
        parted = silhouette(scaled(points, self.arrays), np.concatenate(found).astype(np.int64))
        self.state["silhouette"] = round(parted, 4)
        sizes_said = ", ".join(map(str, self.state["sizes"]))
        log.info("plan: %d steps in kinds of %s; silhouette %.2f", len(points), sizes_said, parted)
        self._known = dict(zip(map(key_of, problems), found, strict=True))

    def own_kinds(self) -> tuple[str, ...]:
        """See :class:`Plan`."""
        return tuple(f"{self.name}{k}" for k in range(self.clusters))

    def own_labels(self, problems: Seq[Problem]) -> list[tuple[Label, ...]]:
        """See :class:`Plan`; a problem is embedded once, and remembered beside the plan."""
        new = [p for p in problems if key_of(p) not in self._known]
        if new:
            self._known |= dict(zip(map(key_of, new), self._numbers(self._embed(new)), strict=True))
            self._remember()
        return [tuple((f"{self.name}{k}",) for k in self._known[key_of(p)]) for p in problems]

    def _numbers(self, vectors: "Seq[np.ndarray]") -> list[list[int]]:
        from latent_lab.plans.kmeans import scaled

        return [self.nearest(scaled(each, self.arrays)).tolist() if len(each) else [] for each in vectors]

    def _embed(self, problems: Seq[Problem]) -> "list[np.ndarray]":
        from latent_lab.plans.embedding import embed

        return embed(problems, self._path(), layer=self.layer, pooling=self.pooling, in_context=self.in_context)

    def _path(self) -> str:
        """Where the model that embeds lies."""
        from latent_lab.plans.embedding import folder_of

        named = self.model or self.state.get("model") or self.without
        if not named:
            raise PlanError("plan.model: given nothing; who embeds the steps: a finished run, a folder, or a name on the hub")
        return folder_of(named, self.outputs)

    def _cache(self, key: str) -> Path:
        return self.outputs / ".plans" / key

    def _remember(self) -> None:
        if (folder := self._cache(self.state.get("key", ""))).is_dir() and "key" in self.state:
            write_json(folder / LABELS, self._known)

    def _key(self, problems: Seq[Problem]) -> str:
        """What decides the outcome: settings, who embeds (by its weights, where they are at hand), and the training problems."""
        path = self._path()
        weights = sorted(Path(path).glob("*.safetensors")) if Path(path).is_dir() else []
        who = "-".join(map(fingerprint, weights)) or path
        settings = asdict(self) | {"plan": type(self).__name__, "model": who, "problems": [key_of(p) for p in problems]}
        return hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=8).hexdigest()


def key_of(problem: Problem) -> str:
    """A problem by what is embedded of it."""
    return hashlib.blake2b(json.dumps([problem.question, problem.steps]).encode(), digest_size=8).hexdigest()
