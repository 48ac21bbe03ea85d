"""Gradients gathered over the passes are those of adding one after another, in every way a matrix can be used."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from test_reasoner import ROWS, TOKENS, build, padded
from torch import Tensor, nn

import latent_lab.gathering
from latent_lab import LatentReasoner
from latent_lab.gathering import Gathering, gathering

Gradients = dict[str, Tensor]


def gradients(model: nn.Module, times: int = 1) -> Gradients:
    """Of the loss of a batch with unequal numbers of slots, ``times`` backward passes in a row."""
    ids, mask = padded(ROWS, "right")
    model.zero_grad()
    for _ in range(times):
        loss = LatentReasoner(model, TOKENS)(ids, mask, labels=ids.masked_fill(mask == 0, -100)).loss
        loss.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def with_lora(model: nn.Module) -> nn.Module:
    return get_peft_model(model, LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))


@pytest.fixture
def everything_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latent_lab.gathering, "LARGE", 1)


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("most_kept", [1, 5, 1000])
@pytest.mark.parametrize("times", [1, 2])
def test_gathered_gradients_equal_plain_ones(family: str, most_kept: int, times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(family).double()
    want = copy.deepcopy(gradients(model, times))
    monkeypatch.setattr(latent_lab.gathering, "LARGE", 1)
    monkeypatch.setattr(latent_lab.gathering, "MOST_KEPT", most_kept)
    found = gradients(model, times)
    assert found.keys() == want.keys()
    for name, gradient in want.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-9, atol=1e-12, msg=name)


def test_frozen_matrices_get_no_gradient_and_adapters_get_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = with_lora(build("llama")).double()
    want = copy.deepcopy(gradients(model))
    monkeypatch.setattr(latent_lab.gathering, "LARGE", 1)
    found = gradients(model)
    assert found.keys() == want.keys()
    assert all("lora_" in name for name in found)
    for name, gradient in want.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-9, atol=1e-12, msg=name)


@pytest.mark.usefixtures("everything_is_large")
def test_a_hook_on_a_weight_sees_its_whole_gradient_once() -> None:
    # Distributed training hangs its reduction on such hooks.
    model, seen = build("gpt2"), []
    weight = model.transformer.h[0].mlp.c_fc.weight
    weight.register_hook(seen.append)
    found = gradients(model)
    assert len(seen) == 1
    torch.testing.assert_close(seen[0], found["transformer.h.0.mlp.c_fc.weight"])


@pytest.mark.usefixtures("everything_is_large")
def test_what_does_not_pay_runs_as_it_is() -> None:
    model = build("gpt2")
    assert isinstance(gathering(model, 3), Gathering)
    assert not isinstance(gathering(model, 2), Gathering)  # one pass, or one and its tail
    with torch.no_grad():
        assert not isinstance(gathering(model, 3), Gathering)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not isinstance(gathering(model, 3), Gathering)
    assert not isinstance(gathering(model.requires_grad_(False), 3), Gathering)


def test_small_matrices_stay_with_autograd() -> None:
    assert not isinstance(gathering(build("gpt2"), 9), Gathering)
    assert isinstance(gathering(nn.Linear(1024, 512), 9), Gathering)
