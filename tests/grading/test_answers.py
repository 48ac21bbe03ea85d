import pytest

from latent_lab.grading.answers import digits_right, is_equal, normalise
from latent_lab.grading.extraction import extract


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("### 83", "83"),
        ("1+2=3 write 3\n2+6=8 write 8\n### 83", "83"),
        ("### 83\n", "83"),
        ("### 83\nand on and on", "83"),
        ("###83", "83"),
        ("###  Alex is a bompus. \n", "Alex is a bompus."),
        ("### 1\n### 2", "2"),
        ("a step ### 7", "7"),
        ("#### 72", "72"),
    ],
)
def test_the_answer_is_what_follows_the_last_marker_in_its_line(text, answer):
    found = extract(text)
    assert (found.answer, found.extractor) == (answer, "marker")
    assert text[slice(*found.span)] == answer


@pytest.mark.parametrize("text", ["", "83", "## 83", "###", "### \n83", "### 83\n###"])
def test_without_marker_or_answer_nothing_is_extracted(text):
    assert extract(text) is None


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
