"""A study of plan and execution: runs on the same problems, without and with tools, every difference with a paired test.

Each run is graded as ``task=answers`` does it, in the run's own folder, so an interrupted study goes on where it was. What stands
here compares the graded rows: tables of two ways, tests with Holm's correction over all of them, what wrong answers fail by, and
how accuracy falls with the number of steps and the size of the operands.
"""

import csv
import io
import itertools
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from latent_lab.config import NOT_RESULT, ConfigError, EvalConfig
from latent_lab.files import atomic
from latent_lab.grading.comparison import comparison
from latent_lab.grading.statistics import holm, n_to_see, wilson
from latent_lab.grading.tools import ALONE, is_right
from latent_lab.job import Job
from latent_lab.overrides import as_typed
from latent_lab.report.confusion_figure import Panel, draw
from latent_lab.report.graded import graded
from latent_lab.report.study_figure import draw_study
from latent_lab.report.study_page import write_page
from latent_lab.report.table_runs import without_prefix
from latent_lab.run import CONFIG, SAMPLES, open_run, say_complete, say_result

TABLES, MATRICES, FIGURE, PAGE = "tables.csv", "confusion.png", "study.png", "report.html"
GROUPS = ("steps", "operand_digits")
"""Columns of the graded rows by which accuracy is broken down."""
COPIED = (
    *("run", "stage", "slots", "training_seed", "accuracy", "accuracy_of_scored", "unscored", "not_stopped", "floors"),
    *("tokens_per_answer", "thoughts_per_answer", "seen_in_training", "tools", "errors", "steps_written", "judge"),
)
"""What a study says of a run as its evaluation said it, where it did."""


@dataclass(frozen=True)
class Graded:
    """A run's evaluation."""

    label: str
    folder: Path
    result: dict[str, Any]
    rows: list[dict[str, Any]]

    @property
    def identity(self) -> dict[str, str]:
        """What was graded: hashes of the problems and of the weights."""
        config = yaml.safe_load((self.folder / CONFIG).read_text(encoding="utf-8"))
        return {key: config[key] for key in ("problems", "weights")}

    def right(self, way: str) -> list[bool]:
        """For each problem whether its answer is right, without a tool (``none``) or with one."""
        return [is_right(row, way) for row in self.rows]


def study(asked: Job) -> dict[str, Any]:
    """Grade the runs of a job and compare them: see :class:`latent_lab.report.answers_task.AnswersTask`."""
    config: EvalConfig = asked.config
    started = time.monotonic()
    names = labels(config.runs)
    runs = [evaluated(name, label, asked) for label, name in names.items()]
    if int(os.environ.get("RANK", "0")):
        return {}  # grading was the work of all processes; one is enough for the rest
    check_same(runs)
    folder = Path(config.out) if config.out else Path(config.outputs) / "studies" / f"{'+'.join(names)},{asked.slug}"
    identity = {"graded": {run.label: run.identity for run in runs}}
    options: dict[str, Any] = {"command": asked.command, "ignore": NOT_RESULT, "overwrite": config.overwrite}
    with open_run(folder, {**asked.plain, **identity}, **options) as run:
        if run.result is None:
            run.track(config.tracker, job_type="eval", group=asked.group)
            dataset = asked.chosen("dataset") or "the runs' own"
            result = {"task": "answers", "dataset": dataset, "split": config.split, **summary(runs, config.tools, config.seed)}
            run.samples([side_by_side(rows) for rows in zip(*(each.rows for each in runs), strict=True)])
            write_figures(folder, result)
            write_page(
                folder / PAGE,
                result,
                examples(runs),
                [folder / FIGURE, *existing(folder / MATRICES)],
                [*map(as_typed, asked.command)],
            )
            run.finish({**result, "seconds": round(time.monotonic() - started, 3)})
        else:
            say_complete(folder)
    stored = run.result or {}
    say_result(folder, in_words(stored), (file.name for file in folder.iterdir() if not file.name.startswith(".")))
    return stored


def labels(runs: Sequence[str]) -> dict[str, str]:
    """A short name for each run, and the run; :class:`ConfigError` where one is named twice."""
    if len(set(runs)) < len(runs):
        raise ConfigError("run", ",".join(runs), "one of them is named twice; allowed: each once")
    folders = [Path(run).name for run in runs]
    for short in (without_prefix(what_differs(folders)), folders):
        if all(short) and len(set(short)) == len(runs):
            return dict(zip(short, runs, strict=True))
    return {run: run for run in runs}


def what_differs(names: Sequence[str]) -> list[str]:
    """Names without the overrides that all of them say; where one word is left of each under the same key, that word alone."""
    pieces = [name.split(",") for name in names]
    own = [[piece for piece in each if not all(piece in other for other in pieces)] for each in pieces]
    halves = [each[0].partition("=") for each in own if len(each) == 1]
    if len(halves) == len(own) and len({key for key, _, _ in halves}) == 1 and all(word[:1].isalpha() for _, _, word in halves):
        own = [[word] for _, _, word in halves]
    return [",".join(each) for each in own]


def evaluated(name: str, label: str, asked: Job) -> Graded:
    """Grade one run, or take what is stored."""
    config = EvalConfig(run=name, outputs=asked.config.outputs)
    folder, result = graded(config.run_folder, asked)
    rows = [json.loads(line) for line in (folder / SAMPLES).read_text(encoding="utf-8").splitlines()]
    return Graded(label, folder, result, rows)


def check_same(runs: Sequence[Graded]) -> None:
    """Raise :class:`ConfigError` unless all runs answered the same problems."""
    for run in runs[1:]:
        if run.identity["problems"] != runs[0].identity["problems"]:
            rest = f"{runs[0].label} and {run.label} were trained on datasets whose problems differ; allowed: runs of one "
            raise ConfigError("dataset", None, rest + "dataset, or the problems to grade all of them on, as in dataset=gsm8k")


# Numbers


def summary(runs: Sequence[Graded], tools: Sequence[str], seed: int) -> dict[str, Any]:
    """What all graded rows amount to."""
    ways = (ALONE, *tools)
    return {
        "n": len(runs[0].rows),
        "ways": list(ways),
        "runs": {run.label: {**copied(run), "by": broken_down(run, ways)} for run in runs},
        "comparisons": comparisons(runs, ways, seed),
    }


def copied(run: Graded) -> dict[str, Any]:
    """What is said of a run as its evaluation said it, and its accuracy in every way to answer."""
    said = {key: run.result[key] for key in COPIED if run.result.get(key) is not None}
    return {**said, "evaluation": str(run.folder)}


def broken_down(run: Graded, ways: Sequence[str]) -> dict[str, dict[str, dict[str, Any]]]:
    """Accuracy by group, value and way."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for group in GROUPS:
        values = sorted({row[group] for row in run.rows if group in row})
        parts = {value: [row for row in run.rows if row.get(group) == value] for value in values}
        found[group] = {
            str(value): {way: wilson(sum(is_right(row, way) for row in rows), len(rows)).as_dict() for way in ways}
            for value, rows in parts.items()
        }
    return {group: values for group, values in found.items() if values}


def comparisons(runs: Sequence[Graded], ways: Sequence[str], seed: int) -> list[dict[str, Any]]:
    """Every tool beside none in every run, and every two runs in every way; Holm's correction is over all of them."""
    pairs = [(run, ALONE, run, tool) for run in runs for tool in ways if tool != ALONE]
    pairs += [(one, way, other, way) for one, other in itertools.combinations(runs, 2) for way in ways]
    found = []
    for one, first, other, second in pairs:
        compared = comparison(one.right(first), other.right(second), seed)
        named = {"run_first": one.label, "way_first": first, "run_second": other.label, "way_second": second}
        found.append({**named, **compared, "n_to_see": needed(compared)})
    adjusted = holm({str(place): each["mcnemar_p"] for place, each in enumerate(found)})
    return [{**each, "holm_p": adjusted[str(place)]} for place, each in enumerate(found)]


def needed(compared: Mapping[str, Any]) -> int | None:
    """Problems that it would take to see the difference found, four times of five at 5%; None where none was found."""
    _, first_only, second_only, _ = compared["table"]
    if first_only == second_only:
        return None
    return n_to_see(compared["first"]["value"], compared["second"]["value"], (first_only + second_only) / compared["n"])


def side_by_side(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What all runs answered to one problem; the whole rows lie in the evaluations."""
    first = rows[0]
    return {
        "id": first["id"],
        "question": first["question"],
        "gold": first["gold"],
        "answers": [{key: row.get(key) for key in ("answer", "correct", "reason", "error")} for row in rows],
    }


def examples(runs: Sequence[Graded], most: int = 3) -> list[dict[str, Any]]:
    """For the page: of every run the first wrong answers of each kind, with what was written."""
    shown = []
    for run in runs:
        kinds = dict.fromkeys(row.get("error", "") for row in run.rows if row["correct"] is not True)
        for kind in kinds:
            rows = [row for row in run.rows if row["correct"] is not True and row.get("error", "") == kind]
            shown += [{"run": run.label, "kind": kind, **row} for row in rows[:most]]
    return shown


# Files


def existing(*paths: Path) -> list[Path]:
    """Those of the files that are there."""
    return [path for path in paths if path.is_file()]


def write_figures(folder: Path, result: dict[str, Any]) -> None:
    """Write the tables as CSV, the study's figure, and a confusion matrix for every tool in every run."""
    with atomic(folder / TABLES) as temporary:
        temporary.write_text(as_csv(result), encoding="utf-8")
    with atomic(folder / FIGURE) as temporary:
        draw_study(result, temporary)
    panels = [
        Panel(
            f"{each['run_first']}, {each['way_second']}", p_value(each), tuple(each["table"]), "Alone", each["way_second"].title()
        )
        for each in result["comparisons"]
        if each["run_first"] == each["run_second"]
    ]
    if panels:
        with atomic(folder / MATRICES) as temporary:
            draw(
                f"{result['n']:,} problems, without and with a tool",
                "paired: the same problems, the same model",
                panels,
                temporary,
            )


def as_csv(result: dict[str, Any]) -> str:
    """Every accuracy in a row of its own."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["run", "way", "group", "value", "n", "accuracy", "low", "high"])
    for label, way, group, value, rate in rates(result):
        writer.writerow([label, way, group, value, rate["n"], rate["value"], rate["low"], rate["high"]])
    return file.getvalue()


def rates(result: dict[str, Any]) -> Iterator[tuple[str, str, str, str, dict[str, Any]]]:
    """Run, way, group, value and accuracy; first of all problems, then of parts of them."""
    for label, run in result["runs"].items():
        yield label, ALONE, "all", "", run["accuracy"]
        for tool, compared in run.get("tools", {}).items():
            yield label, tool, "all", "", compared["second"]
        for group, values in run["by"].items():
            for value, ways in values.items():
                for way, rate in ways.items():
                    yield label, way, group, value, rate


def p_value(compared: Mapping[str, Any]) -> str:
    """A test in words."""
    low, value, high = (100 * compared["difference"][key] for key in ("low", "value", "high"))
    alone, adjusted = p_in_words(compared["mcnemar_p"]), p_in_words(compared["holm_p"])
    return f"{value:+.1f} points [{low:.1f}, {high:.1f}], McNemar p {alone}, Holm p {adjusted}"


def p_in_words(value: float) -> str:
    """A p-value; what is too small for a float is said so."""
    return "< 1e-300" if value < 1e-300 else f"= {value:.2g}"


def in_words(result: dict[str, Any]) -> Iterator[str]:
    """A study in lines for the terminal."""
    for label, run in result["runs"].items():
        scores = {ALONE: run["accuracy"]} | {tool: each["second"] for tool, each in run.get("tools", {}).items()}
        said = "; ".join(
            f"{way if way != ALONE else 'no tool'} {100 * rate['value']:.1f}% [{100 * rate['low']:.1f}, {100 * rate['high']:.1f}]"
            for way, rate in scores.items()
        )
        split = ", ".join(f"{each['count']} {kind}" for kind, each in run.get("errors", {}).items() if kind != "none")
        yield f"{label}: {said} of {run['accuracy']['n']}" + (f"; wrong: {split}" if split else "")
    for each in result["comparisons"]:
        if each["run_first"] != each["run_second"]:
            way = "no tool" if each["way_first"] == ALONE else each["way_first"]
            yield f"{each['run_second']} minus {each['run_first']}, {way}: {p_value(each)}"
