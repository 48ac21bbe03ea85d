"""A run of this laboratory that answers requests: question, slots if any, what the reply begins with, and sampling."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from latent_lab.backbone import ModelError
from latent_lab.batching import collate
from latent_lab.calls.client import Completion, Request
from latent_lab.calls.local import no_room, parts, seed_of
from latent_lab.calls.reply import Usage
from latent_lab.calls.sampling import Drawn
from latent_lab.config import EvalConfig
from latent_lab.grading.evaluate import Solver
from latent_lab.grading.session import solver_of, trained_config
from latent_lab.grading.task import Answers
from latent_lab.problems import Problem
from latent_lab.run import accelerator
from latent_lab.sequences import IGNORE, Role
from latent_lab.sequences import Sequence as Laid


@dataclass
class Lab:
    """A trained run, ready to reply."""

    solver: Solver
    stage: Any
    """How problems are laid out."""
    temperature: float
    seed: int
    max_tokens: int

    def answer(self, requests: Sequence[Request]) -> list[Completion]:
        """Answer requests, whose last message is the question; a limit ends where the model's positions do."""
        prompts = self.prompts(requests)
        ids = [list(prompt.ids) for prompt in prompts]
        room = self.solver.room
        limits = [min(each.max_tokens or self.max_tokens, room - len(row)) for each, row in zip(requests, ids, strict=True)]
        done = {i: no_room(len(ids[i]), room - 1) for i, limit in enumerate(limits) if limit < 1}
        fitting = sorted((i for i in range(len(ids)) if i not in done), key=lambda i: (limits[i], len(ids[i]), i))
        for part in parts(fitting, ids, limits, len(requests), room):
            seeds = [seed_of(self.seed + requests[i].sample, ids[i]) for i in part]
            new = self._continue([prompts[i] for i in part], max(limits[i] for i in part), seeds)
            done |= {i: self._completion(len(ids[i]), row[: limits[i]]) for i, row in zip(part, new, strict=True)}
        return [done[i] for i in range(len(ids))]

    def prompts(self, requests: Sequence[Request]) -> list[Laid]:
        """Each question laid out as the stage does, and what the reply begins with after it."""
        tokenizer, tokens = self.solver.backbone.tokenizer, self.solver.backbone.tokens
        problems = [Problem(str(i), each.messages[-1]["content"], (), "") for i, each in enumerate(requests)]
        laid = [
            self.stage.prompt(each, tokens, self.solver.stage, self.solver.num_slots)
            for each in self.stage.encode(problems, tokenizer)
        ]
        begun = [each.prefix for each in requests]
        more = tokenizer(begun, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return [with_begun(prompt, ids) for prompt, ids in zip(laid, more, strict=True)]

    @torch.no_grad()
    def _continue(self, prompts: Sequence[Laid], max_tokens: int, seeds: Sequence[int]) -> list[list[int]]:
        backbone, reasoner = self.solver.backbone, self.solver.reasoner
        batch = collate(prompts, backbone.pad).to(reasoner.device)
        sampled: dict[str, Any] = (
            {"logits_processor": [Drawn(seeds, self.temperature)], "use_cache": True} if self.temperature else {}
        )
        new: list[list[int]] = reasoner.generate(
            batch.input_ids,
            batch.attention_mask,
            max_new_tokens=max_tokens,
            eos_token_id=[backbone.tokenizer.eos_token_id],
            pad_token_id=backbone.pad,
            is_closed=batch.is_closed,
            **sampled,
        ).tolist()
        return new

    def _completion(self, prompt: int, new: list[int]) -> Completion:
        eos = self.solver.backbone.tokenizer.eos_token_id
        stopped = eos in new
        written = new[: new.index(eos)] if stopped else new
        text = str(self.solver.backbone.tokenizer.decode(written))
        return Completion(text, None, "stop" if stopped else "length", Usage(prompt, 0, len(written) + stopped, 0))


def with_begun(prompt: Laid, ids: Sequence[int]) -> Laid:
    """A prompt with what the reply begins with."""
    count = len(ids)
    labels, roles = (*prompt.labels, *(IGNORE,) * count), (*prompt.roles, *(Role.STEP,) * count)
    return replace(prompt, ids=(*prompt.ids, *ids), labels=labels, roles=roles)


def load(config: EvalConfig, temperature: float, seed: int, max_tokens: int) -> Lab:
    """Load the run that ``config`` names; ModelError for one that writes before or between its thoughts."""
    trained = trained_config(config.run_folder)
    with accelerator(config.device, config.precision) as at:
        solver, _, _ = solver_of(config.run_folder, trained, at, config.batch_size, Answers())
    if trained.stage.writes_first() or trained.stage.slots_when_said(solver.stage):
        raise ModelError(
            f"run: {config.run} writes steps before it thinks; allowed: runs that write after their slots or have none"
        )
    return Lab(solver, trained.stage, temperature, seed, max_tokens)
