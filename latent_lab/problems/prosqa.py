"""ProsQA (Coconut, arXiv 2412.06769): which of two concepts does a person's chain of "is a" lead to? Generated or from a file.

Two forms of one graph: English sentences, and the node and edge tokens of Reasoning by Superposition (arXiv 2505.12514). In
the published problems the target is always the deepest leaf of its family, so that a rule which never reads who is asked
about answers 93.4% of the test set; ``balance=depth`` takes all such rules to 50%.
"""

import random
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

from latent_lab.problems import DataError, Problem, Split
from latent_lab.problems.files import Records, Row, find, is_int, mapping, names, wrong
from latent_lab.problems.generated import Generated
from latent_lab.problems.graph_process import PROCESSES, SENTENCE, nodes_of, process
from latent_lab.problems.graphs import CONCEPTS, NAMES, Graph, distances, frontiers, shortcuts, shortest_path_nodes

FORMS = ("text", "terse", "symbolic")
BALANCES = ("none", "depth")
MOST_NODES = 40  # two people and the 38 concepts there are names for
FITTED_ON = 2_000  # training problems that the logistic regression among the shortcut rules is fitted on
QUESTION = re.compile(r"((?:Every \w+ is a \w+\. |\w+ is a \w+\. )+)Is (\w+) a (\w+) or (\w+)\?")


@dataclass
class ProsQA(Generated):
    """Reachability in directed graphs of 14 to 28 nodes, 3 to 6 hops to the answer."""

    form: str = "text"
    """``text``: English sentences; ``terse``: the names alone, ``Tom lempus. lempus yumpus. ... yumpus or fompus? Tom``, for
    models from scratch, which have no English to bring; ``symbolic``: ``<eos> s t | s t | ... [Q] a b [R] root``, numbers."""
    path: str | None = None
    """A published file, or a folder of train, valid and test, of either form; None: generate. A single file is wholly the
    test split, and divided for training: it serves one or the other. Problems of other numbers of hops are left out."""
    balance: str = "none"
    """``none``: the published distribution; ``depth``: both options equally deep and a coin for the root, so that nothing but
    the root tells them apart; hops as frequent as published."""
    relabel: bool = False
    """Permute vertex ids; published ones rise along every edge, and the root is 0 or 1."""
    nodes: int = 28
    """Nodes drawn; about five of 28 stay without an edge and are dropped."""
    min_hops: int = 3
    """Least distance from root to target."""
    max_hops: int = 6
    """Greatest distance from root to target."""
    names: int | None = None
    """People and concepts are drawn from the first so many names; null takes all, 17 and 38."""
    augmentations: int = 1
    """Times each training graph is told in words, with names, order of sentences and order of options drawn anew. Small graphs
    run out of shapes, names do not; graphs in symbols are renumbered while training (stage.relabel)."""
    train_size: int = 17_886
    """Problems generated for training."""
    valid_size: int = 300
    """Problems generated for validation."""
    test_size: int = 500
    """Problems generated for testing."""
    size: int | None = None
    """Problems of whichever split is loaded; null takes the three above, and all problems of a file."""
    processes: ClassVar[tuple[str, ...]] = PROCESSES
    """What may become of a written chain; see :meth:`process`."""

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise ValueError(f"form={self.form}: allowed are {', '.join(FORMS)}")
        if self.balance not in BALANCES:
            raise ValueError(f"balance={self.balance}: allowed are {', '.join(BALANCES)}")
        if not 4 <= self.nodes <= MOST_NODES:
            raise ValueError(f"nodes={self.nodes}: allowed are 4 to {MOST_NODES}, as many as there are names for")
        if self.names is not None and not self.nodes - 2 <= self.names <= len(CONCEPTS):
            allowed = f"{self.nodes - 2} to {len(CONCEPTS)} with nodes={self.nodes}, two of which are people"
            raise ValueError(f"names={self.names}: allowed are {allowed}")
        if not 1 <= self.min_hops <= self.max_hops:
            raise ValueError(f"min_hops={self.min_hops}, max_hops={self.max_hops}: allowed are 1 <= min_hops <= max_hops")
        if self.augmentations < 1 or (self.augmentations > 1 and self.form == "symbolic"):
            raise ValueError(f"augmentations={self.augmentations}: allowed are 1 and more in words, and 1 with form=symbolic")
        super().__post_init__()
        changes = [
            n
            for n, usual in (("balance", "none"), ("relabel", False), ("names", None), ("augmentations", 1))
            if getattr(self, n) != usual
        ]
        if self.path is not None and changes:
            given = f"{changes[0]}={getattr(self, changes[0])}"
            raise ValueError(f"{given}: it changes generated problems, but path={self.path} reads a file")

    def load(self, split: Split) -> list[Problem]:
        """Return one whole split, or raise :class:`DataError`; generated problem ``i`` depends on options and ``i`` alone."""
        return super().load(split) if self.path is None else self._read(self.path, split)

    def draw(self, split: Split, size: int) -> list[Problem]:
        """See :class:`latent_lab.problems.generated.Generated`; graphs are drawn in blocks."""
        from latent_lab.problems.graph_generator import Recipe, draw

        recipe = Recipe(self.nodes, self.min_hops, self.max_hops, self.balance == "depth", self.relabel, self.names)
        write = WRITTEN[self.form]
        times = self.augmentations if split == "train" else 1
        graphs = draw(recipe, self.seed, split, -(-size // times))
        told = (
            graphs[i // times] if i % times == 0 else augmented(graphs[i // times], f"{self.seed}/{i}", self.names)
            for i in range(size)
        )
        return [write(f"{split}-{index}", graph) for index, graph in enumerate(told)]

    def shortcuts(self) -> dict[str, Callable[[Problem], float]]:
        """Return the rules that choose an option without knowing the root (see ``graphs.RULES``).

        The logistic regression is fitted on training problems: on generated ones where the path has no file of them.
        """
        has_train = self.path is None or find(Path(self.path).expanduser(), "train")
        dataset = replace(self, size=FITTED_ON, augmentations=1)
        dataset = dataset if has_train else replace(dataset, path=None)
        return shortcuts(dataset.load("train"))

    def choices_of(self, problem: Problem) -> tuple[str, ...]:
        """Return both answers that the question leaves, in its order."""
        symbols, options = problem.meta["idx_to_symbol"], problem.meta["options"]
        if self.form == "symbolic":
            return tuple(map(str, options))
        named = [symbols[option] for option in options]
        return tuple(named if self.form == "terse" else (is_a(symbols[problem.meta["root"]], name) for name in named))

    def process(self, problem: Problem, chain: str, is_right: bool, left_out: str | None = None) -> str:
        """Name what became of the chain of one reply; see :mod:`latent_lab.problems.graph_process`."""
        return process(problem.meta, nodes_of(problem.meta, self.form, chain, left_out), is_right, left_out)

    def _read(self, path: str, split: Split) -> list[Problem]:
        problems = [
            problem if self.form == "text" else WRITTEN[self.form](problem.id, graph_of(problem))
            for problem in GraphFile().local(path, split)
            if self.min_hops <= problem.meta["hops"] <= self.max_hops
        ]
        if not problems:
            raise DataError(
                f"{path}: no problem of the {split} split is between dataset.min_hops={self.min_hops} and "
                f"dataset.max_hops={self.max_hops} hops: change these"
            )
        return problems[: self.size]


def text(id: str, graph: Graph) -> Problem:
    """Write a graph as Coconut's files do."""
    symbols = graph.symbols
    first, second = graph.options
    said = [states(graph, *graph.edges[index]) for index in graph.order]
    question = " ".join([*said, f"Is {symbols[graph.root]} a {symbols[first]} or {symbols[second]}?"])
    steps = tuple(states(graph, *edge) for edge in pairwise(graph.path))
    return Problem(id, question, steps, f"{symbols[graph.root]} is a {symbols[graph.target]}.", meta_of(graph))


def augmented(graph: Graph, stream: str, names: int | None = None) -> Graph:
    """Return the same graph with names (of the first ``names``), order of sentences and order of options drawn anew."""
    rng = random.Random(stream)
    people, concepts = (iter(rng.sample(some[:names], len(some[:names]))) for some in (NAMES, CONCEPTS))
    symbols = tuple(next(people if symbol[0].isupper() else concepts) for symbol in graph.symbols)
    order = tuple(rng.sample(graph.order, len(graph.order)))
    return replace(graph, symbols=symbols, order=order, is_target_first=rng.random() < 0.5)


def states(graph: Graph, source: int, destination: int) -> str:
    """Write an edge as a sentence."""
    return is_a(graph.symbols[source], graph.symbols[destination])


def is_a(name: str, concept: str) -> str:
    """State what someone is, or what everything of a concept is."""
    return f"{name if name[0].isupper() else f'Every {name}'} is a {concept}."


def terse(id: str, graph: Graph) -> Problem:
    """Write a graph in names alone; the root comes last, and the steps say where a walk from there is, the root included.

    So the first step copies a name and every other follows one edge from the name before: all that a small model can learn.
    """
    symbols = graph.symbols
    first, second = graph.options
    said = [f"{symbols[a]} {symbols[b]}." for a, b in (graph.edges[index] for index in graph.order)]
    question = " ".join([*said, f"{symbols[first]} or {symbols[second]}?", symbols[graph.root]])
    steps = tuple(f"at {symbols[node]}" for node in graph.path)
    return Problem(id, question, steps, symbols[graph.target], meta_of(graph))


def symbolic(id: str, graph: Graph) -> Problem:
    """Write a graph in the tokens of Reasoning by Superposition, edges by destination; steps are the nodes after the root.

    ``meta`` has in addition, by distance from the root, the breadth-first ``frontier`` and ``neighbor_k``, its nodes that lie
    on a shortest path to the target.
    """
    edges = " | ".join(f"{source} {destination}" for source, destination in graph.edges)
    first, second = graph.options
    question = f"<eos> {edges} [Q] {first} {second} [R] {graph.root}"
    layers = shortest_path_nodes(graph.edges, graph.root, graph.target)
    reached = frontiers(graph.edges, graph.root)[: len(layers)]
    meta = meta_of(graph) | {
        "neighbor_k": {str(distance): nodes for distance, nodes in enumerate(layers)},
        "frontier": {str(distance): nodes for distance, nodes in enumerate(reached)},
    }
    return Problem(id, question, tuple(str(node) for node in graph.path[1:]), str(graph.target), meta)


WRITTEN: dict[str, Callable[[str, Graph], Problem]] = {"text": text, "terse": terse, "symbolic": symbolic}


def meta_of(graph: Graph) -> dict[str, Any]:
    """Return the published fields of a graph, the two options in the order of the question, and the number of hops."""
    return {
        "idx_to_symbol": list(graph.symbols),
        "edges": [list(edge) for edge in graph.edges],
        "root": graph.root,
        "target": graph.target,
        "neg_target": graph.neg_target,
        "options": list(graph.options),
        "hops": len(graph.path) - 1,
    }


class GraphFile(Records):
    """A published file of ProsQA; every row's graph is checked, and its sentences must be those of the graph."""

    def problem(self, row: Row, stem: str) -> Problem:
        """Turn one row into a Problem of the text form with ``options`` and ``hops``, or raise :class:`DataError`."""
        check_graph(mapping(row.record, row.where), row.where)
        problem = super().problem(row, stem)
        graph = graph_of(problem, row.where)
        return replace(problem, meta=problem.meta | {"options": list(graph.options), "hops": len(graph.path) - 1})


def field_of(record: dict[str, Any], name: str, where: str) -> Any:
    """Return a field that every published row has, or raise :class:`DataError`."""
    if name not in record:
        raise DataError(f"{where}, field '{name}': missing among {names(record)}; every row of a ProsQA file has it")
    return record[name]


def check_graph(record: dict[str, Any], where: str) -> None:
    """Raise :class:`DataError` unless a record holds a graph whose root reaches the target and not the other option."""
    symbols, edges = field_of(record, "idx_to_symbol", where), field_of(record, "edges", where)
    if not isinstance(symbols, list) or not all(isinstance(symbol, str) for symbol in symbols):
        raise wrong(symbols, "idx_to_symbol", where, "a list of names, one a node")
    if len(set(symbols)) < len(symbols):
        raise DataError(f"{where}, field 'idx_to_symbol': a name is there twice; every node needs a name of its own")

    def is_node(value: object) -> bool:
        return is_int(value) and 0 <= value < len(symbols)

    for edge in edges if isinstance(edges, list) else [edges]:
        if not (isinstance(edge, list) and len(edge) == 2 and all(map(is_node, edge))):
            raise wrong(edge, "edges", where, f"pairs of node numbers from 0 to {len(symbols) - 1}")
    for name in ("root", "target", "neg_target"):
        if not is_node(field_of(record, name, where)):
            raise wrong(record[name], name, where, f"node numbers from 0 to {len(symbols) - 1}")
    root, target, neg_target = (record[name] for name in ("root", "target", "neg_target"))
    reached = distances(edges, root)
    if target == root or target not in reached:
        raise DataError(f"{where}, field 'target': no edge leads from the root, node {root}, on to node {target}")
    if neg_target in reached:
        raise DataError(f"{where}, field 'neg_target': the root, node {root}, reaches node {neg_target} as well as the target")


def graph_of(problem: Problem, where: str = "") -> Graph:
    """Read the graph of a text problem whose ``meta`` was checked; texts that do not state it raise :class:`DataError`."""
    meta = problem.meta
    node = {symbol: number for number, symbol in enumerate(meta["idx_to_symbol"])}
    edges = [(source, destination) for source, destination in meta["edges"]]
    parts = QUESTION.fullmatch(problem.question)
    if parts is None:
        raise DataError(
            f"{where}, field 'question': allowed are sentences 'Every A is a B.' and 'C is a A.', then 'Is C a D or E?'"
        )
    stated = [(node.get(source, -1), node.get(destination, -1)) for source, destination in SENTENCE.findall(parts[1])]
    if sorted(stated) != sorted(edges):
        raise DataError(f"{where}, field 'question': its sentences are not the edges of field 'edges'")
    root, first, second = (node.get(symbol, -1) for symbol in parts.groups()[1:])
    if root != meta["root"] or {first, second} != {meta["target"], meta["neg_target"]}:
        raise DataError(f"{where}, field 'question': it does not ask which of target and neg_target the root is")
    steps = [SENTENCE.fullmatch(step) for step in problem.steps]
    path = [root, *(node.get(step[2], -1) if step else -1 for step in steps)]
    hops = distances(edges, root)[meta["target"]]
    if len(path) != hops + 1 or path[-1] != meta["target"] or not set(pairwise(path)) <= set(edges):
        raise DataError(f"{where}, field 'steps': they are no shortest path from root to target, which has {hops} edges")
    return Graph(
        symbols=tuple(meta["idx_to_symbol"]),
        edges=tuple(edges),
        root=root,
        target=meta["target"],
        neg_target=meta["neg_target"],
        path=tuple(path),
        is_target_first=first == meta["target"],
        order=tuple(edges.index(edge) for edge in stated),
    )
