"""Models in a folder, as a hub would hold them, through both doors on published word problems; and on a tracker's dashboard."""

import importlib
import importlib.util
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from test_trackers import items, of_kind, wandb_records
from tiny import TINY, evaluate, result, rows, save_hub_model, train

from latent_lab.job import job
from latent_lab.problems.gsm8k import GSM8K

REPOSITORY = Path(__file__).resolve().parents[2]

GSM8K_SMALL = ("dataset=gsm8k", "stage=1", "debug=smoke", "device=cpu", "stage.epochs=[1]", "log_every=1")


@pytest.fixture(scope="module")
def gsm8k(data_folder: Path) -> Path:
    return data_folder / "gsm8k"


@pytest.fixture(scope="module")
def texts(gsm8k: Path) -> list[str]:
    problems = GSM8K(path=str(gsm8k)).load("train")[:300]
    return [text for p in problems for text in (p.question, *p.steps, f"### {p.answer}")]


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_model_from_a_folder_is_trained_and_graded_on_gsm8k(tmp_path: Path, gsm8k: Path, texts: list[str], family: str) -> None:
    folder = save_hub_model(tmp_path / family, family, texts=texts)
    base = (*GSM8K_SMALL, f"model={folder}", f"dataset.path={gsm8k}")
    run = train(tmp_path / "outputs", base=base)
    earlier, later = sorted(path.name for path in (tmp_path / "outputs").iterdir())
    assert (earlier.count("stage=0"), later) == (1, run.name)
    assert run.name.startswith("model=folder,stage=1,dataset=gsm8k,debug=smoke,")

    found = result(run)
    assert (found["accuracy"]["n"], found["train_problems"], found["steps"], found["stages"]) == (16, 16, 1, [1])
    assert found["thoughts_per_answer"] == 1.0
    assert set(found["floors"]) == {"majority", "thoughts_removed", "thoughts_zeroed", "thoughts_another_problem"}
    (loss,) = [row["train/loss"] for row in rows(run / "metrics.jsonl") if "train/loss" in row]
    assert 4.0 < loss < 8.0  # of a random model over 403 tokens: ln 403 is 6.0

    graded = evaluate(run, "debug=smoke")
    assert (graded["split"], graded["accuracy"]["n"], graded["slots"], graded["seen_in_training"]) == ("test", 16, 1, 0)
    samples = rows(run / "eval" / "debug=smoke" / "samples.jsonl")
    first = GSM8K(path=str(gsm8k)).load("test")[0]
    assert (samples[0]["id"], samples[0]["question"], samples[0]["gold"]) == (first.id, first.question, first.answer)


def test_the_weights_of_a_folder_are_where_training_begins(tmp_path: Path, gsm8k: Path, texts: list[str]) -> None:
    from safetensors.torch import load_file

    folder = save_hub_model(tmp_path / "hub", "gpt2", texts=texts)
    before = load_file(folder / "model.safetensors")
    run = train(
        tmp_path, base=(*GSM8K_SMALL, f"model={folder}", f"dataset.path={gsm8k}", "stage=0", "optim.lr=1e-12", "limit=2"),
    )  # fmt: skip
    after = load_file(run / "checkpoint" / "model.safetensors")
    for name, weight in before.items():
        torch.testing.assert_close(after[name][: len(weight)], weight, rtol=0, atol=1e-9)


@pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason='wandb is not installed: pip install "latent_lab[wandb]"')
def test_wandb_offline_is_told_everything_by_the_door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    for name in ("CACHE", "CONFIG", "DATA"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / "wandb" / name))
    asked = ("stage=coconut", "stage.stages=[0,1]", "stage.epochs=[1]", "stage.supervision=0.5")
    run = train(tmp_path / "outputs", *asked, "tracker=wandb", "tracker.mode=offline", "name=x")
    importlib.import_module("wandb").teardown()  # its own process writes the file, and has written all of it once it is gone
    (path,) = run.glob("wandb/offline-run-*/*.wandb")
    records = wandb_records(path)
    (header,) = of_kind(records, "run")
    assert (header.project, header.display_name, header.job_type) == ("latent_lab", "x", "train")
    assert header.run_group == job("train", [*TINY, *asked]).group
    config = items(header.config.update)
    assert (config["seed"], config["stage"]["stages"], config["model"]["width"]) == (0, [0, 1], 32)

    history = [items(record.item) for record in of_kind(records, "history")]
    metrics = rows(run / "metrics.jsonl")
    sent = [row for row in history if "samples._type" not in row]
    assert len(sent) == len(metrics) == 12
    for given, row in zip(sent, metrics, strict=True):
        assert given["global_step"] == row["step"]
        assert {key: given[key] for key in row if key != "step"} == {key: row[key] for key in row if key != "step"}
        # Each stage has curves of its own.
        curves = {key: value for key, value in row.items() if "/" in key}
        assert {key: given[key] for key in given if key.startswith("stage_")} == {
            f"stage_{row['stage']}/{key}": value for key, value in curves.items()
        }
    (stored,) = run.glob("wandb/offline-run-*/files/media/table/samples_*.table.json")
    table = json.loads(stored.read_text())
    samples = rows(run / "samples.jsonl")
    assert table["columns"] == list(samples[0])
    assert table["data"] == [list(row.values()) for row in samples]
    summary = items(entry for record in of_kind(records, "summary") for entry in record.update)
    for key, value in result(run).items():
        assert summary[key] == value
    assert of_kind(records, "exit")[0].exit_code == 0


@pytest.mark.skipif(importlib.util.find_spec("trackio") is None, reason='it is not installed: pip install "latent_lab[trackio]"')
def test_trackio_takes_the_configuration_the_door_makes(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from latent_lab.job import job\n"
        "from latent_lab.run import open_run\n"
        "asked = job('train', ['stage=2', 'tracker=trackio', 'seed=3'])\n"
        "with open_run(Path(sys.argv[1]), asked.plain, command=asked.command) as run:\n"
        "    run.track(asked.config.tracker, job_type='train', group=asked.group)\n"
        "    run.finish({'accuracy': {'value': 0.5}})\n"
    )
    environment = os.environ | {"TRACKIO_DIR": str(tmp_path / "trackio"), "HF_HOME": str(tmp_path), "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", script, str(tmp_path / "run")]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert (ended.returncode, ended.stdout) == (0, ""), ended.stderr
    with sqlite3.connect(tmp_path / "trackio" / "latent_lab.db") as database:
        ((name, config),) = database.execute("select run_name, config from configs").fetchall()
        ((metrics,),) = database.execute("select metrics from metrics").fetchall()
    config = json.loads(config)
    assert (name, config["seed"], config["stage"]["stages"], config["_Group"]) == ("run", 3, [2], "stage=2")
    assert json.loads(metrics) == {"result/accuracy/value": 0.5}
