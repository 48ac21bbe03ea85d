"""From the parts of a thoughts report to the ladder: one endpoint a level, in numbers and in a sentence."""

from typing import Any

from latent_lab.thoughts.ladder import Endpoint, Thresholds, climb

SITE = "cache"
"""The exchange that the last level rests on: what a slot is remembered by; see :mod:`latent_lab.thoughts.editing`."""


def ladder(result: dict[str, Any], primary: str, kind: str, thresholds: Thresholds) -> dict[str, Any]:
    """Judge what a report holds; parts that are missing leave their levels untested."""
    parts = (decodable, position_specific, verbalisable, faithful, causal)
    return climb([part(result, primary, thresholds) for part in parts], kind, thresholds)


def percent(value: float | None) -> str:
    """A share as it is read."""
    return "-" if value is None else f"{100 * value:.1f}%"


def decodable(result: dict[str, Any], primary: str, thresholds: Thresholds) -> Endpoint:
    """L1: over all slots, a linear probe reads the field better than it learns random labels of the same steps."""
    field = result.get("probes", {}).get("fields", {}).get(primary, {}).get("all")
    if field is None or field.get("selectivity") is None:
        return Endpoint("L1", f"selectivity of the probe for '{primary}'", None, "above 0", "No probe was fitted.")
    control = field["floors"].get("control_task", {}).get("value")
    says = (
        f"A linear probe reads '{primary}' in {percent(field['value'])} of the steps; random labels of the same steps it "
        f"learns to {percent(control)}, and the best floor is {percent(field['floor'])}."
    )
    is_above = field["gain"]["low"] is not None and field["gain"]["low"] > 0
    selectivity = {**field["selectivity"], "n": field["n"]}
    return Endpoint("L1", f"selectivity of the probe for '{primary}'", selectivity, "above 0", says, (is_above,))


def position_specific(result: dict[str, Any], primary: str, thresholds: Thresholds) -> Endpoint:
    """L2: a thought holds its own step better than any other."""
    position = result.get("probes", {}).get("position")
    endpoint = f"accuracy of '{primary}' for the own step less that of the best other step"
    if position is None or position.get("value") is None:  # of one problem, or of texts without steps, there is no matrix
        return Endpoint("L2", endpoint, None, "above 0", "No matrix of slots and steps was measured.")
    says = f"A probe reads a thought's own step better than the best other one by {100 * position['value']:.1f} points."
    return Endpoint("L2", endpoint, {**position, "n": result.get("n", 0)}, "above 0", says)


def verbalisable(result: dict[str, Any], primary: str, thresholds: Thresholds) -> Endpoint:
    """L3: an oracle writes the whole step better than from another problem's thought, and than any constant guess."""
    endpoint = "steps the oracle writes exactly, above its largest floor (gain)"
    oracle = result.get("oracle") or {}
    if "gain" not in oracle.get("column_step_exact_match", {}):
        return Endpoint("L3", endpoint, None, "above 0", "No oracle was trained.")
    real = oracle["column_step_exact_match"]
    says = (
        f"An oracle writes {percent(real['value'])} of the steps exactly, where its best floor is {percent(real.get('floor'))}."
    )
    return Endpoint("L3", endpoint, {**real["gain"], "n": real["n"]}, "above 0", says)


def faithful(result: dict[str, Any], primary: str, thresholds: Thresholds) -> Endpoint:
    """L4: where the model is wrong, the oracle reports the model's value and not the true one."""
    endpoint = "reports of the model's wrong value less reports of the true one"
    agreement = result.get("agreement") or {}
    oracle = agreement.get("readers", {}).get("oracle")
    if oracle is None:
        return Endpoint("L4", endpoint, None, "above 0", "No case in which the model is wrong was read by an oracle.")
    how = " (misled by another problem's thought in an earlier slot)" if agreement["made"] else ""
    says = (
        f"In {agreement['errors']:,} steps the model got wrong{how}, the oracle reports the model's value in "
        f"{percent(oracle['model']['value'])} and the true one in {percent(oracle['gold']['value'])}."
    )
    has_enough = agreement["errors"] >= thresholds.min_errors
    reads = oracle["model"]["low"] > oracle["without"]["model"]["high"]
    threshold = f"above 0, in at least {thresholds.min_errors} cases, and above what it says without the thought"
    difference = {**oracle["difference"], "n": agreement["errors"]}
    return Endpoint("L4", endpoint, difference, threshold, says, (has_enough, reads))


def causal(result: dict[str, Any], primary: str, thresholds: Thresholds) -> Endpoint:
    """L5: exchanging one thought for another problem's moves exactly what it should, in every column."""
    endpoint = f"the worst column's target-wins less {thresholds.target_win:g}"
    threshold = (
        f"above 0; donor's whole answer at most {thresholds.competitor:g}; report and answer both move in at least "
        f"{thresholds.agreement:g}; noise in the donor's place takes at least {thresholds.corruption_drop:g} away"
    )
    exchange = result.get("interventions", {}).get("interchange", {}).get(SITE)
    columns = [column for rows in (exchange or {}).get("digits", {}).values() for column in columns_of(rows)]
    if not exchange or not columns:
        return Endpoint("L5", endpoint, None, threshold, "No exchange with a known outcome was made.")
    worst = min(columns, key=lambda column: column["target"]["value"])
    rival = max(column["donor"]["value"] for column in columns)
    least = thresholds.target_win
    difference = {key: worst["target"][key] - least for key in ("value", "low", "high")} | {"n": worst["n"]}
    drop = (exchange.get("necessity") or {}).get("drop")
    together = (result.get("agreement") or {}).get("exchange", {}).get("both", {}).get("value")
    says = (
        f"Another problem's thought in one slot moves exactly that digit of the answer: in {percent(worst['target']['value'])} "
        f"of the exchanges of the worst column (slot {worst['slot']}); the donor's whole answer in at most {percent(rival)}."
    )
    conditions = (
        rival <= thresholds.competitor,
        drop is not None and drop >= thresholds.corruption_drop,
        together is not None and together >= thresholds.agreement,
    )
    return Endpoint("L5", endpoint, difference, threshold, says, conditions)


def columns_of(rows: dict[str, Any]) -> list[dict[str, Any]]:
    """Of the rows of one number of digits, by column from 0, those that are columns, each with its slot from 1."""
    return [{"slot": int(column) + 1, **row} for column, row in rows.items() if column.isdecimal()]
