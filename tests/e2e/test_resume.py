"""A run that is killed and repeated ends with the same bytes as one that was never killed."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny import TINY, result, rows, timeless, train

REPOSITORY = Path(__file__).resolve().parents[2]

ASKED = (
    "stage=coconut", "stage.stages=[0,2]", "stage.epochs=[2,4]", "stage.reset_optimizer=stage",
    "stage.supervision=0.5", "stage.mix=0.5", "model.dropout=0.2",
    "optim.schedule=cosine", "optim.warmup=3", "optim.name=muon", "micro_batch_size=5", "eval_every=7", "eval_at_start=true",
    "name=x", "threads=1",
)  # fmt: skip
"""Everything a run could lose is in play: dropout, mixing, two optimisers, a schedule, a fresh optimiser between the stages."""


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = train(tmp_path_factory.mktemp("unbroken"), *ASKED)
    assert result(run)["steps"] == 30
    return run


def command(outputs: Path) -> list[str]:
    return [sys.executable, "-m", "latent_lab.train", *TINY, f"outputs={outputs}", *ASKED, "save_every=0"]


def start(outputs: Path) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen(command(outputs), env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def saved_step(run: Path) -> int:
    """The step of the last checkpoint; 0 without one, as while it is being replaced."""
    try:
        return int(json.loads((run / "state" / "position.json").read_text())["step"])
    except FileNotFoundError:
        return 0


def test_a_run_killed_in_the_middle_and_repeated_ends_with_the_same_bytes(tmp_path: Path, unbroken: Path) -> None:
    run = tmp_path / "x"
    process = start(tmp_path)
    while saved_step(run) < 13 and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (run / "result.json").exists()
    killed_at = max(row["step"] for row in rows(run / "metrics.jsonl"))
    assert 13 <= killed_at < 30

    ended = subprocess.run(command(tmp_path), env=os.environ | {"PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert "continuing from step " in ended.stderr
    assert timeless(run) == timeless(unbroken)
    assert sorted(path.name for path in run.iterdir()) == [
        ".lock", "checkpoint", "config.yaml", "metrics.jsonl", "provenance.json", "result.json", "samples.jsonl",
    ]  # fmt: skip
    assert len(json.loads((run / "provenance.json").read_text())["attempts"]) == 2


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_killed_again_and_again_at_any_moment_it_ends_with_the_same_bytes(tmp_path: Path, unbroken: Path, seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(60):
        process = start(tmp_path)
        begun = saved_step(tmp_path / "x")
        # Loading takes seconds; then the moment is drawn: some steps further, and anywhere within a step.
        further = begun + rng.randint(0, 6)
        while saved_step(tmp_path / "x") <= further and process.poll() is None:
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.08))
        process.kill()
        _, said = process.communicate()
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, said
    assert timeless(tmp_path / "x") == timeless(unbroken)
    assert len(json.loads((tmp_path / "x" / "provenance.json").read_text())["attempts"]) > 3


def test_a_run_killed_before_its_first_checkpoint_begins_again(tmp_path: Path, unbroken: Path) -> None:
    """What a kill in the very first steps leaves: a config, rows of metrics (the last one torn), and no state."""
    broken = tmp_path / "x"
    broken.mkdir()
    (broken / "config.yaml").write_bytes((unbroken / "config.yaml").read_bytes())
    lines = (unbroken / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (broken / "metrics.jsonl").write_bytes(b"".join(lines[:4]) + lines[4][:20])
    assert timeless(train(tmp_path, *ASKED)) == timeless(unbroken)
