"""``task=play`` in a terminal: lines in, tables out; a pipe will do as well."""

import sys
from collections.abc import Iterator
from typing import TextIO

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from latent_lab.report.play import Edit, Player, PlayError, Scene

HELP = """\
347 + 285                 a problem: think, read, answer
swap 2 from 111 + 222     put thought 2 of another problem in its place
zero 1                    put the zero vector in its place
remove 3                  leave the thought out
undo                      take the last edit back
help, quit"""
WIDTH = 120
"""Columns written where the output is no terminal."""


def talk(player: Player, lines: Iterator[str] | None = None, out: TextIO | None = None) -> dict[str, int]:
    """Do what each line says until they end or one says ``quit``; count problems, edits and errors."""
    out = out or sys.stdout
    console = Console(file=out, highlight=False, markup=False, emoji=False, width=None if out.isatty() else WIDTH)
    counts = {"problems": 0, "edits": 0, "errors": 0}
    question, edits = "", list[Edit]()
    console.print("Type a problem, such as " + clean(player.example()) + ", or help.")
    for line in lines if lines is not None else typed(console):
        word = line.strip()
        if word in ("quit", "exit"):
            break
        if word == "help":
            console.print(HELP)
        if word in ("", "help"):
            continue
        try:
            asked, wanted = command(word, question, edits)
            scene = player.scene(asked, wanted)
        except ValueError as error:  # PlayError and what datasets say of a problem; one line each
            if not type(error).__module__.startswith("latent_lab."):
                raise
            console.print("error: " + clean(str(error)))
            counts["errors"] += 1
            continue
        counts["edits" if wanted else "problems"] += len(wanted) > len(edits) or not wanted
        question, edits = asked, wanted
        show(console, scene)
    return counts


def command(line: str, question: str, edits: list[Edit]) -> tuple[str, list[Edit]]:
    """The question and the edits that hold after a line; raises :class:`PlayError` where it asks for what cannot be."""
    edit = Edit.parse(line)
    if edit is None and line != "undo":
        return line, []
    if not question:
        raise PlayError(f"{line}: there is no problem yet; type one, such as 347 + 285")
    if edit is not None:
        return question, [*edits, edit]
    if not edits:
        raise PlayError("undo: nothing was edited")
    return question, edits[:-1]


def typed(console: Console) -> Iterator[str]:
    """Lines of the standard input, asked for where somebody types them, until it ends or is interrupted."""
    if not sys.stdin.isatty():
        yield from sys.stdin
        return
    while True:
        try:
            yield console.input("> ")
        except (EOFError, KeyboardInterrupt):
            console.print()
            return


def show(console: Console, scene: Scene) -> None:
    """Write a scene: a row for each thought, and the answer."""
    knows_steps = any(thought.gold is not None for thought in scene.thoughts)
    table = Table(box=SIMPLE, pad_edge=False)
    for name in ("thought", *(["step"] if knows_steps else []), *scene.readers, *(["edit"] if scene.edits else [])):
        table.add_column(name, overflow="fold")
    for thought in scene.thoughts:
        cells = [Text(str(thought.slot))]
        if knows_steps:
            cells.append(Text(clean(thought.gold or "-")))
        for text, sure in thought.readings:
            said = Text(clean(text) or "-") + Text(f"  {100 * sure:.0f}%" if sure is not None else "", style="dim")
            cells.append(said + Text(" \N{CHECK MARK}" if text and text == thought.gold else "", style="green"))
        if scene.edits:
            cells.append(Text(clean(thought.edited), style="bold"))
        table.add_row(*cells)
    if scene.thoughts:
        console.print(table)
    console.print(Text(clean(verdict(scene)), style="bold"))


def verdict(scene: Scene) -> str:
    """The answer in a line, beside the one before the edits and the one expected."""
    line = f"{scene.question} {scene.answer}"
    if not scene.edits:
        is_right = "" if scene.gold is None else "  right" if scene.answer == scene.gold else f"  wrong, right is {scene.gold}"
        return line + is_right
    line += f"  (before: {scene.before})" if scene.answer != scene.before else "  (as before)"
    removed = [edit.slot for edit in scene.edits if edit.kind == "remove"]
    line += f"  without thought {', '.join(map(str, removed))}" if removed else ""
    return line + ("" if scene.expected is None else f"  expected if each thought holds its column: {scene.expected}")


def clean(text: str) -> str:
    """Text without what a terminal would obey."""
    return "".join(char if char.isprintable() or char == "\n" else "\N{REPLACEMENT CHARACTER}" for char in text)
