"""The published forms of iterated summarisation, read: a table of what was right (.csv), and a run's ``results.json``.

The table has a row for each method, run and problem, with the columns ``problem_id``, ``seed``, ``experiment_type`` and, for
every iteration k from 0, ``iteration_k_correct``; ``iteration_k_answer``, ``correct_answer_gt`` and ``year`` may be missing. A
``results.json`` holds one run of one method with everything that was written; one of pass@k holds several solutions of each
problem, each of which is a run here, with one iteration, so that they vote. A folder is read with all such files in it. The
``samples.jsonl`` of ``task=summarize`` is read as well, by itself.
"""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from latent_lab.deliberation.chains import Chain, Iteration, Table, checked
from latent_lab.deliberation.samples import of_samples
from latent_lab.grading.answers import stands_in
from latent_lab.problems import DataError
from latent_lab.problems.files import decoded, is_int, mapping, names, parse_table, parsed, plain, wrong

METHOD, RUN, PROBLEM, GOLD, YEAR = "experiment_type", "seed", "problem_id", "correct_answer_gt", "year"
FLAGS = {"0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True}
"""How a table may write whether an answer is right, in any case."""
NOTHING = frozenset({"", "none", "nan", "null"})
"""How a table may write that there is no answer, in any case."""
FORMS = "a table (.csv), a results.json, a folder of them, or the samples.jsonl of task=summarize"
LENGTH = "length"
"""The finish reason of a text that was cut."""


def read(path: Path) -> Table:
    """Read one file or a folder of them, or raise :class:`DataError` naming file, row and column."""
    if not path.exists():
        raise DataError(f"{path}: no such file or folder; relative paths start at {Path.cwd()}")
    files = [path]
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix == ".csv" or file.name.endswith("results.json"))
    if not files or files[0].suffix not in READERS:
        found = "nothing that can be read" if path.is_dir() else f"the suffix {path.suffix!r}"
        raise DataError(f"{path}: found {found}; allowed: {FORMS}")
    chains = [chain for file in files for chain in READERS[file.suffix](file)]
    unfinished = [chain for chain in chains if chain.is_error]
    if len(unfinished) == len(chains):
        raise DataError(f"{unfinished[0].where}: every record is an error; at least one needs its iterations")
    length = len(next(chain for chain in chains if not chain.is_error).iterations)
    return checked([wrong_throughout(chain, length) if chain.is_error else chain for chain in chains])


def wrong_throughout(chain: Chain, length: int) -> Chain:
    """A chain that broke off, as long as the others."""
    iterations = (Iteration(is_right=False),) * length
    return Chain(chain.method, chain.run, chain.problem, iterations, chain.where, chain.gold, chain.year, is_error=True)


# The table


def of_table(path: Path) -> list[Chain]:
    """The chains of a table, a row each; rows are counted as a spreadsheet does, the header being row 1."""
    rows = parse_table(path, decoded(path))
    records = [{name: str(cell) for name, cell in mapping(row.record, row.where).items()} for row in rows]
    num_iterations = columns(list(records[0]), str(path))
    return [of_row(record, num_iterations, row.where) for record, row in zip(records, rows, strict=True)]


def columns(header: Sequence[str], where: str) -> int:
    """How many iterations a header tells of, or :class:`DataError` where a column is missing."""
    there = {int(found[1]) for name in header if (found := re.fullmatch(r"iteration_([0-9]{1,4})_(?:correct|answer)", name))}
    wanted = [PROBLEM, RUN, METHOD, *(f"iteration_{k}_correct" for k in range(max(there, default=0) + 1))]
    if missing := [name for name in wanted if name not in header]:
        told = ", ".join(f"'{name}'" for name in header)
        needed = f"{PROBLEM}, {RUN}, {METHOD} and iteration_k_correct for each k from 0"
        raise DataError(f"{where}, row 1: column '{missing[0]}' is missing among {told}; every table has {needed}")
    return len(wanted) - 3


def of_row(row: dict[str, str], num_iterations: int, where: str) -> Chain:
    """The chain of a row."""
    for name in (PROBLEM, RUN, METHOD):
        if not row[name]:
            raise DataError(f"{where}, column '{name}': empty; fill it in or remove the row")
    iterations = []
    for k in range(num_iterations):
        name = f"iteration_{k}_correct"
        if (is_right := FLAGS.get(row[name].casefold())) is None:
            raise DataError(f"{where}, column '{name}': found {row[name]!r}; allowed: 0 or 1")
        iterations.append(Iteration(is_right, none_or(row.get(f"iteration_{k}_answer", ""))))
    gold, year = none_or(row.get(GOLD, "")), none_or(row.get(YEAR, ""))
    return Chain(row[METHOD], row[RUN], row[PROBLEM], tuple(iterations), where, gold, year)


def none_or(cell: str) -> str | None:
    """What a cell says, or None where it says nothing."""
    return None if cell.casefold() in NOTHING else cell


# A run's results


def of_results(path: Path) -> list[Chain]:
    """The chains of a ``results.json``: its experiment's name is the method, its folder or its own name the run."""
    advice = "a results.json is one object with experiment_name and results"
    whole = parsed(decoded(path), str(path), advice)
    if not isinstance(whole, dict) or not isinstance(whole.get("results"), list):
        raise DataError(f"{path}: field 'results' is no list of records; {advice}")
    if not whole["results"]:
        raise DataError(f"{path}: holds no record; at least one is needed")
    method = text(whole.get("experiment_name"), "experiment_name", str(path))
    if method is None:
        raise wrong(whole.get("experiment_name"), "experiment_name", str(path), "the name of the method")
    run = path.resolve().parent.name if path.name == "results.json" else path.stem
    records = [mapping(record, f"{path}, record {number}") for number, record in enumerate(whole["results"], start=1)]
    drawn = max((len(r["solutions"]) for r in records if isinstance(r.get("solutions"), list)), default=0)
    chains = []
    for number, record in enumerate(records, start=1):
        where = f"{path}, record {number}"
        if not drawn or "iterations" in record:
            chains.append(of_record(record, method, run, where))
            continue
        # A problem that broke off did so in every sample.
        parts = solutions(record, where) if not is_error(record) else [record] * drawn
        chains += [of_record(part, method, f"{run} sample {i}", where) for i, part in enumerate(parts)]
    return chains


def solutions(record: dict[str, Any], where: str) -> list[dict[str, Any]]:
    """A record of pass@k as one record for each of its solutions, with this solution for its only iteration."""
    found = record.get("solutions")
    if not isinstance(found, list) or not found:
        raise wrong(found, "solutions", where, "a list of at least one solution")
    return [{**record, "iterations": [each]} for each in found]


def is_error(record: dict[str, Any]) -> bool:
    """Whether a record says that the program broke off."""
    return record.get("status") == "error" or ("error" in record and not {"iterations", "solutions"} & record.keys())


def of_record(record: dict[str, Any], method: str, run: str, where: str) -> Chain:
    """The chain of a problem; one that ended in an error comes without iterations."""
    if PROBLEM not in record:
        raise DataError(f"{where}, field '{PROBLEM}': missing among {names(record)}")
    problem, gold = text(record[PROBLEM], PROBLEM, where), text(record.get("correct_answer"), "correct_answer", where)
    if problem is None:
        raise wrong(record[PROBLEM], PROBLEM, where, "a text or a whole number")
    if is_error(record):
        return Chain(method, run, problem, (), where, gold, is_error=True)
    rows = record.get("iterations")
    if not isinstance(rows, list) or not rows:
        raise wrong(rows, "iterations", where, "a list of at least one iteration")
    told = record.get("detailed_metrics")
    metrics = told if isinstance(told, dict) else {}
    iterations = []
    for k, row in enumerate(rows):
        place = f"{where}, iteration {k}"
        row = mapping(row, place)
        if row.get("iteration", k) != k:
            raise wrong(row["iteration"], "iteration", place, f"{k}: iterations stand in their order, each once")
        iterations.append(of_iteration(row, metrics, k, place, gold))
    return Chain(method, run, problem, tuple(iterations), where, gold)


def of_iteration(row: dict[str, Any], metrics: dict[str, Any], k: int, where: str, gold: str | None) -> Iteration:
    """One iteration of a summarising run, or of one that only goes on writing (whose fields bear other names)."""
    answer = text(row.get("answer"), "answer", where)
    flag = row.get("correct")
    if flag is None and answer is None:
        flag = False  # no answer was found, so nothing was graded
    if flag not in (0, 1):
        raise wrong(flag, "correct", where, "true or false, or 1 or 0")
    ended = row.get("finish_reason", row.get("final_finish_reason"))
    summary = written(row, "post_think_summary", "summary")
    is_read = summary is not None and "summary_answer" in row  # they look for an answer in every summary, and may find none
    return Iteration(
        is_right=bool(flag),
        answer=answer,
        is_cut=ended == LENGTH if isinstance(ended, str) else None,
        reasoning=written(row, "reasoning", "reasoning_output"),
        summary=summary,
        summary_answer=text(row["summary_answer"], "summary_answer", where) if is_read else None,
        is_summary_right=row.get("summary_correct") in (True, 1) if is_read else None,
        is_gold_in_summary=stands_in(gold, summary) if is_read and summary and gold else None,
        reasoning_tokens=tokens(metrics.get(f"iteration_{k}_reasoning", row.get("api_calls"))),
        summary_tokens=tokens(metrics.get(f"iteration_{k}_summary")),
    )


def written(row: dict[str, Any], *fields: str) -> str | None:
    """The first of the fields that holds a text."""
    return next((row[name] for name in fields if isinstance(row.get(name), str) and row[name].strip()), None)


def text(value: object, name: str, where: str) -> str | None:
    """A text or a number as text; None where it is null, or empty."""
    if value is None or isinstance(value, str):
        return (value or "").encode(errors="replace").decode().strip() or None  # a tokenizer may cut a character in half
    if is_int(value) or isinstance(value, float):
        return plain(value) if json.dumps(value) not in ("NaN", "Infinity", "-Infinity") else None
    raise wrong(value, name, where, "a text or a number")


def tokens(calls: object) -> int | None:
    """What the calls for one text wrote in all; None where no call is told of (a reused text), or where one does not say.

    The list ends with the calls' totals, which are left out: a sum is not kept twice.
    """
    counted = list(usages(calls))
    return sum(counted) if counted and None not in counted else None  # type: ignore[arg-type]


def usages(calls: object) -> Iterator[int | None]:
    """Completion tokens of each call."""
    for call in calls if isinstance(calls, list) else ():
        if isinstance(call, dict) and "token_usage" in call:
            usage = call["token_usage"]
            count = usage.get("completion_tokens") if isinstance(usage, dict) else None
            yield count if is_int(count) else None


READERS = {".csv": of_table, ".json": of_results, ".jsonl": of_samples}
"""What reads a file, by its suffix."""
