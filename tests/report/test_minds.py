"""``task=minds``: results of several runs become one figure; seeds of one model are averaged."""

import json
from pathlib import Path
from typing import Any

import pytest

from latent_lab.config import ConfigError
from latent_lab.job import job
from latent_lab.report.minds import MindsError
from latent_lab.report.sweep_figure import score_of


def rate(value: float) -> dict[str, Any]:
    return {"value": value, "low": value - 0.01, "high": value, "n": 100}


def stored(folder: Path, target: float, **more: Any) -> Path:
    folder.mkdir(parents=True)
    columns = [{"slot": k, "n": 100, "target": rate(target), "donor": rate(0.01), "keep": rate(0.01)} for k in (1, 2)]
    field = {"all": {**rate(0.9), "floor": 0.2}}
    result = {
        "accuracy": rate(1.0), "floors": {"thoughts_another_problem": rate(0.3)}, "kind": "supervised", "ladder": {"level": "L5"},
        "probes": {"fields": {"write": field}},
        "interventions": {"interchange": {"cache": {"columns": columns, "chance": 1 / 9}}}, **more,
    }  # fmt: skip
    (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")
    return folder


def made(tmp_path: Path, *results: str) -> dict[str, Any]:
    asked = job("eval", ["task=minds", f"task.results=[{','.join(results)}]", f"out={tmp_path / 'out'}"])
    found: dict[str, Any] = asked.config.task.run(asked)
    return found


def test_seeds_are_averaged_and_their_intervals_spanned(tmp_path: Path) -> None:
    a, b = stored(tmp_path / "a", 1.0), stored(tmp_path / "b", 0.8)
    other = stored(tmp_path / "c", 0.1, oracle={"column_step_exact_match": {**rate(0.5), "floor": 0.01}})
    found = made(tmp_path, f"open:{a}", f"open:{b}", f"shut:{other}")["models"]
    assert list(found) == ["open", "shut"]
    column = found["open"]["columns"][1]
    assert (column["value"], column["low"], column["high"]) == (pytest.approx(0.9), pytest.approx(0.79), 1.0)
    assert (column["by_seed"], column["n"], found["open"]["seeds"]) == ([1.0, 0.8], 200, 2)
    assert "oracle" not in found["open"]
    assert found["shut"]["oracle"]["floor"] == 0.01
    assert (tmp_path / "out" / "flagship.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("given", [[], ["open:nowhere"]])
def test_what_is_not_there_is_named(tmp_path: Path, given: list[str]) -> None:
    with pytest.raises(MindsError, match=r"task\.results: "):
        made(tmp_path, *given)


def test_a_result_without_exchanges_is_refused(tmp_path: Path) -> None:
    folder = stored(tmp_path / "a", 1.0, interventions={})
    with pytest.raises(MindsError, match="holds no exchange of columns"):
        made(tmp_path, f"open:{folder}")


def test_a_label_is_needed() -> None:
    with pytest.raises(ConfigError, match="allowed: LABEL:FOLDER"):
        job("eval", ["task=minds", "task.results=[outputs/a]"])


def swept(tmp_path: Path, name: str, target: float, **settings: Any) -> Path:
    """A result below the run that it reads, trained with these settings of its stage."""
    run = tmp_path / name
    folder = stored(run / "thoughts", target)
    (run / "config.yaml").write_text(json.dumps({"stage": settings}), encoding="utf-8")
    (folder / "config.yaml").write_text(json.dumps({"run": str(run)}), encoding="utf-8")
    return folder


def test_a_setting_of_the_trained_runs_becomes_an_axis(tmp_path: Path) -> None:
    runs = [(1.0, 1.0), (0.1, 0.6), (0.1, 0.4), (0, 0.2)]
    folders = [swept(tmp_path, f"r{i}", target, supervision=weight) for i, (weight, target) in enumerate(runs)]
    asked = [*(f"open:{folder}" for folder in folders)]
    out = tmp_path / "out"
    job_ = job("eval", ["task=minds", f"task.results=[{','.join(asked)}]", "task.by=stage.supervision", f"out={out}"])
    found = job_.config.task.run(job_)["models"]["open"]
    assert list(found) == ["0", "0.1", "1"]
    assert found["0.1"]["columns"][0]["by_seed"] == [0.6, 0.4]
    assert found["0.1"]["another_problem"]["value"] == 0.3
    assert (out / "sweep.png").read_bytes().startswith(b"\x89PNG")
    assert not (out / "flagship.png").exists()


def test_values_are_ordered_as_numbers_and_lists_are_one_value(tmp_path: Path) -> None:
    folders = [swept(tmp_path, f"r{i}", 0.5, digits=digits) for i, digits in enumerate(([2, 3, 4], [2, 3], [10]))]
    asked = ",".join(f"a:{folder}" for folder in folders)
    job_ = job("eval", ["task=minds", f"task.results=[{asked}]", "task.by=stage.digits", f"out={tmp_path / 'out'}"])
    assert list(job_.config.task.run(job_)["models"]["a"]) == ["2, 3", "2, 3, 4", "10"]


def test_a_setting_that_the_runs_do_not_have_is_named(tmp_path: Path) -> None:
    folder = swept(tmp_path, "r", 0.5, supervision=1.0)
    job_ = job("eval", ["task=minds", f"task.results=[a:{folder}]", "task.by=stage.weight", f"out={tmp_path / 'out'}"])
    with pytest.raises(MindsError, match=r"task\.by: given stage\.weight; .* has no weight there; allowed: supervision"):
        job_.config.task.run(job_)


def test_a_run_that_is_gone_is_named(tmp_path: Path) -> None:
    folder = swept(tmp_path, "r", 0.5, supervision=1.0)
    (tmp_path / "r" / "config.yaml").unlink()
    job_ = job("eval", ["task=minds", f"task.results=[a:{folder}]", "task.by=stage.supervision", f"out={tmp_path / 'out'}"])
    with pytest.raises(MindsError, match=r"task\.by: the run that .* reads is not there any more"):
        job_.config.task.run(job_)


def test_edits_of_a_sweep_are_the_mean_and_the_worst_column_of_each_seed() -> None:
    model = {"columns": [{"by_seed": [1.0, 0.5]}, {"by_seed": [0.5, 0.0]}], "chance": 0.1}
    assert score_of(model, "edit") == {"value": 0.5, "by_seed": [0.75, 0.25], "floor": 0.1}
    assert score_of(model, "worst") == {"value": 0.25, "by_seed": [0.5, 0.0], "floor": None}
