"""A vote over plans: planning tokens are drawn, all else is decoded greedily; beside a vote in which every token is drawn."""

from collections.abc import Mapping
from collections.abc import Sequence as Seq
from dataclasses import replace
from functools import partial
from random import Random
from statistics import fmean
from typing import Any

from transformers import LogitsProcessor

from latent_lab.batching import Batch
from latent_lab.calls.sampling import Drawn
from latent_lab.grading.evaluate import Solver
from latent_lab.grading.statistics import RIGHT, ballots, maj_at_k, mean_interval
from latent_lab.plans.forcing import DrawnAmong
from latent_lab.plans.reading import Reading
from latent_lab.plans.task import PlansTask
from latent_lab.problems import Problem
from latent_lab.sequences import Encoded


def votes(
    solver: Solver,
    problems: Seq[Problem],
    encoded: Seq[Encoded],
    greedy: Seq[Mapping[str, Any]],
    reading: Reading,
    task: PlansTask,
    seed: int,
) -> dict[str, Any]:
    """What ``task.votes`` answers to each problem are right in, alone and by vote, with intervals over problems.

    ``greedy`` are the rows of the same problems where nothing is drawn. Tied answers share the point.
    """
    found: dict[str, Any] = {"samples": task.votes, "temperature": task.temperature, "top_p": task.top_p}
    points: dict[str, list[float]] = {"greedy": [float(row["correct"] is True) for row in greedy]}
    for name, among in (("plans", reading.ids), ("tokens", None)):
        groups = drawn(solver, problems, encoded, among, task, f"{seed}/{name}")
        points[name] = [maj_at_k(ballots(group), RIGHT, len(group), key=str) for group in groups]
        found[name] = {
            "accuracy": mean_interval(points[name]).as_dict(),
            "one": mean_interval([fmean(float(row["correct"] is True) for row in group) for group in groups]).as_dict(),
            "different_plans": fmean(len({tuple(row["plan"]) for row in group}) for group in groups),
            "different_answers": fmean(len({row["answer"] for row in group}) for group in groups),
        }
    for other in ("greedy", "tokens"):
        gains = [a - b for a, b in zip(points["plans"], points[other], strict=True)]
        found[f"plans_over_{other}"] = mean_interval(gains).as_dict()
    return {**found, "greedy": fmean(points["greedy"])}


def drawn(
    solver: Solver, problems: Seq[Problem], encoded: Seq[Encoded], among: Seq[int] | None, task: PlansTask, draw: str
) -> list[list[dict[str, Any]]]:
    """For each problem ``task.votes`` graded rows, in which tokens of ``among`` (None: all) are drawn."""

    def chance(batch: Batch, sample: int) -> LogitsProcessor:
        seeds = [Random(f"{draw}/{sample}/{id}").getrandbits(63) for id in batch.ids]
        if among is None:
            return Drawn(seeds, [task.temperature] * len(seeds), task.top_p)
        return DrawnAmong(seeds, task.temperature, task.top_p, among)

    samples = [replace(solver, processor=partial(chance, sample=n)).graded(problems, encoded) for n in range(task.votes)]
    return [list(rows) for rows in zip(*samples, strict=True)]


def voted(found: Mapping[str, Any]) -> str:
    """A result in one line for the terminal."""
    plans, tokens = (100 * found[name]["accuracy"]["value"] for name in ("plans", "tokens"))
    return (
        f"vote of {found['samples']}: {plans:.1f}% with plans drawn, {tokens:.1f}% with every token drawn; "
        f"greedy {100 * found['greedy']:.1f}%"
    )
