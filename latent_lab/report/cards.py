"""Problems one by one, as a page shows what became of each chain: its class, its answers, and what was written and handed on."""

from collections.abc import Mapping, Sequence
from typing import Any

from latent_lab.deliberation.board import Board, Place, Row
from latent_lab.deliberation.outcomes import CLASSES, outcome
from latent_lab.deliberation.settings import SAMPLES
from latent_lab.problems import Problem

STATES = {"going_on": "not ended yet; its class is that of the attempts so far", "failed": "ended in an error"}
"""What may be said of a chain besides its class."""
KINDS = CLASSES | STATES
"""What chains of a page can be chosen by."""
MOST_CARDS = 100
"""Problems that a page shows; all of them stand in ``samples.jsonl``."""
LONGEST, END = 1_200, 500
"""Characters of a text that a page shows, and how many of these are its end."""


def cards(board: Board, problems: Sequence[Problem]) -> list[dict[str, Any]]:
    """A card for each of the first problems."""
    return [card(number, each, board.chains(each.id)) for number, each in enumerate(problems[:MOST_CARDS])]


def card(number: int, problem: Problem, chains: Mapping[Place, Sequence[Row]]) -> dict[str, Any]:
    """A problem with its chains as far as they have come; ``number`` makes the names that a page needs."""
    return {
        "id": f"card-{number}",
        "name": problem.id,
        "question": cut(problem.question),
        "gold": problem.answer,
        "chains": [chain(number, place, rows) for place, rows in chains.items() if place[0] != SAMPLES],
        "votes": [
            {"answer": row["answer"], "right": row["correct"]} for (method, _), (row, *_) in chains.items() if method == SAMPLES
        ],
    }


def chain(number: int, place: Place, rows: Sequence[Row]) -> dict[str, Any]:
    """A chain: its class, and the attempts that it made."""
    made = [row for row in rows if not row["is_carried"]]
    return {
        "id": f"chain-{number}-{place[0]}-{place[1]}",
        "name": f"{place[0].replace('_', ' ')}, chain {place[1]}",
        "outcome": outcome([row["correct"] for row in rows]),
        "state": state(rows),
        "stop": made[-1]["stop_reason"],
        "error": made[-1]["error"],
        "tokens": made[-1]["cum_tokens"],
        "usd": made[-1]["cum_usd"],
        "attempts": [attempt(row) for row in made],
    }


def attempt(row: Row) -> dict[str, Any]:
    """One attempt and what it handed on."""
    return {
        "iteration": row["iteration"],
        "answer": row["answer"],
        "right": row["correct"],
        "reason": row["reason"],
        "ended": row["finish_reason"],
        "tokens": row["reasoning_tokens"],
        "is_replayed": row["is_replayed"],
        "text": cut(row["reasoning"]),
        "note": None if row["summary"] is None else cut(row["summary"]),
        "note_tokens": row["summary_tokens"],
    }


def state(rows: Sequence[Row]) -> str:
    """One of :data:`STATES`, or nothing."""
    if any(row["error"] for row in rows):
        return "failed"
    return "" if any(row["stop_reason"] for row in rows) else "going_on"


def cut(text: str) -> str:
    """A text as a page can show it: of a long one the beginning and the end."""
    if len(text) <= LONGEST:
        return text
    left_out = len(text) - LONGEST
    return f"{text[: LONGEST - END]}\n[... {left_out:,} characters more are in samples.jsonl ...]\n{text[-END:]}"


def counts(board: Board, problems: Sequence[Problem]) -> dict[str, int]:
    """How many chains have each class and each state, over all problems."""
    found = dict.fromkeys(KINDS, 0)
    for problem in problems:
        for (method, _), rows in board.chains(problem.id).items():
            if method != SAMPLES:
                found[outcome([row["correct"] for row in rows])] += 1
                if said := state(rows):
                    found[said] += 1
    return found


def by_iteration(board: Board, problems: Sequence[Problem]) -> dict[str, list[tuple[int, int]]]:
    """For each method, of every iteration how many answers are right and how many there are; first attempts that vote, last."""
    sums: dict[str, dict[int, list[bool]]] = {}
    for problem in problems:
        for (method, _), rows in board.chains(problem.id).items():
            for row in rows:
                sums.setdefault(method, {}).setdefault(row["iteration"], []).append(row["correct"])
    order = sorted(sums, key=lambda method: (method == SAMPLES, method))
    return {method: [(sum(sums[method][k]), len(sums[method][k])) for k in sorted(sums[method])] for method in order}
