import json
import math
import re
from collections import Counter

import pytest

from latent_lab.problems import SPLITS, Problem
from latent_lab.problems.graphs import CONCEPTS, NAMES
from latent_lab.problems.prontoqa import KINDS, RULES, ProntoQA, credit, has, is_a, kinds, split_of_chain

SENTENCE = r"(?:(?:Every|Each) (\w+) is|(\w+) are) (not )?(?:an? )?(\w+)\."


def singular(word):
    return re.sub(r"(?<=pus)es$", "", word.casefold())


def rules_of(question):
    """Every rule of a question: (concept, is it denied, concept or property)."""
    found = re.findall(SENTENCE, question)
    return [(singular(one or many), bool(denied), singular(other)) for one, many, denied, other in found]


def deductions(question, name):
    """What follows for a person, each with the number of rules it takes: what a reader who follows every rule finds."""
    facts = re.findall(rf"\b{name} is an? (\w+)\.", question)
    follows = dict.fromkeys(((False, concept) for concept in facts), 0)
    queue = list(follows)
    rules = rules_of(question)
    for denied, concept in queue:
        for source, is_not, other in rules:
            if source == concept and not denied and (is_not, other) not in follows:
                follows[is_not, other] = follows[denied, concept] + 1
                queue.append((is_not, other))
    return follows


def query_of(question):
    name, denied, asked = re.search(r"True or false: (\w+) is (not )?(\w+)\.$", question).groups()
    return name, bool(denied), asked


@pytest.fixture(scope="module")
def problems():
    return ProntoQA(size=2_000).load("test")


def test_the_form_is_that_of_prontoqa():
    problem = ProntoQA(size=1, hops=2).load("test")[0]
    assert problem.question == (
        "Scrompuses are not mean. Each wumpus is a quimpus. Each yerpus is a tumpus. Each yerpus is a scrompus. Each wumpus is a "
        "fompus. Every yerpus is bright. Each fompus is mean. Each wumpus is not fast. Gabriel is a yerpus. Rex is a wumpus. "
        "True or false: Gabriel is not mean."
    )
    assert problem.steps == (
        "Gabriel is a yerpus. Each yerpus is a scrompus.",
        "Gabriel is a scrompus. Scrompuses are not mean.",
        "Gabriel is not mean.",
    )
    assert problem.answer == "True"


def test_the_answer_follows_from_as_many_rules_as_hops_and_nothing_contradicts_it(problems):
    for problem in problems[:300]:
        name, is_not_asked, asked = query_of(problem.question)
        follows = deductions(problem.question, name)
        assert [depth for (_, what), depth in follows.items() if what == asked] == [5]
        assert problem.answer == str((is_not_asked, asked) in follows)


def test_steps_are_known_facts_with_the_rules_that_apply_and_end_with_the_conclusion(problems):
    for problem in problems[:300]:
        name, _, asked = query_of(problem.question)
        *steps, conclusion = problem.steps
        assert len(steps) == problem.meta["hops"] == 5
        known = re.findall(r"[^.]+\.", steps[0])[0]
        assert known in problem.question
        for step in steps:
            fact, rule = re.findall(r"[^.]+\.", step)
            assert fact == known
            assert rule.strip() in problem.question
            ((source, is_not, other),) = rules_of(rule)
            assert re.fullmatch(rf"{name} is an? {source}\.", fact)
            known = f"{name} is {'not ' * is_not}{'' if other == asked else 'an ' if other[0] in 'aeiou' else 'a '}{other}."
        assert conclusion == known


def test_exchanging_the_two_people_exchanges_true_and_false(problems):
    for problem in problems[:300]:
        name, is_not_asked, asked = query_of(problem.question)
        (other,) = set(re.findall(r"\b([A-Z]\w+) is an? \w+pus\.", problem.question)) - {name}
        follows = deductions(problem.question, other)
        assert [depth for (_, what), depth in follows.items() if what == asked] == [5]
        assert problem.answer != str((is_not_asked, asked) in follows)


def test_both_ends_are_named_equally_often_and_no_two_properties_are_of_one_kind(problems):
    for problem in problems[:300]:
        words = Counter(singular(word) for word in re.findall(r"\w+", problem.question))
        assert words[problem.meta["chain"][-1]] == words[problem.meta["rival"][-1]] == 2
        properties = {other for _, _, other in rules_of(problem.question) if not other.endswith("pus")}
        assert len(properties) == 9
        assert max(len(properties & set(kind)) for kind in KINDS) == 1


def test_half_of_the_answers_are_true(problems):
    true = sum(problem.answer == "True" for problem in problems)
    assert {problem.answer for problem in problems} == {"True", "False"}
    assert abs(true - 1_000) < 3 * math.sqrt(500)


def test_the_person_asked_about_is_introduced_first_or_second(problems):
    first = 0
    for problem in problems:
        one, other = re.findall(r"\b([A-Z]\w+) is an? \w+pus\.", problem.question)
        first += problem.meta["name"] == one
        assert problem.meta["name"] in (one, other)
    assert abs(first - 1_000) < 3 * math.sqrt(500)


@pytest.mark.parametrize("name", RULES)
def test_no_rule_that_does_not_follow_the_chain_is_better_than_a_coin(problems, name):
    rule = ProntoQA().shortcuts()[name]
    assert abs(sum(map(rule, problems)) / 2_000 - 0.5) < 3 * 0.5 / math.sqrt(2_000)


def test_a_rule_earns_its_chance_of_being_right():
    said = ["Every lorpus is floral.", "Dumpuses are not floral."]
    meta = {"said": said, "is_not_asked": True, "chain": ["lorpus"], "rival": ["dumpus"]}
    context = "Every lorpus is floral. Lorpuses are vumpuses. Dumpuses are not floral. Stella is a lorpus."
    problem = Problem("x", f"{context} True or false: Stella is not floral.", (), "False", meta)
    # The query shares "is floral." with the first sentence and "not floral." with the second: a tie.
    assert {name: credit(rule, problem) for name, rule in RULES.items()} == {
        "always_true": 0,
        "not_asked_is_false": 1,
        "as_said_first": 1,
        "as_said_last": 0,
        "nearest_in_words": 0.5,
        "most_named": 1,
    }


def test_a_chain_is_in_one_split_for_ever():
    chains = [
        {
            (*problem.meta["chain"], problem.meta["property"])
            for seed in (0, 1)
            for problem in ProntoQA(seed=seed, size=300).load(s)
        }
        for s in SPLITS
    ]
    assert [len(chain) for chain in chains] == [600, 600, 600]
    assert not chains[0] & chains[1]
    assert not chains[0] & chains[2]
    assert not chains[1] & chains[2]
    for split, chain in zip(SPLITS, chains, strict=True):
        assert {split_of_chain(list(concepts), asked) for *concepts, asked in chain} == {split}


def test_a_problem_depends_on_seed_split_and_index_alone():
    many = ProntoQA(size=30).load("train")
    assert ProntoQA(size=5).load("train") == many[:5]
    assert ProntoQA().problem("train", 17) == many[17]
    assert ProntoQA(seed=1).problem("train", 0).question != many[0].question
    assert [ProntoQA().train_size, ProntoQA().valid_size, ProntoQA().test_size] == [9_000, 200, 800]


@pytest.mark.parametrize("hops", [1, 7])
def test_hops_from_1_to_7_can_be_asked_for(hops):
    for problem in ProntoQA(hops=hops, size=20).load("valid"):
        name, _, asked = query_of(problem.question)
        assert len(problem.steps) == hops + 1
        assert [depth for (_, what), depth in deductions(problem.question, name).items() if what == asked] == [hops]
        assert json.loads(json.dumps(problem.meta)) == problem.meta


@pytest.mark.parametrize("hops", [0, 8])
def test_other_hops_are_refused(hops):
    with pytest.raises(ValueError, match=f"^hops={hops}: allowed are 1 to 7$"):
        ProntoQA(hops=hops)


@pytest.mark.parametrize(
    ("wording", "rule", "denial"),
    [
        ("every", "Every yerpus is a scrompus.", "Every scrompus is not mean."),
        ("each", "Each yerpus is a scrompus.", "Each scrompus is not mean."),
        ("plural", "Yerpuses are scrompuses.", "Scrompuses are not mean."),
    ],
)
def test_rules_can_all_be_said_in_one_way(wording, rule, denial):
    assert is_a("yerpus", "scrompus", wording) == rule
    assert has("scrompus", "mean", True, wording) == denial
    for problem in ProntoQA(size=20, wordings=[wording]).load("valid"):
        said = [sentence.split()[0] for sentence in problem.question.split(". ")[:-3]]
        assert {"every": {"Every"}, "each": {"Each"}}.get(wording, {first for first in said if first.endswith("puses")}) == set(
            said
        )


def test_what_is_known_and_the_rule_that_applies_can_be_steps_of_their_own():
    joined, apart = (ProntoQA(size=20, is_apart=is_apart).load("test") for is_apart in (False, True))
    assert [" ".join(problem.steps) for problem in apart] == [" ".join(problem.steps) for problem in joined]
    assert {len(problem.steps) for problem in apart} == {11}
    (problem,) = ProntoQA(size=1, hops=1, is_apart=True).load("test")
    assert problem.steps == ("Stella is a storpus.", "Storpuses are bitter.", "Stella is bitter.")


def test_queries_that_deny_can_be_left_out():
    problems = ProntoQA(size=300, asks_denials=False).load("test")
    assert not any(query_of(problem.question)[1] for problem in problems)
    assert all(problem.answer == str(" not " not in problem.steps[-1]) for problem in problems)
    assert {problem.answer for problem in problems} == {"True", "False"}


def test_names_can_be_few():
    problems = ProntoQA(size=300, hops=2, names=10).load("test")
    said = " ".join(problem.question for problem in problems)
    assert {name for name in NAMES if re.search(rf"\b{name}\b", said)} == set(NAMES[:10])
    assert set(re.findall(r"\b\w+pus", said.casefold())) == set(CONCEPTS[:10])
    assert {problem.meta["property"] for problem in problems} == {word for kind in KINDS[:3] for word in kind}


def test_properties_are_of_the_kinds_that_are_whole_among_the_first():
    assert [len(kinds(names)) for names in (3, 4, 5, 6, 9, 10, 38, None)] == [0, 1, 1, 2, 2, 3, 11, 13]


@pytest.mark.parametrize("names", [9, 39])
def test_too_few_or_too_many_names_are_refused(names):
    says = f"names={names}: allowed are 10 to 38 with hops=2, enough concepts and kinds of properties for a problem"
    with pytest.raises(ValueError, match=says):
        ProntoQA(hops=2, names=names)


@pytest.mark.parametrize("wordings", [[], ["some"], ["every", "all"]])
def test_other_wordings_are_refused(wordings):
    with pytest.raises(ValueError, match=re.escape(f"wordings={wordings}: allowed are some of every, each, plural")):
        ProntoQA(wordings=wordings)
