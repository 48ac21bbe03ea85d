"""Graph search in symbols: the curriculum of "Reasoning by Superposition" (arXiv 2505.12514) and its baselines.

A problem is a list of edges, two candidate nodes and a root: ``<eos> 5 6 | 1 9 | ... [Q] 25 21 [R] 1``. At stage k, k thoughts
are followed by ONE label: a node k + 1 steps from the root. Once the chain is through, ``[A]`` asks for the target. There are no
other markers; the order of edges and candidates is drawn anew for every epoch.
"""

import random
from collections.abc import Sequence as Seq
from dataclasses import dataclass, replace

from latent_lab.problems import DataError, Problem
from latent_lab.sequences import ANSWER_NODE, Encoded, LatentTokens, Part, Role, Sequence, Tokenizer, lay
from latent_lab.stages.base import one_of
from latent_lab.stages.curriculum import Curriculum

LABELS = {"path": "neighbor_k", "frontier": "frontier"}
"""Where the label after k thoughts is drawn from, and the field of a problem that lists these nodes by their distance."""
TAIL = 5
"""Tokens after the last edge: ``[Q]``, two candidates, ``[R]`` and the root."""


@dataclass
class GraphCurriculum(Curriculum):
    """How a graph problem looks at each stage.

    Differs from paper: the end-of-text token after the answer is trained, too, so that answers stop by themselves, and every
    problem gets as many slots at a stage (``pad=max``), so that their number tells nothing; ``pad=chain`` is as published.
    """

    labels: str = "path"
    """What is named after k thoughts: a node on a shortest ``path`` to the target (Coconut), or any of the search's ``frontier``
    (Coconut-BFS)."""
    shuffle: bool = True
    """Draw the order of edges and candidates anew for every epoch."""
    relabel: bool = False
    """Draw the numbers of a graph's nodes anew for every epoch, too: no graph can be learned by heart, however few there are."""

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of(self, "labels", tuple(LABELS))
        if self.template != "plain":
            raise ValueError(f"template={self.template}: a graph in symbols is no text; allowed: plain")
        if self.latents_from != "start":
            raise ValueError(f"latents_from={self.latents_from}: a search starts at its root; allowed: start")
        if self.labels != "path" and self.kind in ("cot", "no_cot"):
            raise ValueError(f"labels={self.labels}: stage.kind={self.kind} names no single node; allowed: path")

    @property
    def extractors(self) -> tuple[str, ...]:
        """See :class:`latent_lab.stages.base.Stage`."""
        return ("node",)

    def encode(self, problems: Seq[Problem], tokenizer: Tokenizer) -> list[Encoded]:
        """See :class:`latent_lab.stages.base.Stage`; every node must be one token."""
        texts = [p.question for p in problems]
        questions = tokenizer(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"] if problems else []
        known: dict[str, int] = {}
        encoded = []
        for p, question in zip(problems, questions, strict=True):
            words = p.question.split()
            if not is_written_in_symbols(words) or len(words) != len(question):
                raise DataError(
                    f"{p.id}: {p.question[:40]!r} is no graph in symbols of one token each; allowed: a dataset such as "
                    "prosqa_symbolic with model=symbolic"
                )
            known |= zip(words, question, strict=True)
            field = LABELS[self.labels]
            if field not in p.meta:
                raise DataError(f"{p.id}: has no field {field!r}; allowed: dataset=prosqa_symbolic, which has")
            chain = tuple((known[step],) for step in p.steps)
            by_distance = [tuple(known[str(node)] for node in p.meta[field][str(k + 1)]) for k in range(len(chain))]
            mark = tokenizer([ANSWER_NODE], add_special_tokens=False, split_special_tokens=True)["input_ids"][0]
            answer = (*mark, known[p.answer], tokenizer.eos_token_id)
            encoded.append(Encoded(p.id, tuple(question), chain, answer, prefix=len(mark), targets=tuple(by_distance)))
        return encoded

    def sequence(self, problem: Encoded, tokens: LatentTokens, stage: int, draw: str | None = None) -> Sequence:
        """See :class:`latent_lab.stages.base.Stage`."""
        if draw is not None:
            problem = self._drawn(problem, random.Random(f"graph/{draw}/{stage}/{problem.id}"))
        parts: list[Part] = [(Role.QUESTION, problem.question, False)]
        if self.kind in ("cot", "no_cot"):
            chain = tuple(node for step in problem.steps for node in step) if self.kind == "cot" else ()
            return lay(problem, [*parts, (Role.STEP, chain, True), (Role.ANSWER, problem.answer, True)])
        done = self.stage_of(problem, stage, draw)
        slots = self._slots(problem, done)
        if self.has_slots:
            parts.append((Role.LATENT, (tokens.latent,) * len(slots), self.train_stop))
        if done < len(problem.steps):
            parts.append((Role.STEP, problem.steps[done], True))
        else:
            parts.append((Role.END, problem.answer[: problem.prefix], self.train_stop))
            parts.append((Role.ANSWER, problem.answer[problem.prefix :], True))
        return lay(problem, parts, slots, is_closed=self.is_closed(done))

    def shape(self, problem: Encoded, stage: int, draw: str | None = None) -> tuple[int, int, int]:
        """See :class:`latent_lab.stages.base.Stage`."""
        if self.kind in ("cot", "no_cot"):
            return 0, len(problem.question), len(problem.answer) + (len(problem.steps) if self.kind == "cot" else 0)
        done = self.stage_of(problem, stage, draw)
        after = 1 if done < len(problem.steps) else len(problem.answer)
        return len(self._slots(problem, done)), len(problem.question), after

    def prompt(self, problem: Encoded, tokens: LatentTokens, stage: int, num_slots: int | None = None) -> Sequence:
        """See :class:`latent_lab.stages.base.Stage`."""
        parts: list[Part] = [(Role.QUESTION, problem.question, False)]
        if self.kind in ("cot", "no_cot"):
            return lay(problem, parts)
        slots = [None] * (self.num_slots(stage) if num_slots is None else num_slots)
        parts += [(Role.LATENT, (tokens.latent,) * len(slots), False), (Role.END, problem.answer[: problem.prefix], False)]
        return lay(problem, parts, slots, is_closed=self.is_closed(stage))

    def _slots(self, problem: Encoded, done: int) -> list[int | None]:
        """The step each slot stands for with ``done`` steps latent."""
        if not self.has_slots:
            return []
        chain = min(done, len(problem.steps), self.max_stage)
        slots: list[int | None] = [s for s in range(chain) for _ in range(self.latents_per_step)]
        if self.pad == "max" or (self.pad == "published_mismatch" and done <= self.max_stage):
            slots += [None] * (self.num_slots(done) - len(slots))
        return slots

    def _drawn(self, problem: Encoded, rng: random.Random) -> Encoded:
        """The problem as one epoch sees it: the order of its edges, the numbers of its nodes, and the nodes to be named."""
        if self.relabel:
            problem = renumbered(problem, rng)
        chain = self._path(problem, rng) if self.kind == "cot" else [rng.choice(nodes) for nodes in problem.targets]
        question = self._question(problem, rng) if self.shuffle else problem.question
        return replace(problem, question=question, steps=tuple((node,) for node in chain))

    def _question(self, problem: Encoded, rng: random.Random) -> tuple[int, ...]:
        """The question with its edges and candidates in an order of their own."""
        first, bar = problem.question[0], problem.question[3:4]
        ask, a, b, root_mark, root = problem.question[-TAIL:]
        edges = edges_of(problem)
        rng.shuffle(edges)
        if rng.random() < 0.5:
            a, b = b, a
        laid = [token for edge in edges for token in (*bar, *edge)][len(bar) :]
        return (first, *laid, ask, a, b, root_mark, root)

    def _path(self, problem: Encoded, rng: random.Random) -> list[int]:
        """A shortest path from the root to the target."""
        edges = set(edges_of(problem))
        path = [problem.question[-1]]
        for nodes in problem.targets:
            path.append(rng.choice([node for node in nodes if (path[-1], node) in edges]))
        return path[1:]


def edges_of(problem: Encoded) -> list[tuple[int, int]]:
    """The edges of a question, as pairs of tokens."""
    body = problem.question[1:-TAIL]
    return [(body[i], body[i + 1]) for i in range(0, len(body), 3)]


def renumbered(problem: Encoded, rng: random.Random) -> Encoded:
    """The same graph with the numbers of its nodes permuted."""
    nodes = sorted({node for edge in edges_of(problem) for node in edge})
    new = dict(zip(nodes, rng.sample(nodes, len(nodes)), strict=True))

    def named(tokens: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(new.get(token, token) for token in tokens)

    question, steps, targets = named(problem.question), map(named, problem.steps), map(named, problem.targets)
    return replace(problem, question=question, steps=tuple(steps), answer=named(problem.answer), targets=tuple(targets))


def is_written_in_symbols(words: Seq[str]) -> bool:
    """Whether a question reads ``<eos> s t | s t ... [Q] a b [R] root``."""
    has_tail = len(words) > TAIL and words[-TAIL] == "[Q]" and words[-2] == "[R]"
    return has_tail and all(word == "|" for word in words[3:-TAIL:3])
