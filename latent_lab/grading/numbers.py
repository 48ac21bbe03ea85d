"""The number an answer states, exactly, or None: ``1,080``, ``-3/4``, ``1 1/2``, ``2.5e3``, ``$18``, ``18 apples``, ``50%``.

Model output is read here by patterns alone, never evaluated. What is longer than :data:`LONGEST` or has an exponent beyond
:data:`LARGEST_EXPONENT` is refused at a glance: no answer can make this take long.
"""

import re
from fractions import Fraction

LONGEST = 400
"""Characters an answer may have and still be read as a number."""
LARGEST_EXPONENT = 400
"""Powers of ten beyond this, either way, are refused; a float holds 308."""

DIGITS = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)"
DECIMAL = rf"(?:{DIGITS}(?:\.[0-9]*)?|\.[0-9]+)"
BODY = re.compile(
    rf"""
    (?: (?P<whole>{DIGITS}) (?:\ +(?=[0-9])|\ *(?=\\)) )?             # the 1 of 1 1/2 and of 1\frac{{1}}{{2}}
    (?: (?P<over>{DIGITS}) \ */\ * (?P<under>{DIGITS})
      | \\[dt]?frac\ *(?:\{{\ *(?P<top>-?{DIGITS})\ *\}}\ *\{{\ *(?P<bottom>{DIGITS})\ *\}} | (?P<short>[0-9]{{2}})) )
  | (?P<decimal>{DECIMAL}) (?:[eE](?P<exponent>[+-]?[0-9]+))?
    """,
    re.VERBOSE,
)
LATEX = {r"\$": "$", r"\%": "%", "{,}": ",", r"\,": "", r"\!": "", r"\ ": " ", "~": " ", "\u2212": "-", "\u00a0": " "}
"""Other ways to write what stands on the right; of signs, only the true minus besides the hyphen."""
WRAPPED = re.compile(r"\$(?P<a>[^$]*)\$|\\\((?P<b>.*)\\\)|\\boxed\{(?P<c>[^{}]*(?:\{[^{}]*\}[^{}]*)*)\}|\*\*(?P<d>[^*]*)\*\*")
UPRIGHT = re.compile(r"\\(?:text|mathrm|mbox) ?\{([^{}]*)\}")
SIGN = re.compile(r"(?:US|A|C)?[$€£¥₹] ?[-+] ?|(?:[-+] ?)?(?:(?:US|A|C)?[$€£¥₹] ?)?")
FACTORS = {"dozen": 12, "hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
MOST_WORDS = 6
SINGLE_LETTER_UNITS = frozenset("gmlhsLVWAJN")
NOT_UNITS = frozenset(
    ("and", "or", "to", "plus", "minus", "times", "over", "by", "half", "halves", "thirds", "quarters", "k", "K", "M", "B", "bn")
)
"""Words after a number that make another number of it, or none."""


def number(text: str, *, percent: bool = False) -> Fraction | None:
    """Return the number that a text states and nothing besides, or None.

    A currency sign and a unit of a few words, without digits in it, are no part of the number: ``$18``, ``18 dollars`` and ``18``
    are alike. So is a percent sign, because questions that ask for a percentage have gold answers without one; where ``percent``
    is true, ``50%`` is 1/2. Letters that may be a variable are no unit (``3x``), and digits are 0 to 9 only.
    """
    if len(text) > LONGEST:
        return None
    text = _plain(text)
    sign = SIGN.match(text)
    match = BODY.match(text, sign.end()) if sign else None
    if sign is None or match is None or (value := _value(match)) is None:
        return None
    factor = _factor(text[match.end() :], percent)
    return None if factor is None else value * factor * (-1 if "-" in sign[0] else 1)


def _plain(text: str) -> str:
    """A text without the LaTeX, the emphasis and the final point around its number."""
    for written, plain in LATEX.items():
        text = text.replace(written, plain)
    text = UPRIGHT.sub(r"\1", text).strip().rstrip(". ")
    while match := WRAPPED.fullmatch(text):  # each time at least two characters shorter
        text = next(part for part in match.groups() if part is not None).strip().rstrip(". ")
    return text


def _value(match: re.Match[str]) -> Fraction | None:
    """The value of a matched body."""
    if match["decimal"]:
        exponent = match["exponent"] or "0"
        if len(exponent) > 5 or abs(int(exponent)) > LARGEST_EXPONENT:
            return None
        return Fraction(match["decimal"].replace(",", "").rstrip(".")) * Fraction(10) ** int(exponent)
    short = match["short"] or "  "
    parts = (match["over"] or match["top"] or short[0], match["under"] or match["bottom"] or short[1], match["whole"] or "0")
    top, bottom, whole = (int(part.replace(",", "")) for part in parts)
    if bottom == 0 or (match["whole"] and top < 0):
        return None
    return whole + Fraction(top, bottom)


def _factor(rest: str, percent: bool) -> Fraction | None:
    """What stands after a number multiplies it: a unit by 1, a million by a million; None: it is no unit."""
    glued = rest[:1].isalpha()
    rest = rest.strip()
    if rest in ("%", "percent", "per cent"):
        return Fraction(1, 100) if percent else Fraction(1)
    words = rest.split()
    factor = Fraction(1)
    if words and words[0].casefold() in FACTORS and not glued:
        factor = Fraction(FACTORS[words.pop(0).casefold()])
    words = [_without_power(word) for word in words]
    is_unit = len(words) <= MOST_WORDS and all(map(_is_unit_word, words)) and not NOT_UNITS & set(words)
    is_variable = len(words) == 1 and len(words[0]) == 1 and words[0].isalpha() and words[0] not in SINGLE_LETTER_UNITS
    return factor if is_unit and not is_variable else None


def _without_power(word: str) -> str:
    for power in ("^2", "^3", "²", "³"):
        word = word.removesuffix(power)
    return word


def _is_unit_word(word: str) -> bool:
    """Whether it is like ``km/h``, ``children's`` or ``€``."""
    return (word[:1].isalpha() or word[:1] in tuple("°$€£¥₹")) and all(c.isalpha() or c in "-'/." for c in word[1:])
