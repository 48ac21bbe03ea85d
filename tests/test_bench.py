"""make bench: the ratio is ours over theirs, and both sides do what the row says."""

import time
from pathlib import Path

import pytest
import torch

from latent_lab.bench import timing, waiting
from latent_lab.bench.answering import counting, length, one_at_a_time, questions, solver_of
from latent_lab.bench.steps import TOKENS, batch, model, peak, training_step
from latent_lab.bench.timing import Row, compare, row_of, timed
from latent_lab.bench.waiting import first_step, graphs_row
from latent_lab.reasoner import LatentReasoner
from latent_lab.sequences import IGNORE


def test_a_row_holds_the_median_ratio_its_quartiles_and_whether_it_keeps_below_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([9, 9, 1, 2, 2, 2, 3, 2])  # a warm-up of both sides, then ours and theirs in turn: ratios 0.5, 1 and 1.5
    monkeypatch.setattr(timing, "timed", lambda work: next(seconds))
    row = compare("ours / theirs", lambda: None, lambda: None, bar=1.0, n=3)
    assert row == Row("ours / theirs", 1.0, 1.0, 0.75, 1.25, 3, seconds=(2, 2))
    assert {"name", "ratio", "bar", "holds", "low", "high", "n"} <= row.as_dict().keys()
    assert row.holds


def test_a_speedup_must_reach_its_bar_and_any_other_ratio_must_not_pass_it() -> None:
    assert [row_of("x", [ratio], 20.0, is_speedup=True).holds for ratio in (19.9, 20.0)] == [False, True]
    assert [row_of("x", [ratio], 0.85).holds for ratio in (0.85, 0.86)] == [True, False]


def test_the_batch_has_its_slots_after_the_question_and_labels_on_the_answer_alone() -> None:
    ids, labels = batch(rows=2, question=5, slots=3, answer=4, vocabulary=50)
    assert ids.shape == labels.shape == (2, 14)
    assert ids[0, 5:10].tolist() == [1, 2, 2, 2, 3]
    assert (labels[:, :10] == IGNORE).all()
    assert torch.equal(labels[:, 10:], ids[:, 10:])


def test_both_sides_of_the_training_step_reach_every_parameter() -> None:
    backbone = model(layers=1, width=64, vocabulary=50)
    for side in training_step(backbone, *batch(rows=2, question=5, slots=3, answer=4, vocabulary=50)):
        backbone.zero_grad(set_to_none=True)
        side()
        assert all(p.grad is not None for p in backbone.parameters())


def test_without_slots_the_two_sides_are_the_same_loss() -> None:
    backbone = model(layers=1, width=64, vocabulary=50)
    ids, labels = batch(rows=2, question=5, slots=0, answer=4, vocabulary=50)
    ours = LatentReasoner(backbone, TOKENS)(ids, labels=labels).loss
    assert ours.item() == pytest.approx(backbone(input_ids=ids, labels=labels).loss.item(), rel=1e-6)


def test_memory_is_what_a_piece_of_work_holds_at_most() -> None:
    kept = torch.zeros(1000)

    def work() -> None:
        first = torch.zeros(1_000_000)
        del first
        second, third = torch.zeros(500_000), torch.zeros(400_000)
        kept.add_(second[0] + third[0])

    assert peak(work) == pytest.approx(4_000_000, rel=0.01)


@pytest.mark.parametrize("mean", [10, 64])
def test_both_ways_of_answering_write_as_many_tokens_as_the_question_says(mean: int) -> None:
    backbone = counting()
    solver, asked = solver_of(backbone), questions(backbone, mean)
    assert sum(map(length, asked)) / len(asked) == pytest.approx(mean, abs=1)
    some = asked[5:13]
    # What a reply counts has the first token of the answer, which the question gave, as well.
    assert [reply.num_tokens - 1 for reply in solver.replies(some)] == [length(p) for p in some]
    assert one_at_a_time(solver, some) == [length(p) for p in some]


def test_cpu_time_is_not_that_of_waiting() -> None:
    assert timed(lambda: time.sleep(0.2), time.process_time) < 0.1 < timed(lambda: time.sleep(0.2))


@pytest.mark.parametrize("form", ["text", "symbolic"])
def test_graphs_a_second_are_those_drawn_by_the_cpu_seconds_it_took(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[str, int, str]] = []
    seconds = iter([9.0, 0.01, 0.04, 0.02])  # the first time does not count

    def measured(work: timing.Work, clock: object) -> float:
        made = work()
        assert isinstance(made, list)
        drawn.append((str(clock), len(made), made[0].question))
        return next(seconds)

    monkeypatch.setattr(waiting, "timed", measured)
    row = graphs_row(form, n=3, size=50)
    assert row == Row(f"graphs of ProsQA, {form}, a second of CPU time", 2_500, 2_000, 1_875, 3_750, 3, is_speedup=True)
    assert {(clock, count) for clock, count, _ in drawn} == {(str(time.process_time), 50)}
    assert len({question for *_, question in drawn}) == 4  # drawn anew each time
    assert all(question.startswith("<eos>") == (form == "symbolic") for *_, question in drawn)


def test_a_start_that_fails_says_what_the_command_said(tmp_path: Path) -> None:
    (tmp_path / "start").write_text("a file where the run's folder would be")
    with pytest.raises(RuntimeError, match=r"ended before its first step: (?s:.*)start"):
        first_step(tmp_path, 0)
