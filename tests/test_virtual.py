"""Virtual tokens: the reasoner computes what PEFT computes, nothing of the model changes, and checkpoints bring them back."""

import json
import re
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from families import save_family, thinking_batch
from safetensors.torch import load_file
from tiny import MODEL, evaluate, result, rows, timeless, train

from latent_lab import LatentReasoner, checkpoint
from latent_lab.adapters import LoRA, Prefix, Prompt, attached, virtual_in, wrap
from latent_lab.backbone import Backbone, ModelError, Pretrained
from latent_lab.card import model_card
from latent_lab.config import ConfigError, Nothing
from latent_lab.job import job
from latent_lab.loop import Loop
from latent_lab.plans.base import PlanError
from latent_lab.plans.embedding import embed

KINDS = (Prompt, Prefix)
FAMILIES = ("gpt2", "llama", "qwen3", "neox")


def virtual(folder: Path, family: str, kind: type[Prompt], num_tokens: int = 3) -> Backbone:
    """A tiny model with virtual tokens that have been pushed about, so that they say something of their own."""
    backbone = wrap(Pretrained(str(save_family(folder, family))).load(), kind(num_tokens, "Tom has"))
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in trained(backbone):
            parameter += torch.randn_like(parameter)
    return backbone


def trained(backbone: Backbone) -> list[torch.nn.Parameter]:
    return [p for p in backbone.model.parameters() if p.requires_grad]


def ids_of(*rows: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask of rows, padded on the right."""
    width = max(map(len, rows))
    ids, mask = (
        torch.tensor([[*each, *[0] * (width - len(each))] for each in part]) for part in (rows, [[1] * len(r) for r in rows])
    )
    return ids, mask


# The same as PEFT


@pytest.mark.filterwarnings("ignore:Position ids")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_reasoner_computes_what_peft_computes(family: str, kind: type[Prompt], tmp_path: Path) -> None:
    backbone = virtual(tmp_path, family, kind)
    reasoner = LatentReasoner(backbone.model, backbone.tokens).eval()
    ids = torch.tensor([[40, 41, 42, 43, 44, 45]])
    with torch.no_grad():
        own = backbone.model.eval()(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[:, -6:]
        plain = backbone.model.get_base_model()(input_ids=ids).logits
        logits = reasoner(ids, labels=ids).logits
    torch.testing.assert_close(logits, own[0, :-1], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(logits, plain[0, :-1], atol=1e-2)
    ends = {"max_new_tokens": 12, "eos_token_id": 0, "pad_token_id": 0}
    written = backbone.model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, **ends)[:, 6:]
    assert torch.equal(reasoner.generate(ids, **ends), written)


@pytest.mark.parametrize("kind", KINDS)
def test_they_begin_as_a_text_before_the_question(kind: type[Prompt], tmp_path: Path) -> None:
    plain = Pretrained(str(save_family(tmp_path, "llama"))).load()
    text = plain.tokenizer(["Tom has 7"], add_special_tokens=False)["input_ids"][0]
    question = [40, 41, 42]
    want = LatentReasoner(plain.model, plain.tokens).eval()
    count = len(text) + 2  # two tokens longer than the text: it begins again
    told = torch.tensor([[*text, *text[:2], *question]])
    labels = torch.tensor([[*[-100] * count, *question]])
    with torch.no_grad():
        expected = want(told, labels=labels).logits[1:]
        backbone = wrap(plain, kind(count, "Tom has 7"))
        found = (
            LatentReasoner(backbone.model, backbone.tokens)
            .eval()(torch.tensor([question]), labels=torch.tensor([question]))
            .logits
        )
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


# Batches, caches, thoughts


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_batch_is_its_rows_with_and_without_thoughts(family: str, kind: type[Prompt], tmp_path: Path) -> None:
    backbone = virtual(tmp_path, family, kind)
    for loop in (Loop(), Loop(rounds=1), Loop(feeds="tokens"), Loop(feedback="before_norm")):
        reasoner = LatentReasoner(backbone.model, backbone.tokens, loop).eval()
        ids, mask, labels = thinking_batch(backbone.tokens)
        with torch.no_grad():
            whole = reasoner(ids, mask, labels)
            rows = [reasoner(ids[i : i + 1, : mask[i].sum()], None, labels[i : i + 1, : mask[i].sum()]) for i in range(3)]
        torch.testing.assert_close(whole.logits, torch.cat([row.logits for row in rows]), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(whole.thoughts[0], rows[0].thoughts[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_rounds_for_every_slot_are_the_sequential_loop(kind: type[Prompt], tmp_path: Path) -> None:
    backbone = virtual(tmp_path, "llama", kind)
    loops = (Loop(), Loop(rounds=2))
    with torch.no_grad():
        one, other = (
            LatentReasoner(backbone.model, backbone.tokens, loop).eval()(*thinking_batch(backbone.tokens)) for loop in loops
        )
    torch.testing.assert_close(one.logits, other.logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lengths", [(5, 3, 1), (1, 1, 1)])
def test_prompts_of_any_length_are_continued_alike_alone_and_together(
    kind: type[Prompt], lengths: tuple[int, ...], tmp_path: Path
) -> None:
    backbone = virtual(tmp_path, "gpt2", kind)
    reasoner = LatentReasoner(backbone.model, backbone.tokens).eval()
    rows = [[40 + i, 50, 60, 70, 80][:n] for i, n in enumerate(lengths)]
    ends = {"max_new_tokens": 20, "eos_token_id": 0, "pad_token_id": 0}
    together = reasoner.generate(*ids_of(*rows), **ends)
    for row, new in zip(rows, together, strict=True):
        alone = reasoner.generate(torch.tensor([row]), **ends)[0]
        assert torch.equal(new[: len(alone)], alone)
        full = torch.tensor([[*row, *alone.tolist()]])  # what is written is the likeliest token without a cache, too
        with torch.no_grad():
            own = backbone.model(input_ids=full, attention_mask=torch.ones_like(full)).logits[0, -len(alone) - 1 : -1].argmax(-1)
        assert torch.equal(own, alone)


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_that_sees_thoughts_alone_still_sees_them(kind: type[Prompt], alone: bool, tmp_path: Path) -> None:
    backbone = virtual(tmp_path, "gpt2", kind)
    reasoner = LatentReasoner(backbone.model, backbone.tokens, Loop(alone=alone)).eval()
    ids, mask, labels = (each[:1] for each in thinking_batch(backbone.tokens))
    closed = torch.tensor([True])
    out = reasoner(ids, mask, labels, is_closed=closed)
    out.loss.backward()
    assert all(bool(p.grad.any()) for p in trained(backbone))
    ends = {"max_new_tokens": 5, "eos_token_id": 0, "pad_token_id": 0}
    prompt = ids[:, :6]
    new = reasoner.generate(prompt, is_closed=closed, **ends)
    again = torch.cat([prompt, new], dim=1)
    with torch.no_grad():
        said = reasoner(again, labels=again.clone().index_fill(1, torch.arange(6), -100), is_closed=closed).logits.argmax(-1)
    assert said.tolist() == new[0].tolist()


# What is learned and kept


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing")
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_only_they_are_learned_and_only_they_are_kept(family: str, kind: type[Prompt], recompute: bool, tmp_path: Path) -> None:
    folder = save_family(tmp_path / "hub", family)
    backbone = Pretrained(str(folder), gradient_checkpointing=recompute).load()
    before = {name: t.clone() for name, t in backbone.model.state_dict().items()}
    backbone = wrap(backbone, kind(4, "Tom has 7"))
    (learned,) = trained(backbone)
    width, layers, heads = (32, 2, 4 if family == "gpt2" else 2)
    size = 4 * (width if kind is Prompt else 2 * layers * heads * 8)
    assert learned.numel() == size
    reasoner = LatentReasoner(backbone.model, backbone.tokens).train()
    optimizer = torch.optim.AdamW([learned], lr=1e-2)
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        losses.append(reasoner(*thinking_batch(backbone.tokens)).loss)
        losses[-1].backward()
        optimizer.step()
    assert losses[2] < losses[0]
    info = checkpoint.Info(1, 2, 5, None, None, 0)
    checkpoint.save(tmp_path / "checkpoint", backbone, info, None)
    assert [file.name for file in sorted((tmp_path / "checkpoint" / "adapter").iterdir())] == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    stored = load_file(tmp_path / "checkpoint" / "adapter" / "adapter_model.safetensors")
    assert {name: t.numel() for name, t in stored.items()} == {"prompt_embeddings": size}
    assert (tmp_path / "checkpoint" / "adapter" / "adapter_model.safetensors").stat().st_size < 4 * size + 500
    assert (
        json.loads((tmp_path / "checkpoint" / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"] is None
    )
    plain = Pretrained(str(tmp_path / "checkpoint")).load()
    after = plain.model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    again, _, _ = checkpoint.load(tmp_path / "checkpoint")
    by_peft = peft.PeftModel.from_pretrained(plain.model, str(tmp_path / "checkpoint" / "adapter"))
    with torch.no_grad():
        of = [
            LatentReasoner(m, backbone.tokens).eval()(*thinking_batch(backbone.tokens))
            for m in (backbone.model, again.model, by_peft)
        ]
    assert torch.equal(of[1].logits, of[0].logits)
    assert torch.equal(of[2].logits, of[0].logits)
    assert again.room == backbone.room == plain.room - 4


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing")
@pytest.mark.parametrize("kind", KINDS)
def test_what_was_learned_is_learned_further_or_refused(kind: type[Prompt], tmp_path: Path) -> None:
    backbone = virtual(tmp_path / "hub", "llama", kind)
    backbone.save(tmp_path / "checkpoint")
    assert virtual_in(tmp_path / "checkpoint") == (kind, 3)
    further = wrap(Pretrained(str(tmp_path / "checkpoint")).load(), kind(3, "Other"), tmp_path / "checkpoint")
    assert torch.equal(trained(further)[0], trained(backbone)[0])
    name = kind.__name__.lower()
    for other, given in ((None, "none"), (Nothing(), "none"), (LoRA(), "lora"), (kind(4), name)):
        with pytest.raises(ModelError) as error:
            wrap(Pretrained(str(tmp_path / "checkpoint")).load(), other, tmp_path / "checkpoint")
        assert str(error.value) == (
            f"peft: given {given}; {tmp_path / 'checkpoint'} has 3 virtual tokens that would be lost; allowed: peft={name} "
            "peft.num_tokens=3"
        )
    assert virtual_in(tmp_path / "hub") is None
    assert attached(backbone, tmp_path / "hub") is backbone


# Runs

ASKED = (
    "dataset.digits=[2]",
    "dataset.probabilities=[1.0]",
    "dataset.train_size=24",
    "dataset.valid_size=9",
    "dataset.test_size=8",
)
RUN = (*MODEL, *ASKED, "batch_size=8", "device=cpu", "peft.num_tokens=3", "optim.name=muon")


@pytest.mark.parametrize("kind", ["prompt", "prefix"])
@pytest.mark.parametrize("stage", [["stage=cot"], ["stage=planning", "plan=arithmetic"], ["stage=1"]])
def test_a_run_is_graded_from_its_checkpoint_as_it_was_in_training(stage: list[str], kind: str, tmp_path: Path) -> None:
    run = train(tmp_path, *stage, f"peft={kind}", "stage.epochs=[0.34]", "name=mine", base=RUN)
    again = evaluate(run, "split=valid", f"out={tmp_path / 'again'}")
    stored = result(run)
    assert virtual_in(run / "checkpoint") == (Prompt if kind == "prompt" else Prefix, 3)
    for key in ("accuracy", "floors", "teacher_forced_exact", "tokens_per_answer"):
        assert again[key] == stored[key], key
    assert [row["output"] for row in rows(tmp_path / "again" / "samples.jsonl")] == [
        row["output"] for row in rows(run / "samples.jsonl")
    ]
    hashed = checkpoint.weights_hash(run / "checkpoint")
    adapter = run / "checkpoint" / "adapter" / "adapter_model.safetensors"
    adapter.write_bytes(adapter.read_bytes()[:-1] + b"x")
    assert checkpoint.weights_hash(run / "checkpoint") != hashed  # so that another prompt never passes for this one
    if stage == ["stage=1"]:  # which began as stage 0 ended, virtual tokens and all
        first = tmp_path / job("train", [*RUN, "stage=0", f"peft={kind}", "stage.epochs=[0.34]"]).slug
        assert virtual_in(first / "checkpoint") == virtual_in(run / "checkpoint")
        with pytest.raises(
            ConfigError, match=r"^stage\.run: given .*; an oracle has no place for its virtual tokens; allowed: runs "
        ):
            train(tmp_path, "stage=oracle", "oracle=self", "stage.run=mine", base=("device=cpu",))
    elif stage != ["stage=cot"]:
        with pytest.raises(PlanError, match=r"has virtual tokens; allowed: runs with peft=none, lora or rows$"):
            evaluate(run, "task=attention")
        with pytest.raises(
            PlanError, match=r"has virtual tokens, which no step has before it; allowed: runs with other adapters$"
        ):
            embed([], str(run / "checkpoint"), layer=-1, pooling="mean", in_context=True)


def test_the_same_run_writes_the_same_bytes(tmp_path: Path) -> None:
    first, second = (train(tmp_path / name, "stage=cot", "peft=prefix", "stage.epochs=[0.67]", base=RUN) for name in ("a", "b"))
    assert timeless(first) == timeless(second)
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (first / "checkpoint" / "adapter" / name).read_bytes() == (second / "checkpoint" / "adapter" / name).read_bytes()


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError) as error:
        job("train", ["stage=planning", "plan=arithmetic", "stage.text_sees=segment", "peft=prefix"])
    assert str(error.value) == (
        "peft: given prefix; stage.text_sees=segment would hide its virtual tokens; allowed: none, lora, rows"
    )
    with pytest.raises(ConfigError, match=r"^peft\.num_tokens: given 0; allowed: 1 and more$"):
        job("train", ["peft=prompt", "peft.num_tokens=0"])
    with pytest.raises(ConfigError, match=r"^peft\.text: given ''; give a text that the virtual tokens can begin as$"):
        job("train", ["peft=prompt", "peft.text=''"])


@pytest.mark.filterwarnings("ignore:Position ids", "ignore:.*gradient_checkpointing")
@pytest.mark.parametrize("kind", ["prompt", "prefix"])
def test_the_code_in_the_model_card_writes_what_the_reasoner_writes(kind: str, tmp_path: Path) -> None:
    backbone = virtual(tmp_path / "hub", "gpt2", Prompt if kind == "prompt" else Prefix)
    checkpoint.save(tmp_path / "checkpoint", backbone, checkpoint.Info(0, 0, 7, None, None, 0), None)
    card = model_card("mine", job("train", ["stage=cot", f"peft={kind}", "peft.num_tokens=3"]).plain, None)
    assert f"| adapters | {kind.title()} num_tokens=3 |" in card
    names: dict[str, Any] = {"folder": str(tmp_path / "checkpoint"), "question": "Tom has?"}
    for code in re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL):
        exec(code.replace("max_new_tokens=256", "max_new_tokens=7"), names)
    ends = {"max_new_tokens": 7, "eos_token_id": backbone.tokenizer.eos_token_id, "pad_token_id": backbone.pad}
    ids = names["prompt"]["input_ids"]
    written = LatentReasoner(backbone.model, backbone.tokens).eval().generate(ids, **ends)
    assert torch.equal(names["new"][:, ids.shape[1] :], written)
