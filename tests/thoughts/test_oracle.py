"""An oracle answers alike alone and in a batch, scores what it would say, survives the disk, and its report is honest."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from latent_lab.backbone import ModelError, Scratch
from latent_lab.problems.arithmetic import Arithmetic
from latent_lab.sequences import IGNORE
from latent_lab.thoughts.grammar import ADDITION
from latent_lab.thoughts.oracle import Asked, HeadOracle, Oracle, Reading, lay, lay_apart
from latent_lab.thoughts.oracle_options import OracleOptions
from latent_lab.thoughts.oracle_report import calibration, layers_read, oracle_report
from latent_lab.thoughts.oracle_scores import cross_entropy
from latent_lab.thoughts.oracle_scoring import log_probabilities, trie
from latent_lab.thoughts.questions import Question
from latent_lab.thoughts.store import StoreError, ThoughtStore

PROBLEMS = Arithmetic(train_size=18, digits=[2], probabilities=[1.0]).load("train")
STEPS = ["2+4=6 write 6", "2+4=16 write 6", "carry 1 write 1", "9+9=18 write 8 carry 1"]


class Stored(ThoughtStore):
    """A store that was never written."""

    def layer(self, number: int) -> torch.Tensor:
        return torch.randn(len(self.rows), 3, 16, generator=torch.Generator().manual_seed(number))


def stored() -> ThoughtStore:
    store = Stored(Path(), {"layers": [0], "shards": []})
    store.__dict__["rows"] = [
        {"id": p.id, "question": p.question, "steps": list(p.steps), "gold": p.answer, "answer": p.answer, "num_slots": 3,
         "meta": {}, "correct": i % 3 > 0}
        for i, p in enumerate(PROBLEMS)
    ]  # fmt: skip
    return store


def made(cls: type[Oracle] = Oracle, **options: Any) -> Oracle:
    torch.manual_seed(0)
    backbone = Scratch(layers=2, width=16, heads=2, positions=96, vocabulary=400).load(PROBLEMS)
    return cls(backbone, OracleOptions(**options), 16, 3).eval()


def test_rows_are_padded_on_the_left_with_positions_from_their_first_token() -> None:
    batch = lay([Asked((5, 6), [1], torch.ones(1, 2), (7,)), Asked((5, 6, 8), [0], None, (9, 3))], 0, 2)
    assert batch.input_ids.tolist() == [[0, 0, 5, 6, 7], [5, 6, 8, 9, 3]]
    assert batch.position_ids.tolist() == [[0, 0, 0, 1, 2], [0, 1, 2, 3, 4]]
    assert batch.labels.tolist() == [[IGNORE] * 4 + [7], [IGNORE] * 3 + [9, 3]]
    assert (batch.rows.tolist(), batch.columns.tolist()) == ([0], [3])


def test_long_rows_apart_give_the_same_loss() -> None:
    oracle = made()
    rows = [Asked(tuple(range(260, 260 + n)), [0], torch.randn(1, 16), (265, 0)) for n in (3, 4, 5, 30)]
    apart, together = lay_apart(rows, 0, 16), lay(rows, 0, 16)
    assert apart.rest is not None
    assert len(apart.rest.asked) == 1
    assert oracle.counts(apart) == oracle.counts(together) == {"loss": 8}
    torch.testing.assert_close(oracle(apart)["loss"], oracle(together)["loss"])


def test_an_answer_is_the_same_alone_and_among_longer_questions() -> None:
    oracle = made()
    vectors = [torch.randn(1, 16) for _ in range(4)]
    questions = ["step?", "a much longer question?", "total?", "b?"]
    together = oracle.ask(vectors, questions, 6)
    for i, reading in enumerate(together):
        (alone,) = oracle.ask([vectors[i]], [questions[i]], 6)
        assert alone.text == reading.text
        assert math.isclose(alone.confidence, reading.confidence, rel_tol=1e-4)


def test_scores_are_the_renormalised_likelihoods_of_each_candidate_by_itself() -> None:
    oracle = made()
    vectors = torch.randn(3, 1, 16)
    scores = oracle.score(vectors, ["step?"] * 3, STEPS)
    for i in range(3):
        logs = []
        for step in STEPS:
            (row,) = oracle.rows(vectors[i : i + 1], ["step?"], None)
            target = oracle.writer.target(step)
            logs.append(-float(oracle(lay([Asked(row.prompt, row.columns, row.vectors, target)], 0, 16))["loss"].detach()))
        torch.testing.assert_close(scores[i], torch.tensor(logs).double().log_softmax(0), atol=1e-4, rtol=0.0)
    torch.testing.assert_close(scores.exp().sum(1), torch.ones(3).double())


def test_without_vectors_the_hook_is_off_and_vectors_matter() -> None:
    oracle = made()
    none = oracle.score(None, ["step?"] * 2, STEPS)
    assert torch.equal(none[0], none[1])
    assert torch.allclose(oracle.score(torch.zeros(1, 1, 16), ["step?"], STEPS)[0], none[0])
    assert not torch.allclose(oracle.score(torch.randn(1, 1, 16), ["step?"], STEPS)[0], none[0])


def test_a_question_about_all_thoughts_has_as_many_placeholders_without_them() -> None:
    oracle = made()
    (one,) = oracle.rows(None, [Question("step", "", "step?")], None)
    (all_of_them,) = oracle.rows(None, [Question("foretell", "answer wrong", "answer wrong?")], None)
    assert (len(one.columns), len(all_of_them.columns)) == (1, 3)


def test_a_trie_shares_beginnings_and_prunes_what_is_all_but_impossible() -> None:
    root = trie([(1, 2, 9), (1, 3, 9), (4, 9)])
    assert [child.ids for child in root.children] == [(1,), (4, 9)]
    assert [child.ids for child in root.children[0].children] == [(1, 2, 9), (1, 3, 9)]
    asked: list[tuple[int, ...]] = []

    def predict(rows: Any, continuations: Any, count: int) -> torch.Tensor:
        asked.extend(continuations)
        logits = torch.zeros(len(rows), count, 10)
        logits[..., 1] = -50.0
        return logits.log_softmax(-1)

    found = log_probabilities(1, [(1, 2, 9), (1, 3, 9), (4, 9)], predict, 10)
    assert (1,) not in asked
    torch.testing.assert_close(found.exp(), torch.tensor([[0.0, 0.0, 1.0]]).double())
    with pytest.raises(ValueError, match="each once"):
        trie([(1,), (1,)])


@pytest.mark.parametrize("options", [{"adapter": "learned"}, {"adapter": "whitened", "inject_at": [1]}])
def test_an_oracle_comes_back_from_the_disk_as_it_was(tmp_path: Path, options: dict[str, Any]) -> None:
    oracle = made(**options)
    oracle.adapter.fit(torch.randn(50, 16))
    oracle.save(tmp_path)
    again = Oracle.load(tmp_path)
    vectors = torch.randn(2, 1, 16)
    assert torch.equal(again.score(vectors, ["step?"] * 2, STEPS), oracle.score(vectors, ["step?"] * 2, STEPS))
    (tmp_path / "oracle.json").unlink()
    with pytest.raises(ModelError, match="no oracle"):
        Oracle.load(tmp_path)


@pytest.mark.parametrize("decoder", ["autoregressive", "linear"])
def test_a_head_scores_what_it_writes_and_comes_back_from_the_disk(tmp_path: Path, decoder: str) -> None:
    oracle = made(HeadOracle, kind="head", decoder=decoder)
    vectors, question = torch.randn(3, 1, 16), Question("step", "", "step?")
    assert len(oracle.ask(vectors, [question] * 3)) == 3
    scores = oracle.score(vectors, [question] * 3, STEPS)
    for i in range(3):
        logs = []
        for step in STEPS:
            row = Asked((1,), [0], vectors[i], oracle.writer.target(step), question=question)
            logs.append(-float(oracle(lay([row], 0, 16))["loss"].detach()))
        torch.testing.assert_close(scores[i], torch.tensor(logs).double().log_softmax(0), atol=1e-4, rtol=0.0)
    oracle.save(tmp_path)
    again = Oracle.load(tmp_path)
    assert isinstance(again, HeadOracle)
    assert torch.equal(again.score(vectors, [question] * 3, STEPS), scores)


def test_an_oracle_that_always_says_the_same_scores_exactly_the_majority_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    oracle, store = made(tasks={"step": 1.0, "field": 0.0, "answer": 0.0, "problem": 0.0, "yes_no": 0.0}), stored()
    steps = [step for row in store.rows for step in row["steps"][:3]]
    always = min(set(steps), key=lambda step: (-steps.count(step), step))
    monkeypatch.setattr(oracle, "ask", lambda vectors, questions, *a, **k: [Reading(always, 0.5, True)] * len(questions))
    report = oracle_report(oracle, store, store, ADDITION, max_scored=12)
    assert report["step_exact_match"]["value"] == steps.count(always) / len(steps)
    assert report["step_exact_match"]["n"] == len(steps)
    for name in ("constant", "none", "shuffled", "shuffled_in_stratum"):
        assert report["floors"][name]["step_exact_match"] == report["sources"]["real"]["step_exact_match"]
    assert report["step_exact_match"]["gain"]["value"] <= 0
    assert report["column_step_exact_match"]["n"] == sum(step != "carry 1 write 1" for step in steps)


@pytest.mark.parametrize("reads", [0.0, 1.0])
def test_a_probe_is_held_against_the_oracle_on_the_same_column_steps(monkeypatch: pytest.MonkeyPatch, reads: float) -> None:
    """The oracle says one column step always; a probe without a word on a step has not read it."""
    oracle, store = made(tasks={"step": 1.0, "field": 0.0, "answer": 0.0, "problem": 0.0, "yes_no": 0.0}), stored()
    said = store.rows[0]["steps"][0]
    monkeypatch.setattr(oracle, "ask", lambda vectors, questions, *a, **k: [Reading(said, 0.5, True)] * len(questions))
    columns = [(row["id"], j, step) for row in store.rows for j, step in enumerate(row["steps"][:2])]
    report = oracle_report(oracle, store, store, ADDITION, max_scored=12, probe={(columns[0][0], 0): reads})
    own, above = report["column_step_exact_match"], report["above_probe"]
    assert above["n"] == own["n"] == above["probe"]["n"] == len(columns)
    assert above["probe"]["value"] == reads / len(columns)
    assert own["value"] == sum(step == said for *_, step in columns) / len(columns)
    assert above["value"] == pytest.approx(own["value"] - above["probe"]["value"])
    assert above["low"] <= above["value"] <= above["high"]


def test_a_report_has_every_part_and_knows_its_items() -> None:
    oracle, store = made(), stored()
    sources = ["zero", "mean", "random", "text_only"]
    report = oracle_report(oracle, store, store, ADDITION, max_items=30, max_scored=6, sources=sources)
    assert set(report) == {
        "step_exact_match", "column_step_exact_match", "floors", "sources", "fields", "bits", "answer", "problem", "yes_no",
        "foretold", "paraphrases", "offsets", "self_consistency", "recompute_gap", "calibration", "by_slot", "by_answer",
    }  # fmt: skip
    assert set(report["floors"]) == {"constant", "position_prior", "none", "shuffled", "shuffled_in_stratum"}
    assert set(report["sources"]) == {"real", "none", "shuffled", "shuffled_in_stratum", *sources}
    assert report["offsets"]["0"]["step_exact_match"] == report["sources"]["real"]["step_exact_match"]
    right, wrong = (report["by_answer"][name]["step_exact_match"]["n"] for name in ("right", "wrong"))
    assert right + wrong == report["step_exact_match"]["n"] == 30
    part = report["bits"]["write"]
    assert math.isclose(part["value"]["value"], part["ce_none"] - part["ce_real"], abs_tol=1e-9)


def test_bits_and_calibration_by_hand() -> None:
    scores = torch.tensor([[0.5, 0.5], [0.25, 0.75]]).log()
    assert cross_entropy(scores, ["a", "b"], ["a", "a"]) == pytest.approx([1.0, 2.0])
    found = calibration([Reading("", 0.9, True), Reading("", 0.95, True), Reading("", 0.1, True)], [1.0, 0.0, 0.0])
    assert found["ece"] == pytest.approx((abs(0.85) + 0.1) / 3)  # two fall into the last bin: 0.9 + 0.95 - 1
    assert found["brier"] == pytest.approx((0.01 + 0.9025 + 0.01) / 3)
    assert found["risk_coverage"][0] == {"coverage": 0.1, "risk": 1.0}
    assert found["risk_coverage"][-1] == {"coverage": 1.0, "risk": pytest.approx(2 / 3)}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"kind": "other"}, "kind=other: allowed are self"),
        ({"tasks": {"step": 1, "dreams": 1}}, "no task dreams"),
        ({"tasks": {"step": 0}}, "more than 0 for step"),
        ({"scale": 0}, "above 0"),
        ({"text_share": 0.9}, "must stay below 1"),
        ({"inject_at": [-1]}, "0 and up"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        OracleOptions(**options)


@pytest.mark.parametrize(
    ("read", "stored_layers", "found"),
    [([0], [0, 1, 2], (0,)), ([2], [0, 1, 2], (2,)), ([0.5], [0, 1, 2], (1,)), ([1], [1], (1,))],
)
def test_the_layers_an_oracle_was_trained_on_are_those_it_is_shown(
    read: list[float], stored_layers: list[int], found: tuple[int, ...]
) -> None:
    assert layers_read(made(read_layers=read), Stored(Path(), {"layers": stored_layers, "shards": []})) == found


def test_a_store_without_them_is_refused() -> None:
    with pytest.raises(StoreError, match="the oracle reads layer 1: collect it, too"):
        layers_read(made(read_layers=[1]), Stored(Path(), {"layers": [0, 2], "shards": []}))
