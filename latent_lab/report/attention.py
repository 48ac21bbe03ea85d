"""What ``task=attention`` does: every head measured, a table, a figure, and what all heads amount to."""

import csv
import io
import logging
import time
from typing import Any

import numpy as np

from latent_lab.files import atomic
from latent_lab.grading.session import session
from latent_lab.grading.statistics import bootstrap
from latent_lab.grading.task import Answers
from latent_lab.job import Job
from latent_lab.plans.attention import Masses, masses
from latent_lab.plans.base import PlanError
from latent_lab.report.attention_figure import draw
from latent_lab.report.attention_task import AttentionTask
from latent_lab.run import say_complete

log = logging.getLogger(__name__)

TABLE, FIGURE = "heads.csv", "heads.png"
RESAMPLES = 1000
"""Of the problems, for the interval of each head."""


def attention(task: AttentionTask, job: Job) -> dict[str, Any]:
    """Do ``task=attention``: see :class:`latent_lab.report.attention_task.AttentionTask`."""
    with session(job, Answers()) as at:
        if at.run.result is None:
            started = time.monotonic()
            encoded = at.trained.stage.encode(at.problems, at.solver.backbone.tokenizer)
            if getattr(at.trained.stage, "reading", None) is None:
                raise PlanError(f"run: {job.config.run} writes no planning tokens; allowed: runs of stage=planning with a plan")
            if at.solver.backbone.num_virtual:
                raise PlanError(f"run: {job.config.run} has virtual tokens; allowed: runs with peft=none, lora or rows")
            if at.trained.stage.has_slots:
                raise PlanError(
                    f"run: {job.config.run} thinks, and its thoughts are no tokens; allowed: runs that write all steps"
                )
            found = masses(at.solver, encoded)
            if not found.num_queries.sum():
                raise PlanError(
                    f"run: {job.config.run} has no block of planning tokens with as much text before and after it; allowed: "
                    "runs with shorter blocks (stage.num_prefix, stage.num_special), or before steps (stage.place)"
                )
            result = summary(found)
            if at.run.is_main:
                with atomic(at.run.folder / TABLE) as temporary:
                    temporary.write_text(as_csv(result["heads"]), encoding="utf-8")
                with atomic(at.run.folder / FIGURE) as temporary:
                    draw(temporary, result["heads"])
            said = {"task": "attention", "run": job.config.run, "split": job.config.split}
            at.run.finish({**said, **result, "seconds": round(time.monotonic() - started, 3)})
        else:
            say_complete(at.run.folder)
    stored = at.run.result or {}
    log.info("%s: %s, %s", at.run.folder, TABLE, FIGURE)
    log.info("of a text token's attention %.1f%% is on planning tokens, %.1f%% on as many tokens around them (mean of %d heads)",
             100 * stored["plan"], 100 * stored["matched"], len(stored["heads"]))  # fmt: skip
    return stored


def summary(found: Masses) -> dict[str, Any]:
    """Means over text tokens for each head and over all heads; differences with intervals that resample problems."""
    count = found.num_queries.sum()
    plan, matched = found.plan.sum(0) / count, found.matched.sum(0) / count
    apart = found.plan - found.matched
    heads = [
        {
            "layer": layer,
            "head": head,
            "plan": float(plan[layer, head]),
            "matched": float(matched[layer, head]),
            "difference": difference(apart[:, layer, head], found.num_queries),
        }
        for layer, head in np.ndindex(*plan.shape)
    ]
    return {
        "problems": int((found.num_queries > 0).sum()),
        "text_tokens": int(count),
        "plan": float(plan.mean()),
        "matched": float(matched.mean()),
        "difference": difference(apart.mean((1, 2)), found.num_queries),
        "heads_above": sum(head["difference"]["low"] > 0 for head in heads),
        "heads": heads,
    }


def difference(apart: np.ndarray, num_queries: np.ndarray) -> dict[str, Any]:
    """Mean over text tokens of sums ``[problems]``, with its interval."""
    asked = np.flatnonzero(num_queries)
    sums, sizes = apart[asked], num_queries[asked]
    return bootstrap(len(asked), lambda index: float(sums[index].sum() / sizes[index].sum()), num_resamples=RESAMPLES).as_dict()


def as_csv(heads: list[dict[str, Any]]) -> str:
    """One line a head."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["layer", "head", "plan", "matched", "difference", "low", "high"])
    for head in heads:
        apart = head["difference"]
        writer.writerow([head["layer"], head["head"], head["plan"], head["matched"], apart["value"], apart["low"], apart["high"]])
    return text.getvalue()
