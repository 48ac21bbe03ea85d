"""A run of this laboratory that answers requests: question, slots if any, what the reply begins with, and sampling."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from latent_lab.backbone import ModelError
from latent_lab.batching import collate
from latent_lab.calls.beginnings import Group, beginnings, pieces, spared, uncut
from latent_lab.calls.client import Completion, Request, TraceMemory
from latent_lab.calls.here import numbered
from latent_lab.calls.local import no_room, parts, seed_of
from latent_lab.calls.reply import Usage
from latent_lab.calls.sampling import sampled
from latent_lab.config import EvalConfig
from latent_lab.decoding import continued, reads_in_pieces
from latent_lab.deliberation.condensing import CONDENSED
from latent_lab.deliberation.recollection import AS_TEXT, Recollection
from latent_lab.grading.evaluate import Solver
from latent_lab.grading.session import solver_of, trained_config
from latent_lab.grading.task import Answers
from latent_lab.problems import Problem
from latent_lab.reasoner import ThoughtEdit
from latent_lab.run import accelerator
from latent_lab.sequences import Role, followed
from latent_lab.sequences import Sequence as Laid

UNTHOUGHT = Completion("", None, "length", Usage(0, 0, 0, 0))
"""What becomes of a request that leaves no token beside the thoughts."""


@dataclass
class Lab:
    """A trained run, ready to reply."""

    solver: Solver
    stage: Any
    """How problems are laid out."""
    temperature: float
    seed: int
    max_tokens: int
    """Longest answer in tokens; each thought counts as one."""
    top_p: float | None = None
    top_k: int | None = None

    def __post_init__(self) -> None:
        self.recollection = Recollection(self.solver, self.laid)

    @property
    def num_thoughts(self) -> int:
        """Thoughts of one attempt: one after another, each costs what a token costs, so each counts as one that is written."""
        return self.solver.num_slots if self.solver.reasoner.loop.feeds == "thoughts" else 0

    def answer(self, requests: Sequence[Request]) -> list[Completion]:
        """Answer requests, whose last message is the question; a limit ends where the model's positions do."""
        prompts = self.prompts(requests)
        ids = [list(prompt.ids) for prompt in prompts]
        room = self.solver.room
        asked = [(each.max_tokens or self.max_tokens) - self.num_thoughts for each in requests]
        limits = [min(limit, room - len(row) - prompt.gap) for limit, row, prompt in zip(asked, ids, prompts, strict=True)]
        done = {i: UNTHOUGHT if asked[i] < 1 else no_room(len(ids[i]), room - 1) for i, limit in enumerate(limits) if limit < 1}
        fitting = sorted((i for i in range(len(ids)) if i not in done), key=lambda i: (limits[i], len(ids[i]), i))
        for part in parts(fitting, ids, limits, len(requests), room):
            drawn = self._sampled([requests[i] for i in part], [ids[i] for i in part])
            places, kinds = numbered([(prompts[i].ids, requests[i].memory) for i in part])
            read = [part[place] for place in places]
            most = max(limits[i] for i in part)
            groups = uncut(len(read))
            if self._is_plain([prompts[i] for i in read]):
                groups = beginnings([ids[i] for i in read])
                new = self._continue_plain([ids[i] for i in read], groups, kinds, most, drawn)
            else:
                edit = self.recollection.edit([requests[i].memory for i in read])
                new = self._continue([prompts[i] for i in read], kinds, most, drawn, edit)
            filled = {i: len(ids[i]) - count for i, count in zip(read, spared(groups), strict=True)}
            for i, row in zip(part, new, strict=True):
                done[i] = self._completion(len(ids[i]), row[: limits[i]], filled.get(i, 0))
        return [done[i] for i in range(len(ids))]

    def prompts(self, requests: Sequence[Request]) -> list[Laid]:
        """Each question laid out as the stage does, and what the reply begins with after it."""
        slots = [self.recollection.num_kept(each.memory) + self.solver.num_slots for each in requests]
        laid = self.laid([each.messages[-1]["content"] for each in requests], slots)
        begun = [each.prefix for each in requests]
        more = self.solver.backbone.tokenizer(begun, **AS_TEXT)["input_ids"]
        return [followed(prompt, [(Role.STEP, tuple(ids), False)]) for prompt, ids in zip(laid, more, strict=True)]

    def laid(self, questions: Sequence[str], slots: Sequence[int]) -> list[Laid]:
        """Questions laid out, each with so many slots; a run that has none in its layout has them behind the question, bare."""
        backbone = self.solver.backbone
        encoded = self.stage.encode([Problem(str(i), text, (), "") for i, text in enumerate(questions)], backbone.tokenizer)
        laid = []
        for each, count in zip(encoded, slots, strict=True):
            prompt = self.stage.prompt(each, backbone.tokens, self.solver.stage, count)
            bare = count - prompt.num_slots
            laid.append(followed(prompt, [(Role.LATENT, (backbone.tokens.latent,) * bare, False)], (None,) * bare))
        return laid

    def condense(self, requests: Sequence[Request]) -> list[Completion]:
        """Make the vectors of traces that requests name as their memories; nothing is written, and each counts as a token."""
        memories = [each.memory for each in requests if isinstance(each.memory, TraceMemory)]
        read = self.recollection.readings(memories, self.recollection.traces(memories))
        room = self.solver.room
        self.recollection.recalled([each for each, laid in zip(memories, read, strict=True) if len(laid.ids) <= room])
        return [
            self._condensed(len(laid.ids), memory) if len(laid.ids) <= room else no_room(len(laid.ids), room)
            for laid, memory in zip(read, memories, strict=True)
        ]

    def _condensed(self, length: int, memory: TraceMemory) -> Completion:
        """What a memory took: what was read for it, and a token for each vector."""
        prompt = length - (memory.keep if memory.by == CONDENSED else 0)
        return Completion("", None, "stop", Usage(prompt, 0, memory.keep, memory.keep), prefilled=length)

    def _is_plain(self, prompts: Sequence[Laid]) -> bool:
        """Whether prompts have no slots, and are seen and read as those of any model, so that beginnings can be shared."""
        reasoner = self.solver.reasoner
        is_bare = not any(prompt.num_slots or prompt.gap for prompt in prompts)
        return is_bare and not reasoner.loop.segments and not self.solver.backbone.num_virtual and reads_in_pieces(reasoner.model)

    def _continue_plain(
        self,
        prompts: Sequence[list[int]],
        groups: Sequence[Group],
        rows: Sequence[int],
        max_tokens: int,
        drawn: dict[str, Any],
    ) -> list[list[int]]:
        """Continue prompts without slots; what a group begins with is read once. The new ids."""
        backbone, model = self.solver.backbone, self.solver.reasoner.model
        new: list[list[int]] = continued(
            model,
            pieces(prompts, groups, rows, backbone.pad, model.device),
            max_new_tokens=max_tokens,
            eos_token_id=[backbone.tokenizer.eos_token_id],
            pad_token_id=backbone.pad,
            do_sample=False,
            **drawn,
        ).tolist()
        return new

    def _sampled(self, requests: Sequence[Request], ids: Sequence[list[int]]) -> dict[str, Any]:
        """What of ``generate``'s options chance takes, for requests whose prompts are ``ids``."""
        seeds = [seed_of(self.seed + each.sample, row) for each, row in zip(requests, ids, strict=True)]
        drawn = sampled(seeds, [each.heat(self.temperature) for each in requests], self.top_p, self.top_k)
        return drawn | {"use_cache": True} if drawn else {}

    @torch.no_grad()
    def _continue(
        self, prompts: Sequence[Laid], rows: Sequence[int], max_tokens: int, drawn: dict[str, Any], edit: ThoughtEdit | None
    ) -> list[list[int]]:
        """Continue any prompts whose numbers are ``rows``; each is read and thought through once. The new ids."""
        backbone, reasoner = self.solver.backbone, self.solver.reasoner
        batch = collate(prompts, backbone.pad).to(reasoner.device)
        new: list[list[int]] = reasoner.generate(
            batch.input_ids,
            batch.attention_mask,
            batch.position_ids,
            max_new_tokens=max_tokens,
            eos_token_id=[backbone.tokenizer.eos_token_id],
            pad_token_id=backbone.pad,
            is_closed=batch.is_closed,
            edit=edit,
            rows=torch.tensor(rows, device=reasoner.device),
            **drawn,
        ).tolist()
        return new

    def _completion(self, prompt: int, new: list[int], read: int) -> Completion:
        """What new ids say; what was thought anew is no part of the prompt, but of what was written. So much was read for it."""
        eos = self.solver.backbone.tokenizer.eos_token_id
        stopped = eos in new
        written = new[: new.index(eos)] if stopped else new
        text = str(self.solver.backbone.tokenizer.decode(written))
        thought = self.num_thoughts
        usage = Usage(prompt - thought, 0, thought + len(written) + stopped, thought)
        return Completion(text, None, "stop" if stopped else "length", usage, prefilled=read)


def load(
    config: EvalConfig, temperature: float, seed: int, max_tokens: int, top_p: float | None = None, top_k: int | None = None
) -> Lab:
    """Load the run that ``config`` names; ModelError for one that writes before or between its thoughts."""
    trained = trained_config(config.run_folder)
    with accelerator(config.device, config.precision) as at:
        solver, _, _ = solver_of(config.run_folder, trained, at, config.batch_size, Answers())
    if trained.stage.writes_first() or trained.stage.slots_when_said(solver.stage):
        raise ModelError(
            f"run: {config.run} writes steps before it thinks; allowed: runs that write after their slots or have none"
        )
    return Lab(solver, trained.stage, temperature, seed, max_tokens, top_p, top_k)
