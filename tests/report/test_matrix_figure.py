"""The matrix figure shows every number of the report, and the same report gives the same bytes."""

import struct
from pathlib import Path
from typing import Any

import pytest

from latent_lab.report import matrix_figure
from latent_lab.report.matrix_figure import draw, draw_panel, in_words, shape

MATRIX = {
    "value": [[1.0, 0.126, None], [0.5, 0.994, None]],
    "floor": [[0.11, 0.12, None], [0.1, 0.119, None]],
    "n": [[1000, 880, None], [1000, 870, None]],
}
REPORT: dict[str, Any] = {
    "layer": 0,
    "own": [1, 2],
    "matrix": {"write": MATRIX, "whole_step": MATRIX},
    "position": {"value": 0.82, "low": 0.8, "high": 0.835},
}


def size(path: Path) -> tuple[int, int]:
    return struct.unpack(">II", path.read_bytes()[16:24])  # type: ignore[return-value]


def test_every_cell_says_its_number_and_its_floor_and_every_step_its_n() -> None:
    from matplotlib.figure import Figure

    axes = Figure().add_subplot()
    draw_panel(axes, "write", MATRIX, [1, 2])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1\n1,000", "2\n880", "3"]
    assert [text.get_text() for text in axes.texts] == ["100", "11", "13", "12", "–", "50", "10", "99", "12", "–"]


def test_the_same_report_gives_the_same_bytes(tmp_path: Path) -> None:
    draw(REPORT, tmp_path / "a.png")
    draw(REPORT, tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_panels_that_do_not_fit_go_to_the_next_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw(REPORT, tmp_path / "wide.png")
    monkeypatch.setattr(matrix_figure, "WIDEST", 1.0)
    draw(REPORT, tmp_path / "tall.png")
    assert size(tmp_path / "tall.png")[1] > size(tmp_path / "wide.png")[1]


def test_what_is_said_above() -> None:
    assert in_words(REPORT) == (
        "linear probes of the thoughts; own step above the best other step, whole step: "
        "+82.0 points (95% interval +80.0 to +83.5)"
    )
    assert in_words({"layer": 2}) == "linear probes of layer 2"
    assert in_words({"position": {"value": None, "low": None, "high": None}}) == "linear probes"


def test_a_report_without_anything_is_drawn_too(tmp_path: Path) -> None:
    assert shape({}) == (1, 1)
    draw({"matrix": {"step": {"value": [[None]], "floor": [[None]], "n": [[None]]}}}, tmp_path / "empty.png")
    assert (tmp_path / "empty.png").is_file()
