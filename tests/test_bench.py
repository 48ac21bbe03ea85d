"""make bench: the ratio is ours over theirs, and both sides do what the row says."""

import time

import pytest
import torch

from latent_lab.bench import TOKENS, batch, compare, model, training_step
from latent_lab.reasoner import LatentReasoner
from latent_lab.sequences import IGNORE


def test_a_row_holds_the_median_ratio_its_quartiles_and_whether_it_keeps_below_the_bar() -> None:
    quick, slow = (lambda: time.sleep(0.001)), (lambda: time.sleep(0.02))
    row = compare("quick / slow", quick, slow, bar=0.85, n=5)
    assert set(row) == {"name", "ratio", "bar", "holds", "low", "high", "n"}
    assert row["low"] <= row["ratio"] <= row["high"] < 0.85
    assert row["holds"]
    assert not compare("slow / quick", slow, quick, bar=0.85, n=2)["holds"]


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
