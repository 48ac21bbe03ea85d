"""Linear probes find what was planted, where it was planted, and nothing else; every score stands beside its floors."""

import json
import math
from pathlib import Path

import pytest
import torch

from latent_lab.problems import Problem
from latent_lab.problems.arithmetic import addition
from latent_lab.thoughts.grammar import ADDITION, Grammar, grammar_of
from latent_lab.thoughts.probe_exam import majority_hits, standard, whole_labels
from latent_lab.thoughts.probe_fit import Constant, Discriminant, Moments, fit_all
from latent_lab.thoughts.probe_matrix import argmax_slot, argmax_step, diagonal, offsets
from latent_lab.thoughts.probe_scores import Resampler, rate
from latent_lab.thoughts.probe_targets import check_apart, features_of, key_of, question_features, tables, targets
from latent_lab.thoughts.probes import fit_probes, probe_report, steps_right
from latent_lab.thoughts.questions import Material
from latent_lab.thoughts.scores import score
from latent_lab.thoughts.store import StoreError, ThoughtStore
from tests.thoughts.planted import noise, planted, sums

WIDTH, SLOTS = 24, 3
FIELDS = ("a", "b", "carry_in", "total", "write", "carry_out")


def codes(values: int, seed: int = 5) -> torch.Tensor:
    return 4 * torch.nn.functional.normalize(noise(values, WIDTH, seed=seed), dim=1)


def write_digits(problems: list[Problem], step: int) -> list[int]:
    return [int((ADDITION.parse(p.steps[step]) or {})["write"]) for p in problems]


def store_with_written_digits(folder: Path, split: str) -> ThoughtStore:
    """Noise; but slot 1 holds the digit that step 1 writes, and slot 2 that of step 2."""
    problems = sums(split)
    states = noise(len(problems), SLOTS, 1, WIDTH, seed=len(split))
    for slot in (0, 1):
        states[:, slot, 0] += codes(10)[write_digits(problems, slot)]
    return planted(folder / split, problems, states)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[ThoughtStore, ThoughtStore]:
    folder = tmp_path_factory.mktemp("stores")
    return store_with_written_digits(folder, "train"), store_with_written_digits(folder, "test")


@pytest.fixture(scope="module")
def report(stores: tuple[ThoughtStore, ThoughtStore]) -> dict:  # type: ignore[type-arg]
    return probe_report(*stores, ADDITION, [0], start=noise(200, WIDTH, seed=9))


# The fit


def test_discriminant_analysis_by_hand() -> None:
    """Values -2, 0 against 0, 2: within-covariance 4 squares over 4 - 2 degrees, weights m / 2, biases - m m / 4."""
    moments = Moments(torch.tensor([2.0, 2]), torch.tensor([[-2.0], [2]]).double(), torch.tensor([[8.0]]).double())
    assert moments.means.tolist() == [[-1.0], [1.0]]
    assert moments.within.tolist() == [[2.0]]
    weight, bias = moments.solved((0.0, 1.0))
    torch.testing.assert_close(weight[:, :, 0], torch.tensor([[-0.5, 0.5], [-0.5, 0.5]]).double(), atol=1e-5, rtol=0)
    torch.testing.assert_close(bias, torch.full((2, 2), -0.25).double(), atol=1e-5, rtol=0)
    assert moments.log_prior.exp().tolist() == pytest.approx([0.5, 0.5])


def test_fields_on_the_same_rows_are_fitted_as_each_alone() -> None:
    x, first = noise(200, 8, seed=0), torch.arange(200) % 3
    second = torch.where(torch.arange(200) < 150, torch.arange(200) % 2, -1)
    sizes, left_out = {"first": 3, "second": 2}, torch.arange(200) % 5 == 0
    both = fit_all(x, {"first": first, "second": second}, sizes, left_out)
    alone = fit_all(x, {"second": second}, sizes, left_out)
    assert isinstance(both["second"], Discriminant)
    torch.testing.assert_close(both["second"].log_probabilities(x), alone["second"].log_probabilities(x))


def test_probabilities_sum_to_one_and_a_value_never_seen_is_not_impossible() -> None:
    x, y = noise(100, 4, seed=1), torch.arange(100) % 2
    probe = fit_all(x, {"f": y}, {"f": 3}, torch.arange(100) < 20)["f"]
    p = probe.log_probabilities(x).exp()
    torch.testing.assert_close(p.sum(1), torch.ones(100, dtype=torch.float64))
    assert (p[:, 2] > 0).all()
    assert (p[:, 2] < 1e-4).all()


@pytest.mark.parametrize(
    ("labels", "why"),
    [([1] * 40, "all 40 training steps say the same"), ([0, 1] * 5 + [-1] * 30, "10 training steps with a label; 20 are needed")],
)
def test_nothing_to_tell_apart_is_no_probe(labels: list[int], why: str) -> None:
    probe = fit_all(noise(40, 3, seed=0), {"f": torch.tensor(labels)}, {"f": 2}, torch.arange(40) < 8)["f"]
    assert isinstance(probe, Constant)
    assert probe.why == why


def test_a_component_that_does_not_vary_is_left_out() -> None:
    mean, scale = standard(torch.tensor([[1.0, 7.0], [3.0, 7.0]]))
    assert (mean.tolist(), scale.tolist()) == ([2.0, 7.0], [1.0, math.inf])


# What is found


def test_what_was_planted_is_found_only_there(report: dict) -> None:  # type: ignore[type-arg]
    written = report["matrix"]["write"]["value"]
    assert written[0][0] > 0.95
    assert written[1][1] > 0.95
    for slot, step in ((0, 1), (1, 0), (2, 0), (2, 1)):
        assert written[slot][step] < 0.25
    assert report["fields"]["write"]["slot"] == report["fields"]["write"]["step"]
    assert report["fields"]["write"]["gain"]["low"] > 0.9
    assert report["fields"]["write"]["selectivity"]["low"] > 0.3
    assert report["fields"]["write"]["bits"] > 2.8
    assert report["fields"]["write"]["entropy"] == pytest.approx(math.log2(10), abs=0.1)
    assert report["fields"]["a"]["all"]["selectivity"]["value"] < 0.1
    assert report["fields"]["a"]["all"]["floors"]["input"]["value"] == 1.0
    assert report["fields"]["write"]["control_by"] == "step"
    assert report["position_by_field"]["write"]["low"] > 0.7
    assert report["position_equal_n"]["n"] == 200
    assert report["own"] == [1, 2, 3]
    assert report["matrix"]["write"]["n"] == [[200, 200, None]] * 3


def test_every_source_has_its_row_and_only_the_real_one_tells_the_digit(report: dict) -> None:  # type: ignore[type-arg]
    rows = report["sources"]
    assert set(rows) == {"real", "zero", "mean", "random", "shuffled", "shuffled_in_stratum", "start", "label_swapped"}
    assert rows["real"]["fields"]["write"]["value"] > 0.95
    assert rows["label_swapped"]["fields"]["write"]["value"] < 0.05
    assert all(row["fields"]["write"]["value"] < 0.3 for name, row in rows.items() if name != "real")
    assert rows["real"]["bits"]["write"] > 2.5
    assert rows["shuffled"]["bits"]["write"] < 0
    assert set(rows["real"]["fields"]) == set(FIELDS)


def test_thoughts_of_another_seed_must_be_about_the_same_problems(stores: tuple[ThoughtStore, ThoughtStore]) -> None:
    rows = probe_report(*stores, ADDITION, [0], other_seed=stores[1])["sources"]
    assert rows["other_seed"] == rows["real"]
    with pytest.raises(StoreError, match="holds other problems than"):
        probe_report(*stores, ADDITION, [0], other_seed=stores[0])


def test_the_input_baseline_reads_what_it_is_given(stores: tuple[ThoughtStore, ThoughtStore]) -> None:
    given = [torch.eye(10)[write_digits(store.problems, 0)] for store in stores]
    found = probe_report(*stores, ADDITION, [0], inputs_train=given[0], inputs_test=given[1])["fields"]["write"]["slots"]
    assert found[0]["floors"]["input"]["value"] == 1.0
    assert found[1]["floors"]["input"]["value"] < 0.3
    assert found[1]["above_input"]["low"] > 0.5


def test_a_field_that_does_not_vary_is_no_score(report: dict) -> None:  # type: ignore[type-arg]
    first, second, last = report["fields"]["carry_in"]["slots"]
    assert first == {
        "slot": 1, "step": 1, "value": None, "n": 200, "low": None, "high": None, "clusters": 200,
        "why": "all 400 training steps say the same",
    }  # fmt: skip
    assert second["n"] == 200
    assert second["value"] is not None
    assert last["n"] == 0
    assert report["matrix"]["carry_in"]["value"][0][0] is None
    assert report["fields"]["carry_in"]["all"]["left_out"] == 2


def test_a_last_carry_always_writes_the_same(report: dict) -> None:  # type: ignore[type-arg]
    carries = sum(len(p.steps) == 3 for p in sums("train"))
    assert report["fields"]["write"]["slots"][2]["why"] == f"all {carries} training steps say the same"
    assert report["whole_step"]["slots"][2]["why"] == "no field varies"
    assert report["column_step_exact_match"]["n"] == 400


def spelled_out(problems: list[Problem]) -> torch.Tensor:
    """``[problems, 3, 1, 54]``: slot k holds every field of column k as ones and zeros, and noise; of a last carry, noise."""
    states = 0.1 * noise(len(problems), 3, 1, sum(map(len, ADDITION.values.values())), seed=len(problems))
    for i, problem in enumerate(problems):
        for k, step in enumerate(problem.steps):
            said, first = ADDITION.parse(step) or {}, 0
            for field, values in ADDITION.values.items():
                if ADDITION.is_counted(step):
                    states[i, k, 0, first + values.index(said[field])] += 1
                first += len(values)
    return states


def test_whole_steps_are_scored_on_the_steps_an_oracle_is_scored_on(tmp_path: Path) -> None:
    made = {name: planted(tmp_path / name, sums(name), spelled_out(sums(name))) for name in ("train", "test")}
    probes = fit_probes(made["train"], ADDITION, 0)
    found = steps_right(probes, made["test"], targets(made["test"], ADDITION, 3))
    material = Material(made["test"], ADDITION)
    asked = {
        (material.rows[item.problem]["id"], item.step) for item in material.items if ADDITION.is_counted(material.step(item))
    }
    assert found.keys() == asked
    assert len(asked) == 400 < len(material.items), "two columns of each problem, and no last carry"
    exact = probe_report(made["train"], made["test"], ADDITION, [0])["column_step_exact_match"]
    assert exact["value"] == sum(found.values()) / 400 > 0.95
    assert (exact["n"], exact["clusters"]) == (400, 200)


def test_a_report_is_json_and_the_same_again(stores: tuple[ThoughtStore, ThoughtStore], report: dict) -> None:  # type: ignore[type-arg]
    again = probe_report(*stores, ADDITION, [0], start=noise(200, WIDTH, seed=9))
    assert json.dumps(again, allow_nan=False) == json.dumps(report, allow_nan=False)


def two_words(folder: Path, name: str, n: int, states: torch.Tensor) -> ThoughtStore:
    """Problems of one step that says ``no`` three times in four."""
    problems = [Problem(f"{name}-{i}", f"{name} {i}", ("yes" if i % 4 == 0 else "no",), "1") for i in range(n)]
    return planted(folder / name, problems, states)


def words() -> Grammar:
    return grammar_of([Problem("1", "q", ("yes", "no"), "1")])


def test_a_probe_of_constants_scores_exactly_the_majority_floor(tmp_path: Path) -> None:
    stores = [two_words(tmp_path, name, n, torch.ones(n, 1, 1, 4)) for name, n in (("train", 200), ("test", 90))]
    found = probe_report(stores[0], stores[1], words(), [0])["fields"]["step"]
    assert found["value"] == found["floors"]["majority"]["value"] == found["floors"]["position_prior"]["value"] == 67 / 90
    assert found["floor"] == found["value"]
    assert found["gain"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert found["bits"] == pytest.approx(0.0, abs=1e-3)


def test_where_the_step_is_the_field_control_labels_hang_on_the_problem(tmp_path: Path) -> None:
    """Else the control would be the task itself with its values renamed, and nothing could be selective."""
    signs = [torch.where(torch.arange(n) % 4 == 0, 3.0, -3.0).view(n, 1, 1, 1) for n in (200, 90)]
    made = [
        two_words(tmp_path, name, len(x), x + noise(len(x), 1, 1, 4, seed=1))
        for name, x in zip(("train", "test"), signs, strict=True)
    ]
    found = probe_report(made[0], made[1], words(), [0])["fields"]["step"]
    assert found["control_by"] == "problem"
    assert found["value"] > 0.95
    assert found["selectivity"]["low"] > 0.1


def test_shuffled_labels_leave_no_selectivity(tmp_path: Path) -> None:
    made = []
    for split in ("train", "test"):
        problems = sums(split)
        states = noise(len(problems), 2, 1, WIDTH, seed=len(split))
        states[:, 0, 0] += codes(10)[write_digits(problems, 0)]
        other = torch.randperm(len(problems), generator=torch.Generator().manual_seed(1)).tolist()
        mixed = [Problem(p.id, p.question, problems[i].steps, p.answer) for p, i in zip(problems, other, strict=True)]
        made.append(planted(tmp_path / split, mixed, states))
    found = probe_report(made[0], made[1], ADDITION, [0])["fields"]["write"]["slots"][0]
    assert abs(found["selectivity"]["value"]) < 0.1
    assert found["selectivity"]["low"] <= 0 <= found["selectivity"]["high"]
    assert abs(found["bits"]) < 0.1


def test_problems_with_fewer_slots_are_not_asked_about_the_others(tmp_path: Path) -> None:
    made = []
    for split in ("train", "test"):
        problems = sums(split)
        counts = [1 + i % 2 for i in range(len(problems))]
        made.append(planted(tmp_path / split, problems, noise(len(problems), 2, 1, WIDTH, seed=1), counts))
    found = probe_report(made[0], made[1], ADDITION, [0])
    assert [each["n"] for each in found["fields"]["total"]["slots"]] == [200, 100]


# Reading


def test_reading_one_is_reading_many(stores: tuple[ThoughtStore, ThoughtStore]) -> None:
    train, test = stores
    probes = fit_probes(train, ADDITION, 0)
    vectors = test.layer(0)[:5, 0]
    many = probes.read(0, "write", vectors)
    assert many.shape == (5, 10)
    assert [int(row.argmax()) for row in many] == write_digits(test.problems[:5], 0)
    torch.testing.assert_close(torch.cat([probes.read(0, "write", v[None]) for v in vectors]), many)
    assert not torch.equal(probes.read(0, "write", vectors, step=1), many)
    (text, sure), (_, _), nothing = probes.say(test.layer(0)[0])
    assert f"write {write_digits(test.problems[:1], 0)[0]}" in text
    assert 0 < sure <= 1
    assert nothing == probes.say(test.layer(0)[0])[2]


def test_what_no_probe_was_fitted_for_is_refused(stores: tuple[ThoughtStore, ThoughtStore]) -> None:
    probes = fit_probes(stores[0], ADDITION, 0)
    with pytest.raises(ValueError, match="field=colour: allowed are a, b, carry_in"):
        probes.read(0, "colour", torch.zeros(1, WIDTH))
    with pytest.raises(ValueError, match="slot=7, step=None: allowed are slots 0 to 2 and steps 0 to 2"):
        probes.read(7, "write", torch.zeros(1, WIDTH))
    with pytest.raises(ValueError, match="give for each of 3 slots a step from 0 to 2 or null"):
        fit_probes(stores[0], ADDITION, 0, slots_to_steps=[0, 1])


def test_several_slots_may_stand_for_one_step(stores: tuple[ThoughtStore, ThoughtStore]) -> None:
    found = probe_report(*stores, ADDITION, [0], slots_to_steps=[0, 1, 1])
    assert [(each["slot"], each["step"]) for each in found["fields"]["write"]["slots"]] == [(1, 1), (2, 2), (3, 2)]
    assert found["fields"]["write"]["slots"][1]["value"] > 0.95
    assert found["fields"]["write"]["slots"][2]["value"] < 0.25
    assert found["fields"]["write"]["all"]["n"] == 600


# The matrix


def test_the_position_score_by_hand() -> None:
    """Slots 1 and 2 at their own steps: (0.9 - 0.2 + 0.8 - 0.6) / 2; slot 3 stands for nothing and slot 4 has no other cell."""
    cells = {(0, 0): 0.9, (0, 1): 0.2, (1, 0): 0.6, (1, 1): 0.8, (2, 0): 1.0, (3, 2): 1.0}
    drawn = {pair: torch.tensor([value, value]) for pair, value in cells.items()}
    own = (0, 1, None, 2)
    assert diagonal(drawn, own).tolist() == pytest.approx([0.45, 0.45])
    assert {o: (each["value"], each["n"]) for o, each in offsets(drawn, own).items()} == {
        "-1": (pytest.approx(0.6), 1),
        "0": (pytest.approx(0.9), 3),
        "1": (pytest.approx(0.2), 1),
    }
    assert [argmax_step(drawn, k, own) for k in range(5)] == [1, 2, 1, 3, None]
    assert [argmax_slot(drawn, j, own) for j in range(4)] == [3, 2, 4, None]


def test_its_own_step_wins_a_tie() -> None:
    drawn = {(1, j): torch.tensor([1.0]) for j in range(3)}
    assert argmax_step(drawn, 1, (0, 1)) == 2


# What it is held against


def test_two_stores_share_no_problem(tmp_path: Path) -> None:
    def store(name: str, *problems: Problem) -> ThoughtStore:
        return planted(tmp_path / name, problems, torch.zeros(len(problems), 1, 1, 2))

    train = store("train", addition("1", 12, 34), addition("2", 50, 50))
    check_apart(train, store("other", addition("1", 12, 35)))
    with pytest.raises(StoreError, match=r"share 1 problems, such as '34 \+ 12 ='; allowed are stores of two splits"):
        check_apart(train, store("test", addition("1", 34, 12), addition("2", 11, 11)))
    with pytest.raises(StoreError, match="share 1 problems"):
        probe_report(train, store("again", addition("9", 50, 50)), ADDITION, [0])
    assert key_of(Problem("1", "What is 2 + 3?", (), "5")) == "What is 2 + 3?"


def test_control_labels_hang_on_the_type_alone_and_have_the_same_histogram() -> None:
    types, labels = ["x", "y", "x", "z", "none"], [0, 1, 0, 1, -1]
    drawn = tables(types, labels, seed=3, num_tables=20)
    assert drawn.shape == (20, 5)
    assert torch.equal(drawn[:, 0], drawn[:, 2])
    assert (drawn[:, 4] == -1).all()
    assert all(sorted(row) == [0, 1, 1] for row in drawn[:, [0, 1, 3]].tolist())
    assert {int(label) for label in drawn[:, 0]} == {0, 1}
    assert torch.equal(drawn, tables(types, labels, seed=3, num_tables=20))


def test_the_question_by_places_from_the_right() -> None:
    assert features_of("21 + 6 =") == {
        "0 from the right: =", "1 from the right: 6", "2 from the right: +", "3 from the right: 1", "4 from the right: 2",
        "number 0, 0 from its right: 1", "number 0, 1 from its right: 2", "number 1, 0 from its right: 6",
    }  # fmt: skip
    train, test = question_features(["1 +"] * 5, ["1 +", "2 +"])
    assert train.shape == (5, 3)
    assert test.sum(1).tolist() == [3.0, 1.0]


def test_labels_of_steps(tmp_path: Path) -> None:
    problems = [addition("1", 58, 67), addition("2", 11, 11)]
    made = targets(planted(tmp_path / "s", problems, torch.zeros(2, 3, 1, 2)), ADDITION, 3)
    assert made.labels["write"].tolist() == [[5, 2, 1], [2, 2, -1]]
    assert made.labels["total"].tolist() == [[15, 12, -1], [2, 2, -1]]
    assert made.is_counted.tolist() == [[True, True, False], [True, True, False]]
    assert made.is_whole.tolist() == [[True, True, True], [True, True, False]]
    assert made.types(2) == ["carry 1 write 1", ""]
    assert made.strata(0) == ["3/[1, 1, 1, 1, 1, 1]", "2/[1, 1, 1, 1, 1, 1]"]


def test_a_step_with_a_value_that_nobody_knows_is_not_said_in_full(tmp_path: Path) -> None:
    grammar = grammar_of([Problem("t", "q", ("<<4/2=2>>", "<<3+1=4>>"), "4")])
    made = targets(
        planted(tmp_path / "s", [Problem("1", "q", ("<<4/2=2>>", "<<3+9=12>>"), "12")], torch.zeros(1, 2, 1, 2)), grammar, 2
    )
    assert made.labels["operator"].tolist() == [[1, 0]]
    assert made.labels["result"].tolist() == [[0, -1]]
    assert made.is_whole.tolist() == [[True, False]]
    labels = {field: y[0] for field, y in made.labels.items()}
    assert whole_labels(labels, made.is_whole[0]).tolist()[1] == -1


def test_the_majority_is_the_best_single_value_over_all_positions() -> None:
    assert majority_hits([torch.tensor([0, 1, -1]), torch.tensor([1, 1, 2])]).tolist() == [1.0, 2.0, 0.0]


def test_resampled_once_the_scores_are_those_of_scores() -> None:
    hits = (noise(3, 80, seed=0) > 0).float()
    counts = torch.full((80,), 3.0)
    sampler = Resampler(80, seed=0)
    ours = rate(sampler.means(hits.sum(0), counts), counts)
    theirs = score(hits.T.flatten().tolist(), [str(i) for i in range(80) for _ in range(3)])
    assert {key: ours[key] for key in ("n", "clusters")} == {"n": 240, "clusters": 80}
    for key in ("value", "low", "high"):
        assert ours[key] == pytest.approx(theirs[key], abs=1e-6)
