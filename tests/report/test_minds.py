"""``task=minds``: results of several runs become one figure; seeds of one model are averaged."""

import json
from pathlib import Path
from typing import Any

import pytest

from latent_lab.config import ConfigError
from latent_lab.job import job
from latent_lab.report.minds import MindsError


def rate(value: float) -> dict[str, Any]:
    return {"value": value, "low": value - 0.01, "high": value, "n": 100}


def stored(folder: Path, target: float, **more: Any) -> Path:
    folder.mkdir(parents=True)
    columns = [{"slot": k, "n": 100, "target": rate(target), "donor": rate(0.01), "keep": rate(0.01)} for k in (1, 2)]
    field = {"all": {**rate(0.9), "floor": 0.2}}
    result = {
        "accuracy": rate(1.0), "kind": "supervised", "ladder": {"level": "L5"},
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
