import json
import math
import re
from collections import Counter
from dataclasses import replace

import pytest

from latent_lab.problems import SPLITS, DataError, Problem
from latent_lab.problems.files import NoSplit
from latent_lab.problems.graphs import CONCEPTS, NAMES, Graph
from latent_lab.problems.prosqa import ProsQA, graph_of, symbolic, terse, text

GRAPH = Graph(
    symbols=("Tom", "Davis", "terpus", "fompus", "lempus", "yerpus"),
    edges=((0, 2), (1, 3), (0, 3), (2, 4), (3, 4), (1, 5)),
    root=0,
    target=4,
    neg_target=5,
    path=(0, 3, 4),
    is_target_first=False,
    order=(4, 0, 5, 1, 2, 3),
)
QUESTION = (
    "Every fompus is a lempus. Tom is a terpus. Davis is a yerpus. Davis is a fompus. Tom is a fompus. Every terpus is a lempus. "
    "Is Tom a yerpus or lempus?"
)
ROW = {
    "question": QUESTION,
    "answer": "Tom is a lempus.",
    "steps": ["Tom is a fompus.", "Every fompus is a lempus."],
    "idx_to_symbol": list(GRAPH.symbols),
    "edges": [list(edge) for edge in GRAPH.edges],
    "root": 0,
    "target": 4,
    "neg_target": 5,
}


def rows_of(path):
    return json.loads(path.read_text())


@pytest.fixture
def file_of(tmp_path):
    def write(*rows, name="test.json"):
        (tmp_path / name).write_text(json.dumps(rows))
        return str(tmp_path / name)

    return write


# The two forms


def test_the_text_form_states_every_edge_and_names_both_options():
    problem = text("x", GRAPH)
    assert problem == Problem("x", QUESTION, ("Tom is a fompus.", "Every fompus is a lempus."), "Tom is a lempus.")
    assert problem.meta == {
        "idx_to_symbol": ["Tom", "Davis", "terpus", "fompus", "lempus", "yerpus"],
        "edges": [[0, 2], [1, 3], [0, 3], [2, 4], [3, 4], [1, 5]],
        "root": 0,
        "target": 4,
        "neg_target": 5,
        "options": [5, 4],
        "hops": 2,
    }


def test_the_terse_form_has_names_alone_and_the_root_last():
    problem = terse("x", GRAPH)
    assert problem.question == (
        "fompus lempus. Tom terpus. Davis yerpus. Davis fompus. Tom fompus. terpus lempus. yerpus or lempus? Tom"
    )
    assert problem.steps == ("at Tom", "at fompus", "at lempus")
    assert problem.answer == "lempus"
    assert problem.meta == text("x", GRAPH).meta


def test_the_symbolic_form_is_edges_options_and_root():
    problem = symbolic("x", GRAPH)
    assert problem == Problem("x", "<eos> 0 2 | 1 3 | 0 3 | 2 4 | 3 4 | 1 5 [Q] 5 4 [R] 0", ("3", "4"), "4")
    assert problem.meta == text("x", GRAPH).meta | {
        "neighbor_k": {"0": [0], "1": [2, 3], "2": [4]},
        "frontier": {"0": [0], "1": [2, 3], "2": [4]},
    }


def test_a_text_problem_gives_back_its_graph():
    assert graph_of(text("x", GRAPH)) == GRAPH


# Published files


def test_every_published_row_is_read_and_written_again_letter_by_letter(data_folder):
    path = data_folder / "prosqa/valid.json"
    problems, rows = ProsQA(path=str(path)).load("test"), rows_of(path)
    assert len(problems) == len(rows) == 300
    for problem, row in zip(problems, rows, strict=True):
        written = text("x", graph_of(problem))
        assert (written.question, list(written.steps), written.answer) == (row["question"], row["steps"], row["answer"])
        assert (problem.question, problem.steps, problem.answer) == (written.question, written.steps, written.answer)
        graph = {name: row[name] for name in ("idx_to_symbol", "edges", "root", "target", "neg_target")}
        assert problem.meta == written.meta
        assert {name: problem.meta[name] for name in graph} == graph
        assert problem.meta["hops"] == len(row["steps"])
    assert problems[0].id == "valid-1"


def test_the_published_symbolic_problems_are_those_of_3_and_4_hops(data_folder):
    path = data_folder / "prosqa_symbolic/valid.json"
    rows = rows_of(path)
    direct = ProsQA(form="symbolic", path=str(path)).load("test")
    filtered = ProsQA(form="symbolic", max_hops=4, path=str(data_folder / "prosqa/valid.json")).load("test")
    assert len(rows) == len(direct) == len(filtered) == 257
    for row, problem, same in zip(rows, direct, filtered, strict=True):
        edges = " | ".join(f"{a} {b}" for a, b in row["edges"])
        options = [row["idx_to_symbol"].index(name) for name in re.findall(r"a (\w+) or (\w+)\?$", row["question"])[0]]
        assert problem.question == f"<eos> {edges} [Q] {options[0]} {options[1]} [R] {row['root']}"
        assert problem.answer == problem.steps[-1] == str(row["target"])
        assert problem.meta["neighbor_k"] == row["neighbor_k"]
        assert all(int(node) in row["neighbor_k"][str(k)] for k, node in enumerate(problem.steps, start=1))
        assert (same.question, same.steps, same.answer, same.meta) == (
            problem.question,
            problem.steps,
            problem.answer,
            problem.meta,
        )
    assert Counter(len(problem.steps) for problem in direct) == {3: 124, 4: 133}


def test_a_single_file_is_the_test_split_or_divided_for_training(data_folder):
    dataset = ProsQA(path=str(data_folder / "prosqa/valid.json"))
    parts = [{problem.id for problem in dataset.load(split)} for split in SPLITS]
    assert not parts[0] & parts[1]
    assert parts[0] | parts[1] == parts[2]
    assert 15 <= len(parts[1]) <= 45
    assert {p.id for p in ProsQA(form="symbolic", path=dataset.path).load("train")} == parts[0]


def test_a_folder_has_a_file_a_split(file_of):
    path = file_of(ROW, ROW)
    file_of(ROW, name="train.json")
    dataset = ProsQA(path=str(path).removesuffix("test.json"), min_hops=2)
    assert [problem.id for problem in dataset.load("test")] == ["test-1", "test-2"]
    assert [problem.id for problem in dataset.load("train")] == ["train-1"]
    assert len(ProsQA(path=dataset.path, min_hops=2, size=1).load("test")) == 1


def test_a_split_that_a_folder_lacks_is_missing_not_wrong(data_folder):
    with pytest.raises(NoSplit, match="holds no file for the test split"):
        ProsQA(path=str(data_folder / "prosqa")).load("test")
    assert len(ProsQA(path=str(data_folder / "prosqa")).load("valid")) == 300


def changed(**fields):
    return {key: value for key, value in {**ROW, **fields}.items() if value is not None}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (changed(edges=None), "field 'edges': missing among 'question', 'answer', 'steps', 'idx_to_symbol', 'root', 'target', "
            "'neg_target'; every row of a ProsQA file has it"),
        (changed(edges=[[0, 9]]), "field 'edges': found [0, 9] (list); allowed: pairs of node numbers from 0 to 5"),
        (changed(edges={"0": 1}), "field 'edges': found {'0': 1} (dict); allowed: pairs of node numbers from 0 to 5"),
        (changed(idx_to_symbol=["Tom"] * 6), "field 'idx_to_symbol': a name is there twice; every node needs a name of its own"),
        (changed(idx_to_symbol="Tom"), "field 'idx_to_symbol': found 'Tom' (str); allowed: a list of names, one a node"),
        (changed(root="Tom"), "field 'root': found 'Tom' (str); allowed: node numbers from 0 to 5"),
        (changed(root=True), "field 'root': found True (bool); allowed: node numbers from 0 to 5"),
        (changed(target=5, neg_target=4), "field 'target': no edge leads from the root, node 0, on to node 5"),
        (changed(neg_target=2), "field 'neg_target': the root, node 0, reaches node 2 as well as the target"),
        (changed(question="Is Tom a yerpus or a lempus?"),
            "field 'question': allowed are sentences 'Every A is a B.' and 'C is a A.', then 'Is C a D or E?'"),
        (changed(question=QUESTION.replace("Tom is a terpus. ", "")),
            "field 'question': its sentences are not the edges of field 'edges'"),
        (changed(question=QUESTION.replace("Is Tom", "Is Davis")),
            "field 'question': it does not ask which of target and neg_target the root is"),
        (changed(steps=["Tom is a lempus."]), "field 'steps': they are no shortest path from root to target, which has 2 edges"),
        (changed(steps=["Tom is a fompus.", "So a lempus."]),
            "field 'steps': they are no shortest path from root to target, which has 2 edges"),
    ],
)  # fmt: skip
def test_a_bad_row_is_named_with_its_field(file_of, row, message):
    path = file_of(ROW, row)
    with pytest.raises(DataError) as error:
        ProsQA(path=path, min_hops=2).load("test")
    assert str(error.value) == f"{path}, record 2, {message}"


def test_a_file_without_problems_of_the_wanted_hops_says_so(file_of):
    path = file_of(ROW)
    with pytest.raises(DataError) as error:
        ProsQA(path=path).load("test")
    assert str(error.value) == (
        f"{path}: no problem of the test split is between dataset.min_hops=3 and dataset.max_hops=6 hops: change these"
    )


# Generated problems


def test_sizes_are_those_of_the_splits_or_one_for_all():
    dataset = ProsQA(train_size=4, valid_size=2, test_size=0)
    assert [len(dataset.load(split)) for split in SPLITS] == [4, 2, 0]
    assert [problem.id for problem in dataset.load("valid")] == ["valid-0", "valid-1"]
    assert [len(ProsQA(size=3).load(split)) for split in SPLITS] == [3, 3, 3]
    published = ProsQA()
    assert (published.train_size, published.valid_size, published.test_size) == (17_886, 300, 500)


def test_both_forms_are_of_the_same_graphs():
    words, symbols = ProsQA(size=20).load("valid"), ProsQA(form="symbolic", size=20).load("valid")
    for word, symbol in zip(words, symbols, strict=True):
        assert symbolic("x", graph_of(word)).question == symbol.question
        assert [word.meta["idx_to_symbol"][int(node)] for node in symbol.steps] == [
            step.removesuffix(".").split()[-1] for step in word.steps
        ]
        assert {key: symbol.meta[key] for key in word.meta} == word.meta


def test_the_options_are_named_in_either_order():
    first = sum(problem.meta["options"][0] == problem.meta["target"] for problem in ProsQA(size=1_000).load("test"))
    assert abs(first - 500) < 3 * math.sqrt(250)


def test_questions_differ_within_and_between_splits():
    questions = [problem.question for split in SPLITS for problem in ProsQA(size=200).load(split)]
    assert len(set(questions)) == 600


def test_every_machine_writes_the_same_problems():
    assert ProsQA(size=1, form="symbolic", balance="depth", relabel=True).load("valid")[0].question == (
        "<eos> 5 0 | 15 0 | 23 1 | 1 2 | 23 2 | 6 3 | 10 4 | 1 4 | 9 5 | 7 5 | 14 5 | 13 6 | 14 6 | 17 6 | 15 7 | 20 8 | 16 8 | "
        "21 8 | 6 9 | 15 9 | 2 10 | 10 11 | 22 11 | 2 11 | 18 11 | 1 11 | 5 12 | 22 13 | 17 13 | 13 14 | 17 14 | 14 15 | 13 15 | "
        "4 16 | 22 17 | 15 19 | 21 20 | 16 20 | 16 21 | 18 22 [Q] 0 8 [R] 23"
    )
    assert (
        ProsQA(size=1)
        .load("test")[0]
        .question.endswith("Every numpus is a impus. Every wumpus is a shumpus. Is Gabriel a shumpus or boompus?")
    )


def test_meta_can_be_written_as_json():
    for problem in ProsQA(size=3, form="symbolic", relabel=True).load("test"):
        assert json.loads(json.dumps(problem.meta)) == problem.meta


def test_hops_can_be_chosen():
    assert {problem.meta["hops"] for problem in ProsQA(size=60, min_hops=5, max_hops=5, nodes=32).load("test")} == {5}
    assert {problem.meta["hops"] for problem in ProsQA(size=60, min_hops=4, max_hops=5, balance="depth").load("test")} == {4, 5}


def test_fewer_nodes_make_smaller_graphs():
    sizes = [len(problem.meta["idx_to_symbol"]) for problem in ProsQA(size=50, nodes=14, max_hops=4).load("test")]
    assert max(sizes) <= 14


@pytest.mark.parametrize("augmentations", [1, 5])
def test_names_can_be_few(augmentations):
    problems = ProsQA(size=300, nodes=10, names=9, augmentations=augmentations).load("train")
    said = {name for problem in problems for name in problem.meta["idx_to_symbol"]}
    assert said <= {*NAMES[:9], *CONCEPTS[:9]}
    assert set(CONCEPTS[:9]) < said
    few, all_names = (ProsQA(size=50, nodes=10, names=names).load("test") for names in (9, None))
    assert [p.meta["edges"] for p in few] == [p.meta["edges"] for p in all_names]  # the graphs are the same


def test_training_graphs_can_be_told_more_than_once_and_others_are_not():
    once, often = (ProsQA(size=12, nodes=10, augmentations=augmentations) for augmentations in (1, 4))
    graphs, told = once.load("train"), often.load("train")
    edges = [[sorted(problem.meta["edges"]) for problem in problems] for problems in (graphs, told)]
    assert edges[1] == [edges[0][index // 4] for index in range(12)]
    assert [told[index] for index in (0, 4, 8)] == [replace(graphs[i], id=f"train-{4 * i}") for i in range(3)]
    assert len({problem.question for problem in told}) == 12
    for problem in told:
        read = graph_of(problem, "here")  # the sentences say the graph, and the question asks for its target
        children = {child for _, child in read.edges}
        assert [name[0].isupper() for name in read.symbols] == [node not in children for node in range(len(read.symbols))]
    options = Counter(tuple(problem.meta["options"]) for problem in ProsQA(size=64, nodes=10, augmentations=64).load("train"))
    assert len(options) == 2
    assert min(options.values()) > 16
    assert once.load("test") == often.load("test")


def test_relabel_permutes_ids_and_leaves_the_rest_as_published():
    relabelled = ProsQA(size=300, relabel=True).load("test")
    assert any(source > destination for problem in relabelled for source, destination in problem.meta["edges"])
    assert max(problem.meta["root"] for problem in relabelled) > 10
    for problem in relabelled:
        by_destination = [destination for _, destination in problem.meta["edges"]]
        assert by_destination == sorted(by_destination)
        assert symbolic("x", graph_of(problem)).answer == str(problem.meta["target"])


def test_the_dataset_brings_its_shortcuts_fitted_on_training_problems():
    dataset = ProsQA()
    rules = dataset.shortcuts()
    problems = dataset.load("test")
    scores = {name: sum(map(rule, problems)) / 500 for name, rule in rules.items()}
    assert scores["deepest_leaf"] > 0.9
    assert scores["logistic_regression"] > 0.9
    assert 0.4 < scores["named_first"] < 0.6


def test_without_a_training_file_the_regression_is_fitted_on_generated_problems(data_folder):
    path = data_folder / "prosqa/valid.json"
    rule = ProsQA(path=str(path)).shortcuts()["logistic_regression"]
    # Fitted on 270 rows of this very file, it would get 97%.
    assert 0.94 <= sum(map(rule, ProsQA(path=str(path)).load("test"))) / 300 <= 0.955


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"form": "words"}, "form=words: allowed are text, terse, symbolic"),
        ({"balance": "hops"}, "balance=hops: allowed are none, depth"),
        ({"nodes": 41}, "nodes=41: allowed are 4 to 40, as many as there are names for"),
        ({"nodes": 3}, "nodes=3: allowed are 4 to 40, as many as there are names for"),
        ({"min_hops": 0}, "min_hops=0, max_hops=6: allowed are 1 <= min_hops <= max_hops"),
        ({"min_hops": 5, "max_hops": 4}, "min_hops=5, max_hops=4: allowed are 1 <= min_hops <= max_hops"),
        ({"nodes": 12, "names": 9}, "names=9: allowed are 10 to 38 with nodes=12, two of which are people"),
        ({"names": 30, "path": "f.json"}, "names=30: it changes generated problems, but path=f.json reads a file"),
        ({"augmentations": 0}, "augmentations=0: allowed are 1 and more in words, and 1 with form=symbolic"),
        ({"augmentations": 2, "form": "symbolic"}, "augmentations=2: allowed are 1 and more in words, and 1 with form=symbolic"),
        ({"augmentations": 2, "path": "f.json"}, "augmentations=2: it changes generated problems, but path=f.json reads a file"),
        ({"valid_size": -1}, "valid_size=-1: allowed are 0 and more"),
        ({"size": -1}, "size=-1: allowed are 0 and more"),
        ({"path": "f.json", "relabel": True}, "relabel=True: it changes generated problems, but path=f.json reads a file"),
        ({"path": "f.json", "balance": "depth"}, "balance=depth: it changes generated problems, but path=f.json reads a file"),
    ],
)
def test_a_wrong_option_is_answered_with_what_is_allowed(options, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        ProsQA(**options)
