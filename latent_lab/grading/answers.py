"""What an answer is worth: one way to write equal answers, rules for what equals the gold answer, and the verdict on a text.

Nothing a model wrote is ever evaluated as code, and no answer takes long to compare.
"""

import re
from dataclasses import dataclass
from fractions import Fraction

from latent_lab.grading import symbolic
from latent_lab.grading.extraction import Span, check_extractors, extract
from latent_lab.grading.numbers import LONGEST, number

# A dollar sign and a percent sign are part of the answer: they stay, and only the number between them is rewritten.
NUMBER = re.compile(r"([+-]?)(\$?)([0-9]{1,3}(?:,[0-9]{3})+|[0-9]*)(?:\.([0-9]*))?(%?)")
RULES = ("exact", "integer", "numeric", "math", "published_in_run", "published_post_hoc", "choice", "yes_no")
LONGEST_ANSWER = 10_000
"""A given answer longer than this equals the gold answer only if it is that very text."""
FIRST_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")
LETTER = re.compile(r"(?:(?:option|choice)\s+)?(?:\((?P<closed>[a-z])\).*|(?P<bare>[a-z])(?:[).:].*)?)", re.I | re.DOTALL)
YES_OR_NO = re.compile(r"(?P<yes>yes|true)\b.*|(?:no|false)\b.*", re.I | re.DOTALL)
IN_TEXT = re.compile(r"(?<![\w.])[+-]?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?(?!\w)")
WORDS = re.compile(r"[^\W\d_]{2,}(?:[\s'.-]+[^\W\d_]+)*\.?")


def normalise(answer: str) -> str:
    """Write an answer the one way that equal answers share.

    A number loses well-placed thousands commas, a plus sign, needless zeros and a final point (``+1,080.50`` is ``1080.5``);
    other text loses case, a final point and extra white space. ``$`` and ``%`` stay.
    """
    text = " ".join(answer.casefold().split())
    match = NUMBER.fullmatch(text)
    if match is None or not (match[3] or match[4]):
        return text.rstrip(". ")
    sign, dollar, whole, fraction, percent = match.groups(default="")
    value = whole.replace(",", "").lstrip("0") or "0"
    if fraction := fraction.rstrip("0"):
        value += f".{fraction}"
    minus = "-" if sign == "-" and value != "0" else ""
    return f"{minus}{dollar}{value}{percent}"


def stands_in(gold: str, text: str) -> bool:
    """Whether an answer stands in a text, by itself: a number however it is written, other text as whole words."""
    wanted = normalise(gold.replace("$", "").replace("%", ""))
    if IN_TEXT.fullmatch(wanted):
        return any(normalise(found[0]) == wanted for found in IN_TEXT.finditer(text))
    said = " ".join(text.casefold().split())
    return bool(wanted) and re.search(rf"(?<!\w){re.escape(wanted)}(?!\w)", said) is not None


def is_equal(given: str, gold: str) -> bool:
    """Say whether two answers are the same once both are normalised."""
    return normalise(given) == normalise(gold)


def digits_right(given: str, gold: str) -> float:
    """Return the share of the gold digits that stand in their place in the given answer, counted from the units.

    Digits beyond the gold's are ignored, so 1.0 does not imply equality (``183`` for ``83``); text or another sign scores 0.0.
    A gold answer that is no integer raises ValueError.
    """
    given, gold = normalise(given), normalise(gold)
    if not is_integer(gold):
        raise ValueError(f"gold={gold!r}: digits are compared for integers only")
    if not is_integer(given) or given.startswith("-") != gold.startswith("-"):
        return 0.0
    given, gold = given.lstrip("-"), gold.lstrip("-")
    return sum(x == y for x, y in zip(reversed(given), reversed(gold), strict=False)) / len(gold)


def is_integer(answer: str) -> bool:
    """Say whether a normalised answer is a plain integer."""
    return re.fullmatch("-?[0-9]+", answer) is not None


# What equals the gold answer


@dataclass(frozen=True)
class Equivalence:
    """A rule, and how near is near enough; two answers are compared by :meth:`same`."""

    rule: str = "exact"
    """``exact``: the same text once both are normalised. ``integer``: the same whole number, however it is written. ``numeric``:
    the same number, or near enough. ``math``: the same number, the same text, or formulas that math-verify takes for equal.
    ``choice``: the letter of the same option, whatever of the option follows it. ``yes_no``: both begin with yes or true, or both
    with no or false.
    ``published_in_run`` and ``published_post_hoc``: the two rules of the published GSM-Hard study, to be compared with."""
    absolute: float = 0.0
    """``numeric``: largest difference from the gold number."""
    relative: float = 0.0
    """``numeric``: the same as a share of the gold number; the larger of the two tolerances counts."""
    scale: float | None = None
    """``numeric``: the most that ``absolute`` may be, as a share of the gold number. With ``absolute=1`` and
    ``scale=0.01``, 999 passes for 1000, but 1 not for 0.3, for which it passes without a scale."""
    percent: bool = False
    """``integer`` and ``numeric``: 50% is 0.5. Else the sign is a unit like any other and 50% is 50, because gold answers to
    questions for a percentage are written without it."""

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise ValueError(f"rule={self.rule}: allowed are {', '.join(RULES)}")
        for name in ("absolute", "relative"):
            if not 0 <= (value := getattr(self, name)) < float("inf"):
                raise ValueError(f"{name}={value}: allowed are 0 (the same number) and more")
            if value and self.rule != "numeric":
                raise ValueError(f"{name}={value}: the rule {self.rule} has no tolerance to set; allowed are 0, or numeric")
        if self.scale is not None and not (self.absolute and 0 < self.scale < float("inf")):
            raise ValueError(
                f"scale={self.scale}: allowed are numbers above 0, beside an absolute tolerance that they limit, or null"
            )
        if self.percent and self.rule not in ("integer", "numeric"):
            raise ValueError(f"percent={self.percent}: allowed are false, or the rules integer and numeric")
        if self.rule == "math":
            symbolic.check_installed()

    def same(self, given: str, gold: str) -> bool | None:
        """Whether an answer is right; None where the gold answer is none the rule can compare with: unscored, not wrong."""
        if self.rule == "published_in_run":
            return published_in_run(given, gold)
        if self.rule == "published_post_hoc":
            return published_post_hoc(given, gold)
        if len(given) > LONGEST_ANSWER:
            return given == gold
        if self.rule == "exact":
            return is_equal(given, gold)
        if self.rule in ("choice", "yes_no"):
            of = letter if self.rule == "choice" else yes_or_no
            return None if (named := of(gold)) is None else of(given) == named
        right, answer = number(gold, percent=self.percent), number(given, percent=self.percent)
        if self.rule == "math":
            return is_equal(given, gold) or _same_formula(given, gold, answer, right)
        if right is None or (self.rule == "integer" and right.denominator != 1):
            return None
        return answer is not None and abs(answer - right) <= self.tolerance(right)

    def tolerance(self, gold: Fraction) -> Fraction:
        """How far an answer may lie from the gold number."""
        absolute = Fraction(str(self.absolute))  # of 0.1, what was written, not the float nearest to it
        if self.scale is not None:
            absolute = min(absolute, Fraction(str(self.scale)) * abs(gold))
        return max(absolute, Fraction(str(self.relative)) * abs(gold))


def letter(answer: str) -> str | None:
    """The option that an answer names: ``B``, ``(b)``, ``B) 21``, ``B. a bank``; a letter that begins a sentence names none."""
    found = LETTER.fullmatch(answer.strip(" *_$\n"))
    return (found["closed"] or found["bare"]).upper() if found else None


def yes_or_no(answer: str) -> bool | None:
    """Whether an answer begins with yes or true; False: with no or false; None: with neither."""
    found = YES_OR_NO.fullmatch(answer.strip(" *_$\n"))
    return found["yes"] is not None if found else None


def _same_formula(given: str, gold: str, answer: Fraction | None, right: Fraction | None) -> bool | None:
    """The rule ``math`` for answers whose texts differ; numbers are compared exactly, and words are no product of letters."""
    if answer is not None and right is not None:
        return answer == right
    if WORDS.fullmatch(gold.strip()):
        return False
    return symbolic.COMPARER.same(given, gold)


def published_in_run(given: str, gold: str) -> bool | None:
    """The rule of the study's evaluation loop (reference, section 2.2): truncated towards 0, or one more where the gold is above.

    Of both texts the first number counts, whatever follows it: 2.0107e-06 is 2.0107.
    """
    right, answer = _first_number(gold), _first_number(given)
    if right is None:
        return None
    whole = int(right)
    return answer == whole or (answer == whole + 1 and right > whole)


def published_post_hoc(given: str, gold: str) -> bool:
    """The rule of the study's tables (reference, section 2.2): both cut to whole numbers, at most 1 apart; no number is wrong.

    At this scale 1 and 0.001 are alike, as are -0.9 and 1.9.
    """
    if max(len(given), len(gold)) > LONGEST_ANSWER:
        return False
    try:
        return abs(int(float(gold)) - int(float(given))) <= 1
    except (ValueError, OverflowError):  # no number, or infinite
        return False


def _first_number(text: str) -> Fraction | None:
    match = FIRST_NUMBER.search(text[:LONGEST_ANSWER])
    return Fraction(match[0]) if match and len(match[0]) <= LONGEST else None


# The verdict on a text


TOO_LONG = "too_long"
REASONS = ("no_answer", "truncated", "not_comparable", TOO_LONG)
"""Why an answer is unscored: none was found; the text was cut off, and no answer is accepted or found in what there is; the rule
cannot compare with the gold answer; the question is longer than the model's positions, so it was never asked."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one text."""

    answer: str | None
    """The answer found; None where there is none, or where it was not looked for."""
    extractor: str | None
    """The rule that found it."""
    span: Span | None
    """Where it stands in the text."""
    correct: bool | None
    """None: unscored, for ``reason``; that is not wrong."""
    reason: str | None
    """One of ``REASONS``; None where the answer was scored."""
    truncated: bool
    """Whether the text was cut off, even where it holds an answer."""

    @property
    def status(self) -> str:
        """``right``, ``wrong`` or ``unscored``."""
        return {True: "right", False: "wrong", None: "unscored"}[self.correct]


@dataclass(frozen=True)
class Grading:
    """How a text is graded: where its answer is looked for, and what equals the gold answer."""

    extractors: tuple[str, ...] = ("marker",)
    """Rules that find the answer, in the order they are tried; see ``EXTRACTORS``."""
    equivalence: Equivalence = Equivalence()
    """What equals the gold answer."""
    accept_truncated: bool = False
    """Also look for an answer in a text that was cut off, as the published study did; else that text is unscored."""

    def __post_init__(self) -> None:
        check_extractors(self.extractors)

    def verdict(self, text: str, gold: str, *, truncated: bool = False) -> Verdict:
        """Grade a text; ``truncated``: it did not end by itself."""
        found = extract(text, self.extractors) if self.accept_truncated or not truncated else None
        if found is None:
            return Verdict(None, None, None, None, "truncated" if truncated else "no_answer", truncated)
        correct = self.equivalence.same(found.answer, gold)
        reason = "not_comparable" if correct is None else None
        return Verdict(found.answer, found.extractor, found.span, correct, reason, truncated)
