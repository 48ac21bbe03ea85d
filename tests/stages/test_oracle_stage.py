"""``stage=oracle``: the dataset and model are those of the run that is read, and every kind trains, resumes and is stored."""

from pathlib import Path

import pytest
import yaml

from latent_lab.config import ConfigError
from latent_lab.engine import Engine
from latent_lab.job import job
from latent_lab.run import RunConflict
from latent_lab.thoughts.oracle import Oracle
from tests.tiny import MODEL, rows, train

BASE = ("stage=oracle", "stage.epochs=[1]", "batch_size=32", "log_every=1", "device=cpu", "oracle.valid_problems=6")


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("outputs")
    train(folder, "stage=coconut", "stage.stages=[0,2]", "stage.epochs=[1]", "name=read")
    return folder


def oracle(outputs: Path, *overrides: str) -> Path:
    return train(outputs, "stage.run=read", *overrides, base=BASE)


@pytest.mark.parametrize("kind", ["self", "lora", "head", "separate"])
def test_every_kind_trains_and_is_stored_with_what_it_was_trained_on(outputs: Path, kind: str) -> None:
    folder = oracle(outputs, f"oracle={kind}", f"name={kind}", *(MODEL if kind == "separate" else ()))
    stored = yaml.safe_load((folder / "config.yaml").read_text())
    read = yaml.safe_load((outputs / "read" / "config.yaml").read_text())
    assert stored["dataset"] == read["dataset"]
    assert stored["dataset"]["train_size"] == 40
    assert stored["model"] == read["model"]
    assert len(stored["stage"]["weights"]) == 16
    result = yaml.safe_load((folder / "result.json").read_text())
    assert result["step_exact_match"]["n"] == len(rows(folder / "samples.jsonl"))
    assert set(result["step_exact_match"]["floors"]) == {"constant", "position_prior", "none", "shuffled", "shuffled_in_stratum"}
    forgotten = {"self": {"text", "latent"}, "lora": {"text", "latent"}, "separate": {"text"}, "head": set()}[kind]
    assert set(result["forgetting"]) == forgotten
    loaded = Oracle.load(folder / "checkpoint")
    assert loaded.options.kind == kind
    assert (folder / "checkpoint" / "tokenizer.json").is_file()


def test_a_killed_oracle_goes_on_and_ends_with_the_same_bytes(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = oracle(outputs, "oracle=self", "name=whole", "stage.epochs=[2]")
    step = Engine._step
    done = []

    def killed(self: Engine, *given: object) -> dict[str, float]:
        if len(done) == 3:
            self.save()
            raise KeyboardInterrupt
        done.append(1)
        return step(self, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(Engine, "_step", killed)
    with pytest.raises(KeyboardInterrupt):
        oracle(outputs, "oracle=self", "name=cut", "stage.epochs=[2]")
    monkeypatch.setattr(Engine, "_step", step)
    cut = oracle(outputs, "oracle=self", "name=cut", "stage.epochs=[2]")
    weights = [(folder / "checkpoint" / "model.safetensors").read_bytes() for folder in (whole, cut)]
    assert weights[0] == weights[1]
    assert (whole / "samples.jsonl").read_bytes() == (cut / "samples.jsonl").read_bytes()


def test_the_run_that_is_read_is_known_by_its_weights_not_by_how_it_is_named(outputs: Path) -> None:
    by_name = oracle(outputs, "oracle=head", "name=named")
    before = (by_name / "result.json").read_bytes(), (by_name / "provenance.json").read_bytes()
    oracle(outputs, "oracle=head", "name=named", f"stage.run={outputs / 'read'}")
    assert ((by_name / "result.json").read_bytes(), (by_name / "provenance.json").read_bytes()) == before
    train(outputs, "stage=coconut", "stage.stages=[0,2]", "stage.epochs=[1]", "seed=5", "name=other")
    with pytest.raises(RunConflict, match=r"stage\.weights: stored"):
        oracle(outputs, "oracle=head", "name=named", "stage.run=other")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("oracle=self", "dataset=gsm8k"), "dataset: given gsm8k; the oracle is trained on the problems of stage.run"),
        (("oracle=self", "dataset.train_size=9"), "dataset.train_size: given 9"),
        (("oracle=lora", "model=gpt2"), "another one takes oracle=separate"),
        (("oracle=self", "peft=lora"), "say oracle=lora"),
    ],
)
def test_what_the_run_already_says_cannot_be_given(outputs: Path, overrides: tuple[str, ...], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        oracle(outputs, *overrides)


def test_thin_matrices_have_a_course_of_their_own() -> None:
    # With the steps that suit the matrices of a whole model an adapter's loss stays where it began.
    whole, thin = (job("train", [f"experiment={name}", "stage.run=some/run"]).config for name in ("oracle", "oracle_lora"))
    assert (thin.oracle.kind, thin.oracle.rank, thin.oracle.alpha) == ("lora", 32, 32)
    assert thin.optim.matrix_lr < whole.optim.matrix_lr
    assert thin.stage.epochs[0] > whole.stage.epochs[0]


def test_an_oracle_needs_a_run_and_a_kind_and_no_other_stage_takes_one(outputs: Path) -> None:
    for overrides, said in (
        (["stage=oracle", "oracle=self"], "stage.run: given nothing"),
        (["stage=oracle", "stage.run=read"], "oracle: given nothing"),
        (["stage=cot", "oracle=self"], "this stage trains none"),
    ):
        with pytest.raises(ConfigError, match=said):
            job("train", overrides)
    with pytest.raises(ConfigError, match="a finished run's folder"):
        train(outputs, "stage.run=nowhere", "oracle=self", base=BASE)
