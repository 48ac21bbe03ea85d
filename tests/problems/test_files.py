import json
import logging

import pyarrow
import pytest
from pyarrow import parquet

from latent_lab.problems import DataError, Problem
from latent_lab.problems.files import File, plain

RECORD = {"question": "1 + 1 =", "steps": ["1+1=2 write 2"], "answer": "2"}
TWO = [RECORD, {"question": "A\nlong one", "answer": "yes"}]
EXPECTED = [("1 + 1 =", ("1+1=2 write 2",), "2"), ("A\nlong one", (), "yes")]


def write(path, records):
    if path.suffix == ".parquet":
        parquet.write_table(pyarrow.Table.from_pylist(records), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    else:
        path.write_text(json.dumps(records))
    return path


def load(path, split="test", **options):
    return File(path=str(path), **options).load(split)


def message(path, split="test", **options):
    with pytest.raises(DataError) as error:
        load(path, split, **options)
    return str(error.value)


def message_of(tmp_path, **changes):
    """The error for a good record followed by one with ``changes`` (a value of ``...`` removes the field)."""
    record = {key: value for key, value in (RECORD | changes).items() if value is not ...}
    path = write(tmp_path / "data.jsonl", [RECORD, record])
    start = f"{path}, line 2, field "
    assert message(path).startswith(start)
    return message(path).removeprefix(start)


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".parquet"])
def test_every_format_reads_the_same(tmp_path, suffix):
    problems = load(write(tmp_path / f"data{suffix}", TWO))
    assert [(problem.question, problem.steps, problem.answer) for problem in problems] == EXPECTED
    assert [problem.id for problem in problems] == ["data-1", "data-2"]


def test_fields_may_have_other_names(tmp_path):
    path = write(tmp_path / "data.json", [{"q": "1 + 1 =", "cot": "think\r\n\n  2 ", "a": "2", "key": 7}])
    problems = load(path, question="q", steps="cot", answer="a", id="key")
    assert problems == [Problem("7", "1 + 1 =", ("think", "2"), "2")]


def test_white_space_around_texts_is_removed(tmp_path):
    path = write(tmp_path / "data.json", [{"question": " 1 + 1 =\n", "steps": [" a "], "answer": "2\n"}])
    assert load(path) == [Problem("data-1", "1 + 1 =", ("a",), "2")]


@pytest.mark.parametrize("steps", [None, [], "", "\n"])
def test_a_record_may_have_no_steps(tmp_path, steps):
    assert load(write(tmp_path / "data.json", [RECORD | {"steps": steps}]))[0].steps == ()


def test_other_fields_become_meta_if_json_can_hold_them(tmp_path):
    records = [RECORD | {"id": "x", "graph": {"edges": [[0, 1]]}, "level": None, "time": float("nan")}]
    assert load(write(tmp_path / "a.json", records))[0].meta == {"id": "x", "graph": {"edges": [[0, 1]]}, "level": None}
    assert load(write(tmp_path / "a.json", records), id="id")[0].meta == {"graph": {"edges": [[0, 1]]}, "level": None}
    assert load(write(tmp_path / "a.parquet", [RECORD | {"raw": b"\x00", "n": 1}]))[0].meta == {"n": 1}


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (18, "18"),
        (18.0, "18"),
        (-9867630.0, "-9867630"),
        (0.5, "0.5"),
        (-0.0, "0"),
        (100, "100"),
        (1e22, "10000000000000000000000"),
        (1e-5, "0.00001"),
        (3244047.0999999996, "3244047.0999999996"),
        (10**400, "1" + "0" * 400),
    ],
)
def test_numeric_answers_are_written_in_full(tmp_path, number, text):
    assert plain(number) == text
    assert load(write(tmp_path / "data.json", [RECORD | {"answer": number}]))[0].answer == text


def test_a_byte_order_mark_windows_lines_and_blank_lines_do_no_harm(tmp_path):
    path = tmp_path / "data.jsonl"
    line = json.dumps(RECORD).encode()
    path.write_bytes(b"\xef\xbb\xbf" + line + b"\r\n\r\n" + line + b"\r\n")
    assert [problem.id for problem in load(path)] == ["data-1", "data-3"]


def test_a_line_separator_inside_a_text_is_no_end_of_line(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps(RECORD | {"question": "a\u2028b"}, ensure_ascii=False), encoding="utf-8")
    assert load(path)[0].question == "a\u2028b"


# Which file is which split


def numbered(count, start=0):
    return [RECORD | {"question": f"{index} + 0 =", "answer": str(index)} for index in range(start, start + count)]


def test_a_single_file_is_the_test_split_and_is_divided_for_training(tmp_path):
    path = write(tmp_path / "data.jsonl", numbered(1_000) + numbered(1_000))
    train, valid = load(path, "train"), load(path, "valid")
    assert len(load(path, "test")) == len(train) + len(valid) == 2_000
    # 1,000 different questions: 0.04 is four standard errors.
    assert len(valid) / 2_000 == pytest.approx(0.1, abs=0.04)
    assert not {problem.question for problem in train} & {problem.question for problem in valid}


def test_the_division_depends_on_the_question_alone(tmp_path):
    few = load(write(tmp_path / "few.jsonl", numbered(100)), "valid")
    more = load(write(tmp_path / "more.json", numbered(500)[::-1]), "valid")
    assert {problem.question for problem in few} == {problem.question for problem in more if int(problem.answer) < 100}
    # Another machine or Python must divide alike.
    assert " ".join(problem.answer for problem in few) == "4 16 24 29 46 50 51 63 70 82"


def test_a_share_of_0_does_without_validation(tmp_path):
    path = write(tmp_path / "data.jsonl", numbered(100))
    assert (len(load(path, "train", valid_share=0)), load(path, "valid", valid_share=0)) == (100, [])


def test_a_share_that_leaves_a_part_empty_is_refused(tmp_path):
    assert message(write(tmp_path / "data.jsonl", numbered(2)), "valid") == (
        "dataset.valid_share=0.1 of 2 problems leaves none for valid: "
        "change it (0 does without validation), or give validation data of their own"
    )


@pytest.mark.parametrize("share", [-0.1, 1, 1.5])
def test_a_share_outside_0_to_1_is_refused(share):
    with pytest.raises(ValueError, match=f"^valid_share={share}: allowed are shares from 0 to less than 1$"):
        File(valid_share=share)


@pytest.mark.parametrize("valid", ["valid.jsonl", "validation.json", "val.parquet", "dev.jsonl"])
def test_a_folder_holds_a_file_for_each_split(tmp_path, valid):
    write(tmp_path / "train.jsonl", numbered(30))
    write(tmp_path / valid, numbered(2, 30))
    write(tmp_path / "test.parquet", numbered(3, 32))
    assert [len(load(tmp_path, split)) for split in ("train", "valid", "test")] == [30, 2, 3]
    assert load(tmp_path, "test")[0].id == "test-1"


def test_a_folder_without_a_validation_file_divides_its_training_file(tmp_path):
    write(tmp_path / "train.jsonl", numbered(100))
    write(tmp_path / "test.jsonl", numbered(3, 100))
    train, valid = load(tmp_path, "train"), load(tmp_path, "valid")
    assert len(train) + len(valid) == 100
    assert 0 < len(valid) < 30
    assert {problem.id.split("-")[0] for problem in train + valid} == {"train"}


def test_a_split_with_two_files_is_refused(tmp_path):
    write(tmp_path / "valid.jsonl", TWO)
    write(tmp_path / "dev.json", TWO)
    assert message(tmp_path, "valid") == f"{tmp_path}: valid.jsonl and dev.json are both the valid split: remove one"


def test_a_split_without_a_file_is_refused(tmp_path):
    write(tmp_path / "dev.json", TWO)
    assert message(tmp_path, "train") == (
        f"{tmp_path}: holds no file for the train split; allowed are train with one of .csv, .json, .jsonl, .parquet, .txt: "
        "add one, or give the path of a single file"
    )


# Files that cannot be read


def test_no_path():
    assert message("") == "dataset.path is empty: give a file (.csv, .json, .jsonl, .parquet, .txt) or a folder of them"


def test_a_missing_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message("gone/data.json") == f"gone/data.json: no such file or folder; relative paths start at {tmp_path}"


def test_a_table_of_comma_separated_values(tmp_path):
    path = tmp_path / "aime.csv"
    path.write_text('id,question,answer\n2024-1,"Two\nlines, $a,b$?",33\n\n2024-2, Short? ,7\n')
    problems = File(path=str(path), id="id").load("test")
    assert [(p.id, p.question, p.steps, p.answer) for p in problems] == [
        ("2024-1", "Two\nlines, $a,b$?", (), "33"), ("2024-2", "Short?", (), "7"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("question,answer\n", ": holds no row below its header; at least one is needed"),
        ("question,question\na,b\n", ", row 1: column 'question' stands there twice; allowed: once"),
        ("question,answer\na,b,c\n", ", row 2: 3 cells, the header has 2; allowed: equally many"),
    ],
)
def test_a_bad_table_is_told_by_its_row(tmp_path, text, told):
    path = tmp_path / "data.csv"
    path.write_text(text)
    assert message(path) == f"{path}{told}"


def test_another_suffix(tmp_path):
    path = tmp_path / "data.xlsx"
    path.write_text("question,answer\n")
    allowed = ".csv, .json, .jsonl, .parquet, .txt"
    assert message(path) == f"{path}: the suffix is '.xlsx'; allowed are {allowed}: convert or rename the file"


@pytest.mark.parametrize(("name", "text"), [("a.json", ""), ("a.json", "[]"), ("a.jsonl", ""), ("a.jsonl", "\n\n")])
def test_a_file_without_records(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text)
    assert message(path) == f"{path}: holds no record; at least one is needed"


def test_a_parquet_table_without_rows(tmp_path):
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"question": [], "answer": []}), path)
    assert message(path) == f"{path}: holds no record; at least one is needed"


def test_a_file_that_is_no_parquet(tmp_path):
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1 but no more than that PAR1")
    assert message(path).startswith(f"{path}: no valid parquet (")
    assert message(path).endswith("): write the file again")
    assert "\n" not in message(path)


def test_a_file_that_is_not_utf_8(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_bytes(json.dumps(RECORD).encode() + b'\n{"question": "caf\xe9"}\n')
    assert message(path) == f"{path}, line 2: byte 0xe9 is not UTF-8: save the file as UTF-8"


def test_broken_json_lines(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps(RECORD) + '\n{"question": "1 + 1 ="\n')
    assert message(path) == (
        f"{path}, line 2: no valid JSON at column 23 (Expecting ',' delimiter); every line of a .jsonl file is one record, whole"
    )


def test_lines_in_a_json_file(tmp_path):
    path = tmp_path / "data.json"
    path.write_text(json.dumps({"a": 1}) + "\n" + json.dumps({"a": 2}))
    assert message(path) == (
        f"{path}: no valid JSON at line 2 column 1 (Extra data); "
        "a .json file is one list of records; with a record a line its name ends in .jsonl"
    )


def test_a_json_file_with_something_else(tmp_path):
    path = tmp_path / "data.json"
    path.write_text('{"data": []}')
    assert message(path) == (
        f"{path}: found {{'data': []}} (dict); a .json file is one list of records; with a record a line its name ends in .jsonl"
    )


@pytest.mark.parametrize("value", ["[" * 200_000, "1" * 5_000])
def test_json_beyond_the_limits_of_the_reader(tmp_path, value):
    path = tmp_path / "data.jsonl"
    path.write_text(value)
    assert message(path).startswith(f"{path}, line 1: JSON beyond what can be read (")
    assert "\n" not in message(path)


# Records that cannot be used


def test_a_record_that_is_no_object(tmp_path):
    path = write(tmp_path / "data.json", [RECORD, ["1 + 1 =", "2"]])
    assert message(path) == (
        f"{path}, record 2: found ['1 + 1 =', '2'] (list); a record is an object with fields such as question and answer"
    )


def test_a_missing_question_or_answer(tmp_path):
    assert message_of(tmp_path, question=...) == (
        "'question': missing among 'steps', 'answer': add it, or name it by dataset.question"
    )
    assert message_of(tmp_path, answer=...) == (
        "'answer': missing among 'question', 'steps': add it, or name it by dataset.answer"
    )


def test_a_question_that_is_no_text(tmp_path):
    assert message_of(tmp_path, question=17) == "'question': found 17 (int); allowed: text"
    assert message_of(tmp_path, question="  ") == "'question': found an empty text; fill it in or remove the record"
    assert message_of(tmp_path, question="\ud800 + 1 =") == (
        "'question': found half of a surrogate pair in '\\ud800 + 1 =' (str); write it as UTF-8"
    )


def test_an_answer_that_is_neither_text_nor_number(tmp_path):
    allowed = "allowed: text and finite numbers"
    assert message_of(tmp_path, answer=True) == f"'answer': found True (bool); {allowed}"
    assert message_of(tmp_path, answer=None) == f"'answer': found None (NoneType); {allowed}"
    assert message_of(tmp_path, answer=float("nan")) == f"'answer': found nan (float); {allowed}"
    assert message_of(tmp_path, answer=["2"]) == f"'answer': found ['2'] (list); {allowed}"
    assert message_of(tmp_path, answer="") == "'answer': found an empty text; fill it in or remove the record"
    assert message_of(tmp_path, answer="so\n2") == ("'answer': found several lines, 'so\\n2' (str); allowed is one line of text")


def test_steps_that_are_no_lines_of_text(tmp_path):
    assert message_of(tmp_path, steps={"1": "a"}) == (
        "'steps': found {'1': 'a'} (dict); allowed: a list of texts, or one text with a step a line"
    )
    assert message_of(tmp_path, steps=["a", 2]) == "'steps[1]': found 2 (int); allowed: text"
    assert message_of(tmp_path, steps=["a", ""]) == ("'steps[1]': found an empty text; fill it in or remove the record")
    assert message_of(tmp_path, steps=["a\nb"]) == ("'steps[0]': found several lines, 'a\\nb' (str); allowed is one line of text")


def test_a_name_for_steps_that_no_record_has(tmp_path):
    path = write(tmp_path / "data.json", TWO)
    assert message(path, steps="cot") == (
        f"dataset.steps=cot: no record has this field; {path}, record 1 has 'question', 'steps', 'answer'"
    )


def test_ids_that_cannot_be_used(tmp_path):
    path = write(tmp_path / "data.json", [RECORD | {"key": 1}, RECORD | {"key": "1"}])
    assert message(path, id="key") == (
        f"{path}, record 2, field 'key': '1' is already the id of {path}, record 1; ids must be unique: "
        "change one, or leave dataset.id empty to name problems by their row"
    )
    path = write(tmp_path / "data.json", [RECORD | {"key": 1.5}])
    assert message(path, id="key") == (f"{path}, record 1, field 'key': found 1.5 (float); allowed: text and whole numbers")
    assert message(path, id="number") == (
        f"{path}, record 1, field 'number': missing among 'question', 'steps', 'answer', 'key': add it, or name it by dataset.id"
    )


def test_a_field_of_ids_that_nobody_took_is_told_once(tmp_path, caplog):
    path = write(tmp_path / "data.jsonl", [RECORD | {"id": "2024-1"}, RECORD | {"id": 7}])
    with caplog.at_level(logging.WARNING):
        assert [problem.id for problem in load(path)] == ["data-1", "data-2"]
        load(path)
        assert caplog.messages == [f"{path}: its field 'id' names no problem, their rows do; dataset.id=id takes it"]
        caplog.clear()
        assert [problem.id for problem in load(path, id="id")] == ["2024-1", "7"]
        assert caplog.messages == []


@pytest.mark.parametrize("ids", [("a", "a "), ("1", 1), ("a", 1.5), ("a", ...)])
def test_ids_that_could_not_be_taken_are_not_recommended(tmp_path, caplog, ids):
    path = write(tmp_path / "data.jsonl", [RECORD if each is ... else RECORD | {"id": each} for each in ids])
    with caplog.at_level(logging.WARNING):
        load(path)
    assert caplog.messages == []


# Published files


def test_published_arithmetic(data_folder):
    problems = load(data_folder / "arithmetic", "valid")
    assert len(problems) == 1_000
    assert problems[0] == Problem("valid-1", "21 + 62 =", ("1+2=3 write 3", "2+6=8 write 8"), "83")


@pytest.mark.parametrize(("name", "count"), [("prosqa", 300), ("prosqa_symbolic", 257)])
def test_published_graph_questions(data_folder, name, count):
    problems = load(data_folder / name, "valid")
    assert len(problems) == count
    assert {len(problem.steps) for problem in problems} <= set(range(3, 7))
    assert problems[0].meta["edges"]


def test_published_answers_as_numbers_without_steps(data_folder):
    problems = load(data_folder / "gsm_hard/gsmhardv2.jsonl", question="input", answer="target")
    assert len(problems) == 1_319
    assert not any(problem.steps for problem in problems)
    assert (problems[0].id, problems[0].answer) == ("gsmhardv2-1", "-9867630")


def test_published_steps_under_another_name(data_folder):
    problems = load(data_folder / "memory_reason/strategyqa_train.json", steps="cot_steps")
    assert len(problems) == 1_603
    assert all(problem.steps[0].startswith(("[rag]", "[reason]")) for problem in problems if problem.steps)
