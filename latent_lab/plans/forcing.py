"""The gold plan given to the model: its tokens are written for it, and it writes the steps (an oracle, and no ability)."""

from collections.abc import Mapping
from collections.abc import Sequence as Seq

import torch
from torch import Tensor
from transformers import LogitsProcessor

from latent_lab.grading.calculator import Vocabulary
from latent_lab.sequences import Encoded


class GoldPlan(LogitsProcessor):
    """Leaves one choice at the beginning of each line until its block is written, and no planning token anywhere else.

    A line that the gold chain does not have begins with nothing. One object serves one call of ``generate``.
    """

    def __init__(self, ids: Seq[str], problems: Mapping[str, Encoded], planned: Seq[int], vocabulary: Vocabulary) -> None:
        self.problems = [problems[i] for i in ids]
        self.planned, self.vocabulary = list(planned), vocabulary
        self.start: int | None = None

    def keep(self, rows: Seq[int]) -> None:
        """Go on with these rows alone."""
        self.problems = [self.problems[row] for row in rows]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """``[rows, tokens]`` so far and ``[rows, vocabulary]`` scores of the next token to scores."""
        if self.start is None:
            self.start = input_ids.shape[1]
            self.breaks = self.vocabulary.having(r"\n", scores.shape[1]).to(scores.device)
        new = input_ids[:, self.start :]
        ends = self.breaks[new]
        for row, problem in enumerate(self.problems):
            lines = int(ends[row].sum())
            block = problem.plans[lines] if lines < len(problem.plans) else ()
            done = new.shape[1] - (int(ends[row].nonzero()[-1]) + 1 if lines else 0)
            if done < len(block):
                scores[row] = torch.full_like(scores[row], -torch.inf)
                scores[row, block[done]] = 0.0
            else:
                scores[row, self.planned] = -torch.inf
        return scores
