"""Training steps and decoding of the latent loop, each beside the backbone's own on the same tokens, and their memory."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from latent_lab.bench.machine import Machine, done, name_of, peak, precision, product_rate
from latent_lab.bench.published import published_loss
from latent_lab.bench.timing import Case, Row, Work, compare, median_of, row_of, timed
from latent_lab.compiling import compile_columns
from latent_lab.reasoner import LatentReasoner
from latent_lab.sequences import IGNORE, LatentTokens

TOKENS = LatentTokens(start=1, latent=2, end=3)
EOS = 0
OWN_VOCABULARY = 320
"""About what the digit-level tokenizer makes of sums."""
LATE = QUESTION, SLOTS, ANSWER = 80, 6, 29
"""Tokens of a row: with the two markers 117."""
EARLY = (50, 1, 64)
"""The same 117 in stage 1: one thought, and most of the chain still written and learned."""
BATCHES = (8, 16, 32, 64)
MANY, FEW = 32, 3
"""From so many rows on GPT-2 small takes so long that so few pairs must do."""


def model(layers: int, width: int, vocabulary: int, device: torch.device | str = "cpu") -> GPT2LMHeadModel:
    """A GPT-2-shaped model with random weights."""
    torch.manual_seed(0)
    made: Any = GPT2LMHeadModel(
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
    return made.to(device)


def batch(rows: int, question: int, slots: int, answer: int, vocabulary: int) -> tuple[Tensor, Tensor]:
    """Ids and labels, both ``[rows, question + slots + 2 + answer]``; the labels stand on the answer."""
    ids = torch.randint(4, vocabulary, (rows, question + slots + 2 + answer), generator=torch.Generator().manual_seed(0))
    ids[:, question] = TOKENS.start
    ids[:, question + 1 : question + 1 + slots] = TOKENS.latent
    ids[:, question + 1 + slots] = TOKENS.end
    labels = ids.clone()
    labels[:, :-answer] = IGNORE
    return ids, labels


def step_of(backbone: GPT2LMHeadModel, loss: Callable[[], Tensor], dtype: torch.dtype) -> Work:
    """A forward and a backward pass, and the wait for both."""

    def work() -> None:
        backbone.zero_grad(set_to_none=False)
        with precision(backbone.device, dtype):
            made = loss()
        made.backward()
        done(backbone.device)

    return work


def training_step(
    backbone: GPT2LMHeadModel, ids: Tensor, labels: Tensor, dtype: torch.dtype = torch.float32
) -> tuple[Work, Work]:
    """One forward and backward pass of the latent loop, and one of the backbone's own loss on the same tokens."""
    reasoner = LatentReasoner(backbone, TOKENS)
    ids, labels = ids.to(backbone.device), labels.to(backbone.device)

    def ours() -> Tensor:
        loss = reasoner(ids, labels=labels).loss
        assert loss is not None
        return loss

    def theirs() -> Tensor:
        return backbone(input_ids=ids, labels=labels).loss

    return step_of(backbone, ours, dtype), step_of(backbone, theirs, dtype)


def published_step(backbone: GPT2LMHeadModel, ids: Tensor, labels: Tensor) -> Work:
    """The same step as it was published."""
    ids, labels = ids.to(backbone.device), labels.to(backbone.device)
    return step_of(backbone, lambda: published_loss(backbone, ids, labels, TOKENS.latent), torch.float32)


def generation(backbone: GPT2LMHeadModel, rows: int, new: int, vocabulary: int) -> tuple[Work, Work]:
    """Greedy decoding after six thoughts, and the backbone's own on prompts of the same length; neither stops early."""
    reasoner = LatentReasoner(backbone, TOKENS)
    ids = batch(rows, 50, SLOTS, 1, vocabulary)[0][:, :-1].to(backbone.device)
    mask = torch.ones_like(ids)
    options: dict[str, Any] = {"max_new_tokens": new, "min_new_tokens": new, "eos_token_id": EOS, "pad_token_id": EOS}

    def ours() -> None:
        reasoner.generate(ids, mask, **options)
        done(backbone.device)

    def theirs() -> None:
        backbone.generate(ids, attention_mask=mask, do_sample=False, **options)
        done(backbone.device)

    return ours, theirs


def step_cases(machine: Machine, *, is_quick: bool = False) -> Iterator[Case]:
    """Training steps of two sizes and vocabularies, early stages, the published step, growth with the batch, decoding, memory."""
    for dtype in machine.types:
        for rows in (8, 16) if is_quick else BATCHES:
            yield step_case(machine, "mini", rows, machine.late_bar, dtype)
        for rows in (8, 32):
            yield step_case(
                machine, f"mini, vocabulary {OWN_VOCABULARY}", rows, machine.own_bar, dtype, vocabulary=OWN_VOCABULARY
            )
        for rows in (8, 32):
            yield step_case(machine, "mini", rows, machine.early_bar, dtype, lengths=EARLY)
        yield step_case(machine, "mini", 8, machine.compiled_bar, dtype, is_compiled=True)
        if not is_quick:
            yield step_case(machine, "GPT-2 small", 8, machine.compiled_bar, dtype, is_compiled=True)
            for rows in BATCHES:
                yield step_case(machine, "GPT-2 small", rows, machine.late_bar, dtype)
            yield step_case(machine, "GPT-2 small", 8, machine.early_bar, dtype, lengths=EARLY)
    yield growth_case(machine)
    for what, rows in (("mini", 16), ("mini", 32)) if is_quick else (("mini", 16), ("mini", 32), ("GPT-2 small", 8)):
        yield published_case(machine, what, rows)
    yield generation_case(machine)
    yield memory_case(machine)


def step_case(
    machine: Machine,
    what: str,
    rows: int,
    bar: float | None,
    dtype: torch.dtype,
    *,
    vocabulary: int | None = None,
    lengths: tuple[int, int, int] = LATE,
    is_compiled: bool = False,
) -> Case:
    """A step of the latent loop beside the plain one; ``lengths`` are tokens of question, slots and answer.

    The first step, which compiles, is the warm-up.
    """
    kind = f"{lengths[1]} thoughts" if lengths == LATE else f"early stage ({lengths[1]} thought, {lengths[2]} labels)"

    def measure(name: str, n: int) -> Row:
        size, words = machine.size(what), vocabulary or machine.vocabulary
        backbone = model(*size, words, machine.device)
        if is_compiled:
            torch._dynamo.reset()
            compile_columns(backbone, machine.backend)
        work = training_step(backbone, *batch(rows, *lengths, words), dtype)
        return compare(name, *work, bar=bar, n=min(n, FEW) if size == machine.small and rows >= MANY else n)

    return Case(f"step / plain: {what}, batch {rows}, {kind}{', compiled' * is_compiled}{name_of(dtype)}", measure)


def published_case(machine: Machine, what: str, rows: int) -> Case:
    """The step as it was published beside the plain one. Its authors' own code was measured elsewhere: 1.5 to 1.7."""

    def measure(name: str, n: int) -> Row:
        backbone = model(*machine.size(what), machine.vocabulary, machine.device)
        given = batch(rows, *LATE, machine.vocabulary)
        return compare(name, published_step(backbone, *given), training_step(backbone, *given)[1], bar=None, n=min(n, FEW))

    return Case(f"published step / plain: {what}, batch {rows}, {SLOTS} thoughts", measure)


def growth_case(machine: Machine) -> Case:
    """How a step's time grows from 8 rows to 64, beside eightfold."""

    def measure(name: str, n: int) -> Row:
        backbone = model(*machine.mini, machine.vocabulary, machine.device)
        large, small = (training_step(backbone, *batch(rows, *LATE, machine.vocabulary))[0] for rows in (64, 8))
        large(), small()
        return row_of(name, [timed(large) / (8 * timed(small)) for _ in range(n)], bar=1.1)

    return Case("step time, batch 64 / 8 x batch 8: mini", measure)


def generation_case(machine: Machine) -> Case:
    """Decoding 64 tokens after six thoughts beside the backbone's own."""

    def measure(name: str, n: int) -> Row:
        backbone = model(*machine.mini, machine.vocabulary, machine.device)
        return compare(name, *generation(backbone, 32, 64, machine.vocabulary), bar=1.1, n=n)

    return Case("64 new tokens, batch 32 / own generate: mini", measure)


def memory_case(machine: Machine) -> Case:
    """The most a step holds above weights and gradients, beside a plain step: counted, so pairs hardly differ."""

    def measure(name: str, n: int) -> Row:
        backbone = model(*machine.mini, machine.vocabulary, machine.device)
        ours, theirs = training_step(backbone, *batch(16, *LATE, machine.vocabulary))
        pairs = [(peak(ours, machine.device), peak(theirs, machine.device)) for _ in range(min(n, FEW))]
        return row_of(name, [mine / plain for mine, plain in pairs], bar=0.5)

    return Case(f"peak memory of a step / plain: mini, vocabulary {machine.vocabulary}, batch 16", measure)


def seconds_of(machine: Machine, width: int, rows: int, question: int, slots: int) -> Callable[[], tuple[float, float]]:
    """A pair of timings, ours and the plain step's, at one point of the figure of growth."""
    backbone = model(machine.mini[0], width, OWN_VOCABULARY, machine.device)
    work = training_step(backbone, *batch(rows, question, slots, ANSWER, OWN_VOCABULARY))
    for side in work:
        side()
    return lambda: (timed(work[0]), timed(work[1]))


def throughput(machine: Machine, n: int) -> Iterator[dict[str, Any]]:
    """What a step of 32 rows achieves in GFLOP/s, beside a product of two large matrices in the same number format."""
    rows, (layers, width) = 32, machine.mini
    tokens, labels = rows * (sum(LATE) + 2), rows * ANSWER
    blocks, head = 12 * layers * width**2 * tokens, width * machine.vocabulary * labels  # without attention's own products
    for dtype in machine.types:
        backbone = model(*machine.mini, machine.vocabulary, machine.device)
        ours, _ = training_step(backbone, *batch(rows, *LATE, machine.vocabulary), dtype)
        ours()
        step = 6 * (blocks + head) / median_of(lambda: timed(ours), n) / 1e9  # noqa: B023
        product = product_rate(machine, dtype, n)
        name = f"step of mini, {rows} rows{name_of(dtype)}"
        yield {"name": name, "step_gflops": step, "matmul_gflops": product, "share_of_matmul": step / product}
