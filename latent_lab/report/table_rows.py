"""The rows of a table: what the seeds of a group amount to, with intervals; and the table as Markdown. Pure functions."""

from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import Any

from latent_lab.grading.statistics import t_interval, wilson

OVER_SEEDS, OVER_PROBLEMS = "over seeds", "over problems"
FLOORS = {
    "thoughts_removed": "thoughts removed",
    "majority": "majority",
    "thoughts_zeroed": "zeroed",
    "thoughts_another_problem": "another problem's",
}
"""Headings of the floors, in the order of their columns."""
NOTHING = "-"


def row(
    label: str, runs: Sequence[str], seeds: Sequence[int], graded: Sequence[dict[str, Any]], trained: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """One row: runs of the same settings, ``graded`` on the same problems, each beside what its training ended with.

    With one seed the interval is Wilson's, over problems. With more it is a t-interval of the seeds' accuracies; Wilson's over
    the answers of all seeds (``pooled``) stands beside it, and takes the same problem answered by two seeds for two problems.
    Where all seeds score the same, as at 100%, seeds tell of no spread, and the pooled interval stands for both.
    """
    scores = [result["accuracy"] for result in graded]
    rates = [score["value"] for score in scores]
    total = sum(score["n"] for score in scores)
    pooled = wilson(sum(round(score["value"] * score["n"]) for score in scores), total)
    interval, kind = (pooled, OVER_PROBLEMS) if len(set(rates)) == 1 else (t_interval(rates), OVER_SEEDS)
    floors = {name: fmean(result["floors"][name]["value"] for result in graded) for name in graded[0]["floors"]}
    return {
        "label": label,
        "kind": "model",
        "runs": list(runs),
        "seeds": list(seeds),
        "n": scores[0]["n"],
        "accuracy": {
            "mean": fmean(rates),
            "low": interval.low,
            "high": interval.high,
            "interval": kind,
            "per_seed": rates,
            "pooled": pooled.as_dict(),
        },
        "floors": floors,
        "thoughts_removed": floors.get("thoughts_removed"),
        "with_gold_plan": with_gold_plan(graded),
        "tokens": fmean(result["tokens_per_answer"] for result in graded),
        "thoughts": fmean(result["thoughts_per_answer"] for result in graded),
        **{name: fmean(result[name] for result in trained) for name in ("seconds", "steps", "parameters")},
    }


def with_gold_plan(graded: Sequence[dict[str, Any]]) -> float | None:
    """Mean accuracy of the same models with the gold plan given, an oracle; None where some wrote no plan."""
    rates = [result["plans"]["with_gold_plan"]["value"] for result in graded if "plans" in result]
    return fmean(rates) if len(rates) == len(graded) else None


def rule_row(name: str, score: dict[str, Any]) -> dict[str, Any]:
    """The row of a rule that scores without reasoning: an accuracy, and nothing of what only models have."""
    accuracy = {"mean": score["value"], "low": score["low"], "high": score["high"], "interval": OVER_PROBLEMS}
    alone = dict.fromkeys(("thoughts_removed", "with_gold_plan", "tokens", "thoughts", "seconds", "steps", "parameters"))
    return {
        "label": name.replace("_", " "),
        "kind": "rule",
        "runs": [],
        "seeds": [],
        "n": score["n"],
        "accuracy": {**accuracy, "per_seed": [], "pooled": None},
        "floors": {},
        **alone,
    }


def markdown(result: dict[str, Any], command: str, more: Sequence[str] = ()) -> str:
    """The table in GitHub's Markdown, below it what its numbers are, and ``more`` lines."""
    rows = result["rows"]
    names = floors_of(rows)
    floors = [f"{FLOORS.get(name, name.replace('_', ' '))}, %" for name in names]
    head = ["method", "seeds", "accuracy, % [95% interval]", "all seeds pooled", "min-max", *floors]
    is_told = any(each["with_gold_plan"] is not None for each in rows)
    head += [*(["gold plan given, %"] if is_told else []), "tokens", "thoughts", "seconds"]
    lines = grid(head, [cells_of(each, names, is_told) for each in rows])
    return "\n".join([*lines, "", *notes(result), "", *more, f"    {command}", ""])


def grid(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A table in GitHub's Markdown, line by line: the first column to the left, numbers to the right."""
    first, *others = ["| " + " | ".join(cells) + " |" for cells in (head, *rows)]
    return [first, "|---|" + "---:|" * (len(head) - 1), *others]


def floors_of(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The floors that some row has, in the order of the table."""
    there = dict.fromkeys(name for each in rows for name in each["floors"])
    return [name for name in (*FLOORS, *(name for name in there if name not in FLOORS)) if name in there]


def cells_of(each: dict[str, Any], floors: Sequence[str], is_told: bool = False) -> list[str]:
    """The cells of a row; ``is_told``: one of them is the accuracy with the gold plan given."""
    accuracy, pooled = each["accuracy"], each["accuracy"]["pooled"]
    rates, is_one = accuracy["per_seed"], len(accuracy["per_seed"]) < 2
    label = each["label"].replace("|", "\\|")
    return [
        f"`{label}`" if each["kind"] == "model" else f"rule: {label}",
        str(len(each["seeds"]) or NOTHING),
        f"{percent(accuracy['mean'])} {between(accuracy)} {accuracy['interval']}",
        NOTHING if is_one else between(pooled),
        NOTHING if is_one else f"{percent(min(rates))}-{percent(max(rates))}",
        *(percent(each["floors"].get(name)) for name in floors),
        *([percent(each["with_gold_plan"])] if is_told else []),
        *(NOTHING if each[name] is None else f"{each[name]:.1f}" for name in ("tokens", "thoughts")),
        NOTHING if each["seconds"] is None else f"{each['seconds']:,.0f}",
    ]


def percent(rate: float | None) -> str:
    """A rate in percent."""
    return NOTHING if rate is None else f"{100 * rate:.1f}"


def between(interval: dict[str, Any]) -> str:
    """The two ends of an interval, in percent."""
    return f"[{percent(interval['low'])}, {percent(interval['high'])}]"


def notes(result: dict[str, Any]) -> list[str]:
    """What a reader of the table must know."""
    there = {each["accuracy"]["interval"] for each in result["rows"]}
    has_rules = any(each["kind"] == "rule" for each in result["rows"])
    is_told = any(each["with_gold_plan"] is not None for each in result["rows"])
    partial = " (for rules that earn parts of a point: a bootstrap)" if has_rules else ""
    kinds = {
        OVER_SEEDS: f"*{OVER_SEEDS}*, a t-interval of the seeds' accuracies; pooled, Wilson's over the answers of all seeds",
        OVER_PROBLEMS: f"*{OVER_PROBLEMS}*, Wilson's, where seeds show no spread{partial}",
    }
    return [
        f"{result['n']:,} {result['split']} problems of {result['dataset']}. Accuracy: free-running answers, mean over seeds. "
        f"95% intervals: {'; '.join(text for kind, text in kinds.items() if kind in there)}. Floors: means over seeds, on the "
        "same problems. Tokens: written per answer. Thoughts: latent ones per answer. Seconds: of training, without the runs "
        "that it began from." + (" Gold plan given: its tokens are written for the same models, an oracle." if is_told else "")
    ]


def in_words(each: dict[str, Any]) -> str:
    """A row in one line for the terminal."""
    accuracy = each["accuracy"]
    said = f"{each['label']}: {percent(accuracy['mean'])}% {between(accuracy)} {accuracy['interval']}"
    if each["kind"] == "rule":
        return f"rule {said}"
    floors = ", ".join(f"{FLOORS.get(name, name)} {percent(value)}%" for name, value in each["floors"].items())
    return f"{said}, {len(each['seeds'])} x {each['n']:,} answers; floors: {floors or 'none'}"
