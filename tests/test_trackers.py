"""Trackers: what really arrives there, read back from what each one stores. Every tracker runs in a process of its own."""

import importlib.util
import json
import os
import sqlite3
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from latent_lab import tracking
from latent_lab.tracking import NoTracker, TrackerError, Wandb

SECRET = "sk-0123456789"
TRAIN = """
import json, os, sys
from pathlib import Path
from latent_lab import tracking
from latent_lab.run import open_run
_, kind, options, folder, key = sys.argv
config = {"seed": 1, "optim": {"lr": 0.5}, "judge": {"api_key": key.partition("=")[2]}}
with open_run(Path(folder), config, command=sys.argv) as run:
    run.track(getattr(tracking, kind)(**json.loads(options)), job_type="train", group="coconut")
    run.log({"train/loss": 2.5, "stage": "3"}, step=10)
    if os.environ.get("CRASH"):
        raise SystemExit("crash")
    run.samples([{"id": "a", "correct": True, "steps": ["1|1=2"]}, {"id": "b", "text": "<b>\\n"}])
    run.finish({"accuracy": 0.75, "by_digits": {"2": 1}})
"""


def train(folder, kind, crash=False, **options):
    """Train the run in ``folder`` with a tracker, in a process without network access worth the name; return its stderr."""
    home = folder.parent
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("WANDB_", "TRACKIO_", "HF_TOKEN"))},
        **{f"WANDB_{name}_DIR": str(home / "wandb" / name) for name in ("CACHE", "CONFIG", "DATA")},
        "TRACKIO_DIR": str(home / "trackio"),
        "HF_HOME": str(home / "huggingface"),
        "CRASH": "1" if crash else "",
    }
    command = [sys.executable, "-c", TRAIN, kind, json.dumps(options), str(folder), f"judge.api_key={SECRET}"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == int(crash), done.stderr
    assert done.stdout == ""
    return done.stderr


def assert_no_secret_on_disk(folder):
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "stage=3"


def needs(package):
    reason = f'{package} is not installed: pip install "latent_lab[{package}]"'
    return pytest.mark.skipif(importlib.util.find_spec(package) is None, reason=reason)


def wandb_records(path):
    """Read a .wandb file: a 7-byte header, then LevelDB's log format (blocks of 32 KiB, records in up to many pieces)."""
    from wandb.proto.wandb_internal_pb2 import Record

    raw, position, pieces, records = path.read_bytes(), 7, b"", []
    assert raw[:4] == b":W&B"
    while position + 7 <= len(raw):
        room = 32768 - position % 32768
        if room < 7:
            position += room
            continue
        _, length, kind = struct.unpack_from("<IHB", raw, position)
        pieces += raw[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # a whole record, or the last piece of one
            records.append(Record.FromString(pieces))
            pieces = b""
    return records


def of_kind(records, kind):
    return [getattr(record, kind) for record in records if record.WhichOneof("record_type") == kind]


def items(entries):
    return {".".join(e.nested_key) or e.key: json.loads(e.value_json) for e in entries}


@needs("wandb")
def test_wandb_offline_receives_everything_and_no_secret(folder):
    train(folder, "Wandb", project="lab", tags=["nano"], mode="offline")
    (path,) = folder.glob("wandb/offline-run-*/*.wandb")
    records = wandb_records(path)
    (run,) = of_kind(records, "run")
    assert (run.project, run.display_name, run.run_group, run.job_type) == ("lab", "stage=3", "coconut", "train")
    assert list(run.tags) == ["nano"]
    assert run.run_id == (folder / "wandb_id").read_text().strip()
    config = items(run.config.update)
    assert (config["seed"], config["optim"], config["judge"]) == (1, {"lr": 0.5}, {"api_key": "***"})
    step_metric, every_metric = of_kind(records, "metric")
    assert (step_metric.name, step_metric.options.hidden) == ("global_step", True)
    assert (every_metric.glob_name, every_metric.step_metric) == ("*", "global_step")
    loss, table = (items(history.item) for history in of_kind(records, "history"))
    assert (loss["train/loss"], loss["global_step"], "stage" in loss) == (2.5, 10, False)
    assert loss["stage_3/train/loss"] == 2.5  # a curve for each stage
    assert (table["samples._type"], table["samples.nrows"], table["global_step"]) == ("table-file", 2, 10)
    (stored,) = folder.glob("wandb/offline-run-*/files/media/table/samples_*.table.json")
    assert json.loads(stored.read_text()) == {
        "columns": ["id", "correct", "steps", "text"],
        "data": [["a", True, '["1|1=2"]', None], ["b", None, None, "<b>\n"]],
    }
    summary = items(entry for record in of_kind(records, "summary") for entry in record.update)
    assert (summary["accuracy"], summary["by_digits"]) == (0.75, {"2": 1})
    (environment,) = [e for e in of_kind(records, "environment") if e.args]
    assert environment.args[-1] == "judge.api_key=***"
    assert of_kind(records, "exit")[0].exit_code == 0
    assert_no_secret_on_disk(folder.parent)


@needs("wandb")
def test_wandb_continues_the_same_run_and_marks_the_failed_attempt(folder):
    train(folder, "Wandb", mode="offline", crash=True)
    (first,) = folder.glob("wandb/offline-run-*/*.wandb")
    train(folder, "Wandb", mode="offline")
    (second,) = set(folder.glob("wandb/offline-run-*/*.wandb")) - {first}
    ids, codes = [], []
    for path in (first, second):
        records = wandb_records(path)
        ids.append(of_kind(records, "run")[0].run_id)
        codes.append(of_kind(records, "exit")[0].exit_code)
    assert ids[0] == ids[1]
    assert codes == [1, 0]


@needs("wandb")
def test_wandb_without_an_account_says_what_to_do(tmp_path, monkeypatch):
    for name in ("WANDB_API_KEY", "WANDB_MODE", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    script = (
        "from pathlib import Path\nfrom latent_lab.tracking import Wandb\nimport sys\n"
        "try:\n    Wandb().start('run', Path(sys.argv[1]), {}, 'train', None)\n"
        "except Exception as error:\n    print(type(error).__name__, error)\n"
    )
    environment = {**os.environ, "HOME": str(tmp_path), "WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_CONFIG_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.stdout.startswith("TrackerError tracker=wandb: ")
    assert done.stdout.endswith("log in with `wandb login`, or say tracker.mode=offline\n")


@needs("trackio")
def test_trackio_receives_everything_and_no_secret(folder):
    train(folder, "Trackio", project="lab")
    metrics, configs = trackio_rows(folder)
    numbers = [(step, {key: v for key, v in row.items() if key != "samples"}) for step, row in metrics]
    assert numbers == [
        (10, {"train/loss": 2.5, "stage_3/train/loss": 2.5}),
        (10, {}),
        (10, {"result/accuracy": 0.75, "result/by_digits/2": 1}),
    ]
    assert metrics[1][1]["samples"]["_value"] == [
        {"id": "a", "correct": True, "steps": '["1|1=2"]', "text": None},
        {"id": "b", "correct": None, "steps": None, "text": "<b>\n"},
    ]
    ((name, config),) = configs
    assert name == "stage=3"
    assert (config["seed"], config["optim"], config["judge"]) == (1, {"lr": 0.5}, {"api_key": "***"})
    assert (config["job_type"], config["_Group"]) == ("train", "coconut")
    assert_no_secret_on_disk(folder.parent)


@needs("trackio")
def test_trackio_continues_the_run_of_a_folder_but_not_of_its_namesake(folder):
    train(folder, "Trackio", project="lab", crash=True)
    train(folder, "Trackio", project="lab")
    assert len(trackio_rows(folder)[1]) == 1
    namesake = folder.parent / "other" / folder.name
    namesake.parent.mkdir()
    (namesake.parent / "trackio").symlink_to(folder.parent / "trackio")
    train(namesake, "Trackio", project="lab")
    assert len(trackio_rows(folder)[1]) == 2


def trackio_rows(folder):
    """Rows of metrics as (step, values) and of runs as (name, config), in the order in which they were stored."""
    with sqlite3.connect(folder.parent / "trackio" / "lab.db") as database:
        metrics = database.execute("select step, metrics from metrics order by id").fetchall()
        configs = database.execute("select run_name, config from configs order by id").fetchall()
    return [(step, json.loads(row)) for step, row in metrics], [(name, json.loads(row)) for name, row in configs]


@needs("tensorboard")
def test_tensorboard_receives_everything_and_no_secret(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(folder, "TensorBoard")
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    assert {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]} == {
        "train/loss": [(10, 2.5)],
        "stage_3/train/loss": [(10, 2.5)],
        "result/accuracy": [(10, 0.75)],
        "result/by_digits/2": [(10, 1.0)],
    }
    texts = {tag: events.Tensors(tag)[0].tensor_proto.string_val[0].decode() for tag in events.Tags()["tensors"]}
    config = json.loads(texts["config/text_summary"])
    assert config == {
        "job_type": "train", "group": "coconut", "seed": 1, "optim": {"lr": 0.5}, "judge": {"api_key": "***"},
    }  # fmt: skip
    assert json.loads(texts["result/text_summary"]) == {"accuracy": 0.75, "by_digits": {"2": 1}}
    assert texts["samples/text_summary"].splitlines() == [
        "| id | correct | steps | text |",
        "| --- | --- | --- | --- |",
        '| a | True | ["1&#124;1=2"] |  |',
        "| b |  |  | &lt;b><br> |",
    ]
    assert_no_secret_on_disk(folder.parent)


def test_no_tracker_leaves_the_runs_own_files(folder):
    train(folder, "NoTracker")
    assert sorted(path.name for path in folder.iterdir()) == [
        ".lock", "config.yaml", "metrics.jsonl", "provenance.json", "result.json", "samples.jsonl",
    ]  # fmt: skip
    assert NoTracker() == NoTracker()


@pytest.mark.parametrize("kind", ["Wandb", "Trackio", "TensorBoard"])
def test_a_tracker_that_is_not_installed_names_the_extra(tmp_path, monkeypatch, kind):
    name = kind.lower()
    monkeypatch.setitem(sys.modules, name, None)  # how Python is told that there is no such package
    with pytest.raises(TrackerError) as error:
        getattr(tracking, kind)().start("run", tmp_path, {}, "train", None)
    assert str(error.value) == f'tracker={name} needs a package that is not installed ({name}): pip install "latent_lab[{name}]"'


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match=r"^mode=dryrun: allowed are online, offline$"):
        Wandb(mode="dryrun")


@pytest.mark.parametrize("option", ["none", "wandb", "trackio", "tensorboard"])
def test_every_option_begins_with_its_purpose_and_names_an_existing_class(option):
    comment, defaults = (Path(__file__).resolve().parents[1] / f"conf/tracker/{option}.yaml").read_text().splitlines()
    assert comment.startswith("# ")
    target = defaults.removeprefix("defaults: [/schema/latent_lab.tracking.").removesuffix("@_here_, _self_]")
    assert hasattr(tracking, target)
