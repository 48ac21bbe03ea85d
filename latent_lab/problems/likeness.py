"""How alike questions are: the cosine between their sets of words, each weighted by how rare it is. No torch."""

import math
import re
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from latent_lab.problems import Problem

if TYPE_CHECKING:
    import numpy as np

WORD = re.compile(r"\w+")
SAME = -1.0
"""The likeness of a question to itself, by which it is never the nearest."""


class Likeness:
    """Compares questions with those of known problems; nothing but the question counts."""

    def __init__(self, known: Sequence[Problem]) -> None:
        import numpy as np

        bags = [words(problem.question) for problem in known]
        holders: dict[str, list[int]] = defaultdict(list)
        for index, bag in enumerate(bags):
            for word in bag:
                holders[word].append(index)
        self.weight = {word: math.log((1 + len(known)) / len(where)) ** 2 for word, where in holders.items()}
        self.where = {word: np.asarray(indices) for word, indices in holders.items()}
        self.norms = np.asarray([math.sqrt(sum(self.weight[word] for word in sorted(bag))) or 1.0 for bag in bags])
        self.same: dict[str, list[int]] = defaultdict(list)
        for index, problem in enumerate(known):
            self.same[problem.question].append(index)

    def to(self, question: str) -> "np.ndarray":
        """``[known]``: the cosine with each known question but for the length of the one asked; ``SAME`` for the same one."""
        import numpy as np

        likeness = np.zeros(len(self.norms))
        for word in sorted(words(question) & self.where.keys()):  # sorted: sums of floats depend on their order
            likeness[self.where[word]] += self.weight[word]
        likeness /= self.norms
        likeness[self.same.get(question, [])] = SAME
        return likeness


def words(text: str) -> set[str]:
    """The different words and numbers of a text, in small letters."""
    return set(WORD.findall(text.casefold()))
