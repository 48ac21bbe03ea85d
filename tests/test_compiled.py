"""One-token passes that are compiled give what plain ones give, in few graphs; whatever a graph could not see runs plain."""

import copy
import inspect
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from test_gathering import with_lora
from test_reasoner import ROWS, TOKENS, build, padded
from tiny import rows, train
from torch import nn

import latent_lab.gathering
from latent_lab import LatentReasoner
from latent_lab.compiling import compile_columns
from latent_lab.gathering import Gathering, gathering
from latent_lab.loop import Loop


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch._dynamo.reset()


def graphs() -> int:
    """Graphs made so far."""
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


def learned(model: nn.Module, batch: list[list[int]], loop: Loop | None = None) -> tuple[Any, ...]:
    """Loss, thoughts and gradients of a batch."""
    ids, mask = padded(batch, "right")
    model.zero_grad()
    out = LatentReasoner(model, TOKENS, loop)(ids, mask, labels=ids.masked_fill(mask == 0, -100))
    assert out.loss is not None
    out.loss.backward()
    return (
        out.loss.detach(),
        out.thoughts.detach(),
        {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None},
    )


@pytest.mark.parametrize(("family", "has_adapters"), [("gpt2", False), pytest.param("llama", True, marks=pytest.mark.slow)])
def test_loss_thoughts_and_gradients_are_those_of_plain_passes_whatever_the_shape(family: str, has_adapters: bool) -> None:
    torch.manual_seed(0)
    model: Any = with_lora(build(family)).double() if has_adapters else build(family).double()
    batches = [ROWS, ROWS[:3], [[*row[:1], *row] for row in ROWS], ROWS[1:]]
    want = [learned(model, batch) for batch in batches]
    compile_columns(LatentReasoner(model, TOKENS).model, backend="aot_eager")
    for batch, expected in zip(batches, want, strict=True):
        torch.testing.assert_close(learned(model, batch), expected, rtol=1e-9, atol=1e-12)
    assert 1 <= graphs() <= 3


def test_who_listens_to_a_module_hears_every_pass() -> None:
    loop = Loop(feedback="before_norm")  # thoughts are taken by a hook
    model = build("gpt2").double()
    want = learned(model, ROWS, loop)
    compile_columns(model, backend="aot_eager")
    torch.testing.assert_close(learned(model, ROWS, loop), want, rtol=1e-9, atol=1e-12)
    assert graphs() == 0


@torch.no_grad()
def test_what_is_not_trained_runs_plain() -> None:
    model = build("gpt2")
    compile_columns(model, backend="aot_eager")
    ids, mask = padded(ROWS, "right")
    LatentReasoner(model, TOKENS)(ids, mask)
    assert graphs() == 0


def test_a_copy_computes_with_its_own_weights_and_the_signature_stays() -> None:
    model: Any = build("gpt2")
    known = inspect.signature(model.base_model.forward)
    compile_columns(model, backend="aot_eager")
    assert inspect.signature(model.base_model.forward) == known
    assert copy.deepcopy(model).base_model.forward.__self__ is not model.base_model


def test_no_graph_is_made_of_what_gathers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latent_lab.gathering, "LARGE", 1)
    model = build("gpt2")
    assert isinstance(gathering(model.base_model, 9), Gathering)
    compile_columns(model, backend="aot_eager")
    assert not isinstance(gathering(model.base_model, 9), Gathering)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="needs a C++ compiler")
def test_a_run_learns_as_much_compiled(tmp_path: Path) -> None:
    asked = ["stage=coconut", "stage.stages=[2]", "stage.epochs=[1]", "valid_limit=1"]
    losses = []
    for name, more in (("plain", []), ("compiled", ["compile=true"])):
        written = rows(train(tmp_path / name, *asked, *more) / "metrics.jsonl")
        losses.append([row["train/loss"] for row in written if "train/loss" in row])
    assert graphs() > 0
    assert len(losses[0]) == 5
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)
