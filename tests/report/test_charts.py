"""Charts: every coordinate below is computed by hand from the margins in charts.py."""

import re

import pytest

from latent_lab.report.charts import Estimate, Span, interval_bar, learning_curve, nice_ticks, step_at, tally, vector_grid

RISING = [Estimate(5, 0.5, 0.25, 0.75, "half"), Estimate(10, 1.0, 0.75, 1.0, "all")]
"""At 146 pixels the plot runs from x=46 to x=126 for steps 0 to 10, and from y=226 (0%) up to y=26 (100%)."""


def curve(estimates=(RISING,), losses=(), spans=(), clock=(), label="a curve"):
    return learning_curve(estimates, losses, spans, clock, width=146, label=label)


def texts(svg):
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


class TestIntervalBar:
    def test_is_drawn_in_percent_of_the_width_it_gets(self):
        assert interval_bar(0.998, 0.9928, 0.9995, kind="model") == (
            '<svg class="bar model" width="100%" height="16" aria-hidden="true">'
            '<rect class="track" x="0" y="5" width="100%" height="6"/>'
            '<rect class="fill" x="0" y="5" width="99.8%" height="6"/>'
            '<line class="whisker" x1="99.3%" x2="100%" y1="8" y2="8"/>'
            '<line class="whisker" x1="99.3%" x2="99.3%" y1="3" y2="13"/>'
            '<line class="whisker" x1="100%" x2="100%" y1="3" y2="13"/></svg>'
        )


class TestTally:
    def test_cuts_the_last_square_at_the_fraction(self):
        assert tally(2.5, kind="answer") == (
            '<svg class="tally answer" width="33" height="11" viewBox="0 0 33 11" aria-hidden="true">'
            '<rect x="0" y="0" width="8" height="8"/><rect x="11" y="0" width="8" height="8"/>'
            '<rect x="22" y="0" width="4" height="8"/></svg>'
        )

    def test_starts_a_new_row_when_one_is_full(self):
        assert '<rect x="0" y="11" width="8" height="8"/></svg>' in tally(3, kind="chain", columns=2)

    def test_draws_nothing_for_none(self):
        assert "<rect" not in tally(0, kind="thought")


class TestVectorGrid:
    def test_sign_is_colour_and_size_is_opacity(self):
        assert vector_grid([2.0, -1.0, 0.5], columns=2) == (
            '<svg class="vector" viewBox="0 0 12 12" width="12" height="12" aria-hidden="true">'
            '<rect class="positive" x="0" y="0" width="6" height="6" fill-opacity="1.00"/>'
            '<rect class="negative" x="6" y="0" width="6" height="6" fill-opacity="0.50"/>'
            '<rect class="positive" x="0" y="6" width="6" height="6" fill-opacity="0.25"/></svg>'
        )

    def test_a_zero_vector_is_transparent(self):
        assert vector_grid([0.0]).count('fill-opacity="0.00"') == 1

    def test_no_vector_no_drawing(self):
        assert vector_grid([]) == ""


class TestLearningCurve:
    def test_accuracy_line_and_its_band(self):
        svg = curve()
        assert '<polyline class="line" points="86,126 126,26"/>' in svg
        assert '<polygon class="band" points="86,76 126,26 126,76 86,176"/>' in svg

    def test_each_point_says_its_number(self):
        assert '<circle class="point" cx="86" cy="126" r="3.5"><title>half</title></circle>' in curve()

    def test_the_line_breaks_between_stages(self):
        svg = curve(estimates=[RISING[:1], RISING[1:]])
        assert '<polyline class="line" points="86,126"/>' in svg
        assert '<polyline class="line" points="126,26"/>' in svg

    def test_losses_stand_in_a_second_panel_in_log_scale(self):
        svg = curve(losses=[("loss", [(5, 1.0), (10, 0.01)])])
        assert '<polyline class="loss loss-0" points="86,266 126,362"/>' in svg
        assert texts(svg)[5:9] == ["0.01", "0.1", "1", "loss"]
        assert 'viewBox="0 0 146 424"' in svg

    def test_a_loss_of_zero_or_of_no_number_has_no_place_on_a_log_axis(self):
        lost = [(1, 0.0), (2, float("nan")), (3, float("inf"))]
        assert '<polyline class="loss loss-0" points="86,266 126,362"/>' in curve(
            losses=[("loss", [*lost, (5, 1.0), (10, 0.01)])]
        )
        assert "loss" not in curve(losses=[("loss", lost)])

    def test_without_losses_the_panel_is_left_out(self):
        assert 'viewBox="0 0 146 288"' in curve()

    def test_stages_begin_after_the_last_step_of_the_one_before(self):
        svg = curve(spans=[Span(1, 5, ("stage 0", "0")), Span(6, 10, ("stage 1", "1"))])
        assert re.findall(r'class="boundary" x1="([^"]+)"', svg) == ["46", "86"]

    def test_a_stage_takes_the_longest_name_that_fits(self):
        # Each stage is 40 pixels wide: room for 6 characters of 6.6 pixels.
        assert texts(curve(spans=[Span(1, 5, ("stage 0", "first", "0")), Span(6, 10, ("stage 1", "1"))]))[:2] == ["first", "1"]

    def test_minutes_stand_where_training_was_at_that_time(self):
        svg = curve(clock=[(5, 60.0), (10, 180.0)])
        assert re.findall(r'class="tick middle" x="([^"]+)" y="268">([^<]+)<', svg) == [
            ("46", "0"),
            ("86", "1"),
            ("106", "2"),
            ("126", "3"),
        ]

    def test_it_is_told_in_words_and_every_text_is_escaped(self):
        svg = curve(
            estimates=[[Estimate(10, 1.0, 1.0, 1.0, "<b>")]],
            losses=[("<i>", [(1, 1.0)])],
            spans=[Span(1, 10, ("<s>",))],
            label='"<u>"',
        )
        assert 'role="img" aria-label="&#34;&lt;u&gt;&#34;"' in svg
        assert not re.search("<[bisu]>", svg)


class TestTicks:
    @pytest.mark.parametrize(
        ("last", "count", "ticks"),
        [
            (1200, 8, [0, 200, 400, 600, 800, 1000, 1200]),
            (3, 4, [0, 1, 2, 3]),
            (5.2, 4, [0, 2, 4]),
            (0.6, 4, [0, 0.2, 0.4, 0.6]),
            (0, 4, [0]),
        ],
    )
    def test_are_round_and_few(self, last, count, ticks):
        assert nice_ticks(last, count) == ticks


class TestStepAt:
    @pytest.mark.parametrize(("seconds", "step"), [(0, 0), (30, 2.5), (60, 5), (120, 7.5), (180, 10), (999, 10)])
    def test_runs_straight_between_the_points_known(self, seconds, step):
        assert step_at(seconds, [(5, 60.0), (10, 180.0)]) == step
