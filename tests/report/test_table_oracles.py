"""``task=table`` of oracles: a row for each setting, from what their trainings found; nothing is graded."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from latent_lab.config import ConfigError
from latent_lab.job import job
from tests.tiny import result


def score(value: float, floor: float, n: int = 200) -> dict[str, Any]:
    gain = {"value": (value - floor) / (1 - floor), "low": None, "high": None}
    return {"value": value, "low": value - 0.05, "high": value + 0.05, "n": n, "clusters": 90, "floor": floor, "gain": gain}


def oracle(outputs: Path, name: str, value: float, *overrides: str) -> None:
    """The folder of an oracle that nobody trained."""
    said = ["experiment=oracle", "stage.run=mind", *overrides, f"name={name}", f"outputs={outputs}"]
    folder = outputs / name
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(json.dumps(job("train", said).plain))
    (folder / "provenance.json").write_text(json.dumps({"attempts": [{"command": ["python", "-m", "latent_lab.train", *said]}]}))
    found = {"column_step_exact_match": score(value, 0.2), "step_exact_match": score(value + 0.1, 0.25, 260), "seconds": 30.0}
    (folder / "result.json").write_text(json.dumps(found))


def test_a_grid_of_settings_is_one_table(tmp_path: Path) -> None:
    for adapter, values in (("raw", [0.2]), ("whitened", [0.5, 0.7])):
        for seed, value in enumerate(values):
            oracle(tmp_path, f"{adapter}-seed{seed}", value, f"oracle.adapter={adapter}", f"seed={seed}")
    asked = job("eval", ["task=table", "task.runs=[*-seed*]", f"outputs={tmp_path}", f"out={tmp_path / 'table'}"])
    found = asked.config.task.run(asked)
    assert found == result(tmp_path / "table")
    assert [(row["label"], row["seeds"], row["column_step_exact_match"]["by_seed"]) for row in found["rows"]] == [
        ("raw", [0], [0.2]),
        ("whitened", [0, 1], [0.5, 0.7]),
    ]
    lines = (tmp_path / "table" / "table.md").read_text(encoding="utf-8").splitlines()
    assert lines[2:4] == [
        "| `raw` | 1 | 20.0 [15.0, 25.0] | 20.0 | 0.0 | 30.0 | 200 | 30 |",
        "| `whitened` | 2 | 60.0 [45.0, 75.0] | 20.0 | 50.0 | 70.0 | 400 | 30 |",
    ]
    assert lines[-1] == f"    {shlex.join(asked.command)}"


def test_oracles_share_no_table_with_runs_that_answer_and_are_held_against_none(tmp_path: Path) -> None:
    oracle(tmp_path, "reader", 0.5)
    folder = tmp_path / "mind"
    folder.mkdir()
    said = ["stage=cot", "name=mind", f"outputs={tmp_path}"]
    (folder / "config.yaml").write_text(json.dumps(job("train", said).plain))
    (folder / "result.json").write_text("{}")
    (folder / "provenance.json").write_text(json.dumps({"attempts": [{"command": ["python", "-m", "latent_lab.train", *said]}]}))
    for runs, more, message in (
        (
            "[reader,mind]",
            [],
            "task.runs: given reader; oracles answer no problems, the others do; allowed: one sort",
        ),
        (
            "[reader]",
            ["task.against=[reader]"],
            "task.against: given reader; oracles answer no problems; allowed: leave it out",
        ),
    ):
        asked = job("eval", ["task=table", f"task.runs={runs}", f"outputs={tmp_path}", *more])
        with pytest.raises(ConfigError) as error:
            asked.config.task.run(asked)
        assert str(error.value) == message
