"""Training steps and decoding of the latent loop, each beside the backbone's own on the same tokens, and their memory."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from latent_lab.bench.timing import Row, Work, compare, row_of, timed
from latent_lab.reasoner import LatentReasoner
from latent_lab.sequences import IGNORE, LatentTokens

TOKENS = LatentTokens(start=1, latent=2, end=3)
EOS = 0
GPT2_VOCABULARY, OWN_VOCABULARY = 50_257, 320
"""GPT-2's, and about what the digit-level tokenizer makes of sums."""
OWN_BAR = 1.2
"""With a vocabulary so small the head costs nothing, so that leaving it out where nothing is learned saves nothing either: the
same tokens pass the same blocks, and the one-token passes come on top."""
MINI, SMALL = (4, 256), (12, 768)
"""Layers and width."""
QUESTION, SLOTS, ANSWER = 80, 6, 29
"""Tokens of a row: with the two markers 117."""


def model(layers: int, width: int, vocabulary: int) -> GPT2LMHeadModel:
    """A GPT-2-shaped model with random weights."""
    torch.manual_seed(0)
    return GPT2LMHeadModel(
        GPT2Config(
            n_layer=layers,
            n_embd=width,
            n_head=max(width // 64, 1),
            vocab_size=vocabulary,
            n_positions=512,
            bos_token_id=EOS,
            eos_token_id=EOS,
        )
    ).eval()


def batch(rows: int, question: int, slots: int, answer: int, vocabulary: int) -> tuple[Tensor, Tensor]:
    """Ids and labels, both ``[rows, question + slots + 2 + answer]``; the labels stand on the answer."""
    ids = torch.randint(4, vocabulary, (rows, question + slots + 2 + answer), generator=torch.Generator().manual_seed(0))
    ids[:, question] = TOKENS.start
    ids[:, question + 1 : question + 1 + slots] = TOKENS.latent
    ids[:, question + 1 + slots] = TOKENS.end
    labels = ids.clone()
    labels[:, :-answer] = IGNORE
    return ids, labels


def training_step(backbone: GPT2LMHeadModel, ids: Tensor, labels: Tensor) -> tuple[Work, Work]:
    """One forward and backward pass of the latent loop, and one of the backbone's own loss on the same tokens."""
    reasoner = LatentReasoner(backbone, TOKENS)

    def ours() -> None:
        backbone.zero_grad(set_to_none=False)
        loss = reasoner(ids, labels=labels).loss
        assert loss is not None
        loss.backward()

    def theirs() -> None:
        backbone.zero_grad(set_to_none=False)
        backbone(input_ids=ids, labels=labels).loss.backward()

    return ours, theirs


def generation(backbone: GPT2LMHeadModel, rows: int, new: int, vocabulary: int) -> tuple[Work, Work]:
    """Greedy decoding after six thoughts, and the backbone's own on prompts of the same length; neither stops early."""
    reasoner = LatentReasoner(backbone, TOKENS)
    ids = batch(rows, 50, SLOTS, 1, vocabulary)[0][:, :-1]
    mask = torch.ones_like(ids)
    options: dict[str, Any] = {"max_new_tokens": new, "min_new_tokens": new, "eos_token_id": EOS, "pad_token_id": EOS}
    return (
        lambda: reasoner.generate(ids, mask, **options),
        lambda: backbone.generate(ids, attention_mask=mask, do_sample=False, **options),
    )


def step_rows(n: int, *, is_quick: bool) -> Iterator[Row]:
    """Training steps of two sizes and vocabularies, early stages, growth with the batch, decoding, memory."""
    mini, own = model(*MINI, GPT2_VOCABULARY), model(*MINI, OWN_VOCABULARY)
    for size in (8, 16) if is_quick else (8, 16, 32, 64):
        work = training_step(mini, *batch(size, QUESTION, SLOTS, ANSWER, GPT2_VOCABULARY))
        yield compare(f"step / plain: mini, batch {size}, 6 thoughts", *work, bar=0.85, n=n)
    for size in (8, 32):
        work = training_step(own, *batch(size, QUESTION, SLOTS, ANSWER, OWN_VOCABULARY))
        yield compare(f"step / plain: mini, vocabulary {OWN_VOCABULARY}, batch {size}, 6 thoughts", *work, bar=OWN_BAR, n=n)
    yield early_stage(mini, 8, n)
    yield early_stage(mini, 32, n)
    yield growth(mini, n)
    if not is_quick:
        work = training_step(model(*SMALL, GPT2_VOCABULARY), *batch(8, QUESTION, SLOTS, ANSWER, GPT2_VOCABULARY))
        yield compare("step / plain: GPT-2 small, batch 8, 6 thoughts", *work, bar=0.85, n=max(n // 2, 3))
    yield compare("64 new tokens, batch 32 / own generate: mini", *generation(mini, 32, 64, GPT2_VOCABULARY), bar=1.1, n=n)
    yield memory(mini)


def early_stage(backbone: GPT2LMHeadModel, size: int, n: int) -> Row:
    """A step of stage 1: one thought, and most of the chain still written and learned."""
    work = training_step(backbone, *batch(size, 50, 1, 64, GPT2_VOCABULARY))
    return compare(f"step / plain: mini, batch {size}, early stage (1 thought, 64 labels)", *work, bar=0.95, n=n)


def growth(backbone: GPT2LMHeadModel, n: int) -> Row:
    """How a step's time grows from 8 rows to 64, beside eightfold."""
    large, small = (training_step(backbone, *batch(k, QUESTION, SLOTS, ANSWER, GPT2_VOCABULARY))[0] for k in (64, 8))
    large(), small()
    ratios = [timed(large) / (8 * timed(small)) for _ in range(n)]
    return row_of("step time, batch 64 / 8 x batch 8: mini", ratios, bar=1.1)


def memory(backbone: GPT2LMHeadModel) -> Row:
    """The most a step holds above weights and gradients, beside a plain step."""
    ours, theirs = training_step(backbone, *batch(16, QUESTION, SLOTS, ANSWER, GPT2_VOCABULARY))
    peaks = [peak(work) for work in (ours, theirs)]
    return row_of("peak memory of a step / plain: mini, vocabulary 50257, batch 16", [peaks[0] / peaks[1]], bar=0.5)


def peak(work: Work) -> int:
    """Bytes that ``work`` holds at most above what there was before, as PyTorch's allocator counts them."""
    work()  # gradients exist from here on
    from torch.profiler import ProfilerActivity, profile

    with quiet(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        work()
    results: Any = profiled.profiler
    held = most = 0
    for event in sorted(results.kineto_results.events(), key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what the profiler's C++ writes about itself off the terminal."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def seconds_of(layers: int, width: int, rows: int, question: int, slots: int) -> Callable[[], tuple[float, float]]:
    """A pair of timings, ours and the plain step's, at one point of the figure of growth."""
    work = training_step(model(layers, width, OWN_VOCABULARY), *batch(rows, question, slots, ANSWER, OWN_VOCABULARY))
    for side in work:
        side()
    return lambda: (timed(work[0]), timed(work[1]))


def throughput(n: int) -> dict[str, float]:
    """What a step of 32 rows achieves in GFLOP/s, beside a product of two large matrices: the machine's own measure."""
    rows, (layers, width) = 32, MINI
    ours, _ = training_step(model(*MINI, GPT2_VOCABULARY), *batch(rows, QUESTION, SLOTS, ANSWER, GPT2_VOCABULARY))
    matrix = torch.randn(2048, 2048)
    ours(), matrix @ matrix
    seconds, product = (sorted(timed(work) for _ in range(n))[n // 2] for work in (ours, lambda: matrix @ matrix))
    tokens, labels = rows * (QUESTION + SLOTS + ANSWER + 2), rows * ANSWER
    blocks, head = 12 * layers * width**2 * tokens, width * GPT2_VOCABULARY * labels  # attention's own products are left out
    step, peak_rate = 6 * (blocks + head) / seconds / 1e9, 2 * 2048**3 / product / 1e9
    return {"step_gflops": step, "matmul_gflops": peak_rate, "share_of_matmul": step / peak_rate}
