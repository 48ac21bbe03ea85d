"""The reasoner equals the published Coconut implementation on stored outputs of its own: loss, every gradient, continuations."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from latent_lab import LatentReasoner, LatentTokens

OUTDATED = ("model_type", "transformers_version", "torch_dtype", "_name_or_path", "_attn_implementation_autoset", "return_dict")
"""Entries of the stored configs that only the library that wrote them takes."""


@dataclass
class Golden:
    """One stored model and what the published implementation computed with it."""

    about: dict[str, Any]
    tensors: dict[str, Tensor]
    model: PreTrainedModel
    reasoner: LatentReasoner

    def batch(self, case: int) -> dict[str, Tensor]:
        return {name: torch.tensor(value) for name, value in self.about["cases"][case]["batch"].items()}


@pytest.fixture(scope="module", params=["coconut_gpt2_tiny", "coconut_llama_tiny"])
def golden(request: pytest.FixtureRequest, data_folder: Path) -> Golden:
    path = data_folder.parent / "golden" / f"{request.param}.json"
    if not path.exists():
        pytest.skip(f"the published implementation's outputs are not at {path}")
    about, tensors = json.loads(path.read_text(encoding="utf-8")), load_file(path.with_suffix(".safetensors"))
    settings = {key: value for key, value in about["config"].items() if key not in OUTDATED}
    model = GPT2LMHeadModel(GPT2Config(**settings)) if about["kind"] == "gpt2" else LlamaForCausalLM(LlamaConfig(**settings))
    weights = {name.removeprefix("weight."): value for name, value in tensors.items() if name.startswith("weight.")}
    missing, _ = model.load_state_dict(weights, strict=False)  # old checkpoints also hold causal masks
    assert set(missing) <= {"lm_head.weight"}  # tied
    tokens = LatentTokens(about["start_id"], about["latent_id"], about["end_id"])
    return Golden(about, tensors, model.eval(), LatentReasoner(model, tokens))


CASES = pytest.mark.parametrize("case", [0, 1, 2, 3])


def test_there_are_four_cases(golden: Golden) -> None:
    latent = golden.about["latent_id"]
    slots = [[row["input_ids"].count(latent) for row in case["rows"]] for case in golden.about["cases"]]
    assert len(slots) == 4
    assert any(len(set(numbers)) > 1 for numbers in slots)  # unequal numbers of slots in one batch


@CASES
def test_the_loss_is_the_published_one(golden: Golden, case: int) -> None:
    batch = golden.batch(case)
    out = golden.reasoner(batch["input_ids"], batch["attention_mask"], batch["labels"], batch["position_ids"])
    assert out.loss.item() == pytest.approx(golden.about["cases"][case]["loss"], rel=1e-5)


@CASES
def test_every_gradient_is_the_published_one(golden: Golden, case: int) -> None:
    batch = golden.batch(case)
    golden.model.zero_grad()
    golden.reasoner(batch["input_ids"], batch["attention_mask"], batch["labels"], batch["position_ids"]).loss.backward()
    stored = {name: golden.tensors[f"case{case}.grad.{name}"] for name, _ in golden.model.named_parameters()}
    off = {n: ((p.grad - stored[n]).norm() / (stored[n].norm() + 1e-8)).item() for n, p in golden.model.named_parameters()}
    assert {name: value for name, value in off.items() if not value <= 5e-5} == {}


@CASES
def test_the_thoughts_are_the_vectors_it_fed_in(golden: Golden, case: int) -> None:
    batch = golden.batch(case)
    out = golden.reasoner(batch["input_ids"], batch["attention_mask"], None, batch["position_ids"])
    slots = (batch["input_ids"] == golden.about["latent_id"]) & batch["attention_mask"].bool()
    fed = golden.tensors[f"case{case}.inputs_embeds"]
    for row in range(len(slots)):
        assert torch.allclose(out.thoughts[row, : int(slots[row].sum())], fed[row, slots[row]], atol=2e-5)


@CASES
def test_its_alignment_and_padding_are_not_needed(golden: Golden, case: int) -> None:
    rows, width = golden.about["cases"][case]["rows"], 30
    ids, labels, mask = (torch.full((len(rows), width), fill) for fill in (golden.about["pad_id"], -100, 0))
    for i, row in enumerate(rows):
        length = len(row["input_ids"])
        ids[i, :length], labels[i, :length] = torch.tensor(row["input_ids"]), torch.tensor(row["labels"])
        mask[i, :length] = 1
    assert golden.reasoner(ids, mask, labels).loss.item() == pytest.approx(golden.about["cases"][case]["loss"], rel=1e-5)


def until_end(tokens: list[int], end: int) -> list[int]:
    return tokens[: tokens.index(end)] if end in tokens else tokens


@CASES
@pytest.mark.parametrize("side", ["left", "right"])
def test_greedy_continuations_are_the_published_ones(golden: Golden, case: int, side: str) -> None:
    stored, pad, end = golden.about["cases"][case]["generations"], golden.about["pad_id"], golden.about["eos_id"]
    width = max(len(g["prompt"]) for g in stored)
    ids, mask = torch.full((len(stored), width), pad), torch.zeros(len(stored), width, dtype=torch.long)
    for i, g in enumerate(stored):
        where = slice(width - len(g["prompt"]), width) if side == "left" else slice(len(g["prompt"]))
        ids[i, where], mask[i, where] = torch.tensor(g["prompt"]), 1
    new = golden.reasoner.generate(ids, mask, max_new_tokens=12, eos_token_id=end, pad_token_id=pad).tolist()
    assert [until_end(row, end) for row in new] == [until_end(g["tokens"], end) for g in stored]
