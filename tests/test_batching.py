"""Batches: exact tensors, and problems of like shape together in an order that the seed alone decides."""

import random
from dataclasses import replace

import pytest
import torch

from latent_lab.batching import POOL, Batch, bucketed, collate
from latent_lab.sequences import Encoded, LatentTokens, join

TOKENS = LatentTokens(start=90, latent=91, end=92)
LONG = Encoded("long", question=(1, 2), steps=((10, 11), (20, 21, 22)), answer=(50, 0))
SHORT = Encoded("short", question=(3,), steps=(), answer=(51, 0))
PAD = 7


def batch() -> Batch:
    return collate([join(LONG, TOKENS, slots=[0, 0, 1]), join(SHORT, TOKENS, slots=[None])], PAD)


# Collating


def test_rows_are_padded_on_the_right() -> None:
    assert batch().ids == ["long", "short"]
    assert batch().input_ids.tolist() == [[1, 2, 90, 91, 91, 91, 92, 50, 0], [3, 90, 91, 92, 51, 0, 7, 7, 7]]
    assert batch().attention_mask.tolist() == [[1, 1, 1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 0, 0, 0]]
    assert batch().labels.tolist() == [[-100] * 7 + [50, 0], [-100] * 4 + [51, 0] + [-100] * 3]
    assert batch().num_labels == 4


def test_slots_with_a_text_are_listed_with_row_and_number() -> None:
    assert batch().slot_rows.tolist() == [0, 0, 1]
    assert batch().slot_columns.tolist() == [1, 2, 0]
    assert batch().slot_targets.tolist() == [[10, 11, -100], [20, 21, 22], [0, -100, -100]]
    assert batch().num_slot_labels == 6


def test_without_slots_there_is_nothing_to_supervise() -> None:
    plain = collate([join(LONG, None, steps=[0, 1])], PAD)
    assert plain.slot_targets.shape == (0, 0)
    assert (plain.slot_rows.shape, plain.slot_columns.shape) == ((0,), (0,))
    assert (plain.num_slot_labels, plain.num_labels) == (0, 7)


TENSORS = ("input_ids", "attention_mask", "labels", "slot_rows", "slot_columns", "slot_targets")


def test_every_tensor_holds_whole_numbers() -> None:
    for example in (batch(), collate([join(LONG, None)], PAD)):
        tensors = [getattr(example, name) for name in TENSORS]
        assert {tensor.dtype for tensor in tensors} == {torch.int64}


def test_positions_are_said_where_a_row_leaves_some_free() -> None:
    assert batch().position_ids is None
    assert batch().num_positions == 9
    gapped = collate([replace(join(LONG, None, steps=[1]), gap=3), join(SHORT, None)], PAD)
    assert gapped.position_ids is not None
    assert gapped.position_ids.tolist() == [[0, 4, 5, 6, 7, 8, 9], [0, 1, 2, 0, 0, 0, 0]]
    assert gapped.num_positions == 10


def test_closed_rows_are_marked_where_there_are_any() -> None:
    assert batch().is_closed is None
    closed = collate([join(LONG, None), join(LONG, None, is_closed=True)], PAD)
    assert closed.is_closed is not None
    assert closed.is_closed.tolist() == [False, True]


def test_anchors_are_the_last_token_of_the_answers_mark_where_a_method_asks_for_them() -> None:
    assert batch().anchors is None
    rows = [join(replace(LONG, prefix=1), None), join(replace(LONG, prefix=2), None, steps=[0])]
    made = collate(rows, PAD, with_anchors=True)
    assert made.anchors is not None
    for row, laid_out, anchor in zip(made.input_ids.tolist(), rows, made.anchors.tolist(), strict=True):
        assert row[anchor] == laid_out.problem.answer[laid_out.problem.prefix - 1]


def test_the_teacher_moves_with_its_batch() -> None:
    both = batch()
    both.teacher = batch()
    assert both.to(torch.device("meta")).teacher.input_ids.is_meta  # type: ignore[union-attr]


def test_moving_a_batch_moves_every_tensor_and_keeps_the_ids() -> None:
    moved = batch().to(torch.device("meta"))
    assert moved.ids == ["long", "short"]
    assert all(getattr(moved, name).is_meta and getattr(moved, name).shape == getattr(batch(), name).shape for name in TENSORS)


# Order


def skewed(n: int) -> list[tuple[int, int, int]]:
    """Shapes as problems have them: up to six slots, questions with a long tail, short answers."""
    rng = random.Random(0)
    return [(rng.randint(0, 6), 1 + int(rng.expovariate(1 / 40)), rng.randint(4, 8)) for _ in range(n)]


def padding(shapes: list[tuple[int, int, int]], batches: list[list[int]]) -> float:
    """Share of padding where each of a problem's parts is padded to the longest in its batch, as the latent loop does."""
    filled = sum(sum(shape) for shape in shapes)
    columns = sum(len(batch) * sum(max(shapes[i][part] for i in batch) for part in range(3)) for batch in batches)
    return 1 - filled / columns


@pytest.mark.parametrize(("n", "batch_size"), [(0, 4), (1, 4), (7, 3), (64 * 4, 4), (64 * 4 + 1, 4), (1000, 7), (5, 100)])
def test_every_index_occurs_once_in_as_few_batches_as_possible(n: int, batch_size: int) -> None:
    batches = bucketed(skewed(n), batch_size, "0/1/2")
    assert sorted(i for batch in batches for i in batch) == list(range(n))
    assert len(batches) == -(-n // batch_size)
    assert sum(len(batch) < batch_size for batch in batches) <= 1


def test_the_order_depends_on_the_seed_alone() -> None:
    shapes = skewed(500)
    state = random.getstate()
    first = bucketed(shapes, 8, "0/3/1")
    assert random.getstate() == state
    random.seed(5)
    assert bucketed(list(shapes), 8, "0/3/1") == first
    assert bucketed(shapes, 8, "0/3/2") != first
    assert {tuple(sorted(batch)) for batch in bucketed(shapes, 8, "0/3/2")} != {tuple(sorted(batch)) for batch in first}


def test_equal_shapes_are_shuffled_too() -> None:
    batches = bucketed([(1, 1, 1)] * 100, 10, "s")
    assert batches != sorted(batches)
    assert {tuple(sorted(batch)) for batch in batches} != {tuple(range(i, i + 10)) for i in range(0, 100, 10)}


def test_long_and_short_batches_come_in_no_order() -> None:
    shapes = skewed(POOL * 16)
    lengths = [shapes[batch[0]] for batch in bucketed(shapes, 16, "0")]
    assert lengths != sorted(lengths)
    assert lengths != sorted(lengths, reverse=True)


def test_problems_of_like_shape_go_together() -> None:
    shapes = skewed(POOL * 16 * 2)
    batches = bucketed(shapes, 16, "0")
    mixed = sum(len({shapes[i][0] for i in batch}) > 1 for batch in batches)
    assert mixed <= 2 * 6  # a pool has six borders between seven numbers of slots
    unsorted = [list(range(i, i + 16)) for i in range(0, len(shapes), 16)]
    assert padding(shapes, unsorted) > 0.6
    assert padding(shapes, batches) < 0.35
    without_slots = [(0, *shape[1:]) for shape in shapes]
    assert padding(without_slots, bucketed(without_slots, 16, "0")) < 0.1
