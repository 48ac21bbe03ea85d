"""The matrix of slots and steps says every number of the report, and what a cell lacks is not invented."""

from typing import Any

from matplotlib.figure import Figure

from latent_lab.report.matrix_figure import draw_panel, size

MATRIX: dict[str, Any] = {
    "value": [[1.0, 0.126, None], [0.5, 0.994, None]],
    "floor": [[0.11, 0.12, None], [0.1, 0.119, None]],
    "n": [[1000, 880, None], [1000, 870, None]],
}


def test_every_cell_says_its_number_and_its_floor_and_every_step_its_n() -> None:
    axes = Figure().add_subplot()
    draw_panel(axes, "write", MATRIX, [1, 2])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1\n1,000", "2\n880", "3"]
    assert [text.get_text() for text in axes.texts] == ["100", "11", "13", "12", "–", "50", "10", "99", "12", "–"]


def test_without_floors_there_are_the_numbers_alone() -> None:
    axes = Figure().add_subplot()
    draw_panel(axes, "write", {"value": [[1.0, None]]}, [None])
    assert [text.get_text() for text in axes.texts] == ["100", "–"]


def test_a_figure_is_as_large_as_its_matrix() -> None:
    wide, high = size(MATRIX)
    assert wide > high * 3 / 4 > 1
    assert size({"value": [[None]]}) < (wide, high)
