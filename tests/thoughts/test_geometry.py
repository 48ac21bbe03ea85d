"""The geometry of thoughts, worked out by hand."""

import json
import math
from pathlib import Path

import pytest
import torch

from latent_lab.thoughts.geometry import geometry_report
from tests.thoughts.planted import noise, planted, sums

WORDS = torch.tensor([[2.0, 0, 0], [0, 0, 1]])


def test_four_thoughts_in_one_slot_and_two_in_the_next(tmp_path: Path) -> None:
    first = torch.tensor([[2.0, 0, 0], [0, 2, 0], [2, 0, 0], [0, 2, 0]])
    second = torch.tensor([[0.0, 0, 3], [0, 0, 3], [0, 0, 0], [0, 0, 0]])
    states = torch.stack([first, second], dim=1)[:, :, None]
    report = geometry_report(planted(tmp_path / "store", sums("test")[:4], states, [2, 2, 1, 1]), WORDS)
    one, two = report["slots"]
    assert (one["slot"], one["n"], two["slot"], two["n"]) == (1, 4, 2, 2)
    assert (one["norm"]["value"], two["norm"]["value"]) == (2.0, 3.0)
    assert one["mean_share"] == pytest.approx(2 / 4), "the mean is (1, 1, 0), every squared length 4"
    assert two["mean_share"] == pytest.approx(1.0)
    assert one["participation"] == pytest.approx(1.0), "they differ from it by (1, -1, 0) or its opposite"
    assert two["participation"] is None
    assert one["nearest"]["value"] == pytest.approx(math.sqrt(5) / 2), "0 and sqrt(4 + 1)"
    assert one["nearest_cosine"]["value"] == pytest.approx(0.5)
    assert two["nearest"]["value"] == pytest.approx(2.0)
    assert report["cosine_between"] == [[pytest.approx(1 / 3), pytest.approx(0)], [pytest.approx(0), pytest.approx(1)]]
    assert report["cosine_same_problem"] == [[pytest.approx(1), pytest.approx(0)], [pytest.approx(0), pytest.approx(1)]]
    assert (report["width"], report["word_norm"]) == (3, 1.5)


def test_thoughts_that_vary_alike_everywhere_have_as_many_directions_as_numbers(tmp_path: Path) -> None:
    report = geometry_report(planted(tmp_path / "store", sums("train"), noise(400, 1, 1, 8, seed=0)), noise(50, 8, seed=1))
    (only,) = report["slots"]
    assert 7.5 < only["participation"] < 8
    assert abs(only["cosine"]) < 0.02
    assert only["nearest"]["value"] == pytest.approx(only["nearest_random"]["value"], rel=0.05), "they are noise themselves"


def test_a_single_problem_has_no_pairs(tmp_path: Path) -> None:
    report = geometry_report(planted(tmp_path / "store", sums("test")[:1], noise(1, 2, 1, 4, seed=0)), noise(5, 4, seed=1))
    assert [slot["cosine"] for slot in report["slots"]] == [None, None]
    json.dumps(report, allow_nan=False)
