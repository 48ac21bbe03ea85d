import os
import subprocess
import sys
from pathlib import Path

import pytest

from latent_lab.config import Job, config_folder
from latent_lab.door import door
from latent_lab.problems import DataError

REPOSITORY = Path(__file__).resolve().parents[1]


def start(module: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a door as a person does, from a folder of its own."""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-X", "importtime", "-m", module, *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=False)


def said(stderr: str) -> list[str]:
    """Lines of stderr without Python's import report."""
    return [line for line in stderr.splitlines() if not line.startswith("import time:")]


@pytest.fixture
def knock(monkeypatch: pytest.MonkeyPatch):
    """Stand before the train door in this process: returns the jobs that reached the work."""

    def knock(*arguments: str, work=lambda job: None) -> list[Job]:
        done: list[Job] = []
        monkeypatch.setattr(sys, "argv", ["train", *arguments])
        door("train", lambda job: (done.append(job), work(job)))
        return done

    return knock


def test_a_wrong_override_costs_one_line_and_no_torch(tmp_path: Path) -> None:
    ended = start("latent_lab.train", "stage=3", "seed=abc", cwd=tmp_path)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert said(ended.stderr) == ["error: seed: given abc; allowed: an integer"]
    assert not any(line.rpartition("|")[2].strip() in ("torch", "transformers") for line in ended.stderr.splitlines())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["train", "eval"])
def test_help_lists_groups_and_examples(name: str, tmp_path: Path) -> None:
    ended = start(f"latent_lab.{name}", "--help", cwd=tmp_path)
    assert ended.returncode == 0
    assert "stage: 0, 1, 2, 3, 4, 5, 6, all, coconut, cot, no_cot\n" in ended.stdout
    assert ended.stdout.count(f"python -m latent_lab.{name} ") >= 7
    assert f'eval "$(latent-lab-{name} -sc install=bash)"' in ended.stdout
    assert "torch" not in {line.rpartition("|")[2].strip() for line in ended.stderr.splitlines()}
    assert list(tmp_path.iterdir()) == []


def test_cfg_shows_every_default(knock, capsys: pytest.CaptureFixture[str]) -> None:
    assert knock("stage=3", "--cfg", "job") == []
    shown = capsys.readouterr().out
    assert "stage:\n  kind: coconut\n  stages:\n  - 3\n" in shown
    assert "optim:\n" in shown
    assert "  lr: 0.001\n" in shown


def test_flags_and_overrides_come_in_any_order(knock) -> None:
    assert [job.slug for job in knock("stage=1,2", "-m", "seed=7")] == ["stage=1,seed=7", "stage=2,seed=7"]


def test_completion_knows_the_options(knock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COMP_LINE", "latent-lab-train stage.la")
    assert knock("-sc", "query=bash") == []
    assert capsys.readouterr().out.split() == ["stage.latents_from=", "stage.latents_per_step="]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--resolv", "--cgf"], "--cgf: given nothing; there is no such flag; allowed: --help, "),
        (["--cfg", "jobs"], "--cfg/-c: given --cfg jobs; invalid choice: 'jobs' (choose from 'job', 'hydra', 'all')"),
        (["-m", "--cfg", "job"], "flags: given --multirun, --cfg; allowed: one of them"),
        (["--package", "model"], "--package: given nothing; allowed: only beside --cfg"),
        (["-cn", "other"], "--config-name: given other; allowed: experiment=NAME, --config-dir DIR"),
        (["seeed=1", "--cfg", "job"], "seeed: given 1; there is no such key; "),
        (["-m", "seed=1,x"], "seed: given x; allowed: an integer (in the job seed=x)"),
    ],
)
def test_a_wrong_command_line_is_exit_code_2(arguments: list[str], line: str, knock, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        knock(*arguments)
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: {line}")


def test_a_users_error_in_the_work_is_one_line_too(knock, capsys: pytest.CaptureFixture[str]) -> None:
    def work(job: Job) -> None:
        raise DataError("problems.jsonl, row 3: no field 'answer'")

    with pytest.raises(SystemExit) as ended:
        knock("seed=1", work=work)
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: problems.jsonl, row 3: no field 'answer'\n"


def test_an_error_of_the_program_keeps_its_traceback(knock) -> None:
    def work(job: Job) -> None:
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        knock(work=work)


def test_a_failing_job_does_not_stop_a_sweep(knock, caplog: pytest.LogCaptureFixture) -> None:
    reached = []

    def work(job: Job) -> None:
        reached.append(job.slug)
        if job.config.seed == 1:
            raise DataError("no such file")

    with pytest.raises(SystemExit) as ended:
        knock("-m", "seed=1,2", work=work)
    assert ended.value.code == 2
    assert reached == ["seed=1", "seed=2"]
    assert caplog.messages[-1] == "1 of 2 jobs failed: seed=1"


def test_an_extra_config_folder_adds_experiments(knock, tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text('# @package _global_\ndefaults:\n  - override /stage: "3"\nseed: 5\n')
    [made] = knock("--config-dir", str(tmp_path), "experiment=mine")
    assert (made.config.stage.stages, made.config.seed, made.slug) == ([3], 5, "experiment=mine")
    assert made.sibling(stage="2").config.seed == 5


def test_an_error_in_a_file_names_the_file(knock, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "wrong.yaml").write_text("# @package _global_\nseed: x\n")
    with pytest.raises(SystemExit):
        knock("--config-dir", str(tmp_path), "experiment=wrong")
    assert capsys.readouterr().err == "error: seed: given x; allowed: an integer (in experiment/wrong.yaml)\n"


def test_a_launcher_of_hydras_gets_the_same_jobs(knock, tmp_path: Path) -> None:
    made = knock("-m", "hydra/launcher=basic", "stage=1,2", f"outputs={tmp_path}")
    assert [job.slug for job in made] == ["stage=1", "stage=2"]


def test_the_config_folder_is_absolute() -> None:
    assert Path(config_folder()) == REPOSITORY / "conf"
