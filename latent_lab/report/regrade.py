"""What ``task=regrade`` does: outputs read from a file, repaired in three ways, graded by several rules, and summed up."""

import csv
import hashlib
import io
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latent_lab.config import NOT_RESULT, ConfigError, EvalConfig, Nothing
from latent_lab.exact import written
from latent_lab.files import atomic
from latent_lab.grading import judge, published
from latent_lab.grading.answers import Equivalence
from latent_lab.grading.arithmetic import numbers_in
from latent_lab.grading.comparison import comparison, two_by_two
from latent_lab.grading.judge_prompt import Case
from latent_lab.grading.judges import Asking
from latent_lab.grading.numbers import number
from latent_lab.grading.repair import KINDS, VERDICTS, Repaired, error_kind, repair
from latent_lab.job import Job
from latent_lab.problems import DataError
from latent_lab.problems.files import Row, is_int, mapping, names, read, wrong
from latent_lab.report.confusion_figure import Panel, draw
from latent_lab.report.regrade_task import Regrade
from latent_lab.run import RESULT, SAMPLES, open_run, say_complete

log = logging.getLogger(__name__)

TABLES, FIGURE = "tables.csv", "confusion.png"
FIELDS = ("question", "text_output", "answer_output", "answer")
TOOLS = {
    "published": "results replaced as text; value of the last step",
    "corrected": "whole numbers replaced; value of the last step",
    "corrected_strict": "numbers of the question kept; value of the answer's step",
}
RULES = {
    "within_one": Equivalence("published_post_hoc"),
    "in_run": Equivalence("published_in_run"),
    "exact": Equivalence("numeric"),
    "relative_1e-6": Equivalence("numeric", relative=1e-6),
    "relative_1e-3": Equivalence("numeric", relative=1e-3),
}
"""What counts as right; the first is the published study's rule for its tables, under which the tools are compared."""
MAIN = "within_one"


@dataclass(frozen=True)
class Output:
    """One row of the file, repaired."""

    number: int
    question: str
    text: str
    """What the model wrote, without the question."""
    gold: str
    given: str
    """The model's answer."""
    tool: dict[str, str]
    """The answer with each of ``TOOLS``."""
    loose: Repaired
    strict: Repaired
    operand_digits: int
    """Digits before the point of the largest number in the question; 0 where it has none."""

    @property
    def num_steps(self) -> int:
        """Steps of the written chain."""
        return len(self.loose.steps)

    def is_right(self, tool: str | None, rule: str) -> bool:
        """Whether the answer is right, with a tool or (None) without.

        The published study decides both in one ``try``: where the model's answer is no number, its tool's is wrong as well.
        """
        if tool == "published" and rule == MAIN:
            return published.is_right(self.gold, self.given, self.tool[tool])[1]
        answer = self.given if tool is None else self.tool[tool]
        return bool(RULES[rule].same(as_decimal(answer) if tool else answer, self.gold))

    def error(self, tool: str, rule: str) -> str:
        """What the model's answer fails by, one of ``KINDS``."""
        return error_kind(self.is_right(None, rule), self.is_right(tool, rule), self.loose.is_arithmetic_right)


def regrade(task: Regrade, job: Job) -> dict[str, Any]:
    """Do ``task=regrade``: see :class:`latent_lab.report.regrade_task.Regrade`."""
    config: EvalConfig = job.config
    if not task.path:
        raise ConfigError("path", None, "allowed: the file of outputs to grade, a .json or .jsonl; write path=FILE")
    started = time.monotonic()
    path = Path(task.path).expanduser()
    rows = read(path)[: config.limit]
    outputs = [output(row) for row in rows]
    folder = Path(config.out) if config.out else Path(config.outputs) / "regraded" / path.stem
    identity = {"outputs_read": hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest(), **judge.identity(config.judge)}
    options: dict[str, Any] = {"command": job.command, "ignore": NOT_RESULT, "overwrite": config.overwrite}
    with open_run(folder, {**job.plain, **identity}, **options) as run:
        if run.result is None:
            if isinstance(config.judge, Asking):
                config.judge.check_ready()
            run.track(config.tracker, job_type="eval", group=job.group)
            result = {"task": "regrade", "path": task.path, **summary(outputs, config.seed)}
            run.samples([sample(each) for each in outputs])
            with atomic(folder / TABLES) as temporary:
                temporary.write_text(as_csv(result["gradings"]), encoding="utf-8")
            with atomic(folder / FIGURE) as temporary:
                draw(*figure(result), temporary)
            if not isinstance(config.judge, Nothing | None):
                result["judge"] = verdicts(config.judge, outputs, folder, config.device)
            run.finish({**result, "seconds": round(time.monotonic() - started, 3)})
        else:
            say_complete(folder)
    stored = run.result or {}
    log.info("%s: %s", folder, ", ".join((SAMPLES, TABLES, FIGURE, RESULT)))
    log.info("%s", in_words(stored))
    if "judge" in stored:
        log.info("%s", judge.in_words(stored["judge"]))
    return stored


def verdicts(chosen: judge.Judge, outputs: Sequence[Output], folder: Path, device: str) -> dict[str, Any]:
    """Have the answers judged that are wrong under the main rule, as in the study; the rules beside are the corrected tool's."""
    wrong = [each for each in outputs if not each.is_right(None, MAIN)]
    cases = [
        Case(str(each.number), each.question, each.text, each.given if number(each.given) is not None else None, each.gold)
        for each in wrong
    ]
    rules = [judge.as_verdict(each.error("corrected", MAIN), each.loose) for each in wrong]
    return judge.judged(chosen, cases, rules, folder, device)


# One row


def output(row: Row) -> Output:
    """Read a record and repair its chain in every way, or raise :class:`DataError` naming row and field."""
    record = mapping(row.record, row.where)
    question, text, given, gold = (field(record, name, row.where) for name in FIELDS)
    if number(gold) is None:
        raise wrong(record["answer"], "answer", row.where, "the gold answer as a number, such as -12, 1,080 or 0.5")
    generated = text.removeprefix(question)
    loose = repair(generated, given, link="last")
    strict = repair(generated, given, question=question, link="final")
    # Their program ends with an error where its solver has no value: no answer.
    theirs = published.tool_answer(text, given)
    return Output(
        number=row.number,
        question=question,
        text=generated,
        gold=gold,
        given=given,
        tool={"published": "" if theirs is None else theirs, "corrected": loose.answer, "corrected_strict": strict.answer},
        loose=loose,
        strict=strict,
        operand_digits=max((len(str(int(value))) for value in numbers_in(question)), default=0),
    )


def field(record: dict[str, Any], name: str, where: str) -> str:
    """A field of a record as text that can be written; only an answer may be a number, or null where none was found."""
    if name not in record:
        raise DataError(f"{where}, field '{name}': missing among {names(record)}; every row has {', '.join(FIELDS)}")
    value = record[name]
    if value is None and name == "answer_output":
        return ""
    if name in ("answer", "answer_output") and (is_int(value) or isinstance(value, float)):
        return str(value)
    if not isinstance(value, str):
        raise wrong(value, name, where, "text" if name in ("question", "text_output") else "text or a number")
    return value.encode(errors="replace").decode()  # a tokenizer may cut a character in half


def as_decimal(answer: str) -> str:
    """A fraction such as ``2/3`` as the nearest decimal, which is all that the published rules read; anything else as it is."""
    value = number(answer) if "/" in answer else None
    try:
        return answer if value is None else repr(float(value))
    except OverflowError:
        return answer


def sample(each: Output) -> dict[str, Any]:
    """The row of ``samples.jsonl``; what is right is so under the published rule for tables."""
    steps = [
        {
            "step": f"{checked.step.lhs}={checked.step.rhs}",
            "verdict": checked.verdict,
            "value": None if checked.value is None else written(checked.value),
        }
        for checked in each.loose.steps
    ]
    return {
        "row": each.number,
        "question": each.question,
        "gold": each.gold,
        "answer": each.given,
        **{f"{tool}_answer": answer for tool, answer in each.tool.items()},
        "right": each.is_right(None, MAIN),
        **{f"{tool}_right": each.is_right(tool, MAIN) for tool in TOOLS},
        "error": each.error("corrected", MAIN),
        "steps": steps,
        "num_steps": each.num_steps,
        "operand_digits": each.operand_digits,
        "num_ambiguous_links": each.strict.num_ambiguous_links,
    }


# All rows


def summary(outputs: Sequence[Output], seed: int) -> dict[str, Any]:
    """What all rows amount to: the tables of the study, and every grading with its intervals and tests."""
    verdicts = Counter[str]()
    for each in outputs:
        verdicts.update(each.loose.verdicts)
    differing = [each for each in outputs if each.is_right("corrected", MAIN) != each.is_right("corrected_strict", MAIN)]
    return {
        "n": len(outputs),
        **{tool: table(outputs, tool) for tool in TOOLS},
        "strict_differs": [{"row": each.number, "corrected": each.is_right("corrected", MAIN)} for each in differing],
        "errors": errors(outputs, "corrected", MAIN),
        "rows_without_number": sum(number(each.given) is None for each in outputs),
        "rows_without_steps": sum(not each.loose.steps for each in outputs),
        "rows_without_tool": sum(not each.loose.tool_used for each in outputs),
        "steps": {verdict: verdicts[verdict] for verdict in VERDICTS},
        "ambiguous_links": sum(each.strict.num_ambiguous_links for each in outputs),
        "gradings": list(gradings(outputs, seed)),
    }


def table(outputs: Sequence[Output], tool: str) -> dict[str, Any]:
    """The numbers the study reports: answers right without and with a tool, and how the two go together (TT, TF, FT, FF)."""
    counts = two_by_two([each.is_right(None, MAIN) for each in outputs], [each.is_right(tool, MAIN) for each in outputs])
    return {"original_correct": counts[0] + counts[1], "tool_correct": counts[0] + counts[2], "table": counts}


def errors(outputs: Sequence[Output], tool: str, rule: str) -> dict[str, int]:
    """How many answers fail by what."""
    counts = Counter(each.error(tool, rule) for each in outputs)
    return {kind: counts[kind] for kind in KINDS}


def gradings(outputs: Sequence[Output], seed: int) -> Iterator[dict[str, Any]]:
    """Every tool under every rule, and the corrected tool under the main rule by number of steps and by size of operands."""
    for tool in TOOLS:
        for rule in RULES:
            yield grading(outputs, tool, rule, "all", None, seed)
    by: dict[str, Callable[[Output], int]] = {
        "num_steps": lambda each: each.num_steps,
        "operand_digits": lambda each: each.operand_digits,
    }
    for group, key in by.items():
        for value in sorted(set(map(key, outputs))):
            part = [each for each in outputs if key(each) == value]
            yield grading(part, "corrected", MAIN, group, value, seed)


def grading(outputs: Sequence[Output], tool: str, rule: str, group: str, value: int | None, seed: int) -> dict[str, Any]:
    """Some outputs without and with a tool under a rule."""
    without, with_tool = ([each.is_right(way, rule) for each in outputs] for way in (None, tool))
    compared = comparison(without, with_tool, seed)
    columns = {"first": "original", "second": "with_tool"}
    return {
        "tool": tool,
        "rule": rule,
        "group": group,
        "value": value,
        **{columns.get(key, key): what for key, what in compared.items()},
        "errors": errors(outputs, tool, rule),
    }


def as_csv(rows: Sequence[dict[str, Any]]) -> str:
    """The gradings as a table, a column for each number."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    intervals = ("original", "with_tool", "difference")
    head = ["tool", "rule", "group", "value", "n", "tt", "tf", "ft", "ff"]
    head += [f"{name}{end}" for name in intervals for end in ("", "_low", "_high")]
    writer.writerow([*head, "mcnemar_p", *KINDS])
    for row in rows:
        measured = [row[name][end] for name in intervals for end in ("value", "low", "high")]
        first = [row[key] for key in ("tool", "rule", "group", "value", "n")]
        writer.writerow([*first, *row["table"], *measured, row["mcnemar_p"], *row["errors"].values()])
    return file.getvalue()


def figure(result: dict[str, Any]) -> tuple[str, str, list[Panel]]:
    """Headline, line below it, and a confusion matrix for each tool."""
    panels = [Panel(tool.replace("_", ", "), why, tuple(result[tool]["table"])) for tool, why in TOOLS.items()]
    split = ", ".join(f"{count} {kind}" for kind, count in result["errors"].items() if kind != "none")
    return (
        f"{Path(result['path']).name}: {result['n']:,} outputs",
        f"right: at most 1 from the gold; wrong answers: {split}",
        panels,
    )


def in_words(result: dict[str, Any]) -> str:
    """A result in one line for the terminal."""
    right = "; ".join(f"{tool} {result[tool]['original_correct']} and {result[tool]['tool_correct']}" for tool in TOOLS)
    main = next(row for row in result["gradings"] if (row["tool"], row["rule"]) == ("corrected", MAIN))
    low, value, high = (100 * main["difference"][key] for key in ("low", "value", "high"))
    split = ", ".join(f"{count} {kind}" for kind, count in result["errors"].items() if kind != "none")
    return (
        f"{result['n']} outputs, right within 1 without and with the tool: {right}; corrected tool "
        f"{value:+.1f} points [{low:.1f}, {high:.1f}], McNemar p={main['mcnemar_p']:.1g}; errors: {split}"
    )
