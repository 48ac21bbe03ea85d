"""Two processes do what one does: the same losses, the same answers, every problem once, one set of files."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny import TINY, evaluate, result, rows, train

REPOSITORY = Path(__file__).resolve().parents[2]

# 17 problems in batches of 5 (shares of 3 and 2), 40 = 8 * 5 to train on, one of them alone in a micro-batch.
ASKED = (
    "stage=coconut", "stage.stages=[0,1]", "stage.epochs=[0.5,1]", "stage.supervision=0.5", "stage.mix=0.5",
    "batch_size=5", "micro_batch_size=2", "eval_batch_size=5", "eval_every=6", "train_limit=38", "name=x", "threads=1",
)  # fmt: skip


def torchrun(module: str, *overrides: str) -> str:
    """Start a door in two processes; return what they wrote to stderr."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", str(port)]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "ACCELERATE_USE_CPU": "1"}
    ended = subprocess.run(
        [*command, "-m", module, *overrides], env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stderr


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("single"), *ASKED)


@pytest.fixture(scope="module")
def double(tmp_path_factory: pytest.TempPathFactory) -> Path:
    outputs = tmp_path_factory.mktemp("double")
    torchrun("latent_lab.train", *TINY, f"outputs={outputs}", *ASKED)
    return outputs / "x"


def near(value: Any) -> Any:
    """Equal but for rounding: numbers to 1e-5 of their size, all else exactly."""
    if isinstance(value, dict):
        return {key: near(inner) for key, inner in value.items() if key != "seconds"}
    return pytest.approx(value, rel=1e-5, abs=1e-6) if isinstance(value, float) else value


def timed_out_of(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != "seconds"}


def test_two_processes_train_like_one(single: Path, double: Path) -> None:
    metrics = rows(double / "metrics.jsonl")
    assert [timed_out_of(row) for row in metrics] == [near(row) for row in rows(single / "metrics.jsonl")]
    assert sum("train/loss" in row for row in metrics) == 12
    assert timed_out_of(result(double)) == near(result(single))


def test_every_problem_is_answered_once_and_alike(single: Path, double: Path) -> None:
    samples = rows(double / "samples.jsonl")
    assert [row["id"] for row in samples] == [f"valid-{i}" for i in range(17)]
    assert samples == rows(single / "samples.jsonl")
    assert {score["n"] for score in result(double)["floors"].values()} == {17}


def test_one_process_writes_the_files(single: Path, double: Path) -> None:
    assert sorted(path.name for path in double.iterdir()) == sorted(path.name for path in single.iterdir())
    assert sorted(path.name for path in (double / "checkpoint").iterdir()) == sorted(
        path.name for path in (single / "checkpoint").iterdir()
    )
    assert len(json.loads((double / "provenance.json").read_text())["attempts"]) == 1


def test_two_processes_grade_like_one(double: Path, tmp_path: Path) -> None:
    alone = evaluate(double, "batch_size=4", f"out={tmp_path}/alone")
    said = torchrun("latent_lab.eval", f"run={double}", "device=cpu", "batch_size=3", f"out={tmp_path}/together")
    together = result(tmp_path / "together")
    assert timed_out_of(together) == near(alone)
    assert together["accuracy"]["n"] == 11
    assert rows(tmp_path / "together" / "samples.jsonl") == rows(tmp_path / "alone" / "samples.jsonl")
    assert len(re.findall("floors: ", said)) >= 1
    names = sorted(path.name for path in (tmp_path / "together").iterdir())
    assert names == [".lock", "config.yaml", "provenance.json", "result.json", "samples.jsonl"]


@pytest.mark.slow
def test_two_processes_make_the_study_that_one_makes(double: Path, tmp_path: Path) -> None:
    asked = (f"run={double}", "device=cpu", "tool=[repair,calculator]", "batch_size=3")
    torchrun("latent_lab.eval", *asked, "seed=1", f"out={tmp_path}/together")
    alone = evaluate(double, *asked[2:], "seed=2", f"out={tmp_path}/alone")
    together = result(tmp_path / "together")
    assert together["n"] == 11
    assert rows(tmp_path / "together" / "samples.jsonl") == rows(tmp_path / "alone" / "samples.jsonl")
    for found in (together, alone):
        for run in found["runs"].values():
            assert run["tools"]["calculator"]["n"] == 11


@pytest.mark.slow
def test_two_processes_return_a_stored_result(double: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in double.rglob("*") if path.name != ".lock"}
    torchrun("latent_lab.train", *TINY, f"outputs={double.parent}", *ASKED)
    assert {path: path.stat().st_mtime_ns for path in double.rglob("*") if path.name != ".lock"} == before
