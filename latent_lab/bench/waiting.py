"""What training waits for besides arithmetic: its data, and its start."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from latent_lab.backbone import Backbone
from latent_lab.bench.machine import Machine, done
from latent_lab.bench.timing import Case, Row, row_of, timed
from latent_lab.job import job
from latent_lab.problems.prosqa import ProsQA
from latent_lab.run import accelerator
from latent_lab.stages.course import StageCourse
from latent_lab.supervision import SupervisedReasoner, step_decoder

DEMO = ["experiment=demo", "dataset.train_size=20000"]
IMPORTS = "import torch; from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast"
GRAPHS = 3_000
"""Graphs drawn at a time."""
LIMIT = 120.0
"""Seconds after which a start counts as failed."""


def waiting_cases(machine: Machine) -> Iterator[Case]:
    """The data's share of a step, graphs a second in both forms, and the seconds before the first step."""
    device = machine.device.type
    yield Case("data / training step: the demonstration", lambda name, n: data_row(name, n, device))
    for form in ("text", "symbolic"):
        yield graphs_case(form)
    yield Case("seconds to the first step beyond the imports: train model=nano", lambda name, n: start_row(name, n, device))


def data_row(name: str, n: int, device: str) -> Row:
    """Laying out the demonstration's batches, the order of an epoch included, beside the step they are for.

    On as many threads as its recipe says.
    """
    config = job("train", [*DEMO, f"device={device}"]).config
    with threads(config.threads), accelerator(config.device, config.precision) as at:
        problems = config.problems("train")
        backbone: Backbone = config.model.load(problems)
        course = StageCourse(config, at, backbone, problems, config.problems("valid"))
        phase = course.phases[-1]
        weight, kind = config.stage.step_supervision()
        width, vocabulary = backbone.model.config.hidden_size, backbone.model.config.vocab_size
        learner = SupervisedReasoner(course.reasoner, step_decoder(kind, width, vocabulary, course.longest_step), weight)
        learner.to(at.device)
        order = timed(lambda: course.batches(phase, 0)) / course.num_batches(phase)
        shares = []
        for numbers in course.batches(phase, 0)[: n + 1]:
            laying = timed(lambda: course.collate(phase, 0, numbers).to(at.device))  # noqa: B023
            batch = course.collate(phase, 0, numbers).to(at.device)

            def step() -> None:
                learner.zero_grad()
                with at.autocast():
                    loss = sum(learner(batch).values())  # noqa: B023
                loss.backward()
                done(at.device)

            shares.append((order + laying) / timed(step))
    return row_of(name, shares[1:], bar=0.02)


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Run with so many CPU threads, None: as many as now; afterwards with as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def graphs_case(form: str) -> Case:
    """ProsQA's graphs drawn and written in one form, a second of CPU time: what one core makes, whatever else it has to do."""
    return Case(f"graphs of ProsQA, {form}, a second of CPU time", lambda name, n: graphs_row(name, n, form))


def graphs_row(name: str, n: int, form: str, size: int = GRAPHS) -> Row:
    """The same, from ``n`` times ``size`` graphs."""

    def rate(seed: int) -> float:
        dataset = ProsQA(form=form, seed=seed)
        return size / timed(lambda: dataset.draw("train", size), time.process_time)  # ``load`` would remember them

    rate(n)  # imports, and the first pages of memory
    return row_of(name, [rate(seed) for seed in range(n)], 2_000.0, is_speedup=True)


def start_row(name: str, n: int, device: str) -> Row:
    """Seconds from the command to the first step of ``model=nano``, less those of importing torch and transformers.

    ``import transformers`` alone imports next to nothing: what counts as its import is that of a model and a tokenizer.
    """
    beyond = []
    for number in range(n):
        imports = timed(lambda: subprocess.run([sys.executable, "-c", IMPORTS], check=True))
        with tempfile.TemporaryDirectory() as folder:
            beyond.append(first_step(Path(folder), number, device) - imports)
    return row_of(name, beyond, bar=5.0)


def first_step(outputs: Path, seed: int, device: str) -> float:
    """Seconds until a new training run has logged its first step; it is stopped then."""
    command = [sys.executable, "-m", "latent_lab.train", f"outputs={outputs}", "name=start", "log_every=1", f"seed={seed}"]
    start = time.perf_counter()
    log, said = outputs / "start" / "metrics.jsonl", outputs / "said.txt"
    with (
        said.open("w") as file,
        subprocess.Popen([*command, f"device={device}"], stdout=subprocess.DEVNULL, stderr=file) as process,
    ):
        try:
            while not (log.exists() and log.stat().st_size):
                if process.poll() is not None:
                    raise RuntimeError(f"{' '.join(command)} ended before its first step: {said.read_text()[-500:]}")
                if time.perf_counter() - start > LIMIT:
                    raise RuntimeError(f"{' '.join(command)} did not reach its first step in {LIMIT:.0f} s")
                time.sleep(0.02)
            return time.perf_counter() - start
        finally:
            process.kill()
