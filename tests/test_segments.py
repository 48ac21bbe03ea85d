"""Attention by segment: the table by hand, nothing reaches round the planning tokens, and decoding sees what training saw."""

from pathlib import Path
from typing import Any

import peft
import pytest
import tiny
import torch
from test_reasoner import GROUPED, PAD, SMALL, TOKENS, build, padded
from torch import Tensor
from transformers import Qwen2Config, Qwen2ForCausalLM

from latent_lab import LatentReasoner
from latent_lab.feedback import UnsupportedModel
from latent_lab.loop import Loop, Segments
from latent_lab.segments import visible
from latent_lab.sequences import IGNORE
from latent_lab.stages.planning import Planning

P, Q = 18, 19  # planning tokens
ROW = [1, 2, P, Q, 3, 4, P, 5]
"""Question, a block of two, a step of two, a block of one, an answer."""

EVERYTHING = ["1", "11", "111", "1111"]
TABLES = {
    (False, 0): [*EVERYTHING, "00111", "001111", "1111111", "00000011"],
    (True, 0): [*EVERYTHING, "11111", "111111", "1111111", "11000011"],
    (False, 1): [*EVERYTHING, "00111", "001111", "1111111", "00110011"],
    (True, 1): [*EVERYTHING, "11111", "111111", "1111111", "11110011"],
}
VARIANTS = [Segments((P, Q), *key) for key in TABLES]
ROWS = [ROW, [1, 2, 3], [P, 1, 2, P, 3], [4, P, Q], [7]]


@pytest.mark.parametrize(("key", "table"), TABLES.items())
def test_what_each_token_sees(key: tuple[bool, int], table: list[str]) -> None:
    segments = Segments((P, Q), *key)
    seen = visible(segments, torch.tensor([ROW]), torch.ones(1, 8), 8)[0].int()
    assert ["".join(map(str, line[: i + 1].tolist())) for i, line in enumerate(seen)] == table
    assert not seen.triu(1).any()
    last = visible(segments, torch.tensor([ROW]), torch.ones(1, 8), 3)[0].int()
    assert torch.equal(last, seen[-3:])


def logits(model: torch.nn.Module, segments: Segments | None, rows: list[list[int]], how: str = "right") -> list[Tensor]:
    """Of all tokens but each row's first: what predicts them."""
    labels = [[IGNORE, *row[1:]] for row in rows]
    ids, mask, wanted = padded(rows, how, labels)
    out = LatentReasoner(model, TOKENS, Loop(segments=segments))(ids, mask, wanted)
    return list(out.logits.split([len(row) - 1 for row in rows]))


@pytest.mark.parametrize(("key", "table"), TABLES.items())
@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen2", "qwen3"])
def test_an_invisible_token_cannot_change_what_is_written(family: str, key: tuple[bool, int], table: list[str]) -> None:
    model = build(family)
    blocks = "h" if family == "gpt2" else "layers"  # one: in a second, what a planning token has read of the rest passes on
    setattr(model.base_model, blocks, getattr(model.base_model, blocks)[:1])
    with torch.no_grad():
        for at, seen in ((5, table[5]), (7, table[7])):
            want = logits(model, Segments((P, Q), *key), [[*ROW, 6]])[0][at]
            for column, is_seen in enumerate(seen):
                other = [{P: Q, Q: P}.get(token, token + 8) if i == column else token for i, token in enumerate([*ROW, 6])]
                got = logits(model, Segments((P, Q), *key), [other])[0][at]
                assert torch.equal(got, want) is (is_seen == "0")


@pytest.mark.parametrize("segments", VARIANTS)
@pytest.mark.parametrize("how", ["right", "left"])
def test_a_batch_is_its_rows_and_sdpa_is_eager(segments: Segments, how: str) -> None:
    for family in ("gpt2", "llama"):
        model = build(family)
        with torch.no_grad():
            together = logits(model, segments, ROWS[:4], how)
            for row, got in zip(ROWS[:4], together, strict=True):
                torch.testing.assert_close(got, logits(model, segments, [row])[0], atol=1e-5, rtol=1e-4)
            model.set_attn_implementation("eager")
            for got, want in zip(logits(model, segments, ROWS[:4], how), together, strict=True):
                torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def uncached(model: torch.nn.Module, segments: Segments, row: list[int], length: int) -> list[int]:
    new: list[int] = []
    for _ in range(length):
        new.append(int(logits(model, segments, [[*row, *new, 0]])[0][-1].argmax()))
    return new


@pytest.mark.parametrize("segments", VARIANTS)
@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen2"])
def test_cached_decoding_writes_what_runs_from_scratch_write(family: str, segments: Segments) -> None:
    model = build(family)
    with torch.no_grad():  # so that blocks are written, too
        model.get_output_embeddings().weight[P] *= 3
        model.get_output_embeddings().weight[TOKENS.latent] = 0  # which would be a thought when run again
    ids, mask = padded(ROWS, "left")
    reasoner = LatentReasoner(model, TOKENS, Loop(segments=segments))
    want = [uncached(model, segments, row, 12) for row in ROWS]
    assert reasoner.generate(ids, mask, max_new_tokens=12).tolist() == want
    assert any(P in new for new in want)
    eos = want[0][4]
    cut = [row[: row.index(eos) + 1] if eos in row else row for row in want]
    spans = reasoner.generate(ids, mask, max_new_tokens=12, eos_token_id=eos, pad_token_id=PAD).tolist()
    assert [row[: len(short)] for row, short in zip(spans, cut, strict=True)] == cut
    sampled = reasoner.generate(ids, mask, max_new_tokens=6, do_sample=True, top_k=1, num_return_sequences=2).tolist()
    assert sampled == [row[:6] for row in want for _ in range(2)]
    plain = LatentReasoner(model, TOKENS).generate(ids, mask, max_new_tokens=12).tolist()
    assert plain != want  # and the model is left as it was
    with pytest.raises(ValueError, match=r"^num_beams: attention by segment does not follow beams"):
        reasoner.generate(ids, mask, max_new_tokens=2, num_beams=2)


def test_under_adapters_decoding_is_masked_too() -> None:
    model, (ids, mask) = build("llama"), padded(ROWS, "left")
    options = {"max_new_tokens": 12, "eos_token_id": 23, "pad_token_id": PAD}
    want = LatentReasoner(model, TOKENS, Loop(segments=VARIANTS[0])).generate(ids, mask, **options)
    adapted = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", r=2, target_modules="all-linear"))
    assert torch.equal(LatentReasoner(adapted, TOKENS, Loop(segments=VARIANTS[0])).eval().generate(ids, mask, **options), want)
    assert not torch.equal(LatentReasoner(adapted, TOKENS).generate(ids, mask, **options), want)


def test_models_that_cannot_are_refused() -> None:
    windows = {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 0}
    model: Any = Qwen2ForCausalLM(Qwen2Config(**SMALL, **GROUPED, **windows))
    with pytest.raises(UnsupportedModel, match="has windows of its own"):
        LatentReasoner(model, TOKENS, Loop(segments=VARIANTS[0]))
    model = build()
    model.config._attn_implementation = "flex_attention"
    with pytest.raises(UnsupportedModel, match="given flex_attention; allowed are eager, sdpa"):
        LatentReasoner(model, TOKENS, Loop(segments=VARIANTS[0]))


def test_settings() -> None:
    with pytest.raises(ValueError, match="earlier_plans=1: with text_sees=all allowed are 0: it sees them already"):
        Planning(earlier_plans=1)
    with pytest.raises(ValueError, match="text_sees=nothing: allowed are all, segment, question"):
        Planning(text_sees="nothing")


def test_a_run_remembers_what_its_text_sees(tmp_path: Path) -> None:
    from latent_lab import checkpoint
    from latent_lab.config import ConfigError

    with pytest.raises(ConfigError, match=r"stage\.text_sees: given segment; there are no planning tokens to see; allowed: all"):
        tiny.train(tmp_path, "stage=planning", "stage.text_sees=segment")
    asked = ("stage=planning", "plan=general", "stage.text_sees=question", "stage.earlier_plans=2", "stage.epochs=[0.4]")
    run = tiny.train(tmp_path, *asked)
    backbone, info, _ = checkpoint.load(run / "checkpoint")
    segments = checkpoint.thinking(run / "checkpoint", backbone, info).loop.segments
    ids = tuple(backbone.tokenizer.convert_tokens_to_ids([f"<prefix_{i}>" for i in range(6)]))
    assert segments == Segments(ids, sees_question=True, earlier=2)
    card = (run / "checkpoint" / "README.md").read_text()
    assert "reasoner.generate" in card
    assert "model.generate" not in card
    assert tiny.evaluate(run, "limit=3")["accuracy"]["n"] == 3
