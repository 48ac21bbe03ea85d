"""Does a thought hold a search's whole frontier? Graphs in symbols: nodes against thoughts, and where attention goes.

Reasoning by Superposition (arXiv 2505.12514, section 6): the inner products of a thought with the embeddings of nodes, and the
attention by which it was made, by groups of nodes and edges. Thought k is the state before slot k; it is made after k edges of
search, so its frontier are the nodes k + 1 edges from the root. The groups are nested as in the paper: ``optimal`` nodes are
frontier nodes on a shortest path to the target, frontier nodes are ``reachable`` (within k + 1 edges), all others are not.

The same can be asked of a pause model, whose slots are fed nothing: its thoughts are the states before them. Where it shows the
same pattern, the pattern is no evidence for thinking in the slots (arXiv 2606.12689).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latent_lab.batching import collate
from latent_lab.grading.evaluate import Solver, evenly
from latent_lab.problems import Problem
from latent_lab.problems.graphs import distances, shortest_path_nodes
from latent_lab.sequences import Encoded
from latent_lab.thoughts.scores import score, with_floor

GROUPS = ("not_reachable", "reachable", "frontier", "optimal")
EDGE = 3
"""Tokens of an edge in the text: source, destination and the bar after it."""


def node_groups(problem: Problem, step: int) -> dict[str, set[int]]:
    """The nodes of each group for the thought made after ``step`` edges of search; ``frontier`` may be empty."""
    meta = problem.meta
    nodes = {node for edge in meta["edges"] for node in edge}
    far = distances(meta["edges"], meta["root"])
    reachable = {node for node, steps in far.items() if steps <= step + 1}
    best = shortest_path_nodes(meta["edges"], meta["root"], meta["target"])
    return {
        "not_reachable": nodes - reachable,
        "reachable": reachable,
        "frontier": {node for node, steps in far.items() if steps == step + 1},
        "optimal": set(best[step + 1]) if step + 1 < len(best) else set(),
    }


def edge_groups(problem: Problem, step: int) -> dict[str, list[tuple[int, int]]]:
    """The edges of each group by which search goes from ``step`` edges to one more: ``frontier`` edges start at its frontier."""
    meta = problem.meta
    edges = [(int(source), int(destination)) for source, destination in meta["edges"]]
    far = distances(edges, meta["root"])
    best = [set(layer) for layer in shortest_path_nodes(edges, meta["root"], meta["target"])]
    reachable = [edge for edge in edges if far.get(edge[0], step + 1) <= step]
    on_path = step + 1 < len(best)
    return {
        "not_reachable": [edge for edge in edges if edge not in reachable],
        "reachable": reachable,
        "frontier": [edge for edge in reachable if far[edge[0]] == step],
        "optimal": [edge for edge in reachable if on_path and edge[0] in best[step] and edge[1] in best[step + 1]],
    }


def places_of_edges(question: str) -> dict[tuple[int, int], int]:
    """The place of each edge's first token in a question in symbols, ``<eos> 5 6 | 1 9 | ... [Q] ...``."""
    words = question.split()
    end = words.index("[Q]") if "[Q]" in words else len(words)
    found = {}
    for i in range(end - 1):
        if words[i].isdecimal() and words[i + 1].isdecimal():
            found[int(words[i]), int(words[i + 1])] = i
    return found


@contextmanager
def eager(model: Any) -> Iterator[None]:
    """While it lasts the model computes attention so that its weights can be had; then as before."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


@torch.no_grad()
def looked_at(solver: Solver, encoded: Sequence[Encoded]) -> tuple[Tensor, Tensor, list[Tensor]]:
    """One batch: thoughts ``[B, K, D]``, slots ``[B]``, and for each block the attention ``[B, K, T]`` by which they were made.

    It is summed over heads, from the position before each slot; zero where a row has no such slot.
    """
    reasoner = solver.reasoner
    batch = collate(solver.prompts(encoded), solver.backbone.pad).to(reasoner.device)
    out = reasoner(batch.input_ids, batch.attention_mask, is_closed=batch.is_closed)
    embeds = reasoner.model.get_input_embeddings()(batch.input_ids)
    is_slot = (batch.input_ids == solver.backbone.tokens.latent) & batch.attention_mask.bool()
    rows, columns = is_slot.nonzero(as_tuple=True)
    slots = is_slot.cumsum(1)[rows, columns] - 1
    if reasoner.loop.feeds == "thoughts":
        embeds = embeds.index_put((rows, columns), out.thoughts[rows, slots].to(embeds.dtype))
    with eager(reasoner.model):
        made = reasoner.model.base_model(
            inputs_embeds=embeds,
            attention_mask=batch.attention_mask,
            position_ids=(batch.attention_mask.cumsum(1) - 1).clamp(min=0),
            output_attentions=True,
            use_cache=False,
        )
    found = []
    for weights in made.attentions:
        summed = weights.float().sum(1)
        empty = summed.new_zeros(len(summed), out.thoughts.shape[1], summed.shape[-1])
        found.append(empty.index_put((rows, slots), summed[rows, columns - 1]).cpu())
    return out.thoughts.float().cpu(), out.num_slots.cpu(), found


def frontier_report(
    solver: Solver, problems: Sequence[Problem], encoded: Sequence[Encoded], *, seed: int = 0, layers: Sequence[int] | None = None
) -> dict[str, Any]:
    """Thoughts against nodes and attention against edges, slot by slot, on graphs in symbols.

    ``inner``: mean inner product by group of nodes. ``hits``: whether the nearest node is in the frontier (``frontier_top``) or
    optimal (``optimal_top``), and the share of the frontier among as many nearest nodes (``recall``); their floors are the same
    with another problem's thought of the slot, and drawing nodes blindly. ``attention``: mean over edges of a group of the
    attention on an edge's tokens, summed over heads, by block (``layers``, default all; 1 is the first). Means are over problems
    that have the group. ValueError for problems that are no graphs.
    """
    if wrong := [p.id for p in problems if not {"edges", "root", "target"} <= p.meta.keys()]:
        raise ValueError(f"{wrong[0]}: its meta holds no edges, root and target; allowed: graphs, as dataset=prosqa_symbolic")
    pairs = [(p, e) for p, e in zip(problems, encoded, strict=True) if solver.fits(e)]
    problems = [p for p, _ in pairs]
    parts = [looked_at(solver, [e for _, e in part]) for part in evenly(pairs, solver.batch_size)]
    most = max((thoughts.shape[1] for thoughts, _, _ in parts), default=0)
    thoughts = torch.cat([torch.nn.functional.pad(t, (0, 0, 0, most - t.shape[1])) for t, _, _ in parts])
    counts = torch.cat([c for _, c, _ in parts]).tolist()
    table = solver.reasoner.model.get_input_embeddings().weight.detach().float().cpu()
    attention = [[block[row] for block in blocks] for _, _, blocks in parts for row in range(len(blocks[0]))]
    blocks = list(layers) if layers is not None else list(range(1, len(attention[0]) + 1))
    report: dict[str, Any] = {"n": len(problems), "slots": most, "feeds": solver.reasoner.loop.feeds == "thoughts"}
    report |= {"inner": {}, "hits": {}, "attention": {str(block): {} for block in blocks}}
    ids = node_ids(solver, problems)
    for slot in range(most):
        has = [i for i, count in enumerate(counts) if count > slot]
        groups = [node_groups(problems[i], slot) for i in has]
        near = [(thoughts[i, slot] @ table.T, thoughts[j, slot] @ table.T) for i, j in zip(has, around(has, seed), strict=True)]
        nodes = [sorted(g["reachable"] | g["not_reachable"]) for g in groups]
        mine = [{node: float(own[ids[node]]) for node in some} for (own, _), some in zip(near, nodes, strict=True)]
        theirs = [{node: float(other[ids[node]]) for node in some} for (_, other), some in zip(near, nodes, strict=True)]
        names = [problems[i].id for i in has]
        report["inner"][str(slot)] = by_group([{g: [m[node] for node in sorted(nodes)] for g, nodes in each.items()}
                                               for m, each in zip(mine, groups, strict=True)], names)  # fmt: skip
        report["hits"][str(slot)] = hits(mine, theirs, groups, names, seed)
        for block in blocks:
            mass = [on_edges(problems[i], attention[i][block - 1][slot], slot) for i in has]
            report["attention"][str(block)][str(slot)] = by_group(mass, names)
    return report


def around(places: Sequence[int], seed: int) -> list[int]:
    """For each place another of them: so many further on, around the end."""
    shift = 1 + seed % max(len(places) - 1, 1)
    return [places[(k + shift) % len(places)] for k in range(len(places))]


def node_ids(solver: Solver, problems: Sequence[Problem]) -> dict[int, int]:
    """The token of each node."""
    nodes = sorted({node for p in problems for edge in p.meta["edges"] for node in edge})
    return dict(zip(nodes, solver.backbone.tokenizer.convert_tokens_to_ids([str(node) for node in nodes]), strict=True))


def on_edges(problem: Problem, weights: Tensor, step: int) -> dict[str, list[float]]:
    """The attention ``weights [tokens]`` on each edge, by group."""
    places = places_of_edges(problem.question)
    return {
        group: [float(weights[places[edge] : places[edge] + EDGE].sum()) for edge in edges if edge in places]
        for group, edges in edge_groups(problem, step).items()
    }


def by_group(values: Sequence[dict[str, list[float]]], names: Sequence[str]) -> dict[str, Any]:
    """The score of each group: the mean of its values in a problem, over problems that have any."""
    found = {}
    for group in GROUPS:
        kept = [(float(np.mean(each[group])), name) for each, name in zip(values, names, strict=True) if each[group]]
        found[group] = score([value for value, _ in kept], [name for _, name in kept])
    return found


def hits(
    mine: Sequence[dict[int, float]],
    theirs: Sequence[dict[int, float]],
    groups: Sequence[dict[str, set[int]]],
    names: Sequence[str],
    seed: int,
) -> dict[str, Any]:
    """Whether the nodes nearest to a thought are those it should hold, with floors, over problems with a frontier."""
    found: dict[str, Any] = {}
    for name, group in (("frontier_top", "frontier"), ("optimal_top", "optimal"), ("recall", "frontier")):
        wanted = [(a, b, g[group], who) for a, b, g, who in zip(mine, theirs, groups, names, strict=True) if g[group]]
        if not wanted:
            continue

        def among(near: dict[int, float], goal: set[int], name: str = name) -> float:
            count = len(goal) if name == "recall" else 1
            top = sorted(near, key=lambda node: (-near[node], node))[:count]
            return sum(node in goal for node in top) / count

        floors: dict[str, Sequence[float]] = {
            "other_problem": [among(b, goal) for _, b, goal, _ in wanted],
            "chance": [len(goal) / len(a) for a, _, goal, _ in wanted],
        }
        found[name] = with_floor([among(a, goal) for a, _, goal, _ in wanted], floors, [who for *_, who in wanted], seed=seed)
    return found
