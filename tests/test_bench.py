"""make bench: the ratio is ours over theirs, and both sides do what the row says."""

import pytest
import torch

from latent_lab import bench
from latent_lab.bench import TOKENS, batch, compare, model, training_step
from latent_lab.reasoner import LatentReasoner
from latent_lab.sequences import IGNORE


def test_a_row_holds_the_median_ratio_its_quartiles_and_whether_it_keeps_below_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([9, 9, 1, 2, 2, 2, 3, 2])  # a warm-up of both sides, then ours and theirs in turn: ratios 0.5, 1 and 1.5
    monkeypatch.setattr(bench, "timed", lambda work: next(seconds))
    row = compare("ours / theirs", lambda: None, lambda: None, bar=1.0, n=3)
    assert row == {"name": "ours / theirs", "ratio": 1.0, "bar": 1.0, "holds": True, "low": 0.5, "high": 1.5, "n": 3}


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
