"""Evaluation of 500 questions beside answering one at a time without a cache, as the published code does."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from latent_lab.backbone import Backbone, digit_tokenizer, marker_ids
from latent_lab.bench.machine import Machine, done
from latent_lab.bench.steps import SLOTS, model
from latent_lab.bench.timing import Case, Row, row_of, timed
from latent_lab.grading.evaluate import Solver
from latent_lab.problems.arithmetic import Arithmetic
from latent_lab.reasoner import LatentReasoner
from latent_lab.sequences import Encoded, LatentTokens, Role, lay
from latent_lab.sequences import Sequence as Laid

QUESTIONS, SAMPLED = 500, {10: 20, 64: 8}
"""Questions answered by us, and by mean answer how many of them by the slow side: it answers one after the other, so that its
time for all is in proportion (see :func:`few`)."""
FIRST = 4
"""The lowest id that is no special token."""
LONGEST = {10: 19, 64: 127}
"""Mean answer in tokens, and the longest; lengths are spread evenly from 1 on."""


@dataclass
class Countdown:
    """A layout whose last prompt token says how long the answer is (see :func:`counting`)."""

    extractors: tuple[str, ...] = ()

    def prompt(self, problem: Encoded, tokens: LatentTokens, stage: int, num_slots: int | None = None) -> Laid:
        """Question, slots between their markers, and the first token of the answer."""
        parts = [
            (Role.QUESTION, problem.question, False),
            (Role.START, (tokens.start,), False),
            (Role.LATENT, (tokens.latent,) * (num_slots or 0), False),
            (Role.END, (tokens.end,), False),
            (Role.ANSWER, problem.answer, False),
        ]
        return lay(problem, parts, (None,) * (num_slots or 0))

    def sequence(self, problem: Encoded, tokens: LatentTokens, stage: int) -> Laid:
        """The prompt; nothing is trained here."""
        return self.prompt(problem, tokens, stage, SLOTS)

    def writes_first(self) -> bool:
        """Nothing is written before thinking."""
        return False

    def gap(self, stage: int) -> int:
        """No position is left free."""
        return 0

    def slots_when_said(self, stage: int) -> int:
        """Slots stand in the prompt."""
        return 0

    def plain(self, ids: list[int]) -> list[int]:
        """All of a reply."""
        return ids

    def columns(self, problem: Encoded, ids: list[int]) -> dict[str, Any]:
        """Nothing."""
        return {}

    def num_slots_for(self, chain: int, stage: int) -> int:
        """Always as many."""
        return SLOTS


def counting(machine: Machine) -> Backbone:
    """A model of the mini size that counts down: after token ``t`` it writes ``t - 1``, at last the end-of-text token.

    So every row stops when its question says, at the full cost of every block: their outputs are multiplied by zero at the
    end, which takes as long as any other number. The tokenizer knows fewer tokens than the model has rows, which stay unused.
    """
    tokenizer = digit_tokenizer(Arithmetic(train_size=300).load("train"), machine.vocabulary)
    made: Any = model(*machine.mini, machine.vocabulary)
    rows = made.transformer.wte.weight
    head = torch.nn.Linear(rows.shape[1], len(rows), bias=False)
    with torch.no_grad():
        made.transformer.wpe.weight.zero_()
        for block in made.transformer.h:
            for last in (block.attn.c_proj, block.mlp.c_proj):
                last.weight.zero_()
        rows.normal_()
        head.weight.zero_()
        head.weight[FIRST : len(tokenizer) - 1] = rows[FIRST + 1 : len(tokenizer)]
        head.weight[tokenizer.eos_token_id] = rows[FIRST]
    made.config.tie_word_embeddings = False
    made.set_output_embeddings(head)
    return Backbone(made.to(machine.device), tokenizer, marker_ids(tokenizer))


def questions(backbone: Backbone, mean: int) -> list[Encoded]:
    """500 questions of 40 to 100 tokens with answers of ``mean`` tokens on average, the two lengths independent of each other."""
    rng = random.Random(mean)
    made = []
    for number in range(QUESTIONS):
        question = tuple(rng.randrange(FIRST, len(backbone.tokenizer)) for _ in range(rng.randint(40, 100)))
        made.append(Encoded(str(number), question, (), (FIRST + number % LONGEST[mean],)))
    return made


def length(problem: Encoded) -> int:
    """Tokens of the answer to a question, the end-of-text token included."""
    return problem.answer[0] - FIRST + 1


def solver_of(backbone: Backbone) -> Solver:
    """The evaluation that tasks use."""
    reasoner = LatentReasoner(backbone.model, backbone.tokens).eval()
    return Solver(reasoner, backbone, Countdown(), stage=1, num_slots=SLOTS, max_new_tokens=max(LONGEST.values()) + 1)


@torch.no_grad()
def one_at_a_time(solver: Solver, problems: Sequence[Encoded]) -> list[int]:
    """Tokens of each answer, made as the published code does: thoughts over a cache, then the whole sequence for every token."""
    whole, tokens = solver.backbone.model, solver.backbone.tokens
    embed = whole.get_input_embeddings()
    written = []
    for problem in problems:
        ids = torch.tensor([solver.layout.prompt(problem, tokens, 1, solver.num_slots).ids], device=whole.device)
        embeds = embed(ids)
        embeds[ids == tokens.latent] = solver.reasoner(ids).thoughts[0]
        count, new = 0, -1
        while new != solver.backbone.tokenizer.eos_token_id and count < solver.max_new_tokens:
            logits: Tensor = whole(inputs_embeds=embeds, use_cache=False).logits
            new, count = int(logits[0, -1].argmax()), count + 1
            embeds = torch.cat([embeds, embed(ids.new_tensor([[new]]))], dim=1)
        written.append(count)
    return written


def few(problems: Sequence[Encoded], count: int) -> tuple[list[Encoded], float]:
    """``count`` of the problems, with answers of all lengths as in the whole, and how many times more tokens all have written."""
    every = len(problems) // count
    some = sorted(problems, key=length)[every // 2 :: every][:count]
    return some, sum(map(length, problems)) / sum(map(length, some))


def answering_cases(machine: Machine) -> Iterator[Case]:
    """How many times faster 500 questions are answered than one at a time."""
    for mean, bar in ((10, 20.0), (64, 35.0)):
        yield answering_case(machine, mean, bar)


def answering_case(machine: Machine, mean: int, bar: float) -> Case:
    """The same for answers of ``mean`` tokens."""

    def measure(name: str, n: int) -> Row:
        solver = solver_of(counting(machine))
        problems = questions(solver.backbone, mean)
        some, share = few(problems, SAMPLED[mean])

        def ours() -> None:
            solver.replies(problems)
            done(machine.device)

        def theirs() -> None:
            one_at_a_time(solver, some)
            done(machine.device)

        solver.replies(problems[:64]), one_at_a_time(solver, some[:1])
        pairs = [(timed(ours), share * timed(theirs)) for _ in range(n)]
        return row_of(name, [slow / fast for fast, slow in pairs], bar, is_speedup=True)

    return Case(f"{QUESTIONS} questions, answers of about {mean} tokens: times faster than one at a time", measure)
