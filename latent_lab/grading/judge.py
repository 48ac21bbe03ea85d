"""Judging wrong answers: planning or execution? Verdicts beside those of the rules, and what they amount to.

Only wrong answers are judged: an answer that could not be read is a failure of form, and is counted apart from them.
"""

import hashlib
import itertools
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latent_lab.calls.ledger import read_ledger, totals
from latent_lab.files import write_lines
from latent_lab.grading.agreement import cohen_kappa, fleiss_kappa, krippendorff_alpha
from latent_lab.grading.answers import is_equal
from latent_lab.grading.judge_prompt import KINDS, Case, Verdict, load_prompt
from latent_lab.grading.judges import Ask, Asking, Rules
from latent_lab.grading.repair import Repaired, error_kind, repair
from latent_lab.grading.statistics import wilson

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

VERDICTS = "verdicts.jsonl"
CERTAIN = ("planning", "execution")
"""What the rules say where they are certain; elsewhere they say unclear."""

Judge = Rules | Asking
IsRight = Callable[[str, str], bool]
Votes = Sequence[Verdict]


class JudgeError(ValueError):
    """A judge that gave no verdicts to build on; what it did give is kept, and the message says what to do."""


def identity(chosen: Any) -> dict[str, str]:
    """What of ``judge=`` decides a result though no setting shows it, for a run's config: the text of the prompt."""
    return {"judge_prompt": load_prompt(chosen.prompt).sha256} if isinstance(chosen, Asking) else {}


def wrong_cases(rows: Sequence[Mapping[str, Any]]) -> list[Case]:
    """The wrong answers among graded rows (``samples.jsonl``)."""
    return [
        Case(str(row["id"]), row["question"], row["output"], row["answer"], str(row["gold"]))
        for row in rows
        if row["correct"] is False
    ]


def by_rules(case: Case, is_right: IsRight = is_equal) -> Verdict:
    """What the arithmetic tool says about a wrong answer; ``unclear`` where it cannot tell."""
    repaired = repair(case.output, case.answer, question=case.question)
    return as_verdict(error_kind(False, is_right(repaired.answer, case.gold), repaired.is_arithmetic_right), repaired)


def as_verdict(kind: str, repaired: Repaired) -> Verdict:
    """What :func:`latent_lab.grading.repair.error_kind` says about a wrong answer, with the reason."""
    if kind == "execution":
        return Verdict(kind, f"with its arithmetic repaired, the answer is {repaired.answer}")
    if kind == "planning":
        return Verdict(kind, "the arithmetic of every step is right")
    counted = ", ".join(f"{count} {verdict}" for verdict, count in repaired.verdicts.items() if count)
    return Verdict(kind, f"steps: {counted or 'none'}; repaired, the answer is still wrong")


def judged(
    judge: Judge, cases: Sequence[Case], rules: Votes, folder: Path, device: "torch.device | str" = "cpu"
) -> dict[str, Any]:
    """Judge wrong answers, write ``verdicts.jsonl`` into ``folder``, and return the summary for ``result.json``.

    ``rules`` are the verdicts of the arithmetic tool, as from :func:`by_rules`. Other judges are compared with them on the
    calibration subset first, and asked about the rest after that. Raises :class:`JudgeError` where too few replies came or the
    calibration failed, and BudgetSpent where a budget ends it; what was paid for is kept in ``folder``, and the same call goes on
    from there.
    """
    if isinstance(judge, Rules):
        votes = [[verdict] for verdict in rules]
        write_lines(folder / VERDICTS, table(judge, cases, rules, votes))
        return {**described(judge), **summarised(votes)}
    first = drawn(cases, rules, judge)
    with judge.opened(folder, device) as ask:
        tried = asked(judge, ask, [cases[i] for i in first])
        calibration = beside_rules([rules[i] for i in first], tried, judge.names)
        check_calibration(judge, calibration)
        rest = [i for i in range(len(cases)) if i not in first]
        found = dict(zip([*first, *rest], [*tried, *asked(judge, ask, [cases[i] for i in rest])], strict=True))
    votes = [found[i] for i in range(len(cases))]
    write_lines(folder / VERDICTS, table(judge, cases, rules, votes, first))
    summary = {
        **described(judge),
        **summarised(votes),
        "agreement": between_judges(votes, judge.names),
        "rules": beside_rules(rules, votes, judge.names),
        "calibration": calibration,
    }
    calls = read_ledger(folder)
    return summary | ({"calls": totals(calls)} if calls else {})


def asked(judge: Asking, ask: Ask, cases: Sequence[Case]) -> list[list[Verdict]]:
    """The verdicts on some cases; JudgeError where more questions than allowed have no reply."""
    votes = ask(cases) if cases else []
    check_replies(judge, [verdict.error for each in votes for verdict in each], len(cases) * len(judge.names))
    return votes


def check_replies(judge: Asking, errors: Sequence[str | None], count: int) -> None:
    """Raise :class:`JudgeError` where more of ``count`` questions than allowed have no reply, but one of the ``errors``."""
    failed = [error for error in errors if error]
    if len(failed) > judge.max_errors * count:
        raise JudgeError(
            f"judge: {len(failed)} of {count} questions have no reply, more than judge.max_errors={judge.max_errors} "
            f"allows; the first: {failed[0]}. The replies that came are kept: the same command asks again for the others"
        )


def drawn(cases: Sequence[Case], rules: Votes, judge: Asking) -> list[int]:
    """The calibration subset: places of cases about which the rules are certain, whatever the order of the cases."""

    def place(i: int) -> str:
        return hashlib.sha256(f"{judge.calibration_seed} {cases[i].id}".encode()).hexdigest()

    certain = [i for i, verdict in enumerate(rules) if verdict.kind in CERTAIN]
    return sorted(sorted(certain, key=place)[: judge.calibration])


def check_calibration(judge: Asking, found: Mapping[str, Any]) -> None:
    """Say how judge and rules agree on the calibration subset; JudgeError where that is below ``calibration_floor``."""
    share, n = found["agreement"]["value"], found["agreement"]["n"]
    if not n:
        return
    log.info("calibration: the judge agrees with the rules on %.1f%% of %d answers about which they are certain", 100 * share, n)
    if share < judge.calibration_floor:
        raise JudgeError(
            f"judge.calibration_floor: given {judge.calibration_floor}, found {share:.3f} of {n} answers: the rest was not "
            "judged; allowed: another judge or prompt, or a lower floor (what was judged is kept)"
        )


def majority_kind(votes: Votes) -> str:
    """The kind that most of those who replied name; a tie is unclear, and so is no reply at all."""
    counts = Counter(verdict.kind for verdict in votes if verdict.error is None).most_common(2)
    is_tie = len(counts) == 2 and counts[0][1] == counts[1][1]
    return counts[0][0] if counts and not is_tie else "unclear"


def described(judge: Judge) -> dict[str, Any]:
    """Who judged, and how they were asked."""
    if not isinstance(judge, Asking):
        return {"judges": judge.names}
    prompt = {"name": judge.prompt, "sha256": load_prompt(judge.prompt).sha256}
    return {"judges": judge.names, "prompt": prompt, "show_gold": judge.show_gold}


def summarised(votes: Sequence[Votes]) -> dict[str, Any]:
    """How many answers were judged, the share of each kind, and how many verdicts are no verdicts."""
    kinds = Counter(map(majority_kind, votes))
    every = [verdict for each in votes for verdict in each]
    return {
        "judged": len(votes),
        "kinds": {kind: {"count": kinds[kind], **wilson(kinds[kind], len(votes)).as_dict()} for kind in KINDS},
        "unreadable": sum(not verdict.is_readable and verdict.error is None for verdict in every),
        "errors": sum(verdict.error is not None for verdict in every),
    }


def between_judges(votes: Sequence[Votes], names: Sequence[str]) -> dict[str, Any] | None:
    """Agreement of the judges with each other beyond chance; None where there is only one.

    Cohen's kappa of each pair, Fleiss' over the answers that all judges replied to, Krippendorff's alpha over all.
    """
    if len(names) < 2:
        return None
    kinds = [[None if verdict.error else verdict.kind for verdict in each] for each in votes]
    complete = [each for each in kinds if None not in each]
    pairs = {}
    for one, other in itertools.combinations(range(len(names)), 2):
        both = [(each[one], each[other]) for each in kinds if each[one] is not None and each[other] is not None]
        pairs[f"{names[one]} / {names[other]}"] = cohen_kappa([a for a, _ in both], [b for _, b in both]).as_dict()
    return {
        "cohen_kappa": pairs,
        "fleiss_kappa": fleiss_kappa(complete).as_dict(),
        "krippendorff_alpha": krippendorff_alpha(kinds).as_dict(),
    }


def beside_rules(rules: Votes, votes: Sequence[Votes], names: Sequence[str]) -> dict[str, Any]:
    """The judges held against the rules, on the answers about which these are certain."""
    certain = [(rule.kind, each) for rule, each in zip(rules, votes, strict=True) if rule.kind in CERTAIN]
    replied = [(kind, each) for kind, each in certain if not all(verdict.error for verdict in each)]
    ruled, said = [kind for kind, _ in replied], [majority_kind(each) for _, each in replied]
    counts = Counter(zip(ruled, said, strict=True))

    def of_judge(i: int) -> dict[str, Any]:
        own = [(kind, each[i].kind) for kind, each in certain if not each[i].error]
        return wilson(sum(one == other for one, other in own), len(own)).as_dict()

    return {
        "uncertain": len(rules) - len(certain),
        "agreement": wilson(sum(one == other for one, other in zip(ruled, said, strict=True)), len(ruled)).as_dict(),
        "cohen_kappa": cohen_kappa(ruled, said).as_dict(),
        "by_judge": {name: of_judge(i) for i, name in enumerate(names)} if len(names) > 1 else None,
        "table": {rule: {kind: counts[rule, kind] for kind in KINDS} for rule in CERTAIN},
    }


def table(
    judge: Judge, cases: Sequence[Case], rules: Votes, votes: Sequence[Votes], first: Sequence[int] = ()
) -> list[dict[str, Any]]:
    """The rows of ``verdicts.jsonl``."""
    asking = described(judge)
    prompt = asking["prompt"]["sha256"] if "prompt" in asking else None
    return [
        {
            "id": case.id,
            "gold": case.gold,
            "answer": case.answer,
            "kind": majority_kind(each),
            "rules": rule.kind,
            "is_calibration": i in first,
            "prompt_sha256": prompt,
            "verdicts": [
                {"judge": name, "kind": v.kind, "reason": v.reason, "is_readable": v.is_readable, "error": v.error}
                for name, v in zip(judge.names, each, strict=True)
            ],
        }
        for i, (case, rule, each) in enumerate(zip(cases, rules, votes, strict=True))
    ]


def in_words(summary: Mapping[str, Any]) -> str:
    """A summary in one line for the terminal."""
    counts = ", ".join(f"{kind} {found['count']}" for kind, found in summary["kinds"].items())
    parts = [f"{summary['judged']} wrong answers judged by {', '.join(summary['judges'])}: {counts}"]
    if (rules := summary.get("rules")) and rules["agreement"]["n"]:
        share, n = rules["agreement"]["value"], rules["agreement"]["n"]
        parts.append(f"as the rules in {100 * share:.1f}% of the {n} they are certain about")
    if calls := summary.get("calls"):
        money = "" if calls["cost_usd"] is None else f", {calls['cost_usd']:.4f} US dollars"
        parts.append(f"{calls['calls']} calls, {calls['tokens']['prompt'] + calls['tokens']['completion']} tokens{money}")
    if missing := summary["unreadable"] + summary["errors"]:
        parts.append(f"{missing} verdicts unreadable or missing")
    return "; ".join(parts)
