"""LoRA: which matrices it stands for, what it trains and leaves alone, and checkpoints that need no PEFT."""

import json
from dataclasses import astuple
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from families import FAMILIES, build, save_family, thinking_batch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PhiConfig, PhiForCausalLM
from transformers.pytorch_utils import Conv1D

from latent_lab import LatentReasoner, LatentTokens
from latent_lab.adapters import LoRA, Rows, merged, targets, wrap
from latent_lab.backbone import Backbone, ModelError, Pretrained
from latent_lab.batching import collate
from latent_lab.config import ConfigError, Nothing
from latent_lab.job import job
from latent_lab.plans.arithmetic import Arithmetic
from latent_lab.problems import Problem
from latent_lab.stages.planning import Planning
from tests.tiny import save_hub_model


def adapted(folder: Path, family: str = "gpt2", *, extra_rows: int = 0, **lora: Any) -> Backbone:
    backbone = Pretrained(str(save_family(folder, family, extra_rows))).load()
    torch.manual_seed(1)
    return wrap(backbone, LoRA(**{"rank": 4, **lora}))


def in_memory(family: str, **lora: Any) -> Backbone:
    """The same without files and without a tokenizer, for what needs none."""
    backbone = Backbone(build(family, 64), None, LatentTokens(start=61, latent=62, end=63))  # type: ignore[arg-type]
    return wrap(backbone, LoRA(**{"rank": 4, **lora}))


def train(backbone: Backbone, steps: int = 3) -> None:
    """A few optimiser steps; after the first one every adapter weight has a gradient."""
    reasoner = LatentReasoner(backbone.model, backbone.tokens).train()
    optimizer = torch.optim.AdamW([p for p in reasoner.parameters() if p.requires_grad], lr=1e-2, weight_decay=0.0)
    for _ in range(steps):
        optimizer.zero_grad()
        reasoner(*thinking_batch(backbone.tokens)).loss.backward()
        optimizer.step()


@torch.no_grad()
def logits(model: Any, backbone: Backbone) -> Tensor:
    ids, mask, _ = thinking_batch(backbone.tokens)
    return model.eval()(input_ids=ids, attention_mask=mask).logits[mask.bool()]


def adapted_matrices(backbone: Backbone) -> set[str]:
    names = {name.rpartition(".lora_A")[0] for name, _ in backbone.model.named_parameters() if "lora_A" in name}
    return {name.partition(".0.")[2] for name in names if ".0." in name.partition(".lora_A")[0]}


# Which matrices

LIKE_LLAMA = ("llama", "smollm", "qwen2", "qwen3", "mistral", "gemma")
GATED = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"}
ATTENTION = {
    **dict.fromkeys(LIKE_LLAMA, GATED),
    "gpt2": {"attn.c_attn", "attn.c_proj"},
    "neox": {"attention.query_key_value", "attention.dense"},
}
MLP = {
    **{family: {"mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"} for family in LIKE_LLAMA},
    "gpt2": {"mlp.c_fc", "mlp.c_proj"},
    "neox": {"mlp.dense_h_to_4h", "mlp.dense_4h_to_h"},
}


@pytest.mark.parametrize("preset", ["attention", "mlp", "all-linear"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_preset_stands_for_the_right_matrices_of_each_architecture(family: str, preset: str) -> None:
    want = {"attention": ATTENTION[family], "mlp": MLP[family], "all-linear": ATTENTION[family] | MLP[family]}[preset]
    assert adapted_matrices(in_memory(family, targets=preset)) == want


def test_targets_may_be_named_by_their_ends() -> None:
    gpt2, llama = build("gpt2", 30), build("llama", 30)
    assert targets(gpt2, "c_proj") == ["attn.c_proj", "mlp.c_proj"]
    assert targets(gpt2, ["attn.c_proj"]) == ["attn.c_proj"]
    assert targets(llama, "q_proj, v_proj") == targets(llama, ["q_proj", "v_proj"]) == ["self_attn.q_proj", "self_attn.v_proj"]
    assert targets(llama, ["attention", "down_proj"]) == sorted({*GATED, "mlp.down_proj"})
    assert targets(llama, "all-linear") == "all-linear"


def test_a_matrix_that_the_model_does_not_have_is_refused() -> None:
    with pytest.raises(ModelError) as error:
        targets(build("gpt2", 30), ["c_attn", "q_proj"])
    assert str(error.value) == (
        "peft.targets: given q_proj; GPT2LMHeadModel has no such matrix; allowed: attention, mlp, all-linear, or names among "
        "c_attn, c_fc, c_proj"
    )
    with pytest.raises(ModelError, match=r"^peft\.targets: given lm_head; "):
        targets(build("llama", 30), "lm_head")


def test_an_output_table_with_a_bias_is_refused(tmp_path: Path) -> None:
    save_family(tmp_path, "gpt2")
    vocabulary = json.loads((tmp_path / "config.json").read_text())["vocab_size"]
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    PhiForCausalLM(PhiConfig(vocab_size=vocabulary, **sizes)).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"^peft: given lora; the output table of PhiForCausalLM has a bias"):
        wrap(Pretrained(str(tmp_path)).load(), LoRA())
    with pytest.raises(ModelError, match=r"^peft: given rows; the output table of PhiForCausalLM has a bias"):
        wrap(Pretrained(str(tmp_path)).load(), Rows())


@pytest.mark.parametrize("nothing", [None, Nothing()])
def test_without_adapters_the_backbone_is_the_same_object(nothing: Any, tmp_path: Path) -> None:
    backbone = Pretrained(str(save_family(tmp_path, "gpt2"))).load()
    assert wrap(backbone, nothing) is backbone


# What is trained


@pytest.mark.parametrize("family", FAMILIES)
def test_fresh_adapters_change_nothing(family: str) -> None:
    plain, backbone = build(family, 64), in_memory(family)
    torch.testing.assert_close(logits(backbone.model, backbone), logits(plain, backbone), rtol=1e-5, atol=1e-5)
    out, want = (LatentReasoner(each, backbone.tokens)(*thinking_batch(backbone.tokens)) for each in (backbone.model, plain))
    torch.testing.assert_close(out.thoughts, want.thoughts, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("family", "extra_rows"), [*((family, 0) for family in FAMILIES), ("smollm", 16), ("llama", 16)])
def test_only_the_chosen_matrices_and_the_markers_rows_ever_change(family: str, extra_rows: int, tmp_path: Path) -> None:
    before = Pretrained(str(save_family(tmp_path / "plain", family, extra_rows))).load().model.state_dict()
    backbone = adapted(tmp_path / "adapted", family, extra_rows=extra_rows, targets="attention")
    train(backbone)
    backbone.save(tmp_path / "checkpoint")
    after = AutoModelForCausalLM.from_pretrained(tmp_path / "checkpoint", dtype=torch.float32).state_dict()
    start, latent, end = astuple(backbone.tokens)
    source, head = table_names(backbone)
    own_input = source if after[source].data_ptr() != after[head].data_ptr() else None
    assert after.keys() == before.keys()
    for name, tensor in after.items():
        if name in table_names(backbone):  # a slot is fed a thought, so the latent's row counts where it is an output alone
            learned = {start, end} | ({latent} if name != own_input else set())
            assert set((tensor != before[name]).any(dim=1).nonzero()[:, 0].tolist()) == learned, name  # the others bit for bit
        else:
            is_chosen = any(name.endswith(f".{matrix}.weight") for matrix in ATTENTION[family])
            assert torch.equal(tensor, before[name]) is not is_chosen, name


def table_names(backbone: Backbone) -> list[str]:
    model: Any = backbone.model
    tables = (model.get_base_model().get_input_embeddings(), model.get_base_model().get_output_embeddings())
    return [f"{name}.weight" for name, module in model.get_base_model().named_modules() if module in tables]


def test_two_tables_of_their_own_learn_two_sets_of_rows() -> None:
    backbone = in_memory("llama")
    train(backbone, steps=1)
    rows = {name: p for name, p in backbone.model.named_parameters() if "trainable_tokens_delta" in name}
    assert sorted(name.split(".token_adapter")[0].rpartition(".")[2] for name in rows) == ["embed_tokens", "lm_head"]
    assert all(p.shape == (3, 32) and p.grad.any() for p in rows.values())


def test_a_tied_table_learns_one_set_of_rows() -> None:
    backbone = in_memory("smollm")
    train(backbone, steps=1)
    (rows,) = [p for name, p in backbone.model.named_parameters() if "trainable_tokens_delta" in name]
    assert rows.shape == (3, 32)
    model = backbone.model
    assert torch.equal(model.get_input_embeddings().weight, model.get_output_embeddings().weight)


def test_adapters_of_a_bfloat16_model_are_trained_in_float32(tmp_path: Path) -> None:
    backbone = wrap(Pretrained(str(save_family(tmp_path, "llama")), dtype="bfloat16").load(), LoRA(rank=2))
    types = {p.requires_grad: {q.dtype for q in backbone.model.parameters() if q.requires_grad is p.requires_grad}
             for p in backbone.model.parameters()}  # fmt: skip
    assert types == {True: {torch.float32}, False: {torch.bfloat16}}
    backbone.save(tmp_path / "checkpoint")
    assert {t.dtype for t in load_file(tmp_path / "checkpoint" / "model.safetensors").values()} == {torch.bfloat16}


# New tokens: planning tokens are trained like the markers

PROBLEMS = [Problem("p", "Tom has?", ("<<3+4=7>>", "<<7-2=5>>"), "5"), Problem("q", "Tom has?", ("<<1*1=1>>",), "1")]


def planning(folder: Path, family: str, peft: Any, extra_rows: int = 0) -> tuple[Backbone, Any, list[int]]:
    """A backbone with planning tokens and the adapters asked for, a batch in which all of them occur, and their ids."""
    save_hub_model(folder, "llama" if family == "llama" else "gpt2", extra_rows=extra_rows)
    torch.manual_seed(1)
    stage = Planning(num_prefix=1, num_special=1, rows_from="mean_noise")
    stage.plan = Arithmetic()  # type: ignore[misc]
    backbone = Pretrained(str(folder)).load()
    stage.prepare(backbone, PROBLEMS, folder)
    backbone = wrap(backbone, peft)
    encoded = stage.encode(PROBLEMS, backbone.tokenizer)
    batch = collate([stage.sequence(p, backbone.tokens, 0) for p in encoded], backbone.pad)
    return backbone, batch, list(backbone.more)


def learn(backbone: Backbone, batch: Any, steps: int = 3) -> None:
    reasoner = LatentReasoner(backbone.model, backbone.tokens).train()
    trained = [p for p in reasoner.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-2, weight_decay=0.0)
    for _ in range(steps):
        optimizer.zero_grad()
        reasoner(batch.input_ids, batch.attention_mask, batch.labels).loss.backward()
        optimizer.step()


MODES = {"lora": LoRA(rank=2), "lora alone": LoRA(rank=2, rows=False), "rows": Rows()}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("family", "extra_rows"), [("gpt2", 0), ("llama", 0), ("gpt2", 40), ("llama", 40)])
def test_only_new_rows_and_chosen_matrices_change_bit_for_bit(mode: str, family: str, extra_rows: int, tmp_path: Path) -> None:
    backbone, batch, new = planning(tmp_path / "hub", family, MODES[mode], extra_rows)
    before = {name: t.clone() for name, t in merged(backbone.model.get_base_model()).state_dict().items()}
    learn(backbone, batch)
    backbone.save(tmp_path / "checkpoint")
    after = AutoModelForCausalLM.from_pretrained(tmp_path / "checkpoint", dtype=torch.float32).state_dict()
    assert after.keys() == before.keys()
    markers = set(astuple(backbone.tokens))
    used = set(batch.input_ids.flatten().tolist()) & set(new)
    assert len(used) == 5  # prefix, answer, + - *; the tokens of / and of assignments stand nowhere
    for name, tensor in after.items():
        changed = tensor != before[name]
        if name.endswith(("wte.weight", "embed_tokens.weight", "lm_head.weight")):
            rows = set(changed.any(dim=1).nonzero()[:, 0].tolist())
            is_output = family == "gpt2" or name.startswith("lm_head")
            want = set(new) | markers if is_output else used  # as an output every row is held against the right one
            assert rows == (set() if mode == "lora alone" else want), name
        else:
            is_matrix = mode != "rows" and changed.ndim == 2 and "wpe" not in name
            assert bool(changed.any()) is is_matrix, name


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_adapter_is_small_and_gives_the_same_logits_on_a_model_with_as_many_rows(
    mode: str, family: str, tmp_path: Path
) -> None:
    backbone, batch, new = planning(tmp_path / "hub", family, MODES[mode])
    learn(backbone, batch)
    backbone.save(tmp_path / "checkpoint")
    stored = load_file(tmp_path / "checkpoint" / "adapter" / "adapter_model.safetensors")
    rows = {name: t for name, t in stored.items() if "trainable_tokens" in name}
    assert {len(t) for t in rows.values()} == (set() if mode == "lora alone" else {len(new) + 3})
    assert all("lora" in name for name in stored.keys() - rows.keys())
    assert not stored.keys() - rows.keys() or mode != "rows"
    table = backbone.model.get_base_model().get_input_embeddings().weight
    assert sum(t.numel() for t in rows.values()) <= 2 * (len(new) + 3) * table.shape[1]
    assert max(t.numel() for t in stored.values()) < table.numel() / 10
    kept = Pretrained(str(tmp_path / "checkpoint")).load()
    torch.manual_seed(1)
    fresh, _, _ = planning(tmp_path / "fresh", family, None)
    again = peft.PeftModel.from_pretrained(fresh.model, str(tmp_path / "checkpoint" / "adapter"))
    with torch.no_grad():
        of = [
            m.eval()(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits[batch.attention_mask.bool()]
            for m in (backbone.model, kept.model, again)
        ]
    torch.testing.assert_close(of[1], of[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(of[2], of[0], rtol=1e-5, atol=1e-5)


def test_rows_of_a_bfloat16_model_are_trained_in_float32(tmp_path: Path) -> None:
    backbone = wrap(Pretrained(str(save_family(tmp_path, "llama")), dtype="bfloat16").load(), Rows())
    types = [(p.dtype, tuple(p.shape)) for p in backbone.model.parameters() if p.requires_grad]
    assert types == [(torch.float32, (3, 32))] * 2


# Checkpoints


@pytest.mark.parametrize("family", ["gpt2", "llama", "smollm"])
def test_saving_merges_a_copy_and_leaves_the_training_model_bit_for_bit_as_it_was(family: str, tmp_path: Path) -> None:
    backbone = adapted(tmp_path / "hub", family)
    train(backbone)
    before = {name: tensor.clone() for name, tensor in backbone.model.state_dict().items()}
    learned = [name for name, p in backbone.model.named_parameters() if p.requires_grad]
    expected = logits(backbone.model, backbone)
    backbone.save(tmp_path / "checkpoint")
    assert [name for name, p in backbone.model.named_parameters() if p.requires_grad] == learned  # gradients of others would clip
    after = backbone.model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert torch.equal(logits(backbone.model, backbone), expected)
    train(backbone, steps=1)  # and it trains on


def test_a_checkpoint_is_a_normal_folder_with_the_adapter_in_a_folder_of_its_own(tmp_path: Path) -> None:
    backbone = adapted(tmp_path / "hub", targets="attention")
    train(backbone)
    backbone.save(tmp_path / "checkpoint")
    assert sorted(str(path.relative_to(tmp_path / "checkpoint")) for path in (tmp_path / "checkpoint").rglob("*.*")) == [
        "adapter/adapter_config.json", "adapter/adapter_model.safetensors", "config.json", "generation_config.json",
        "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "checkpoint")
    assert not any("lora" in name for name, _ in plain.named_parameters())
    settings = json.loads((tmp_path / "checkpoint" / "adapter" / "adapter_config.json").read_text())
    assert (settings["r"], settings["lora_alpha"], settings["fan_in_fan_out"]) == (4, 32.0, True)
    assert settings["target_modules"] == ["attn.c_attn", "attn.c_proj"]
    assert settings["base_model_name_or_path"] is None  # a folder of this machine


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing")
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_adapter_alone_can_be_put_on_the_model_it_was_trained_on(family: str, tmp_path: Path) -> None:
    backbone = adapted(tmp_path / "hub", family)
    train(backbone)
    backbone.save(tmp_path / "checkpoint")
    base = Pretrained(str(tmp_path / "hub")).load().model
    again = peft.PeftModel.from_pretrained(base, str(tmp_path / "checkpoint" / "adapter"))
    torch.testing.assert_close(logits(again, backbone), logits(backbone.model, backbone), rtol=1e-5, atol=1e-5)


def test_the_same_training_writes_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        backbone = adapted(tmp_path / f"hub-{name}")
        train(backbone)
        backbone.save(tmp_path / name)
    files = [path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.*")]
    assert all((tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes() for file in files)


def test_the_next_stage_starts_from_the_merged_model_with_fresh_adapters(tmp_path: Path) -> None:
    backbone = adapted(tmp_path / "hub")
    train(backbone)
    backbone.save(tmp_path / "checkpoint")
    following = wrap(Pretrained(str(tmp_path / "checkpoint")).load(), LoRA(rank=2))
    torch.testing.assert_close(logits(following.model, backbone), logits(backbone.model, backbone), rtol=1e-5, atol=1e-5)


def test_matrices_that_quantising_has_turned_are_turned_back(tmp_path: Path) -> None:
    backbone = Pretrained(str(save_family(tmp_path / "hub", "gpt2"))).load()
    for module in list(backbone.model.modules()):  # bitsandbytes puts Linear in the place of GPT-2's Conv1D
        for name, child in list(module.named_children()):
            if isinstance(child, Conv1D):
                turned = nn.Linear(*child.weight.shape)
                turned.load_state_dict({"weight": child.weight.T, "bias": child.bias})
                setattr(module, name, turned)
    backbone = wrap(backbone, LoRA(rank=4))
    train(backbone)
    backbone.save(tmp_path / "checkpoint")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "checkpoint")
    assert sum(isinstance(module, Conv1D) for module in plain.modules()) == 8
    torch.testing.assert_close(logits(plain, backbone), logits(backbone.model, backbone), rtol=1e-4, atol=1e-4)


# Its settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rank": 0}, "rank=0: allowed are 1 and more"),
        ({"alpha": 0}, "alpha=0: allowed are numbers above 0"),
        ({"dropout": 1.0}, "dropout=1.0: allowed are 0 to below 1"),
        ({"targets": ""}, "targets=: allowed are attention, mlp, all-linear, or names as in [q_proj,v_proj]"),
        ({"targets": 3}, "targets=3: allowed are attention, mlp, all-linear, or names as in [q_proj,v_proj]"),
    ],
)
def test_adapters_that_cannot_be_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match="^" + message.replace("[", r"\[") + "$"):
        LoRA(**settings)


def test_adapters_are_chosen_as_a_group_and_named_in_the_runs_name() -> None:
    assert isinstance(job("train", []).config.peft, Nothing)
    chosen = job("train", ["peft=lora", "peft.targets=[q_proj,v_proj]", "peft.rank=8", "stage=2", "model=llama"])
    assert chosen.config.peft == LoRA(rank=8, targets=["q_proj", "v_proj"])
    assert chosen.slug == "model=llama,peft=lora,stage=2,peft.rank=8,peft.targets=q_proj+v_proj"
    with pytest.raises(ConfigError, match=r"^peft: given ia3; allowed: lora, none, prefix, prompt, rows"):
        job("train", ["peft=ia3"])


def test_quantised_models_are_trained_through_adapters_alone() -> None:
    with pytest.raises(ConfigError) as error:
        job("train", ["model=llama", "model.quantize=4bit"])
    assert str(error.value) == (
        "model.quantize: given 4bit; quantised matrices cannot be trained; allowed: with a peft= beside none, else none"
    )
    for kind in ("lora", "rows", "prompt", "prefix"):
        assert job("train", ["model=llama", "model.quantize=4bit", f"peft={kind}"]).config.model.quantize == "4bit"
