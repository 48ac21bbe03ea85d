"""The page about thoughts, made from thoughts_sample.json: a sample for tests whose numbers are plausible and made up."""

import copy
import html
import json
import re
from pathlib import Path

import pytest

from latent_lab.report.thoughts_cells import changes, share, shown
from latent_lab.report.thoughts_figure import draw_thoughts, flagship
from latent_lab.report.thoughts_page import render, write_page
from latent_lab.report.thoughts_said import answers
from latent_lab.report.thoughts_tables import tables
from tests.pages import Outline as Plain
from tests.pages import measured, needs_chromium

SAMPLE = json.loads((Path(__file__).parent / "thoughts_sample.json").read_text())
COMMAND = ["python", "-m", "latent_lab.eval", "task=thoughts", "run=outputs/demo"]
FIRST_FIVE = ("task", "run", "split", "n", "kind", "accuracy")
ATTACK = "<script>alert('x')</script>"


class Outline(Plain):
    """The same for a page with inputs and pictures."""

    def handle_starttag(self, tag, attributes):
        super().handle_starttag(tag, attributes)
        if tag in ("input", "img"):
            self.open.pop()


@pytest.fixture
def given():
    """A copy of the sample that a test may change."""
    return copy.deepcopy(SAMPLE)


def page(given) -> str:
    return render(given["result"], given["examples"], {}, COMMAND)


def minimal(given):
    return {"result": {key: given["result"][key] for key in FIRST_FIVE}, "examples": []}


class TestWhatItSays:
    def test_four_questions_are_answered_in_a_sentence_made_from_the_numbers(self, given):
        text = Outline(page(given)).text
        assert text.startswith(
            "outputs/demo: reading its thoughts, level L5 Reading its thoughts Run outputs/demo , 1,000 test problems, "
            "99.8 [99.5, 100.0]% answered exactly. supervised The reader was part of the training loss. "
            "Can the thoughts be read? yes The oracle writes 98.1 [97.6, 98.6]% of the column steps exactly as they are; "
            "the best floor, shuffled in stratum, reaches 2.1 [1.6, 2.6]%. "
            "Which thought holds which step? yes Thought k holds step k: a probe reads it 71.0 points [69.7, 72.3] better there "
            "than the best other step. "
            "Does the model use them? yes With all thoughts removed, right answers go from 99.8 [99.5, 100.0]% to 1.3 "
            "[0.6, 2.0]%; of single thoughts, number 2 costs most, down to 16.0%. "
            "Can they be edited? yes With one column exchanged for a donor's (keys and values), the answer becomes the composed "
            "target in 98.1 [97.7, 98.6]% of the cases (in the weakest column 97.2%), the donor's whole answer in 0.2 [0.1, "
            "0.4]%; chance is 11.1%. "
        )

    def test_every_level_stands_with_its_number_its_threshold_and_how_it_came_about(self, given):
        text = Outline(page(given)).text
        assert "Highest level reached: L5, causal" in text
        assert (
            "L2 position-specific ✓ right supervised Thought k holds step k, and no other. 71.0 [69.7, 72.3]%; "
            "threshold: diagonal"
        ) in text
        assert "L0 nothing above a constant guess ✓ right supervised The level that needs nothing. not measured" in text

    def test_each_thought_with_its_readers_and_what_edits_do(self, given):
        text = Outline(page(given)).text
        assert "347 + 285 = 632 ✓ right Donor: 612 + 194 = 806 1 7+5=12 write 2 carry 1 oracle 7+5=12 write 2 carry 1 ✓" in text
        assert "with the donor's 63 6 ✓ right removed 63 1 zeroed 6 29 2 4+8+1=13 write 3 carry 1" in text
        assert "9184 + 2657 = 12841 ✗ wrong right: 11841" in text
        assert "past the last step oracle carry 1 write 1 31.0% sure removed 632 unchanged" in text
        assert "with the donor's 6827 unchanged ✗ wrong expected: 9827" in text

    def test_thoughts_taken_away_all_and_one_by_one(self, given):
        """In the words of ``interventions.whole`` as it is written: rows by slot from 0, and of all."""
        (table,) = [each for each in tables(given["result"])["used"] if each.caption.startswith("Thoughts taken away")]
        assert table.head[3:6] == ("all: bits", "only 1: exact", "only 2: exact")
        assert (table.rows[0].label, table.rows[0].cells[:5]) == (
            "remove",
            ("1.3 [0.6, 2.0]", "98.7 [98.0, 99.4]", "6.10", "21.0", "16.0"),
        )

    def test_commuted_operands_stand_beside_the_other_exchanges(self, given):
        def kept(value, n):
            return {"n": n, "keep": {"value": value, "low": value, "high": value, "n": n}}

        table = {"digits=2": {"0": kept(1.0, 50), "1": kept(0.5, 50), "overall": kept(0.75, 100)}, "overall": kept(0.75, 100)}
        said = {"operands": 0.25, "exchanged": 0.5, "total": 1.0, "write": 1.0}
        given["result"]["interventions"]["commuted"] = {
            "right": 100,
            "excluded": {},
            "commuted": {"cache": table},
            "readers": {"oracle": {"after": said}},
        }
        found = {each.caption: each.rows for each in tables(given["result"])["edited"]}
        (stays,) = found["One column exchanged with that of the same sum, its operands exchanged: the answer stays, in %"]
        assert (stays.label, stays.cells) == (
            "b + a for a + b: keys and values",
            ("75.0 [75.0, 75.0]", "50.0 [50.0, 50.0]", "100"),
        )
        (read,) = found["What readers say of a column whose operands are exchanged, in %"]
        assert (read.label, read.cells) == ("oracle, after", ("25.0", "50.0", "100.0", "100.0"))

    def test_the_geometry_of_thoughts_is_a_small_table(self, given):
        slot = {"slot": 1, "n": 9, "norm": {"value": 4.0, "low": 3.0, "high": 5.0}, "mean_share": 0.25, "cosine": None}
        given["result"]["geometry"] = {"width": 128, "word_norm": 1.5, "slots": [slot]}
        (table,) = [each for each in tables(given["result"])["read"] if each.caption == "The geometry of thoughts"]
        assert table.head[:4] == ("thought", "length", "share of the mean", "cosine with another problem's")
        assert [(row.label, row.cells[:3]) for row in table.rows] == [("thought 1", ("4.00", "0.25", "–"))]
        assert "at most 128" in table.note
        assert "1.50 long" in table.note

    def test_the_oracle_stands_beside_a_probe_of_the_same_steps(self, given):
        above = {"value": -0.02, "low": -0.03, "high": -0.01, "n": 2960, "probe": {"value": 1.0, "low": 1.0, "high": 1.0}}
        given["result"]["oracle"]["above_probe"] = above
        (table,) = [each for each in tables(given["result"])["read"] if each.caption.startswith("The oracle beside a linear")]
        assert [(row.label, *row.cells) for row in table.rows] == [
            ("the oracle", "98.1 [97.6, 98.6]", "2,960"),
            ("a linear probe", "100.0 [100.0, 100.0]", "2,960"),
            ("the oracle less the probe", "-2.0 [-3.0, -1.0]", "2,960"),
        ]

    def test_what_words_cost_is_shown_as_oracles_are_scored(self, given):
        (table,) = [each for each in tables(given["result"])["read"] if each.caption.startswith("What the oracle's words cost")]
        assert table.head == ("field", "with the thought", "with none", "with another problem's", "read")
        assert (table.rows[0].label, table.rows[0].cells) == ("a", ("0.05", "3.30", "5.50", "3.25"))

    def test_wrong_readings_are_listed(self, given):
        rows = {row.label: row.cells for table in tables(given["result"], given["examples"])["failed"] for row in table.rows}
        assert rows["9184 + 2657 = thought 4, oracle"] == (
            "9+2=11 write 2 carry 1",
            "9+2=11 write 1 carry 1",
            "62.0",
            "12841",
            "11841",
        )


class TestVerdicts:
    def test_a_reader_at_its_floor_shows_nothing(self, given):
        given["result"]["oracle"]["floors"]["shuffled"]["column_step_exact_match"]["high"] = 0.98
        given["result"]["oracle"]["floors"]["shuffled"]["column_step_exact_match"]["value"] = 0.97
        said = answers(given["result"])["read"]
        assert (said.verdict, said.sentence.endswith("the best floor, shuffled, reaches 97.0 [0.8, 98.0]%.")) == (
            "not shown",
            True,
        )

    def test_without_an_oracle_the_probes_answer(self, given):
        del given["result"]["oracle"]
        said = answers(given["result"])["read"]
        assert said.verdict == "yes"
        assert said.sentence == (
            "A linear probe reads 6 of 6 fields above their floors, most clearly a: 99.8 [99.5, 100.0]%; its best floor "
            "reaches 13.6%."
        )

    def test_a_diagonal_whose_interval_holds_zero_ties_no_thought_to_a_step(self, given):
        given["result"]["probes"].update(position={"value": 0.01, "low": -0.02, "high": 0.04}, order=[2, 1])
        said = answers(given["result"])["where"]
        assert said.verdict == "not shown"
        assert said.sentence.endswith("differ by 1.0 points [-2.0, 4.0]. The steps read best in thoughts 1 to 2 are 2, 1.")

    @pytest.mark.parametrize(("low", "verdict"), [(0.80, "yes"), (0.79, "in part"), (0.11, "not shown")])
    def test_editing_is_shown_where_every_columns_interval_reaches_the_threshold(self, given, low, verdict):
        cache = given["result"]["interventions"]["interchange"]["cache"]
        cache["columns"][2]["target"].update(value=0.5, low=low)
        cache["all"]["target"]["low"] = low
        assert answers(given["result"])["edited"].verdict == verdict

    def test_the_site_is_the_ladders_whatever_another_reaches(self, given):
        sites = given["result"]["interventions"]["interchange"]
        sites["cache"]["columns"][0]["target"].update(value=0.2, low=0.1)
        sites["thought"]["all"]["target"].update(value=1.0, low=1.0, high=1.0)
        said = answers(given["result"])["edited"]
        assert said.verdict == "in part"
        assert "in the weakest column 20.0%" in said.sentence
        del sites["cache"]
        assert "edited" not in answers(given["result"])

    def test_every_length_counts_and_thresholds_are_the_results_own(self, given):
        result = given["result"]
        row = {"target": {"value": 0.85, "low": 0.82, "high": 0.88}, "donor": 0.0}
        result["interventions"]["interchange"]["cache"]["digits"] = {"digits=2": {"0": row, "final_carry": {"target": 0.0}}}
        assert answers(result)["edited"].verdict == "yes"
        result["ladder"]["thresholds"] = {"target_win": 0.9}
        assert answers(result)["edited"].verdict == "in part"

    def test_a_donor_that_wins_as_a_whole_is_no_edit_of_one_column(self, given):
        given["result"]["interventions"]["interchange"]["cache"]["all"]["donor"]["value"] = 0.26
        assert answers(given["result"])["edited"].verdict == "in part"

    def test_thoughts_that_can_be_removed_are_not_shown_to_be_used(self, given):
        given["result"]["interventions"]["whole"]["remove"]["all"]["accuracy"] = given["result"]["accuracy"]
        assert answers(given["result"])["used"].verdict == "not shown"


class TestNumbers:
    @pytest.mark.parametrize(
        ("score", "text"),
        [
            ({"value": 0.5, "low": 0.25, "high": 0.75}, "50.0 [25.0, 75.0]"),
            ({"value": 0.5}, "50.0"),
            ({"value": None, "n": 0}, "–"),
            (0.25, "25.0"),
            (None, "–"),
        ],
    )
    def test_scores(self, score, text):
        assert shown(score) == text

    def test_what_is_not_all_or_nothing_is_never_written_so(self):
        assert [share(x) for x in (0, 1, 0.9996, 0.0004, -0.5)] == ["0.0", "100.0", "99.96", "0.04", "-50.0"]

    @pytest.mark.parametrize(
        ("text", "before", "cut"),
        [
            ("836", "632", [("8", True), ("3", False), ("6", True)]),
            ("1632", "632", [("1", True), ("632", False)]),
            ("32", "632", [("32", False)]),
            ("", "632", []),
            (None, None, []),
        ],
    )
    def test_changed_digits_are_found_from_the_units(self, text, before, cut):
        assert changes(text, before) == cut


class TestMissingParts:
    def test_a_minimal_result_makes_a_whole_page_without_holes(self, given):
        text = Outline(page(minimal(given))).text
        assert "Does the model use them? Answers, exact in %" in text
        assert not re.search("Can they be edited|Thought by thought|Highest level|Where readers|None|undefined", text)

    @pytest.mark.parametrize("part", sorted(SAMPLE["result"].keys() - set(FIRST_FIVE)))
    def test_any_part_may_be_missing(self, given, part):
        del given["result"][part]
        assert Outline(page(given)).tags.count("h1") == 1

    def test_parts_nobody_foresaw_are_shown_by_their_names(self, given):
        given["result"]["agreement"] = {
            "a_err": {"value": 0.5, "low": 0.4, "high": 0.6, "n": 9},
            "table": [{"moves": 3}],
            "x": None,
        }
        assert "a err 50.0 [40.0, 60.0], n = 9 table 1, moves 3" in Outline(page(given)).text

    def test_what_stands_beside_a_probe_is_not_taken_for_its_floor(self, given):
        field = given["result"]["probes"]["fields"]["write"]
        field["floors"] |= {"input": {"value": 0.97}, "control_task": {"value": 0.92}}
        (table,) = tables({**given["result"], "oracle": {}, "lenses": {}})["read"]
        assert table.head[1:5] == ("exact", "best floor", "from the question", "random labels")
        assert next(row for row in table.rows if row.label == "write").cells[1:4] == ("13.7 (position prior)", "97.0", "92.0")

    def test_statements_stand_beside_their_floor_and_what_the_question_gives(self, given):
        half = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 80}
        said = {"value": 0.75, "low": 0.65, "high": 0.85, "n": 80, "floors": {"none": half, "shuffled": half}, "floor": 0.5}
        foretold = said | {"from_text": {"value": 0.625}, "auc": {"real": 0.8125, "shuffled": 0.5, "text_only": 0.625}}
        never = {"value": None, "n": 0, "low": None, "high": None, "why": "it takes 20 training problems"}
        given["result"]["oracle"] |= {"yes_no": {"carry_out": said}, "foretold": {"digit": foretold, "wrong": never}}
        table = next(each for each in tables(given["result"])["read"] if each.caption.startswith("Yes or no?"))
        assert [(row.label, row.cells) for row in table.rows] == [
            ("carry out", ("75.0 [65.0, 85.0]", "50.0 (none)", "–", "–", "–", "–", "80")),
            (
                "the answer will have this digit here",
                ("75.0 [65.0, 85.0]", "50.0 (none)", "62.5", "0.81", "0.50", "0.62", "80"),
            ),
            ("the answer will be wrong", ("–", "–", "–", "–", "–", "–", "0")),
        ]
        assert "it takes 20 training problems" in table.note
        del given["result"]["oracle"]["foretold"]
        table = next(each for each in tables(given["result"])["read"] if each.caption.startswith("Yes or no?"))
        assert table.head == ("statement", "right", "best floor", "n")
        assert [row.cells for row in table.rows] == [("75.0 [65.0, 85.0]", "50.0 (none)", "80")]

    def test_rows_of_several_measures_count_by_their_accuracy(self, given):
        edits = given["result"]["interventions"]
        edits["num_thoughts"] = {"1": {"accuracy": edits["clean"], "flips": 0.5}}
        edits["steer"] = {"write": {"hits": {"value": 0.25, "n": 4}}}
        text = Outline(page(given)).text
        assert "thoughts exact 1 99.8 [99.5, 100.0]" in text
        assert "Thoughts moved from one value to another what value write, hits 25.0, n = 4" in text

    def test_graphs_have_their_own_tables(self, given):
        given["result"]["frontier"] = {"groups": {"frontier": [0.5, 0.25], "not_reachable": [0, -0.125]}}
        assert "frontier 0.50 0.25 not reachable 0.00 -0.12" in Outline(page(given)).text

    def test_examples_may_lack_donors_and_edits(self, given):
        example = given["examples"][0]
        del example["donor"]
        example["slots"] = [{"slot": 1, "gold": "", "readings": []}]
        assert "347 + 285 =" in Outline(page(given)).text


class TestHtml:
    def test_is_well_formed_and_its_parts_have_names(self, given):
        outline = Outline(page(given))
        ids = [name for key, name in outline.attributes if key == "id"]
        assert len(ids) == len(set(ids))
        assert {name for key, name in outline.attributes if key in ("aria-labelledby", "for")} <= set(ids)
        assert outline.tags.count("table") == outline.tags.count("caption")

    def test_every_problem_is_picked_by_a_radio_button_of_one_group(self, given):
        text = page(given)
        assert re.findall(r'<input type="radio" name="problem" id="pick-(\d)"', text) == list("123456")
        assert text.count(" checked>") == 1
        for number in range(1, 7):
            assert f".explorer:has(#pick-{number}:checked) #problem-{number}" in text

    def test_loads_nothing_and_runs_nothing(self, given):
        text = page(given)
        outline = Outline(text)
        assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & set(outline.tags)
        assert not {"src", "href", "srcset", "style"} & {name for name, _ in outline.attributes}
        assert not re.search(r"https?://|url\(|@import|javascript:", text)
        assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in text

    def test_what_a_model_wrote_is_escaped(self, given):
        example, result = given["examples"][0], given["result"]
        example.update(question=ATTACK, answer=ATTACK, gold=ATTACK, right=False, donor={"question": ATTACK, "answer": ATTACK})
        slot = example["slots"][0]
        slot.update(
            gold=ATTACK, swapped={"answer": ATTACK, "expected": ATTACK + "!"}, removed={"answer": '"><img onerror=alert(1)>'}
        )
        slot["readings"][0].update(reader=ATTACK, text=ATTACK)
        result["run"] = result["ladder"]["evidence"][0]["says"] = ATTACK
        result["probes"]["fields"][ATTACK] = result["probes"]["fields"]["a"]
        text = page(given)
        outline = Outline(text)
        assert not {"script", "img"} & set(outline.tags)
        assert text.count(html.escape(ATTACK).replace("&#x27;", "&#39;")) > 10
        assert not [name for name, _ in outline.attributes if name.startswith("on")]


class TestFiles:
    def test_pictures_are_inline_and_the_page_is_the_same_each_time(self, given, tmp_path):
        pictures = draw_thoughts(given["result"], tmp_path / "pictures")
        assert [path.stem for path in pictures] == [
            "oracle", "probes", "matrix-write", "matrix-total", "matrix-carry_out", "numbers",
            "columns-cache", "columns-thought", "columns-residual",
        ]  # fmt: skip
        path = tmp_path / "out" / "report.html"
        write_page(path, given["result"], given["examples"], pictures, COMMAND)
        first = path.read_bytes()
        write_page(path, given["result"], given["examples"], draw_thoughts(given["result"], tmp_path / "again"), COMMAND)
        assert path.read_bytes() == first
        assert first.count(b"data:image/png;base64,") == 9
        assert [entry.name for entry in path.parent.iterdir()] == ["report.html"]

    def test_nothing_measured_nothing_drawn(self, given, tmp_path):
        assert draw_thoughts(minimal(given)["result"], tmp_path) == []

    def test_flagship_compares_models(self, tmp_path):
        score = {"value": 0.9, "low": 0.85, "high": 0.95, "floor": 0.1}
        model = {"accuracy": score, "probe": score, "columns": [score, score], "chance": 1 / 9, "seeds": 3}
        flagship(tmp_path / "flagship.png", {"one": model, "other": {**model, "probe": None}})
        assert (tmp_path / "flagship.png").stat().st_size > 10_000
        with pytest.raises(ValueError, match="each with a score 'accuracy' and scores 'columns'"):
            flagship(tmp_path / "no.png", {"one": {"accuracy": score}})


MEASURE = """
const seen = () => [...view.querySelectorAll(".problem")].filter(one => one.getBoundingClientRect().width).map(one => one.id);
const first = seen();
view.querySelector("#pick-3").focus();
const focused = view.activeElement.id;
view.querySelector("#pick-3").click();
const isOdd = one => !one.closest(".wide, .ear") && one.getBoundingClientRect().right > width;
return [[...view.querySelectorAll("main *")].filter(isOdd).length, ...first, focused, ...seen()];
"""
WIDTHS = [360, 390, 768, 1280]


@needs_chromium
@pytest.mark.parametrize(("theme", "paper"), [("light", "rgb(255, 255, 255)"), ("dark", "rgb(19, 22, 27)")])
def test_a_browser_shows_one_problem_at_a_time_and_only_tables_scroll_sideways(given, tmp_path, theme, paper):
    given["examples"][0]["answer"] = given["examples"][0]["slots"][0]["readings"][0]["text"] = 99 * "9"
    given["examples"][2]["question"] = given["examples"][2]["slots"][0]["gold"] = 99 * "9"
    write_page(tmp_path / "page.html", given["result"], given["examples"], draw_thoughts(given["result"], tmp_path), COMMAND)
    found = measured(tmp_path, (tmp_path / "page.html").read_text(), WIDTHS, MEASURE, theme)
    assert found == [[width, width, 0, "problem-1", "pick-3", "problem-3", paper] for width in WIDTHS]
