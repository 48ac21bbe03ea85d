import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from latent_lab import eval as eval_door
from latent_lab import train as train_door
from latent_lab.door import door
from latent_lab.job import Job
from latent_lab.overrides import config_folder, options
from latent_lab.problems import DataError

REPOSITORY = Path(__file__).resolve().parents[1]
MISTAKES = re.findall(
    r"^\$ python -m latent_lab\.(\w+)(.*)\n(.*\n(?:(?!\n|```).*\n)*)", (REPOSITORY / "docs" / "errors.md").read_text(), re.M
)
"""Every mistake of the document: the door, its arguments, and all that is printed."""

SMALL = ["debug=smoke", "limit=4", "batch_size=4", "stage.epochs=[1]", "model.layers=2", "model.width=32", "device=cpu"]


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


@pytest.mark.parametrize(("name", "arguments", "printed"), MISTAKES, ids=[f"{name}{text}" for name, text, _ in MISTAKES])
def test_a_mistake_costs_what_the_document_says(
    name: str, arguments: str, printed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LATENT_LAB_OUTPUTS", raising=False)
    monkeypatch.setattr(sys, "argv", [name, *shlex.split(arguments)])
    with pytest.raises(SystemExit) as ended:
        {"train": train_door, "eval": eval_door}[name].main()
    assert ended.value.code == 2
    assert capsys.readouterr() == ("", printed)
    assert list(tmp_path.iterdir()) == []


def test_the_document_shows_twelve_mistakes_and_more() -> None:
    assert len(MISTAKES) >= 12
    assert all(printed.count("\n") == 1 for *_, printed in MISTAKES)


@pytest.mark.parametrize("name", ["train", "eval"])
def test_help_lists_groups_and_examples(name: str, tmp_path: Path) -> None:
    ended = start(f"latent_lab.{name}", "--help", cwd=tmp_path)
    assert ended.returncode == 0
    assert f"stage: {', '.join(options('stage'))}\n" in ended.stdout
    assert ended.stdout.count(f"python -m latent_lab.{name} ") >= 7
    assert f'eval "$(latent-lab-{name} -sc install=bash)"' in ended.stdout
    assert "torch" not in {line.rpartition("|")[2].strip() for line in ended.stderr.splitlines()}
    assert list(tmp_path.iterdir()) == []


def test_cfg_shows_every_default(knock, capsys: pytest.CaptureFixture[str]) -> None:
    assert knock("stage=3", "--cfg", "job") == []
    shown = capsys.readouterr().out
    assert "  kind: coconut\n  stages:\n  - 3\n" in shown
    assert "optim:\n" in shown
    assert "  lr: 0.001\n" in shown


def test_flags_and_overrides_come_in_any_order(knock) -> None:
    assert [job.slug for job in knock("stage=1,2", "-m", "seed=7")] == ["stage=1,seed=7", "stage=2,seed=7"]


@pytest.mark.parametrize(
    ("line", "completed"),
    [
        ("stage.la", ["stage.latents_from=", "stage.latents_per_step="]),
        ("debug=", ["debug=overfit", "debug=smoke"]),
        ("stage=3 see", ["seed="]),
        ("-m stage=1,2 see", ["seed="]),
        ("model=org/name model.p", ["model.path="]),
        ("stage=99 see", []),
        ("stage=null see", []),
    ],
)
def test_a_tab_completes(
    line: str, completed: list[str], knock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COMP_LINE", f"latent-lab-train {line}")
    assert knock("-sc", "query=bash") == []
    assert capsys.readouterr().out.split() == completed


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--resolve", "--cgf"], "flags: given --cgf; there is no such flag; allowed: --help, "),
        (["--cfg", "jobs"], "--cfg/-c: given --cfg jobs; invalid choice: 'jobs' (choose from "),
        (["-m", "--cfg", "job"], "--cfg/-c: given -m --cfg job; not allowed with argument --multirun/-m"),
        (["--package", "model"], "--resolve, --package: given --package model; allowed: only beside --cfg"),
        (["--config-dir", "none"], "--config-dir: given none; there is no such folder; allowed: a folder laid out like conf/"),
        (["--config-name", "other"], "flags: given --config-name; there is no such flag; "),
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


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (
            "a" * 300,
            f"error: {'a' * 300}: File name too long; allowed: a path that can be read and written, with room left on its disk\n",
        ),
        (
            "{here}/file/x",
            "error: {here}/file/x: Not a directory; allowed: a path that can be read and written, with room left on its disk\n",
        ),
    ],
)
def test_a_path_that_is_no_place_is_one_line(
    path: str, line: str, knock, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as ended:
        knock(work=lambda job: Path(path.format(here=tmp_path)).mkdir())
    assert (ended.value.code, capsys.readouterr().err) == (2, line.format(here=tmp_path))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk that is always full")
def test_a_full_disk_is_one_line(knock, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        knock(work=lambda job: Path("/dev/full").write_text("a result"))
    assert ended.value.code == 2
    assert capsys.readouterr().err == (
        "error: a file: No space left on device; allowed: a path that can be read and written, with room left on its disk\n"
    )


def test_control_c_is_one_line(knock, capsys: pytest.CaptureFixture[str]) -> None:
    def work(job: Job) -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as ended:
        knock(work=work)
    assert ended.value.code == 130
    assert capsys.readouterr().err == "interrupted; the same command continues where the last checkpoint was saved\n"


def test_a_missing_gpu_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train", "stage=0", "device=cuda"])
    with pytest.raises(SystemExit) as ended:
        train_door.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: device: given cuda; PyTorch finds no GPU on this machine; allowed: auto, cpu\n"


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
    (tmp_path / "experiment" / "mine.yaml").write_text(
        '# @package _global_\ndefaults:\n  - override /stage: "3"\nseed: 5\ntrain_limit: 7\n'
    )
    [made] = knock("--config-dir", str(tmp_path), "experiment=mine")
    assert (made.config.stage.stages, made.config.seed, made.config.train_limit) == ([3], 5, 7)
    assert made.slug == "experiment=mine"
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
    assert config_folder() == REPOSITORY / "conf"


def train(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    """The real train door, in this process."""
    monkeypatch.setattr(sys, "argv", ["train", *arguments, *SMALL])
    train_door.main()


def times(folder: Path) -> dict[str, int]:
    """When each run's result was written."""
    return {path.parent.name.partition(",")[0]: path.stat().st_mtime_ns for path in folder.glob("*/result.json")}


def test_a_sweep_trains_each_run_once_whatever_folder_it_is_started_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    train(monkeypatch, "-m", "stage=0,1", "seed=1")
    written = times(tmp_path / "outputs")
    assert sorted(written) == ["stage=0", "stage=1"]
    train(monkeypatch, "-m", "stage=1,0", "seed=1")
    assert times(tmp_path / "outputs") == written
    assert [path.name for path in tmp_path.iterdir()] == ["outputs"]


def test_a_failing_job_in_the_middle_costs_only_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    blocked = tmp_path / "outputs" / "b"
    blocked.mkdir(parents=True)
    (blocked / "notes.txt").touch()
    with pytest.raises(SystemExit) as ended:
        train(monkeypatch, "-m", "stage=0", "name=a,b,c")
    assert ended.value.code == 2
    assert sorted(times(tmp_path / "outputs")) == ["a", "c"]
    assert caplog.messages[-1] == "1 of 3 jobs failed: b"
    assert [path.name for path in blocked.iterdir()] == ["notes.txt"]


def test_help_may_be_cut_short_by_its_reader() -> None:
    command = f"{sys.executable} -m latent_lab.train --help | head -n 1"
    ended = subprocess.run(command, shell=True, capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert ended.stdout == "Train a language model to think in continuous vectors.\n"
    assert ended.stderr == ""
