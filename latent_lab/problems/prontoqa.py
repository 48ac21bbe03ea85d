"""ProntoQA as Coconut (arXiv 2412.06769) uses it: is a property true of someone, five deductions away in a made-up ontology?

The form is that of PrOntoQA (Saparov and He, arXiv 2210.01240; fictional ontology, sentences in random order, facts last):
``... Each yumpus is a lorpus. Brimpuses are not luminous. ... Stella is a zumpus. True or false: Stella is not floral.`` A step
is what is known and the rule that applies to it, ``Stella is a yumpus. Each yumpus is a lorpus.``; the last is the conclusion.

Differs from paper: there one concept that leads nowhere denies what the chain's end asserts, so that counting how often a
concept is named tells which of the two matters. Here the denial ends a second chain, that of another person, which has as many
rules, side concepts and properties. A coin says who is asked about: exchanging the two names exchanges True and False, and no
rule that does not tell the names apart can be right more than half of the time.
"""

import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise

from latent_lab.problems import Problem, Split
from latent_lab.problems.generated import OneByOne, split_of
from latent_lab.problems.graphs import CONCEPTS, NAMES

WORDINGS = ("every", "each", "plural")
"""PrOntoQA's three ways to state a rule."""
MOST_HOPS = 7
"""Two chains of more rules would need more kinds of properties than there are."""
KINDS = (
    ("blue", "red", "brown", "orange"),
    ("small", "large"),
    ("metallic", "wooden", "luminous", "liquid"),
    ("transparent", "opaque"),
    ("nervous", "happy", "feisty", "shy"),
    ("bright", "dull"),
    ("sweet", "sour", "spicy", "bitter"),
    ("floral", "fruity", "earthy"),
    ("hot", "cold", "temperate"),
    ("kind", "mean", "angry", "amenable", "aggressive"),
    ("slow", "moderate", "fast"),
    ("windy", "sunny", "overcast", "rainy", "snowy"),
    ("loud", "muted", "discordant", "muffled", "melodic"),
)
"""Properties by kind: a problem uses at most one of a kind, so that none says anything about another."""


@dataclass
class ProntoQA(OneByOne):
    """True-or-false questions on two chains of concepts with side branches."""

    hops: int = 5
    """Deductions from the fact to the answer: rules from concept to concept, and one from a concept to its property."""
    wordings: list[str] = field(default_factory=lambda: list(WORDINGS))
    """How rules may be said: ``every`` and ``each`` concept is, or concepts (``plural``) are."""
    asks_denials: bool = True
    """Whether half of the queries say ``not``, as published; else none does, and the conclusion is the answer."""
    is_apart: bool = False
    """Whether what is known and the rule that applies are steps of their own; else both are one step, as published."""
    names: int | None = None
    """People, concepts and properties are drawn from the first so many; null takes all, 17, 38 and 43."""
    train_size: int = 9_000
    """Problems in the training split."""
    valid_size: int = 200
    """Problems in the validation split."""
    test_size: int = 800
    """Problems in the test split."""

    def __post_init__(self) -> None:
        if not 1 <= self.hops <= MOST_HOPS:
            raise ValueError(f"hops={self.hops}: allowed are 1 to {MOST_HOPS}")
        fewest = max(self.num_concepts, sum(map(len, KINDS[: 2 * self.hops - 1])))
        if self.names is not None and not fewest <= self.names <= len(CONCEPTS):
            allowed = f"{fewest} to {len(CONCEPTS)} with hops={self.hops}, enough concepts and kinds of properties for a problem"
            raise ValueError(f"names={self.names}: allowed are {allowed}")
        check_wordings(self.wordings)
        super().__post_init__()

    @property
    def num_concepts(self) -> int:
        """Concepts of a problem: two chains, and a side concept for each of theirs but the last."""
        return 4 * self.hops - 2

    def problem(self, split: Split, index: int) -> Problem:
        """Draw problem ``index`` of a split: concepts and property are redrawn until their chain belongs to the split."""
        rng = random.Random(f"{self.seed}/{split}/{index}")
        while True:
            concepts = rng.sample(CONCEPTS[: self.names], self.num_concepts)
            branches = (concepts[: 2 * self.hops - 1], concepts[2 * self.hops - 1 :])
            chains = [branch[: self.hops] for branch in branches]
            properties = [rng.choice(kind) for kind in rng.sample(kinds(self.names), 2 * self.hops - 1)]
            if split_of_chain(chains[0], properties[0]) == split:
                sides = [branch[self.hops :] for branch in branches]
                problem = written(f"{split}-{index}", chains, sides, properties, self, rng)
                return replace(problem, steps=taken_apart(problem.steps)) if self.is_apart else problem

    def choices_of(self, problem: Problem) -> tuple[str, ...]:
        """Return the answers that there are."""
        return ("True", "False")

    def shortcuts(self) -> dict[str, Callable[[Problem], float]]:
        """Rules that answer without following the chain."""
        return {name: lambda problem, rule=rule: credit(rule, problem) for name, rule in RULES.items()}  # type: ignore[misc]


def check_wordings(wordings: list[str]) -> None:
    """Raise ValueError unless these are ways to state a rule."""
    if not wordings or not set(wordings) <= set(WORDINGS):
        raise ValueError(f"wordings={wordings}: allowed are some of {', '.join(WORDINGS)}")


def taken_apart(steps: tuple[str, ...]) -> tuple[str, ...]:
    """Make every sentence a step of its own."""
    return tuple(f"{sentence}." for step in steps for sentence in step.removesuffix(".").split(". "))


def kinds(names: int | None) -> tuple[tuple[str, ...], ...]:
    """The kinds whose properties are all among the first so many; null: all."""
    ends = accumulate(map(len, KINDS))
    return tuple(kind for kind, end in zip(KINDS, ends, strict=True) if names is None or end <= names)


def split_of_chain(concepts: list[str], asked: str) -> Split:
    """Assign a chain of concepts and the property at its end to one split for ever."""
    return split_of(*concepts, asked)


def written(
    id: str,
    chains: list[list[str]],
    sides: list[list[str]],
    properties: list[str],
    settings: ProntoQA,
    rng: random.Random,
) -> Problem:
    """Write the problem on the first of two chains; the first property ends both, the others go to the concepts before the ends.

    ``sides`` has, for each chain, a concept that each concept but the last is contained in as well.
    """
    asked, *others = properties
    wordings = settings.wordings
    is_denied, is_not_asked = rng.random() < 0.5, rng.random() < 0.5 and settings.asks_denials
    rules = [[is_a(a, b, rng.choice(wordings)) for a, b in pairwise(chain)] for chain in chains]
    ends = [
        has(chain[-1], asked, is_not, rng.choice(wordings))
        for chain, is_not in zip(chains, (is_denied, not is_denied), strict=True)
    ]
    carriers = [concept for chain in chains for concept in chain[:-1]]
    distractors = [is_a(a, b, rng.choice(wordings)) for a, b in zip(carriers, sides[0] + sides[1], strict=True)]
    distractors += [has(a, b, rng.random() < 0.5, rng.choice(wordings)) for a, b in zip(carriers, others, strict=True)]
    context = [*rules[0], *rules[1], *ends, *distractors]
    rng.shuffle(context)
    people = rng.sample(NAMES[: settings.names], 2)
    facts = [f"{name} is {an(chain[0])}." for name, chain in zip(people, chains, strict=True)]
    rng.shuffle(facts)
    name = people[0]
    known = [f"{name} is {an(concept)}." for concept in chains[0]]
    steps = [f"{fact} {rule}" for fact, rule in zip(known, [*rules[0], ends[0]], strict=True)]
    query = f"True or false: {is_so(name, asked, is_not_asked)}"
    return Problem(
        id=id,
        question=" ".join([*context, *facts, query]),
        steps=(*steps, is_so(name, asked, is_denied)),
        answer=str(is_denied == is_not_asked),
        meta={
            "hops": len(chains[0]),
            "name": name,
            "chain": chains[0],
            "rival": chains[1],
            "property": asked,
            "is_not_asked": is_not_asked,
            "said": [sentence for sentence in context if sentence in ends],
        },
    )


def is_so(name: str, asked: str, is_not: bool) -> str:
    """State that someone has a property, or has it not."""
    return f"{name} is {'not ' * is_not}{asked}."


def an(concept: str) -> str:
    """Put the article before a concept."""
    return f"{'an' if concept[0] in 'aeiou' else 'a'} {concept}"


def is_a(concept: str, other: str, wording: str) -> str:
    """State that one concept is contained in another, in one of ``WORDINGS``."""
    return (
        f"{concept.capitalize()}es are {other}es." if wording == "plural" else f"{wording.capitalize()} {concept} is {an(other)}."
    )


def has(concept: str, asked: str, is_not: bool, wording: str) -> str:
    """State that a concept has a property, or has it not, in one of ``WORDINGS``."""
    said = f"{'not ' * is_not}{asked}."
    return f"{concept.capitalize()}es are {said}" if wording == "plural" else f"{wording.capitalize()} {concept} is {said}"


def agreement(sentence: str, problem: Problem) -> float:
    """Return 1 where a sentence on the property says what the query says, 0 where it says the contrary."""
    return float((" not " in sentence) == problem.meta["is_not_asked"])


def nearest_in_words(problem: Problem) -> float:
    """Return what the sentence on the property says that shares most words with the query; 1/2 where both share as many."""
    query = set(problem.question.rpartition(":")[2].split())
    shared = [len(query & set(sentence.split())) for sentence in problem.meta["said"]]
    best = [agreement(sentence, problem) for sentence, n in zip(problem.meta["said"], shared, strict=True) if n == max(shared)]
    return sum(best) / len(best)


def most_named(problem: Problem) -> float:
    """Return what is said of the concept that is named more often, of the two with the property; 1/2 where both are as often."""
    words = re.findall(r"(\w+?)(?:es)?\b", problem.question.casefold())
    named = [(words.count(re.findall(r"\w+pus", said.casefold())[0]), agreement(said, problem)) for said in problem.meta["said"]]
    best = [agrees for count, agrees in named if count == max(named)[0]]
    return sum(best) / len(best)


RULES: dict[str, Callable[[Problem], float]] = {
    "always_true": lambda problem: 1.0,
    "not_asked_is_false": lambda problem: 0.0 if problem.meta["is_not_asked"] else 1.0,
    "as_said_first": lambda problem: agreement(problem.meta["said"][0], problem),
    "as_said_last": lambda problem: agreement(problem.meta["said"][-1], problem),
    "nearest_in_words": nearest_in_words,
    "most_named": most_named,
}
"""Each gives the probability with which it answers True."""


def credit(rule: Callable[[Problem], float], problem: Problem) -> float:
    """Return the probability with which a rule is right."""
    chance = rule(problem)
    return chance if problem.answer == "True" else 1 - chance
