"""The page of ``task=thoughts``: can the thoughts of a model be read, which one holds what, are they used, can they be edited.

One self-contained HTML file. Reading it needs no network: style and pictures are inline, nothing is loaded, no script runs; the
explorer is made of radio buttons and style. What a model or a problem says is escaped.
"""

import base64
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from latent_lab.files import atomic
from latent_lab.report.matrix_figure import NOTE
from latent_lab.report.page import templates
from latent_lab.report.thoughts_cells import changes, shown, words
from latent_lab.report.thoughts_said import answers
from latent_lab.report.thoughts_tables import tables

QUESTIONS = {
    "read": "Can the thoughts be read?",
    "where": "Which thought holds which step?",
    "used": "Does the model use them?",
    "edited": "Can they be edited?",
}
"""The parts of the page in their order, and what each asks."""
PICTURES = {
    "oracle": ("read", "Bars of how often the oracle is right, for each source of vectors"),
    "probes": ("read", "Bars of how often a linear probe is right, for each field, and its best floor"),
    "matrix": ("where", "Matrix of how well each step is read from each thought"),
    "numbers": ("used", "Line of accuracy against the number of thoughts"),
    "columns": ("edited", "Bars, column by column, of answers that follow the donor's thought, or do not"),
    "flagship": ("top", "Bars of models side by side: how well the thoughts of each can be read and edited"),
}
"""Where a picture stands and what it shows, by the name of its file up to a dash; any other stands at the top."""
LEVELS = {"supervised": "The reader was part of the training loss", "emergent": "No reader was part of the training loss"}


def write_page(
    path: Path, result: dict[str, Any], examples: Sequence[dict[str, Any]], pictures: Sequence[Path], command: Sequence[str]
) -> None:
    """Write the page to ``path``, whole or not at all; ``examples`` are the problems of the explorer, each thought with what
    every reader says of it."""
    images: dict[str, list[tuple[str, str]]] = {}
    for picture in pictures:
        part, told = PICTURES.get(
            picture.stem.partition("-")[0], ("top", f"The numbers of this page, drawn: {words(picture.stem)}")
        )
        images.setdefault(part, []).append((base64.b64encode(picture.read_bytes()).decode("ascii"), told))
    text = render(result, examples, images, command)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def render(
    result: dict[str, Any],
    examples: Sequence[dict[str, Any]],
    images: dict[str, list[tuple[str, str]]],
    command: Sequence[str],
) -> str:
    """The page as HTML text; ``images`` are ``(base64 of a PNG file, what it shows)`` by the part of the page."""
    pages = templates()
    pages.filters.update(shown=shown, words=words, changes=changes)
    found, said = tables(result, examples), answers(result)
    asked = {part: title for part, title in QUESTIONS.items() if part in said or found[part] or images.get(part)}
    return pages.get_template("thoughts.html.j2").render(
        result=result,
        ladder=ladder(result),
        asked=asked,
        said=said,
        tables=found,
        images=images,
        examples=examples,
        command=shlex.join(command),
        matrix_note=NOTE,
        meaning=LEVELS.get(result["kind"], ""),
    )


def ladder(result: dict[str, Any]) -> dict[str, Any] | None:
    """The verdict with the lowest level, which needs nothing, in its place; None where no ladder was climbed."""
    given = result.get("ladder")
    if not given or not given.get("level"):
        return None
    return {"level": given["level"], "name": given.get("name", ""), "evidence": given.get("evidence", [])}
