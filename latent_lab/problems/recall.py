"""In-context recall: facts are told, then told again in another order, and one of them is asked for.

``Every rempus is a yumpus. Tom is a lorpus. Is Tom a lorpus or yumpus?`` has a step for each fact, and the answer ``Tom is a
lorpus.`` Nothing has to be concluded: a step is right if what was said of its subject is looked up, which every hop of ProsQA and
ProntoQA takes and which text-trained models bring along. A small model from scratch learns it here in minutes, because almost
every label is a look-up and few facts have to be told apart at first, and then takes it along (``init_from=``).

Associative recall as a task of its own is old; that small models differ in it is Zoology (arXiv 2312.04927). The form is ours.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

from latent_lab.problems import Problem, Split, prontoqa, prosqa
from latent_lab.problems.generated import OneByOne, split_of
from latent_lab.problems.graphs import CONCEPTS, NAMES
from latent_lab.problems.prontoqa import KINDS, WORDINGS, an, has, is_so

MOST_FACTS = 20
"""As many subjects as there are names for, with some left to be said of them."""
MOST_PEOPLE = 3


@dataclass
class Recall(OneByOne):
    """Facts on people and concepts in the sentences of ProsQA or ProntoQA, each subject in one of them."""

    language: str = "prosqa"
    """Whose sentences: ``prosqa``, which of two concepts someone is; ``prontoqa``, whether it is true that someone is so."""
    min_facts: int = 2
    """Fewest facts of a problem; all numbers from here on are equally likely."""
    max_facts: int = 6
    """Most facts of a problem."""
    is_walk: bool = False
    """Whether facts are said of one another's objects, and told again as walks: after a fact comes the one on its object."""
    names: int | None = None
    """People and concepts are drawn from the first so many names (those of ``prosqa``); null takes all, 17 and 38."""

    def __post_init__(self) -> None:
        if self.language not in LANGUAGES:
            raise ValueError(f"language={self.language}: allowed are {', '.join(LANGUAGES)}")
        if not 2 <= self.min_facts <= self.max_facts <= MOST_FACTS:
            allowed = f"2 <= min_facts <= max_facts <= {MOST_FACTS}"
            raise ValueError(f"min_facts={self.min_facts}, max_facts={self.max_facts}: allowed are {allowed}")
        if self.names is not None and not self.max_facts < self.names <= len(CONCEPTS):
            allowed = f"{self.max_facts + 1} to {len(CONCEPTS)} with max_facts={self.max_facts}"
            raise ValueError(f"names={self.names}: allowed are {allowed}, so that something is left to be said of each")
        super().__post_init__()

    def problem(self, split: Split, index: int) -> Problem:
        """Draw problem ``index`` of a split: facts are redrawn until they belong to the split, in whatever order they stand."""
        rng = random.Random(f"{self.seed}/{split}/{index}")
        while True:
            drawing = Drawing(rng, rng.randint(self.min_facts, self.max_facts), self.names, self.is_walk)
            facts, query, answer = LANGUAGES[self.language](drawing)
            if split_of(*sorted(facts)) == split:
                told, again = (rng.sample(facts, len(facts)) for _ in range(2))
                if self.is_walk:
                    leads = [None if lead is None else facts[lead] for lead in drawing.leads()]
                    again = walked(again, dict(zip(facts, leads, strict=True)))
                said = [fact for fact in told if fact in facts[:2]]
                meta = {"facts": len(facts), "asked": facts[0], "said": said}
                return Problem(f"{split}-{index}", " ".join([*told, query]), tuple(again), answer, meta)

    def shortcuts(self) -> dict[str, Callable[[Problem], float]]:
        """Rules that answer without knowing who is asked about; of two facts that could answer, they take one by its place."""
        return {
            "as_said_first": lambda problem: float(problem.meta["said"][0] == problem.meta["asked"]),
            "as_said_last": lambda problem: float(problem.meta["said"][-1] == problem.meta["asked"]),
        }


class Drawing:
    """What is drawn for a problem: who and what facts are on, and what is said of them."""

    def __init__(self, rng: random.Random, count: int, names: int | None, is_walk: bool) -> None:
        """Draw ``count`` subjects, people first, and leave what is said of each open."""
        self.rng, self.count, self.is_walk = rng, count, is_walk
        self.concepts = CONCEPTS[:names]
        self.people = rng.sample(NAMES[:names], rng.randint(1, min(count - (names is None), MOST_PEOPLE)))
        self.subjects = [*self.people, *rng.sample(self.concepts, count - len(self.people))]
        self.objects: list[str | None] = [None] * count

    def draw(self, index: int) -> str:
        """Draw a concept to be said of subject ``index``; in walks one that a later fact is on, while there is one."""
        later = self.subjects[max(index + 1, len(self.people)) :]
        others = later if self.is_walk and later else [each for each in self.concepts if each != self.subjects[index]]
        self.objects[index] = other = self.rng.choice(others)
        return other

    def leads(self) -> list[int | None]:
        """For each fact the number of the one on its object."""
        return [self.subjects.index(each) if each in self.subjects else None for each in self.objects]


def walked(facts: list[str], leads: dict[str, str | None]) -> list[str]:
    """Order facts into walks: each is followed by the one that it leads to, unless that is told already."""
    told: list[str] = []
    for start in facts:
        fact: str | None = start
        while fact is not None and fact not in told:
            told.append(fact)
            fact = leads[fact]
    return told


def which_concept(given: Drawing) -> tuple[list[str], str, str]:
    """Facts in ProsQA's sentences, with query and answer: the first is asked for, the second has the other option."""
    objects = [given.draw(index) for index in range(given.count)]
    while objects[1] in (objects[0], given.subjects[1]):
        objects[1] = given.rng.choice(given.concepts)
    facts = [prosqa.is_a(s, o) for s, o in zip(given.subjects, objects, strict=True)]
    first, second = given.rng.sample(objects[:2], 2)
    return facts, f"Is {given.subjects[0]} a {first} or {second}?", facts[0]


def true_or_false(given: Drawing) -> tuple[list[str], str, str]:
    """Facts in ProntoQA's sentences, with query and answer: the first is asked for, another says the contrary."""
    rng = given.rng
    properties = [rng.choice(kind) for kind in rng.sample(KINDS, min(given.count, len(KINDS)))]
    is_denied, is_not_asked = rng.random() < 0.5, rng.random() < 0.5
    facts = [is_so(given.people[0], properties[0], is_denied)]
    for index, subject in enumerate(given.subjects[1:], start=1):
        wording = rng.choice(WORDINGS)
        if index < len(given.people):
            facts.append(f"{subject} is {an(given.draw(index))}.")
        elif index == given.count - 1:
            facts.append(has(subject, properties[0], not is_denied, wording))
        elif rng.random() < 0.5:
            facts.append(has(subject, properties[index % len(properties)], rng.random() < 0.5, wording))
        else:
            facts.append(prontoqa.is_a(subject, given.draw(index), wording))
    return facts, f"True or false: {is_so(given.people[0], properties[0], is_not_asked)}", str(is_denied == is_not_asked)


LANGUAGES: dict[str, Callable[[Drawing], tuple[list[str], str, str]]] = {
    "prosqa": which_concept,
    "prontoqa": true_or_false,
}
