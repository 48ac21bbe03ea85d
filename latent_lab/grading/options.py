"""Accuracy among the answers there are to choose from: which of them does a model find likeliest where its answer stands?

Beside the free accuracy it shows what a model knows but does not write in the form asked for. Guessing reaches its floor.
"""

from collections.abc import Mapping
from collections.abc import Sequence as Seq
from dataclasses import replace
from statistics import fmean
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from latent_lab.batching import collate
from latent_lab.grading.statistics import wilson
from latent_lab.problems import Problem
from latent_lab.sequences import IGNORE, Part, Role, Sequence, followed

if TYPE_CHECKING:
    from latent_lab.grading.evaluate import Solver
    from latent_lab.stages.base import Stage

Options = Mapping[str, tuple[int, ...]]
"""The answers to choose from, and each of them in tokens, its mark and the end-of-text token included."""


def options_of(dataset: Any, layout: "Stage", problems: Seq[Problem], tokenizer: Any) -> dict[str, Options]:
    """The options of each problem by its id; empty where answers are not chosen from any: a dataset without ``choices_of``."""
    if not hasattr(dataset, "choices_of"):
        return {}
    answers = [(problem, answer) for problem in problems for answer in dataset.choices_of(problem)]
    encoded = layout.encode([replace(problem, answer=answer) for problem, answer in answers], tokenizer)
    found: dict[str, dict[str, tuple[int, ...]]] = {problem.id: {} for problem in problems}
    for (problem, answer), each in zip(answers, encoded, strict=True):
        found[problem.id][answer] = each.answer
    return dict(found)


def of_options(options: Mapping[str, Options], rows: Seq[dict[str, Any]]) -> dict[str, Any]:
    """``{"accuracy_of_options": ...}`` with its interval and the ``floor`` of guessing; empty without options.

    What is right is noted in each row as ``option_correct``. A problem without an ``option`` (no room for it) is not right.
    """
    if not options:
        return {}
    for row in rows:
        row["option"] = row.get("option")
        row["option_correct"] = row["option"] == row["gold"]
    right = wilson(sum(row["option_correct"] for row in rows), len(rows))
    return {"accuracy_of_options": {**right.as_dict(), "floor": fmean(1 / len(options[row["id"]]) for row in rows)}}


@torch.no_grad()
def likeliest(solver: "Solver", prompts: Seq[Sequence], written: Seq[Seq[int]], options: Seq[Options]) -> list[str | None]:
    """The likeliest option after each prompt and the chain that was ``written`` behind it, one batch.

    Each option is run once, in place of the answer written. None where one of them has no room.
    """
    laid: list[tuple[int, str, Sequence]] = []
    for i, (prompt, ids, each) in enumerate(zip(prompts, written, options, strict=True)):
        whole = {answer: answered(prompt, ids, option) for answer, option in each.items()}
        if all(is_runnable(solver, sequence) for sequence in whole.values()):
            laid += [(i, answer, sequence) for answer, sequence in whole.items()]
    scores: list[dict[str, float]] = [{} for _ in prompts]
    for start in range(0, len(laid), solver.batch_size):
        part = laid[start : start + solver.batch_size]
        batch = collate([sequence for *_, sequence in part], solver.backbone.pad).to(solver.reasoner.device)
        given = (batch.input_ids, batch.attention_mask, batch.labels, batch.position_ids)
        out = solver.reasoner(*given, is_closed=batch.is_closed)
        losses = nn.functional.cross_entropy(out.logits.double(), out.targets, reduction="none")
        counts = [sum(label != IGNORE for label in sequence.labels) for *_, sequence in part]
        for (i, answer, _), loss in zip(part, losses.split(counts), strict=True):
            scores[i][answer] = -float(loss.sum())
    return [max(each, key=lambda answer: each[answer]) if each else None for each in scores]


def answered(prompt: Sequence, written: Seq[int], option: tuple[int, ...]) -> Sequence:
    """A prompt, the chain written behind it, and an option to be predicted, its mark only given where the prompt has it."""
    mark = option[0]
    if prompt.ids[-1] == mark:
        return followed(prompt, [(Role.ANSWER, option[1:], True)])
    chain = tuple(written[: written.index(mark)]) if mark in written else tuple(written)
    parts: list[Part] = [(Role.STEP, chain, False), (Role.ANSWER, option, True)]
    return followed(prompt, parts)


def is_runnable(solver: "Solver", sequence: Sequence) -> bool:
    """Whether the model has positions for a sequence, in which it thinks nowhere but in the prompt's slots."""
    is_short = len(sequence.ids) + sequence.gap <= solver.room
    return is_short and sequence.ids.count(solver.backbone.tokens.latent) == sequence.num_slots
