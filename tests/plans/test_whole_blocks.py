"""Planning tokens in whole blocks alone: what may follow what, and that an untrained model can write nothing else."""

import re
from typing import Any

import pytest
import torch

from latent_lab.backbone import Scratch
from latent_lab.batching import collate
from latent_lab.grading.calculator import Vocabulary
from latent_lab.grading.evaluate import Solver
from latent_lab.plans.arithmetic import Arithmetic
from latent_lab.plans.base import General, Plan
from latent_lab.plans.forcing import WholeBlocks, follows
from latent_lab.plans.layout import Blocks
from latent_lab.plans.measures import in_whole_blocks
from latent_lab.plans.words import MemoryReason
from latent_lab.problems import Problem
from latent_lab.reasoner import LatentReasoner
from latent_lab.stages.planning import Planning

TAGGED = [Problem("t", "Is it?", ("[rag]: It is.", "[reason]: So yes."), "True")]
SUMS = [Problem("p", "How many?", ("<<1+2=3>>", "<<3*2=6>>"), "6"), Problem("q", "Who?", ("<<9-2=7>>",), "7")]


def test_what_may_follow_what() -> None:
    steps = ("<reason_0>", "<memory_0>")
    typed = Blocks(MemoryReason(assignment=False), 2, 2, "steps", answer=True)
    assert follows(typed) == {
        "": (("<prefix_0>",), False),
        "line": (("<prefix_0>",), False),
        "<prefix_0>": (("<prefix_1>",), False),
        "<prefix_1>": (("<answer_0>", *steps), True),  # a step of no kind is announced by the prefix alone
        "<answer_0>": (("<answer_1>",), False),
        "<answer_1>": ((), True),
        "<reason_0>": (("<reason_1>",), False),
        "<reason_1>": (steps, True),
        "<memory_0>": (("<memory_1>",), False),
        "<memory_1>": (steps, True),
    }
    front = follows(Blocks(General(), 1, 1, "front", answer=True))
    assert front == {
        "": (("<prefix_0>",), False), "line": ((), True), "<prefix_0>": (("<prefix_1>",), False), "<prefix_1>": ((), True),
    }  # fmt: skip
    assert follows(Blocks(MemoryReason(), 1, 1, "steps", answer=False))["line"] == (("<prefix_0>",), True)
    assert follows(Blocks(MemoryReason(), 1, 1, "plan_only", answer=True))["line"] == (("<prefix_0>",), True)
    bare = follows(Blocks(MemoryReason(), 0, 1, "steps", answer=True))
    assert bare["line"] == (("<answer_0>", "<assignment_0>", *steps), False)


@pytest.mark.parametrize(
    ("plan", "problems", "settings", "pattern"),
    [
        (Arithmetic(), SUMS, {}, r"<prefix_0>((<[-+*/]_0><[-+*/]_1>|<assignment_0><assignment_1>)+|<answer_0><answer_1>)"),
        (Arithmetic(control="filler"), SUMS, {}, r"<prefix_0>(<filler_0><filler_1>)+"),
        (MemoryReason(), TAGGED, {"num_prefix": 0}, r"((<(reason|memory|assignment)_0><\w+_1>)+|<answer_0><answer_1>)"),
        (General(), SUMS, {}, r"<prefix_0><prefix_1><prefix_2>"),
    ],
)
def test_an_untrained_model_can_write_nothing_else(
    plan: Plan, problems: list[Problem], settings: dict[str, Any], pattern: str
) -> None:
    torch.manual_seed(0)
    backbone = Scratch(layers=1, width=32, heads=2, positions=256).load(problems)
    stage = Planning(**{"num_prefix": 1, "num_special": 2, **settings})
    stage.plan = plan  # type: ignore[misc]
    stage.prepare(backbone, problems, None)  # type: ignore[arg-type]
    encoded = stage.encode(problems, backbone.tokenizer)
    assert stage.reading is not None
    newline = backbone.tokenizer.convert_tokens_to_ids("\n")
    batch = collate([stage.prompt(p, backbone.tokens, 0) for p in encoded], backbone.pad)
    reasoner, blocks = LatentReasoner(backbone.model, backbone.tokens).eval(), stage.blocks
    assert blocks is not None
    with torch.no_grad():
        backbone.model.get_output_embeddings().weight[[*stage.reading.ids, newline]] += 0.3 * torch.randn(32)
    options: dict[str, Any] = {"max_new_tokens": 100, "do_sample": True, "num_return_sequences": 8, "pad_token_id": backbone.pad}
    free = reasoner.generate(batch.input_ids, batch.attention_mask, **options)
    force = WholeBlocks(blocks, stage.reading.ids, Vocabulary(backbone.tokenizer))
    held = reasoner.generate(batch.input_ids, batch.attention_mask, **options, logits_processor=[force])

    def lines(ids: torch.Tensor) -> list[str]:
        names = dict(zip(stage.reading.ids, blocks.tokens(), strict=True))  # type: ignore[union-attr]
        texts = ["".join(names.get(i) or backbone.tokenizer.decode([i]) for i in row) for row in ids.tolist()]
        return [line for text in texts for line in text.split("\n")[:-1]]

    token = "|".join(map(re.escape, blocks.tokens()))
    whole = re.compile(f"{pattern}(?:(?!{token}).)*")
    assert len(lines(held)) > 8
    assert all(whole.fullmatch(line) for line in lines(held))
    assert not all(whole.fullmatch(line) for line in lines(free))


def test_it_is_graded_beside_the_free_model() -> None:
    torch.manual_seed(0)
    backbone = Scratch(layers=1, width=32, heads=2, positions=128).load(SUMS)
    stage = Planning(num_prefix=1, num_special=1)
    stage.plan = Arithmetic()  # type: ignore[misc]
    stage.prepare(backbone, SUMS, None)  # type: ignore[arg-type]
    encoded = stage.encode(SUMS, backbone.tokenizer)
    solver = Solver(LatentReasoner(backbone.model, backbone.tokens).eval(), backbone, stage, 0, 0, max_new_tokens=20)
    assert stage.reading is not None
    found = in_whole_blocks(solver, SUMS, encoded, stage.reading)
    assert (found["accuracy"]["n"], found["well_formed"]["n"], found["steps_as_gold"]["n"]) == (2, 2, 2)
    reply = solver.replies(encoded)[0]
    assert reply.text  # the solver itself is as it was
