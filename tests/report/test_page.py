"""The page, made from sample.json: a sample for tests whose numbers are plausible and made up."""

import copy
import html
import json
import re
from pathlib import Path

import pytest

from latent_lab.report import Report, ReportError, write_page
from latent_lab.report.page import percent, plain, render, spelled
from tests.pages import Outline, measured, needs_chromium

SAMPLE = json.loads((Path(__file__).parent / "sample.json").read_text())


@pytest.fixture
def given():
    """A copy of the sample that a test may change."""
    return copy.deepcopy(SAMPLE)


def page(given) -> str:
    return render(Report.from_dict(given))


class TestWhatItSays:
    def test_headline_claim_and_strongest_floor(self, given):
        text = Outline(page(given)).text
        assert text.startswith(
            "A model that thinks in vectors: 99.8% of 2-4 digits with five vectors A model that thinks in vectors "
            "A question goes in, five vectors are thought, the answer comes out. No word of reasoning is written. "
            "Its answers beat every floor measured. 812,345 parameters; make demo and all that was read and graded after it "
            "took 5.2 minutes. "
            "of 1,000 test problems (2-4 digits) answered exactly with latent thoughts; 95% interval [99.3, 99.9] 99.8% "
            "the strongest floor, thoughts removed, on the same problems; 95% interval [10.4, 14.5] 12.3% "
        )

    def test_a_floor_whose_interval_overlaps_leaves_the_claim_open(self, given):
        given["accuracy"][1].update(value=0.99, low=0.98, high=0.995)
        text = Outline(page(given)).text
        assert "Whether the vectors matter is open: its interval overlaps that of the strongest floor." in text
        assert "beat every floor" not in text

    def test_reasoning_still_written_is_admitted(self, given):
        given["cost"]["written_reasoning_tokens"] = 3.5
        assert "3.5 tokens of reasoning are still written." in Outline(page(given)).text

    def test_accuracy_rows_carry_interval_and_n(self, given):
        text = Outline(page(given)).text
        assert "2-4 digits method exact 95% interval n latent thoughts 99.8% [99.3, 99.9] 1,000" in text
        assert "thoughts of another problem floor 1.1% [0.6, 2.0] 1,000" in text
        assert "5 digits (never trained) method exact 95% interval n latent thoughts 1% [0, 2] 500" in text

    def test_breakdown_and_reading(self, given):
        text = Outline(page(given)).text
        assert "by number of digits digits exact 95% interval n 2 100% [99, 100] 300 3 99.8% [99, 100] 402" in text
        assert "its own thoughts 99.5% [99.3, 99.7] 3,494 thoughts of another problem floor 8.9% [8.0, 9.9] 3,494" in text
        assert "slot by slot thought exact 95% interval n 1 100.0% [99.6, 100.0] 1,000" in text

    def test_validation_numbers_stand_in_a_table(self, given):
        assert "step stage minutes exact 95% interval n 100 0 0.4 12% [9, 15] 512 220 0 1.0 79%" in Outline(page(given)).text

    def test_problems_with_every_thought_marked_in_words(self, given):
        text = Outline(page(given)).text
        assert "Nine of ten answered right; of the 36 vectors that stand for a step, 35 read right." in text
        assert "7459 + 8684 = 15143 \u2717 wrong right: 16143 1 9+4=13 write 3 carry 1 \u2713 right 2" in text
        assert "4 7+8+1=16 write 5 carry 1 \u2717 wrong step: 7+8+1=16 write 6 carry 1 5" in text
        assert "22 + 61 = 83 \u2713 right 1 2+1=3 write 3 \u2713 right 2 2+6=8 write 8 \u2713 right 3 spare 4" in text

    def test_failure_beyond_training_is_told(self, given):
        assert (
            "Beyond what it was trained on 5 digits (never trained): 1% right, 95% interval [0, 2] , n = 500. "
            "Of the three below, none is right, and 9 of 15 vectors still read right."
        ) in Outline(page(given)).text

    def test_cost_and_how_to_repeat_it(self, given):
        text = Outline(page(given)).text
        assert (
            "1.2 ms an answer on average. vectors thought an answer 5 tokens written an answer, 0 of them reasoning 7.1 "
            "tokens in the written chain they replace 41.3 Do it again make demo minutes 5.2 seed 1 model nano "
            "parameters 812,345 dataset arithmetic revision abc1234 made 2026-11-21 07:30 UTC A sample for tests"
        ) in text

    def test_the_diagram_shows_single_digits_going_in_and_out(self, given):
        text = Outline(page(given)).text
        assert "the question goes in 3 6 1 5 + 3 2 1 2 = five vectors are thought, nothing is written" in text
        assert "the answer comes out \u2713 right 6 8 2 7 Each vector is" in text

    def test_a_vector_given_is_drawn_and_one_not_given_is_named(self, given):
        assert page(given).count('<svg class="vector"') == 5
        for thought in given["problems"][0]["thoughts"]:
            del thought["vector"]
        text = page(given)
        assert '<svg class="vector"' not in text
        assert "vector 1" in text
        assert "Every square" not in text


class TestNumbers:
    @pytest.mark.parametrize(
        ("share", "n", "text"),
        [
            (0.998, 1000, "99.8"),
            (0.998, 100, "99.8"),
            (0.5, 999, "50"),
            (1.0, 1000, "100.0"),
            (0.0, 500, "0"),
            (511 / 512, 512, "99.8"),
            (0.99996, 1000, "99.996"),
            (0.0004, 500, "0.04"),
            (0.12345, 10_000, "12.35"),
        ],
    )
    def test_percentages_have_the_digits_n_carries_and_never_round_to_all_or_nothing(self, share, n, text):
        assert percent(share, n) == text

    def test_means(self):
        assert [plain(x) for x in (41.3, 5, 5.0, 0, 1204.26)] == ["41.3", "5", "5", "0", "1,204.3"]

    def test_counts_in_prose(self):
        assert [spelled(x) for x in (0, 1, 5, 10, 11, 1200)] == ["no", "one", "five", "ten", "11", "1,200"]


class TestHtml:
    def test_is_well_formed_and_ids_are_unique(self, given):
        outline = Outline(page(given))
        ids = [value for name, value in outline.attributes if name == "id"]
        assert len(ids) == len(set(ids)) == 9
        assert [value for name, value in outline.attributes if name == "aria-labelledby"] == ids

    def test_one_h1_a_caption_for_each_table_and_words_for_each_figure(self, given):
        outline = Outline(page(given))
        assert outline.tags.count("h1") == 1
        assert outline.tags.count("table") == outline.tags.count("caption") == 8
        assert outline.tags.count("figure") == outline.tags.count("figcaption") == 2
        labels = [value for name, value in outline.attributes if name == "aria-label"]
        assert labels == [
            "How one question becomes an answer through five vectors",
            *2
            * [
                "Line chart of validation accuracy over 1,200 training steps. It starts at 12% and ends at 99.8%. "
                "The numbers are in the table below."
            ],
        ]

    def test_loads_nothing_and_runs_nothing(self, given):
        text = page(given)
        outline = Outline(text)
        assert not {"script", "link", "img", "iframe", "object", "embed", "base", "form"} & set(outline.tags)
        assert not {"src", "href", "srcset", "style"} & {name for name, _ in outline.attributes}
        assert not [name for name, _ in outline.attributes if name.startswith("on")]
        assert not re.search(r"https?://|url\(|@import|javascript:", text)
        assert "default-src 'none'; style-src 'unsafe-inline'" in text

    def test_what_a_model_wrote_is_escaped(self, given):
        attack = "<script>alert('x')</script>"
        first = given["problems"][0]
        first.update(question=attack, answer=attack, gold=attack, right=False)
        first["thoughts"][0].update(read=attack, gold=attack + "!", right=False)
        first["thoughts"][4]["read"] = attack
        given["hard_problems"][0].update(answer='"><img onerror=alert(1)>')
        given["accuracy"][0]["method"] = given["notes"][0] = given["title"] = attack
        text = page(given)
        assert not {"script", "img"} & set(Outline(text).tags)
        assert text.count(html.escape(attack).replace("&#x27;", "&#39;")) == 14
        assert "&#34;&gt;&lt;img onerror=alert(1)&gt;" in text

    def test_colours_keep_a_contrast_of_4_5_to_1_in_both_themes(self, given):
        light, dark = (
            dict(re.findall(r"--(\w[\w-]*): (#[0-9a-f]{6})", block))
            for block in re.findall(r":root \{(.*?)\}", page(given), re.S)[:2]
        )
        for theme in (light, dark):
            pairs = [(name, "paper") for name in ("ink", "soft", "thought", "opposite", "wrong")]
            for front, back in [*pairs, ("thought", "thought-wash"), ("ink", "wash")]:
                assert contrast(theme[front], theme[back]) >= 4.5, (front, back)


def contrast(first: str, second: str) -> float:
    """The contrast ratio of WCAG 2 between two colours written #rrggbb."""

    def luminance(colour):
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        return sum(
            weight * (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4)
            for weight, part in zip((0.2126, 0.7152, 0.0722), parts, strict=True)
        )

    dark, light = sorted((luminance(first), luminance(second)))
    return (light + 0.05) / (dark + 0.05)


class TestMissingParts:
    @pytest.mark.parametrize(
        ("part", "heading"),
        [
            ("validation", "Learning to stop writing"),
            ("breakdown", "Where it is right"),
            ("reading", "What the vectors hold"),
            ("hard_problems", "Beyond what it was trained on"),
        ],
    )
    def test_leave_their_section_out(self, given, part, heading):
        assert f">{heading}</h2>" in page(given)
        del given[part]
        assert f">{heading}</h2>" not in page(given)

    def test_a_page_without_any_of_them_is_whole(self, given):
        for part in ("curve", "validation", "stages", "breakdown", "reading", "hard_problems", "notes"):
            del given[part]
        assert Outline(page(given)).tags.count("section") == 5

    def test_without_a_floor_none_is_claimed(self, given):
        given["accuracy"] = [row for row in given["accuracy"] if row["kind"] == "model"]
        text = Outline(page(given)).text
        assert "strongest floor" not in text
        assert "beat every floor" not in text

    def test_without_training_losses_the_curve_still_stands(self, given):
        del given["curve"]
        assert 'class="line"' in page(given)
        assert "the loss on training problems" not in page(given)


class TestInput:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda d: d.pop("seed"), "report: 'seed' is missing; give it, it has no default"),
            (lambda d: d.update(seed="1"), "report.seed: given '1'; allowed: a value of type int"),
            (
                lambda d: d.update(problems=[]),
                "report: problems: given none; allowed: one or more, the first is drawn as the page's diagram",
            ),
            (lambda d: d.update(notes="x"), "report.notes: given 'x'; allowed: a list"),
            (lambda d: d.update(cost=3), "report.cost: given 3; allowed: an object"),
            (lambda d: d["curve"][1].update(loss=None), "report.curve[1].loss: given None; allowed: a value of type float"),
            (
                lambda d: d["accuracy"][0].update(kind="best"),
                "report.accuracy[0].kind: given 'best'; allowed: 'model' or 'floor'",
            ),
            (
                lambda d: d["problems"][0].update(correct=True),
                "report.problems[0]: given the unknown key 'correct'; allowed: question, answer, gold, right, thoughts",
            ),
            (
                lambda d: d["accuracy"][0].update(value=99.8, low=99.3, high=99.9),
                "report.accuracy[0]: given value=99.8, low=99.3, high=99.9, n=1000; allowed: 0 <= low <= value <= high <= 1 "
                "and n of 1 or more; give shares, not percentages",
            ),
        ],
    )
    def test_what_does_not_fit_is_named(self, given, change, message):
        change(given)
        with pytest.raises(ReportError) as error:
            Report.from_dict(given)
        assert str(error.value) == message

    def test_a_page_needs_a_score_of_the_model(self, given):
        given["accuracy"] = given["accuracy"][1:5]
        with pytest.raises(ReportError, match="given no row of kind 'model'"):
            Report.from_dict(given)


class TestWritePage:
    def test_writes_one_file_the_same_each_time(self, given, tmp_path):
        path = tmp_path / "demo" / "report.html"
        write_page(path, Report.from_dict(given))
        first = path.read_bytes()
        write_page(path, Report.from_dict(given))
        assert path.read_bytes() == first
        assert [entry.name for entry in path.parent.iterdir()] == ["report.html"]

    def test_a_page_that_cannot_be_made_leaves_the_old_one(self, given, tmp_path):
        path = tmp_path / "report.html"
        path.write_text("old")
        given["notes"] = ["half a surrogate pair, \ud800, has no place in UTF-8"]
        with pytest.raises(UnicodeEncodeError):
            write_page(path, Report.from_dict(given))
        assert [(entry.name, entry.read_text()) for entry in tmp_path.iterdir()] == [("report.html", "old")]


MEASURE = """
const curves = [...view.querySelectorAll("svg.curve")];
return [curves.filter(svg => svg.getBoundingClientRect().width).length];
"""
WIDTHS = [360, 390, 768, 1280, 1920]


@needs_chromium
@pytest.mark.parametrize(("theme", "paper"), [("light", "rgb(255, 255, 255)"), ("dark", "rgb(19, 22, 27)")])
def test_a_browser_shows_it_without_sideways_scrolling_at_any_width(given, tmp_path, theme, paper):
    given["problems"][0]["answer"] = given["problems"][1]["thoughts"][0]["read"] = 99 * "9"
    given["notes"].append(99 * "9")
    assert measured(tmp_path, page(given), WIDTHS, MEASURE, theme) == [[w, w, 1, paper] for w in WIDTHS]
