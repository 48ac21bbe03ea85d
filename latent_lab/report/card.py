"""The data card: what a dataset's problems are like, measured on the problems themselves. What ``task=problems`` does."""

import logging
import math
import time
from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, cast

from latent_lab.backbone import ModelError, Scratch, digit_tokenizer
from latent_lab.config import NOT_RESULT, EvalConfig
from latent_lab.files import atomic, write_lines
from latent_lab.grading.answers import stands_in
from latent_lab.grading.session import trained_config
from latent_lab.grading.statistics import wilson
from latent_lab.job import Job
from latent_lab.problems import SPLITS, DataError, Dataset, Problem, Split, fingerprint
from latent_lab.problems.files import NoSplit
from latent_lab.report.card_figure import draw
from latent_lab.report.card_task import DataCard
from latent_lab.report.shortcuts import floors
from latent_lab.run import RESULT, open_run, say_complete
from latent_lab.sequences import Tokenizer, encode

log = logging.getLogger(__name__)

PROBLEMS, FIGURE = "problems.jsonl", "card.png"
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
PARTS = ("question", "chain", "answer")
"""A comma within a number."""


def data_card(task: DataCard, job: Job) -> dict[str, Any]:
    """Do ``task=problems``: see :class:`latent_lab.report.card_task.DataCard`."""
    config: EvalConfig = job.config
    started = time.monotonic()
    dataset: Dataset = config.dataset or trained_config(config.run_folder).dataset
    asked = cast(Split, config.split)
    splits, missing = load(dataset, asked)
    problems = splits[asked][: config.limit]
    if not problems:
        raise DataError(f"split={config.split}: the dataset has no problem there; choose another split or dataset")
    folder = folder_of(config, job)
    identity = {f"{split}_problems": fingerprint(those) for split, those in splits.items()}
    options: dict[str, Any] = {"command": job.command, "ignore": NOT_RESULT, "overwrite": config.overwrite}
    with open_run(folder, {**job.plain, **identity}, **options) as run:
        if run.result is None:
            run.track(config.tracker, job_type="eval", group=job.group)
            write_lines(folder / PROBLEMS, [row(problem, config.split) for problem in problems])
            result = {
                "task": "problems",
                "dataset": name_of(dataset, job),
                "split": config.split,
                **describe(problems, splits, missing, task.tokenizer),
                "floors": floors(problems, splits.get("train", []), getattr(dataset, "shortcuts", dict)()),
            }
            with atomic(folder / FIGURE) as temporary:
                draw(result, temporary)
            run.finish({**result, "seconds": round(time.monotonic() - started, 3)})
        else:
            say_complete(folder)
    stored = run.result or {}
    for line in (f"{folder}: {', '.join((PROBLEMS, FIGURE, RESULT))}", *in_words(stored)):
        log.info("%s", line)
    return stored


def load(dataset: Dataset, asked: Split) -> tuple[dict[Split, list[Problem]], dict[Split, str]]:
    """Read all splits, ``asked`` first, which must be there; of others the dataset does not have, the reason is given."""
    splits: dict[Split, list[Problem]] = {asked: dataset.load(asked)}
    missing: dict[Split, str] = {}
    for split in SPLITS:
        try:
            splits[split] = splits.get(split) or dataset.load(split)
        except NoSplit as error:
            missing[split] = str(error)
    return {split: splits[split] for split in SPLITS if split in splits}, missing


def name_of(dataset: Dataset, job: Job) -> str:
    """The dataset as it was asked for, or its class where it comes from a run."""
    chosen = [text.partition("=")[2] for text in job.overrides if text.startswith("dataset=")]
    return chosen[-1] if chosen else type(dataset).__name__


def folder_of(config: EvalConfig, job: Job) -> Path:
    """Where the card goes: as told, else below the run whose dataset it describes, else below ``outputs/problems``."""
    if config.out:
        return Path(config.out)
    return config.run_folder / "eval" / job.slug if config.run else Path(config.outputs) / "problems" / job.slug


def row(problem: Problem, split: str) -> dict[str, Any]:
    """A problem as a record; what its ``meta`` holds stands beside it too, as in published files, and the file is a dataset."""
    fields = {"id": problem.id, "split": split, "question": problem.question, "steps": list(problem.steps)}
    return {**problem.meta, **fields, "answer": problem.answer, "meta": problem.meta}


def describe(
    problems: Sequence[Problem], splits: dict[Split, list[Problem]], missing: dict[Split, str], tokenizer: str | None
) -> dict[str, Any]:
    """Sizes, overlaps, and lengths in tokens as a sequence holds them: with line ends, ``### `` and the end-of-text token."""
    made_from = splits.get("train") or problems
    made, name = tokenizer_of(tokenizer, made_from, "train" if splits.get("train") else "described")
    encoded = encode(problems, made)
    lengths = {
        "question": [len(p.question) for p in encoded],
        "chain": [sum(map(len, p.steps)) for p in encoded],
        "answer": [len(p.answer) for p in encoded],
    }
    steps = [len(p.steps) for p in problems]
    asked = {split: {p.question for p in those} for split, those in splits.items()}
    return {
        "n": len(problems),
        "sizes": {split: len(splits[split]) if split in splits else None for split in SPLITS},
        "missing": missing,
        "overlaps": {f"{a}_{b}": len(asked[a] & asked[b]) for a, b in combinations(splits, 2)},
        "is_one_for_all": is_one_for_all(splits),
        "answer_in_question": {
            split: wilson(sum(stands_in(p.answer, p.question) for p in those), len(those)).as_dict()
            for split, those in splits.items()
        },
        "repeated": {split: len(those) - len(asked[split]) for split, those in splits.items()},
        "tokenizer": name,
        "tokens": {part: summary(lengths[part]) for part in PARTS},
        "steps": summary(steps),
        "without_steps": steps.count(0),
        "histograms": {**{f"{part}_tokens": histogram(lengths[part]) for part in PARTS}, "steps": histogram(steps)},
    }


def is_one_for_all(splits: dict[Split, list[Problem]]) -> bool:
    """Whether the test split is all the other problems again, as where one file is divided for training and tested whole."""
    held = {split: {(p.id, p.question) for p in those} for split, those in splits.items()}
    return held.pop("test", set()) == set().union(*held.values()) and len(splits) > 1


def tokenizer_of(given: str | None, problems: Sequence[Problem], split: str) -> tuple[Tokenizer, str]:
    """The tokenizer asked for, or the digit-level one made from ``problems``; and its name."""
    if given is None:
        return digit_tokenizer(problems, Scratch().vocabulary), f"digit-level, made from the {split} split"
    from transformers import AutoTokenizer

    try:
        loaded: Tokenizer = AutoTokenizer.from_pretrained(given)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(
            f"task.tokenizer: given {given!r}; allowed: a folder with a tokenizer, or a name on the hub that can be reached from "
            f"here ({reason})"
        ) from error
    return loaded, given


def summary(values: Sequence[int]) -> dict[str, float]:
    """Mean, extremes and quantiles (each a value that occurs: the smallest that so many reach) of one or more numbers."""
    ordered = sorted(values)
    quantiles = {f"p{100 * q:.0f}": ordered[math.ceil(q * len(ordered)) - 1] for q in QUANTILES}
    return {"mean": sum(ordered) / len(ordered), "min": ordered[0], **quantiles, "max": ordered[-1]}


def histogram(values: Sequence[int]) -> dict[str, int]:
    """How often each value occurs, in ascending order."""
    return {str(value): count for value, count in sorted(Counter(values).items())}


def in_words(result: dict[str, Any]) -> list[str]:
    """The card's main facts, a line each."""

    def span(numbers: dict[str, float]) -> str:
        return f"{numbers['mean']:.1f} ({numbers['min']} to {numbers['max']})"

    sizes = ", ".join(f"{split} {'none' if size is None else size}" for split, size in result["sizes"].items())
    shared = {pair.replace("_", " and "): count for pair, count in result["overlaps"].items() if count}
    scores = sorted(result["floors"].items(), key=lambda item: -item[1]["value"])
    floors_said = ", ".join(
        f"{name.replace('_', ' ')} {100 * s['value']:.1f}% [{100 * s['low']:.1f}, {100 * s['high']:.1f}]" for name, s in scores
    )
    return [
        f"{result['n']} problems of {result['dataset']} ({result['split']}); splits: {sizes}",
        f"steps {span(result['steps'])}, {result['without_steps']} problems without; tokens ({result['tokenizer']}): "
        + ", ".join(f"{part} {span(result['tokens'][part])}" for part in PARTS),
        "questions in two splits: "
        + (", ".join(f"{count} in {pair}" for pair, count in shared.items()) or "none")
        + ("; one file stands for all splits: train or test on it, not both" if result.get("is_one_for_all") else ""),
        "gold answer in its question: "
        + ", ".join(f"{split} {100 * s['value']:.1f}%" for split, s in result["answer_in_question"].items() if s["n"]),
        f"shortcut floors: {floors_said or 'none'}",
    ]
