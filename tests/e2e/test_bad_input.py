"""What cannot be trained on is said before training starts, with the id of the row."""

import json
from pathlib import Path

import pytest

from latent_lab.problems import DataError
from latent_lab.weights import ModelError
from tests.tiny import MODEL, TINY, result, train

GOOD = {"question": "1 + 2 =", "steps": ["1+2=3 write 3"], "answer": "3"}


def folder(tmp_path: Path, *rows: dict[str, object]) -> list[str]:
    for split in ("train", "valid", "test"):
        text = "\n".join(json.dumps(row) for row in (rows if split == "train" else [GOOD]))
        (tmp_path / f"{split}.jsonl").write_text(text, encoding="utf-8")
    return ["dataset=file", f"dataset.path={tmp_path}", "batch_size=2", "device=cpu", "stage.epochs=[1]"]


def nothing_was_trained(outputs: Path) -> bool:
    return not list(outputs.rglob("metrics.jsonl"))


def test_a_row_without_steps(tmp_path: Path) -> None:
    settings = folder(tmp_path, GOOD, GOOD | {"steps": []})
    with pytest.raises(DataError, match=r"^problem train-2: found no steps; allowed: one or more"):
        train(tmp_path / "runs", "stage=1", *settings, base=MODEL)
    assert nothing_was_trained(tmp_path / "runs")
    for allowed in (["stage=1", "dataset.may_lack_steps=true"], ["stage=no_cot"]):
        assert result(train(tmp_path / "runs", *allowed, *settings, base=MODEL))["steps"] == 1


def test_an_answer_that_is_no_number_where_answers_are_numbers(tmp_path: Path) -> None:
    row = {"question": "Who?", "answer": "It is <<1+1=2>>2.\n#### two"}
    (tmp_path / "train.jsonl").write_text("\n".join([json.dumps(row | {"answer": "#### 4"})] * 2 + [json.dumps(row)]))
    settings = ["dataset=gsm8k", f"dataset.path={tmp_path}", "dataset.valid_size=1", "device=cpu", "stage=cot"]
    expected = r"train\.jsonl, line 3, field 'answer': found 'two' after ####; allowed: a number such as -12 or 1,080$"
    with pytest.raises(DataError, match=expected):
        train(tmp_path / "runs", *settings, base=MODEL)
    assert nothing_was_trained(tmp_path / "runs")


@pytest.mark.parametrize("method", [["stage=cot"], ["stage=icot", "stage.epochs=[1]"], ["stage=0"], ["stage=codi"]])
def test_a_chain_longer_than_the_context(method: list[str], tmp_path: Path) -> None:
    settings = folder(tmp_path, GOOD, GOOD | {"steps": ["1+2=3 write 3"] * 40})
    with pytest.raises(ModelError, match=r"^problem train-2 is \d+ tokens long at stage 0; the model has positions for 128"):
        train(tmp_path / "runs", *settings, *method, base=MODEL)
    assert nothing_was_trained(tmp_path / "runs")


def test_positions_kept_beyond_the_context(tmp_path: Path) -> None:
    kept = [
        "stage=icot",
        "stage.keep_positions=true",
        "stage.epochs=[1]",
        "stage.tokens_per_epoch=200",
        "stage.remove_all_at=null",
    ]
    with pytest.raises(ModelError, match=r"^problem \S+ is \d+ tokens long at stage 199; the model has positions for 128"):
        train(tmp_path, *kept)
    assert nothing_was_trained(tmp_path)


def test_a_stage_beyond_the_data(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^stage=6: the longest chain of the 40 training problems has 3 steps \(problem train-"):
        train(tmp_path, "stage=6")
    assert nothing_was_trained(tmp_path)
    with pytest.raises(DataError, match=r"^stage=4: .* allowed: stages 0 to 3"):
        train(tmp_path, "stage=4", "stage.pad=chain")


def test_a_stage_is_judged_by_the_whole_split_not_by_its_first_problems(tmp_path: Path) -> None:
    two_steps_first = ["dataset.train_size=40", "train_limit=2", "stage=3", "stage.epochs=[0.1]", "max_steps=1"]
    assert result(train(tmp_path, *two_steps_first, base=TINY))["steps"] == 1


def test_a_start_of_another_vocabulary(tmp_path: Path) -> None:
    first = train(tmp_path / "a", "stage=0", "stage.epochs=[0.2]", "model.width=64", "model.heads=2")
    again = train(tmp_path / "b", "stage=1", "stage.epochs=[0.2]", f"init_from={first / 'checkpoint'}")
    assert result(again)["parameters"] == result(first)["parameters"]  # the folder says how large the model is
    with pytest.raises(ModelError, match=r"holds no latent.json|cannot be loaded|allowed: a folder"):
        train(tmp_path / "c", "stage=1", "stage.epochs=[0.2]", f"init_from={tmp_path}")
