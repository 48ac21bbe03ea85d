"""The page of a study: one self-contained HTML file with its tables, tests, pictures, and examples of what failed and how.

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
    pages = templates()
    pages.filters.update(interval=interval, p=p_value, way=way)
    images = [base64.b64encode(picture.read_bytes()).decode("ascii") for picture in pictures]
    text = pages.get_template("study.html.j2").render(
        result=result, examples=examples, images=images, command=shlex.join(command)
    )
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def interval(rate: dict[str, Any], signed: bool = False) -> str:
    """A share or a difference of shares with its interval, in percent."""
    if rate["value"] is None:
        return "-"
    low, value, high = (100 * rate[key] for key in ("low", "value", "high"))
    return f"{value:+.1f} [{low:+.1f}, {high:+.1f}]" if signed else f"{value:.1f} [{low:.1f}, {high:.1f}]"


def p_value(value: float) -> str:
    """A p-value as it is read: two digits, and no more zeros than needed."""
    if value < 1e-300:
        return "<1e-300"
    return f"{value:.2f}" if value >= 0.01 else f"{value:.1g}"


def way(name: str) -> str:
    """A way to answer in words."""
    return "no tool" if name == "none" else name
