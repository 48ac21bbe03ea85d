"""docs/judge.md is true: its commands compose, and its tables name every setting with its default."""

import json
import re
import shlex
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from latent_lab.grading.judges import Asking, LocalJudge, OpenAIJudge
from latent_lab.job import job
from latent_lab.overrides import options

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "judge.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^python -m latent_lab\.eval (.*)$", TEXT, re.MULTILINE)
TABLES = [re.findall(r"^\| (`[^|]*)\|([^|]*)\|", part, re.MULTILINE) for part in TEXT.split("| `judge.` |")[1:]]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_composes(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs" / "stage=3").mkdir(parents=True)
    for name in ("config.yaml", "result.json"):
        (tmp_path / "outputs" / "stage=3" / name).touch()
    assert f"judge={job('eval', shlex.split(command)).chosen('judge')}" in command


def test_there_is_a_command_for_every_judge() -> None:
    assert {re.search(r"judge=(\w+)", command)[1] for command in COMMANDS} == set(options("judge")) - {"none"}  # type: ignore[index]
    assert [f"| `{option}` |" in TEXT for option in options("judge")] == [True] * 4


def test_the_tables_name_every_setting_with_its_default() -> None:
    both, server, local = (
        {key: default for names, default in table for key in re.findall(r"`(\w+)`", names)} for table in TABLES
    )

    def declared(kind: type) -> dict[str, Any]:
        return {each.name: each.default for each in fields(kind)}

    shared = declared(OpenAIJudge).keys() & declared(LocalJudge).keys()
    assert shared >= declared(Asking).keys()
    assert both.keys() == shared
    assert server.keys() == declared(OpenAIJudge).keys() - shared
    assert local.keys() == declared(LocalJudge).keys() - shared
    for table, kind in ((both, OpenAIJudge), (both, LocalJudge), (server, OpenAIJudge), (local, LocalJudge)):
        for name, default in table.items():
            if default.strip():
                value = declared(kind)[name]
                assert default.strip() == f"`{value if isinstance(value, str) else json.dumps(value)}`", name
