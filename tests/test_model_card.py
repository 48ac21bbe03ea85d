"""The model card: what it says, that the hub can read it, and that the code in it works."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard

from latent_lab.backbone import Scratch
from latent_lab.card import model_card
from latent_lab.checkpoint import Info, save
from latent_lab.job import job
from latent_lab.problems.arithmetic import Arithmetic

RATE = {"value": 0.3412, "n": 1319, "low": 0.3162, "high": 0.3672}
RESULT = {
    "split": "valid",
    "accuracy": RATE,
    "floors": {"majority": {"value": 0.0, "n": 1319, "low": 0.0, "high": 0.0029}, "thoughts_removed": RATE},
    "seconds": 17.4,
}


def card(*overrides: str, num_slots: int | None = 6, result: dict[str, Any] | None = None) -> str:
    return model_card("my-run", job("train", list(overrides)).plain, num_slots, result)


def test_the_hub_reads_its_header() -> None:
    data = ModelCard(card("model=gpt2", "dataset=hub", "dataset.name=openai/gsm8k", "stage=3")).data.to_dict()
    assert data == {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["latent-reasoning", "latent_lab", "coconut"],
        "base_model": "openai-community/gpt2",
        "datasets": ["openai/gsm8k"],
    }
    data = ModelCard(card("stage=cot", num_slots=None)).data.to_dict()
    assert data["tags"] == ["latent-reasoning", "latent_lab"]
    assert not {"base_model", "datasets"} & data.keys()


def test_a_folder_is_no_base_model_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "base_model" not in ModelCard(card("model=folder", f"model.path={tmp_path}")).data.to_dict()
    (tmp_path / "my" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    text = card("model=folder", "model.path=my/model")
    assert "base_model" not in ModelCard(text).data.to_dict()
    assert "| base model | my/model |" in text


def test_it_says_what_was_trained_on_what_and_what_it_scored_beside_the_floors() -> None:
    text = card("model=gpt2", "dataset=arithmetic", "stage=3", "seed=5", "peft=lora", result=RESULT)
    assert "# my-run\n" in text
    lines = [line for line in text.splitlines() if line.startswith("| ") and line != "| | |"]
    assert lines == [
        "| base model | openai-community/gpt2 |",
        "| dataset | Arithmetic |",
        "| method | Curriculum kind=coconut stages=[3] |",
        "| adapters | LoRA rank=16 targets=all-linear |",
        "| seed | 5 |",
        "| accuracy (valid) | 34.1% [31.6, 36.7], n = 1319 |",
        "| floor: majority (valid) | 0.0% [0.0, 0.3], n = 1319 |",
        "| floor: thoughts removed (valid) | 34.1% [31.6, 36.7], n = 1319 |",
    ]


def test_it_says_where_nothing_but_rows_was_trained() -> None:
    assert "| adapters | Rows |" in card("model=gpt2", "stage=planning", "plan=arithmetic", "peft=rows")
    assert "| adapters | none: every weight was trained |" in card("model=gpt2", "stage=planning")


def test_it_says_what_stands_around_a_question() -> None:
    assert "put in" not in card("stage=cot", num_slots=None)
    said = (
        "Its questions were put in Alpaca's headings with the instruction 'Add.': put them so in place of `question + \"\\n\"`.\n"
    )
    assert said in card("stage=cot", "stage.template=alpaca", "stage.instruction=Add.", num_slots=None)
    assert "Its questions were put in the tokenizer's own chat template: put" in card("stage=3", "stage.template=chat")


def test_what_is_not_known_is_not_said() -> None:
    assert "accuracy" not in card("stage=3")
    unknown = {"value": None, "n": 0, "low": None, "high": None}
    assert "| accuracy (valid) | unknown (n = 0) |" in card("stage=3", result={"split": "valid", "accuracy": unknown})


def test_the_same_run_has_the_same_card_wherever_and_however_long_it_ran() -> None:
    first = card("stage=3", "outputs=here", "threads=1", "tracker=wandb", "name=a", result=RESULT)
    assert first == card("stage=3", "outputs=there", "threads=2", result=RESULT | {"seconds": 99.9})
    assert "here" not in re.sub(r"\bthere\b|where", "", first)


@pytest.mark.parametrize(
    ("stage", "num_slots"), [(["stage=3"], 3), (["stage=3"], None), (["stage=icot", "stage.keep_positions=true"], None)]
)
def test_the_code_in_it_works(stage: list[str], num_slots: int | None, tmp_path: Path) -> None:
    torch.manual_seed(0)
    backbone = Scratch(layers=1, width=16, heads=2).load(Arithmetic(train_size=20).load("train"))
    save(tmp_path, backbone, Info(3, num_slots or 0, 7, None, None, 0), None)
    names: dict[str, Any] = {"folder": str(tmp_path), "question": "21 + 62 ="}
    for code in re.findall(r"```python\n(.*?)```", card(*stage, num_slots=num_slots), flags=re.DOTALL):
        exec(code, names)
    assert isinstance(names["answer"], str)
    assert 1 <= names["new"].shape[1] <= (7 if num_slots or len(stage) > 1 else 300)
    if len(stage) > 1:
        assert names["places"] == [*range(len(names["ids"]) - 1), len(names["ids"]) - 1 + 3]
