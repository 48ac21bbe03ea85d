"""``python -m latent_lab.bench``: measure, print the table, write ``result.json`` and ``growth.png``."""

import argparse
import gc
import json
import logging
import platform
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from latent_lab.bench.answering import answering_cases
from latent_lab.bench.machine import Machine, best_device
from latent_lab.bench.steps import QUESTION, SLOTS, seconds_of, step_cases, throughput
from latent_lab.bench.timing import Case
from latent_lab.bench.waiting import waiting_cases
from latent_lab.files import write_json
from latent_lab.report.bench_figure import draw_growth

log = logging.getLogger(__name__)

POINT = {"rows": 16, "question": QUESTION, "slots": SLOTS}
"""Where the figure's four lines cross, at the width of mini."""
ALONG = {"rows": (4, 8, 16, 32, 64), "slots": (0, 1, 3, 6, 12), "question": (20, 40, 80, 160, 320), "width": (64, 128, 256, 512)}


def main(arguments: list[str] | None = None) -> None:
    """Measure everything, or the rows asked for, and write the result."""
    given, machine, cases = asked(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("latent_lab").setLevel(logging.WARNING)
    log.setLevel(logging.INFO)
    torch.set_num_threads(given.threads)
    where = {"device": machine.name, "machine": platform.machine(), "threads": given.threads, "torch": torch.__version__}
    path, start = given.out / "result.json", time.perf_counter()
    try:
        result = stored(path, where) if given.only else {}
    except ValueError as error:
        log.error("error: %s", error)
        sys.exit(2)
    rows = {row["name"]: row for row in result.get("rows", [])}
    for case in cases:
        row = case.measure(case.name, given.pairs)
        log.info("%s", row.in_words())
        rows[row.name] = row.as_dict()
        gc.collect()
    given.out.mkdir(parents=True, exist_ok=True)
    if not given.only:
        result = {"throughput": list(throughput(machine, given.pairs))}
        for each in result["throughput"]:
            log.info("%(name)s: %(step_gflops).0f GFLOP/s of %(matmul_gflops).0f that a large product reaches", each)
        result["growth"] = {name: list(points(machine, name, 3)) for name in ALONG}
        draw_growth(given.out / "growth.png", result["growth"])
        result["seconds"] = round(time.perf_counter() - start, 1)
    write_json(path, where | result | {"rows": list(rows.values())})
    missed = [name for name, row in rows.items() if not row["holds"]]
    with_bar = sum(row["bar"] is not None for row in rows.values())
    log.info("%d of %d bars hold%s", with_bar - len(missed), with_bar, f"; missed: {'; '.join(missed)}" if missed else "")
    log.info("%s", path)


def asked(arguments: list[str] | None) -> tuple[argparse.Namespace, Machine, list[Case]]:
    """What the command line says, where to measure, and which rows."""
    parser = argparse.ArgumentParser(prog="python -m latent_lab.bench", description=__doc__)
    parser.add_argument("--pairs", type=int, default=5, help="how often each pair is timed (default 5; long ones at most 3)")
    parser.add_argument(
        "--only", action="append", metavar="NAME", help="only rows whose name holds this; the rest stays as it was"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default=best_device(), help="default: a GPU if there is one")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    parser.add_argument("--out", type=Path, default=Path("outputs/bench"), help="folder for result.json and growth.png")
    parser.add_argument("--quick", action="store_true", help="small batches and no GPT-2 small: a look, not a measurement")
    given = parser.parse_args(arguments)
    if given.pairs < 2:
        parser.error(f"--pairs {given.pairs}: allowed are 2 and more, quartiles need them")
    if given.threads < 1:
        parser.error(f"--threads {given.threads}: allowed are 1 and more")
    if given.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: PyTorch finds no GPU on this machine; allowed: cpu")
    machine = Machine.named(given.device)
    cases = list(every(machine, is_quick=given.quick))
    if given.only:
        names = "\n  ".join(case.name for case in cases)
        for part in given.only:
            if not any(part in case.name for case in cases):
                parser.error(f"--only {part}: no row's name holds it; there are\n  {names}")
        cases = [case for case in cases if any(part in case.name for part in given.only)]
    return given, machine, cases


def every(machine: Machine, *, is_quick: bool) -> Iterator[Case]:
    """Every row that there is, none of them measured yet."""
    yield from step_cases(machine, is_quick=is_quick)
    yield from answering_cases(machine)
    yield from waiting_cases(machine)


def stored(path: Path, where: dict[str, Any]) -> dict[str, Any]:
    """The result of before, whose other rows stay; ValueError if it was not measured ``where`` the new rows are to be."""
    if not path.exists():
        return {}
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    for key, value in where.items():
        if result.get(key) != value:
            raise ValueError(f"{path}: its rows were measured with {key} {result.get(key)}, not {value}; give another --out")
    return result


def points(machine: Machine, name: str, n: int) -> Iterator[dict[str, Any]]:
    """Median seconds of both sides along one of the four lines."""
    for value in ALONG[name]:
        pair = seconds_of(machine, **{"width": machine.mini[1], **POINT, name: value})
        ours, theirs = (statistics.median(side) for side in zip(*(pair() for _ in range(n)), strict=True))
        yield {"at": value, "ours": ours, "plain": theirs}


if __name__ == "__main__":
    main()
