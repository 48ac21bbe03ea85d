"""Pages of studies: one self-contained HTML file each, with tables, tests, pictures, and examples of what failed and how.

Reading it needs no network: style and pictures are inline, nothing is loaded, no script runs. What a model wrote is escaped.
"""

import base64
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from latent_lab.files import atomic
from latent_lab.report.page import templates


def write_page(
    path: Path, result: dict[str, Any], examples: Sequence[dict[str, Any]], pictures: Sequence[Path], command: Sequence[str]
) -> None:
    """Write the page to ``path``, whole or not at all; ``examples`` are graded rows with the keys ``run`` and ``kind``."""
    write(path, "study.html.j2", pictures, command, result=result, examples=examples)


def write(path: Path, template: str, pictures: Sequence[Path], command: Sequence[str], **values: Any) -> None:
    """Fill a page's template with its values, its pictures as ``images``, and its command, and write it, whole or not at all."""
    pages = templates()
    pages.filters.update(interval=interval, p=p_value, way=way, sentence=sentence)
    images = [base64.b64encode(picture.read_bytes()).decode("ascii") for picture in pictures]
    text = pages.get_template(template).render(images=images, command=shlex.join(command), **values)
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def interval(rate: dict[str, Any], signed: bool = False, digits: int = 1) -> str:
    """A share or a difference of shares with its interval, in percent."""
    if rate["value"] is None:
        return "-"
    low, value, high = (f"{100 * rate[key]:{'+' if signed else ''}.{digits}f}" for key in ("low", "value", "high"))
    return f"{value} [{low}, {high}]"


def p_value(value: float) -> str:
    """A p-value as it is read: two digits, and no more zeros than needed."""
    if value < 1e-300:
        return "<1e-300"
    return f"{value:.2f}" if value >= 0.01 else f"{value:.1g}"


def way(name: str) -> str:
    """A way to answer in words."""
    return "no tool" if name == "none" else name


def sentence(text: str) -> str:
    """A text that begins with a capital letter; the rest, such as names, stays."""
    return text[:1].upper() + text[1:]
