"""A run's folder: whole or absent, one worker at a time, reused; and what belongs to every run (files, seed, device)."""

import json
import math
import os
import random
import re
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from latent_lab.files import atomic, atomic_folder, flatten, repair, write_json, write_lines
from latent_lab.run import RunConflict, accelerator, open_run, resolve_precision, seed_everything
from latent_lab.stages.planning import Planning

CONFIG = {"seed": 1, "optim": {"lr": 0.001, "betas": [0.9, 0.98]}, "device": "cpu", "tracker": {"project": "p", "tags": []}}
COMMAND = ["latent_lab.train", "seed=1"]


def opened(folder, config=CONFIG, **options):
    return open_run(folder, config, command=COMMAND, **options)


def complete(folder, result, **options):
    with opened(folder, **options) as run:
        assert run.result is None
        run.finish(result)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# Files


def test_json_is_written_whole_in_one_spelling(tmp_path):
    write_json(tmp_path / "a.json", {"b": 1, "a": [0.5, None, "ü"]})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n "b": 1,\n "a": [\n  0.5,\n  null,\n  "ü"\n ]\n}\n'
    write_json(tmp_path / "a.json", {"a": [[1, -2.5e-07], [None, True], []], "b": "[\n 1,\n 2\n]"})
    lines = ['"a": [', " [1, -2.5e-07],", " [null, true],", " []", "],", '"b": "[\\n 1,\\n 2\\n]"']
    assert (tmp_path / "a.json").read_text() == "\n ".join(["{", *lines]) + "\n}\n"
    write_lines(tmp_path / "a.jsonl", [{"id": "x", "n": 1}, {"id": "y"}])
    assert (tmp_path / "a.jsonl").read_text() == '{"id": "x", "n": 1}\n{"id": "y"}\n'
    assert names(tmp_path) == ["a.json", "a.jsonl"]


def test_a_number_json_cannot_hold_is_named_and_leaves_the_old_file(tmp_path):
    path = tmp_path / "result.json"
    write_json(path, {"accuracy": 1})
    with pytest.raises(ValueError, match=r"^result\.json: ece\.1=nan cannot be written as JSON: give a finite number, or None"):
        write_json(path, {"ece": [0.1, math.nan]})
    with pytest.raises(ValueError, match=r"^result\.json: loss=inf cannot"):
        write_lines(path, [{"loss": 1.0}, {"loss": math.inf}])
    assert json.loads(path.read_text()) == {"accuracy": 1}
    assert names(tmp_path) == ["result.json"]


def test_a_file_whose_writing_fails_keeps_its_old_content(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with suppress(KeyError), atomic(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        assert temporary.suffix == ".txt"
        raise KeyError
    assert (tmp_path / "a.txt").read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_folder_is_replaced_whole(tmp_path):
    for text in ("first", "second"):
        with atomic_folder(tmp_path / "checkpoint") as staging:
            (staging / "inner").mkdir()
            (staging / "inner" / "weights").write_text(text)
            assert not (tmp_path / "checkpoint").exists() or text == "second"
    with suppress(KeyError), atomic_folder(tmp_path / "checkpoint") as staging:
        (staging / "weights").write_text("third")
        raise KeyError
    assert (tmp_path / "checkpoint/inner/weights").read_text() == "second"
    assert names(tmp_path) == ["checkpoint"]


def test_all_processes_of_a_job_write_into_one_folder_and_leave_when_it_is_in_place(tmp_path):
    barrier = threading.Barrier(3, timeout=10)
    seen = {}

    def work(rank):
        with atomic_folder(tmp_path / "checkpoint", is_main=rank == 0, barrier=barrier.wait) as staging:
            (staging / f"random_state_{rank}").write_text("")
        seen[rank] = names(tmp_path / "checkpoint")

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(3)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert seen == {rank: ["random_state_0", "random_state_1", "random_state_2"] for rank in range(3)}


@pytest.mark.parametrize(
    ("left_behind", "kept"),
    [
        ({".old-step-2": "old"}, "old"),  # killed between the two renames
        ({".old-step-2": "old", "step-2": "new"}, "new"),  # killed before the old one was deleted
        ({".tmp-step-2": "half", "step-2": "old"}, "old"),  # killed while writing
        ({".tmp-step-2": "new", ".old-step-2": "old"}, "old"),  # killed between the two renames
    ],
)
def test_what_a_kill_leaves_behind_is_put_in_order(tmp_path, left_behind, kept):
    for name, text in left_behind.items():
        (tmp_path / "checkpoint" / name).mkdir(parents=True)
        (tmp_path / "checkpoint" / name / "weights").write_text(text)
    repair(tmp_path)
    assert names(tmp_path / "checkpoint") == ["step-2"]
    assert (tmp_path / "checkpoint/step-2/weights").read_text() == kept


def test_flatten_gives_dotted_keys_and_keeps_empty_containers():
    assert flatten({"a": {"b": [1, {"c": None}], "d": {}}, "e": []}) == {"a.b.0": 1, "a.b.1.c": None, "a.d": {}, "e": []}


# Complete, absent, or somebody else's


def test_a_run_is_complete_when_it_has_a_result_and_is_then_reused(tmp_path):
    folder = tmp_path / "outputs" / "seed=1"
    with opened(folder) as run:
        assert run.result is None
        assert names(folder) == [".lock", "config.yaml", "provenance.json"]
        run.log({"train/loss": 2.0}, step=1)
        run.samples([{"id": "a", "steps": ["1+1=2"]}])
        run.finish({"accuracy": 0.5, "interval": (0.4, 0.6)})
        assert run.result == {"accuracy": 0.5, "interval": [0.4, 0.6]}
    assert names(folder) == [".lock", "config.yaml", "metrics.jsonl", "provenance.json", "result.json", "samples.jsonl"]
    assert (folder / "config.yaml").read_text() == (
        "seed: 1\noptim:\n  lr: 0.001\n  betas:\n  - 0.9\n  - 0.98\ndevice: cpu\ntracker:\n  project: p\n  tags: []\n"
    )
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with opened(folder) as run:
        assert run.result == {"accuracy": 0.5, "interval": [0.4, 0.6]}
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_group_younger_than_the_run_changes_nothing_as_long_as_nothing_is_chosen(tmp_path):
    complete(tmp_path, {"accuracy": 1})
    with opened(tmp_path, {**CONFIG, "plan": {"_target_": "latent_lab.config.Nothing"}}) as run:
        assert run.result == {"accuracy": 1}
    with pytest.raises(RunConflict), opened(tmp_path, {**CONFIG, "plan": {"_target_": "latent_lab.plans.base.General"}}):
        pass


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"template": "plain", "stages": [0]}, None),
        ({"template": "chat"}, 'stage.template: stored nothing, given "chat"'),
        ({"stages": [0, 1]}, "stage.stages.1: stored nothing, given 1"),
        ({"colour": "plain"}, 'stage.colour: stored nothing, given "plain"'),
        ({"kind": None}, "stage.kind: stored nothing, given null"),
    ],
)
def test_an_option_younger_than_the_run_changes_nothing_at_its_default(tmp_path, more, said):
    stage = {"_target_": f"{Planning.__module__}.Planning", "place": "front"}
    config = {**CONFIG, "stage": stage}
    with opened(tmp_path, config) as run:
        run.finish({"accuracy": 1})
    if said is None:
        with opened(tmp_path, {**config, "stage": stage | more}) as run:
            assert run.result == {"accuracy": 1}
    else:
        with pytest.raises(RunConflict, match=re.escape(said)), opened(tmp_path, {**config, "stage": stage | more}):
            pass


def test_another_config_stops_with_the_difference_and_what_to_do(tmp_path):
    complete(tmp_path, {"accuracy": 1})
    with pytest.raises(RunConflict) as conflict, opened(tmp_path, {**CONFIG, "optim": {"lr": 0.01, "betas": [0.9]}}):
        pass
    assert str(conflict.value) == (
        f"{tmp_path} holds a run with another config: optim.lr: stored 0.001, given 0.01; "
        "optim.betas.1: stored 0.98, given nothing. Say overwrite=true to redo it, or name=... for another folder"
    )
    with pytest.raises(RunConflict) as conflict, opened(tmp_path, {"seed": 2, "stage": "cot", "limit": None, "x": True}):
        pass
    assert str(conflict.value).splitlines()[1:4] == [
        "  seed: stored 1, given 2",
        "  optim.lr: stored 0.001, given nothing",
        "  optim.betas.0: stored 0.9, given nothing",
    ]
    assert str(conflict.value).splitlines()[-2:] == [
        "  x: stored nothing, given true",
        "Say overwrite=true to redo it, or name=... for another folder",
    ]


def test_ignored_keys_may_differ_and_a_key_stands_for_all_below_it(tmp_path):
    complete(tmp_path, {"accuracy": 1})
    other = {**CONFIG, "device": "cuda", "tracker": {"project": "q", "entity": "me"}}
    with opened(tmp_path, other, ignore=frozenset({"device", "tracker"})) as run:
        assert run.result == {"accuracy": 1}
    with pytest.raises(RunConflict, match=r"tracker\.project: stored \"p\", given \"q\""):
        opened(tmp_path, other, ignore=frozenset({"device", "track", "tracker.tags"})).__enter__()


def test_overwrite_empties_the_folder(tmp_path):
    complete(tmp_path, {"accuracy": 1})
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "weights").write_text("")
    with opened(tmp_path, {"seed": 2}, overwrite=True) as run:
        assert run.result is None
        assert names(tmp_path) == [".lock", "config.yaml", "provenance.json"]
        assert (tmp_path / "config.yaml").read_text() == "seed: 2\n"


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_that_is_no_run_is_left_alone(tmp_path, overwrite):
    for name in ("thesis.tex", "a.bib", "photo.png", "z"):
        (tmp_path / name).write_text("precious")
    with pytest.raises(RunConflict) as conflict, opened(tmp_path, overwrite=overwrite):
        pass
    assert str(conflict.value) == (
        f"{tmp_path} is not a run: it holds a.bib, photo.png, thesis.tex, ... but no config.yaml. "
        "Nothing was touched; give the run another folder with name=..."
    )
    assert names(tmp_path) == ["a.bib", "photo.png", "thesis.tex", "z"]


def test_an_unfinished_run_is_continued_and_every_attempt_is_recorded(tmp_path):
    with suppress(KeyboardInterrupt), opened(tmp_path) as run:
        run.log({"loss": 3.0}, step=1)
        (tmp_path / ".tmp-1234-result.json").write_text("{")
        raise KeyboardInterrupt
    with open_run(tmp_path, CONFIG, command=["latent_lab.train", "device=cuda"]) as run:
        assert run.result is None
        run.log({"loss": 2.0}, step=2)
        run.finish({})
    attempts = json.loads((tmp_path / "provenance.json").read_text())["attempts"]
    assert [attempt["command"] for attempt in attempts] == [COMMAND, ["latent_lab.train", "device=cuda"]]
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1, "loss": 3.0}\n{"step": 2, "loss": 2.0}\n'
    assert ".tmp-1234-result.json" not in names(tmp_path)


def test_other_processes_of_a_job_read_the_result_and_write_nothing(tmp_path):
    with opened(tmp_path), opened(tmp_path, is_main=False) as other:
        assert other.result is None
        before = names(tmp_path)
        other.track(None, job_type="train")
        other.log({"loss": 1.0}, step=1)
        other.rewind(0)
        other.samples([{"id": "a"}])
        other.finish({"accuracy": 1})
        assert other.result == {"accuracy": 1}
        assert names(tmp_path) == before
    complete(tmp_path, {"accuracy": 0.5})
    with opened(tmp_path, is_main=False) as other:
        assert other.result == {"accuracy": 0.5}


# Metrics


def test_metrics_are_one_row_a_step_with_null_for_what_is_not_finite(tmp_path):
    with opened(tmp_path) as run:
        run.log({"train/loss": 0.25, "stage": "3", "tokens": 7, "grad_norm": math.inf, "x": math.nan}, step=10)
        assert (tmp_path / "metrics.jsonl").read_text() == (
            '{"step": 10, "train/loss": 0.25, "stage": "3", "tokens": 7, "grad_norm": null, "x": null}\n'
        )


def test_a_killed_and_continued_run_ends_with_the_same_metric_bytes(tmp_path):
    def train(run, steps):
        for step in steps:
            run.log({"loss": 1 / step}, step)

    with opened(tmp_path / "straight") as run:
        train(run, range(1, 7))
    with opened(tmp_path / "killed") as run:
        train(run, range(1, 6))
    path = tmp_path / "killed" / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:-9])  # torn in the middle of step 5
    with opened(tmp_path / "killed") as run:
        assert path.read_text().splitlines()[-1] == '{"step": 4, "loss": 0.25}'
        run.rewind(3)
        train(run, range(4, 7))
    assert path.read_bytes() == (tmp_path / "straight" / "metrics.jsonl").read_bytes()


class Recorder:
    """A tracker that keeps what it is told."""

    def __init__(self):
        self.calls = []

    def __getattr__(self, name):
        return lambda *args, **kwargs: self.calls.append((name, *args, *kwargs.values()))


def test_the_tracker_hears_finite_numbers_samples_and_the_result(tmp_path):
    tracker = Recorder()
    with opened(tmp_path / "seed=1", {"api_key": "sk-1"}) as run:
        run.track(tracker, job_type="train", group="coconut")
        run.log({"loss": 0.5, "stage": "3", "norm": math.nan}, step=4)
        run.samples([{"id": "a", "steps": ["x"]}, {"id": "b", "answer": 7}])
        run.finish({"accuracy": 1})
    assert tracker.calls == [
        ("start", "seed=1", tmp_path / "seed=1", {"api_key": "***"}, "train", "coconut"),
        ("log", {"loss": 0.5}, 4),
        ("table", "samples", ["id", "steps", "answer"], [["a", '["x"]', None], ["b", None, 7]], 4),
        ("summary", {"accuracy": 1}),
        ("finish", False),
    ]


def test_a_run_that_fails_closes_its_tracker_as_failed(tmp_path):
    tracker = Recorder()
    with suppress(RuntimeError), opened(tmp_path) as run:
        run.track(tracker, job_type="train")
        raise RuntimeError
    assert tracker.calls[1:] == [("finish", True)]


# One worker at a time, with real processes

WORKER = """
import json, sys, time
from pathlib import Path
from latent_lab.run import open_run
with open_run(Path(sys.argv[1]), {"seed": 1}, command=sys.argv) as run:
    print(json.dumps(run.result), flush=True)
    if run.result is None:
        sys.stdin.readline()
        run.finish({"worker": sys.argv[2]})
"""


@pytest.fixture
def worker():
    started = []

    def start(folder, name):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen([sys.executable, "-c", WORKER, str(folder), name], **pipes))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_of_two_processes_one_works_and_the_other_waits_and_finds_its_result(tmp_path, worker):
    first = worker(tmp_path / "run", "first")
    assert first.stdout.readline() == "null\n"
    second = worker(tmp_path / "run", "second")
    message = second.stderr.readline()
    assert f"{tmp_path / 'run'} is being worked on by process {first.pid} on " in message
    assert message.endswith("+00:00; waiting for it to end\n")
    first.communicate("go\n")
    out, err = second.communicate()
    assert json.loads(out) == {"worker": "first"}
    assert err == ""


def test_a_killed_worker_frees_the_run_for_the_one_that_waits(tmp_path, worker):
    first = worker(tmp_path / "run", "first")
    assert first.stdout.readline() == "null\n"
    second = worker(tmp_path / "run", "second")
    second.stderr.readline()
    first.send_signal(signal.SIGKILL)
    assert second.stdout.readline() == "null\n"
    second.communicate("go\n")
    assert json.loads((tmp_path / "run" / "result.json").read_text()) == {"worker": "second"}
    attempts = json.loads((tmp_path / "run" / "provenance.json").read_text())["attempts"]
    assert [attempt["command"][-1] for attempt in attempts] == ["first", "second"]


# Seed and device


def test_one_seed_repeats_python_numpy_and_torch():
    import numpy
    import torch

    def draw():
        return random.random(), numpy.random.rand(), torch.rand(1).item()

    seed_everything(7)
    first = draw()
    seed_everything(7)
    assert draw() == first
    seed_everything(8)
    assert draw() != first
    with pytest.raises(ValueError, match=r"^seed=-1: allowed are 0 to 4294967295$"):
        seed_everything(-1)


def test_precision_follows_the_device_and_gives_its_reason():
    assert resolve_precision("cpu", "auto") == ("fp32", "the device is a CPU")
    assert resolve_precision("cuda", "auto") == ("bf16", "the GPU has it")
    assert resolve_precision("cuda", "auto", has_bf16=False) == ("fp32", "the GPU has no bf16")
    assert resolve_precision("auto", "fp32") == ("fp32", "as asked")
    with pytest.raises(
        ValueError, match=r"^precision=bf16: with device=cpu allowed are auto, fp32, because CPUs are far slower in bf16$"
    ):
        resolve_precision("cpu", "bf16")
    with pytest.raises(ValueError, match=r"^device=tpu: allowed are auto, cpu, cuda$"):
        resolve_precision("tpu", "auto")
    with pytest.raises(ValueError, match=r"^precision=fp8: allowed are auto, fp32, bf16$"):
        resolve_precision("cpu", "fp8")


def test_several_jobs_in_one_process_each_get_their_own_accelerator():
    from accelerate.state import AcceleratorState, GradientState

    for steps in (1, 4):
        with accelerator("cpu", gradient_accumulation_steps=steps) as accelerate:
            assert accelerate.device.type == "cpu"
            assert accelerate.mixed_precision == "no"
            assert accelerate.gradient_accumulation_steps == steps
        assert AcceleratorState._shared_state == GradientState._shared_state == {}
    with pytest.raises(KeyError), accelerator("cpu"):
        raise KeyError
    assert AcceleratorState._shared_state == {}


@pytest.mark.gpu
def test_two_precisions_in_one_process_on_a_gpu():
    for precision, expected in (("auto", "bf16"), ("fp32", "no"), ("bf16", "bf16")):
        with accelerator("cuda", precision) as accelerate:
            assert (accelerate.device.type, accelerate.mixed_precision) == ("cuda", expected)


TWO_JOBS = """
import sys, torch
from pathlib import Path
from latent_lab.files import atomic_folder
from latent_lab.run import accelerator, open_run
for job in ("a", "b"):
    folder = Path(sys.argv[1]) / job
    with accelerator("cpu") as accelerate:
        def barrier(): torch.distributed.barrier()
        with accelerate.main_process_first():
            opened = open_run(folder, {"job": job}, command=sys.argv, is_main=accelerate.is_main_process)
            run = opened.__enter__()
        with atomic_folder(folder / "checkpoint", is_main=run.is_main, barrier=accelerate.wait_for_everyone) as staging:
            (staging / f"rank-{accelerate.process_index}").touch()
        total = accelerate.reduce(torch.tensor([accelerate.process_index + 1.0])).item()
        run.finish({"processes": accelerate.num_processes, "total": total})
        opened.__exit__(None, None, None)
"""


@pytest.mark.slow
def test_a_job_of_two_processes_runs_twice_in_the_same_processes(tmp_path):
    script = tmp_path / "two_jobs.py"
    script.write_text(TWO_JOBS)
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node=2",
        "--rdzv-backend=c10d",
        "--rdzv-endpoint=localhost:0",
    ]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "1", "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    done = subprocess.run([*launch, str(script), str(tmp_path / "runs")], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for job in ("a", "b"):
        assert json.loads((tmp_path / "runs" / job / "result.json").read_text()) == {"processes": 2, "total": 3.0}
        assert names(tmp_path / "runs" / job / "checkpoint") == ["rank-0", "rank-1"]
