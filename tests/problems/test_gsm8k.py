import json
import re

import pytest

from latent_lab.problems import DataError, Problem
from latent_lab.problems.gsm8k import GSM8K

ROWS = [
    {"question": "Half of 48?", "answer": "He has 48/2 = $<<48/2=24>>24.\n\nAll: 48+24=<<48+24=72>>72.\n#### 72"},
    {"question": "How many feet?", "answer": "No sum is needed.\n#### 1,080 "},
    {"question": "And below zero?", "answer": "It is <<2-5=-3>>-3.\n#### -3"},
]


@pytest.fixture
def folder(tmp_path):
    for split in ("train", "test"):
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return tmp_path


def test_equations_are_steps_with_their_brackets(folder):
    assert GSM8K(path=str(folder)).load("test") == [
        Problem("test-1", "Half of 48?", ("<<48/2=24>>", "<<48+24=72>>"), "72"),
        Problem("test-2", "How many feet?", (), "1080"),
        Problem("test-3", "And below zero?", ("<<2-5=-3>>",), "-3"),
    ]


def test_lines_of_the_solution_are_steps_without_annotations(folder):
    steps = [problem.steps for problem in GSM8K(path=str(folder), steps="text").load("test")]
    assert steps == [("He has 48/2 = $24.", "All: 48+24=72."), ("No sum is needed.",), ("It is -3.",)]


def test_the_end_of_the_training_file_is_the_validation_split(folder):
    dataset = GSM8K(path=str(folder), valid_size=1)
    assert [problem.id for problem in dataset.load("train")] == ["train-1", "train-2"]
    assert [problem.id for problem in dataset.load("valid")] == ["train-3"]


def test_without_validation_all_rows_train(folder):
    dataset = GSM8K(path=str(folder), valid_size=0)
    assert (len(dataset.load("train")), dataset.load("valid")) == (3, [])


def test_validation_may_not_take_every_training_row(folder):
    with pytest.raises(DataError) as error:
        GSM8K(path=str(folder), valid_size=3).load("train")
    assert str(error.value) == "dataset.valid_size=3: allowed are less than the 3 training rows"


def test_local_files_are_read_whatever_version_of_the_hub_is_pinned(folder):
    assert len(GSM8K(path=str(folder), revision="abc").load("test")) == 3


def test_a_row_without_the_answer_mark_is_named(folder):
    path = folder / "train.jsonl"
    path.write_text(path.read_text() + json.dumps({"question": "Why?", "answer": "Because: 5"}) + "\n")
    with pytest.raises(DataError) as error:
        GSM8K(path=str(folder)).load("valid")
    assert str(error.value) == (
        f"{path}, line 4, field 'answer': has no ####; it must end with #### and the answer: "
        "read files of another form with dataset=file"
    )


def test_an_empty_final_answer_is_refused(folder):
    path = folder / "test.jsonl"
    path.write_text(json.dumps({"question": "Why?", "answer": "Because.\n#### "}) + "\n")
    with pytest.raises(DataError) as error:
        GSM8K(path=str(folder)).load("test")
    assert str(error.value) == f"{path}, line 1, field 'answer': found an empty text; fill it in or remove the record"


def test_a_folder_without_the_files_is_answered_with_what_is_allowed(tmp_path):
    with pytest.raises(DataError) as error:
        GSM8K(path=str(tmp_path)).load("test")
    assert str(error.value) == (
        f"{tmp_path}: holds no file for the test split; allowed are test with one of .csv, .json, .jsonl, .parquet, .txt: "
        "add one, or give the path of a single file"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": "words"}, "steps=words: allowed are equations, text"),
        ({"valid_size": -1}, "valid_size=-1: allowed are 0 and more"),
    ],
)
def test_a_wrong_option_is_answered_with_what_is_allowed(options, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        GSM8K(**options)


def test_the_published_files(data_folder):
    dataset = GSM8K(path=str(data_folder / "gsm8k"))
    train, valid, test = dataset.load("train"), dataset.load("valid"), dataset.load("test")
    assert (len(train), len(valid), len(test)) == (6_973, 500, 1_319)
    assert len(train) + len(valid) == 7_473
    assert (train[-1].id, valid[0].id, valid[-1].id) == ("train-6973", "train-6974", "train-7473")
    questions = [{problem.question for problem in split} for split in (train, valid, test)]
    assert [len(split) for split in questions] == [6_973, 500, 1_319]
    assert not questions[2] & (questions[0] | questions[1])
    assert train[1] == Problem(
        "train-2",
        "Weng earns $12 an hour for babysitting. Yesterday, she just did 50 minutes of babysitting. How much did she earn?",
        ("<<12/60=0.2>>", "<<0.2*50=10>>"),
        "10",
    )
    assert not any("," in problem.answer for problem in train + valid + test)
    in_words = GSM8K(path=str(data_folder / "gsm8k"), steps="text").load("test")
    assert in_words[1].steps == (
        "It takes 2/2=1 bolt of white fiber",
        "So the total amount of fabric is 2+1=3 bolts of fabric",
    )
    assert all(problem.steps and "<<" not in "".join(problem.steps) for problem in in_words)
