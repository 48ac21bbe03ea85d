"""The training loop: what is weighed, when it validates, what it keeps, and that it continues where it was killed.

Most of it is checked on a model of one number ``w`` that must predict each token's value: the loss of a token is
``(w - value)**2``, so every loss and gradient can be computed by hand.
"""

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import TINY, rows
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from latent_lab.config import Optim, TrainConfig
from latent_lab.engine import Engine, optimizers, shares
from latent_lab.job import job
from latent_lab.run import accelerator, open_run, seed_everything
from latent_lab.schedule import Phase, rate
from latent_lab.stages.course import StageCourse
from latent_lab.supervision import SupervisedReasoner, step_decoder


@dataclass
class Tokens:
    """A batch: the values to predict, and those of a second loss."""

    values: Tensor
    others: Tensor

    def to(self, device: torch.device) -> "Tokens":
        return Tokens(self.values.to(device), self.others.to(device))


class OneNumber(nn.Module):
    def __init__(self, weight_of_others: float | None = None) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(()))
        self.weights = {"loss": 1.0} | ({} if weight_of_others is None else {"steps_loss": weight_of_others})

    def forward(self, batch: Tokens) -> dict[str, Tensor]:
        sums = {"loss": ((self.w - batch.values) ** 2).sum(), "steps_loss": ((self.w - batch.others) ** 2).sum()}
        return {name: sums[name] for name in self.weights}

    def counts(self, batch: Tokens) -> dict[str, int]:
        return {"loss": len(batch.values), "steps_loss": len(batch.others)}


class Numbers:
    """A course on problems of ``(values, others)``, in batches in order; validation says what it was told to say."""

    def __init__(
        self,
        learner: OneNumber,
        problems: Sequence[tuple[list[float], list[float]]],
        phases: Sequence[Phase] = (Phase(0, 1),),
        batch_size: int = 100,
        accuracies: Sequence[float] = (),
    ) -> None:
        self.learner, self.problems, self.phases, self.batch_size = learner, problems, phases, batch_size
        self.accuracies = iter(accuracies)
        self.seen: list[tuple[int, int, list[int]]] = []
        self.validated: list[float] = []

    def num_batches(self, phase: Phase) -> int:
        return math.ceil(len(self.problems) / self.batch_size)

    def batches(self, phase: Phase, epoch: int) -> list[list[int]]:
        numbers = list(range(len(self.problems)))
        return [numbers[i : i + self.batch_size] for i in range(0, len(numbers), self.batch_size)]

    def collate(self, phase: Phase, epoch: int, numbers: Sequence[int]) -> Tokens:
        self.seen.append((phase.stage, epoch, list(numbers)))
        values, others = ([x for n in numbers for x in self.problems[n][kind]] for kind in (0, 1))
        return Tokens(torch.tensor(values), torch.tensor(others))

    def validate(self, phase: Phase) -> dict[str, float]:
        self.validated.append(self.learner.w.item())
        return {"valid/accuracy": next(self.accuracies, 0.0)}

    def save(self, folder: Path, phase: Phase) -> None:
        (folder / "w.json").write_text(json.dumps([phase.stage, self.learner.w.item()]))


@contextmanager
def engine(folder: Path, course: Numbers, **settings: Any) -> Iterator[Engine]:
    """An engine on one CPU process, in a real run."""
    optim = settings.pop("optim", Optim(lr=0.5, weight_decay=0.0, clip=0.0))
    config = TrainConfig(**({"optim": optim, "log_every": 1, "save_every": math.inf} | settings))
    with accelerator("cpu") as at, open_run(folder, {}, command=[]) as run:
        yield Engine(at, run, config, course.learner, course)


def fit(folder: Path, course: Numbers, **settings: Any) -> list[dict[str, Any]]:
    """Train and return the rows of ``metrics.jsonl`` without their times."""
    with engine(folder, course, **settings) as at:
        at.fit()
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows(folder / "metrics.jsonl")]


def validated(metrics: list[dict[str, Any]]) -> list[int]:
    return [row["step"] for row in metrics if "valid/accuracy" in row]


UNEQUAL: list[tuple[list[float], list[float]]] = [([0.0], []), ([1.0, 1.0], []), ([3.0] * 5, [])]
TEN: list[tuple[list[float], list[float]]] = [([float(i)], []) for i in range(10)]


# Every token weighs the same


@pytest.mark.parametrize("micro", [None, 1, 2])
def test_the_loss_is_the_sum_over_all_tokens_divided_by_their_number(tmp_path: Path, micro: int | None) -> None:
    learner = OneNumber()
    row, _ = fit(tmp_path, Numbers(learner, UNEQUAL), micro_batch_size=micro)
    # 1 token off by 0, 2 off by 1, 5 off by 3: (0 + 2 + 45) / 8; the mean of the rows' means would be (0 + 1 + 9) / 3.
    assert row["train/loss"] == 47 / 8
    # The gradient is -2 * (0 + 2 + 15) / 8.
    assert row["train/grad_norm"] == 4.25
    assert learner.w.item() == pytest.approx(0.5)  # AdamW's first step is the learning rate, against the gradient's sign


@pytest.mark.parametrize("micro", [None, 1, 2])
def test_each_loss_is_divided_by_its_own_count_and_then_weighed(tmp_path: Path, micro: int | None) -> None:
    problems = [([1.0], [2.0, 2.0, 2.0]), ([1.0, 4.0], [])]
    row, _ = fit(tmp_path, Numbers(OneNumber(weight_of_others=0.5), problems), micro_batch_size=micro)
    assert (row["train/loss"], row["train/steps_loss"]) == (18 / 3, 12 / 3)
    assert row["train/grad_norm"] == 2 * 6 / 3 + 0.5 * 2 * 6 / 3


def test_a_loss_without_tokens_is_left_out_of_the_metrics(tmp_path: Path) -> None:
    row, _ = fit(tmp_path, Numbers(OneNumber(weight_of_others=0.5), UNEQUAL))
    assert set(row) == {"step", "stage", "train/loss", "train/grad_norm", "train/lr"}


@pytest.mark.parametrize("stage", [0, 2])
def test_one_micro_batch_of_eight_trains_like_eight_of_one(tmp_path: Path, stage: int) -> None:
    """The real model with step supervision, in float64: there AdamW cannot blow rounding up to whole steps."""
    losses, weights = [], []
    for micro in (8, 1):
        asked = job("train", [*TINY, "dataset.digits=[1,3]", "dataset.probabilities=[0.5,0.5]", f"outputs={tmp_path}",
                              "stage=coconut", f"stage.stages=[{stage}]", "stage.epochs=[1.2]", "stage.supervision=0.5",
                              "stage.pad=chain", f"micro_batch_size={micro}", "valid_limit=1"])  # fmt: skip
        config = asked.config
        seed_everything(0)
        problems = config.dataset.load("train")
        backbone = config.model.load(problems)
        with accelerator("cpu") as at, open_run(tmp_path / f"micro-{micro}", {}, command=[]) as run:
            course = StageCourse(config, at, backbone, problems, config.dataset.load("valid")[:1])
            course.decoder = step_decoder("autoregressive", 32, backbone.model.config.vocab_size, course.longest_step)
            learner = SupervisedReasoner(course.reasoner, course.decoder, 0.5).double()
            Engine(at, run, config, learner, course).fit()
        losses.append([(row["train/loss"], row.get("train/steps_loss", 0.0), row["train/grad_norm"])
                       for row in rows(run.folder / "metrics.jsonl") if "train/loss" in row])  # fmt: skip
        weights.append(learner.state_dict())
    assert len(losses[0]) == 6
    assert losses[1] == [pytest.approx(row, abs=1e-6) for row in losses[0]]
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=0, atol=1e-6, msg=name)


def test_a_problem_of_each_combination_of_lengths_has_the_shapes_of_all(tmp_path: Path) -> None:
    sums = ["dataset.digits=[1,3]", "dataset.probabilities=[0.5,0.5]"]
    config = job("train", [*TINY, *sums, "stage=coconut", f"outputs={tmp_path}"]).config
    problems = config.dataset.load("train")
    with accelerator("cpu") as at:
        course = StageCourse(config, at, config.model.load(problems), problems, problems[:1])
    assert len(course.representatives) < len(course.train)
    for stage in range(4):
        shapes, all_shapes = ({course.stage.shape(p, stage) for p in some} for some in (course.representatives, course.train))
        assert shapes == all_shapes


@pytest.mark.parametrize("world", [1, 2, 3, 4])
@pytest.mark.parametrize("micro", [None, 1, 2, 7])
@pytest.mark.parametrize("count", [1, 2, 5, 8, 17])
def test_shares_cover_every_problem_once_in_equally_many_micro_batches(count: int, micro: int | None, world: int) -> None:
    numbers = list(range(100, 100 + count))
    parts = [shares(numbers, rank, world, micro) for rank in range(world)]
    assert sorted(n for mine in parts for part in mine for n in part) == numbers
    assert len({len(mine) for mine in parts}) == 1
    assert max(len(part) for mine in parts for part in mine) <= (micro or count)


def test_shares_by_hand() -> None:
    assert shares([1, 2, 3, 4, 5], 0, 2, 2) == [[1, 3], [5]]
    assert shares([1, 2, 3, 4, 5], 1, 2, 2) == [[2, 4], []]


# The optimiser


@pytest.mark.parametrize(
    ("optim", "expected"),
    [
        (Optim(warmup=4), {0: 0.25, 1: 0.5, 3: 1.0, 4: 1.0, 13: 1.0}),
        (Optim(warmup=4, schedule="linear"), {0: 0.25, 3: 1.0, 4: 1.0, 9: 0.5, 13: 0.1, 14: 0.0}),
        (Optim(warmup=4, schedule="linear", final=0.2), {4: 1.0, 9: 0.6, 14: 0.2}),
        (Optim(schedule="cosine"), {0: 1.0, 7: 0.5, 14: 0.0}),
        (Optim(warmup=2, schedule="cosine", final=0.1), {1: 1.0, 2: 1.0, 8: 0.55, 14: 0.1, 5: 0.1 + 0.9 * (1 + 2**-0.5) / 2}),
        (Optim(warmup=20, schedule="linear"), {0: 0.05, 13: 0.7}),
    ],
)
def test_learning_rate_at_steps_of_fourteen(optim: Optim, expected: dict[int, float]) -> None:
    assert {step: rate(step, 14, optim) for step in expected} == pytest.approx(expected)


def test_the_logged_learning_rate_is_the_one_used(tmp_path: Path) -> None:
    learner = OneNumber()
    optim = Optim(lr=0.5, weight_decay=0.0, clip=0.0, warmup=2)
    metrics = fit(tmp_path, Numbers(learner, [([100.0], [])], [Phase(0, 3)]), optim=optim, eval_every=3)
    assert [row["train/lr"] for row in metrics if "train/lr" in row] == [0.25, 0.5, 0.5]
    # Far from its target AdamW moves by about the rate itself at every step.
    assert learner.w.item() == pytest.approx(1.25, abs=1e-2)


@pytest.mark.parametrize("clip", [0.0, 0.5])
def test_clipping_is_that_of_torch_and_the_logged_norm_is_the_one_before(tmp_path: Path, clip: float) -> None:
    learner = OneNumber()
    optim = Optim(lr=0.5, betas=[0.9, 0.98], weight_decay=0.1, clip=clip)
    metrics = fit(tmp_path, Numbers(learner, [([3.0], []), ([-1.0], [])], [Phase(0, 3)], batch_size=1), optim=optim)
    w = nn.Parameter(torch.zeros(()))
    plain = torch.optim.AdamW([w], lr=0.5, betas=(0.9, 0.98), weight_decay=0.1)
    norms = []
    for value in [3.0, -1.0] * 3:
        (w - value).square().backward()
        assert w.grad is not None
        norms.append(w.grad.abs().item())
        if clip:
            nn.utils.clip_grad_norm_([w], clip)
        plain.step()
        plain.zero_grad()
    assert learner.w.item() == pytest.approx(w.item(), abs=1e-6)
    assert [row["train/grad_norm"] for row in metrics if "train/grad_norm" in row] == pytest.approx(norms, abs=1e-5)


@pytest.mark.parametrize(("fresh", "steps_known"), [(True, 3), (False, 5)])
def test_a_fresh_optimizer_forgets_the_phase_before(tmp_path: Path, fresh: bool, steps_known: int) -> None:
    phases = [Phase(0, 2), Phase(1, 3, fresh_optimizer=fresh)]
    with engine(tmp_path, Numbers(OneNumber(), UNEQUAL, phases)) as at:
        at.fit()
        (state,) = at.optimizers[0].state.values()
        assert state["step"] == steps_known


def test_a_fresh_optimizer_at_each_epoch_forgets_that_often(tmp_path: Path) -> None:
    with engine(tmp_path, Numbers(OneNumber(), UNEQUAL, [Phase(0, 4, fresh_each_epoch=True)])) as at:
        at.fit()
        (state,) = at.optimizers[0].state.values()
        assert state["step"] == 1


def test_a_phase_can_go_unvalidated_but_the_end_never_does(tmp_path: Path) -> None:
    phases = [Phase(0, 1, is_validated=False), Phase(1, 1), Phase(2, 1, is_validated=False), Phase(3, 1, is_validated=False)]
    assert validated(fit(tmp_path / "a", Numbers(OneNumber(), TEN[:4], phases, batch_size=2))) == [4, 8]
    every = Numbers(OneNumber(), TEN[:4], phases, batch_size=2)
    assert validated(fit(tmp_path / "b", every, eval_every=3)) == [3, 4, 6, 8]


def test_no_steps_at_all_grade_what_was_loaded(tmp_path: Path) -> None:
    learner = OneNumber()
    assert validated(fit(tmp_path, Numbers(learner, TEN), max_steps=0)) == [0]
    assert learner.w.item() == 0
    assert (tmp_path / "checkpoint").is_dir()


def test_graded_as_loaded_again_after_a_kill_it_has_one_row(tmp_path: Path) -> None:
    first = fit(tmp_path, Numbers(OneNumber(), TEN), max_steps=0)  # the engine ends before a run has its result
    assert fit(tmp_path, Numbers(OneNumber(), TEN), max_steps=0) == first
    assert len(first) == 1


def test_fused_adamw_takes_the_steps_of_the_plain_one() -> None:
    fused, plain = nn.Linear(5, 3).double(), nn.Linear(5, 3).double()
    plain.load_state_dict(fused.state_dict())
    (ours,) = optimizers(fused, Optim(lr=0.1, weight_decay=0.01))
    assert ours.defaults["fused"]
    settings = {name: ours.defaults[name] for name in ("lr", "betas", "eps", "weight_decay")}
    theirs = torch.optim.AdamW(plain.parameters(), **settings, foreach=False)
    for seed in range(5):
        x = torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        for model, optimizer in ((fused, ours), (plain, theirs)):
            optimizer.zero_grad()
            model(x).square().sum().backward()
            optimizer.step()
    torch.testing.assert_close(fused.weight, plain.weight, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(fused.bias, plain.bias, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", ["autoregressive", "linear"])
def test_muon_takes_the_matrices_of_the_blocks_and_adamw_all_else(kind: str) -> None:
    config = job("train", list(TINY)).config
    backbone = config.model.load(config.dataset.load("train"))
    learner = nn.ModuleDict({"backbone": backbone.model, "decoder": step_decoder(kind, 32, 300, 9)})
    names = {id(p): name for name, p in learner.named_parameters()}
    adamw, muon = ([names[id(p)] for group in o.param_groups for p in group["params"]]
                   for o in optimizers(learner, Optim(name="muon", lr=0.1, matrix_lr=0.2)))  # fmt: skip
    assert sorted(adamw + muon) == sorted(names.values())
    matrices = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
    blocks = ["backbone.transformer.h.0", "backbone.transformer.h.1"] + ["decoder.lm.transformer.h.0"] * (kind != "linear")
    assert sorted(muon) == sorted(f"{block}.{matrix}" for block in blocks for matrix in matrices)


def test_muon_and_adamw_have_their_own_rates_and_leave_frozen_weights_alone() -> None:
    sizes = {"vocab_size": 300, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(**sizes, tie_word_embeddings=False))
    model.model.layers[0].requires_grad_(False)
    adamw, muon = optimizers(model, Optim(name="muon", lr=0.1, matrix_lr=0.2))
    names = {id(p): name for name, p in model.named_parameters()}
    assert [names[id(p)] for p in adamw.param_groups[0]["params"]] == [
        "model.embed_tokens.weight",
        "model.layers.1.input_layernorm.weight",
        "model.layers.1.post_attention_layernorm.weight",
        "model.norm.weight",
        "lm_head.weight",
    ]
    assert {names[id(p)].split(".")[2] for p in muon.param_groups[0]["params"]} == {"1"}
    assert (len(muon.param_groups[0]["params"]), adamw.param_groups[0]["lr"], muon.param_groups[0]["lr"]) == (7, 0.1, 0.2)


@pytest.mark.parametrize(("kept", "kind"), [("0.weight", "Muon"), ("0.bias", "AdamW")])
def test_where_weights_of_one_sort_alone_are_trained_there_is_one_optimiser(kept: str, kind: str) -> None:
    model = nn.ModuleDict({"blocks": nn.ModuleList([nn.Linear(2, 2)])})
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name.endswith(kept)
    assert [type(made).__name__ for made in optimizers(model, Optim(name="muon"))] == [kind]


def test_a_matrix_in_a_list_within_a_list_is_given_to_muon_once() -> None:
    experts = nn.ModuleList([nn.ModuleList([nn.Linear(4, 4, bias=False)]) for _ in range(2)])
    adamw, muon = optimizers(nn.ModuleDict({"h": experts, "head": nn.Linear(4, 4)}), Optim(name="muon"))
    assert [len(o.param_groups[0]["params"]) for o in (adamw, muon)] == [2, 2]


# How long, and when it validates


@pytest.mark.parametrize(("epochs", "steps"), [(0, 0), (0.01, 1), (0.5, 2), (1, 4), (1.25, 5), (2.5, 10), (0.6, 2)])
def test_a_fraction_of_an_epoch_is_cut_off_after_its_steps(epochs: float, steps: int) -> None:
    assert Phase(0, epochs).num_steps(4) == steps


def test_an_epoch_may_end_early_and_the_next_phase_follows(tmp_path: Path) -> None:
    course = Numbers(OneNumber(), TEN[:8], [Phase(0, 1.5), Phase(2, 0), Phase(3, 0.5)], batch_size=2)
    metrics = fit(tmp_path, course)
    assert course.seen == [
        (0, 0, [0, 1]), (0, 0, [2, 3]), (0, 0, [4, 5]), (0, 0, [6, 7]),
        (0, 1, [0, 1]), (0, 1, [2, 3]),
        (3, 0, [0, 1]), (3, 0, [2, 3]),
    ]  # fmt: skip
    assert validated(metrics) == [4, 6, 8]  # each end of an epoch, a cut one too


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [5, 10, 13, 18]),  # ends of epochs
        ({"eval_every": 4}, [4, 8, 12, 13, 16, 18]),  # every fourth step, and the ends of the phases
        ({"eval_every": 100}, [13, 18]),
        ({"max_steps": 7}, [5, 7]),
        ({"max_steps": 13}, [5, 10, 13]),
        ({"max_steps": 7, "eval_every": 3}, [3, 6, 7]),
    ],
)
def test_validations_come_when_they_were_asked_for(tmp_path: Path, settings: dict[str, Any], expected: Any) -> None:
    course = Numbers(OneNumber(), TEN, [Phase(0, 2.6), Phase(1, 1)], batch_size=2)
    assert validated(fit(tmp_path, course, **settings)) == expected


@pytest.mark.parametrize(
    ("phases", "settings", "expected"),
    [
        ([Phase(0, 2.6), Phase(1, 1)], {}, [(0, 0), (13, 1)]),
        ([Phase(0, 1), Phase(1, 1)], {"eval_every": 2}, [(0, 0), (5, 1)]),
        ([Phase(0, 0), Phase(1, 1), Phase(2, 0), Phase(3, 1), Phase(4, 0)], {}, [(0, 1), (5, 3)]),  # without steps none begins
        ([Phase(0, 1, is_validated=False), Phase(1, 1), Phase(2, 1, is_validated=False)], {}, [(5, 1)]),
        ([Phase(0, 1), Phase(1, 1)], {"max_steps": 5}, [(0, 0)]),
        ([Phase(0, 1), Phase(1, 1)], {"max_steps": 6}, [(0, 0), (5, 1)]),
        ([Phase(0, 1), Phase(1, 1)], {"max_steps": 0}, []),
        ([Phase(0, 1), Phase(1, 1)], {"eval_at_start": False}, []),
    ],
)
def test_when_a_phase_begins_it_validates_if_asked(tmp_path: Path, phases: Any, settings: dict[str, Any], expected: Any) -> None:
    metrics = fit(tmp_path, Numbers(OneNumber(), TEN, phases, batch_size=2), **({"eval_at_start": True} | settings))
    assert [(row["step"], row["stage"]) for row in metrics if "valid/accuracy_at_start" in row] == expected


def test_what_is_scored_at_the_start_is_the_model_before_its_first_step_and_nothing_else_changes(tmp_path: Path) -> None:
    def metrics(name: str, **settings: Any) -> list[dict[str, Any]]:
        torch.manual_seed(0)
        return fit(tmp_path / name, Candid(Noisy(), TEN, [Phase(0, 1), Phase(1, 1)], batch_size=2), **settings)

    asked = metrics("asked", eval_at_start=True)
    # Learning begins at w = 0, and stage 1 where stage 0 ended.
    (ended,) = (row["valid/accuracy"] for row in asked if row["step"] == 5 and "valid/accuracy" in row)
    at_start = [row for row in asked if "valid/accuracy_at_start" in row]
    assert at_start == [
        {"step": 0, "stage": 0, "valid/accuracy_at_start": 0.0},
        {"step": 5, "stage": 1, "valid/accuracy_at_start": ended},
    ]
    assert [row for row in asked if row not in at_start] == metrics("unasked")
    first, second = ((tmp_path / name / "checkpoint/w.json").read_text() for name in ("asked", "unasked"))
    assert first == second


def test_the_weights_a_last_phase_begins_with_are_not_its_best(tmp_path: Path) -> None:
    course = Numbers(OneNumber(), TEN, [Phase(0, 1)], batch_size=2, accuracies=[0.9, 0.1])
    with engine(tmp_path, course, eval_at_start=True) as at:
        position = at.fit()
    assert (position.best, position.best_step) == (0.1, 5)


def test_the_best_of_the_last_phase_is_kept_and_of_equals_the_first(tmp_path: Path) -> None:
    learner = OneNumber()
    course = Numbers(learner, TEN, [Phase(0, 1), Phase(1, 1)], batch_size=2, accuracies=[0.9, 0.9, 0.5, 0.7, 0.7, 0.6])
    with engine(tmp_path, course, eval_every=2) as at:
        position = at.fit()
    # Validated at 2, 4, 5 (stage 0: 0.9 does not count), 6, 8 and 10.
    assert validated(rows(tmp_path / "metrics.jsonl")) == [2, 4, 5, 6, 8, 10]
    assert (position.best, position.best_step, position.step) == (0.7, 6, 10)
    assert json.loads((tmp_path / "checkpoint" / "w.json").read_text()) == [1, course.validated[3]]
    assert learner.w.item() == course.validated[5] != course.validated[3]


def test_stopped_early_the_last_weights_count_though_the_last_phase_never_began(tmp_path: Path) -> None:
    learner = OneNumber()
    course = Numbers(learner, TEN, [Phase(0, 1), Phase(1, 1)], batch_size=2, accuracies=[0.9, 0.1])
    with engine(tmp_path, course, max_steps=3, eval_every=2) as at:
        assert at.fit().best_step == 3
    assert json.loads((tmp_path / "checkpoint" / "w.json").read_text()) == [0, learner.w.item()]


def test_metrics_hold_a_row_for_each_logged_step_and_each_validation(tmp_path: Path) -> None:
    course = Numbers(OneNumber(), TEN, [Phase(0, 1), Phase(4, 1)], batch_size=2, accuracies=[0.25, 0.5])
    metrics = fit(tmp_path, course, log_every=3)
    keys = {"train/loss", "train/grad_norm", "train/lr"}
    assert [(row["step"], row["stage"], set(row) - {"step", "stage"}) for row in metrics] == [
        (3, 0, keys), (5, 0, keys), (5, 0, {"valid/accuracy"}),
        (6, 4, keys), (9, 4, keys), (10, 4, keys), (10, 4, {"valid/accuracy"}),
    ]  # fmt: skip
    assert [row["valid/accuracy"] for row in metrics if "valid/accuracy" in row] == [0.25, 0.5]
    assert all(row["seconds"] >= 0 for row in rows(tmp_path / "metrics.jsonl"))


# Killed and continued


class Killed(BaseException):
    pass


class Noisy(OneNumber):
    """With noise, so that the random generators count, and a matrix, so that Muon has one."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2, bias=False)
        self.layers = nn.ModuleList([self.linear])
        nn.init.eye_(self.linear.weight)

    def forward(self, batch: Tokens) -> dict[str, Tensor]:
        noise = ((self.linear.weight * torch.rand(2, 2)) ** 2).sum()
        return {"loss": super().forward(batch)["loss"] + noise}


class Mortal(Numbers):
    dies_at: int | None = None
    dies_while = "training"

    def collate(self, phase: Phase, epoch: int, numbers: Sequence[int]) -> Tokens:
        if self.dies_while == "training" and len(self.seen) + 1 == self.dies_at:
            raise Killed
        return super().collate(phase, epoch, numbers)

    def validate(self, phase: Phase) -> dict[str, float]:
        if self.dies_while == "validating" and len(self.seen) == self.dies_at:
            raise Killed
        if self.dies_while == f"stage {phase.stage} begins" and len(self.seen) == self.dies_at:
            raise Killed
        return super().validate(phase)


class Candid(Mortal):
    """Its accuracy is the number it has learned."""

    def validate(self, phase: Phase) -> dict[str, float]:
        return {"valid/accuracy": super().validate(phase) and self.learner.w.item()}


@pytest.mark.parametrize(
    ("name", "dies_at", "dies_while"),
    [("adamw", 2, "training"), ("adamw", 6, "training"), ("muon", 9, "training"), ("adamw", 6, "validating")],
)
def test_a_killed_run_continues_to_the_same_numbers(tmp_path: Path, name: str, dies_at: int, dies_while: str) -> None:
    accuracies = [0.3, 0.2, 0.6, 0.6, 0.1, 0.2]  # at steps 2, 4, 5, 6, 8 and 10
    settings = {"eval_every": 2, "save_every": 0, "optim": Optim(name=name, lr=0.1, schedule="cosine")}

    def course(seed: int, skip: int = 0) -> Mortal:
        phases = [Phase(0, 1), Phase(1, 1, fresh_optimizer=True)]
        made = Mortal(Noisy(), TEN, phases, batch_size=2, accuracies=accuracies[skip:])
        torch.manual_seed(seed)
        return made

    unbroken = course(0)
    expected = fit(tmp_path / "unbroken", unbroken, **settings)
    assert validated(expected) == [2, 4, 5, 6, 8, 10]

    broken = course(0)
    broken.dies_at, broken.dies_while = dies_at, dies_while
    with suppress(Killed):
        fit(tmp_path / "run", broken, **settings)
    survived = rows(tmp_path / "run" / "metrics.jsonl")
    # While it validates, the row of the step is written already; it will be written again.
    assert survived[-1]["step"] == dies_at - (dies_while == "training")
    continued = course(123, skip=len(validated(survived)))
    assert fit(tmp_path / "run", continued, **settings) == expected
    assert continued.seen == unbroken.seen[dies_at - 1 :]
    assert [p.tolist() for p in continued.learner.parameters()] == [p.tolist() for p in unbroken.learner.parameters()]
    assert (tmp_path / "run/checkpoint/w.json").read_text() == (tmp_path / "unbroken/checkpoint/w.json").read_text()


@pytest.mark.parametrize(
    ("dies_at", "dies_while"),
    [
        (0, "stage 0 begins"),
        (1, "training"),  # the row of step 0 is there, and no state
        (5, "validating"),
        (5, "stage 1 begins"),  # between the two rows of step 5
        (6, "training"),  # both rows are there, and so is the state of step 5
        (7, "training"),
    ],
)
@pytest.mark.parametrize("save_every", [0, math.inf])
def test_killed_where_a_phase_begins_each_row_is_there_once(
    tmp_path: Path, dies_at: int, dies_while: str, save_every: float
) -> None:
    def course() -> Candid:
        torch.manual_seed(0)
        return Candid(Noisy(), TEN, [Phase(0, 1), Phase(1, 1, fresh_optimizer=True)], batch_size=2)

    settings = {"eval_at_start": True, "save_every": save_every}
    expected = fit(tmp_path / "unbroken", course(), **settings)
    broken = course()
    broken.dies_at, broken.dies_while = dies_at, dies_while
    with suppress(Killed):
        fit(tmp_path / "run", broken, **settings)
    assert len(broken.seen) == dies_at - (dies_while == "training")
    assert fit(tmp_path / "run", course(), **settings) == expected
    assert [row["step"] for row in expected if "valid/accuracy_at_start" in row] == [0, 5]
