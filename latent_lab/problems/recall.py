"""In-context recall: facts are told, then told again in another order, and one of them is asked for.

``Every rempus is a yumpus. Tom is a lorpus. Is Tom a lorpus or yumpus?`` has a step for each fact, and the answer ``Tom is a
lorpus.``, as has ``True or false: Tom is a yumpus.`` in ProntoQA's language. Nothing has to be concluded: a step is right if what
was said of its subject is looked up, which every hop of ProsQA and ProntoQA takes and which text-trained models bring along. A
small model from scratch learns it here in minutes, because almost every label is a look-up and few facts have to be told apart at
first, and then takes it along (``init_from=``).

Associative recall as a task of its own is old; that small models differ in it is Zoology (arXiv 2312.04927). The form is ours.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from latent_lab.problems import Problem, Split, prontoqa, prosqa
from latent_lab.problems.generated import OneByOne, split_of
from latent_lab.problems.graphs import CONCEPTS, NAMES
from latent_lab.problems.prontoqa import KINDS, WORDINGS, an, check_wordings, has, is_so, kinds

MOST_FACTS = 20
"""As many subjects as there are names for, with some left to be said of them."""
MOST_PEOPLE = 3


@dataclass
class Recall(OneByOne):
    """Facts on people and concepts in the sentences of ProsQA or ProntoQA, each subject in one of them."""

    language: str = "prosqa"
    """Whose sentences: ``prosqa``, all on concepts; ``prontoqa``, half of them on properties, which may be denied."""
    min_facts: int = 2
    """Fewest facts of a problem; all numbers from here on are equally likely."""
    max_facts: int = 6
    """Most facts of a problem."""
    wordings: list[str] = field(default_factory=lambda: list(WORDINGS))
    """How rules of ``prontoqa`` may be said; see :class:`latent_lab.problems.prontoqa.ProntoQA`."""
    names: int | None = None
    """People, concepts and properties are drawn from the first so many; null takes all, 17, 38 and 43."""

    def __post_init__(self) -> None:
        if self.language not in LANGUAGES:
            raise ValueError(f"language={self.language}: allowed are {', '.join(LANGUAGES)}")
        if not 2 <= self.min_facts <= self.max_facts <= MOST_FACTS:
            allowed = f"2 <= min_facts <= max_facts <= {MOST_FACTS}"
            raise ValueError(f"min_facts={self.min_facts}, max_facts={self.max_facts}: allowed are {allowed}")
        fewest = max(self.max_facts + 1, len(KINDS[0]))
        if self.names is not None and not fewest <= self.names <= len(CONCEPTS):
            allowed = f"{fewest} to {len(CONCEPTS)} with max_facts={self.max_facts}"
            raise ValueError(f"names={self.names}: allowed are {allowed}, so that something is left to be said of each")
        check_wordings(self.wordings)
        if self.language == "prosqa" and tuple(self.wordings) != WORDINGS:
            raise ValueError(f"wordings={self.wordings}: prosqa says every rule in one way; take it away, or language=prontoqa")
        super().__post_init__()

    def problem(self, split: Split, index: int) -> Problem:
        """Draw problem ``index`` of a split: facts are redrawn until they belong to the split, in whatever order they stand."""
        rng = random.Random(f"{self.seed}/{split}/{index}")
        while True:
            count = rng.randint(self.min_facts, self.max_facts)
            facts, query, answer = LANGUAGES[self.language](rng, count, self.names, self.wordings)
            if split_of(*sorted(facts)) == split:
                told, again = (rng.sample(facts, len(facts)) for _ in range(2))
                said = [fact for fact in told if fact in facts[:2]]
                meta = {"facts": len(facts), "asked": facts[0], "said": said}
                return Problem(f"{split}-{index}", " ".join([*told, query]), tuple(again), answer, meta)

    def shortcuts(self) -> dict[str, Callable[[Problem], float]]:
        """Rules that answer without knowing who is asked about; of two facts that could answer, they take one by its place."""
        return {
            "as_said_first": lambda problem: float(problem.meta["said"][0] == problem.meta["asked"]),
            "as_said_last": lambda problem: float(problem.meta["said"][-1] == problem.meta["asked"]),
        }


def drawn(rng: random.Random, count: int, names: int | None) -> tuple[list[str], tuple[str, ...]]:
    """Some people, and the concepts there are to draw from."""
    return rng.sample(NAMES[:names], rng.randint(1, min(count, MOST_PEOPLE))), CONCEPTS[:names]


def which_concept(rng: random.Random, count: int, names: int | None, _: list[str]) -> tuple[list[str], str, str]:
    """Facts in ProsQA's sentences, with query and answer: the first is asked for, the second has the other option."""
    people, concepts = drawn(rng, count, names)
    subjects = [*people, *rng.sample(concepts, count - len(people))]
    objects = [rng.choice([concept for concept in concepts if concept != subject]) for subject in subjects]
    while objects[1] in (objects[0], subjects[1]):
        objects[1] = rng.choice(concepts)
    facts = [prosqa.is_a(s, o) for s, o in zip(subjects, objects, strict=True)]
    first, second = rng.sample(objects[:2], 2)
    return facts, f"Is {subjects[0]} a {first} or {second}?", facts[0]


def what_is_so(rng: random.Random, count: int, names: int | None, wordings: list[str]) -> tuple[list[str], str, str]:
    """Facts in ProntoQA's sentences, with query and answer: the first is asked for; its words or the second's are the query's.

    The answer is the fact, not true or false: with these, look-ups are learned by luck or not at all (docs/findings.md).
    """
    people, concepts = drawn(rng, count, names)
    subjects = [*people, *rng.sample(concepts, count - len(people))]
    objects = [said_of(subject, rng, concepts, names) for subject in subjects]
    while objects[1] == objects[0]:
        objects[1] = said_of(subjects[1], rng, concepts, names)

    def told(subject: str, what: str, is_not: bool) -> str:
        if what in concepts:
            return f"{subject} is {an(what)}." if subject in people else prontoqa.is_a(subject, what, rng.choice(wordings))
        return is_so(subject, what, is_not) if subject in people else has(subject, what, is_not, rng.choice(wordings))

    facts = [told(subject, *each) for subject, each in zip(subjects, objects, strict=True)]
    return facts, f"True or false: {told(subjects[0], *rng.choice(objects[:2]))}", facts[0]


def said_of(subject: str, rng: random.Random, concepts: tuple[str, ...], names: int | None) -> tuple[str, bool]:
    """Draw another concept or, as often, a property; and whether it is denied, which only a property is."""
    if rng.random() < 0.5:
        return rng.choice([concept for concept in concepts if concept != subject]), False
    return rng.choice(rng.choice(kinds(names))), rng.random() < 0.5


LANGUAGES: dict[str, Callable[[random.Random, int, int | None, list[str]], tuple[list[str], str, str]]] = {
    "prosqa": which_concept,
    "prontoqa": what_is_so,
}
