import random
import re

import pytest

from latent_lab.problems import SPLITS
from latent_lab.problems.generated import split_of
from latent_lab.problems.graphs import CONCEPTS, NAMES
from latent_lab.problems.recall import LANGUAGES, Recall

SENTENCE = r"[^.]+\."


def told_in(problem):
    """The facts of a problem in the order they are told in, and its query."""
    facts = [fact.strip() for fact in re.findall(SENTENCE, problem.question)]
    if facts[-1].startswith("True or false"):
        return facts[:-1], facts[-1]
    return facts, problem.question.rpartition(". ")[2]


def subject_of(fact):
    return re.fullmatch(r"(?:(?:Every|Each) )?(\w+) (?:is|are) .+\.", fact)[1].casefold().removesuffix("es")


def test_facts_are_told_then_told_again_in_another_order_and_one_is_asked_for():
    problem = Recall(size=1).load("test")[0]
    assert problem.question == (
        "Tom is a zumpus. Alex is a vumpus. Every quimpus is a rempus. Every tumpus is a chorpus. Stella is a terpus. "
        "Every storpus is a tumpus. Is Alex a zumpus or vumpus?"
    )
    assert problem.steps == (
        "Every storpus is a tumpus.",
        "Stella is a terpus.",
        "Every tumpus is a chorpus.",
        "Every quimpus is a rempus.",
        "Tom is a zumpus.",
        "Alex is a vumpus.",
    )
    assert problem.answer == "Alex is a vumpus."


def test_the_other_language_is_prontoqas():
    problem = Recall(size=2, language="prontoqa").load("test")[1]
    assert problem.question == (
        "Zhorpuses are shumpuses. Every kerpus is angry. Gabriel is not nervous. Eva is fruity. Fae is a numpus. "
        "Rempuses are kerpuses. True or false: Gabriel is fruity."
    )
    assert problem.steps == (
        "Gabriel is not nervous.",
        "Rempuses are kerpuses.",
        "Eva is fruity.",
        "Zhorpuses are shumpuses.",
        "Fae is a numpus.",
        "Every kerpus is angry.",
    )
    assert problem.answer == "Gabriel is not nervous."


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_step_is_a_fact_and_no_subject_has_two(language):
    for problem in Recall(size=500, language=language, max_facts=20).load("valid"):
        facts, _ = told_in(problem)
        assert sorted(facts) == sorted(problem.steps)
        assert len({subject_of(fact) for fact in facts}) == len(facts) == problem.meta["facts"]


def test_the_answer_is_the_fact_on_who_is_asked_about_and_the_other_option_is_said_too():
    for problem in Recall(size=500).load("valid"):
        facts, query = told_in(problem)
        name, *options = re.fullmatch(r"Is (\w+) a (\w+) or (\w+)\?", query).groups()
        assert problem.answer in facts
        assert problem.answer == problem.meta["asked"]
        (right,) = (option for option in options if problem.answer == f"{name} is a {option}.")
        (other,) = (option for option in options if option != right)
        assert any(fact.endswith(f" {other}.") and not fact.startswith(name) for fact in facts)


def test_prontoqas_answer_is_the_fact_too_and_its_query_says_that_or_what_was_said_of_another():
    queries = {True: 0, False: 0}
    for problem in Recall(size=2_000, language="prontoqa", wordings=["every"]).load("train"):
        facts, query = told_in(problem)
        said = query.removeprefix("True or false: ")
        name, _, claim = said.partition(" is ")
        assert problem.answer in facts
        assert problem.answer.startswith(f"{name} is ")
        queries[said == problem.answer] += 1
        if said != problem.answer:
            assert any(fact.endswith(f" is {claim}") for fact in facts)
    assert abs(queries[True] - 1_000) < 4 * 0.5 * 2_000**0.5


def test_half_of_what_prontoqa_tells_is_a_property_and_half_of_these_are_denied():
    told = [fact for problem in Recall(size=2_000, language="prontoqa").load("train") for fact in problem.steps]
    properties = [fact for fact in told if not re.search(r"pus\.$|puses\.$", fact)]
    assert abs(len(properties) / len(told) - 0.5) < 4 * 0.5 / len(told) ** 0.5
    denied = [" not " in fact for fact in properties]
    assert abs(sum(denied) / len(denied) - 0.5) < 4 * 0.5 / len(denied) ** 0.5
    assert not any(" not " in fact for fact in told if fact not in properties)


@pytest.mark.parametrize("language", LANGUAGES)
def test_rules_that_do_not_know_who_is_asked_about_are_right_half_of_the_time(language):
    dataset = Recall(size=4_000, language=language)
    problems = dataset.load("test")
    for rule in dataset.shortcuts().values():
        right = [rule(problem) for problem in problems]
        assert abs(sum(right) / len(right) - 0.5) < 4 * 0.5 / len(right) ** 0.5


@pytest.mark.parametrize("language", LANGUAGES)
def test_names_are_the_first_so_many(language):
    said = " ".join(problem.question for problem in Recall(size=500, language=language, names=8).load("test"))
    assert {name for name in NAMES if re.search(rf"\b{name}\b", said)} == set(NAMES[:8])
    assert set(re.findall(r"\b\w+pus", said.casefold())) == set(CONCEPTS[:8])


def test_rules_are_said_in_the_wordings_given():
    few, every = (Recall(size=200, language="prontoqa", **given).load("test") for given in ({"wordings": ["plural"]}, {}))
    assert not re.search(r"\b(Every|Each)\b", " ".join(problem.question for problem in few))
    assert re.search(r"\bEvery\b.*\bEach\b", " ".join(problem.question for problem in every))


def test_all_numbers_of_facts_are_equally_likely():
    counts = [problem.meta["facts"] for problem in Recall(size=5_000, min_facts=3, max_facts=7).load("test")]
    assert {count: 900 < counts.count(count) < 1_100 for count in set(counts)} == dict.fromkeys(range(3, 8), True)


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_same_facts_are_in_one_split_in_whatever_order(language):
    for split in SPLITS:
        for problem in Recall(size=200, language=language, max_facts=3).load(split):
            facts, _ = told_in(problem)
            random.Random(0).shuffle(facts)
            assert split_of(*sorted(facts)) == split


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"language": "english"}, "language=english: allowed are prosqa, prontoqa"),
        ({"min_facts": 1}, "min_facts=1, max_facts=6: allowed are 2 <= min_facts <= max_facts <= 20"),
        ({"min_facts": 7}, "min_facts=7, max_facts=6: allowed are 2 <= min_facts <= max_facts <= 20"),
        (
            {"names": 3, "max_facts": 2},
            "names=3: allowed are 4 to 38 with max_facts=2",
        ),
        ({"names": 6}, "names=6: allowed are 7 to 38 with max_facts=6"),
        ({"wordings": ["every"]}, "wordings=['every']: prosqa says every rule in one way; take it away, or language=prontoqa"),
        ({"wordings": ["all"]}, "wordings=['all']: allowed are some of every, each, plural"),
        ({"max_facts": 21}, "min_facts=2, max_facts=21: allowed are 2 <= min_facts <= max_facts <= 20"),
    ],
)
def test_what_cannot_be_drawn_is_refused(given, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        Recall(**given)
