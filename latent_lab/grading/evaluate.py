"""Free-running evaluation: a reasoner answers problems by itself, in batches, and every answer is graded.

Problem -> prompt (question, markers, a fixed number of slots) -> latent loop and greedy decoding -> grade. Nothing of the gold
chain reaches the prompt. The controls are the same model on the same problems with its thoughts removed or replaced.
"""

from collections.abc import Callable, Iterator
from collections.abc import Sequence as Seq
from dataclasses import astuple, dataclass, field, replace
from itertools import groupby
from typing import Any, Protocol

import torch
from accelerate.utils import gather_object
from torch import Tensor
from transformers import LogitsProcessor

from latent_lab.backbone import MARKERS, Backbone
from latent_lab.batching import Batch, collate
from latent_lab.grading.answers import REASONS, TOO_LONG, Equivalence, Grading, digits_right, is_integer, normalise
from latent_lab.grading.calculator import Calculator, Vocabulary
from latent_lab.grading.interleaved import in_place, thought_through
from latent_lab.grading.options import Options, likeliest
from latent_lab.grading.statistics import mean_interval, wilson
from latent_lab.problems import Problem
from latent_lab.problems.arithmetic import sum_asked
from latent_lab.progress import progress
from latent_lab.reasoner import LatentReasoner, ThoughtEdit
from latent_lab.sequences import IGNORE, Encoded, LatentTokens, Sequence, join

CONTROLS = {
    "removed": "the slots are left out of the prompt",
    "zeroed": "each thought is replaced by the zero vector",
    "another_problem": "each thought is replaced by another problem's",
}
"""Controls by name, and what they do to the thoughts; the model and the problems stay the same."""


DEFAULT = Grading()


class Layout(Protocol):
    """What evaluation needs of a stage."""

    def prompt(self, problem: Encoded, tokens: LatentTokens, stage: int, num_slots: int | None = None) -> Sequence:
        """Question and what stands before the answer; nothing of the gold chain."""
        ...

    def writes_first(self) -> bool:
        """Whether the model writes steps before it begins to think."""
        ...

    def slots_when_said(self, stage: int) -> int:
        """Slots that follow wherever the model itself writes that it thinks; 0: prompts have theirs from the start."""
        ...

    def gap(self, stage: int) -> int:
        """Positions that a prompt leaves free before the last token of its question."""
        ...

    def num_slots_for(self, chain: int, stage: int) -> int:
        """Slots that a chain of so many steps would fill at a stage."""
        ...

    @property
    def extractors(self) -> tuple[str, ...]:
        """Rules that find the answer in what is written."""
        ...

    def sequence(self, problem: Encoded, tokens: LatentTokens, stage: int) -> Sequence:
        """The training layout at a stage, gold chain and all."""
        ...

    def plain(self, ids: list[int]) -> list[int]:
        """What of a reply is graded."""
        ...

    def columns(self, problem: Encoded, ids: list[int]) -> dict[str, Any]:
        """What is noted of a reply beside its grade."""
        ...


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model wrote for one problem."""

    id: str
    text: str
    num_tokens: int
    """Tokens written, the end-of-text token included."""
    num_thoughts: int
    stopped: bool
    """Whether it ended by itself; False: it was cut off at ``max_new_tokens``."""
    is_too_long: bool = False
    """Whether the problem does not fit into the model's positions; it was not asked then."""
    columns: dict[str, Any] = field(default_factory=dict)
    """What the layout notes of it."""


@dataclass
class Solver:
    """A trained reasoner with all that is needed to let it answer."""

    reasoner: LatentReasoner
    backbone: Backbone
    layout: Layout
    stage: int
    num_slots: int
    max_new_tokens: int
    batch_size: int = 256
    rank: int = 0
    world: int = 1

    thoughts_by: str = "fixed"
    """What decides how many slots a prompt has: ``fixed`` (``num_slots``), the ``model`` (until it says that it has thought
    enough, at most ``num_slots``), or ``gold_chain_leak``; see ``task.thoughts``."""
    grading: Grading | None = None
    """How answers are graded; None: as the layout says where they stand, and exactly."""
    calculator: Vocabulary | None = None
    """What writes the results of steps for the model; None: nothing does."""
    processor: Callable[[Batch], LogitsProcessor] | None = None
    """What else has a say in each token of a batch of prompts."""
    options: dict[str, Options] = field(default_factory=dict)
    """By problem id the answers to choose from; where there are any, a reply notes the likeliest of them."""

    @property
    def controls(self) -> tuple[str, ...]:
        """The controls that make sense for this model: nothing is fed into pause tokens, and who says when cannot do without."""
        if not self.num_slots:
            return ()
        if self.layout.slots_when_said(self.stage):
            return ("zeroed", "another_problem")
        return ("removed",) if self.reasoner.loop.feeds == "tokens" else tuple(CONTROLS)

    @property
    def rules(self) -> Grading:
        """How answers are graded."""
        return self.grading or Grading(self.layout.extractors)

    @property
    def room(self) -> int:
        """Positions the model has, its first and last token included."""
        return self.backbone.room

    def fits(self, problem: Encoded) -> bool:
        """Whether the model has positions for a problem's prompt and one token more."""
        return self._length(problem) <= self.room

    def _length(self, problem: Encoded) -> int:
        """Positions up to the first token after a problem's prompt."""
        return len(problem.question) + self.layout.gap(self.stage) + self.num_slots + len(MARKERS)

    def slots_of(self, problems: Seq[Encoded], control: str | None = None) -> list[int]:
        """Latent slots of each problem's prompt, one batch."""
        if control == "removed":
            return [0] * len(problems)
        if self.thoughts_by == "gold_chain_leak":
            return [min(self.num_slots, self.layout.num_slots_for(len(p.steps), self.stage)) for p in problems]
        if self.thoughts_by == "model" and self.num_slots:
            return self.slots_until_stop(problems)
        return [self.num_slots] * len(problems)

    @torch.no_grad()
    def slots_until_stop(self, problems: Seq[Encoded]) -> list[int]:
        """After how many thoughts the model first says that it has thought enough, one batch.

        The state before slot k depends on nothing after it, so one run with all slots shows what it would say at each.
        """
        prompts = [self.layout.prompt(p, self.backbone.tokens, self.stage, self.num_slots) for p in problems]
        batch = collate(prompts, self.backbone.pad).to(self.reasoner.device)
        end = self.backbone.tokens.end
        asked = (batch.input_ids == self.backbone.tokens.latent) | (batch.input_ids == end)
        labels = batch.input_ids.masked_fill(~asked, IGNORE)
        out = self.reasoner(batch.input_ids, batch.attention_mask, labels, is_closed=batch.is_closed)
        says_stop = (out.logits.argmax(-1) == end).view(len(problems), self.num_slots + 1)
        says_stop[:, -1] = True
        return says_stop.int().argmax(1).tolist()

    def replies(self, problems: Seq[Encoded], control: str | None = None, *, quiet: bool = True) -> list[Reply]:
        """Answer every problem once, in their order; the work is shared by all processes and each gets all replies."""
        ordered = sorted((p for p in problems if self.fits(p)), key=lambda p: (len(p.question), p.id))
        # Each with its donor for ``another_problem``: a neighbour, whatever the batches and processes.
        mine = list(zip(ordered, ordered[-1:] + ordered[:-1], strict=True))[self.rank :: self.world]
        written: list[Reply] = []
        with progress("answering", len(mine), unit="problems", is_main=self.rank == 0 and not quiet) as advance:
            for part in self._parts(mine):
                written += self._answer([p for p, _ in part], [donor for _, donor in part], control)
                advance(len(part))
        if self.world > 1:
            written = gather_object(written)
        too_long = [p for p in problems if not self.fits(p)]
        written += [Reply(p.id, "", 0, 0, stopped=True, is_too_long=True, columns=self.layout.columns(p, [])) for p in too_long]
        by_id = {reply.id: reply for reply in written}
        if len(written) != len(problems) or len(by_id) != len(problems):
            raise RuntimeError(
                f"{len(written)} replies to {len(by_id)} ids for {len(problems)} problems: each must be answered once"
            )
        return [by_id[p.id] for p in problems]

    def graded(
        self, problems: Seq[Problem], encoded: Seq[Encoded], control: str | None = None, *, quiet: bool = True
    ) -> list[dict[str, Any]]:
        """A graded row for each problem, in their order; ``encoded`` are the same problems."""
        replies = self.replies(encoded, control, quiet=quiet)
        return [grade(p, r, self.rules) for p, r in zip(problems, replies, strict=True)]

    def prompts(self, problems: Seq[Encoded], control: str | None = None, given: Tensor | None = None) -> list[Sequence]:
        """Prompts of one batch; what the layout has written before or between thoughts, the model writes now.

        What it writes between them it writes with the thoughts ``given``, if any are.
        """
        tokens = self.backbone.tokens
        if each := self.layout.slots_when_said(self.stage):
            return thought_through(self, problems, each, given)
        if self.layout.writes_first():
            questions = collate([join(p, None, with_target=False) for p in problems], self.backbone.pad).to(self.reasoner.device)
            ends = [self.backbone.tokenizer.eos_token_id, tokens.start]
            new = self.generate(questions, ends, None).tolist()
            before = [row[: min((row.index(e) for e in ends if e in row), default=len(row))] for row in new]
            left = self.room - self.num_slots - len(MARKERS)  # a model that does not stop must leave room to think and answer
            problems = [replace(p, question=(*p.question, *b)[:left]) for p, b in zip(problems, before, strict=True)]
        slots = self.slots_of(problems, control)
        return [self.layout.prompt(p, tokens, self.stage, n) for p, n in zip(problems, slots, strict=True)]

    def gold_texts(self, problem: Encoded) -> list[str | None]:
        """What each slot of a prompt stands for: a step, empty past the chain's end, None where a later slot has the step."""
        texts = self.layout.sequence(problem, self.backbone.tokens, self.stage).slot_texts[: self.num_slots]
        return [self.text(t) if t else None for t in texts] + [""] * (self.num_slots - len(texts))

    def text(self, ids: Seq[int]) -> str:
        """First line of what the tokens up to the end-of-text token say."""
        end = self.backbone.tokenizer.eos_token_id
        ids = list(ids)
        return str(self.backbone.tokenizer.decode(ids[: ids.index(end)] if end in ids else ids)).split("\n")[0]

    @torch.no_grad()
    def thoughts(self, problems: Seq[Encoded]) -> Tensor:
        """``[problems, slots, width]``: what the model thinks at its prompts, one batch."""
        batch = collate(self.prompts(problems), self.backbone.pad).to(self.reasoner.device)
        return self.reasoner(batch.input_ids, batch.attention_mask, is_closed=batch.is_closed).thoughts

    def _parts(self, pairs: Seq[tuple[Encoded, Encoded]]) -> Iterator[Seq[tuple[Encoded, Encoded]]]:
        """Batches of problems with their donors, in order of length. Room for a whole answer, or all of them as much room.

        A batch is cut off where its longest problem has no positions left: that must not cut off the others.
        """

        def lacking(pair: tuple[Encoded, Encoded]) -> int:
            return max(self._length(pair[0]) + self.max_new_tokens - self.room, 0)

        for _, group in groupby(pairs, key=lacking):
            yield from evenly(list(group), self.batch_size)

    def _answer(self, problems: Seq[Encoded], donors: Seq[Encoded], control: str | None) -> list[Reply]:
        # A donor thinks in as many slots as the problem it gives its thoughts to: only the question is its own.
        given = self._given([replace(p, question=donor.question) for p, donor in zip(problems, donors, strict=True)], control)
        prompts = self.prompts(problems, control, given)
        batch = collate(prompts, self.backbone.pad).to(self.reasoner.device)
        eos = self.backbone.tokenizer.eos_token_id
        new = self.generate(batch, [eos], in_place(given)).tolist()
        replies = []
        for problem, prompt, row in zip(problems, prompts, new, strict=True):
            # Steps the model wrote before it thought stand in the prompt, and are part of what it wrote.
            before = prompt.ids[len(problem.question) :]
            first = [i for i in before if i not in astuple(self.backbone.tokens)]
            stopped = eos in row
            row = row[: row.index(eos)] if stopped else row
            written = [*first, *row]
            text = self.backbone.tokenizer.decode(self.layout.plain(written))
            noted = self.layout.columns(problem, [*before, *row])
            replies.append(Reply(problem.id, text, len(written) + stopped, prompt.num_slots, stopped, columns=noted))
        if self.options and control is None:
            rows = [row[: row.index(eos)] if eos in row else row for row in new]
            chosen = likeliest(self, prompts, rows, [self.options.get(p.id, {}) for p in problems])
            replies = [replace(r, columns=r.columns | {"option": one}) for r, one in zip(replies, chosen, strict=True)]
        return replies

    def generate(self, batch: Batch, ends: list[int], edit: ThoughtEdit | None) -> Tensor:
        """The ids a batch of prompts is continued with, greedily, until one of ``ends`` or as far as there is room."""
        processors = [
            *([Calculator(self.calculator)] if self.calculator else []),
            *([self.processor(batch)] if self.processor else []),
        ]
        tool: dict[str, Any] = {"logits_processor": processors} if processors else {}
        return self.reasoner.generate(
            batch.input_ids,
            batch.attention_mask,
            batch.position_ids,
            max_new_tokens=max(min(self.max_new_tokens, self.room - batch.num_positions), 1),
            eos_token_id=ends,
            pad_token_id=self.backbone.pad,
            edit=edit,
            is_closed=batch.is_closed,
            **tool,
        )

    def _given(self, donors: Seq[Encoded], control: str | None) -> Tensor | None:
        """``[batch, slots, width]``: thoughts that a control puts in place of the model's own; None: it keeps them."""
        nothing = torch.zeros(len(donors), 1, self.backbone.model.config.hidden_size, device=self.reasoner.device)
        if control == "zeroed":
            return nothing
        if control == "another_problem":
            thoughts = self.thoughts(donors)
            return thoughts if thoughts.shape[1] else nothing
        return None


def evenly(items: Seq[Any], most: int) -> list[Seq[Any]]:
    """Cut into as few parts of at most ``most`` as possible, all about equally long."""
    count = -(-len(items) // most)
    return [items[len(items) * i // count : len(items) * (i + 1) // count] for i in range(count)]


def grade(problem: Problem, reply: Reply, grading: Grading = DEFAULT) -> dict[str, Any]:
    """Grade one reply; the row that goes to ``samples.jsonl``. ``correct`` is None where it is unscored, for a ``reason``."""
    verdict = grading.verdict(reply.text, problem.answer, truncated=not reply.stopped)
    reason = TOO_LONG if reply.is_too_long else verdict.reason
    gold = normalise(problem.answer)
    known = sum_asked(problem.question) | problem.meta  # a file of sums does not say how many digits and carries they have
    return {
        "id": problem.id,
        "question": problem.question,
        "gold": problem.answer,
        "output": reply.text,
        "answer": verdict.answer,
        "extractor": verdict.extractor,
        "status": verdict.status,
        "reason": reason,
        "correct": verdict.correct,
        "digits_right": digits_right(verdict.answer or "", gold) if is_integer(gold) else None,
        "stopped": reply.stopped,
        "truncated": verdict.truncated,
        "tokens": reply.num_tokens,
        "thoughts": reply.num_thoughts,
        "steps": len(problem.steps),
        **{key: known[key] for key in ("digits", "carries", "kind") if key in known},
        **reply.columns,
    }


def rate(rows: Seq[dict[str, Any]]) -> dict[str, Any]:
    """Share of correct answers with its Wilson interval; what is unscored is not correct."""
    return wilson(sum(row["correct"] is True for row in rows), len(rows)).as_dict()


def by(rows: Seq[dict[str, Any]], key: str) -> dict[str, Any]:
    """The rate within each value of a column."""
    return {str(value): rate([r for r in rows if r.get(key) == value]) for value in sorted({r[key] for r in rows if key in r})}


def summary(rows: Seq[dict[str, Any]]) -> dict[str, Any]:
    """What the graded rows amount to: accuracy of all and of the scored, digits, failures of form, cost, and the breakdowns."""
    digits = [row["digits_right"] for row in rows if row["digits_right"] is not None]
    count = max(len(rows), 1)
    return {
        "accuracy": rate(rows),
        "accuracy_of_scored": rate([row for row in rows if row["correct"] is not None]),
        "unscored": {reason: sum(row["reason"] == reason for row in rows) for reason in REASONS},
        "digits_right": mean_interval(digits).as_dict() if digits else None,
        "no_answer": sum(row["answer"] is None for row in rows),
        "not_stopped": sum(not row["stopped"] for row in rows),
        "tokens_per_answer": sum(row["tokens"] for row in rows) / count,
        "thoughts_per_answer": sum(row["thoughts"] for row in rows) / count,
        **{f"by_{key}": by(rows, key) for key in ("steps", "digits", "carries", "kind") if any(key in row for row in rows)},
    }


def majority(answer: str | None, problems: Seq[Problem], equivalence: Equivalence = DEFAULT.equivalence) -> dict[str, Any]:
    """What always giving the training split's most frequent answer would score."""
    right = sum(answer is not None and equivalence.same(answer, p.answer) is True for p in problems)
    return wilson(right, len(problems)).as_dict()


@torch.no_grad()
def teacher_forced(solver: Solver, sequences: Seq[Sequence]) -> dict[str, Any]:
    """Share of problems whose every labelled token is the likeliest one *given the gold tokens before it*.

    The figure published for Coconut-like models during training; it is told where the answer ends and is no accuracy.
    """
    right = 0
    for part in evenly([s for s in sequences if len(s.ids) + s.gap <= solver.room], solver.batch_size):
        batch = collate(part, solver.backbone.pad).to(solver.reasoner.device)
        given = (batch.input_ids, batch.attention_mask, batch.labels, batch.position_ids)
        out = solver.reasoner(*given, is_closed=batch.is_closed)
        hits = out.logits.argmax(-1) == out.targets
        right += sum(bool(row.all()) for row in hits.split((batch.labels != IGNORE).sum(1).tolist()))
    return wilson(right, len(sequences)).as_dict()


def floors(solver: Solver, encoded: Seq[Encoded], problems: Seq[Problem], majority_answer: str | None) -> dict[str, Any]:
    """What an accuracy must be held against: the majority answer, and the same model without its own thoughts."""
    scores = {"majority": majority(majority_answer, problems, solver.rules.equivalence)}
    for control in solver.controls:
        scores[f"thoughts_{control}"] = rate(solver.graded(problems, encoded, control))
    return scores


def in_words(result: dict[str, Any]) -> str:
    """A result in one line for the terminal."""

    def shown(score: dict[str, Any]) -> str:
        return f"{100 * score['value']:.1f}% [{100 * score['low']:.1f}, {100 * score['high']:.1f}]"

    beside = ", ".join(f"{name.replace('_', ' ')} {100 * score['value']:.1f}%" for name, score in result["floors"].items())
    unscored = ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in result.get("unscored", {}).items() if count)
    said = f"accuracy {shown(result['accuracy'])} of {result['accuracy']['n']} ({result['split']}); floors: {beside}"
    return f"{said}; unscored: {unscored}" if unscored else said
