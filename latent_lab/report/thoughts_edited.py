"""The tables of the page about thoughts that answer whether they can be edited."""

from collections.abc import Iterator
from typing import Any

from latent_lab.report.thoughts_cells import NOTHING, Row, Table, flat_table, is_number, share, shown, value, words
from latent_lab.report.thoughts_claims import columns_of

SITES = {"cache": "keys and values", "thought": "the thought fed in", "residual": "the state after a block"}
"""Where a column is exchanged, in words."""
WAYS = {"commuted": "b + a for a + b", "commuted_column": "two digits of the column"}
SAID = {
    "operands": "operands as they were",
    "exchanged": "operands exchanged",
    "total": "the total",
    "write": "the digit",
}
"""What readers are held to before and after, in words."""
TITLES = {
    "groups": "Thoughts exchanged within and across groups",
    "subspace": "Directions taken out of thoughts, beside random ones",
    "steer": "Thoughts moved from one value to another",
    "tracing": "What a donor's states restore, place by place",
}
SHOWN_APART = ("clean", "whole", "num_thoughts", "early_exit", "interchange", "commuted", "n", "slots", "feeds")
"""Keys of interventions that have a table of their own, or need none."""


def interchange(result: dict[str, Any]) -> Iterator[Table]:
    """T6: one column of another problem's thinking put in; all columns together by what is exchanged, then column by column."""
    sites = result.get("interventions", {}).get("interchange", {})
    head = ("the composed target", "the donor's answer", "stays as it was", "n")
    whole = [Row(site_name(site), outcome(each["all"])) for site, each in sites.items() if each.get("all")]
    chances = sorted({each["chance"] for each in sites.values() if each.get("chance") is not None})
    if whole and chances:
        whole.append(Row("chance", (" to ".join(map(share, chances)), *[NOTHING] * 3), "floor"))
    title = "One column exchanged for a donor's: what the answer becomes, in %"
    yield Table(title, ("what is exchanged", *head), tuple(whole))
    for site, each in sites.items():
        rows = [Row(f"thought {column.get('slot', k + 1)}", outcome(column)) for k, column in enumerate(each.get("columns", []))]
        title = f"Column by column ({site_name(site)}): what the answer becomes, in %"
        yield Table(title, ("column", *head), tuple(rows), is_detail=bool(whole))


def commuted(result: dict[str, Any]) -> Iterator[Table]:
    """The control of those exchanges: the donor is the same sum with its operands exchanged, so nothing may change."""
    given = result.get("interventions", {}).get("commuted", {})
    rows = []
    for way, name in WAYS.items():
        for site, table in given.get(way, {}).items():
            worst = min((row for part in by_digits(table) for row in columns_of(part)), key=lambda row: value(row["keep"]))
            whole = table["overall"]
            rows.append(Row(f"{name}: {site_name(site)}", (shown(whole["keep"]), shown(worst["keep"]), f"{whole['n']:,}")))
    title = "One column exchanged with that of the same sum, its operands exchanged: the answer stays, in %"
    yield Table(title, ("donor", "stays as it was", "in the weakest column", "n"), tuple(rows))
    read = [
        Row(f"{reader}, {when}", tuple(shown(scores.get(key)) for key in SAID))
        for reader, each in given.get("readers", {}).items()
        for when, scores in each.items()
    ]
    note = (
        "Before: the column's own thought; after: the donor's. Where the order follows, operands are read; where only total "
        "and digit stay right, a result."
    )
    yield Table("What readers say of a column whose operands are exchanged, in %", ("reader", *SAID.values()), tuple(read), note)


def by_digits(table: dict[str, Any]) -> list[dict[str, Any]]:
    """The parts of a table of exchanges, one a number of digits."""
    return [part for key, part in table.items() if key.startswith("digits=")]


def site_name(site: str) -> str:
    """A place of exchange in words."""
    kind, _, block = site.partition("_")
    return f"the state after block {block}" if kind == "residual" and block.isdecimal() else SITES.get(site, words(site))


def outcome(column: dict[str, Any]) -> tuple[str, ...]:
    """What answers became, in percent, and of how many."""
    count = column.get("n", (column.get("target") or {}).get("n") if isinstance(column.get("target"), dict) else None)
    return (*(shown(column.get(key)) for key in ("target", "donor", "keep")), f"{count:,}" if is_number(count) else NOTHING)


def others(result: dict[str, Any]) -> Iterator[Table]:
    """T6: group patching, subspace edits, and whatever else was measured."""
    for key, each in result.get("interventions", {}).items():
        if key not in SHOWN_APART:
            yield flat_table(TITLES.get(key, words(key).capitalize()), each)
