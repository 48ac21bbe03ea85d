import hashlib
import json
from dataclasses import fields
from pathlib import Path

import pytest

from latent_lab.backbone import Pretrained, Scratch
from latent_lab.config import (
    GROUPS,
    ConfigError,
    EvalConfig,
    Job,
    Nothing,
    Optim,
    TrainConfig,
    as_hydra_reads,
    job,
    jobs,
    options,
    slug,
    typed,
)
from latent_lab.problems.arithmetic import Arithmetic
from latent_lab.stages.curriculum import Curriculum

TRAIN_KEYS, STAGE_KEYS, OPTIM_KEYS = (
    ", ".join(field.name for field in fields(each)) for each in (TrainConfig, Curriculum, Optim)
)
NEEDED = {"folder": ["model.path=some/model"], "file": ["dataset.path=problems.jsonl"], "hub": ["dataset.name=org/name"]}


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """A folder of runs with one run in it."""
    (tmp_path / "stage=3,seed=1").mkdir()
    (tmp_path / "stage=3,seed=1" / "config.yaml").touch()
    return tmp_path


def complaint(*overrides: str, door: str = "train") -> str:
    with pytest.raises(ConfigError) as error:
        job(door, list(overrides))
    return str(error.value)


# What composes


def test_no_overrides_give_the_documented_defaults() -> None:
    config = job("train", []).config
    assert isinstance(config, TrainConfig)
    assert config.model == Scratch()
    assert config.stage == Curriculum(stages=[0, 1, 2, 3, 4, 5, 6], reset_optimizer=True)
    assert config.dataset == Arithmetic()
    assert config.optim == Optim()
    assert (config.oracle, config.judge, config.batch_size, config.seed) == (Nothing(), Nothing(), 64, 0)


@pytest.mark.parametrize(
    ("group", "option"),
    [(g, o) for g in GROUPS if g not in ("task", "judge") for o in options(g)],
)
def test_every_training_option_composes_and_builds_its_class(group: str, option: str) -> None:
    made = job("train", [f"{group}={option}", *NEEDED.get(option, [])])
    part = made.plain.get(group)
    assert part is None or type(getattr(made.config, group)).__name__ == part["_target_"].rpartition(".")[2]


@pytest.mark.parametrize(
    ("group", "option"),
    [(g, o) for g in ("task", "dataset", "judge", "tracker") for o in options(g)] + [("debug", "smoke")],
)
def test_every_evaluation_option_composes_and_builds_its_class(group: str, option: str, finished: Path) -> None:
    made = job("eval", [f"run={finished / 'stage=3,seed=1'}", f"{group}={option}", *NEEDED.get(option, [])])
    part = made.plain.get(group)
    assert part is None or type(getattr(made.config, group)).__name__ == part["_target_"].rpartition(".")[2]


@pytest.mark.parametrize("stage", range(7))
def test_a_stage_is_chosen_by_its_number_as_typed(stage: int) -> None:
    assert job("train", [f"stage={stage}"]).config.stage == Curriculum(stages=[stage])


def test_stages_of_your_own() -> None:
    assert job("train", ["stage=coconut", "stage.stages=[9]"]).config.stage.stages == [9]


def test_a_folder_or_a_name_on_the_hub_is_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine").mkdir()
    Path("gpt2").mkdir()
    for given, path in {"./x,y=1": "./x,y=1", "org/name": "org/name", "mine": "mine", "gpt2": "openai-community/gpt2"}.items():
        assert job("train", [f"model={given}"]).config.model == Pretrained(path=path)


def test_smoke_is_sixteen_problems_a_split() -> None:
    config = job("train", ["debug=smoke"]).config
    assert (config.limit, config.train_limit, config.valid_limit, config.batch_size) == (16, 16, 16, 16)
    assert job("train", ["limit=9", "valid_limit=4"]).plain["train_limit"] == 9


def test_experiments_choose_stages_and_the_command_line_has_the_last_word() -> None:
    assert job("train", ["experiment=demo", "stage=2"]).config.stage.stages == [2]
    assert job("train", ["debug=overfit", "max_steps=7"]).config.max_steps == 7


def test_the_plain_configuration_survives_json_and_builds_the_same_again() -> None:
    made = job("train", ["stage=3", "optim.lr=1e-4"])
    assert typed(json.loads(json.dumps(made.plain))) == made.config


def test_a_run_is_found_by_path_or_below_outputs(finished: Path) -> None:
    by_name = job("eval", ["run=stage=3,seed=1", f"outputs={finished}"]).config
    assert isinstance(by_name, EvalConfig)
    assert by_name.run_folder == job("eval", [f"run={finished}/stage=3,seed=1"]).config.run_folder
    assert by_name.dataset is None


# What does not


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["seeed=1"], f"seeed: given 1; there is no such key; allowed: {TRAIN_KEYS}; did you mean seed?"),
        (["lr=1"], f"lr: given 1; there is no such key; allowed: {TRAIN_KEYS}; did you mean optim.lr?"),
        (["+foo=1"], f"foo: given 1; there is no such key; allowed: {TRAIN_KEYS}"),
        (
            ["+stage.foo=1"],
            f"stage.foo: given 1; there is no such key; allowed: {STAGE_KEYS}",
        ),
        (["stage=99"], "stage: given 99; allowed: 0, 1, 2, 3, 4, 5, 6, all, coconut, cot, no_cot"),
        (["stage="], "stage: given nothing; allowed: 0, 1, 2, 3, 4, 5, 6, all, coconut, cot, no_cot"),
        (["stage=null"], "stage: given null; allowed: 0, 1, 2, 3, 4, 5, 6, all, coconut, cot, no_cot"),
        (
            ["model=gpt3"],
            "model: given gpt3; allowed: folder, gpt2, gpt2-large, gpt2-medium, gpt2-xl, llama, nano, qwen; did you mean gpt2?",
        ),
        (["seed=abc"], "seed: given abc; allowed: an integer"),
        (["seed=1.5"], "seed: given 1.5; allowed: an integer"),
        (["seed=null"], "seed: given null; allowed: an integer"),
        (["max_steps=x"], "max_steps: given x; allowed: an integer or null"),
        (["optim.lr=fast"], "optim.lr: given fast; allowed: a number"),
        (["optim.betas=[x]"], "optim.betas: given [x]; allowed: a list of numbers, as in [A,B]"),
        (["stage.epochs=3"], "stage.epochs: given 3; allowed: a list of integers, as in [A,B]"),
        (["overwrite=maybe"], "overwrite: given maybe; allowed: true or false"),
        (
            ["optim=5"],
            f"optim: given 5; allowed: one of its keys at a time ({OPTIM_KEYS})",
        ),
        (["stage.mix=2"], "stage.mix: given 2.0; allowed: probabilities from 0 to 1"),
        (["stage.stages=[2,1]"], "stage.stages: given [2, 1]; give one or more stages, 0 and up, in rising order"),
        (["optim.lr=-1"], "optim.lr: given -1.0; allowed: numbers above 0"),
        (["optim.schedule=cosin"], "optim.schedule: given cosin; allowed: constant, linear, cosine; did you mean cosine?"),
        (["batch_size=0"], "batch_size: given 0; allowed: 1 and more"),
        (["max_steps=0"], "max_steps: given 0; allowed: 1 and more"),
        (["micro_batch_size=65"], "micro_batch_size: given 65; allowed: at most batch_size=64"),
        (["device=gpu"], "device: given gpu; allowed: auto, cpu, cuda"),
        (
            ["device=cpu", "precision=bf16"],
            "precision: given bf16; allowed: auto, fp32 (with device=cpu, where bf16 is many times slower)",
        ),
        (
            ["stage=cot", "stage.latents_per_step=2"],
            "stage.latents_per_step: given 2; stage.kind=cot has no latent slots; allowed: leave it out",
        ),
        (["init_from=a=1,b=2"], "init_from: given a=1,b=2; there is no such folder; allowed: a checkpoint's folder"),
        (["dataset=file"], "dataset.path: given nothing; allowed: the problems to read; write dataset.path=..."),
        (["dataset=hub"], "dataset.name: given nothing; allowed: the problems to read; write dataset.name=..."),
        (["name=../x"], "name: given ../x; allowed: the name of a folder below outputs"),
        (["seed=1,2"], "seed: given 1,2; allowed: one value (several with -m, a list as seed=[1,2], text as seed=\"'1,2'\")"),
        (["foo"], "foo: given nothing; allowed: foo=VALUE"),
        (["~seed"], "seed: given ~seed; nothing can be removed; allowed: seed=VALUE"),
        (["+stage=3"], "stage: given +stage='3'; allowed: stage='3', without the sign"),
        (
            ["stage.kind='cot"],
            "stage.kind: given 'cot; it cannot be read; allowed: plain values, or text in two pairs of quotes, "
            "as in stage.kind=\"'TEXT'\"",
        ),
        (["seed=${nope}"], "seed: given ${nope}; Interpolation key 'nope' not found; allowed: what --cfg job shows"),
        (
            ["model=folder"],
            "model.path: given ''; give a folder or a name on the hub, for example model=folder model.path=my-model",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_line(overrides: list[str], message: str) -> None:
    assert complaint(*overrides) == message


def test_an_evaluation_needs_a_run_that_exists(finished: Path) -> None:
    assert complaint(door="eval") == "run: given nothing; allowed: text; write run=VALUE"
    assert complaint("run=stage=4", f"outputs={finished}", door="eval") == (
        "run: given stage=4; there is no such folder; allowed: a path, or a run's name (stage=3,seed=1)"
    )


def test_a_key_below_an_option_nobody_chose(finished: Path) -> None:
    message = complaint(f"run={finished / 'stage=3,seed=1'}", "dataset.path=x", door="eval")
    assert message == "dataset.path: given x; dataset is null; allowed: only after dataset=OPTION"


# Names


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ([], "default"),
        (["seed=1", "stage=3"], "stage=3,seed=1"),
        (["stage='3'", 'seed="1"'], "stage=3,seed=1"),
        (["seed=1", "seed=2"], "seed=2"),
        (["optim.lr=1e-3"], "optim.lr=0.001"),
        (["optim.lr=0.0010"], "optim.lr=0.001"),
        (["batch_size=64.0"], "batch_size=64"),
        (["stage.pad_to_max=False", "max_steps=null"], "max_steps=null,stage.pad_to_max=false"),
        (["stage.stages=[0, 2]"], "stage.stages=0+2"),
        (["model=folder", "model.path='a b/c'"], "model=folder,model.path=a_b_c"),
        (["tracker=wandb", "tracker.project=x", "device=cpu", "threads=2", "log_every=1", "outputs=/x"], "default"),
        (["precision=fp32"], "precision=fp32"),
    ],
)
def test_a_run_is_named_by_the_overrides_that_change_its_result(overrides: list[str], name: str) -> None:
    assert slug(overrides) == name


def test_a_long_name_is_cut_and_hashed() -> None:
    text = "dataset.path=" + "x" * 200
    assert slug([text]) == text[:111] + "-" + hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
    assert len(slug([text])) == 120


def test_name_replaces_the_name() -> None:
    assert job("train", ["stage=3", "name=mine-${seed}"]).slug == "mine-0"


# Jobs


def test_a_sibling_is_the_same_command_with_another_choice() -> None:
    made = job("train", ["stage=3", "seed=1", "name=x", "overwrite=true", "device=cpu"])
    other = made.sibling(stage="2")
    assert other.command == ["python", "-m", "latent_lab.train", "seed=1", "device=cpu", "stage=2"]
    assert (other.slug, other.config.stage.stages, other.config.overwrite) == ("stage=2,seed=1", [2], False)


def test_a_sweep_is_every_combination_under_the_names_of_single_runs() -> None:
    planned = jobs("train", ["stage=0,1", "seed=1,2"])
    assert [each.slug for each in planned] == ["stage=0,seed=1", "stage=0,seed=2", "stage=1,seed=1", "stage=1,seed=2"]
    assert planned[3].command == job("train", ["stage=1", "seed=1", "seed=2"][::2]).command
    assert all(each.is_sweep for each in planned)
    assert planned[3].plain == job("train", ["stage=1", "seed=2"]).plain


def test_jobs_that_are_the_same_job_are_done_once(finished: Path) -> None:
    assert len(jobs("train", ["seed=1,1", "device=auto,cpu"])) == 1
    (finished / "two").mkdir()
    runs: list[Job] = jobs("eval", [f"outputs={finished}", "run='stage=3,seed=1',two"])
    assert [each.config.run for each in runs] == ["stage=3,seed=1", "two"]


def test_a_sweep_is_checked_whole_before_it_starts() -> None:
    with pytest.raises(ConfigError) as error:
        jobs("train", ["seed=1", "stage.mix=0,3"])
    assert str(error.value) == "stage.mix: given 3.0; allowed: probabilities from 0 to 1 (in the job seed=1 stage.mix=3)"


def test_jobs_of_a_sweep_cannot_share_a_name() -> None:
    with pytest.raises(ConfigError) as error:
        jobs("train", ["seed=1,2", "name=x"])
    assert str(error.value) == "name: given x; several jobs would share it; allowed: one for each job, as in name='x-${seed}'"
    assert [each.slug for each in jobs("train", ["seed=1,2", "name=x-${seed}"])] == ["x-1", "x-2"]


@pytest.mark.parametrize(
    ("typed_in", "is_sweep", "read"),
    [
        ("stage=3", False, ["stage='3'"]),
        ("stage=0,10,all", True, ["stage='0','10',all"]),
        ("stage='3'", False, ["stage='3'"]),
        ("seed=1,2", True, ["seed=1,2"]),
        ("stage.stages=[1]", False, ["stage.stages=[1]"]),
        ("model=org/name", False, ["model=folder", "model.path='org/name'"]),
        ("model=./a,./b", True, ["model=folder", "model.path='./a','./b'"]),
        ("run=stage=3,seed=1", False, ["run='stage=3,seed=1'"]),
        ("run=it's", False, [r"run='it\'s'"]),
    ],
)
def test_what_a_person_types_becomes_what_hydra_reads(typed_in: str, is_sweep: bool, read: list[str]) -> None:
    assert as_hydra_reads(typed_in, is_sweep) == read
