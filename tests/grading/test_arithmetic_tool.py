import random
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latent_lab.exact import DEEPEST, LONGEST, MOST_DIGITS, evaluate, plain_number, written
from latent_lab.grading import published
from latent_lab.grading.arithmetic import WrittenStep, is_right, numbers_in, parse_steps, printed_unit
from latent_lab.grading.repair import repair

HOSTILE = [
    "9**9**9",
    "<<9**9**9=1>>",
    "<<9^9^9=1>>",
    "__import__('os').system('x')",
    "<<__import__('os').system('x')=0>>",
    "<<(lambda: 1)()=1>>",
    "<<[x for x in ()]=1>>",
    "<<1e999999999=1>>",
    "<<1/0=1>>\n<<1+1=2>>",
    "<<٣+٤=٧>>",
    "<<𝟑+𝟒=𝟕>>",
    "<<²+1=5>>",
    "<<1_000+1=1001>>",
    "<<0x10+1=17>>",
    "<<" + "9" * 10**7 + "+1=1>>",
    "9" * 10**7,
    "1+" * 10**6 + "1 = 1",
    "<<" + "(" * 5_000 + "1" + ")" * 5_000 + "=1>>",
    "<<" + "-" * 5_000 + "1=1>>",
    "<<7*7=7>>" * 10**5,
    "<<1=1>><<1=11>>" * 10**4,
    "<<" * 10**6,
    "<<a=" * 10**6,
    "<<a=>" * 10**6,
    "=" * 10**6,
    "1+1=" * 10**5,
    "\n" * 10**6,
    "3 x " * 10**5,
    "<<1+\x00=1>>",
    "\ud800<<1+1=2>>",
]


# The value of an expression


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3+10", Fraction(13)),
        ("2+3*4", Fraction(14)),
        ("(2+3)*4", Fraction(20)),
        ("20-5-3", Fraction(12)),
        ("48/2/3", Fraction(8)),
        ("-7+3", Fraction(-4)),
        ("- 7 + 3", Fraction(-4)),
        ("3*-4", Fraction(-12)),
        ("--3", Fraction(3)),
        ("-(2+3)", Fraction(-5)),
        ("+5", Fraction(5)),
        ("0.1+0.2", Fraction(3, 10)),
        ("1/3*3", Fraction(1)),
        (".5*4", Fraction(2)),
        ("5.*4", Fraction(20)),
        ("007+1", Fraction(8)),
        ("1,080*2", Fraction(2160)),
        ("1,234,567.5", Fraction(2469135, 2)),
        ("20%*30", Fraction(6)),
        ("100/(20+5)%", Fraction(400)),
        ("5%%", Fraction(1, 2000)),
        ("3×4", Fraction(12)),
        ("3 x 4", Fraction(12)),
        ("2X(3)", Fraction(6)),
        ("6÷2", Fraction(3)),
        ("5−7", Fraction(-2)),
        ("12345678901234567890*10", Fraction(123456789012345678900)),
    ],
)
def test_an_expression_has_an_exact_value(text: str, value: Fraction) -> None:
    assert evaluate(text) == value


SENSELESS = """2**3 2//3 7%3 1e5 1_000 2(3) (2)(3) 1.2.3 1,00 1,0000 1,000,00 3+ *3 + ( ) () (3 3) % %5 12x x a+1 1=1 ٣+1 5$"""


@pytest.mark.parametrize("text", [*SENSELESS.split(), "", " ", "3 4", "3\n+4", "1/0", "1/(2-2)", "3..4"])
def test_anything_else_has_none(text: str) -> None:
    assert evaluate(text) is None


def test_an_expression_is_bounded_in_length_depth_and_digits() -> None:
    assert evaluate("1" * LONGEST) == int("1" * LONGEST)
    assert evaluate("1" * (LONGEST + 1)) is None
    assert evaluate("(" * DEEPEST + "1" + ")" * DEEPEST) == 1
    assert evaluate("(" * (DEEPEST + 1) + "1" + ")" * (DEEPEST + 1)) is None
    assert evaluate("-" * DEEPEST + "1") == 1
    assert evaluate("-" * (DEEPEST + 1) + "1") is None
    assert evaluate("9*9", operand=lambda value: Fraction(10 ** (MOST_DIGITS // 2 - 1))) == 10 ** (MOST_DIGITS - 2)
    assert evaluate("9*9", operand=lambda value: Fraction(10 ** (MOST_DIGITS // 2))) is None
    assert evaluate("9*9", operand=lambda value: Fraction(1, 10 ** (MOST_DIGITS - 1))) is None


def test_numbers_can_be_given_other_values_with_the_sign_before_them() -> None:
    seen: list[Fraction] = []
    evaluate("3-4*-5+(-6)-(7)+25%", operand=lambda value: seen.append(value) or value)
    assert seen == [3, 4, -5, -6, 7, Fraction(1, 4)]


EXPRESSIONS = st.recursive(
    st.integers(0, 10**6).map(str) | st.decimals(0, 1000, places=2).map(str),
    lambda inner: st.tuples(inner, st.sampled_from("+-*/"), inner).map("({0[0]}{0[1]}{0[2]})".format) | inner.map("(-{})".format),
    max_leaves=6,
)


@given(EXPRESSIONS)
def test_values_are_those_of_fractions(text: str) -> None:
    import ast

    def value(node: ast.expr) -> Fraction:
        if isinstance(node, ast.BinOp):
            a, b = value(node.left), value(node.right)
            return {ast.Add: a.__add__, ast.Sub: a.__sub__, ast.Mult: a.__mul__, ast.Div: a.__truediv__}[type(node.op)](b)
        return -value(node.operand) if isinstance(node, ast.UnaryOp) else Fraction(repr(node.value))

    try:
        expected: Fraction | None = value(ast.parse(text, mode="eval").body)
    except ZeroDivisionError:
        expected = None
    if len(text) <= LONGEST:
        assert evaluate(text) == expected


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Fraction(7), "7"),
        (Fraction(-7), "-7"),
        (Fraction(0), "0"),
        (Fraction(1, 8), "0.125"),
        (Fraction(-5, 4), "-1.25"),
        (Fraction(3, 50), "0.06"),
        (Fraction(2, 3), "2/3"),
        (Fraction(-10, 7), "-10/7"),
        (Fraction(10**30 + 1, 10), "100000000000000000000000000000.1"),
    ],
)
def test_a_value_is_written_as_its_shortest_exact_decimal_or_as_a_fraction(value: Fraction, text: str) -> None:
    assert written(value) == text


@given(st.fractions())
def test_what_is_written_is_the_value(value: Fraction) -> None:
    assert Fraction(written(value)) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("-1,080.50", Fraction(-2161, 2)),
        (" 7 ", 7),
        ("−7", -7),
        ("25%", Fraction(1, 4)),
        ("3+4", None),
        ("(3)", None),
        ("", None),
    ],
)
def test_a_number_is_a_sign_digits_and_perhaps_a_percent(text: str, value: Fraction | None) -> None:
    assert plain_number(text) == value


# Steps


def read(text: str) -> list[tuple[str, str, str]]:
    return [(step.lhs, step.rhs, text[step.start : step.end]) for step in parse_steps(text)]


def test_annotated_steps_have_their_place() -> None:
    text = "So <<3*4=12>>\n<< 12 + 1 = 13 >>\n### 13"
    assert parse_steps(text) == [WrittenStep("3*4", "12", 3, 13, True), WrittenStep("12 + 1", "13", 14, 31, True)]
    assert [text[step.start : step.end] for step in parse_steps(text)] == ["<<3*4=12>>", "<< 12 + 1 = 13 >>"]


def test_an_annotated_step_counts_whatever_it_holds() -> None:
    assert read("<<-5=-4>><<a=b>><<1=2=3>><<=>>") == [
        ("-5", "-4", "<<-5=-4>>"),
        ("a", "b", "<<a=b>>"),
        ("1", "2=3", "<<1=2=3>>"),
        ("", "", "<<=>>"),
    ]
    assert read("<<5>> <<>> <<3+4=7> <<3+4\n=7>> <<3+4=7") == []


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("She has 4+5 = 9 apples", [("4+5", "9", "4+5 = 9")]),
        ("- 4 + 5 = 9", [("4 + 5", "9", "4 + 5 = 9")]),
        ("1. 4+5=9", [("4+5", "9", "4+5=9")]),
        ("1) 4+5=9", [("4+5", "9", "4+5=9")]),
        ("It is -4+5 = 1", [("-4+5", "1", "-4+5 = 1")]),
        ("Step 2: 3 x 4 = $12.", [("3 * 4", "12", "3 x 4 = $12")]),
        ("$5 * 3 = $15.50", [("5 * 3", "15.50", "5 * 3 = $15.50")]),
        ("4 - 5 = -$1", [("4 - 5", "-1", "4 - 5 = -$1")]),
        ("He (4+5=9) runs", [("4+5", "9", "4+5=9")]),
        ("(4+5)*2 = 18", [("(4+5)*2", "18", "(4+5)*2 = 18")]),
        ("20% * 50 = 10", [("20% * 50", "10", "20% * 50 = 10")]),
        ("1,000 * 2 = 2,000", [("1,000 * 2", "2,000", "1,000 * 2 = 2,000")]),
        ("3 + (-4) = -1.", [("3 + (-4)", "-1", "3 + (-4) = -1")]),
        ("3*6 = 9*2 = 18", [("9*2", "18", "9*2 = 18")]),
        ("are 3. 4+5 = 9, 7-2=5", [("4+5", "9", "4+5 = 9"), ("7-2", "5", "7-2=5")]),
    ],
)
def test_plain_equations_are_steps(text: str, steps: list[tuple[str, str, str]]) -> None:
    assert read(text) == steps


NO_EQUATIONS = """9 = 9; (5) = 5; -5 = -5; x = 5; 2x - 3 = 7; 4 + 5 == 9; 4 + 5 = 9 - 1; 2**3 = 8; 5%3 = 2; 2(3+4) = 14;
3 apples * 3 + 1 = 10; x-4+5 = 2; 4 + 5 = nine; 1/0 = 0; 4 + 5"""


@pytest.mark.parametrize("text", [*NO_EQUATIONS.split(";"), "1+" * LONGEST + "1 = 1"])
def test_what_is_no_plain_equation_is_none(text: str) -> None:
    assert read(text) == []


def test_a_line_with_annotations_has_no_plain_steps_beside_them() -> None:
    assert read("He sold 48/2 = <<48/2=24>>24.\n24+1 = 25") == [("48/2", "24", "<<48/2=24>>"), ("24+1", "25", "24+1 = 25")]


@pytest.mark.parametrize(
    ("value", "rhs", "verdict"),
    [
        (Fraction(1, 3), "0.33", True),
        (Fraction(1, 3), "0.34", False),
        (Fraction(10, 3), "3", True),
        (Fraction(11, 3), "3", False),
        (Fraction(7, 2), "3", True),
        (Fraction(7, 2), "4", True),
        (Fraction(7, 2), "4.0", False),
        (Fraction(1, 3), "33%", True),
        (Fraction(1, 3), "33.0%", False),
        (Fraction(-3), "-3", True),
        (Fraction(3), "-3", False),
        (Fraction(1080), "1,080", True),
        (Fraction(1, 2), "1/2", True),
        (Fraction(2), "5/3", False),
    ],
)
def test_a_result_is_right_at_the_precision_it_is_printed_with(value: Fraction, rhs: str, verdict: bool) -> None:
    given = evaluate(rhs)
    assert given is not None
    assert is_right(value, given, printed_unit(rhs)) is verdict


def test_numbers_of_a_question_are_those_it_shows() -> None:
    assert numbers_in("Of 1,080 eggs, 60% cost $2.50 each (not -3), 1/2 of them.") == {
        Fraction(1080), Fraction(60), Fraction(3, 5), Fraction(5, 2), Fraction(3), Fraction(1), Fraction(2),
    }  # fmt: skip


# Hostile outputs


def survives(text: str) -> None:
    """Nothing is raised, every step lies inside the text, and a repaired answer is a number."""
    for step in parse_steps(text):
        assert 0 <= step.start < step.end <= len(text)
    tool = repair(text, text[-5:], question=text[::2])
    assert tool.answer == text[-5:] or evaluate(tool.answer) is not None
    published.tool_answer(text, text[-5:])


@pytest.mark.timeout(60)  # seconds, where a machine needs less than one: only a hang reaches it
@pytest.mark.parametrize("text", HOSTILE, ids=[f"{text[:20]!a}*{len(text)}" for text in HOSTILE])
def test_a_hostile_output_is_only_text(text: str) -> None:
    survives(text)


PIECES = ["<<", ">>", "=", "*", "**", "/", "+", "-", "(", ")", "%", ",", ".", " ", "\n", "x", "e9", "0", "9" * 30, "٣", "7", "13"]


def test_ten_thousand_outputs_are_only_text() -> None:
    draw = random.Random(0)
    for _ in range(10_000):
        text = "".join(draw.choices(PIECES, k=draw.randrange(24)))
        survives(text if draw.random() < 0.3 else f"<<{text[:20]}={draw.randrange(20)}>><<{text[20:]}=7>>")


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=4), max_size=30).map("".join))
def test_any_output_is_only_text(text: str) -> None:
    survives(text)
    survives(f"<<{text}=1>>\n<<1+1={text}>>\n{text} = 3")
