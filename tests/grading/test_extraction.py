r"""Where an answer stands in what a model wrote: one rule after the other, each with the cases it was written for."""

import pytest

from latent_lab.grading.extraction import EXTRACTORS, Extracted, check_extractors, extract


def answer(text: str, *extractors: str) -> str | None:
    """The answer by some rules; its span is checked on the way."""
    found = extract(text, extractors)
    assert found is None or text[slice(*found.span)] == found.answer
    return found.answer if found else None


# The chain


def test_the_first_rule_that_applies_is_named_and_says_where() -> None:
    text = "9*2=18, so the answer is 18.\n#### 19"
    assert extract(text, ["boxed", "hashes", "the_answer_is"]) == Extracted("19", "hashes", (34, 36))
    assert extract(text, ["the_answer_is", "hashes"]) == Extracted("18", "the_answer_is", (25, 27))
    assert extract(text, ["boxed"]) is None
    assert extract("the sum is 18", ["hashes", "last_number"]) == Extracted("18", "last_number", (11, 13))


def test_the_last_number_is_taken_by_nobody_who_does_not_ask_for_it() -> None:
    assert extract("the sum is 18") is None
    assert answer("the sum is 18", *(name for name in EXTRACTORS if name not in ("last_number", "node"))) is None


def test_unknown_and_repeated_rules_are_refused() -> None:
    check_extractors(list(EXTRACTORS))
    allowed = "marker, hashes, boxed, the_answer_is, last_number, node"
    with pytest.raises(ValueError, match=rf"^extractors=box: allowed are {allowed}, in the order to try them$"):
        check_extractors(["boxed", "box"])
    with pytest.raises(ValueError, match=r"^extractors=boxed, boxed: allowed is each rule once$"):
        check_extractors(["boxed", "boxed"])


# Marks


@pytest.mark.parametrize(
    ("text", "found"),
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
        ("", None),
        ("83", None),
        ("## 83", None),
        ("###", None),
        ("### \n83", None),
        ("### 83\n###", None),
    ],
)
def test_the_answer_is_what_follows_the_last_marker_in_its_line(text: str, found: str | None) -> None:
    assert answer(text, "marker") == found
    default = extract(text)
    assert (default.answer if default else None) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("She has 72.\n#### 72", "72"),
        ("#### 1,080 \nQuestion: and then?", "1,080"),
        ("#### 5\n#### 6", "6"),
        ("#### 5\n####", "5"),
        ("####72", "72"),
        ("### 72", None),
        ("#### \n72", None),
    ],
)
def test_four_hashes_are_an_answer_and_three_are_a_heading(text: str, found: str | None) -> None:
    assert answer(text, "hashes") == found


# Boxes


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (r"so $\boxed{12}$.", "12"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\frac{\sqrt{3}}{\sqrt{\frac{1}{2}}}}", r"\frac{\sqrt{3}}{\sqrt{\frac{1}{2}}}"),
        (r"\fbox{9}", "9"),
        (r"\boxed {3}", "3"),
        (r"\boxed{7} or \boxed{8}", "8"),
        (r"\boxed{\boxed{5}}", "5"),
        (r"\boxed{\{1,2\}}", r"\{1,2\}"),
        (r"{ \boxed{7} ", "7"),
        (r"} \boxed{7}", "7"),
        (r"\boxed{ 7 }", "7"),
        (r"\boxed{}", None),
        (r"\boxed{7} and \boxed{ }", "7"),
        (r"\boxedx{7}", None),
        ("boxed{7}", None),
    ],
)
def test_a_box_holds_the_answer_whatever_its_braces(text: str, found: str | None) -> None:
    assert answer(text, "boxed") == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (r"\boxed{7}, that is \boxed{12", "7"),  # cut off: the published extractor found nothing
        (r"\boxed{12, that is \boxed{7}", "7"),
        (r"\boxed{12", None),
        (r"\boxed 5 or rather \boxed{12}", "12"),  # the published extractor took 5
        (r"\boxed{12} or rather \boxed 5", "5"),
        (r"$\boxed 5$", "5"),
        (r"\boxed 12.5.", "12.5"),
        (r"\boxed", None),
    ],
)
def test_no_broken_box_hides_a_whole_one(text: str, found: str | None) -> None:
    assert answer(text, "boxed") == found


# Statements


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("The answer is 18.", "18"),
        ("The answer is 18. She sells 9 eggs.", "18"),
        ("the answer is: 3.5", "3.5"),
        ("The answer is 3.5. The rest is 4.", "3.5"),
        ("Answer: 1,080\nQuestion: next", "1,080"),
        ("ANSWER : 7", "7"),
        ("So the final answer is $18$!", "18"),
        ("The answer is $18.", "$18"),
        (r"The final answer is $\frac{1}{2}$. I hope it is correct.", r"\frac{1}{2}"),
        ("**Answer:** **18**", "18"),
        ('The answer is "Paris".', "Paris"),
        ("The answer is:\n\n18", "18"),
        ("The answer is 18, because 9 * 2 = 18", "18"),
        ("The answer is 18 since she sells 9", "18"),
        ("the answer is 18 apples; each costs 2", "18 apples"),
        ("The answer is Alex is a bompus.", "Alex is a bompus"),
        ("an early guess: the answer is (A). But the correct answer is C", "C"),  # the published extractor took A
        ("The answer is (B).", "B"),
        ("A trap in this line", None),  # the published extractor took the article
        ("The answer is 5.\nThe answer is", "5"),
        ("It has no answer.", None),
        ("The answer isn't known", None),
        ("unanswer: 5", None),
        ("", None),
    ],
)
def test_the_last_statement_counts_up_to_the_end_of_its_sentence(text: str, found: str | None) -> None:
    assert answer(text, "the_answer_is") == found


# Numbers


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("first 3 then 18 apples.", "18"),
        ("5-3", "3"),
        ("it is -3.", "-3"),
        ("it is −3", "−3"),
        ("f(x)-3", "3"),
        ("$1,234.50, all told.", "$1,234.50"),
        ("12,34", "34"),
        ("2.5e-3 or so", "2.5e-3"),
        ("so 3/4", "3/4"),
        ("about 50%", "50%"),
        ("only .5", ".5"),
        ("version x2", "2"),
        ("٣ and ²", None),
        ("none", None),
    ],
)
def test_the_last_number_keeps_its_sign_commas_and_point(text: str, found: str | None) -> None:
    assert answer(text, "last_number") == found


@pytest.mark.parametrize(("text", "found"), [("21", "21"), ("9 14 [A] 21", "21"), (" 21 ", "21"), ("9 14", None), ("[A]", None)])
def test_a_node_is_one_word_after_the_question_mark_or_all_there_is(text: str, found: str | None) -> None:
    assert answer(text, "node") == found


# Bounds


def test_of_a_long_text_the_end_is_read() -> None:
    text = "### 1\n" + "x" * 1_000_000 + "\n### 2"
    assert extract(text) == Extracted("2", "marker", (1_000_011, 1_000_012))
    assert extract("### 1\n" + "x" * 1_000_000) is None
