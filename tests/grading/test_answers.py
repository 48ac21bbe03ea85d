"""When two answers are the same, by each rule, and what a text is worth."""

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latent_lab.grading.answers import RULES, Equivalence, Grading, Verdict, digits_right, is_equal, normalise, stands_in

# One way to write equal answers


@pytest.mark.parametrize(
    ("answer", "normal"),
    [
        (" 18 ", "18"),
        ("18.0", "18"),
        ("18.", "18"),
        ("18.50", "18.5"),
        ("+18", "18"),
        ("0018", "18"),
        ("-007.0", "-7"),
        ("0", "0"),
        ("-0.0", "0"),
        (".5", "0.5"),
        ("1,080", "1080"),
        ("-1,234,567.80", "-1234567.8"),
        ("1,08", "1,08"),
        ("12,34,567", "12,34,567"),
        ("1234,567", "1234,567"),
        ("$1,000.00", "$1000"),
        ("50.0%", "50%"),
        ("9" * 5_000, "9" * 5_000),
        ("1e5", "1e5"),
        ("Alex  is a\tBompus.", "alex is a bompus"),
        ("Yes .", "yes"),
        ("18 apples", "18 apples"),
        ("1/2", "1/2"),
        ("", ""),
    ],
)
def test_equal_answers_are_written_alike(answer, normal):
    assert normalise(answer) == normal
    assert normalise(normal) == normal


def test_answers_are_equal_if_their_normal_forms_are():
    assert is_equal("18.0", "18")
    assert is_equal("1,080", "1080")
    assert is_equal("$1,000", "$1000.00")
    assert is_equal("TRUE", "True")
    assert not is_equal("18", "-18")
    assert not is_equal("$18", "18")
    assert not is_equal("50%", "50")
    assert not is_equal("0.5", "5")
    assert not is_equal("1,8", "18")


@pytest.mark.parametrize(
    ("given", "gold", "share"),
    [
        ("1905", "1905", 1.0),
        ("1906", "1905", 0.75),
        ("905", "1905", 0.75),
        ("190", "1905", 0.0),
        ("1915", "1905", 0.75),
        ("1,905.0", "1905", 1.0),
        ("183", "83", 1.0),
        ("-12", "-12", 1.0),
        ("12", "-12", 0.0),
        ("83.5", "83", 0.0),
        ("none", "83", 0.0),
        ("", "83", 0.0),
    ],
)
def test_digits_are_compared_from_the_units(given, gold, share):
    assert digits_right(given, gold) == share


def test_digits_of_a_gold_answer_that_is_no_integer_are_refused():
    with pytest.raises(ValueError, match=r"^gold='0\.5': digits are compared for integers only$"):
        digits_right("1", "0.5")


# Rules by name


def test_exact_is_the_same_text_once_both_are_normalised():
    exact = Equivalence()
    assert exact.rule == "exact"
    assert exact.same("1,080.0", "1080") is True
    assert exact.same("paris.", "Paris") is True
    assert exact.same("$18", "18") is False
    assert exact.same("1/2", "0.5") is False
    assert exact.same("9" * 20_000, "9" * 20_000) is True
    assert exact.same("0" * 20_000 + "9", "9") is False  # past the length that is compared at all


def test_integer_compares_whole_numbers_however_they_are_written():
    integer = Equivalence("integer")
    assert [integer.same(given, "33") for given in ("033", "33.0", "$33", "33 apples", "3.3e1", "66/2")] == [True] * 6
    assert [integer.same(given, "33") for given in ("33.5", "34", "-33", "thirty-three", "")] == [False] * 5
    assert integer.same("9867630", "9,867,630.0") is True


@pytest.mark.parametrize("rule", ["integer", "numeric"])
def test_a_gold_answer_that_is_no_number_cannot_be_scored_by_its_value(rule):
    assert Equivalence(rule).same("33", "Paris") is None
    assert Equivalence(rule).same("Paris", "Paris") is None
    assert Equivalence(rule).same("Paris", "33") is False


def test_a_gold_answer_that_is_not_whole_cannot_be_scored_as_an_integer():
    assert Equivalence("integer").same("33", "33.5") is None
    assert Equivalence("numeric").same("33.5", "33.50") is True


@pytest.mark.parametrize(
    ("given", "gold"),
    [
        ("033", "33"), ("1,000", "1000"), ("1e6", "1000000"), ("1.5E-3", "0.0015"), ("3/4", "0.75"), ("1 1/2", "1.5"),
        (r"\frac{3}{4}", "3/4"), ("$18", "18"), ("18 dollars", "18"), ("18 apples", "18"), ("\u22123", "-3"), ("50%", "50"),
        ("2.0107e-06", "0.0000020107"), ("0.1", "1/10"), ("0.30000000000000001", "0.30000000000000001"),
    ],
)  # fmt: skip
def test_numeric_compares_values_exactly(given, gold):
    assert Equivalence("numeric").same(given, gold) is True
    assert Equivalence("numeric").same(gold, given) is True


def test_numeric_without_tolerance_knows_what_floats_do_not():
    assert Equivalence("numeric").same("0.30000000000000004", "0.3") is False
    assert Equivalence("numeric").same("9007199254740993", "9007199254740992") is False


def test_percent_only_where_it_is_asked_for():
    assert Equivalence("numeric").same("50%", "0.5") is False
    assert Equivalence("numeric", percent=True).same("50%", "0.5") is True
    assert Equivalence("numeric", percent=True).same("50%", "50%") is True
    assert Equivalence("integer", percent=True).same("200%", "2") is True


def test_the_larger_of_two_tolerances_counts():
    either = Equivalence("numeric", absolute=1, relative=0.01)
    assert [either.same(given, "10") for given in ("11", "9", "11.01")] == [True, True, False]
    assert [either.same(given, "1000") for given in ("1010", "990", "1010.1")] == [True, True, False]
    assert Equivalence("numeric", relative=0.001).same("475501268000", "475501268359") is True
    assert Equivalence("numeric", relative=0.5).same("1", "0") is False
    assert Equivalence("numeric", absolute=0.1).same("0.2", "0.3") is True  # 0.1 as it was written


def test_a_scale_keeps_an_absolute_tolerance_from_swallowing_small_answers():
    """22 of the 660 published rows have a gold answer below 1: with a tolerance of 1 alone, 0 is right for all of them."""
    plain, scaled = Equivalence("numeric", absolute=1), Equivalence("numeric", absolute=1, scale=0.01)
    assert (plain.same("0", "0.3"), scaled.same("0", "0.3")) == (True, False)
    assert scaled.same("0.303", "0.3") is True
    assert [scaled.same(given, "1000") for given in ("999", "1001", "1002")] == [True, True, False]
    assert [scaled.same(given, "50") for given in ("50.5", "51")] == [True, False]
    assert scaled.same("0", "0") is True


@given(st.integers(-(10**6), 10**6), st.integers(-(10**6), 10**6), st.floats(0, 100), st.floats(0, 1))
def test_a_wider_tolerance_never_makes_a_right_answer_wrong(answer, gold, absolute, relative):
    near = Equivalence("numeric", absolute=absolute, relative=relative)
    wide = Equivalence("numeric", absolute=2 * absolute, relative=2 * relative)
    assert near.same(str(answer), str(gold)) <= wide.same(str(answer), str(gold))
    assert near.same(str(gold), str(gold)) is True


def test_the_published_rule_of_the_loop():
    """First numbers, cut towards 0; one more only above a whole number (reference, section 2.2)."""
    in_run = Equivalence("published_in_run").same
    assert [in_run(given, "3.5") for given in ("3", "4", "3.5", "5", "2")] == [True, True, False, False, False]
    assert [in_run(given, "3.0") for given in ("3", "4")] == [True, False]
    assert [in_run(given, "-3.5") for given in ("-3", "-4", "-2")] == [True, False, False]
    assert [in_run(given, "2.0107e-06") for given in ("2", "3", "0")] == [True, True, False]
    assert in_run("3 apples of 9", "3") is True
    assert in_run("none", "3") is False
    assert in_run("3", "Paris") is None


def test_the_published_rule_of_the_tables():
    """Both cut to whole numbers, at most 1 apart; what is no number is wrong (reference, section 2.2)."""
    post_hoc = Equivalence("published_post_hoc").same
    assert [post_hoc(given, "10.0") for given in ("9", "11.9", "12", "8.9")] == [True, True, False, False]
    assert post_hoc("1.9", "-0.9") is True
    assert post_hoc("0", "0.001") is True
    assert [post_hoc(given, "10") for given in ("ten", "", "inf", "nan", "1e999", "$10", "1,0")] == [False] * 7
    assert post_hoc("10", "ten") is False


def test_published_rows_by_published_and_by_exact_rules(data_folder):
    rows = json.loads((data_folder / "gsm_outputs" / "gpt2_cot_gsm_hard.json").read_text(encoding="utf-8"))

    def right(equivalence):
        return sum(equivalence.same(row["answer_output"], row["answer"]) is True for row in rows)

    assert len(rows) == 660
    assert right(Equivalence("published_post_hoc")) == 53
    assert right(Equivalence("published_in_run")) == 48
    assert right(Equivalence("numeric", relative=1e-6)) == 47
    assert right(Equivalence("exact")) == 47
    # What the tolerance of 1 adds are small gold answers, and no others.
    assert right(Equivalence("numeric", absolute=1, scale=1e-6)) == 47


def test_published_outputs_by_what_became_of_them(data_folder):
    """61 were cut off before their answer, and 4 end with a bare mark: these are not wrong, they say nothing."""
    rows = json.loads((data_folder / "gsm_outputs" / "gpt2_cot_gsm_hard.json").read_text(encoding="utf-8"))
    grading = Grading(equivalence=Equivalence("numeric", relative=1e-6))
    verdicts = []
    for row in rows:
        written = row["text_output"].removeprefix(row["question"])
        verdicts.append(grading.verdict(written, row["answer"], truncated="###" not in written))
        # What the study took for the answer is what this finds, where there is one.
        assert verdicts[-1].answer is None or verdicts[-1].answer.replace(",", "") == row["answer_output"]
    counted = Counter((verdict.status, verdict.reason) for verdict in verdicts)
    assert counted == {
        ("right", None): 47, ("wrong", None): 548, ("unscored", "truncated"): 61, ("unscored", "no_answer"): 4
    }  # fmt: skip


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ("B", "B"),
        ("b", "B"),
        ("(B)", "B"),
        (" (b) a bank", "B"),
        ("B) 21", "B"),
        ("B. a bank", "B"),
        ("B: a bank", "B"),
        ("**B**", "B"),
        ("Option B", "B"),
        ("choice (c)", "C"),
        ("A bank", None),
        ("bank", None),
        ("AB", None),
        ("21", None),
        ("", None),
    ],
)
def test_an_answer_names_an_option_by_its_letter(given, named):
    choice = Equivalence("choice").same
    assert [gold for gold in "ABC" if choice(given, gold)] == [each for each in "ABC" if each == named]
    assert choice(given, "(B) a bank") is (named == "B")
    assert choice(given, "a bank") is None  # no letter to compare with: unscored


@pytest.mark.parametrize(
    ("given", "is_yes"),
    [
        ("Yes", True),
        ("yes, because it is.", True),
        ("True", True),
        ("**TRUE**.", True),
        ("No", False),
        ("false", False),
        ("No.", False),
        ("Not true", None),
        ("Nobody", None),
        ("Yesterday", None),
        ("It is true", None),
        ("", None),
    ],
)
def test_an_answer_is_yes_or_no_by_its_first_word(given, is_yes):
    same = Equivalence("yes_no").same
    assert [same(given, gold) for gold in ("True", "yes")] == [is_yes is True] * 2
    assert [same(given, gold) for gold in ("False", "no")] == [is_yes is False] * 2
    assert same(given, "maybe") is None


@pytest.mark.parametrize(
    ("rule", "text", "gold", "status"),
    [
        ("choice", "Money is kept there.\n### B", "B", "right"),
        ("choice", "Money is kept there. The answer is: (B)", "B", "right"),
        ("choice", "So the answer is B) a bank.", "B", "right"),
        ("choice", "The answer is a bank.", "B", "wrong"),
        ("choice", "The answer is (C), not (B).", "B", "wrong"),
        ("choice", "It must be (B)", "B", "unscored"),
        ("yes_no", "It has fewer people.\n### False", "False", "right"),
        ("yes_no", "The answer is: no, because it has fewer people.", "False", "right"),
        ("yes_no", "The answer is Yes.", "False", "wrong"),
        ("yes_no", "Yes", "True", "unscored"),
    ],
)
def test_choices_are_found_where_answers_stand_and_nowhere_else(rule, text, gold, status):
    """The published scorers take the last letter anywhere in a text where they find none after its mark."""
    grading = Grading(("marker", "the_answer_is"), Equivalence(rule))
    assert grading.verdict(text, gold).status == status


def test_settings_a_rule_has_no_use_for_are_refused():
    names = "exact, integer, numeric, math, published_in_run, published_post_hoc, choice, yes_no"
    assert ", ".join(RULES) == names
    with pytest.raises(ValueError, match=rf"^rule=near: allowed are {names}$"):
        Equivalence("near")
    with pytest.raises(ValueError, match=r"^absolute=1: the rule exact has no tolerance to set; allowed are 0, or numeric$"):
        Equivalence(absolute=1)
    with pytest.raises(ValueError, match=r"^relative=0\.1: the rule published_in_run has no tolerance to set; "):
        Equivalence("published_in_run", relative=0.1)
    with pytest.raises(ValueError, match=r"^absolute=-1: allowed are 0 \(the same number\) and more$"):
        Equivalence("numeric", absolute=-1)
    with pytest.raises(ValueError, match=r"^relative=nan: "):
        Equivalence("numeric", relative=float("nan"))
    with pytest.raises(ValueError, match=r"^scale=0\.1: allowed are numbers above 0, beside an absolute tolerance that they "):
        Equivalence("numeric", relative=0.1, scale=0.1)
    with pytest.raises(ValueError, match=r"^scale=0: "):
        Equivalence("numeric", absolute=1, scale=0)
    with pytest.raises(ValueError, match=r"^percent=True: allowed are false, or the rules integer and numeric$"):
        Equivalence("math", percent=True)


# Verdicts


def test_a_verdict_says_what_was_found_where_and_what_it_is_worth():
    grading = Grading(("hashes", "last_number"), Equivalence("numeric"))
    right = grading.verdict("18\n#### 18.0", "18")
    assert right == Verdict("18.0", "hashes", (8, 12), correct=True, reason=None, truncated=False)
    assert (right.status, grading.verdict("it is 19", "18").status) == ("right", "wrong")
    assert grading.verdict("it is 19", "18").extractor == "last_number"


def test_unscored_is_not_wrong_and_says_why():
    grading = Grading(("hashes",), Equivalence("numeric"))
    assert grading.verdict("18", "18") == Verdict(None, None, None, None, "no_answer", truncated=False)
    assert grading.verdict("#### 18", "18", truncated=True) == Verdict(None, None, None, None, "truncated", truncated=True)
    assert grading.verdict("#### 18", "Paris") == Verdict("18", "hashes", (5, 7), None, "not_comparable", truncated=False)
    assert grading.verdict("18", "18").status == "unscored"


def test_a_truncated_text_is_marked_even_where_its_answer_is_accepted():
    grading = Grading(("hashes",), accept_truncated=True)
    assert grading.verdict("#### 18\nand", "18", truncated=True) == Verdict("18", "hashes", (5, 7), True, None, truncated=True)
    assert grading.verdict("#### 1", "18", truncated=True).status == "wrong"
    # Nothing found: the cut explains it.
    assert grading.verdict("1 + 17", "18", truncated=True).reason == "truncated"


def test_rules_that_are_not_there_are_refused_when_grading_is_set_up():
    with pytest.raises(ValueError, match=r"^extractors=last: allowed are marker, hashes, "):
        Grading(("last",))


@pytest.mark.parametrize(
    ("gold", "text", "stands"),
    [
        ("5", "so 2+3=5.", True),
        ("5", "3-5", True),  # a minus between two numbers is no sign
        ("-5", "3-5", False),
        ("-5", "it is -5", True),
        ("5", "15, 5.5, 0.5, x5, 5th, -5", False),
        ("5", "1,5,7", True),
        ("33", "the answer is 033", True),
        ("1000", "about 1,000 dollars", True),
        ("1,000", "$1000.00", True),
        ("234", "1,234", False),
        ("Blue Whale", "It is the blue\nwhale.", True),
        ("blue", "bluer", False),
        ("1/2", "x=1/2", True),
        ("1/2", "11/2", False),
        ("5", "He has 15 or 52.", False),
        ("1,000", "It costs 1000 dollars", True),
        ("Paris", "Is PARIS in France?", True),
        ("no", "Is it known?", False),
        ("a lempus", "Is Tom a lempus or a yumpus?", True),
        ("", "Is it?", False),
    ],
)
def test_an_answer_stands_in_a_text_by_itself_however_it_is_written(gold: str, text: str, stands: bool) -> None:
    assert stands_in(gold, text) is stands
