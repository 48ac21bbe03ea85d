"""Formulas are compared by math-verify in a child process: what is equal, and what happens to what would never end."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from latent_lab.grading import symbolic
from latent_lab.grading.answers import Equivalence
from latent_lab.grading.symbolic import FormulaComparer

math_verify = pytest.importorskip("math_verify", reason="needs pip install 'latent_lab[math]'")


@pytest.fixture(scope="module")
def comparer():
    made = FormulaComparer(seconds=30)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("given", "gold", "same"),
    [
        (r"\frac{2}{4}", "1/2", True),
        ("x^2+2x+1", "(x+1)^2", True),
        (r"\frac{1}{\sqrt{2}}", r"\frac{\sqrt{2}}{2}", True),
        (r"\{2,1\}", r"\{1,2\}", True),
        ("(2,1)", "(1,2)", False),
        ("x = 5", "5", True),
        (r"$\boxed{2\pi}$", r"2\pi", True),
        ("x+1", "x", False),
        ("???", "5", False),
    ],
)
def test_formulas_are_equal_by_value(comparer, given, gold, same):
    assert comparer.same(given, gold) is same


def test_what_would_never_end_is_stopped_and_the_next_comparison_works():
    impatient = FormulaComparer(seconds=1)
    assert impatient.same(r"9^{9^{9}}", "5") is None
    assert impatient.same(r"\frac{2}{4}", "1/2") is True
    impatient.close()


def test_it_works_outside_the_main_thread(comparer):
    """Where math-verify's own alarms raise an error."""
    found = []
    threads = [threading.Thread(target=lambda: found.append(comparer.same("x+x", "2x"))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 3


def test_a_child_that_is_killed_is_replaced(comparer):
    assert comparer.same("x+x", "2x") is True
    os.kill(comparer._child.pid, 9)
    comparer._child.wait()
    assert comparer.same("x+x", "2x") is True


def test_long_formulas_are_refused_before_they_reach_the_child():
    unborn = FormulaComparer()
    assert unborn.same("x+" * 600, "x") is None
    assert unborn._child is None


def test_nothing_is_executed(comparer, tmp_path):
    for text in (f"__import__('os').system('touch {tmp_path}/pwned')", f"open('{tmp_path}/pwned', 'w')", "exec('1/0')"):
        assert comparer.same(text, "5") is False
    assert list(tmp_path.iterdir()) == []


def test_the_child_ends_with_its_parent():
    code = "from latent_lab.grading.symbolic import COMPARER as c; print(c.same('x+x', '2x'), c._child.pid)"
    environment = os.environ | {"PYTHONPATH": str(Path(symbolic.__file__).parents[2])}
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    same, pid = ended.stdout.split()
    assert same == "True"
    for _ in range(100):
        if not Path(f"/proc/{pid}").exists() or "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text(encoding="utf-8"):
            break
        threading.Event().wait(0.05)
    else:
        pytest.fail(f"process {pid} is still there")


# As a rule of equivalence


def test_the_rule_compares_numbers_and_words_without_the_child():
    rule = Equivalence("math")
    assert [rule.same(given, "1/2") for given in ("0.5", r"\frac{1}{2}", "50", "1e5")] == [True, True, False, False]
    assert rule.same("1e5", "100,000") is True
    assert rule.same("paris", "Paris") is True
    assert rule.same("Siarp", "Paris") is False  # no product of five letters


def test_pairs_that_published_scorers_got_wrong():
    """Those of the planning-token papers round, stop at a tuple's first item, and compare formulas as text."""
    math, numeric, exact = (Equivalence(rule).same for rule in ("math", "numeric", "exact"))
    for given, gold in (("3.4", "3"), ("2.6", "3"), ("103", "100"), ("(3,4)", "(3,5)"), ("[1,2]", "[1,9]")):
        assert math(given, gold) is False, (given, gold)
    for given, gold in ((r"\frac12", "0.5"), ("1,000", "1000"), ("x+1", "1+x"), ("18.", "18"), ("18.00", "18"), ("$18", "18")):
        assert math(given, gold) is True, (given, gold)
    assert [numeric(given, "18") for given in ("18.", "18.00", "$18", "18.4")] == [True, True, True, False]
    assert [exact(given, "18") for given in ("18.", "18.00", "18.4")] == [True, True, False]


def test_the_rule_asks_the_child_for_formulas():
    rule = Equivalence("math")
    assert rule.same("2x^2 + 2x", "2x(x+1)") is True
    assert rule.same("2x^2 + 2", "2x(x+1)") is False
    assert rule.same(r"\frac{2}{4}", r"\frac{1}{2") is None  # a gold formula that cannot be read


def test_without_the_library_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "math_verify", None)
    message = r"^rule=math: it needs math-verify, which is not installed: pip install 'latent_lab\[math\]'$"
    with pytest.raises(ValueError, match=message):
        Equivalence("math")
