"""The parts of a thoughts report: what each reader and each intervention says, on the same thoughts."""

import random
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from latent_lab.problems import Problem
from latent_lab.problems.arithmetic import sum_asked
from latent_lab.report.explorer import examples
from latent_lab.report.play import Player, Reader, Saying, StepReader
from latent_lab.report.thoughts_claims import SITE, columns_of
from latent_lab.report.thoughts_reading import Reading
from latent_lab.thoughts.agreement import agreement_report
from latent_lab.thoughts.columns import column_report, exchange_answers
from latent_lab.thoughts.commuted import commuted_report, thoughts_of
from latent_lab.thoughts.frontier import frontier_report
from latent_lab.thoughts.geometry import geometry_report
from latent_lab.thoughts.interventions import intervention_report
from latent_lab.thoughts.lenses import lens_report
from latent_lab.thoughts.oracle import Oracle
from latent_lab.thoughts.oracle_report import oracle_report
from latent_lab.thoughts.pairs import COMMUTED, Columns
from latent_lab.thoughts.probe_targets import targets
from latent_lab.thoughts.probes import most_steps, probe_report, steps_right
from latent_lab.thoughts.scores import score

LONGEST_STEP = 32
"""Tokens an oracle may write."""
TextReader = Callable[[Tensor | None, Sequence[int]], list[str]]
MOST_EXCHANGED = 300
"""Exchanges in which report and answer are held against each other."""


def geometry(reading: Reading) -> dict[str, Any]:
    """How long the thoughts are, how alike, and how far from any word."""
    words: Any = reading.at.solver.reasoner.model.get_input_embeddings()
    return geometry_report(reading.test, words.weight.detach().float().cpu(), seed=reading.config.seed)


def lenses(reading: Reading) -> dict[str, Any]:
    """Every lens on every layer."""
    at = reading.at
    return lens_report(
        reading.train,
        reading.test,
        at.solver.reasoner,
        at.solver.backbone.tokenizer,
        reading.grammar,
        reading.test.layers,
        seed=reading.config.seed,
        slots_to_steps=reading.slots_to_steps,
        start=reading.start,
        other_seed=reading.other,
    )


def probes(reading: Reading) -> dict[str, Any]:
    """Linear probes of every layer."""
    return probe_report(
        reading.train,
        reading.test,
        reading.grammar,
        reading.test.layers,
        seed=reading.config.seed,
        slots_to_steps=reading.slots_to_steps,
        start=reading.start,
        other_seed=reading.other,
    )


def oracle(reading: Reading) -> dict[str, Any]:
    """What the run's oracle says, from every source."""
    assert reading.oracle_folder is not None
    reader = opened(reading)
    y = targets(reading.test, reading.grammar, most_steps(reading.train))
    report = oracle_report(
        reader,
        reading.train,
        reading.test,
        reading.grammar,
        seed=reading.config.seed,
        other_seed=reading.other,
        probe=steps_right(reading.fitted, reading.test, y),
    )
    return {"run": str(reading.oracle_folder), "kind": reader.options.kind, **report}


def opened(reading: Reading) -> Oracle:
    """The run's oracle."""
    assert reading.oracle_folder is not None
    reader = Oracle.load(reading.oracle_folder / "checkpoint")
    return reader.to(reading.at.solver.reasoner.device)


def interventions(reading: Reading) -> dict[str, Any]:
    """Thoughts changed in every way, and for sums one column exchanged for another's."""
    at = reading.at
    report = intervention_report(
        at.solver,
        reading.problems,
        reading.encoded,
        reading.train,
        reading.grammar,
        seed=reading.config.seed,
        most=reading.task.intervened,
    )
    whole = report.pop("thoughts", {})
    report |= {"num_thoughts": report.pop("sweep"), "whole": whole}
    sums = reading.sums
    if sums and at.solver.num_slots:
        exchanged = interchange(column_report(at.solver, sums, seed=reading.config.seed, encoder=reading.encode))
        same = commuted_report(
            at.solver,
            sums,
            text_readers(reading),
            encoder=reading.encode,
            slot_of_step=reading.slot_of_step,
            seed=reading.config.seed,
        )
        if at.solver.reasoner.loop.alone:  # later blocks of a slot hold nothing of the next thought that the answer could see
            for table in (exchanged, *(same.get(way, {}) for way in COMMUTED)):
                table.pop("step", None)
        report |= {"interchange": exchanged, "commuted": same}
    return report


def text_readers(reading: Reading) -> dict[str, TextReader]:
    """Readers of single thoughts that say a step in words: a probe, and the run's oracle where there is one that does."""
    readers = {"probe": probe_reader(reading)}
    if reading.oracle_folder is not None and reads_one_thought(reader := opened(reading)):
        readers["oracle"] = oracle_reader(reader)
    return readers


def interchange(report: dict[str, Any]) -> dict[str, Any]:
    """Of each site of exchange a row for each column of the longest sums, and all numbers of digits for the record."""
    found: dict[str, Any] = {}
    for site, table in report.get("independent", {}).items():
        lengths = sorted(key for key in table if key.startswith("digits="))
        if not lengths:
            continue
        summary = report.get("summary", {}).get(site, {})
        found[site] = {
            "columns": columns_of(table[lengths[-1]]),
            "digits": {key: table[key] for key in lengths},
            "all": table.get("overall"),
            "chance": report["chance"],
            "necessity": {"drop": (summary.get("drop") or {}).get("value"), "interval": summary.get("drop")},
            "minimal": {name: report[name][site] for name in ("same_carry", "flipped_carry") if site in report.get(name, {})},
        }
    return found


def agreement(reading: Reading) -> dict[str, Any]:
    """What readers report where the model is wrong, and where one column was exchanged."""
    readers = text_readers(reading)
    at = reading.at
    if at.solver.reasoner.loop.feeds != "thoughts":
        return {}
    report = agreement_report(
        at.solver,
        reading.problems,
        reading.encoded,
        reading.grammar,
        readers,
        slot_of_step=reading.slot_of_step,
        least=reading.task.thresholds.min_errors,
        seed=reading.config.seed,
    )
    if "oracle" in readers and (pairs := differing_pairs(reading)):
        report["exchange"] = moved_together(reading, readers["oracle"], pairs)
    return report


def reads_one_thought(reader: Oracle) -> bool:
    """Whether an oracle is asked about single thoughts as they are fed in; one that reads other layers, or all thoughts at once,
    cannot be shown a thought that was exchanged alone."""
    return reader.options.thoughts != "all" and list(reader.options.read_layers) == [0]


def oracle_reader(reader: Oracle) -> TextReader:
    """An oracle as a reader of single thoughts: the step it writes."""
    question = reader.writer.questions("step")[0]

    def read(vectors: Tensor | None, slots: Sequence[int]) -> list[str]:
        given = None if vectors is None else vectors[:, None].to(reader.device)
        return [each.text for each in reader.ask(given, [question] * len(slots), LONGEST_STEP)]

    return read


def probe_reader(reading: Reading) -> TextReader:
    """Linear probes as a reader of single thoughts: the step with the likeliest fields."""
    fitted = reading.fitted

    def read(vectors: Tensor | None, slots: Sequence[int]) -> list[str]:
        width = reading.train.layer(0).shape[2]
        given = torch.zeros(len(slots), width) if vectors is None else vectors
        said = []
        for vector, slot in zip(given, slots, strict=True):
            chosen = {
                field: values[int(fitted.read(slot, field, vector[None])[0].argmax())]
                for field, values in reading.grammar.values.items()
            }
            said.append(reading.grammar.render(chosen))
        return said

    return read


def moved_together(reading: Reading, read: TextReader, pairs: Sequence[tuple[Problem, Problem, int]]) -> dict[str, Any]:
    """Of exchanges of one column, how often the report of the donor's thought and the answer both say the donor's digit.

    ``both``, ``report_only``, ``answer_only`` and ``neither`` are scores; ``pairs`` are those of :func:`differing_pairs`.
    """
    at = reading.at
    donors = reading.encode([donor for _, donor, _ in pairs])
    recipients = reading.encode([recipient for recipient, _, _ in pairs])
    items = list(zip(recipients, donors, [column for *_, column in pairs], strict=True))
    answers = exchange_answers(at.solver, items, kind=SITE, seed=reading.config.seed)
    slots = [reading.slot_of_step(column) for *_, column in pairs]
    reports = read(thoughts_of(at.solver, donors, slots), slots)
    told, done = [], []
    for (_, donor, column), report, answer in zip(pairs, reports, answers, strict=True):
        digit = str(Columns.of(donor).added()[column][0])
        told.append((reading.grammar.parse(report) or {}).get("write") == digit)
        done.append(answer is not None and len(answer) > column and answer[-1 - column] == digit)
    ids = [recipient.id for recipient, _, _ in pairs]
    both = {"both": (True, True), "report_only": (True, False), "answer_only": (False, True), "neither": (False, False)}
    return {
        name: score([float((t, d) == wanted) for t, d in zip(told, done, strict=True)], ids, seed=reading.config.seed)
        for name, wanted in both.items()
    }


def differing_pairs(reading: Reading) -> list[tuple[Problem, Problem, int]]:
    """``(recipient, donor, column)``: sums with as many digits that differ in the digit of a column, drawn with the seed.

    Few problems may have none.
    """
    rng = random.Random(f"pairs/{reading.config.seed}")
    by_digits: dict[int, list[Problem]] = {}
    for problem in reading.sums:
        by_digits.setdefault(len(Columns.of(problem).a), []).append(problem)
    found = []
    for problem in rng.sample(reading.sums, min(len(reading.sums), 4 * MOST_EXCHANGED)):
        digits = len(Columns.of(problem).a)
        donor, column = rng.choice(by_digits[digits]), rng.randrange(digits)
        if Columns.of(problem).added()[column][0] != Columns.of(donor).added()[column][0]:
            found.append((problem, donor, column))
    return found[:MOST_EXCHANGED]


def frontier(reading: Reading) -> dict[str, Any]:
    """Thoughts against the nodes of a graph, and attention against its edges."""
    report = frontier_report(reading.at.solver, reading.problems, reading.encoded, seed=reading.config.seed)
    slots = [str(slot) for slot in range(report["slots"])]

    def by_slot(table: dict[str, Any]) -> dict[str, list[Any]]:
        names = dict.fromkeys(name for slot in slots for name in table.get(slot, {}))
        return {name: [(table.get(slot, {}).get(name) or {}).get("value") for slot in slots] for name in names}

    last = max(report["attention"], default="", key=int)
    attention = {"attention": by_slot(report["attention"].get(last, {})), "attention_by_block": report["attention"]}
    return {**report, "groups": by_slot(report["inner"]), **attention}


def shown(reading: Reading) -> list[dict[str, Any]]:
    """The explorer's problems, drawn with the seed, with what every reader says of each thought."""
    rng = random.Random(f"examples/{reading.config.seed}")
    problems = rng.sample(reading.problems, min(reading.task.examples, len(reading.problems)))
    pairs = [(problem, donor_for(problem, reading.problems, rng)) for problem in problems]
    steps = [
        [problem.steps[step] if step is not None and step < len(problem.steps) else None for step in reading.slots_to_steps]
        for problem, _ in pairs
    ]
    return examples(Player(reading.at, readers(reading)), pairs, reading.grammar, steps=steps)


def readers(reading: Reading) -> list[Reader]:
    """The readers of the page and of the live view, each with how sure it is."""
    found: list[Reader] = [StepReader(reading.at)] if reading.at.decoder is not None else []
    if reading.oracle_folder is not None:
        reader = opened(reading)
        if reads_one_thought(reader):
            question = reader.writer.questions("step")[0]

            def said(thoughts: Tensor) -> list[tuple[str, float | None]]:
                asked = reader.ask(thoughts[:, None].to(reader.device), [question] * len(thoughts), LONGEST_STEP)
                return [(each.text, each.confidence) for each in asked]

            found.append(Saying("oracle", said))
    fitted = reading.fitted
    return [*found, Saying(fitted.name, lambda thoughts: list(fitted.say(thoughts.cpu())))]


def donor_for(problem: Problem, problems: Sequence[Problem], rng: random.Random) -> Problem:
    """Another problem to take thoughts from: of sums one with as many digits, elsewhere one with as many steps, if there is."""

    def likeness(other: Problem) -> tuple[int, int]:
        meta = sum_asked(other.question)
        return len(other.steps), meta.get("digits", 0)

    own = sum_asked(problem.question).get("digits", 0)
    alike = [p for p in problems if p.id != problem.id and likeness(p)[1] == own and (own or len(p.steps) == len(problem.steps))]
    others = alike or [p for p in problems if p.id != problem.id] or [problem]
    return rng.choice(others)
