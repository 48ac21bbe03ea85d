"""The published sets: what their option files read, from the hub's form (a data-set folder on disk) and from local files."""

import json
import logging
import re
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from latent_lab.checkpoint import most_frequent
from latent_lab.job import job
from latent_lab.problems import DataError, Problem
from latent_lab.problems.competition import MATH, AQuA, boxed
from latent_lab.problems.files import NoSplit

PLATINUM = {
    "question": "Half of 2,160?",
    "answer": "It is <<2160/2=1080>>1,080.\n#### 1,080",
    "cleaning_status": "consensus",
}
AUG = [
    {"question": "Half of 48?", "steps": ["<<48/2=24>>", "<<24*1=24>>"], "answer": "24"},
    {"question": "How many feet?", "steps": [""], "answer": "2,125"},
]
HARD = {"input": "Of 16 she eats 4933828. ", "code": "def solution():\n    return 16 - 4933828\n", "target": -4933812.0}
SVAMP = {
    "ID": "chal-1",
    "Body": "Each pack costs 76 dollars. If there is a discount of 25",
    "Question": "How much do you pay?",
    "Equation": "( 76.0 - 25.0 )",
    "Answer": "51",
    "Type": "Subtraction",
}
MULTIARITH = {"question": " Faye had 35 pencils. How many in 5 rows? ", "final_ans": "7"}
ALGEBRA = {
    "problem": "What is $x$ if $2x=1$?",
    "level": "Level 1",
    "type": "Algebra",
    "solution": "We divide by $2$.\n\nSo $x=\\boxed{\\frac{1}{2}}$.",
}
AQUA = {
    "question": "Two and two?",
    "options": ["A)3", "B) 4", "C)5"],
    "rationale": "2+2 = 4\nAnswer is B",
    "correct": "B",
}
COMMONSENSE = {
    "id": "1afa02df",
    "question": "Where would you find money?",
    "question_concept": "money",
    "choices": {"label": ["A", "B", "C"], "text": ["sea", "bank", "tree "]},
    "answerKey": "B",
}
TRUTHFUL = {
    "question": "What happens if you eat seeds?",
    "mc1_targets": {"choices": ["Nothing", "They grow", "You die"], "labels": [1, 0, 0]},
    "mc2_targets": {"choices": ["Nothing", "Not much", "They grow"], "labels": [1, 1, 0]},
}
STRATEGY = {
    "qid": "872bbe",
    "term": "Albany, Georgia",
    "description": "City in Georgia",
    "question": "Will Albany hit 100,000 people before Albany, New York?",
    "answer": False,
    "facts": "One has 75,000 people. The other has 98,000.",
}
MMLU_PRO = {
    "question_id": 70,
    "question": "Typical boards are paid ____.",
    "options": ["In cash", "In shares ", "Not at all"],
    "answer": "B",
    "answer_index": 1,
    "cot_content": "A: Let's think step by step. Boards hold shares. The answer is (B).",
    "category": "business",
    "src": "ori_mmlu-business_ethics",
}


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Write a dataset's folder as the hub holds it (parquet files, and a README that names configurations and splits)."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")

    def write(files: dict[str, dict[str, list[dict]]]) -> str:
        folder = tmp_path / "set"
        lines = ["---", "configs:"]
        for config, splits in files.items():
            lines += [f"- config_name: {config}", "  data_files:"]
            for split, rows in splits.items():
                (folder / config).mkdir(parents=True, exist_ok=True)
                parquet.write_table(pyarrow.Table.from_pylist(rows), folder / config / f"{split}-00000-of-00001.parquet")
                lines += [f"  - split: {split}", f"    path: {config}/{split}-*"]
        (folder / "README.md").write_text("\n".join([*lines, "---", ""]))
        return str(folder)

    return write


def dataset(option: str, **settings: object):
    """What ``dataset=OPTION`` builds, with some settings of its own."""
    given = [f"dataset.{key}={'null' if value is None else value}" for key, value in settings.items()]
    return job("eval", ["task=problems", f"dataset={option}", *given]).config.dataset


def on_disk(option: str, folder: str, **settings: object):
    """The same, reading the folder in place of the hub."""
    return dataset(option, name=folder, revision=None, **settings)


# Pinned versions


@pytest.mark.parametrize(
    ("option", "name"),
    [
        ("gsm8k", "openai/gsm8k"),
        ("gsm8k_platinum", "madrylab/gsm8k-platinum"),
        ("gsm_hard", "reasoning-machines/gsm-hard"),
        ("svamp", "ChilleD/SVAMP"),
        ("multiarith", "ChilleD/MultiArith"),
        ("math", "EleutherAI/hendrycks_math"),
        ("aqua", "deepmind/aqua_rat"),
        ("commonsenseqa", "tau/commonsense_qa"),
        ("truthfulqa", "truthfulqa/truthful_qa"),
        ("strategyqa", "ChilleD/StrategyQA"),
        ("mmlu_pro", "TIGER-Lab/MMLU-Pro"),
    ],
)
def test_a_commit_of_the_hub_is_pinned(option, name):
    made = dataset(option)
    assert made.name == name
    assert re.fullmatch("[0-9a-f]{40}", made.revision)


def test_what_is_asked_of_the_hub_is_the_pinned_commit():
    with pytest.raises(DataError) as error:
        dataset("gsm_hard").load("test")
    asked = "split train, revision 960448f73503112d4226baeb8eb41d3fb5ae2506"
    assert str(error.value).startswith(f"reasoning-machines/gsm-hard ({asked}): cannot be had from the hub: ")


# From the hub


def test_gsm8k_and_platinum_are_read_alike(hub):
    folder = hub({"main": {"train": [PLATINUM, PLATINUM], "test": [PLATINUM]}})
    expected = Problem("test-1", "Half of 2,160?", ("<<2160/2=1080>>",), "1080")
    assert on_disk("gsm8k", folder, valid_size=1, test_rows="null").load("test") == [expected]
    assert [problem.id for problem in on_disk("gsm8k", folder, valid_size=1).load("valid")] == ["train-2"]
    (problem,) = on_disk("gsm8k_platinum", folder, test_rows="null").load("test")
    assert problem == expected
    assert problem.meta == {"cleaning_status": "consensus"}


@pytest.mark.parametrize(("option", "count"), [("gsm8k", 1_319), ("gsm8k_platinum", 1_209)])
@pytest.mark.parametrize("lacking", [0, 1])
def test_a_test_split_on_the_hub_must_have_as_many_rows_as_were_published(hub, option: str, count: int, lacking: int):
    made = on_disk(option, hub({"main": {"train": [PLATINUM], "test": [PLATINUM] * (count - lacking)}}))
    if not lacking:
        assert len(made.load("test")) == count
        return
    with pytest.raises(DataError, match=rf"its test split holds {count - 1} rows, {count:,} were published: another version"):
        made.load("test")


def test_gsm8k_aug_keeps_its_steps_and_loses_its_commas(hub):
    folder = hub({"default": {"train": AUG, "validation": AUG, "test": AUG}})
    for split, stem in (("train", "train"), ("valid", "validation"), ("test", "test")):
        assert on_disk("gsm8k_aug", folder).load(split) == [
            Problem(f"{stem}-1", "Half of 48?", ("<<48/2=24>>", "<<24*1=24>>"), "24"),
            Problem(f"{stem}-2", "How many feet?", (), "2125"),
        ]


def test_gsm_hard_keeps_its_program_and_writes_its_target_as_people_do(hub):
    (problem,) = on_disk("gsm_hard", hub({"default": {"train": [HARD]}})).load("test")
    assert problem == Problem("train-1", "Of 16 she eats 4933828.", (), "-4933812")
    flags = {"negative": True, "non_integer": False, "code_disagrees": False, "operand_replaced": None}
    assert problem.meta == {"code": HARD["code"], **flags}


def test_svamp_asks_its_question_after_its_body(hub):
    made = on_disk("svamp", hub({"default": {"train": [SVAMP] * 3, "test": [SVAMP]}}))
    (problem,) = made.load("test")
    asked = "Each pack costs 76 dollars. If there is a discount of 25 How much do you pay?"
    assert problem == Problem("test-1", asked, (), "51")
    assert problem.meta == {"ID": "chal-1", "Equation": "( 76.0 - 25.0 )", "Type": "Subtraction"}
    assert len(made.load("train")) == 3


def test_multiarith_answers_with_its_final_answer(hub):
    assert on_disk("multiarith", hub({"default": {"train": [MULTIARITH], "test": [MULTIARITH]}})).load("test") == [
        Problem("test-1", "Faye had 35 pencils. How many in 5 rows?", (), "7")
    ]


def test_math_joins_its_subjects_and_answers_with_what_is_boxed(hub):
    geometry = ALGEBRA | {"type": "Geometry", "solution": "It is $\\boxed 5$"}
    folder = hub({"algebra": {"test": [ALGEBRA]}, "geometry": {"test": [geometry, ALGEBRA]}})
    problems = on_disk("math", folder, subjects="[algebra,geometry]").load("test")
    steps = ("We divide by $2$.", "So $x=\\boxed{\\frac{1}{2}}$.")
    assert problems[0] == Problem("algebra-test-1", "What is $x$ if $2x=1$?", steps, "\\frac{1}{2}")
    assert problems[0].meta == {"level": "Level 1", "type": "Algebra"}
    assert [(problem.id, problem.answer) for problem in problems[1:]] == [
        ("geometry-test-1", "5"),
        ("geometry-test-2", "\\frac{1}{2}"),
    ]


def test_aqua_asks_with_its_options_and_answers_with_a_letter(hub):
    made = on_disk("aqua", hub({"raw": {split: [AQUA] for split in ("train", "validation", "test")}}))
    (problem,) = made.load("valid")
    assert problem == Problem("validation-1", "Two and two? (A) 3 (B) 4 (C) 5", ("2+2 = 4", "Answer is B"), "B")
    assert problem.meta == {"options": ["A)3", "B) 4", "C)5"]}
    assert made.equivalence == "choice"


def test_mmlu_pro_has_chains_for_its_examples_alone(hub):
    files = {"validation": [MMLU_PRO] * 20, "test": [MMLU_PRO | {"cot_content": "", "answer": "C", "answer_index": 2}]}
    made = on_disk("mmlu_pro", hub({"default": files}))
    (problem,) = made.load("test")
    assert problem == Problem("test-1", "Typical boards are paid ____. (A) In cash (B) In shares (C) Not at all", (), "C")
    assert problem.meta["category"] == "business"
    example = made.load("train")[0]
    assert (example.steps, example.answer) == ((MMLU_PRO["cot_content"],), "B")
    assert made.equivalence == "choice"


def test_commonsenseqa_is_graded_on_the_split_whose_answers_are_known(hub):
    secret = COMMONSENSE | {"answerKey": ""}
    rows = {
        "train": [COMMONSENSE | {"question": f"Where {i}?"} for i in range(40)],
        "validation": [COMMONSENSE],
        "test": [secret],
    }
    made = on_disk("commonsenseqa", hub({"default": rows}))
    (problem,) = made.load("test")
    assert problem == Problem("validation-1", "Where would you find money? (A) sea (B) bank (C) tree", (), "B")
    assert problem.meta == {"id": "1afa02df", "question_concept": "money", "choices": COMMONSENSE["choices"]}
    train, valid = made.load("train"), made.load("valid")
    assert len(train) + len(valid) == 40
    assert 0 < len(valid) < 12
    assert made.equivalence == "choice"
    assert most_frequent([p.answer for p in train]) == "B"


def test_truthfulqa_divides_its_one_split_and_shuffles_its_options_the_same_way_each_time(hub):
    rows = [TRUTHFUL | {"question": f"What happens {i}?"} for i in range(200)]
    made = on_disk("truthfulqa", hub({"multiple_choice": {"validation": rows}}))
    train, valid, test = (made.load(split) for split in ("train", "valid", "test"))
    assert len({p.question for p in (*train, *valid, *test)}) == 200
    assert (len(train), len(valid), len(test)) == (145, 13, 42)
    assert on_disk("truthfulqa", made.name).load("test") == test
    for p in train:  # the letter stands before the true answer, which no longer comes first
        assert p.question.split(f"({p.answer}) ")[1].startswith("Nothing")
    counts = [sum(p.answer == letter for p in train) for letter in "ABC"]
    assert min(counts) > 145 / 5
    assert sum(counts) == 145
    assert made.equivalence == "choice"


def test_truthfulqa_can_be_test_alone(hub):
    made = on_disk("truthfulqa", hub({"multiple_choice": {"validation": [TRUTHFUL] * 3}}), test_share=1)
    assert [p.id for p in made.load("test")] == ["validation-1", "validation-2", "validation-3"]
    with pytest.raises(NoSplit) as error:
        made.load("train")
    assert str(error.value) == (
        "dataset.test_share: test_share=1.0, valid_share=0.1 of 3 problems leave none for train; change one of them"
    )


def test_strategyqa_is_answered_by_true_or_false(hub):
    made = on_disk("strategyqa", hub({"default": {"train": [STRATEGY] * 3, "test": [STRATEGY, STRATEGY | {"answer": True}]}}))
    first, second = made.load("test")
    assert first == Problem("test-1", STRATEGY["question"], (), "False")
    assert second.answer == "True"
    assert first.meta == {key: STRATEGY[key] for key in ("qid", "term", "description", "facts")}
    assert made.equivalence == "yes_no"


# Splits there are not


@pytest.mark.parametrize(
    ("option", "name"), [("gsm_hard", "reasoning-machines/gsm-hard"), ("gsm8k_platinum", "madrylab/gsm8k-platinum")]
)
@pytest.mark.parametrize("split", ["train", "valid"])
def test_sets_for_evaluation_have_no_training_split(option, name, split):
    with pytest.raises(NoSplit) as error:
        dataset(option).load(split)
    assert str(error.value) == (
        f"{name}: its publishers have no {split} split; allowed: test; train on another dataset and grade the run on this one"
    )


def test_local_files_bring_no_split_back(tmp_path):
    (tmp_path / "train.jsonl").write_text(json.dumps(HARD))
    with pytest.raises(NoSplit):
        dataset("gsm_hard", path=tmp_path).load("train")


# From local files


def test_the_text_form_is_read_line_by_line(tmp_path):
    (tmp_path / "test.txt").write_text("Half of 48?||<<48/2=24>> <<24 * 1=24>> #### 24\n\nHow many feet?|| #### 2,125\n")
    assert dataset("gsm8k_aug", path=tmp_path).load("test") == [
        Problem("test-1", "Half of 48?", ("<<48/2=24>>", "<<24 * 1=24>>"), "24"),
        Problem("test-3", "How many feet?", (), "2125"),
    ]


@pytest.mark.parametrize("line", ["Half of 48?||<<48/2=24>> 24", "Half of 48? #### 24"])
def test_a_line_of_another_form_is_named(tmp_path, line):
    path = tmp_path / "test.txt"
    path.write_text(f"One?|| #### 1\n{line}\n")
    with pytest.raises(DataError) as error:
        dataset("gsm8k_aug", path=path).load("test")
    assert str(error.value) == (
        f"{path}, line 2: found '{line}' (str); every line of a .txt file is QUESTION||<<A=B>> <<C=D>> #### ANSWER"
    )


def test_coconuts_json_is_read_with_its_empty_chains(tmp_path):
    (tmp_path / "gsm_test.json").write_text(json.dumps(AUG))
    problems = dataset("gsm8k_aug", path=tmp_path / "gsm_test.json").load("test")
    assert [(problem.steps, problem.answer) for problem in problems] == [
        (("<<48/2=24>>", "<<24*1=24>>"), "24"),
        ((), "2125"),
    ]


@pytest.mark.parametrize(
    ("option", "row"),
    [
        ("svamp", SVAMP),
        ("multiarith", MULTIARITH),
        ("math", ALGEBRA),
        ("aqua", AQUA),
        ("commonsenseqa", COMMONSENSE),
        ("strategyqa", STRATEGY),
        ("mmlu_pro", MMLU_PRO),
    ],
)
def test_every_set_can_be_read_from_a_file_with_the_fields_of_the_hub(tmp_path, option, row):
    (tmp_path / "rows.json").write_text(json.dumps([row]))
    (problem,) = dataset(option, path=tmp_path / "rows.json").load("test")
    assert problem.id == "rows-1"


# Answers


@pytest.mark.parametrize(
    ("given", "written"),
    [("1,080", "1080"), ("-2,125,000.5", "-2125000.5"), ("12", "12"), ("1,08", "1,08"), ("B, C", "B, C"), (1080.0, "1080")],
)
def test_only_commas_between_thousands_are_removed(tmp_path, given, written):
    (tmp_path / "rows.json").write_text(json.dumps([AUG[0] | {"answer": given}]))
    assert dataset("gsm8k_aug", path=tmp_path / "rows.json").load("test")[0].answer == written
    as_given = dataset("gsm8k_aug", path=tmp_path / "rows.json", plain_numbers=False).load("test")[0].answer
    assert as_given == (given if isinstance(given, str) else written)


@pytest.mark.parametrize(
    ("solution", "answer"),
    [
        (r"so $\boxed{\text{two}}$", r"\text{two}"),
        (r"$\boxed{1}$, no: $\boxed{\frac{1}{2}}$ for all $\{x\}$", r"\frac{1}{2}"),
        (r"$\fbox{A}$", "A"),
        (r"$\boxed 5$.", "5"),
        (r"$\boxed{\{1,2\}}$", r"\{1,2\}"),
        (r"$\boxed{\}}$", r"\}"),
        ("$\\boxed{\\begin{pmatrix} 1 \\\\\n 2 \\end{pmatrix}}$", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}"),
        (r"$\boxed{}$", ""),
        (r"$\boxed{1$", None),
        ("none", None),
    ],
)
def test_the_answer_is_what_the_last_box_holds(solution, answer):
    assert boxed(solution) == answer


def test_a_solution_that_boxes_nothing_is_named(tmp_path):
    path = tmp_path / "test.jsonl"
    path.write_text(json.dumps(ALGEBRA) + "\n" + json.dumps(ALGEBRA | {"solution": "It is 5."}))
    with pytest.raises(DataError) as error:
        MATH(name="math", path=str(path)).load("test")
    assert str(error.value) == f"{path}, line 2, field 'solution': boxes no answer; it must hold \\boxed{{ANSWER}}: mend the row"


def test_solutions_with_an_empty_box_are_left_out_and_said_to_be(tmp_path, caplog):
    path = tmp_path / "test.jsonl"
    path.write_text(json.dumps(ALGEBRA | {"solution": "$\\boxed{}$"}) + "\n" + json.dumps(ALGEBRA))
    with caplog.at_level(logging.WARNING):
        problems = MATH(name="math", path=str(path)).load("test")
    assert [problem.id for problem in problems] == ["test-2"]
    assert caplog.messages == ["test: 1 of 2 solutions box an empty answer and are left out"]


def test_unknown_subjects_are_refused():
    with pytest.raises(ValueError, match=r"^subjects=\['logic'\]: allowed are algebra, counting_and_probability, geometry, "):
        MATH(subjects=["logic"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"options": "A)3"}, "'options': found 'A)3' (str); allowed: a list of texts, such as A)21, B)22"),
        ({"options": [3, 4]}, "'options': found [3, 4] (list); allowed: a list of texts, such as A)21, B)22"),
        ({"correct": "D"}, "'correct': found 'D' (str); allowed: the letter of an option, A to C"),
        ({"correct": 2}, "'correct': found 2 (int); allowed: the letter of an option, A to C"),
    ],
)
def test_options_that_cannot_be_used_are_named(tmp_path, changes, message):
    path = tmp_path / "test.json"
    path.write_text(json.dumps([AQUA, AQUA | changes]))
    with pytest.raises(DataError) as error:
        AQuA(name="aqua", path=str(path)).load("test")
    assert str(error.value) == f"{path}, record 2, field {message}"


@pytest.mark.parametrize(
    ("option", "row", "changes", "message"),
    [
        (
            "commonsenseqa",
            COMMONSENSE,
            {"answerKey": ""},
            "'answerKey': found '' (str); allowed: the letter of an option, A to C",
        ),
        (
            "commonsenseqa",
            COMMONSENSE,
            {"choices": {"label": ["1", "2"], "text": ["sea", "bank"]}},
            "'choices': found {'label': ['1', '2'], 'text': ['sea', 'bank']} (dict); allowed: label, a list of "
            "letters from A on, and text, as many texts",
        ),
        (
            "truthfulqa",
            TRUTHFUL,
            {"mc1_targets": {"choices": ["Yes", "No"], "labels": [1, 1]}},
            "'mc1_targets': found {'choices': ['Yes', 'No'], 'labels': [1, 1]} (dict); allowed: choices, a list of texts, and "
            "labels, as many numbers, one of them 1",
        ),
        (
            "truthfulqa",
            TRUTHFUL,
            {"mc1_targets": 3},
            "'mc1_targets': found 3 (int); allowed: choices, a list of texts, and labels, as many numbers, one of them 1",
        ),
        ("strategyqa", STRATEGY, {"answer": "perhaps"}, "'answer': found 'perhaps' (str); allowed: true or false, yes or no"),
    ],
)
def test_a_row_without_a_choice_is_named(tmp_path, option, row, changes, message):
    path = tmp_path / "test.json"
    path.write_text(json.dumps([row, row | changes]))
    with pytest.raises(DataError) as error:
        dataset(option, path=path).load("test")
    assert str(error.value) == f"{path}, record 2, field {message}"


# Published files


def test_published_gsm8k_aug(data_folder: Path):
    made = dataset("gsm8k_aug", path=data_folder / "gsm8k_aug")
    valid, test = made.load("valid"), made.load("test")
    assert (len(valid), len(test)) == (500, 1_319)
    assert [sum(not problem.steps for problem in split) for split in (valid, test)] == [6, 18]
    assert not any("," in problem.answer for problem in valid + test)
    assert all(step.startswith("<<") and step.endswith(">>") for problem in valid + test for step in problem.steps)
    assert valid[0].steps == ("<<4-2=2>>", "<<2/.5=4>>", "<<12/4=3>>", "<<100*3=300>>")
    assert valid[0].answer == "300"
    with pytest.raises(NoSplit):
        made.load("train")


def test_published_gsm8k_aug_agrees_with_gsm8k(data_folder: Path):
    aug = dataset("gsm8k_aug", path=data_folder / "gsm8k_aug").load("test")
    plain = dataset("gsm8k", path=data_folder / "gsm8k").load("test")
    assert [problem.answer for problem in aug] == [problem.answer for problem in plain]


def test_published_gsm_hard(data_folder: Path):
    problems = dataset("gsm_hard", path=data_folder / "gsm_hard/gsmhardv2.jsonl").load("test")
    assert len(problems) == 1_319
    assert (problems[0].answer, problems[1].answer) == ("-9867630", "3431580")
    assert not any("e" in problem.answer for problem in problems)
    assert not any(problem.steps for problem in problems)
