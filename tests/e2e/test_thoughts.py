"""``task=thoughts`` from the command's overrides to the page: every part is there, beside its floors, and is found again."""

import json
from pathlib import Path
from typing import Any

import pytest

from latent_lab.config import ConfigError
from latent_lab.report.thoughts_reading import Unreadable
from tests.tiny import evaluate, result, train

READABLE = ("stage=coconut", "stage.stages=[3]", "stage.max_stage=3", "stage.curriculum=false", "stage.epochs=[1]")
SUM = {"question": "34 + 28 ="}
FAST = ("task.train_size=100", "task.examples=2", "threads=1")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    more = ("stage.supervision=1", "stage.decoder=linear", "stage.answer_sees=vectors")
    return train(tmp_path_factory.mktemp("outputs"), *READABLE, *more, "name=mind", "dataset.train_size=200")


@pytest.fixture(scope="module")
def unseen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sums from elsewhere: questions and answers, no steps."""
    path = tmp_path_factory.mktemp("problems") / "unseen.jsonl"
    sums = [(10 + 7 * i % 90, 10 + 13 * i % 90) for i in range(24)]
    path.write_text("".join(json.dumps({"question": f"{a} + {b} =", "answer": str(a + b)}) + "\n" for a, b in sums))
    return path


@pytest.fixture(scope="module")
def read(run: Path, unseen: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("read") / "out"
    evaluate(run, "task=thoughts", "dataset=file", f"dataset.path={unseen}", f"out={out}", *FAST)
    return out


def is_score(given: dict[str, Any]) -> bool:
    return {"value", "n", "low", "high"} <= given.keys()


def test_the_result_holds_what_was_promised(read: Path) -> None:
    found = result(read)
    assert found["ladder"]["level"] in ("L0", "L1", "L2", "L3", "L4", "L5")
    assert [row["level"] for row in found["ladder"]["evidence"]] == ["L1", "L2", "L3", "L4", "L5"]
    assert all(row["kind"] == found["kind"] == "supervised" for row in found["ladder"]["evidence"])
    oracle = found["oracle"]
    assert is_score(oracle["step_exact_match"])
    assert is_score(oracle["column_step_exact_match"])
    assert {"constant", "none", "shuffled", "shuffled_in_stratum"} <= oracle["floors"].keys()
    assert set(found["probes"]["fields"]) == {"a", "b", "carry_in", "total", "write", "carry_out"}
    assert {"real", "zero", "mean", "random", "shuffled", "start"} <= found["probes"]["sources"].keys()
    assert set(found["lenses"]) == {"logit", "embedding", "tuned", "patchscope"}
    assert {"clean", "whole", "num_thoughts", "early_exit", "interchange", "commuted"} <= found["interventions"].keys()
    assert {"zero", "mean", "noise", "transplant", "remove"} <= found["interventions"]["whole"].keys()
    assert set(found["interventions"]["num_thoughts"]) == {"0", "1", "2", "3", "4", "5"}, "up to two more than were trained"
    assert [slot["slot"] for slot in found["geometry"]["slots"]] == [1, 2, 3]
    assert {"value", "low", "high", "n", "probe"} <= oracle["above_probe"].keys()
    assert oracle["above_probe"]["n"] == found["probes"]["column_step_exact_match"]["n"] == oracle["column_step_exact_match"]["n"]
    assert oracle["above_probe"]["probe"]["value"] == found["probes"]["column_step_exact_match"]["value"]
    assert found["store"]["problems"] == 24
    assert found["accuracy"]["n"] == 24


def test_the_files_are_there(read: Path, run: Path) -> None:
    assert "<script" not in (read / "report.html").read_text(encoding="utf-8")
    assert (read / "stores" / "test" / "store.json").is_file()
    assert len((read / "samples.jsonl").read_text(encoding="utf-8").splitlines()) == 24
    assert (run.parent / "mind-oracle-self" / "result.json").is_file(), "the oracle is a run of its own, beside the one it reads"


def test_again_it_is_the_stored_result(run: Path, read: Path, unseen: Path) -> None:
    before = (read / "result.json").read_bytes()
    evaluate(run, "task=thoughts", "dataset=file", f"dataset.path={unseen}", f"out={read}", *FAST)
    assert (read / "result.json").read_bytes() == before


def test_parts_can_be_left_out_and_their_levels_stay_untested(run: Path, unseen: Path, tmp_path: Path) -> None:
    other = train(tmp_path, *READABLE, "seed=1", "name=other")
    only = ("task=thoughts", "task.only=[probes,oracle]", "oracle=none", f"task.other_run={other}")
    stored = ("task.layers=[0,-1]", "task.dtype=float16", "dataset=file", f"dataset.path={unseen}", f"out={tmp_path / 'out'}")
    found = evaluate(run, *only, *stored, *FAST)
    assert "other_seed" in found["probes"]["sources"]
    assert (found["store"]["layers"], found["store"]["dtype"]) == ([0, 2], "float16")
    assert not {"oracle", "lenses", "interventions", "agreement"} & found.keys()
    tested = {row["level"]: row["is_tested"] for row in found["ladder"]["evidence"]}
    assert tested == {"L1": True, "L2": True, "L3": False, "L4": False, "L5": False}


def test_texts_without_a_step_are_refused(run: Path, read: Path, tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text(json.dumps({"question": "hello world", "answer": "62"}))
    with pytest.raises(Unreadable, match="none of the 1 problems has steps"):
        evaluate(run, "task=thoughts", "dataset=file", f"dataset.path={path}", f"out={tmp_path / 'out'}", *FAST)


@pytest.mark.parametrize("rows", [[SUM], [SUM, {"question": "hello"}]])
def test_a_handful_of_problems_is_read_without_a_stop(run: Path, read: Path, tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    path = tmp_path / "few.jsonl"
    path.write_text("".join(json.dumps({"answer": "62", **row}) + "\n" for row in rows))
    found = evaluate(run, "task=thoughts", "dataset=file", f"dataset.path={path}", f"out={tmp_path / 'out'}", *FAST)
    assert found["n"] == len(rows)
    assert "exchange" not in found["agreement"], "no two sums of one length, so there was no thought to exchange"
    assert (tmp_path / "out" / "report.html").is_file()


def test_a_run_without_thoughts_is_refused(tmp_path: Path) -> None:
    silent = train(tmp_path, "stage=no_cot", "stage.epochs=[1]")
    with pytest.raises(Unreadable, match="has no latent slots"):
        evaluate(silent, "task=thoughts", f"out={tmp_path / 'out'}")


def test_settings_that_leave_nothing_to_do_are_refused(run: Path) -> None:
    with pytest.raises(Unreadable, match="leaves nothing to do"):
        evaluate(run, "task=thoughts", "task.only=[oracle]", "oracle=none")


@pytest.mark.parametrize(
    ("key", "name", "said"),
    [
        ("oracle_run", "nobody", "that is no finished run; allowed: its folder, or its name below OUTPUTS"),
        ("oracle_run", "mind", "that run is no oracle; allowed: a finished run of stage=oracle"),
        ("oracle_run", "EVALUATION", "that run is no oracle; allowed: a finished run of stage=oracle"),
        ("other_run", "nobody", "that is no finished run; allowed: its folder, or its name below OUTPUTS"),
        ("other_run", "mind-oracle-self", "that run has no latent slots; allowed: the same run as run= with another seed"),
    ],
)
def test_other_runs_that_are_not_what_they_should_be_are_named_before_a_device_is_set_up(
    run: Path, read: Path, key: str, name: str, said: str
) -> None:
    name = name.replace("EVALUATION", str(read))
    with pytest.raises(ConfigError) as error:
        evaluate(run, "task=thoughts", f"task.{key}={name}", f"outputs={run.parent}", "device=cuda")
    assert str(error.value) == f"task.{key}: given {name}; {said.replace('OUTPUTS', str(run.parent))}"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("task.only=[probes,dreams]", "^task.only: given dreams; allowed: lenses, probes, oracle, interventions$"),
        ("task.layers=[first]", "give numbers of layers"),
        ("task.train_size=5", "allowed: 100 and more"),
        ("task.dtype=int8", "allowed: float32"),
        ("task.thresholds.target_win=1", "^task.thresholds.target_win: given 1.0; allowed: 0 to below 1$"),
    ],
)
def test_wrong_settings_are_said_before_anything_is_read(run: Path, override: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        evaluate(run, "task=thoughts", override)
