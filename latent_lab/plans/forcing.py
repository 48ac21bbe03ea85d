"""A say in which planning tokens are written: the gold plan's (an oracle, no ability), any in whole blocks, or some by chance."""

from collections.abc import Mapping
from collections.abc import Sequence as Seq
from itertools import pairwise

import torch
from torch import Tensor
from transformers import LogitsProcessor

from latent_lab.calls.sampling import Drawn
from latent_lab.grading.calculator import Vocabulary
from latent_lab.plans.base import ANSWER
from latent_lab.plans.layout import Blocks
from latent_lab.sequences import Encoded

FIRST, LINE, TEXT = range(3)
"""What was written so far: nothing, a line, something else; one state more for each planning token."""


class GoldPlan(LogitsProcessor):
    """Leaves one choice at the beginning of each line until its block is written, and no planning token anywhere else.

    Lines are counted from the question's end, so a prompt may hold some already. A line that the gold chain does not have begins
    with nothing. One object serves one call of ``generate``.
    """

    def __init__(self, ids: Seq[str], problems: Mapping[str, Encoded], planned: Seq[int], vocabulary: Vocabulary) -> None:
        self.problems = [problems[i] for i in ids]
        self.planned, self.vocabulary = list(planned), vocabulary
        self.start: int | None = None
        self.before: list[int] = []  # lines that prompts hold
        self.since: list[int] = []  # tokens of the line that each prompt ends in

    def keep(self, rows: Seq[int]) -> None:
        """Go on with these rows alone."""
        self.problems = [self.problems[row] for row in rows]
        if self.start is not None:
            self.before, self.since = ([each[row] for row in rows] for each in (self.before, self.since))

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """``[rows, tokens]`` so far and ``[rows, vocabulary]`` scores of the next token to scores."""
        if self.start is None:
            self.start = input_ids.shape[1]
            self.breaks = self.vocabulary.having(r"\n", scores.shape[1]).to(scores.device)
            there = self.breaks[input_ids]
            asked = [int(self.breaks[list(p.question)].sum()) for p in self.problems]
            self.before = [lines - of_question for lines, of_question in zip(there.sum(1).tolist(), asked, strict=True)]
            self.since = (there.flip(1).cumsum(1) == 0).sum(1).tolist()
        new = input_ids[:, self.start :]
        ends = self.breaks[new]
        for row, problem in enumerate(self.problems):
            fresh = int(ends[row].sum())
            lines = self.before[row] + fresh
            block = problem.plans[lines] if lines < len(problem.plans) else ()
            done = new.shape[1] - (int(ends[row].nonzero()[-1]) + 1) if fresh else self.since[row] + new.shape[1]
            if done < len(block):
                scores[row] = torch.full_like(scores[row], -torch.inf)
                scores[row, block[done]] = 0.0
            else:
                scores[row, self.planned] = -torch.inf
        return scores


class WholeBlocks(LogitsProcessor):
    """Lets planning tokens be written in whole blocks alone, where lines begin; which kinds they name is the model's choice.

    A line begins with a block wherever training had one before every line. What may follow depends on the last token alone, so it
    holds for batches, samples and beams alike. One object serves one call of ``generate``.
    """

    def __init__(self, blocks: Blocks, planned: Seq[int], vocabulary: Vocabulary) -> None:
        self.blocks, self.planned, self.vocabulary = blocks, list(planned), vocabulary
        self.start: int | None = None

    def keep(self, rows: Seq[int]) -> None:
        """Go on with these rows alone: nothing is remembered of a row but what stands in it."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """``[rows, tokens]`` so far and ``[rows, vocabulary]`` scores of the next token to scores."""
        if self.start is None:
            self.start = input_ids.shape[1]
            self.state_of, self.may_follow = (t.to(scores.device) for t in self._table(scores.shape[1]))
        is_first = input_ids.shape[1] == self.start
        state = torch.full_like(input_ids[:, -1], FIRST) if is_first else self.state_of[input_ids[:, -1]]
        return scores.masked_fill(~self.may_follow[state], -torch.inf)

    def _table(self, size: int) -> tuple[Tensor, Tensor]:
        """``[vocabulary]``, the state that a token leads to, and ``[states, vocabulary]``, what may come next in each."""
        names = self.blocks.tokens()
        id_of = dict(zip(names, self.planned, strict=True))
        state_of = torch.where(self.vocabulary.having(r"\n", size), LINE, TEXT)
        state_of[self.planned] = torch.arange(len(names)) + TEXT + 1
        is_text = torch.ones(size, dtype=torch.bool)
        is_text[self.planned] = False
        may_follow = torch.zeros(TEXT + 1 + len(names), size, dtype=torch.bool)
        after = follows(self.blocks)
        for state, (allowed, may_be_text) in enumerate([after[""], after["line"], ((), True), *(after[name] for name in names)]):
            may_follow[state, [id_of[name] for name in allowed]] = True
            may_follow[state] |= is_text & may_be_text
        return state_of, may_follow


class DrawnAmong(Drawn):
    """Draws a token wherever the likeliest is one of ``among``, and one of these; the rest is left as it is."""

    def __init__(self, seeds: Seq[int], temperature: float, top_p: float, among: Seq[int]) -> None:
        super().__init__(seeds, [temperature] * len(seeds), top_p)
        self.among = list(among)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """``[rows, tokens]`` so far and ``[rows, vocabulary]`` scores of the next token to scores."""
        is_among = torch.zeros(scores.shape[-1], dtype=torch.bool, device=scores.device)
        is_among[self.among] = True
        drawn = super().__call__(input_ids, scores.masked_fill(~is_among, -torch.inf))
        return torch.where(is_among[scores.argmax(-1)][:, None], drawn, scores.float())


def follows(blocks: Blocks) -> dict[str, tuple[tuple[str, ...], bool]]:
    """After each token of a block, and at the beginning of all (``""``) and of a ``line``: planning tokens, and whether text may.

    Only the kind of the answer stands alone; other kinds may follow one another. Where blocks stand apart from the text (or the
    answer has none), a line may also begin without one.
    """
    plan, prefix = blocks.plan, blocks.prefix()
    kinds = blocks.kinds()
    first = tuple(blocks.group(kind)[0] for kind in kinds)
    steps = tuple(blocks.group(kind)[0] for kind in kinds if kind != ANSWER)
    found: dict[str, tuple[tuple[str, ...], bool]] = {}
    for name, after in pairwise(prefix):
        found[name] = ((after,), False)
    if prefix:
        found[prefix[-1]] = (first, not first or not plan.assignment)
    for kind in kinds:
        group = blocks.group(kind)
        for name, after in pairwise(group):
            found[name] = ((after,), False)
        found[group[-1]] = (() if kind == ANSWER else steps, True)
    begins = prefix[:1] or first
    may_lack = blocks.place == "plan_only" or not blocks.answer or (not prefix and not plan.assignment)
    found[""] = (begins, may_lack and blocks.place != "front")
    found["line"] = ((), True) if blocks.place == "front" else (begins, may_lack)
    return found
