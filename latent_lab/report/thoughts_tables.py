"""The tables of the page about thoughts: each part of a ``task=thoughts`` result as rows of text, under the question it answers.

What a result lacks leaves its table out. Shares are written in percent with their 95% intervals.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from latent_lab.report.thoughts_cells import (
    MOST_ROWS,
    NOTHING,
    Row,
    Table,
    as_text,
    bare,
    by_slot,
    flat_table,
    is_number,
    number,
    share,
    shown,
    value,
    words,
)
from latent_lab.report.thoughts_edited import commuted, interchange, others
from latent_lab.report.wording import plain

BESIDE = {"input": "from the question", "control_task": "random labels"}
"""What stands beside a probe's floors and is none."""
NOTES = "From the question: such a probe of the question instead of the thought. Random labels: such a probe asked for those."
FORETOLD = {"wrong": "the answer will be wrong", "digit": "the answer will have this digit here"}
SOURCES = {"real": "the thought itself"}
CONTROLS = {
    "removed": "the model, its thoughts removed",
    "zeroed": "the model, its thoughts set to zero",
    "another_problem": "the model, with the thoughts of another problem",
    "majority": "always the most frequent answer",
}
"""Floors of the answers, in words."""


def tables(result: dict[str, Any], examples: Sequence[dict[str, Any]] = ()) -> dict[str, list[Table]]:
    """The tables by the part of the page they belong to: ``read``, ``where``, ``used``, ``edited``, ``failed`` and ``data``."""
    parts: dict[str, tuple[Callable[[dict[str, Any]], Iterator[Table]], ...]] = {
        "read": (oracle, probes, lenses, geometry),
        "where": (matrix,),
        "used": (accuracy, necessity, whole, agreement, frontier),
        "edited": (interchange, commuted, others),
        "data": (data,),
    }
    found = {part: [table for make in makers for table in make(result) if table.rows] for part, makers in parts.items()}
    return found | {"failed": [table for table in failed(examples) if table.rows]}


def oracle(result: dict[str, Any]) -> Iterator[Table]:
    """T5: every source the oracle was given, its fields beside their floors, bits, and what is left."""
    given = result.get("oracle", {})
    sources, floors = given.get("sources", {}), given.get("floors", {})
    named = list(dict.fromkeys(field for each in sources.values() for field in each.get("fields", {})))
    kind = f" ({given['kind']})" if "kind" in given else ""
    if given and "real" not in sources:
        sources = {"real": {**given, "bits": None}} | sources
    rows = [
        Row(
            SOURCES.get(name, words(name)),
            (
                shown(each.get("column_step_exact_match")),
                shown(each.get("step_exact_match")),
                *(shown(bare(each.get("fields", {}).get(field))) for field in named),
                number(each.get("bits")),
                shown(each.get("invalid")),
            ),
            "model" if name == "real" else "",
        )
        for name, each in sources.items()
    ]
    rows += [
        Row(
            words(name),
            (shown(each.get("column_step_exact_match")), shown(each.get("step_exact_match")), *[NOTHING] * (len(named) + 2)),
            "floor",
        )
        for name, each in floors.items()
        if name not in sources
    ]
    yield Table(
        f"The oracle{kind}: what it writes of each source of vectors, exact in %",
        ("source", "column steps", "all steps", *map(words, named), "bits", "invalid"),
        tuple(rows),
        "Column steps leave out the step that a constant guess gets right too often. All sources but the first are controls. "
        "Bits are read out of each step; invalid is what is no step at all.",
    )
    yield Table("The oracle beside a linear probe, on the same column steps, in %", *beside_probe(given))
    yield fields_table("The oracle, field by field, in %", given.get("fields", {}))
    bits = given.get("bits", {})
    yield Table(
        "What the oracle's words cost: bits a field, over the field's values",
        ("field", "with the thought", "with none", "with another problem's", "read"),
        tuple(
            Row(words(f), tuple(number(each.get(k)) for k in ("ce_real", "ce_none", "ce_shuffled", "value")))
            for f, each in bits.items()
        ),
        is_detail=True,
    )
    yield yes_or_no(given)
    rest = {key: given[key] for key in ("answer", "calibration", "by_slot") if given.get(key)}
    yield flat_table("The oracle: the answer, calibration, slot by slot", rest, is_detail=True)


def beside_probe(given: dict[str, Any]) -> tuple[tuple[str, ...], tuple[Row, ...], str]:
    """Head, rows and note: a step counts as read by a probe of the thought where all its fields are right."""
    above, own = given.get("above_probe") or {}, shown(given.get("column_step_exact_match"))
    rows = [
        Row("the oracle", (own, f"{above['n']:,}"), "model"),
        Row("a linear probe", (shown(above["probe"]), f"{above['n']:,}")),
        Row("the oracle less the probe", (shown(above), f"{above['n']:,}")),
    ] if above else []  # fmt: skip
    return ("reader", "exact", "n"), tuple(rows), "A probe reads a step where all its fields are right, without words of its own."


def yes_or_no(given: dict[str, Any]) -> Table:
    """Statements that the oracle was asked about, of steps and of the answer to come, each beside its best floor."""
    stated = {words(name): each for name, each in given.get("yes_no", {}).items()}
    stated |= {FORETOLD.get(kind, kind): each for kind, each in sorted(given.get("foretold", {}).items())}
    ranks = ("real", "shuffled", "text_only") if given.get("foretold") else ()  # steps are not asked for these
    rows = []
    for name, each in stated.items():
        more = (shown(each.get("from_text")), *(number(each.get("auc", {}).get(source)) for source in ranks))
        rows.append(Row(name, (shown(each), best_floor(each), *(more if ranks else ()), f"{each['n']:,}")))
    beside = ("from the question", "AUC", "another's thoughts", "from the question") if ranks else ()
    head = ("statement", "right", "best floor", *beside, "n")
    note = "Each statement is true as often as not, and no question holds its answer: chance is 50%, and an AUC of 0.5. "
    note += " ".join(f"Not asked: {name}; {each['why']}." for name, each in stated.items() if "why" in each)
    return Table("Yes or no? What the oracle says of statements, in %", head, tuple(rows), note)


def probes(result: dict[str, Any]) -> Iterator[Table]:
    """T4: linear probes, field by field, and on the vectors of other sources."""
    given = result.get("probes", {})
    fields = dict(given.get("fields", {}))
    if value(given.get("whole_step")) >= 0:
        fields["whole step"] = given["whole_step"]
    yield fields_table(f"Linear probes of layer {given.get('layer', 0)}, field by field, in %", fields)
    sources = {name: each for name, each in given.get("sources", {}).items() if isinstance(each, dict)}
    named = list(dict.fromkeys(field for each in sources.values() for field in each.get("fields", {})))
    rows = []
    for name, each in sources.items():
        cells = [shown(each.get("whole_step")), *(shown(bare(each.get("fields", {}).get(field))) for field in named)]
        rows.append(Row(SOURCES.get(name, words(name)), tuple(cells), "model" if name == "real" else ""))
    title = "The same probes on vectors of each source, exact in %"
    yield Table(title, ("source", "whole step", *map(words, named)), tuple(rows), is_detail=True)


def fields_table(caption: str, fields: dict[str, Any]) -> Table:
    """Scores of fields beside floors, gain, and what else was measured of them."""
    fields = {name: each for name, each in fields.items() if isinstance(each, dict)}
    beside = [name for name in BESIDE if any(name in each.get("floors", {}) for each in fields.values())]
    extra = {"gain": "share of the room won", "selectivity": "selectivity", "bits": "bits"}
    extra = {key: title for key, title in extra.items() if any(key in each for each in fields.values())}
    rows = []
    for name, each in fields.items():
        floors = each.get("floors", {})
        others = [shown(bare(floors.get(key))) for key in beside]
        more = [number(each.get(key)) if key == "bits" else shown(each.get(key)) for key in extra]
        count = f"{each['n']:,}" if is_number(each.get("n")) else NOTHING
        rows.append(Row(words(name), (shown(each), best_floor(each), *others, *more, count)))
    titles = (*(BESIDE[key] for key in beside), *extra.values())
    return Table(caption, ("field", "exact", "best floor", *titles, "n"), tuple(rows), NOTES if beside else "")


def best_floor(score: dict[str, Any]) -> str:
    """The floor that a score is held against, with its name; what knows the problem, or asks something else, is none."""
    floors = {name: value(floor) for name, floor in score.get("floors", {}).items() if name not in BESIDE and value(floor) >= 0}
    most = value(score["floor"]) if value(score.get("floor")) >= 0 else max(floors.values(), default=-1.0)
    names = [name for name, floor in floors.items() if abs(floor - most) < 1e-9]
    return (share(most) + (f" ({words(names[0])})" if names else "")) if most >= 0 else NOTHING


def lenses(result: dict[str, Any]) -> Iterator[Table]:
    """T3: for each lens and field the slot and layer that are read best, beside the floor of the same place."""
    rows = []
    for lens, each in result.get("lenses", {}).items():
        for field, found in each.get("fields", {}).items():
            hits = found.get("hit1", [])
            places = [(value(hit), s, k) for s, line in enumerate(hits) for k, hit in enumerate(line) if value(hit) >= 0]
            if not places:
                continue
            best, slot, at = max(places, key=lambda place: (place[0], -place[1], -place[2]))
            layers = found.get("layers", each.get("layers", range(at + 1)))
            cells = (str(slot + 1), str(layers[at]), share(best), cell(found.get("floor_hit1"), slot, at, shown))
            rows.append(Row(f"{words(lens)}: {words(field)}", (*cells, cell(found.get("mrr"), slot, at, number))))
    head = ("lens and field", "thought", "layer", "first guess right", "of another problem", "mean reciprocal rank")
    yield Table(
        "Lenses, where each reads best, in %",
        head,
        tuple(rows),
        "Of all places the best one is shown: a floor chosen likewise would be higher.",
        is_detail=len(rows) > MOST_ROWS,
    )
    for lens, each in result.get("lenses", {}).items():
        if each.get("sources"):
            yield lens_sources(lens, each)


def lens_sources(lens: str, given: dict[str, Any]) -> Table:
    """What a lens finds in the vectors of each source: of each field hit@1 over all slots, in the real thoughts' best layer."""
    fields = {field: scores["hit1"]["value"] for field, scores in given["sources"].get("real", {}).get("fields", {}).items()}
    best = {field: [value(hit) for hit in line].index(max(map(value, line))) for field, line in fields.items() if line}
    rows = []
    for name, each in given["sources"].items():
        hits = {field: each["fields"][field]["hit1"] for field in best if field in each["fields"]}
        cells = [
            f"{shown(hits[f]['value'][k])} (gain {shown(hits[f]['gain'][k])})" if f in hits else NOTHING for f, k in best.items()
        ]
        rows.append(Row(SOURCES.get(name, words(name)), tuple(cells), "model" if name == "real" else ""))
    head = ("source", *(f"{words(field)}, layer {given['layers'][k]}" for field, k in best.items()))
    missing = "; ".join(f"{words(name)}: {why}" for name, why in given.get("sources_left_out", {}).items())
    note = f"The layer is the best one of the real thoughts; the gain is over another problem's step. Left out: {missing}."
    return Table(f"{words(lens)} on vectors of each source, first guess right in %", head, tuple(rows), note, is_detail=True)


def cell(grid: Any, slot: int, at: int, write: Callable[[Any], str]) -> str:
    """A cell of a grid, which may not exist."""
    return write(grid[slot][at]) if grid and slot < len(grid) and at < len(grid[slot]) else NOTHING


def geometry(result: dict[str, Any]) -> Iterator[Table]:
    """How long thoughts are, how alike, in how many directions they vary, and how far from any word."""
    given = result.get("geometry", {})
    names = ("norm", "mean_share", "cosine", "participation", "nearest", "nearest_random", "nearest_cosine")
    rows = [Row(f"thought {each['slot']}", tuple(number(each.get(name)) for name in names)) for each in given.get("slots", [])]
    head = ("length", "share of the mean", "cosine with another problem's", "directions", "to the nearest word", "of noise",
            "cosine with a word")  # fmt: skip
    note = f"Directions: participation ratio, at most {given.get('width')}. Words: input embeddings, in the mean "
    note += f"{number(given.get('word_norm'))} long. Noise: Gaussian, as long as the thought. Share: of the squared length."
    yield Table("The geometry of thoughts", ("thought", *head), tuple(rows), note)


def matrix(result: dict[str, Any]) -> Iterator[Table]:
    """Accuracy of a probe for every pair of thought and step, field by field."""
    for field, each in result.get("probes", {}).get("matrix", {}).items():
        lines = each.get("value", [])
        head = ("thought", *(f"step {j + 1}" for j in range(max(map(len, lines), default=0))))
        rows = tuple(Row(str(k + 1), tuple(map(shown, line))) for k, line in enumerate(lines))
        yield Table(f"{words(field)}: exact in %", head, rows, is_detail=True)


def accuracy(result: dict[str, Any]) -> Iterator[Table]:
    """T1: the model's own answers beside floors."""
    rows = [Row("the model, with its thoughts", (shown(result["accuracy"]),), "model")]
    rows += [Row(CONTROLS.get(name, words(name)), (shown(floor),), "floor") for name, floor in result.get("floors", {}).items()]
    yield Table("Answers, exact in %", ("method", "exact"), tuple(rows))


def necessity(result: dict[str, Any]) -> Iterator[Table]:
    """T2: accuracy by the number of thoughts, and of an answer forced early."""
    given = result.get("interventions", {})
    counts = given.get("num_thoughts", {})
    rows = tuple(Row(str(count), (shown(score),)) for count, score in sorted(counts.items(), key=lambda item: int(item[0])))
    yield Table("Answers by the number of thoughts, exact in %", ("thoughts", "exact"), rows, is_detail=True)
    yield flat_table("Answers forced early", given.get("early_exit"), is_detail=True)


def whole(result: dict[str, Any]) -> Iterator[Table]:
    """T6: what becomes of the answer when all thoughts, or one of them, are replaced or removed."""
    kinds = result.get("interventions", {}).get("whole", {})
    most = max((len(by_slot(each)) for each in kinds.values()), default=0)
    rows = []
    for kind, each in kinds.items():
        everywhere, slots = each.get("all", {}), by_slot(each)
        cells = [shown(everywhere.get("accuracy")), shown(everywhere.get("flips")), number(everywhere.get("kl"))]
        cells += [shown(bare(slot.get("accuracy"))) for slot in slots] + [NOTHING] * (most - len(slots))
        rows.append(Row(words(kind), tuple(cells)))
    head = ("done to thoughts", "all: exact", "all: changed", "all: bits", *(f"only {k + 1}: exact" for k in range(most)))
    note = "Changed: answers that are no longer what they were. Bits: divergence of the first answer token."
    yield Table("Thoughts taken away, all or one by one, in %", head, tuple(rows), note)


def agreement(result: dict[str, Any]) -> Iterator[Table]:
    """T7: whether reports follow the model where it is wrong."""
    yield flat_table("Readings and answers: do they agree where the model is wrong?", result.get("agreement"))


def frontier(result: dict[str, Any]) -> Iterator[Table]:
    """Graphs: inner products of thoughts with nodes, and attention on edges, group by group."""
    given = result.get("frontier") or {}
    for key, title in (("groups", "Thoughts and nodes: mean inner product"), ("attention", "Thoughts and edges: attention mass")):
        groups = given.get(key, {})
        most = max((len(line) for line in groups.values() if isinstance(line, list)), default=0)
        rows = tuple(Row(words(name), tuple(map(number, line))) for name, line in groups.items() if isinstance(line, list))
        yield Table(title, ("group", *(f"thought {k + 1}" for k in range(most))), rows)


def data(result: dict[str, Any]) -> Iterator[Table]:
    """T0 and T9: what was stored, of which weights and problems, and how long it took."""
    store, training = result.get("store", {}), result.get("training", {})
    rows = [Row("problems graded", (f"{result['n']:,} ({result['split']})",))]
    rows += [Row(f"store: {words(key)}", (as_text(each),)) for key, each in store.items()]
    rows += [Row(f"training: {words(key)}", (as_text(each),)) for key, each in training.items()]
    if is_number(result.get("minutes")):
        rows.append(Row("minutes in all", (plain(result["minutes"]),)))
    yield Table("Data and cost", ("what", "value"), tuple(rows))


def failed(examples: Sequence[dict[str, Any]], most: int = 20) -> Iterator[Table]:
    """T10: the first readings of the explorer's problems that are wrong."""
    rows = []
    for example in examples:
        for slot in example.get("slots", []):
            for reading in slot.get("readings", []):
                if not reading.get("right") and slot.get("gold"):
                    says = (reading.get("text") or NOTHING, slot["gold"], shown(reading.get("confidence")))
                    name = f"{example['question']} thought {slot['slot']}, {reading['reader']}"
                    rows.append(Row(name, (*says, str(example.get("answer")), str(example.get("gold")))))
    head = ("problem, thought, reader", "reading", "step", "confidence, %", "the model's answer", "right")
    yield Table(
        "Readings that were wrong", head, tuple(rows[:most]), f"The first {most} of {len(rows)}." if len(rows) > most else ""
    )
