"""Shortcut floors: what rules score that never reason. Here are those for any dataset; a dataset adds its own (``shortcuts()``).

A rule gives the credit expected on a problem, from 0 (wrong) to 1 (right). Each is the floor an accuracy must be held against.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from latent_lab.grading.answers import is_equal, normalise
from latent_lab.grading.statistics import mean_interval, wilson
from latent_lab.problems import Problem
from latent_lab.problems.checks import is_number
from latent_lab.problems.likeness import SAME, Likeness

Rule = Callable[[Problem], float]

NUMBER = re.compile(r"(?<![\w.])-?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?(?!\w)|(?<![\w.])-?\.[0-9]+")
MOST_COMPARED = 20_000
"""Training problems that a question is compared with at most: the first ones."""


def floors(problems: Sequence[Problem], train: Sequence[Problem], own: dict[str, Rule]) -> dict[str, dict[str, Any]]:
    """What each rule scores on ``problems``, with its interval and n: the dataset's ``own`` first, then those for any dataset."""
    return {name: score([rule(problem) for problem in problems]) for name, rule in {**own, **generic(problems, train)}.items()}


def score(credits: Sequence[float]) -> dict[str, Any]:
    """Average credits: with Wilson's interval where each is right or wrong, with a bootstrap interval where some are between."""
    if all(credit in (0, 1) for credit in credits):
        return wilson(round(sum(credits)), len(credits)).as_dict()
    return mean_interval(credits).as_dict()


def generic(problems: Sequence[Problem], train: Sequence[Problem]) -> dict[str, Rule]:
    """The rules that make sense for these problems: some need training problems, some need answers that are numbers."""
    rules: dict[str, Rule] = {}
    if train:
        rules["majority"] = fixed(most_frequent(train))
        rules["majority_by_steps"] = by_steps(train)
        rules["nearest_question"] = nearest(train)
    if any(is_number(problem.answer) for problem in problems):
        rules["first_number"] = lambda problem: credit(numbers(problem.question)[:1], problem)
        rules["last_number"] = lambda problem: credit(numbers(problem.question)[-1:], problem)
    return rules


def credit(answers: Sequence[str], problem: Problem) -> float:
    """1 where the only answer is right; 0 where it is wrong or there is none."""
    return float(any(is_equal(answer, problem.answer) for answer in answers))


def numbers(question: str) -> list[str]:
    """The numbers of a question in their order; a point or comma that ends a sentence is no part of one."""
    return NUMBER.findall(question)


def most_frequent(problems: Sequence[Problem]) -> str:
    """The most frequent answer, equal answers counted as one; of several the one that comes first."""
    return Counter(normalise(problem.answer) for problem in problems).most_common(1)[0][0]


def fixed(answer: str) -> Rule:
    """Always give the same answer."""
    return lambda problem: credit([answer], problem)


def by_steps(train: Sequence[Problem]) -> Rule:
    """Give the most frequent answer among training problems with as many steps; among all where none has."""
    groups: dict[int, list[Problem]] = defaultdict(list)
    for problem in train:
        groups[len(problem.steps)].append(problem)
    answers = {count: most_frequent(group) for count, group in groups.items()}
    overall = most_frequent(train)
    return lambda problem: credit([answers.get(len(problem.steps), overall)], problem)


def nearest(train: Sequence[Problem]) -> Rule:
    """Give the answer of the training question most like the one asked, itself excluded; of several the first.

    See :class:`latent_lab.problems.likeness.Likeness`.
    """
    known = train[:MOST_COMPARED]
    likeness = Likeness(known)

    def rule(problem: Problem) -> float:
        found = likeness.to(problem.question)
        best = int(found.argmax())
        return credit([known[best].answer], problem) if found[best] > SAME else 0.0

    return rule
