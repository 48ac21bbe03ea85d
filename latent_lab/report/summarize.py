"""What ``task=summarize`` does: chains of attempts asked through a ledger, analysed, and held against votes at equal tokens."""

import csv
import io
import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latent_lab.calls.ledger import open_ledger, read_ledger, totals
from latent_lab.config import NOT_RESULT, ConfigError, EvalConfig, Nothing
from latent_lab.deliberation import behaviour_judge
from latent_lab.deliberation.analysis import analysis
from latent_lab.deliberation.backends import Backend, LabRun
from latent_lab.deliberation.board import Board, Row
from latent_lab.deliberation.chains import checked
from latent_lab.deliberation.driving import driven
from latent_lab.deliberation.export import Source, export
from latent_lab.deliberation.loop import chain
from latent_lab.deliberation.plan import Plan, planned
from latent_lab.deliberation.replay import Past, amount, num_samples, past_of
from latent_lab.deliberation.rivals import at_equal_tokens, curves, drawn
from latent_lab.deliberation.samples import chains_of, rows_of, unanswered, wrong
from latent_lab.deliberation.settings import ANOTHER, METHODS, ZEROED
from latent_lab.deliberation.weights import WEIGHTS
from latent_lab.files import atomic
from latent_lab.job import Job
from latent_lab.overrides import as_typed
from latent_lab.problems import Problem, fingerprint
from latent_lab.progress import progress
from latent_lab.provenance import redact_command
from latent_lab.report.cards import KINDS, cards, counts
from latent_lab.report.iterations import aligned
from latent_lab.report.iterations import in_words as iterations_in_words
from latent_lab.report.iterations_figure import draw
from latent_lab.report.live import View, serving
from latent_lab.report.study_page import interval, p_value, write
from latent_lab.report.summarize_figure import draw_tokens
from latent_lab.run import PROVENANCE, RESULT, open_run, say_complete, say_result
from latent_lab.run import SAMPLES as SAMPLES_FILE

if TYPE_CHECKING:
    from latent_lab.report.summarize_task import SummarizeTask

log = logging.getLogger(__name__)

TABLES, TOKENS, ITERATIONS, PAGE = "tables.csv", "tokens.png", "iterations.png", "report.html"
EXPORT = "export"
"""Folder of what other tools read."""

BY_GOLD = "problems were chosen by their gold answers; what is right among them is no accuracy of the dataset"


class DeliberationError(ValueError):
    """Too many chains ended in an error; what was answered is kept, and the message says what to do."""


def summarize(task: "SummarizeTask", job: Job) -> dict[str, Any]:
    """Do ``task=summarize``: see :class:`latent_lab.report.summarize_task.SummarizeTask`."""
    config: EvalConfig = job.config
    started = time.monotonic()
    plan, problems = prepared(task, config)
    folder = Path(config.out) if config.out else Path(config.outputs) / "summarize" / job.slug
    if config.run and not config.out:
        folder = config.run_folder / "eval" / job.slug
    judge = behaviour_judge.asking(config.judge)
    identity = identity_of(plan, problems, job) | behaviour_judge.identity(judge)
    options: dict[str, Any] = {"command": job.command, "ignore": NOT_RESULT, "overwrite": config.overwrite}
    with open_run(folder, {**job.plain, **identity}, **options) as run:
        if run.result is None:
            plan.backend.check_ready(config)
            plan.summariser.check_ready(config)
            if judge:
                judge.check_ready()
            run.track(config.tracker, job_type="eval", group=job.group)
            board, command = Board(keep=run.sample), redact_command([*map(as_typed, job.command)])
            with followed(task, View(board, plan, problems, command, folder / PAGE)):
                rows, calls = deliberated(plan, problems, folder, config, board)
                run.samples(rows)
                check_errors(rows, task.max_errors)
                table = checked(chains_of(rows, SAMPLES_FILE))
                judged = behaviour_judge.judged(judge, table, folder, config.device, config.seed) if judge else None
                result = {
                    "task": "summarize",
                    **described(plan, rows),
                    "calls": totals(calls) | {"read_again": read_again(calls)},
                }
                result |= analysis(table, config.seed, judged) | found(rows, plan, config.seed)
                shown(result, folder, command, board, problems)
            run.finish({**result, "seconds": round(time.monotonic() - started, 3)})
        else:
            say_complete(folder)
        if task.export:
            export(task.export, rows_of(folder / SAMPLES_FILE), source_of(folder, plan, problems, config), folder / EXPORT)
    stored = run.result or {}
    files = (PAGE, TOKENS, ITERATIONS, TABLES, SAMPLES_FILE, RESULT, *(f"{EXPORT}/{name}" for name in task.export))
    say_result(folder, in_words(stored), files)
    return stored


@contextmanager
def followed(task: "SummarizeTask", view: View) -> Iterator[None]:
    """Show the page meanwhile, where it is asked for."""
    with serving(view, task.port) if task.page or task.port else nullcontext() as address:
        if address:
            log.info("to be followed on %s (only this machine reaches it)", address)
        yield


def prepared(task: "SummarizeTask", config: EvalConfig) -> tuple[Plan, list[Problem]]:
    """The plan, and the problems; whatever is wrong with either is said here, before anything is asked."""
    backend: Backend = LabRun() if isinstance(config.backend, Nothing | None) else config.backend
    if not config.run and isinstance(backend, LabRun):
        raise ConfigError("backend", None, "allowed: local, openai, vllm, fireworks, together, or run=RUN for one of your runs")
    if config.run and not isinstance(backend, LabRun):
        raise ConfigError("run", config.run, "with this backend nobody asks the run; allowed: backend=run, or no run=")
    extractors: Sequence[str] = ()
    dataset = config.dataset
    if isinstance(backend, LabRun):
        from latent_lab.grading.session import trained_config

        trained = trained_config(config.run_folder)
        extractors, dataset = trained.stage.extractors, dataset or trained.dataset
        backend = backend.settled(config)
    summariser: Backend = backend if isinstance(config.summariser, Nothing | None) else config.summariser
    past = past_of(config.folder(task.replay), task.from_iteration) if task.replay else Past()
    if task.replay and not task.samples:
        task = replace(task, samples=max(num_samples(past), task.chains))
    plan = planned(task, backend, summariser, extractors, past)
    failed = unanswered(rows_of(config.folder(task.errors_of) / SAMPLES_FILE)) if task.errors_of else ()
    ended_wrong = wrong(rows_of(config.folder(task.wrong_of) / SAMPLES_FILE)) if task.wrong_of else ()
    split = dataset.load(config.split)
    problems = task.selected(split, config.limit, failed, ended_wrong)
    if task.wrong_of:
        log.warning("task.wrong_of: %s", BY_GOLD)
    if len(split) < 2 and (borrows := [method for method in plan.methods if method.endswith(ANOTHER)]):
        zeroed = borrows[0].replace(ANOTHER, ZEROED)
        rest = f"the split has one problem, so there is no other; allowed: a split of two, or {zeroed}"
        raise ConfigError("task.methods", borrows[0], rest)
    donors = {one.id: another for one, another in zip(split, [*split[1:], *split[:1]], strict=True)}
    return replace(plan, donors=donors), problems


def identity_of(plan: Plan, problems: Sequence[Problem], job: Job) -> dict[str, str]:
    """What decides the result though no setting shows it; ConfigError where what is replayed was made otherwise."""
    hashes = {f"{kind}_prompt": each["sha256"] for kind, each in plan.prompts.items()}
    models = plan.summariser.identity(job.config) | plan.backend.identity(job.config)
    identity = {"problems": fingerprint(problems), **hashes, **models}
    plan.past.check(plan.settings, plan.methods, problems, {**job.plain, **identity})
    return identity | plan.past.identity


def deliberated(
    plan: Plan, problems: Sequence[Problem], folder: Path, config: EvalConfig, board: Board | None = None
) -> tuple[list[Row], list[Row]]:
    """The rows of all samples, and those of the ledger. What the ledger knows is not asked again: a killed command goes on.

    ``board`` is told of everything on the way.
    """
    board = board or Board()
    with ExitStack() as stack:
        ledger = stack.enter_context(open_ledger(folder))
        thinks = stack.enter_context(plan.backend.opened(ledger, config))
        same = plan.summariser is plan.backend
        sums_up = thinks if same else stack.enter_context(plan.summariser.opened(ledger, config))
        board.calls = ledger.rows
        total = len(problems) * plan.num_attempts
        board.advance = stack.enter_context(progress("thinking", total, unit="attempts", note=board.in_words))
        talks = [chain(plan, thinks.spans, method, each, n, board) for method, n in plan.chains for each in problems]
        callers = {"reason": thinks.caller, "summary": sums_up.caller}
        rows = driven(talks, callers | ({"condense": thinks.condenser} if thinks.condenser else {}))
        return [row for each in rows for row in each], list(ledger.rows)


def source_of(folder: Path, plan: Plan, problems: Sequence[Problem], config: EvalConfig) -> Source:
    """What other tools are told of an evaluation; its model is the one that the ledger says has thought."""
    attempts = json.loads((folder / PROVENANCE).read_text(encoding="utf-8"))["attempts"]
    model = next((row["model"] for row in read_ledger(folder) if row.get("role") == "reason"), "replayed")
    dataset = f"{config.split} split, problems {fingerprint(problems)}"
    return Source(model, dataset, attempts[0]["started"], plan.reason, problems)


def check_errors(rows: Sequence[Row], most: float) -> None:
    """Raise :class:`DeliberationError` where more chains than allowed ended in an error."""
    chains = {(row["method"], row["id"], row["chain"]): row["error"] for row in rows}
    failed = [error for error in chains.values() if error]
    if len(failed) > most * len(chains):
        raise DeliberationError(
            f"{len(failed)} of {len(chains)} chains ended in an error, more than task.max_errors={most} allows; the first: "
            f"{failed[0]}. What was answered is kept: the same command asks again where a call failed"
        )


def described(plan: Plan, rows: Sequence[Row]) -> dict[str, Any]:
    """Who thought, and how, and what was taken from elsewhere."""
    settings = plan.settings
    taken = {"from": settings.replay, "iteration": plan.past.upto, "changed": settings.changed, **amount(rows, plan.past.upto)}
    if plan.backend.cost(1, 0, 1) is None:
        taken["cost_usd"] = None
    return {
        "about": {method: METHODS[method] for method in plan.methods},
        "num_samples": settings.num_samples,
        "memory": settings.memory,
        "hand_on": plan.hand_on,
        "num_thoughts": plan.backend.num_thoughts,
        "stop": settings.stop,
        "extractors": list(plan.grading.extractors),
        "weights": {name: WEIGHTS[name] for name in settings.weights},
        "prompts": plan.prompts,
        **({"replayed": taken} if settings.replay else {}),
        **({"chosen_by_gold": BY_GOLD} if settings.wrong_of else {}),
    }


def found(rows: Sequence[Row], plan: Plan, seed: int) -> dict[str, Any]:
    """The curves, and the comparison at the tokens of one chain and of all chains."""
    points = curves(rows, plan.settings.weights)
    one = points[plan.methods[0]][-1].tokens
    budgets = {"one chain": one, **({"all chains": one * plan.settings.chains} if plan.settings.chains > 1 else {})}
    return {
        "curves": drawn(points, seed),
        "equal": {name: at_equal_tokens(points, budget, seed) for name, budget in budgets.items()},
        "stops": stops(rows),
    }


def read_again(calls: Sequence[Row]) -> int:
    """Of the tokens read, those of calls that only continue an attempt which was cut off, and so are read and paid again."""
    return sum(row["tokens"]["prompt"] for row in calls if row.get("role") == "reason" and row["part"])


def stops(rows: Sequence[Row]) -> dict[str, dict[str, int]]:
    """Why the chains of each method ended, counted."""
    counts: dict[str, dict[str, int]] = {}
    for row in rows:
        if row["stop_reason"] and not row["is_carried"]:
            each = counts.setdefault(row["method"], {})
            each[row["stop_reason"]] = each.get(row["stop_reason"], 0) + 1
    return counts


def shown(result: Mapping[str, Any], folder: Path, command: Sequence[str], board: Board, problems: Sequence[Problem]) -> None:
    """Write tables, figures and page."""
    with atomic(folder / TABLES) as temporary:
        temporary.write_text(as_csv(result), encoding="utf-8")
    with atomic(folder / TOKENS) as temporary:
        draw_tokens(result, temporary)
    with atomic(folder / ITERATIONS) as temporary:
        draw(dict(result), temporary)
    kinds = {name: meaning for name, meaning in KINDS.items() if name != "going_on"}
    cases = {"cards": cards(board, problems), "counts": counts(board, problems), "kinds": kinds, "total": len(problems)}
    write(folder / PAGE, "iterations.html.j2", [folder / TOKENS, folder / ITERATIONS], command, result=result, cases=cases)


def as_csv(result: Mapping[str, Any]) -> str:
    """Every point of every curve in a row of its own."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["recipe", "size", "tokens", "n", "accuracy", "low", "high"])
    for name, line in result["curves"].items():
        for each in line:
            writer.writerow(
                [name, each["size"], each["tokens"], *(each["accuracy"][key] for key in ("n", "value", "low", "high"))]
            )
    return file.getvalue()


def in_words(result: Mapping[str, Any]) -> Iterator[str]:
    """A result in lines for the terminal."""
    yield from iterations_in_words(dict(result))
    for name, each in result["equal"].items():
        yield f"at the tokens of {name} ({each['tokens']:,.0f} written for a problem):"
        head = ["accuracy, %", "size", "tokens", "accuracy [95%]", "minus the first", "p, Holm"]
        order = list(each["recipes"])
        pairs = {pair["worse"]: pair for pair in each["pairs"] if pair["better"] == order[0]} if order else {}
        yield from aligned([head, *(equal_row(recipe, each["recipes"][recipe], pairs.get(recipe)) for recipe in order)])
        yield each["verdict"]
    if said := result.get("chosen_by_gold"):
        yield said
    calls = result["calls"]
    money = "" if calls["cost_usd"] is None else f", {calls['cost_usd']:.4f} US dollars"
    again = f" ({calls['read_again']:,} again, to continue what was cut off)" if calls.get("read_again") else ""
    tokens = f"{calls['tokens']['prompt']:,} tokens read{again}, {calls['tokens']['completion']:,} written"
    yield f"{calls['calls']} calls ({calls['failed']} failed), {tokens}{money}"
    if taken := result.get("replayed"):
        yield f"{taken['attempts']} attempts ({taken['tokens']:,} tokens) are taken from {taken['from']} and in no call above"


def equal_row(name: str, recipe: Mapping[str, Any], pair: Mapping[str, Any] | None) -> list[str]:
    """A recipe's row; ``pair`` compares it with the first."""
    cells = [name, str(recipe["size"]), f"{recipe['tokens']:,.0f}", interval(recipe["accuracy"])]
    if pair is None:
        return [*cells, "-", "-"]
    flipped = {
        "low": 0 - pair["difference"]["high"],
        "value": 0 - pair["difference"]["value"],
        "high": 0 - pair["difference"]["low"],
    }
    return [*cells, interval(flipped, signed=True), p_value(pair["sign_flip_holm_p"])]
