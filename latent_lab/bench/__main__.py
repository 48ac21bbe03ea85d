"""``python -m latent_lab.bench``: measure, print the table, write ``result.json`` and ``growth.png``."""

import argparse
import logging
import platform
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from latent_lab.bench.answering import answering_rows
from latent_lab.bench.steps import MINI, QUESTION, SLOTS, seconds_of, step_rows, throughput
from latent_lab.bench.timing import Row
from latent_lab.bench.waiting import waiting_rows
from latent_lab.files import write_json
from latent_lab.report.bench_figure import draw_growth

log = logging.getLogger(__name__)

POINT = {"layers": MINI[0], "width": MINI[1], "rows": 16, "question": QUESTION, "slots": SLOTS}
"""Where the figure's four lines cross."""
ALONG = {"rows": (4, 8, 16, 32, 64), "slots": (0, 1, 3, 6, 12), "question": (20, 40, 80, 160, 320), "width": (64, 128, 256, 512)}


def main() -> None:
    """Measure everything and write the result."""
    parser = argparse.ArgumentParser(prog="python -m latent_lab.bench", description=__doc__)
    parser.add_argument("--pairs", type=int, default=5, help="how often each pair is timed (default 5)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    parser.add_argument("--out", type=Path, default=Path("outputs/bench"), help="folder for result.json and growth.png")
    parser.add_argument("--quick", action="store_true", help="small batches and no GPT-2 small: a look, not a measurement")
    given = parser.parse_args()
    if given.pairs < 2:
        parser.error(f"--pairs {given.pairs}: allowed are 2 and more, quartiles need them")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("latent_lab").setLevel(logging.WARNING)
    log.setLevel(logging.INFO)
    torch.set_num_threads(given.threads)
    start, rows = time.perf_counter(), []
    for row in measured(given.pairs, is_quick=given.quick):
        log.info("%s", row.in_words())
        rows.append(row)
    achieved = throughput(given.pairs)
    log.info("a step of mini, 32 rows: %(step_gflops).0f GFLOP/s of %(matmul_gflops).0f that a large product reaches", achieved)
    growth = {name: list(points(name, 3)) for name in ALONG}
    given.out.mkdir(parents=True, exist_ok=True)
    draw_growth(given.out / "growth.png", growth)
    result = {
        "device": "cpu",
        "machine": platform.machine(),
        "threads": given.threads,
        "torch": torch.__version__,
        "seconds": round(time.perf_counter() - start, 1),
        "rows": [row.as_dict() for row in rows],
        "throughput": achieved,
        "growth": growth,
    }
    write_json(given.out / "result.json", result)
    missed = [row.name for row in rows if not row.holds]
    log.info("%d of %d bars hold%s", len(rows) - len(missed), len(rows), f"; missed: {'; '.join(missed)}" if missed else "")
    log.info("%s", given.out / "result.json")


def measured(n: int, *, is_quick: bool) -> Iterator[Row]:
    """Every row, as soon as it is measured."""
    yield from step_rows(n, is_quick=is_quick)
    yield from answering_rows(max(n // 2, 2))
    yield from waiting_rows(n)


def points(name: str, n: int) -> Iterator[dict[str, Any]]:
    """Median seconds of both sides along one of the four lines."""
    for value in ALONG[name]:
        pair = seconds_of(**{**POINT, name: value})
        ours, theirs = (sorted(side)[n // 2] for side in zip(*(pair() for _ in range(n)), strict=True))
        yield {"at": value, "ours": ours, "plain": theirs}


if __name__ == "__main__":
    main()
