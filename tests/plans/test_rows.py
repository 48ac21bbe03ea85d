"""Rows of planning tokens: where they are, how they begin, and what is checked before a training begins."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from latent_lab.adapters import LoRA, wrap
from latent_lab.backbone import Backbone, Pretrained
from latent_lab.batching import collate
from latent_lab.plans.arithmetic import Arithmetic
from latent_lab.plans.base import Plan, PlanError
from latent_lab.plans.layout import Blocks
from latent_lab.plans.reading import Reading
from latent_lab.plans.rows import NOISE, check_names, check_rows, give_rows
from latent_lab.plans.startup import check_gradients, inspect
from latent_lab.problems import Problem
from latent_lab.reasoner import LatentReasoner
from latent_lab.sequences import encode
from latent_lab.stages.planning import Planning
from latent_lab.supervision import SupervisedReasoner
from tests.tiny import save_hub_model

PROBLEMS = [Problem("p", "How many?", ("<<3+4=7>>", "<<7-2=5>>"), "5"), Problem("q", "How many?", ("<<1+1=2>>",), "2")]
BLOCKS = Blocks(Arithmetic(), num_prefix=1, num_special=2, place="steps", answer=True)


def loaded(folder: Path, family: str, extra_rows: int = 0) -> Backbone:
    return Pretrained(str(save_hub_model(folder, family, extra_rows=extra_rows))).load()


def tables(backbone: Backbone) -> tuple[torch.Tensor, torch.Tensor]:
    model: Any = backbone.model
    return model.get_input_embeddings().weight.detach(), model.get_output_embeddings().weight.detach()


@pytest.mark.parametrize(("family", "extra_rows"), [("gpt2", 0), ("llama", 0), ("gpt2", 7), ("llama", 40)])
def test_ids_and_rows_agree_and_no_other_row_changes(tmp_path: Path, family: str, extra_rows: int) -> None:
    backbone = loaded(tmp_path, family, extra_rows)
    before, num_known = [t.clone() for t in tables(backbone)], len(backbone.tokenizer)
    give_rows(backbone, BLOCKS, "word", PROBLEMS)
    names = BLOCKS.tokens()
    assert len(names) == 13
    assert backbone.more == tuple(range(num_known, num_known + 13))
    assert backbone.tokenizer.convert_ids_to_tokens(list(backbone.more)) == names
    for old, new in zip(before, tables(backbone), strict=True):
        assert len(new) == max(len(old), num_known + 13)
        assert torch.equal(new[:num_known], old[:num_known])
        assert torch.equal(new[num_known + 13 :], old[num_known + 13 :])


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_rows_begin_as_asked_in_both_tables(tmp_path: Path, family: str) -> None:
    for start in ("word", "mean", "centroid"):
        backbone = loaded(tmp_path / start, family)
        num_known = len(backbone.tokenizer)
        give_rows(backbone, BLOCKS, start, PROBLEMS)
        tokenizer = backbone.tokenizer
        steps = [step for e in encode(PROBLEMS, tokenizer) for step in e.steps]
        of: dict[str, dict[str, list[int]]] = {
            "word": {name: tokenizer(name, add_special_tokens=False)["input_ids"] for name in ("+", "-", "prefix", "answer")},
            "mean": {name: list(range(num_known)) for name in ("+", "-", "prefix", "answer")},
            "centroid": {
                "+": [*steps[0], *steps[2]],
                "-": [*steps[1]],
                "prefix": [i for step in steps for i in step],
                "answer": [i for e in encode(PROBLEMS, tokenizer) for i in e.answer],
                "*": list(range(num_known)),  # no step multiplies
            },
        }
        for kind, ids in of[start].items():
            row = tokenizer.convert_tokens_to_ids(f"<{kind}_0>")
            for table in tables(backbone):
                torch.testing.assert_close(table[row], table[ids].mean(0), rtol=1e-4, atol=1e-5)


def test_noise_tells_rows_apart(tmp_path: Path) -> None:
    backbone = loaded(tmp_path / "a", "llama")
    give_rows(backbone, BLOCKS, "mean_noise", PROBLEMS)
    known, rows = (tables(backbone)[0][part] for part in (slice(0, backbone.more[0]), list(backbone.more)))
    away = (rows - known.mean(0)) / known.std(0)
    assert float(away.std()) == pytest.approx(NOISE, rel=0.2)
    assert len(torch.unique(rows, dim=0)) == 13
    backbone = loaded(tmp_path / "b", "llama")
    give_rows(backbone, BLOCKS, "random", PROBLEMS)
    known, rows = (tables(backbone)[0][part] for part in (slice(0, backbone.more[0]), list(backbone.more)))
    assert float(rows.std()) == pytest.approx(float(known.std()), rel=0.2)


def test_tokens_that_are_there_already_keep_their_rows(tmp_path: Path) -> None:
    backbone = loaded(tmp_path / "hub", "gpt2")
    give_rows(backbone, BLOCKS, "random", PROBLEMS)
    backbone.save(tmp_path / "again")
    BLOCKS.plan.save(tmp_path / "again")
    again = Pretrained(str(tmp_path / "again")).load()
    give_rows(again, BLOCKS, "random", PROBLEMS)
    assert again.more == backbone.more
    assert all(torch.equal(a, b) for a, b in zip(tables(again), tables(backbone), strict=True))


@pytest.mark.parametrize("taken", ["<+_0>", "<|latent|>", "<|end|>", "x"])
def test_a_token_that_is_something_else_already_is_an_error(tmp_path: Path, taken: str) -> None:
    """Added by somebody else, a marker, the end of a text, a word of the vocabulary."""
    backbone = loaded(tmp_path, "llama")
    tokenizer = backbone.tokenizer
    tokenizer.add_special_tokens({"additional_special_tokens": ["<+_0>"]}, replace_extra_special_tokens=False)
    with pytest.raises(PlanError) as error:
        check_names(backbone, ["<prefix_0>", taken])
    assert str(error.value) == (
        f"planning token {taken}: the tokenizer has it already, its id is {tokenizer.convert_tokens_to_ids(taken)}; "
        "allowed: tokens of other names, by stage.form or stage.names"
    )
    with pytest.raises(PlanError, match=r"^planning token <\+_0>: the tokenizer has it already"):
        give_rows(backbone, BLOCKS, "word", PROBLEMS)


def test_a_row_begins_as_the_word_its_kind_is_called(tmp_path: Path) -> None:
    backbone = loaded(tmp_path, "llama")
    give_rows(backbone, replace(BLOCKS, called={"+": "sum"}, form="[{kind}.{number}]"), "word", PROBLEMS)
    tokenizer = backbone.tokenizer
    assert tokenizer.convert_ids_to_tokens(list(backbone.more))[:4] == [
        "[prefix.0]",
        "[answer.0]",
        "[answer.1]",
        "[assignment.0]",
    ]
    row = tokenizer.convert_tokens_to_ids("[sum.1]")
    word = tokenizer("sum", add_special_tokens=False)["input_ids"]
    for table in tables(backbone):
        torch.testing.assert_close(table[row], table[word].mean(0), rtol=1e-4, atol=1e-5)


def test_a_token_that_has_no_row_is_an_error(tmp_path: Path) -> None:
    backbone = loaded(tmp_path, "llama")
    backbone.tokenizer.add_special_tokens({"additional_special_tokens": ["<+_0>"]}, replace_extra_special_tokens=False)
    rows, new = len(tables(backbone)[0]), len(backbone.tokenizer) - 1
    with pytest.raises(PlanError) as error:
        check_rows(backbone, ["<+_0>"])
    assert str(error.value) == (
        f"planning token <+_0>: its id is {new}, but the tables have {rows} rows; it would never be learned"
    )
    with pytest.raises(
        PlanError, match=r"^planning token <-_0>: the tokenizer reads it as \[.*\], its id is None; it must be one id of its own$"
    ):
        check_rows(backbone, ["<-_0>"])


# Before a training


def ready(folder: Path, family: str, peft: Any = None, plan: Plan | None = None) -> Any:
    stage = Planning(num_prefix=1, num_special=1)
    stage.plan = plan or Arithmetic()  # type: ignore[misc]
    backbone = loaded(folder, family)
    stage.prepare(backbone, PROBLEMS, folder)
    backbone = wrap(backbone, peft)
    encoded = stage.encode(PROBLEMS, backbone.tokenizer)
    laid = [stage.sequence(e, backbone.tokens, 0) for e in encoded]
    learner = SupervisedReasoner(LatentReasoner(backbone.model, backbone.tokens), None, 0.0)
    assert stage.reading is not None
    return learner, collate(laid, backbone.pad), backbone, stage.reading, laid[0]


@pytest.mark.parametrize("peft", [None, LoRA(rank=2)])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_what_is_learned_is_said_in_words_and_no_gradient_is_left(
    tmp_path: Path, family: str, peft: Any, caplog: pytest.LogCaptureFixture
) -> None:
    learner, *rest = ready(tmp_path, family, peft)
    with caplog.at_level(logging.INFO):
        inspect(learner, *rest)
    question = "How many?\\n" if family == "gpt2" else "<|begin|>How many?\\n"
    assert caplog.messages == [
        f"what is learned of p: question (not learned) '{question}' plan '<prefix_0><+_0>' step '<<3+4=7>>\\n' plan "
        "'<prefix_0><-_0>' step '<<7-2=5>>\\n' plan '<prefix_0><answer_0>' answer '### 5<|end|>'"
    ]
    assert all(p.grad is None for p in learner.parameters())


@pytest.mark.parametrize("table", ["input", "output"])
def test_a_table_that_no_gradient_reaches_is_an_error(tmp_path: Path, table: str) -> None:
    learner, batch, backbone, reading, _ = ready(tmp_path, "llama")
    model: Any = backbone.model
    module = model.get_input_embeddings() if table == "input" else model.get_output_embeddings()
    module.weight.register_hook(torch.zeros_like)
    with pytest.raises(PlanError, match=rf"^planning tokens <prefix_0>, .*: no gradient reaches their rows of the {table} table"):
        check_gradients(learner, batch, backbone, reading)


def test_where_nothing_could_be_checked_it_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    learner, batch, backbone, reading, _ = ready(tmp_path, "llama")
    batch.input_ids[torch.isin(batch.input_ids, torch.tensor(list(reading.ids)))] = batch.input_ids[0, 0]
    check_gradients(learner, batch, backbone, reading)
    assert caplog.messages == [
        "no planning token stands in the first batch: whether a gradient reaches their rows was not checked"
    ]


def test_a_table_whose_old_rows_alone_learn_is_an_error(tmp_path: Path) -> None:
    learner, batch, backbone, reading, _ = ready(tmp_path, "llama", LoRA(rank=2))
    for name, p in backbone.model.named_parameters():
        if "lm_head" in name and "trainable_tokens_delta" in name:
            p.register_hook(torch.zeros_like)
    with pytest.raises(PlanError, match=r"of the output table; they would not learn$"):
        check_gradients(learner, batch, backbone, reading)


def test_padding_with_a_token_to_be_learned_is_an_error(tmp_path: Path) -> None:
    learner, batch, backbone, reading, first = ready(tmp_path, "llama")
    backbone.tokenizer.pad_token = "<prefix_0>"
    with pytest.raises(PlanError, match=r"it must be one id of its own$"):
        inspect(learner, batch, backbone, reading, first)
    backbone.tokenizer.pad_token = None
    batch.labels[batch.attention_mask == 0] = backbone.pad
    with pytest.raises(PlanError, match=r"^padding: labels stand on it \(id 0\), so it would be learned"):
        inspect(learner, batch, backbone, reading, first)


def test_reading_knows_the_tokens_by_id(tmp_path: Path) -> None:
    *_, backbone, reading, first = ready(tmp_path, "llama")
    assert isinstance(reading, Reading)
    assert reading.ids == backbone.more
    assert reading.read(first.ids[-20:]).num_tokens == sum(i in backbone.more for i in first.ids[-20:])
