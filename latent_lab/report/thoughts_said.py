"""The sentences of the page about thoughts: four questions, each answered by one sentence made from the numbers of a result.

A question that nothing was measured for has no answer. "Yes" is said only where an interval lies clear of every floor beside it.
"""

from dataclasses import dataclass
from typing import Any

from latent_lab.report.thoughts_cells import by_slot, is_number, share, shown, value, words
from latent_lab.report.thoughts_claims import SITE, columns_of
from latent_lab.report.thoughts_edited import site_name
from latent_lab.thoughts.ladder import Thresholds

DONE = {
    "remove": "removed",
    "zero": "set to zero",
    "mean": "replaced by their means",
    "transplant": "replaced by another problem's",
}
"""What is done to thoughts, in words."""


@dataclass(frozen=True, slots=True)
class Said:
    """An answer: ``yes``, ``in part`` or ``not shown``, and the sentence with the numbers it rests on."""

    verdict: str
    sentence: str


def answers(result: dict[str, Any]) -> dict[str, Said]:
    """The answers by part of the page (``read``, ``where``, ``used``, ``edited``); what was not measured is left out."""
    found = {"read": can_be_read(result), "where": which_step(result), "used": is_used(result), "edited": can_be_edited(result)}
    return {part: said for part, said in found.items() if said}


def can_be_read(result: dict[str, Any]) -> Said | None:
    """Whether the oracle, or else a probe, reads more than its best floor."""
    oracle = result.get("oracle", {})
    for key, what in (("column_step_exact_match", "column steps"), ("step_exact_match", "steps")):
        score = oracle.get(key)
        if value(score) < 0:
            continue
        floors = {name: each[key] for name, each in oracle.get("floors", {}).items() if value(each.get(key)) >= 0}
        best = max(floors, key=lambda name: value(floors[name]), default=None)
        beside = f"; the best floor, {words(best)}, reaches {shown(floors[best])}%" if best else "; no floor was measured"
        verdict = "yes" if best and is_above(score, floors[best]) else "not shown"
        return Said(verdict, f"The oracle writes {shown(score)}% of the {what} exactly as they are{beside}.")
    fields = {name: each for name, each in result.get("probes", {}).get("fields", {}).items() if value(each) >= 0}
    if not fields:
        return None
    above = [name for name, each in fields.items() if is_above(each, each.get("floor"))]
    clearest = max(fields, key=lambda name: value(fields[name].get("gain") or {"value": value(fields[name])}))
    best = fields[clearest]
    verdict = "yes" if len(above) == len(fields) else "in part" if above else "not shown"
    floor = f"; its best floor reaches {shown(best['floor'])}%" if best.get("floor") is not None else ""
    return Said(
        verdict,
        f"A linear probe reads {len(above)} of {len(fields)} fields above their floors, most clearly {words(clearest)}: "
        f"{shown(best)}%{floor}.",
    )


def which_step(result: dict[str, Any]) -> Said | None:
    """Whether thought k holds step k more than any other step."""
    probes = result.get("probes", {})
    position = probes.get("position")
    if not position or any(not is_number(position.get(key)) for key in ("value", "low", "high")):
        return None
    points = f"{share(position['value'])} points [{share(position['low'])}, {share(position['high'])}]"
    order = [at for at in probes.get("order", []) if is_number(at)]
    in_order = order == list(range(1, len(order) + 1))
    best = "" if in_order else f" The steps read best in thoughts 1 to {len(order)} are {', '.join(map(str, order))}."
    if position["low"] > 0:
        return Said("yes", f"Thought k holds step k: a probe reads it {points} better there than the best other step.{best}")
    return Said(
        "not shown", f"No thought is tied to its own step: read there and of the best other step differ by {points}.{best}"
    )


def is_used(result: dict[str, Any]) -> Said | None:
    """Whether answers get worse when thoughts are taken away, and which one matters most."""
    given = result.get("interventions", {})
    clean, whole = given.get("clean") or result.get("accuracy"), given.get("whole", {})
    kinds = {kind: each["all"]["accuracy"] for kind, each in whole.items() if value(each.get("all", {}).get("accuracy")) >= 0}
    name = next((kind for kind in ("remove", "removed", "zero", "zeroed", *kinds) if kind in kinds), None)
    if name is None or value(clean) < 0:
        return None
    score = kinds[name]
    verdict = "yes" if is_above(clean, score) else "not shown"
    sentence = f"With all thoughts {DONE.get(name, words(name))}, right answers go from {shown(clean)}% to {shown(score)}%"
    slots = [value(slot.get("accuracy")) for slot in by_slot(whole[name])]
    slots = [each for each in slots if each >= 0]
    if slots:
        sentence += f"; of single thoughts, number {slots.index(min(slots)) + 1} costs most, down to {share(min(slots))}%"
    return Said(verdict, sentence + ".")


def can_be_edited(result: dict[str, Any]) -> Said | None:
    """Whether the answer follows a donor's thought, digit by digit, and by nothing else.

    Judged as the ladder's last level is: at its site, by its thresholds, in the worst column of every length.
    """
    exchange = result.get("interventions", {}).get("interchange", {}).get(SITE)
    if not exchange or value((exchange.get("all") or {}).get("target")) < 0:
        return None
    target, donor, chance = exchange["all"]["target"], exchange["all"].get("donor"), exchange.get("chance", 0.0)
    limits = Thresholds(**(result.get("ladder") or {}).get("thresholds", {}))
    every = [column for rows in exchange.get("digits", {}).values() for column in columns_of(rows)] or exchange["columns"]
    worst = min((column["target"] for column in every), key=value, default=target)
    is_alone = donor is None or value(donor) <= limits.competitor
    verdict = "yes" if lowest(worst) >= limits.target_win and is_alone else "in part" if lowest(target) > chance else "not shown"
    beside = f", the donor's whole answer in {shown(donor)}%" if donor is not None else ""
    return Said(
        verdict,
        f"With one column exchanged for a donor's ({site_name(SITE)}), the answer becomes the composed target in "
        f"{shown(target)}% of the cases (in the weakest column {share(value(worst))}%){beside}; chance is {shown(chance)}%.",
    )


def lowest(score: Any) -> float:
    """The lower end of a score's interval; of a bare number itself."""
    low = score.get("low") if isinstance(score, dict) else None
    return value(score) if low is None else float(low)


def is_above(score: Any, floor: Any) -> bool:
    """Whether a score's interval lies above a floor's, or above a bare number."""
    if value(score) < 0 or value(floor) < 0:
        return False
    high = floor.get("high") if isinstance(floor, dict) else None
    return bool(lowest(score) > (value(floor) if high is None else high))
