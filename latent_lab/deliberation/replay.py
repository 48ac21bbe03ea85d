"""Replay: a chain begins with attempts that another evaluation has already paid for, and thinks on from there.

Attempts 0 to n of its chains are taken with the notes between them; the note on attempt n is the first thing that is new. Answers
are looked for anew. With n=0 any method can go on from the first attempts, with n above 0 only those that wrote the chains.
Nothing of it stands in the ledger, so nothing is paid again; tokens of a chain count it as if it had been written here.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import yaml

from latent_lab.config import NOT_RESULT, ConfigError
from latent_lab.deliberation.samples import handed_on_tokens, rows_of
from latent_lab.deliberation.settings import SAMPLES, Settings
from latent_lab.files import flatten
from latent_lab.problems import DataError, Problem, fingerprint
from latent_lab.provenance import redact
from latent_lab.run import CONFIG, differing
from latent_lab.run import SAMPLES as SAMPLES_FILE

Row = Mapping[str, Any]
NEEDED = ("problem_hash", "reasoning_usd", "summary_usd")
BUDGETS = ("step_tokens", "step_usd", "chain_tokens", "chain_usd")
FIRST = ("backend", "weights", "reason_prompt", *(f"task.{name}" for name in BUDGETS))
"""What makes a first attempt; names cover all beneath them."""
NOTING = (
    *("memory", "window", "hand_on", "k", "share", "chunk", "overlap", "drafts", "think_end", "no_end", "wait", "thoughts"),
    *("summary_tokens", "summary_temperature"),
)
GRADING = ("stop", "agree", "extractors", "equivalence", "accept_truncated")
LATER = (
    *("summariser", "again_prompt", "summarise_prompt", "summarise_chunk_prompt", "summarise_drafts_prompt", "running_prompt"),
    *(f"task.{name}" for name in (*NOTING, *GRADING)),
)
"""What makes notes and further attempts besides."""


@dataclass(frozen=True)
class Past:
    """Attempts of another evaluation; none where nothing is replayed."""

    folder: Path | None = None
    upto: int = -1
    """The last iteration that is taken."""
    rows: Mapping[tuple[str, str, int], Mapping[int, Row]] = field(default_factory=dict)
    """Attempts and what was handed on after them, by method, problem, chain, and iteration."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """That evaluation's stored config."""

    def of(self, method: str, problem: str, number: int) -> Mapping[int, Row]:
        """A chain's attempts by iteration; first attempts belong to all methods."""
        found = self.rows.get((method, problem, number))
        if found is None and self.upto == 0:
            others = (self.rows.get((other, problem, number)) for other in self.methods)
            found = next((rows for rows in others if rows), None)
        return found or {}

    @property
    def methods(self) -> list[str]:
        """Whose chains there are, first attempts last."""
        return sorted({method for method, _, _ in self.rows}, key=lambda method: (method == SAMPLES, method))

    @property
    def identity(self) -> dict[str, str]:
        """A hash of all that is taken."""
        if self.folder is None:
            return {}
        taken = json.dumps([[*key, *map(dict, rows.values())] for key, rows in sorted(self.rows.items())])
        return {"replayed": blake2b(taken.encode(), digest_size=8).hexdigest()}

    def check(self, settings: Settings, methods: Sequence[str], problems: Sequence[Problem], given: Mapping[str, Any]) -> None:
        """Raise ConfigError unless these chains can go on from here; ``given`` is the config that asks for it."""
        if self.folder is None:
            return
        if lacking := [method for method in methods if self.upto and method not in self.methods]:
            allowed = ", ".join(method for method in self.methods if method != SAMPLES)
            raise ConfigError("task.methods", lacking[0], f"{self.folder} has no such chains to go on from; allowed: {allowed}")
        wanted = [(method, n) for method in methods for n in range(settings.chains)]
        wanted += [(SAMPLES, n) for n in range(settings.num_samples)]
        for problem in problems:
            self._check_problem(problem, wanted)
        self._check_config(settings, given)

    def _check_problem(self, problem: Problem, wanted: Sequence[tuple[str, int]]) -> None:
        hashes = {row["problem_hash"] for (_, name, _), rows in self.rows.items() if name == problem.id for row in rows.values()}
        if not hashes:
            rest = f"it has no attempt at problem {problem.id}; allowed: problems that were thought about there"
            raise ConfigError("task.replay", self.folder, rest)
        if hashes != {fingerprint([problem])}:
            rest = f"problem {problem.id} has another text or answer there; allowed: the same problems"
            raise ConfigError("task.replay", self.folder, rest)
        numbers = {(method, n) for method, name, n in self.rows if name == problem.id}
        first = {n for _, n in numbers} if self.upto == 0 else set()
        for method, n in wanted:
            if (method, n) not in numbers and n not in first:
                key = "samples" if method == SAMPLES else "chains"
                rest = f"{self.folder} has fewer for problem {problem.id}; allowed: up to {n}"
                raise ConfigError(f"task.{key}", n + 1, rest)

    def _check_config(self, settings: Settings, given: Mapping[str, Any]) -> None:
        """What made the attempts must be the same, but for what is said to change."""
        made_by = (*FIRST, *LATER) if self.upto else FIRST
        plain = redact(given)
        known = [key for key in {**flatten(self.config), **flatten(plain)} if covers(made_by, key)]
        if unknown := [name for name in settings.changed if not any(covers([name], key) for key in known)]:
            rest = f"no attempt up to iteration {self.upto} is made by it; allowed: {', '.join(made_by)}, or what is beneath"
            raise ConfigError("task.changed", unknown[0], rest)
        found = differing(self.config, plain, NOT_RESULT)
        wrong = [said for key, said in found.items() if covers(made_by, key) and not covers(settings.changed, key)]
        if wrong:
            first = next(key for key in found if covers(made_by, key) and not covers(settings.changed, key))
            rest = f"its attempts were made otherwise: {'; '.join(wrong)}; allowed: the same, or to say what changes, as in "
            raise ConfigError("task.replay", self.folder, f"{rest}task.changed=[{first}]")
        lacking = [key for key, rows in self.rows.items() if not rows or any(rows[k]["error"] for k in rows if k < self.upto)]
        if settings.changed and lacking:
            method, problem, number = lacking[0]
            rest = f"chain {number} of {method} on problem {problem} failed there and would be asked of what has changed; "
            raise ConfigError("task.changed", settings.changed, f"{rest}allowed: without task.changed, or task.exclude")


def covers(names: Sequence[str], key: str) -> bool:
    """Whether a key is one of the names, or beneath one."""
    return any(f"{key}.".startswith(f"{name}.") for name in names)


def past_of(folder: Path, upto: int) -> Past:
    """The attempts of an evaluation up to an iteration; ConfigError where it has none such, DataError for what is none."""
    rows = rows_of(folder / SAMPLES_FILE)
    if lacking := [name for name in NEEDED if name not in rows[0]]:
        raise DataError(f"{folder / SAMPLES_FILE}, row 1: it has no {lacking[0]}; allowed: what this version writes")
    last = max(row["iteration"] for row in rows)
    if upto > last:
        raise ConfigError("task.from_iteration", upto, f"{folder} has the iterations 0 to {last}; allowed: one of them")
    chains: dict[tuple[str, str, int], dict[int, Row]] = {}
    for row in rows:
        attempts = chains.setdefault((row["method"], str(row["id"]), row["chain"]), {})
        was_answered = row["finish_reason"] is not None or row["reasoning"]
        if row["iteration"] <= upto and not row["is_carried"] and was_answered:
            attempts[row["iteration"]] = row
    return Past(folder, upto, chains, yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8")))


def num_samples(past: Past) -> int:
    """How many first attempts every problem has there that only vote."""
    counts: dict[str, int] = {}
    for method, problem, _ in past.rows:
        counts[problem] = counts.get(problem, 0) + (method == SAMPLES)
    return min(counts.values(), default=0)


def amount(rows: Sequence[Row], upto: int) -> dict[str, Any]:
    """What was taken: attempts, the tokens that were written for them and the notes between, and what all that cost.

    A first attempt that several methods go on from counts once.
    """
    taken = [row for row in rows if row["is_replayed"]]
    attempts = {(row["method"] if row["iteration"] else "", row["id"], row["chain"], row["iteration"]): row for row in taken}
    notes = [row for row in taken if row["iteration"] < upto]
    costs = [*(row["reasoning_usd"] for row in attempts.values()), *(row["summary_usd"] or 0.0 for row in notes)]
    return {
        "attempts": len(attempts),
        "tokens": sum(row["reasoning_tokens"] for row in attempts.values()) + sum(handed_on_tokens(row) for row in notes),
        "cost_usd": math.fsum(costs),
    }
