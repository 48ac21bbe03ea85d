"""Matrices kept in 8 or 4 bits: what is stored, what is learned beside it, and that nothing of it is lost on the way.

All of it runs on a CPU; where there is a GPU, the models are there.
"""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from families import FAMILIES, build, save_family, thinking_batch
from torch import Tensor
from transformers import AutoModelForCausalLM

from latent_lab import LatentReasoner
from latent_lab.adapters import LoRA, Prefix, Prompt, Rows, plain_tensor, wrap
from latent_lab.backbone import Backbone, Pretrained
from latent_lab.engine import Engine
from latent_lab.run import accelerator
from tests.tiny import TINY, evaluate, result, rows, save_hub_model, timeless, train

pytestmark = pytest.mark.skipif(
    find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed: pip install 'latent_lab[quantize]'"
)

KINDS = ("4bit", "8bit")
ENDS = {"max_new_tokens": 12, "eos_token_id": 0, "pad_token_id": 0}


def loaded(folder: Path, family: str, kind: str, **options: Any) -> Backbone:
    if not (folder / "config.json").exists():
        save_family(folder, family)
    return Pretrained(str(folder), quantize=kind, **options).load()


def adapted(folder: Path, family: str, kind: str, **options: Any) -> Backbone:
    backbone = loaded(folder, family, kind, **options)
    torch.manual_seed(1)
    return wrap(backbone, LoRA(rank=4))


def batch(backbone: Backbone) -> list[Tensor]:
    return [tensor.to(backbone.model.device) for tensor in thinking_batch(backbone.tokens)]


def loss(backbone: Backbone) -> Tensor:
    found: Tensor = LatentReasoner(backbone.model, backbone.tokens).train()(*batch(backbone)).loss
    return found


def learn(backbone: Backbone, steps: int = 4) -> list[float]:
    """A few optimiser steps on a batch that thinks; returns the loss before each."""
    optimizer = torch.optim.AdamW([p for p in backbone.model.parameters() if p.requires_grad], lr=1e-2, weight_decay=0.0)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        now = loss(backbone)
        now.backward()
        optimizer.step()
        losses.append(now.item())
    return losses


def gradients(backbone: Backbone) -> Tensor:
    backbone.model.zero_grad()
    loss(backbone).backward()
    return torch.cat([p.grad.flatten() for p in backbone.model.parameters() if p.grad is not None])


@torch.no_grad()
def logits(model: Any, backbone: Backbone) -> Tensor:
    """In training mode, where 8-bit matrices are multiplied with vectors as they are; the models here drop nothing."""
    ids, mask, _ = batch(backbone)
    found: Tensor = model.train()(input_ids=ids, attention_mask=mask).logits[mask.bool()]
    return found


def frozen(backbone: Backbone) -> dict[str, Tensor]:
    """All that quantising made and all that stays as it came, scales among it."""
    learned = {name for name, p in backbone.model.named_parameters(remove_duplicate=False) if p.requires_grad}
    return {name: tensor.clone() for name, tensor in backbone.model.state_dict().items() if name not in learned}


# What is stored


def test_4_bits_are_sixteen_values_of_the_largest_of_64_entries_and_8_bits_whole_127ths_of_a_rows_largest(tmp_path: Path) -> None:
    folder = save_family(tmp_path, "llama")
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        attention = model.model.layers[0].self_attn
        attention.q_proj.weight.zero_()[:, :4] = torch.tensor([1.0, 0.05, -0.03, 0.6])  # a block of 64 entries is two rows
        attention.o_proj.weight.zero_()[:, :4] = torch.tensor([127.0, 3.4, -5.6, 0.2])
    model.save_pretrained(folder)
    four, eight = (loaded(folder, "llama", kind).model.model.layers[0].self_attn for kind in KINDS)
    found = plain_tensor(four.q_proj, "weight").cpu()
    torch.testing.assert_close(found[:, :4], torch.tensor([[1.0, 0.0795803, 0.0, 0.5626170]] * 32), rtol=0, atol=1e-6)
    assert not found[:, 4:].any()
    found = plain_tensor(eight.o_proj, "weight").cpu()
    torch.testing.assert_close(found[:, :4], torch.tensor([[127.0, 3.0, -6.0, 0.0]] * 32), rtol=0, atol=1e-4)
    assert not found[:, 4:].any()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("kind", "dtype", "share"), [("4bit", torch.uint8, 0.5), ("8bit", torch.int8, 1)])
def test_the_matrices_of_blocks_are_small_and_all_else_is_as_it_was(
    family: str, kind: str, dtype: torch.dtype, share: float, tmp_path: Path
) -> None:
    model: Any = loaded(tmp_path, family, kind).model
    plain: Any = loaded(tmp_path, family, "none").model
    expected = {name: p for name, p in plain.named_parameters() if p.dim() == 2 and (".layers." in name or ".h." in name)}
    small = {name: p for name, p in model.named_parameters() if p.dtype == dtype}
    assert small.keys() == expected.keys()
    assert all(p.numel() == share * expected[name].numel() for name, p in small.items())
    assert {p.dtype for name, p in model.named_parameters() if name not in small} == {torch.float32}
    assert model.num_parameters() == plain.num_parameters()  # so a run's result.json counts weights, not bytes


@pytest.mark.parametrize("family", FAMILIES)
def test_the_loss_is_near_the_models_own_and_nearer_with_8_bits(family: str, tmp_path: Path) -> None:
    with torch.no_grad():
        own, four, eight = (loss(loaded(tmp_path, family, kind)).item() for kind in ("none", *KINDS))
    assert own == pytest.approx(eight, rel=0.02)
    assert own == pytest.approx(four, rel=0.2)
    assert abs(own - eight) < abs(own - four)


# What is learned


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_adapters_learn_through_thoughts_and_the_model_stays_bit_for_bit_as_it_was(
    family: str, kind: str, tmp_path: Path
) -> None:
    backbone = adapted(tmp_path, family, kind)
    before = frozen(backbone)
    losses = learn(backbone)
    assert losses[-1] < 0.7 * losses[0]
    after = frozen(backbone)
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", [Rows(), Prompt(4), Prefix(4)], ids=["rows", "prompt", "prefix"])
def test_rows_and_virtual_tokens_are_learned_beside_them_too(way: Any, kind: str, tmp_path: Path) -> None:
    backbone = wrap(loaded(tmp_path, "llama", kind), way)
    before = frozen(backbone)
    losses = learn(backbone)
    assert losses[-1] < losses[0]
    after = frozen(backbone)
    assert all(torch.equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_validation_changes_neither_loss_nor_gradients(family: str, kind: str, tmp_path: Path) -> None:
    # On a CPU with bfloat16 products, bitsandbytes would leave matrices behind that no gradient passes.
    backbone = adapted(tmp_path, family, kind)
    before, first = loss(backbone), gradients(backbone)
    reasoner = LatentReasoner(backbone.model, backbone.tokens).eval()
    with torch.no_grad():
        reasoner(*batch(backbone))
    reasoner.generate(batch(backbone)[0][:1, :6], **ENDS)
    assert torch.equal(loss(backbone), before)
    assert torch.equal(gradients(backbone), first)


@pytest.mark.parametrize("kind", KINDS)
def test_activations_computed_again_give_the_same_gradients(kind: str, tmp_path: Path) -> None:
    kept, again = (adapted(tmp_path, "llama", kind, gradient_checkpointing=checkpointing) for checkpointing in (False, True))
    torch.testing.assert_close(gradients(again), gradients(kept), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_bfloat16_model_learns_as_well(kind: str, tmp_path: Path) -> None:
    losses = learn(adapted(tmp_path, "llama", kind, dtype="bfloat16"))
    assert losses[-1] < 0.7 * losses[0]


# What is saved


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", ["gpt2", "llama", "smollm"])
def test_what_is_saved_computes_what_was_trained_and_training_goes_on(family: str, kind: str, tmp_path: Path) -> None:
    backbone = adapted(tmp_path / "hub", family, kind)
    learn(backbone)
    before, expected = frozen(backbone), logits(backbone.model, backbone)
    backbone.save(tmp_path / "checkpoint")
    assert torch.equal(logits(backbone.model, backbone), expected)
    after = frozen(backbone)
    assert all(torch.equal(after[name], before[name]) for name in before)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "checkpoint").to(backbone.model.device)
    assert not hasattr(plain.config, "quantization_config")
    assert {p.dtype for p in plain.parameters()} == {torch.float32}
    tolerance = 1e-4 if plain.device.type == "cpu" else 0.5  # on a GPU, 8 bits round what is multiplied in training, too
    torch.testing.assert_close(logits(plain, backbone), expected, rtol=0, atol=tolerance)
    assert learn(backbone, steps=2)[-1] < loss(loaded(tmp_path / "hub", family, kind)).item()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_adapter_alone_can_be_put_on_the_quantised_model_again(family: str, kind: str, tmp_path: Path) -> None:
    backbone = adapted(tmp_path / "hub", family, kind)
    learn(backbone)
    backbone.save(tmp_path / "checkpoint")
    base = loaded(tmp_path / "hub", family, kind).model
    again = peft.PeftModel.from_pretrained(base, str(tmp_path / "checkpoint" / "adapter"))
    assert torch.equal(logits(again, backbone), logits(backbone.model, backbone))


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_it_thinks_and_answers_as_the_model_that_is_saved(family: str, tmp_path: Path) -> None:
    backbone = adapted(tmp_path / "hub", family, "4bit")
    learn(backbone)
    backbone.save(tmp_path / "checkpoint")
    saved = Pretrained(str(tmp_path / "checkpoint")).load()
    prompt = batch(backbone)[0][:1, :6]
    own, other = (LatentReasoner(each.model, each.tokens).eval() for each in (backbone, saved))
    assert own.generate(prompt, **ENDS).tolist() == other.generate(prompt.to(other.device), **ENDS).tolist()
    with torch.no_grad():
        thoughts = [each(*(t.to(each.device) for t in batch(backbone))).thoughts for each in (own, other)]
    torch.testing.assert_close(thoughts[0].cpu(), thoughts[1].cpu(), rtol=1e-4, atol=1e-4)


# Runs

SUMS = TINY[4:]
"""Tiny runs without the sizes of a model that is made."""


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_run_goes_on_and_ends_with_the_same_bytes_and_grades_alike(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ["model=folder", f"model.path={save_hub_model(tmp_path / 'hub', 'gpt2')}", f"model.quantize={kind}", "peft=lora"]
    asked += ["stage=coconut", "stage.stages=[0,2]", "stage.epochs=[0.6]", "peft.rank=2"]
    whole = train(tmp_path, *asked, "name=whole", base=SUMS)
    step, done = Engine._step, []

    def killed(self: Engine, *given: Any) -> dict[str, float]:
        if len(done) == 4:  # in the second stage, after a validation
            self.save()
            raise KeyboardInterrupt
        done.append(1)
        return step(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "_step", killed)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path, *asked, "name=cut", base=SUMS)
    assert json.loads((tmp_path / "cut/state/position.json").read_text())["step"] == 4
    assert timeless(train(tmp_path, *asked, "name=cut", base=SUMS)) == timeless(whole)
    plain = build("gpt2", 64)  # what follows needs no bitsandbytes: a checkpoint is a plain model
    assert type(AutoModelForCausalLM.from_pretrained(whole / "checkpoint")) is type(plain)
    again = evaluate(whole, "split=valid", f"out={tmp_path / 'again'}")
    assert (again["accuracy"], again["floors"]) == (result(whole)["accuracy"], result(whole)["floors"])
    assert rows(tmp_path / "again/samples.jsonl") == rows(whole / "samples.jsonl")


def test_the_command_says_nothing_of_what_bitsandbytes_warns_of(tmp_path: Path) -> None:
    asked = ["model=folder", f"model.path={save_hub_model(tmp_path / 'hub', 'llama')}", "model.quantize=8bit", "peft=lora"]
    asked += ["stage=no_cot", "max_steps=1", "limit=2", f"outputs={tmp_path}", "name=x", *SUMS]
    command = [sys.executable, "-m", "latent_lab.train", *asked]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    said = ended.stderr.splitlines()
    assert [line.partition(":")[0] for line in said] == ["device cpu, precision fp32", "step 1 of 1, stage 0", f"{tmp_path}/x"]


@pytest.mark.parametrize(("kind", "share"), [("4bit", 0.15), ("8bit", 0.01)])
def test_the_next_stage_rounds_what_the_last_one_learned(kind: str, share: float, tmp_path: Path) -> None:
    backbone = adapted(tmp_path / "hub", "llama", kind)
    begun = learn(backbone, steps=10)[0]
    ended = loss(backbone).item()
    backbone.save(tmp_path / "checkpoint")
    with torch.no_grad():
        lost = abs(loss(loaded(tmp_path / "checkpoint", "llama", kind)).item() - ended)
    assert 0 < lost < share * (begun - ended)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", KINDS)
def test_a_job_on_the_cpu_of_a_machine_with_a_gpu_has_its_model_there(kind: str, tmp_path: Path) -> None:
    with accelerator("cpu"):
        assert loaded(tmp_path, "llama", kind).model.device.type == "cpu"
    assert loaded(tmp_path, "llama", kind).model.device.type == "cuda"
