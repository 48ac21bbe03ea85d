import hashlib
import json
import os
import re
from dataclasses import fields
from pathlib import Path

import pytest

from latent_lab.backbone import Pretrained, Scratch
from latent_lab.compose import typed
from latent_lab.config import GROUPS, ConfigError, EvalConfig, Nothing, Optim, TrainConfig
from latent_lab.job import Job, job, jobs
from latent_lab.overrides import as_hydra_reads, config_folder, options, slug
from latent_lab.problems.arithmetic import Arithmetic
from latent_lab.problems.hub import Hub
from latent_lab.stages.curriculum import Curriculum

PRETRAINED_KEYS = ", ".join(field.name for field in fields(Pretrained))
TRAIN_KEYS, STAGE_KEYS, OPTIM_KEYS = (
    ", ".join(field.name for field in fields(each)) for each in (TrainConfig, Curriculum, Optim)
)
STAGES = ", ".join(options("stage"))
NEEDED = {"folder": ["model.path=some/model"], "file": ["dataset.path=problems.jsonl"], "hub": ["dataset.name=org/name"],
          "openai": ["judge.model=org/name"], "local": ["judge.path=some/model"],
          "annotate": ["judge=local", "judge.path=some/model"],
          "labels": ["judge=rules"],
          "stage=oracle": ["oracle=self", "stage.run=some/run"], "experiment=oracle": ["stage.run=some/run"],
          "experiment=oracle_emergent": ["stage.run=some/run"], "experiment=oracle_lora": ["stage.run=some/run"],
          **{f"oracle={kind}": ["stage=oracle", "stage.run=some/run"] for kind in ("self", "lora", "separate", "head")},
          **{f"plan={kind}": ["stage=planning"] for kind in options("plan") if kind != "none"},
          **{f"plan={kind}": ["stage=planning", "plan.model=some/run"] for kind in ("kmeans", "kmeans_balanced", "vae")},
          }  # fmt: skip
"""What an option, or a group's option, cannot be composed without."""
SAID = {
    "local": ["backend.path=some/model"],
    **{name: ["backend.model=m"] for name in ("openai", "vllm", "fireworks", "together")},
}
"""The same for who thinks or summarises."""


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """A folder of runs with one run in it."""
    (tmp_path / "stage=3,seed=1").mkdir()
    for name in ("config.yaml", "result.json"):
        (tmp_path / "stage=3,seed=1" / name).touch()
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
    assert config.stage == Curriculum(stages=[0, 1, 2, 3, 4, 5, 6], max_stage=6, reset_optimizer="stage")
    assert config.dataset == Arithmetic()
    assert config.optim == Optim()
    assert (config.oracle, config.judge, config.batch_size, config.seed) == (Nothing(), Nothing(), 64, 0)


@pytest.mark.parametrize(
    ("group", "option"),
    [(g, o) for g in GROUPS if g not in ("task", "judge", "backend", "summariser") for o in options(g)],
)
def test_every_training_option_composes_and_builds_its_class(group: str, option: str) -> None:
    made = job("train", [f"{group}={option}", *NEEDED.get(option, []), *NEEDED.get(f"{group}={option}", [])])
    part = made.plain.get(group)
    assert part is None or type(getattr(made.config, group)).__name__ == part["_target_"].rpartition(".")[2]


@pytest.mark.parametrize(
    ("group", "option"),
    [(g, o) for g in ("task", "dataset", "judge", "tracker", "backend", "summariser") for o in options(g)] + [("debug", "smoke")],
)
def test_every_evaluation_option_composes_and_builds_its_class(group: str, option: str, finished: Path) -> None:
    needed = NEEDED.get(option, [])
    if group in ("backend", "summariser"):
        needed = ["task=summarize", *(text.replace("backend.", f"{group}.") for text in SAID.get(option, []))]
    made = job("eval", [f"run={finished / 'stage=3,seed=1'}", f"{group}={option}", *needed])
    part = made.plain.get(group)
    assert part is None or type(getattr(made.config, group)).__name__ == part["_target_"].rpartition(".")[2]


def test_a_judge_is_said_on_the_command_line_and_how_it_is_reached_is_no_part_of_a_name(finished: Path) -> None:
    asked = [
        f"run={finished / 'stage=3,seed=1'}",
        "judge=openai",
        "judge.model=org/name:free",
        "judge.base_url=http://127.0.0.1:8000/v1",
    ]
    made = job("eval", [*asked, "judge.budget_usd=2", "judge.price_input=1", "judge.price_output=2", "judge.extra={top_p: 0.5}"])
    judge = made.config.judge
    assert (judge.model, judge.base_url, judge.extra) == ("org/name:free", "http://127.0.0.1:8000/v1", {"top_p": 0.5})
    assert job("eval", [*asked, "judge.max_in_flight=3", "judge.budget_tokens=5"]).slug == job("eval", asked).slug
    assert job("eval", [*asked, "judge.show_gold=false"]).slug != job("eval", asked).slug
    assert typed(made.plain) == made.config


@pytest.mark.parametrize("task", ["report", "problems", "table"])
def test_a_task_that_judges_nothing_refuses_a_judge(task: str, finished: Path) -> None:
    with pytest.raises(ConfigError, match=r"^judge: given Rules; this task judges no answers; allowed: none$"):
        job("eval", [f"run={finished / 'stage=3,seed=1'}", f"task={task}", "judge=rules"])
    with pytest.raises(ConfigError, match=r"^judge: given Rules; training judges no answers; allowed: none$"):
        job("train", ["judge=rules"])


def test_a_key_given_in_place_of_its_variable_is_not_repeated(finished: Path) -> None:
    with pytest.raises(ConfigError) as wrong:
        job("eval", [f"run={finished / 'stage=3,seed=1'}", "judge=openai", "judge.model=m", "judge.api_key_env=gsk_123abc"])
    assert str(wrong.value) == (
        "judge.api_key_env: given ***; allowed: the NAME of an environment variable in capitals (not the key itself), or null"
    )


def test_a_key_given_where_none_belongs_is_not_repeated(finished: Path) -> None:
    with pytest.raises(ConfigError, match=r"^judge\.api_key: given \*\*\*; judge=openai has no such key; allowed: ") as wrong:
        job("eval", [f"run={finished / 'stage=3,seed=1'}", "judge=openai", "judge.model=m", "judge.api_key=sk-123"])
    assert "sk-123" not in str(wrong.value)


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


def test_the_command_line_has_the_last_word_over_an_experiment() -> None:
    assert job("train", ["experiment=demo"]).config.stage.stages == [0, 1, 2, 3, 4, 5]
    assert job("train", ["experiment=demo", "stage=2"]).config.stage == Curriculum(stages=[2])
    assert job("train", ["experiment=demo", "stage=2"]).config.optim.name == "muon"
    assert job("train", ["debug=overfit", "max_steps=7"]).config.max_steps == 7


def test_the_published_gsm8k_recipe() -> None:
    """arXiv 2412.06769 and its code: epochs 0-2 (here 6, as in the paper), then 3 a stage, then 13 with every step latent."""
    config = job("train", ["experiment=coconut_gsm8k"]).config
    assert config.model == Pretrained(path="openai-community/gpt2")
    assert config.dataset == Hub(name="whynlp/gsm8k-aug", plain_numbers=True, may_lack_steps=True)
    assert config.stage == Curriculum(
        stages=[0, 1, 2, 3, 4], max_stage=3, epochs=[6, 3, 3, 3, 13], latents_per_step=2, reset_optimizer="stage"
    )
    assert [config.stage.num_slots(stage) for stage in config.stage.stages] == [0, 2, 4, 6, 6]
    assert config.optim == Optim(lr=1e-4, weight_decay=0.01, betas=[0.9, 0.999], schedule="constant", warmup=0, clip=0)
    assert (config.batch_size, config.precision, config.max_steps) == (128, "fp32", None)


@pytest.mark.parametrize(("stage", "epochs"), [("cot", [25]), ("no_cot", [25])])
def test_the_recipes_baselines_are_the_recipe_with_another_stage(stage: str, epochs: list[int]) -> None:
    baseline = job("train", ["experiment=coconut_gsm8k", f"stage={stage}", f"stage.epochs={epochs}"]).config
    recipe = job("train", ["experiment=coconut_gsm8k"]).config
    assert baseline.stage == Curriculum(kind=stage, epochs=epochs)
    assert (baseline.optim, baseline.dataset, baseline.model) == (recipe.optim, recipe.dataset, recipe.model)


def test_every_recipe_begins_with_its_command() -> None:
    for file in sorted((config_folder() / "experiment").glob("*.yaml")):
        package, command = file.read_text().splitlines()[:2]
        assert package == "# @package _global_"
        assert command.startswith(f"# python -m latent_lab.train experiment={file.stem} ")


def test_every_recipe_of_a_paper_begins_with_the_published_number() -> None:
    presets = {file.stem: file.read_text().splitlines()[1] for file in (config_folder() / "experiment").glob("*.yaml")}
    papers = {name.removesuffix("_small") for name in presets} & {name for name in presets if f"{name}_small" in presets}
    assert papers == {
        *("coconut_gsm8k", "coconut_prosqa", "coconut_prontoqa", "superposition", "cocoracle", "codi_gsm8k"),
        *("icot_gsm8k", "icot_multiplication"),
    }
    for name in papers | {"planning_gsm8k", "memory_reason"}:
        assert re.search(r"     published: (about )?[0-9.]+( \+/- [0-9.]+)? %.*not re-run here$", presets[name]), name
    recipe = (config_folder() / "experiment" / "icot_gsm8k.yaml").read_text().replace("\n# ", " ")
    assert "skips batches longer than 150 tokens; here no row is skipped" in recipe


def test_a_sign_before_a_key_changes_nothing() -> None:
    assert job("train", ["+stage=3", "++seed=1"]).command == job("train", ["stage=3", "seed=1"]).command


def test_the_plain_configuration_survives_json_and_builds_the_same_again() -> None:
    made = job("train", ["stage=3", "optim.lr=1e-4"])
    assert typed(json.loads(json.dumps(made.plain))) == made.config


def test_nothing_but_a_dataclass_is_built_whoever_wrote_the_configuration() -> None:
    plain = job("train", []).plain
    plain["stage"] = {"_target_": "os.getcwd"}
    with pytest.raises(ConfigError) as error:
        typed(plain)
    assert str(error.value) == "_target_: given os.getcwd; allowed: dataclasses"
    with pytest.raises(ConfigError) as error:
        typed({"_target_": "no.such.Class"})
    assert str(error.value) == (
        "_target_: given no.such.Class; it cannot be imported (No module named 'no'); allowed: package.module.Class"
    )


def test_a_run_is_found_by_path_or_below_outputs(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = finished / "stage=3,seed=1"
    by_name = job("eval", ["run=stage=3,seed=1", f"outputs={finished}"]).config
    assert isinstance(by_name, EvalConfig)
    assert (by_name.run_folder, by_name.dataset) == (folder, None)
    assert job("eval", [f"run={folder}"]).config.run_folder == folder
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "stage=3,seed=1").mkdir(parents=True)  # a folder of that name that is no run hides nothing
    monkeypatch.chdir(elsewhere)
    assert job("eval", ["run=../stage=3,seed=1"]).config.run_folder.resolve() == folder
    monkeypatch.setenv("LATENT_LAB_OUTPUTS", str(finished))
    assert job("eval", ["run=stage=3,seed=1"]).config.run_folder == folder
    assert job("train", []).config.outputs == str(finished)


def test_an_evaluation_stands_for_its_run_even_where_it_bears_its_name(finished: Path, tmp_path: Path) -> None:
    graded = tmp_path / "graded" / "stage=3,seed=1"
    graded.mkdir(parents=True)
    (graded / "config.yaml").write_text(f"run: stage=3,seed=1\noutputs: {finished}\n", encoding="utf-8")
    assert job("eval", [f"run={graded}"]).config.run_folder == finished / "stage=3,seed=1"


# What does not


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["seeed=1"], f"seeed: given 1; there is no such key; allowed: {TRAIN_KEYS}; did you mean seed?"),
        (["lr=1"], f"lr: given 1; there is no such key; allowed: {TRAIN_KEYS}; did you mean optim.lr?"),
        (["+foo=1"], f"foo: given 1; there is no such key; allowed: {TRAIN_KEYS}"),
        (
            ["++stage.foo=1"],
            f"stage.foo: given 1; there is no such key; allowed: {STAGE_KEYS}",
        ),
        (["model=gpt2", "model.layers=1"], f"model.layers: given 1; model=gpt2 has no such key; allowed: {PRETRAINED_KEYS}"),
        (
            ["model.dtipe=float32", "model=gpt2"],
            f"model.dtipe: given float32; model=gpt2 has no such key; allowed: {PRETRAINED_KEYS}; did you mean model.dtype?",
        ),
        (["stage=99"], f"stage: given 99; allowed: {STAGES}"),
        (["stage="], f"stage: given nothing; allowed: {STAGES}"),
        (["stage=null"], f"stage: given null; allowed: {STAGES}"),
        (["stage=1,2"], "stage: given 1,2; allowed: one option, or several with -m"),
        (
            ["model=gpt3"],
            f"model: given gpt3; allowed: {', '.join(options('model'))}; did you mean gpt2?",
        ),
        (["seed=abc"], "seed: given abc; allowed: an integer"),
        (["seed=1.5"], "seed: given 1.5; allowed: an integer"),
        (["seed=null"], "seed: given null; allowed: an integer"),
        (["max_steps=x"], "max_steps: given x; allowed: an integer or null"),
        (["optim.lr=fast"], "optim.lr: given fast; allowed: a number"),
        (["optim.betas=[x]"], "optim.betas: given [x]; allowed: a list of numbers, as in [A,B]"),
        (["stage.epochs=3"], "stage.epochs: given 3; allowed: a list of numbers, as in [A,B]"),
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
        (["max_steps=-1"], "max_steps: given -1; allowed: 0 and more"),
        (["batch_by=size"], "batch_by: given size; allowed: shape, length"),
        (
            ["stage=2", "batch_by=length"],
            "batch_by: given length; slots must be alike, or each batch waits for its longest row; allowed: shape",
        ),
        *(
            ([*stage, "compile=true"], "compile: given True; this stage has no passes of one token; allowed: false")
            for stage in (["stage=cot"], ["stage=pause"], ["stage=jacobi", "stage.rounds=2"], ["stage=oracle", "stage.run=x"])
        ),
        (
            ["stage=2", "compile=true", "stage.feedback=before_norm"],
            "compile: given True; not together with stage.feedback; allowed: false, or stage.feedback=after_norm",
        ),
        (
            ["stage=codi", "compile=true"],
            "compile: given True; this stage compares the states of all layers, pass by pass; allowed: false",
        ),
        (
            ["stage=2", "compile=true", "model.gradient_checkpointing=true"],
            "compile: given True; not together with model.gradient_checkpointing; allowed: false, or "
            "model.gradient_checkpointing=false",
        ),
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
        (
            ["init_from=a"],
            "init_from: given a; there is no such folder; allowed: a checkpoint's folder, or a run's overrides joined by commas, "
            "to train first",
        ),
        (
            ["init_from=stage=99,seed=2"],
            f"init_from: given stage=99,seed=2; there is no such folder, and as the name of a run: stage: given 99; "
            f"allowed: {', '.join(options('stage'))}",
        ),
        (["dataset=file"], "dataset.path: given nothing; allowed: the problems to read; write dataset.path=..."),
        (["dataset=hub"], "dataset.name: given nothing; allowed: the problems to read; write dataset.name=..."),
        (["name=../x"], "name: given ../x; allowed: the name of a folder below outputs"),
        (["seed=1,2"], "seed: given 1,2; allowed: one value (several with -m, a list as seed=[1,2], text as seed=\"'1,2'\")"),
        (["foo"], "foo: given nothing; allowed: foo=VALUE"),
        (["~seed"], "seed: given ~seed; nothing can be removed; allowed: seed=VALUE"),
        (["seed=4294967296"], "seed: given 4294967296; allowed: 0 to 4294967295"),
        (["save_every=nan"], "save_every: given nan; allowed: 0 and more"),
        (["optim.clip=-1"], "optim.clip: given -1.0; allowed: 0 (off) and more"),
        (["optim.betas=[0.9,1]"], "optim.betas: given [0.9, 1.0]; allowed: two numbers from 0 to below 1"),
        (["optim={lr: 1, foo: 2}"], f"optim.foo: given {{lr: 1, foo: 2}}; there is no such key; allowed: {OPTIM_KEYS}"),
        (["stage._target_=os.getcwd"], "_target_: given os.getcwd; allowed: dataclasses"),
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
    allowed = "there is no such run; allowed: its folder, or its name below outputs"
    assert complaint("outputs=none", door="eval") == f"run: given nothing; {allowed} (none in none yet)"
    message = f"run: given stage=4; {allowed} (stage=3,seed=1)"
    assert complaint("run=stage=4", f"outputs={finished}", door="eval") == message
    (finished / "stage=4").mkdir()
    assert complaint("run=stage=4", f"outputs={finished}", door="eval") == message


def test_a_message_names_the_latest_five_runs(finished: Path) -> None:
    for number in range(6):
        (finished / f"run{number}").mkdir()
        (finished / f"run{number}" / "result.json").touch()
        os.utime(finished / f"run{number}" / "result.json", (2e9 + number, 2e9 + number))
    assert complaint("run=x", f"outputs={finished}", door="eval").endswith("(run5; run4; run3; run2; run1; ...)")


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
        (["stage.train_stop=False", "max_steps=null"], "max_steps=null,stage.train_stop=false"),
        (["stage.stages=[0, 2]"], "stage.stages=0+2"),
        (["model=folder", "model.path='a b/c'"], "model=folder,model.path=a_b_c"),
        (["tracker=wandb", "tracker.project=x", "device=cpu", "threads=2", "log_every=1", "outputs=/x"], "default"),
        (["eval_at_start=true"], "default"),
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
    (finished / "two" / "config.yaml").touch()
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
    ("swept", "slugs"),
    [
        ("stage=range(1,3)", ["stage=1", "stage=2"]),
        ("stage=glob(*_cot)", ["stage=no_cot"]),
        ("seed=choice(7,3)", ["seed=7", "seed=3"]),
        ("optim.betas=[0.9,0.95],[0.9,0.98]", ["optim.betas=0.9+0.95", "optim.betas=0.9+0.98"]),
        ("optim.schedule='cosine','linear'", ["optim.schedule=cosine", "optim.schedule=linear"]),
    ],
)
def test_what_can_be_swept(swept: str, slugs: list[str]) -> None:
    assert [each.slug for each in jobs("train", [swept])] == slugs


@pytest.mark.parametrize("swept", ["optim.lr=interval(0,1)", "stage=glob(x*)", "stage=glob([4,5])"])
def test_what_cannot_be_swept(swept: str) -> None:
    with pytest.raises(ConfigError) as error:
        jobs("train", [swept])
    key, _, value = swept.partition("=")
    reason = "that is no value at all; allowed: A,B or range(1,4) or, for options, glob(*)"
    assert str(error.value) == f"{key}: given {value}; {reason}"


def test_a_runs_name_with_commas_is_one_run_where_it_exists(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATENT_LAB_OUTPUTS", str(finished))
    assert [each.config.run for each in jobs("eval", ["run=stage=3,seed=1", "seed=1,2"])] == ["stage=3,seed=1"] * 2


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
        ("init_from=null", False, ["init_from=null"]),
    ],
)
def test_what_a_person_types_becomes_what_hydra_reads(typed_in: str, is_sweep: bool, read: list[str]) -> None:
    assert as_hydra_reads(typed_in, is_sweep) == read


def test_a_sweep_over_more_runs_than_a_file_name_has_letters_is_read() -> None:
    runs = [f"emergent-{number}" for number in range(40)]
    assert as_hydra_reads(f"run={','.join(runs)}", is_sweep=True) == ["run=" + ",".join(f"'{run}'" for run in runs)]


def test_runs_that_differ_in_their_seed_or_name_alone_are_one_group() -> None:
    first, second = job("train", ["stage=3", "seed=1", "name=a"]), job("train", ["seed=2", "stage=3"])
    assert first.group == second.group == "stage=3"
    assert job("train", ["seed=7"]).group == "default"


def test_a_stored_setting_of_another_version_is_named() -> None:
    plain = job("train", ["stage=3"]).plain
    plain["stage"]["pad_to_max"] = True
    with pytest.raises(
        ConfigError, match=r"^stage\.pad_to_max: given True; this version knows no such setting; allowed: runs made"
    ):
        typed(plain)
