import json
import logging
from pathlib import Path
from typing import Any

import pytest

from latent_lab.backbone import ModelError
from latent_lab.config import ConfigError
from latent_lab.job import job
from latent_lab.problems import DataError, Problem
from latent_lab.problems.files import File
from latent_lab.report.card import is_one_for_all, summary
from latent_lab.report.card_figure import binned, limit, reach_of
from latent_lab.run import RunConflict
from tests.tiny import result, rows, save_hub_model

SUMS = ["dataset=arithmetic", "dataset.train_size=60", "dataset.valid_size=11", "dataset.test_size=20"]
TRAIN = [
    {"question": "1 and 1?", "steps": ["1+1=2"], "answer": "2", "source": "made up"},
    {"question": "1 and 2?", "steps": ["1+2=3", "so 3"], "answer": "3"},
    {"question": "2 and 1?", "steps": ["2+1=3", "so 3"], "answer": "3"},
]
TEST = [
    {"question": "1 and 3?", "steps": ["1+3=4"], "answer": "4"},
    {"question": "1 and 2?", "steps": [], "answer": "3"},
    {"question": "2 and 0?", "steps": ["2+0=2"], "answer": "2", "steps_taken": 1},
    {"question": "2 and 0?", "steps": ["2+0=2"], "answer": "2"},
]


def card(outputs: Path, *overrides: str) -> tuple[Path, dict[str, Any]]:
    """Make a data card as the door does; return its folder and result."""
    asked = job("eval", ["task=problems", f"outputs={outputs}", *overrides])
    returned = asked.config.task.run(asked)
    folder = Path(asked.config.out) if asked.config.out else outputs / "problems" / asked.slug
    assert returned == result(folder)
    return folder, returned


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six problems by hand, of which one question stands in both splits."""
    made = tmp_path / "data"
    made.mkdir()
    for name, records in {"train": TRAIN, "valid": TRAIN[:1], "test": TEST}.items():
        (made / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return made


@pytest.fixture
def tiny(folder: Path) -> list[str]:
    return ["dataset=file", f"dataset.path={folder}"]


# What is written


def test_a_card_is_a_folder_named_by_what_was_asked(tmp_path: Path) -> None:
    made, found = card(tmp_path, *SUMS)
    assert made.name == "dataset=arithmetic,task=problems,dataset.test_size=20,dataset.train_size=60,dataset.valid_size=11"
    assert {path.name for path in made.iterdir() if not path.name.startswith(".")} == {
        "config.yaml",
        "provenance.json",
        "problems.jsonl",
        "card.png",
        "result.json",
    }
    assert (made / "card.png").read_bytes().startswith(b"\x89PNG")
    assert (found["task"], found["dataset"], found["split"], found["n"]) == ("problems", "arithmetic", "test", 20)
    assert found["sizes"] == {"train": 60, "valid": 11, "test": 20}
    assert found["overlaps"] == {"train_valid": 0, "train_test": 0, "valid_test": 0}


def test_the_problems_are_written_with_their_meta_beside_them(tmp_path: Path, tiny: list[str]) -> None:
    made, _ = card(tmp_path, *tiny, "split=train")
    written = rows(made / "problems.jsonl")
    assert written[0] == {
        "source": "made up",
        "id": "train-1",
        "split": "train",
        "question": "1 and 1?",
        "steps": ["1+1=2"],
        "answer": "2",
        "meta": {"source": "made up"},
    }
    assert [row["id"] for row in written] == ["train-1", "train-2", "train-3"]


def test_the_file_written_is_itself_a_dataset(tmp_path: Path) -> None:
    made, _ = card(tmp_path, *SUMS)
    again = File(path=str(made / "problems.jsonl"), id="id").load("test")
    assert again == job("eval", ["task=problems", *SUMS]).config.dataset.load("test")
    assert {"a", "b", "digits", "carries"} < set(again[0].meta)


def test_the_split_and_the_limit_asked_for(tmp_path: Path) -> None:
    made, found = card(tmp_path, *SUMS, "split=valid", "limit=5")
    assert [row["id"] for row in rows(made / "problems.jsonl")] == [f"valid-{index}" for index in range(5)]
    assert (found["split"], found["n"], found["sizes"]["valid"]) == ("valid", 5, 11)
    assert all(floor["n"] == 5 for floor in found["floors"].values())


# What is measured


def test_what_a_card_says_of_four_problems(tmp_path: Path, tiny: list[str]) -> None:
    _, found = card(tmp_path, *tiny)
    assert found["sizes"] == {"train": 3, "valid": 1, "test": 4}
    assert found["overlaps"] == {"train_valid": 1, "train_test": 1, "valid_test": 0}
    assert found["repeated"] == {"train": 0, "valid": 0, "test": 1}
    can_be_copied = {split: (each["value"], each["n"]) for split, each in found["answer_in_question"].items()}
    assert can_be_copied == {"train": (0.0, 3), "valid": (0.0, 1), "test": (0.5, 4)}  # "2 and 0?", twice
    assert (found["missing"], found["without_steps"]) == ({}, 1)
    assert found["histograms"]["steps"] == {"0": 1, "1": 3}
    assert found["steps"] == {"mean": 0.75, "min": 0, "p5": 0, "p25": 0, "p50": 1, "p75": 1, "p95": 1, "max": 1}
    assert {name: floor["value"] for name, floor in found["floors"].items()} == {
        "majority": 0.25,  # 3
        "majority_by_steps": 0.75,  # 2 where one step is written, 3 where none is
        "nearest_question": pytest.approx(0.25),
        "first_number": 0.5,
        "last_number": 0.0,
    }


def test_lengths_are_those_of_the_sequence(tmp_path: Path, tiny: list[str]) -> None:
    model = save_hub_model(tmp_path / "model", "gpt2", texts=["zz"])  # every byte is a token, but for the pair zz
    _, found = card(tmp_path, *tiny, f"task.tokenizer={model}")
    assert found["tokenizer"] == str(model)
    assert found["tokens"]["question"] == {"mean": 9, **dict.fromkeys(("min", "p5", "p25", "p50", "p75", "p95", "max"), 9)}
    assert found["tokens"]["answer"]["min"] == len("### 4") + 1
    assert found["histograms"]["chain_tokens"] == {"0": 1, str(len("1+3=4\n")): 3}


def test_the_digit_level_tokenizer_comes_from_the_training_split(tmp_path: Path, tiny: list[str], folder: Path) -> None:
    _, found = card(tmp_path, *tiny)
    assert found["tokenizer"] == "digit-level, made from the train split"
    (folder / "train.jsonl").unlink()
    _, found = card(tmp_path, *tiny, "out=" + str(tmp_path / "bare"))
    assert found["tokenizer"] == "digit-level, made from the described split"


def test_a_split_that_is_not_there_is_null_with_the_reason(tmp_path: Path, tiny: list[str], folder: Path) -> None:
    (folder / "train.jsonl").unlink()
    _, found = card(tmp_path, *tiny)
    assert found["sizes"] == {"train": None, "valid": 1, "test": 4}
    assert found["missing"] == {
        "train": f"{folder}: holds no file for the train split; allowed are train with one of .csv, .json, .jsonl, .parquet, "
        ".txt: "
        "add one, or give the path of a single file"
    }
    assert found["overlaps"] == {"valid_test": 0}
    assert list(found["floors"]) == ["first_number", "last_number"]
    with pytest.raises(DataError) as error:
        card(tmp_path, *tiny, "split=train")
    assert str(error.value) == found["missing"]["train"]


def test_a_split_that_its_publishers_do_not_have_costs_no_download(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^reasoning-machines/gsm-hard: its publishers have no train split; allowed: test; "):
        card(tmp_path, "dataset=gsm_hard", "split=train")


def test_a_malformed_row_of_any_split_stops_everything(tmp_path: Path, tiny: list[str], folder: Path) -> None:
    (folder / "train.jsonl").write_text('{"question": "1 and 1?"}\n')
    with pytest.raises(DataError, match="line 1, field 'answer': missing"):
        card(tmp_path, *tiny)
    assert not (tmp_path / "problems").exists()


def test_published_gsm_hard(tmp_path: Path, data_folder: Path) -> None:
    _, found = card(tmp_path, "dataset=gsm_hard", f"dataset.path={data_folder / 'gsm_hard/gsmhardv2.jsonl'}", "limit=200")
    assert (found["n"], found["sizes"]) == (200, {"train": None, "valid": None, "test": 1_319})
    assert found["without_steps"] == 200
    assert list(found["floors"]) == ["first_number", "last_number"]


def test_a_quantile_is_the_smallest_value_that_so_many_reach() -> None:
    assert summary([4, 1, 3, 2]) == {"mean": 2.5, "min": 1, "p5": 1, "p25": 1, "p50": 2, "p75": 3, "p95": 4, "max": 4}


# Complete or absent, and reused


def test_the_same_command_gives_the_same_bytes_and_a_complete_card_is_reused(tmp_path: Path, caplog) -> None:
    made, first = card(tmp_path, *SUMS)
    kept = {name: (made / name).read_bytes() for name in ("problems.jsonl", "card.png")}
    (made / "card.png").write_bytes(b"mine")
    with caplog.at_level(logging.INFO):
        card(tmp_path, *SUMS)
    assert f"{made} is complete; its stored result is used (overwrite=true does it again)" in caplog.messages
    assert (made / "card.png").read_bytes() == b"mine"
    _, second = card(tmp_path, *SUMS, "overwrite=true")
    assert {name: (made / name).read_bytes() for name in kept} == kept
    assert {**first, "seconds": 0} == {**second, "seconds": 0}


def test_changed_problems_never_pass_for_the_old_ones(tmp_path: Path, tiny: list[str], folder: Path) -> None:
    card(tmp_path, *tiny)
    (folder / "train.jsonl").write_text(json.dumps(TRAIN[0]))
    with pytest.raises(RunConflict, match="train_problems: stored"):
        card(tmp_path, *tiny)


# What is said


def test_one_line_for_each_main_fact(tmp_path: Path, tiny: list[str], caplog) -> None:
    with caplog.at_level(logging.INFO):
        made, _ = card(tmp_path, *tiny)
    said = caplog.messages[-6:]
    assert said[0] == f"{made}: problems.jsonl, card.png, result.json"
    assert said[1] == "4 problems of file (test); splits: train 3, valid 1, test 4"
    assert said[2].startswith(
        "steps 0.8 (0 to 1), 1 problems without; tokens (digit-level, made from the train split): question "
    )
    assert said[3] == "questions in two splits: 1 in train and valid, 1 in train and test"
    assert said[4] == "gold answer in its question: train 0.0%, valid 0.0%, test 50.0%"
    assert said[5].startswith("shortcut floors: majority by steps 75.0% [30.1, 95.4], first number 50.0% [15.0, 85.0], ")


def test_a_single_file_is_said_to_stand_for_all_splits(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "sums.jsonl"
    path.write_text("\n".join(json.dumps({"question": f"{i} + 1", "answer": str(i + 1)}) for i in range(60)))
    with caplog.at_level(logging.INFO):
        _, found = card(tmp_path, "dataset=file", f"dataset.path={path}")
    assert found["is_one_for_all"] is True
    shared = ", ".join(f"{found['sizes'][split]} in {split} and test" for split in ("train", "valid"))
    assert (
        caplog.messages[-3] == f"questions in two splits: {shared}; one file stands for all splits: train or test on it, not both"
    )


def test_only_a_test_split_that_is_all_the_rest_again_is_one_file() -> None:
    one, two, three = (Problem(str(i), f"{i}?", (), "1") for i in range(3))
    assert is_one_for_all({"train": [one, two], "valid": [three], "test": [one, two, three]})
    assert is_one_for_all({"train": [one, two], "test": [two, one]})
    assert not is_one_for_all({"train": [one, two], "valid": [three], "test": [three]})
    assert not is_one_for_all({"train": [one], "test": [one, two]})
    assert not is_one_for_all({"train": [one, two], "valid": [three]})
    assert not is_one_for_all({"test": [one]})


def test_without_a_dataset_it_is_that_of_the_run(tmp_path: Path) -> None:
    run = tmp_path / "mine"
    (run / "checkpoint").mkdir(parents=True)
    (run / "config.yaml").write_text(json.dumps(job("train", SUMS).plain))
    (run / "result.json").write_text("{}")
    asked = job("eval", ["task=problems", f"run={run}"])
    found = asked.config.task.run(asked)
    assert (found["dataset"], found["sizes"]) == ("Arithmetic", {"train": 60, "valid": 11, "test": 20})
    assert result(run / "eval" / "task=problems") == found


# What cannot be


def test_a_card_needs_a_dataset_or_a_run() -> None:
    with pytest.raises(ConfigError) as error:
        job("eval", ["task=problems"])
    assert str(error.value) == (
        "dataset: given nothing; allowed: the problems to describe, as in dataset=gsm8k, or run= to take that run's"
    )


def test_a_run_that_is_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^run: given x; there is no such run; "):
        job("eval", ["task=problems", "run=x", f"outputs={tmp_path}", *SUMS])


def test_other_tasks_still_need_a_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^run: given nothing; there is no such run; "):
        job("eval", [f"outputs={tmp_path}", *SUMS])


def test_cards_are_not_taken_for_runs(tmp_path: Path) -> None:
    card(tmp_path, *SUMS)
    with pytest.raises(ConfigError, match=r"\(none in .* yet\)$"):
        job("eval", [f"outputs={tmp_path}"])


def test_a_tokenizer_that_is_not_there(tmp_path: Path, tiny: list[str]) -> None:
    with pytest.raises(
        ModelError, match=r"^task.tokenizer: given 'nobody/nothing'; allowed: a folder with a tokenizer, or a name"
    ):
        card(tmp_path, *tiny, "task.tokenizer=nobody/nothing")
    with pytest.raises(ConfigError) as error:
        job("eval", ["task=problems", *tiny, "task.tokenizer="])
    assert str(error.value) == (
        "task.tokenizer: given nothing; give a folder or a name on the hub, such as openai-community/gpt2, or leave it out"
    )


def test_a_split_without_problems(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^split=test: the dataset has no problem there; choose another split or dataset$"):
        card(tmp_path, *SUMS[:3], "dataset.test_size=0")


# The figure


def test_short_ranges_get_a_bar_a_value_and_long_ones_bars_of_equal_width() -> None:
    assert binned({2: 5, 4: 1}) == ([2, 3, 4, 5], [5, 0, 1])
    assert binned({7: 3}) == ([7, 8], [3])
    edges, heights = binned(dict.fromkeys(range(100), 1))
    assert (edges[:3], edges[-1], len(heights), sum(heights)) == ([0, 5, 10], 100, 20, 100)


def test_an_axis_of_lengths_reaches_over_seven_at_least() -> None:
    assert reach_of([7, 8]) == pytest.approx((3.36, 10.64))
    assert reach_of([0, 50, 100]) == pytest.approx((-2.5, 101.5))


def test_the_axis_of_floors_leaves_room_for_its_labels() -> None:
    assert limit([14.0], [2.0]) == pytest.approx(1.22 * 16)
    assert limit([0.0], [0.4]) == 5
    assert limit([100.0], [0.0]) == 118


def test_a_dataset_of_one_bare_problem_can_be_drawn(tmp_path: Path) -> None:
    (tmp_path / "one.jsonl").write_text(json.dumps({"question": "Is $x$ one?", "answer": "yes"}))
    _, found = card(tmp_path, "dataset=file", f"dataset.path={tmp_path / 'one.jsonl'}")
    assert found["tokens"]["chain"]["max"] == 0
    assert sorted(found["sizes"].values(), key=str) == [1, 1, None]  # by a hash of its text it is all of training or validation
