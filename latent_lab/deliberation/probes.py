"""What a note holds: an answer, the right one, the gold answer in plain sight; and whether the next attempt ends with its answer.

A note that says the answer spares the next attempt its work, and one that says a wrong one may keep it wrong.
"""

from collections.abc import Sequence
from typing import Any

from latent_lab.deliberation.chains import Chain
from latent_lab.deliberation.outcomes import rate
from latent_lab.grading.answers import Grading, normalise, stands_in

COLUMNS = ("summary_answer", "summary_correct", "gold_in_summary")
PROBES = {
    "answer": "an answer is found in the note",
    "right": "that answer is right",
    "gold": "the gold answer stands in the note, as its answer or not",
    "kept": "of answers found, those that the attempt before the note gave",
    "followed": "of answers found, those that the attempt after the note gives",
}
"""Shares of notes."""


def probed(note: str | None, gold: str, grading: Grading) -> dict[str, Any]:
    """The columns of a row about its note, None where nothing was handed on as text."""
    if note is None:
        return dict.fromkeys(COLUMNS)
    verdict = grading.verdict(note, gold, truncated=False)
    return dict(zip(COLUMNS, (verdict.answer, verdict.correct is True, stands_in(gold, note)), strict=True))


def probes(chains: Sequence[Chain], k: int, seed: int) -> dict[str, Any] | None:
    """The shares of :data:`PROBES` among the notes on attempt k, resampled by problem; None where the form tells of none."""
    noted = [chain for chain in chains if chain.iterations[k].is_summary_right is not None]
    if not noted:
        return None
    at = [chain.iterations[k] for chain in noted]
    found: dict[str, Any] = {"notes": len(noted)}
    found["answer"] = rate(noted, [each.summary_answer is not None for each in at], seed)
    found["right"] = rate(noted, [bool(each.is_summary_right) for each in at], seed)
    if told := [chain for chain in noted if chain.iterations[k].is_gold_in_summary is not None]:
        found["gold"] = rate(told, [bool(chain.iterations[k].is_gold_in_summary) for chain in told], seed)
    said = [chain for chain in noted if chain.iterations[k].summary_answer is not None]
    answers = [normalise(chain.iterations[k].summary_answer or "") for chain in said]
    for name, where in (("kept", k), ("followed", k + 1)):
        if where < len(chains[0].iterations):
            found[name] = rate(said, [chain.answers[where] == each for chain, each in zip(said, answers, strict=True)], seed)
    return found
