"""The rows of a ``samples.jsonl`` that ``task=summarize`` wrote, one for each method, problem, chain and iteration, as chains."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from latent_lab.deliberation.chains import Chain, Iteration
from latent_lab.deliberation.settings import SAMPLES
from latent_lab.problems import DataError
from latent_lab.problems.files import decoded, parsed

COLUMNS = ("method", "id", "chain", "iteration", "gold", "answer", "correct", "reasoning", "summary")
CUT = ("length", "budget")
"""How an attempt ends that does not end by itself."""


def of_samples(path: Path) -> list[Chain]:
    """The chains of a file, or :class:`DataError`; first attempts that only vote are left out, being no chains."""
    found = chains_of(rows_of(path), str(path))
    if not found:
        raise DataError(f"{path}: holds no chain; at least one is needed")
    return found


def rows_of(path: Path) -> list[dict[str, Any]]:
    """The rows of a file, or :class:`DataError`."""
    if not path.is_file():
        raise DataError(f"{path}: there is no such file; allowed: the samples.jsonl that task=summarize writes")
    rows = []
    lines = decoded(path).rstrip("\n").split("\n")  # not splitlines: a text may hold other line breaks unescaped
    for number, line in enumerate(lines, start=1):
        row = parsed(line, f"{path}, row {number}", "a sample a line")
        if not isinstance(row, dict) or (lacking := [name for name in COLUMNS if name not in row]):
            missing = f"it has no {lacking[0]}" if isinstance(row, dict) else "it is no object"
            raise DataError(f"{path}, row {number}: {missing}; allowed: the samples.jsonl that task=summarize writes")
        rows.append(row)
    return rows


def unanswered(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The problems of which a chain ended in an error, or a chain that thinks again ended without an answer."""
    failed = [row for row in ends(rows) if row.get("error") or (row["answer"] is None and row["method"] != SAMPLES)]
    return list(dict.fromkeys(str(row["id"]) for row in failed))


def wrong(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The problems of which a chain that thinks again did not end with the right answer."""
    return list(dict.fromkeys(str(row["id"]) for row in ends(rows) if row["method"] != SAMPLES and not row["correct"]))


def ends(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The last row of each chain."""
    last = {(row["method"], str(row["id"]), row["chain"]): row for row in sorted(rows, key=lambda row: row["iteration"])}
    return list(last.values())


def handed_on_tokens(row: Mapping[str, Any]) -> int:
    """Tokens written after an attempt for what is handed on: further drafts, and a summary."""
    return int(row.get("draft_tokens") or 0) + int(row["summary_tokens"] or 0)


def chains_of(rows: Sequence[Mapping[str, Any]], where: str) -> list[Chain]:
    """The chains that rows belong to; a chain whose first attempt failed is an error."""
    groups: dict[tuple[str, str, int], list[Mapping[str, Any]]] = {}
    for row in rows:
        if row["method"] != SAMPLES:
            groups.setdefault((row["method"], str(row["id"]), row["chain"]), []).append(row)
    return [of_rows(group, where) for group in groups.values()]


def of_rows(group: Sequence[Mapping[str, Any]], where: str) -> Chain:
    """One chain out of its rows."""
    ordered = sorted(group, key=lambda row: row["iteration"])
    first = ordered[0]
    place = f"{where}, {first['method']}, problem {first['id']}, chain {first['chain']}"
    if [row["iteration"] for row in ordered] != list(range(len(ordered))):
        raise DataError(f"{place}: iterations {[row['iteration'] for row in ordered]}; allowed: each once, from 0")
    is_error = first.get("error") is not None and len({row.get("finish_reason") for row in ordered} - {None}) == 0
    run, problem = f"chain{first['chain']}", str(first["id"])
    return Chain(first["method"], run, problem, tuple(map(of_row, ordered)), place, first["gold"], first.get("year"), is_error)


def of_row(row: Mapping[str, Any]) -> Iteration:
    """One iteration; one that was only carried on has no text."""
    is_carried = bool(row.get("is_carried"))
    return Iteration(
        is_right=bool(row["correct"]),
        answer=row["answer"],
        is_cut=None if is_carried or row.get("finish_reason") is None else row["finish_reason"] in CUT,
        reasoning=row["reasoning"] or None,
        summary=row["summary"] or None,
        reasoning_tokens=None if is_carried else row.get("reasoning_tokens"),
        summary_tokens=row.get("summary_tokens"),
        summary_answer=row.get("summary_answer"),
        is_summary_right=row.get("summary_correct"),
        is_gold_in_summary=row.get("gold_in_summary"),
    )
