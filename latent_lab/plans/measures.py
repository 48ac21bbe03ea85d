"""What became of the plans: whether they are written, whole and right, what they cost, and what the right one is worth."""

import logging
from collections.abc import Sequence as Seq
from dataclasses import replace
from typing import Any

from latent_lab.grading.calculator import Vocabulary
from latent_lab.grading.evaluate import Solver, rate
from latent_lab.grading.statistics import cluster_bootstrap, wilson
from latent_lab.plans.forcing import GoldPlan, WholeBlocks
from latent_lab.plans.information import by_chance, entropy, frequent, mutual_information, normalised
from latent_lab.plans.losses import losses, losses_by_kind
from latent_lab.plans.reading import Reading
from latent_lab.problems import Problem
from latent_lab.sequences import Encoded

log = logging.getLogger(__name__)

COLLAPSED = 0.5
"""Share of the gold plan's bits under which written plans have collapsed."""


def measures(
    solver: Solver, problems: Seq[Problem], encoded: Seq[Encoded], rows: Seq[dict[str, Any]], reading: Reading
) -> dict[str, Any]:
    """Of graded rows with their plans: rates with intervals, loss by role, and accuracy with the gold plan given.

    Whether a problem is right with that plan is noted in its row, ``correct_with_gold_plan``.
    """
    n = len(rows)
    with_gold = told(solver, problems, encoded, reading)
    for row, other in zip(rows, with_gold, strict=True):
        row["correct_with_gold_plan"] = other["correct"]
    writing = sum(row["plan_tokens"] > 0 for row in rows)
    is_told = reading.blocks.is_typed and reading.blocks.place != "plan_only"
    return {
        "tokens": len(reading.ids),
        "writes_any": wilson(writing, n).as_dict(),
        "well_formed": wilson(sum(row["plan_well_formed"] for row in rows), n).as_dict(),
        "same_as_gold": wilson(sum(row["plan"] == row["plan_gold"] for row in rows), n).as_dict(),
        "steps_as_gold": steps_as_gold(rows),
        "tokens_per_answer": sum(row["plan_tokens"] for row in rows) / max(n, 1),
        "loss": losses(solver, encoded),
        **({"loss_by_kind": losses_by_kind(solver, encoded, reading.blocks.plan.labels(problems))} if is_told else {}),
        "with_gold_plan": rate(with_gold),
        **information(rows),
        **({"silhouette": found} if (found := reading.blocks.plan.state.get("silhouette")) is not None else {}),
        "alarm": alarm(rows),
    }


def alarm(rows: Seq[dict[str, Any]]) -> str | None:
    """What is wrong with the plans of a model that was trained to write them, said in the log, too; None: nothing."""
    written = [kind for row in rows for kind in row["plan"]]
    gold = [kind for row in rows for kind in row["plan_gold"]]
    if not any(row["plan_tokens"] for row in rows):
        log.warning("alarm: this model was trained with planning tokens and wrote none in %d replies", len(rows))
        return "no planning token was written"
    if gold and not written:
        log.warning("alarm: planning tokens were written, and not one whole block before a step in %d replies", len(rows))
        return "no whole block was written before a step"
    if written and entropy(written) < entropy(gold) * COLLAPSED:
        log.warning("alarm: written plans hold %.2f bits, gold ones %.2f: they collapse", entropy(written), entropy(gold))
        return f"plans have collapsed: {entropy(written):.2f} bits where the gold chain has {entropy(gold):.2f}"
    return None


def steps_as_gold(rows: Seq[dict[str, Any]]) -> dict[str, Any] | None:
    """Share of the gold chain's steps announced as they are, counted in place; None where plans have no kinds."""
    hits, owners = list[float](), list[str]()
    for row in rows:
        given = [*row["plan"], *[None] * len(row["plan_gold"])]
        hits += [float(a == b) for a, b in zip(given, row["plan_gold"], strict=False)]
        owners += [row["id"]] * len(row["plan_gold"])
    return cluster_bootstrap(hits, owners).as_dict() if hits else None


def information(rows: Seq[dict[str, Any]]) -> dict[str, Any]:
    """How many bits the announced kinds hold beside the gold chain's, how many both tell of what the steps then do (``nmi``: as
    a share), and which plans are frequent.

    Empty where plans have no kinds.
    """
    written = [kind for row in rows for kind in row["plan"]]
    gold = [kind for row in rows for kind in row["plan_gold"]]
    if not gold:
        return {}
    of = {
        name: [pair for row in rows for pair in zip(row[kinds], row[steps], strict=True)]
        for name, kinds, steps in (
            ("operators", "plan", "plan_operators"),
            ("operators_of_gold", "plan_gold", "plan_gold_operators"),
        )
    }
    most = max(map(written.count, set(written)), default=0)
    return {
        "kinds": {
            "written": len(written),
            "bits": entropy(written) if written else None,
            "bits_of_gold": entropy(gold),
            "most_frequent": most / len(written) if written else None,
        },
        **{
            name: {"bits": mutual_information(pairs), "by_chance": by_chance(pairs), "nmi": normalised(pairs), "n": len(pairs)}
            if pairs
            else None
            for name, pairs in of.items()
        },
        "frequent": frequent(rows),
    }


def in_whole_blocks(solver: Solver, problems: Seq[Problem], encoded: Seq[Encoded], reading: Reading) -> dict[str, Any]:
    """What the same model scores where planning tokens can only be written in whole blocks at the beginning of lines."""
    vocabulary = Vocabulary(solver.backbone.tokenizer)
    held = replace(solver, processor=lambda _: WholeBlocks(reading.blocks, reading.ids, vocabulary))
    rows = held.graded(problems, encoded)
    well_formed = wilson(sum(row["plan_well_formed"] for row in rows), len(rows)).as_dict()
    return {"accuracy": rate(rows), "well_formed": well_formed, "steps_as_gold": steps_as_gold(rows)}


def told(solver: Solver, problems: Seq[Problem], encoded: Seq[Encoded], reading: Reading) -> list[dict[str, Any]]:
    """Graded rows of the same model with every planning token written for it as ``encoded`` has them: an oracle."""
    asked = [replace(p, question=(*p.question, *p.overview)) for p in encoded]
    vocabulary, by_id = Vocabulary(solver.backbone.tokenizer), {p.id: p for p in asked}
    return replace(solver, processor=lambda batch: GoldPlan(batch.ids, by_id, reading.ids, vocabulary)).graded(problems, asked)
