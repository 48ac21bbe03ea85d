"""Plan types: the kind of each step, held against tables written by hand; controls; what is kept on disk."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from latent_lab.grading.answers import Equivalence
from latent_lab.plans.arithmetic import Arithmetic, operators
from latent_lab.plans.base import General, Plan, PlanError
from latent_lab.plans.kmeans import assigned, cluster, scaled, scaling, silhouette
from latent_lab.plans.words import MemoryReason, TfIdf
from latent_lab.problems import Problem
from latent_lab.problems.files import File
from latent_lab.problems.stories import Stories

# Operators

CASES = {
    "<<48/2=24>>": ["/"],
    "<<2*3+4-1=9>>": ["*", "+", "-"],
    "<<9=9>>": [],
    "<<-3+5=2>>": ["+"],  # a sign is no operator
    "<<5*-2=-10>>": ["*"],
    "Natalia sold 48/2 = <<48/2=24>>24 clips - in May + June": ["/"],  # only what stands in brackets counts
    "Since the distance is constant, the cost of the walnut log": [],
    "a 3-digit number and/or a 2-year-old": [],
    "She has 3 + 4 = 7 well-known apples, 5-3=2": ["+", "-"],
    "10% of $50 is .1 * $50 = $5": ["*"],
    "3 × 4 = 12 and 8 x 2": ["*", "*"],
    "x + y - 2z": ["+", "-"],
    r"\frac{1}{2} \cdot \sqrt{3} + \sin x": ["frac", "times", "sqrt", "+", "sin"],
    "log(8)/log(2)": ["log", "/", "log"],
    "5! = 120, wow!": ["!"],
    "x^2 - 1": ["^", "-"],
    "I bought a + sign": [],
}


@pytest.mark.parametrize(("step", "found"), CASES.items())
def test_operators_are_found_between_operands_and_never_inside_words(step: str, found: list[str]) -> None:
    assert operators(step) == found


@pytest.mark.parametrize(
    ("several", "label"),
    [("repeat", ("+", "*", "+")), ("unique", ("+", "*")), ("first", ("+",)), ("collapsed", ("+*",))],
)
def test_several_operators_are_announced_as_asked(several: str, label: tuple[str, ...]) -> None:
    problems = [Problem("p", "?", ("<<1+2*3+4=11>>", "<<4=4>>", "<<2*3=6>>"), "6")]
    plan = Arithmetic(several=several)
    plan.fit(problems)
    assert plan.labels(problems) == [(label, ("assignment",), ("*",))]


def test_operators_never_seen_together_go_by_their_first() -> None:
    plan = Arithmetic(several="collapsed")
    plan.fit([Problem("p", "?", ("<<1+2*3=7>>",), "7")])
    assert plan.kinds() == ("answer", "assignment", "+", "-", "*", "/", "+*")
    assert plan.labels([Problem("q", "?", ("<<9/3-1=2>>", "<<2*3+1=7>>"), "7")]) == [(("/",), ("+*",))]


def test_the_kinds_are_those_published() -> None:
    assert Arithmetic().kinds() == ("answer", "assignment", "+", "-", "*", "/")
    assert len(Arithmetic(operators="competition").kinds()) == 16
    assert MemoryReason().kinds() == ("answer", "assignment", "reason", "memory")
    assert General().kinds() == ()
    assert Arithmetic(assignment=False).kinds() == ("answer", "+", "-", "*", "/")
    assert Arithmetic(assignment=False).labels([Problem("p", "?", ("<<4=4>>",), "4")]) == [((),)]


def test_an_operator_outside_the_list_is_not_announced() -> None:
    problems = [Problem("p", "?", (r"\sqrt{4} + 1 = 3",), "3")]
    assert Arithmetic().labels(problems) == [(("+",),)]
    assert Arithmetic(operators="competition").labels(problems) == [(("sqrt", "+"),)]


@pytest.mark.parametrize("split", ["train", "test"])
def test_of_generated_stories_the_operators_are_the_true_ones(split: Any) -> None:
    problems = Stories(train_size=50, test_size=50).load(split)
    assert Arithmetic().labels(problems) == [tuple((op,) for op in p.meta["operations"]) for p in problems]


# Tags and words


def test_a_tag_says_what_a_step_draws_on_and_is_not_written() -> None:
    steps = ("[rag]: Iwo Jima is an island.", "[reason]: So yes.", "[reasoning]: It is [a]: b.", "[reason] and [rag]: M is 1000.")
    problem = Problem("p", "?", steps, "True")
    assert MemoryReason().labels([problem]) == [(("memory",), ("reason",), ("reason",), ("reason",))]
    written = ["Iwo Jima is an island.", "So yes.", "It is [a]: b.", "M is 1000."]
    assert [MemoryReason().text(step) for step in problem.steps] == written


@pytest.mark.parametrize("step", ["So yes.", "[fact]: So yes."])
def test_a_step_without_a_known_tag_is_an_error(step: str) -> None:
    message = f"p: the step '{step}' has no known tag; allowed before every step: [rag]:, [memory]:, [reason]:, [reasoning]:"
    with pytest.raises(PlanError, match=f"^{re.escape(message)}$"):
        MemoryReason().labels([Problem("p", "?", (step,), "True")])


def test_the_tags_of_the_published_rows(data_folder: Path) -> None:
    rows = json.loads((data_folder / "memory_reason" / "strategyqa_train.json").read_text())
    steps = [step for row in rows for step in row["cot_steps"]]
    (labels,) = MemoryReason().labels([Problem("all", "?", tuple(steps), "-")])
    assert len(rows) == 1603
    assert Counter(labels) == {("reason",): 3893, ("memory",): 3646}
    assert sum(not MemoryReason().text(step) for step in steps) == 71


@pytest.mark.parametrize(
    ("file", "problems", "without", "labels"),
    [
        ("strategyqa_train", 1603, 0, {("reason",): 3893, ("memory",): 3646}),
        ("strategyqa_test", 687, 1, {("reason",): 1710, ("memory",): 1542}),
        ("truthfulqa_train", 632, 0, {("reason",): 2257, ("memory",): 1169}),
        ("truthfulqa_test", 164, 164, {}),
        ("commonsenseqa_test", 1221, 1221, {}),
    ],
)
def test_the_published_files_are_read_whole(
    file: str, problems: int, without: int, labels: dict[Any, int], data_folder: Path
) -> None:
    path = data_folder / "memory_reason" / f"{file}.json"
    made = File(path=str(path), steps="cot_steps", may_lack_steps=True).load("test")
    assert (len(made), sum(not p.steps for p in made)) == (problems, without)
    assert Counter(label for steps in MemoryReason().labels(made) for label in steps) == labels
    rule, named = ("yes_no", {"True", "False"}) if "strategy" in file else ("choice", set("ABCDEFGHIJKLM"))
    assert {p.answer for p in made} <= named
    assert all(Equivalence(rule).same(p.answer, p.answer) for p in made)


def test_a_steps_word_is_the_one_with_the_largest_tf_idf() -> None:
    steps = ("buy red apples", "buy green pears", "buy red red pears", "sell pears")
    plan = TfIdf(least=0.3, most=0.7)  # kept: red (2 of 4 steps); buy and pears (3) are too common, the others too rare
    plan.fit([Problem("p", "?", steps, "1")])
    assert plan.state["rarity"] == {"red": pytest.approx(np.log(5 / 3) + 1)}
    assert plan.labels([Problem("p", "?", steps, "1")]) == [(("red",), ("assignment",), ("red",), ("assignment",))]
    assert TfIdf(least=0.3, most=0.8).control == "none"


def test_of_words_in_equal_number_the_rarer_tells_more() -> None:
    plan = TfIdf(least=0.0, most=1.0)
    plan.fit([Problem("p", "?", ("buy red", "buy buy buy red", "buy blue"), "1")])
    assert plan.labels([Problem("q", "?", ("buy red", "buy buy buy red", "sky"), "1")]) == [(("red",), ("buy",), ("assignment",))]


def test_a_word_that_names_a_block_of_its_own_is_no_kind() -> None:
    plan = TfIdf(least=0.0, most=1.0)
    plan.fit([Problem("p", "?", ("answer red", "prefix filler assignment red"), "1")])
    assert plan.own_kinds() == ("red",)


def test_words_that_are_all_too_rare_are_an_error() -> None:
    with pytest.raises(PlanError, match=r"^plan\.least=0\.9: no word stands in that share of the 2 training steps"):
        TfIdf(least=0.9, most=0.9).fit([Problem("p", "?", ("a b", "c d"), "1")])


# Controls

STORIES = Stories(train_size=400, valid_size=60)


def fitted(control: str, **settings: Any) -> Plan:
    plan = Arithmetic(control=control, **settings)
    plan.fit(STORIES.load("train"))
    return plan


@pytest.mark.parametrize("control", ["filler", "random", "position"])
def test_a_control_has_as_many_kinds_before_each_step(control: str) -> None:
    valid = [*STORIES.load("valid"), Problem("p", "?", ("<<1+2*3=7>>", "<<7=7>>"), "7")]
    true, made = Arithmetic().labels(valid), fitted(control).labels(valid)
    assert [[len(label) for label in steps] for steps in made] == [[len(label) for label in steps] for steps in true]
    known = set(fitted(control).kinds())
    assert {kind for steps in made for label in steps for kind in label} <= known


def test_fillers_are_all_alike_and_so_is_the_answers() -> None:
    plan = fitted("filler")
    assert plan.kinds() == ("filler",)
    assert plan.answer_kind == "filler"
    assert plan.labels([Problem("p", "?", ("<<1+2*3=7>>", "<<7=7>>"), "7")]) == [(("filler", "filler"), ("filler",))]


def test_positions_are_counted_from_zero_and_stop_at_the_longest_training_chain() -> None:
    plan = Arithmetic(control="position")
    plan.fit([Problem("p", "?", ("<<1+1=2>>", "<<2+2=4>>"), "4")])
    assert plan.kinds() == ("answer", "position0", "position1")
    long = Problem("q", "?", ("<<1+1=2>>", "<<1+1*2=3>>", "<<3+1=4>>"), "4")
    assert plan.labels([long]) == [(("position0",), ("position1", "position1"), ("position1",))]


def test_shuffled_kinds_come_as_often_as_in_training_whatever_the_step() -> None:
    plan, train = fitted("shuffled"), STORIES.load("train")
    true = [label for steps in Arithmetic().labels(train) for label in steps]
    made = [label for steps in plan.labels(train) for label in steps]
    n = len(true)
    for label, count in Counter(true).items():
        share = count / n
        assert made.count(label) / n == pytest.approx(share, abs=4 * (share * (1 - share) / n) ** 0.5)
    chance = sum((count / n) ** 2 for count in Counter(true).values())
    agreement = sum(a == b for a, b in zip(true, made, strict=True)) / n
    assert agreement == pytest.approx(chance, abs=4 * (chance * (1 - chance) / n) ** 0.5)


def test_random_kinds_are_drawn_evenly() -> None:
    made = Counter(kind for steps in fitted("random").labels(STORIES.load("train")) for label in steps for kind in label)
    assert set(made) == {"assignment", "+", "-", "*", "/"}
    n = sum(made.values())
    assert all(count / n == pytest.approx(0.2, abs=4 * (0.16 / n) ** 0.5) for count in made.values())


@pytest.mark.parametrize("control", ["shuffled", "random"])
def test_what_is_drawn_depends_on_seed_problem_and_step_alone(control: str) -> None:
    plan, train = fitted(control), STORIES.load("train")
    assert plan.labels(train[::-1]) == plan.labels(train)[::-1]
    assert fitted(control, seed=1).labels(train) != plan.labels(train)


# On disk


def test_what_was_learned_comes_back_from_disk(tmp_path: Path) -> None:
    plan = fitted("shuffled", several="collapsed")
    plan.save(tmp_path)
    again = Arithmetic(control="shuffled", several="collapsed")
    again.load(tmp_path)
    assert again.hash() == plan.hash()
    assert again.labels(STORIES.load("valid")) == plan.labels(STORIES.load("valid"))


def test_a_plan_that_is_missing_of_another_kind_or_damaged_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"holds no plan\.json, so no plan was fitted there"):
        Arithmetic().load(tmp_path)
    fitted("shuffled").save(tmp_path)
    with pytest.raises(PlanError, match=r"holds a plan of the kind Arithmetic; asked for is TfIdf$"):
        TfIdf().load(tmp_path)
    with pytest.raises(PlanError, match=r"it does not match its hash"):
        Arithmetic(control="shuffled", several="first").load(tmp_path)
    text = (tmp_path / "plan.json").read_text()
    (tmp_path / "plan.json").write_text(text.replace('"longest": ', '"longest": 1'))
    with pytest.raises(PlanError, match=r"it does not match its hash, so it is damaged or has other settings; fit it again$"):
        Arithmetic(control="shuffled").load(tmp_path)


# Clusters

CORNERS = np.array([[0, 0], [10, 0], [0, 10]], dtype=np.float32)


def blobs(sizes: tuple[int, ...]) -> Any:
    rng = np.random.default_rng(0)
    return np.concatenate([c + rng.normal(0, 1, (n, 2)) for c, n in zip(CORNERS, sizes, strict=True)]).astype(np.float32)


def test_clusters_are_where_the_points_are() -> None:
    points = blobs((50, 50, 50))
    centroids, prices = cluster(points, 3, seed=0)
    assert prices.tolist() == [0, 0, 0]
    nearest = np.linalg.norm(centroids[:, None] - CORNERS[None], axis=2)
    assert sorted(nearest.argmin(axis=1).tolist()) == [0, 1, 2]
    assert nearest.min(axis=1).max() < 0.5
    found = assigned(points, centroids, prices)
    brute = [min(range(3), key=lambda k: float(((p - centroids[k]) ** 2).sum())) for p in points]
    assert found.tolist() == brute


def test_clusters_are_parted_as_far_as_a_silhouette_says() -> None:
    line = np.array([[0.0], [1], [10], [12]], dtype=np.float32)
    by_hand = (10 / 11 + 9 / 10 + 7.5 / 9.5 + 9.5 / 11.5) / 4
    assert silhouette(line, np.array([0, 0, 3, 3])) == pytest.approx(by_hand, rel=1e-5)
    assert silhouette(line[:3], np.array([0, 0, 1])) == pytest.approx((9 / 10 + 8 / 9 + 0) / 3, rel=1e-5)  # one is alone
    assert silhouette(line, np.array([1, 1, 1, 1])) == 0
    assert silhouette(np.zeros((4, 1), dtype=np.float32), np.array([0, 0, 1, 1])) == 0
    many = (10.5 / 11 + 9.5 / 10 + 8.5 / 9.5 + 10.5 / 11.5) / 4  # half of a point's own cluster lies on it
    assert silhouette(np.repeat(line, 1500, axis=0), np.repeat([0, 0, 3, 3], 1500)) == pytest.approx(many, rel=2e-3)


def test_the_same_seed_gives_the_same_clusters() -> None:
    points = blobs((20, 30, 40))
    assert all((a == b).all() for a, b in zip(cluster(points, 3, seed=4), cluster(points, 3, seed=4), strict=True))


def test_balanced_clusters_are_equally_large_where_plain_ones_are_not() -> None:
    points = blobs((90, 20, 10))
    plain, balanced = (
        np.bincount(assigned(points, *cluster(points, 3, seed=0, balanced=is_balanced)), minlength=3)
        for is_balanced in (False, True)
    )
    assert plain.max() - plain.min() > 20
    assert balanced.max() - balanced.min() <= 4


def test_scaling_is_learned_once_and_applied_to_any_points() -> None:
    points = np.array([[0, 0], [2, 200]], dtype=np.float32)
    standard = scaling(points, "standard", 1)
    assert scaled(points, standard).tolist() == [[-1, -1], [1, 1]]
    assert scaled(np.array([[3, 100]], dtype=np.float32), standard).tolist() == [[2, 0]]
    turned = scaled(points, scaling(points, "pca", 1))
    assert turned.shape == (2, 1)
    assert turned[1, 0] == pytest.approx(np.hypot(1, 100))
    assert scaled(points, scaling(points, "none", 1)) is points
    constant = np.array([[1, 5], [2, 5]], dtype=np.float32)
    assert scaled(constant, scaling(constant, "standard", 1))[:, 1].tolist() == [0, 0]


# Settings

MISTAKES = [
    (Arithmetic, {"control": "x"}, "control=x: allowed are none, filler, shuffled, random, position"),
    (General, {"control": "filler"}, "control=filler: this plan tells no steps apart; allowed are none"),
    (Arithmetic, {"operators": "x"}, "operators=x: allowed are basic, competition"),
    (Arithmetic, {"several": "x"}, "several=x: allowed are repeat, unique, first, collapsed"),
    (TfIdf, {"least": 0.9}, "least=0.9: allowed are shares from 0 to most=0.8, which is at most 1"),
]


@pytest.mark.parametrize(("plan", "settings", "message"), MISTAKES)
def test_an_impossible_setting_says_what_is_allowed(plan: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        plan(**settings)
