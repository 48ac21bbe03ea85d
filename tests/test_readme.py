"""The README's commands are real: every one of them composes, and its tables name what there is."""

import re
import shlex
from pathlib import Path

import pytest

from latent_lab.job import job, jobs
from latent_lab.overrides import options

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    line.split("  #")[0].strip()
    for block in re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL)
    for line in block.splitlines()
    if "-m latent_lab." in line
]


def test_there_are_commands_for_both_doors() -> None:
    assert sum("latent_lab.train" in command for command in COMMANDS) >= 6
    assert sum("latent_lab.eval" in command for command in COMMANDS) >= 3


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_composes(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for run in (
        "demo-seed1",
        "coco",
        *(f"{name}-{seed}" for name in ("open", "sums-0.0", "sums-0.01", "sums-0.1", "sums-1.0") for seed in (1, 2, 3)),
        *(f"{name}-{at}" for name in ("vectors", "emergent") for at in ("d2", "d34")),
        *(
            f"{name}-{layers}-{seed}"
            for name in ("vectors", "emergent")
            for layers in (2, 3, 4, "d2", "d34")
            for seed in (1, 2, 3)
        ),
        "stage=0",
        "stage=3",
        "stage=planning,plan=arithmetic",
        "stage=planning,plan=memory_reason",
        "experiment=stories_cot,seed=1",
        "experiment=gsm_hard_small,seed=1",
        "stories_hard-cot",
    ):
        (tmp_path / "outputs" / run).mkdir(parents=True)
        for name in ("config.yaml", "result.json"):
            (tmp_path / "outputs" / run / name).touch()
    (tmp_path / "checkpoint_33.pt").touch()
    words = shlex.split(command)
    door = next(word for word in words if word.startswith("latent_lab.")).removeprefix("latent_lab.")
    rest = words[words.index(f"latent_lab.{door}") + 1 :]
    if "-m" in rest:
        assert len(jobs(door, [word for word in rest if word != "-m"])) > 1
    else:
        assert job(door, rest).door == door


@pytest.mark.parametrize(
    "group",
    ["model", "peft", "stage", "plan", "dataset", "task", "judge", "backend", "summariser", "tracker", "experiment", "debug"],
)
def test_the_table_of_groups_names_every_option(group: str) -> None:
    (row,) = re.findall(rf"^\| `{group}` \|.*$", README, flags=re.MULTILINE)
    for option in options(group):
        is_in_a_range = group == "stage" and option.isdigit()
        assert is_in_a_range or f"`{option}`" in row or (option == "folder" and "a folder" in row), option
