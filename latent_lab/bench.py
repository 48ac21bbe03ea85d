"""What the latent loop costs beside the plain backbone on this machine: ``make bench``.

Every ratio is measured in this one process, the two sides in turn, and is the median over pairs with its quartiles; the machine's
mood then falls on both sides. The model is GPT-2-shaped and created from scratch. Writes ``outputs/bench/result.json``.
"""

import argparse
import logging
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from latent_lab.files import write_json
from latent_lab.reasoner import LatentReasoner
from latent_lab.sequences import IGNORE, LatentTokens

log = logging.getLogger(__name__)

TOKENS = LatentTokens(start=1, latent=2, end=3)
EOS = 0


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


def timed(work: Callable[[], object]) -> float:
    """Seconds one call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def compare(name: str, ours: Callable[[], object], theirs: Callable[[], object], bar: float, n: int) -> dict[str, Any]:
    """Time the two in turn, ``n`` times after a warm-up, and return the ratio ours / theirs as a row."""
    timed(ours), timed(theirs)
    ratios = [timed(ours) / timed(theirs) for _ in range(n)]
    low, _, high = statistics.quantiles(ratios, n=4)
    ratio = statistics.median(ratios)
    log.info(
        "%-58s %6.3f  (quartiles %.3f to %.3f)  bar %.2f  %s", name, ratio, low, high, bar, "holds" if ratio <= bar else "MISSES"
    )
    return {"name": name, "ratio": ratio, "bar": bar, "holds": ratio <= bar, "low": low, "high": high, "n": n}


def training_step(backbone: GPT2LMHeadModel, ids: Tensor, labels: Tensor) -> tuple[Callable[[], object], Callable[[], object]]:
    """One forward and backward pass of the latent loop, and one of the backbone's own loss on the same tokens."""
    reasoner = LatentReasoner(backbone, TOKENS)

    def ours() -> None:
        backbone.zero_grad()
        loss = reasoner(ids, labels=labels).loss
        assert loss is not None
        loss.backward()

    def theirs() -> None:
        backbone.zero_grad()
        backbone(input_ids=ids, labels=labels).loss.backward()

    return ours, theirs


def generation(
    backbone: GPT2LMHeadModel, rows: int, new: int, vocabulary: int
) -> tuple[Callable[[], object], Callable[[], object]]:
    """Greedy decoding after six thoughts, and the backbone's own on prompts of the same length; neither stops early."""
    reasoner = LatentReasoner(backbone, TOKENS)
    ids = batch(rows, 50, 6, 1, vocabulary)[0][:, :-1]
    mask = torch.ones_like(ids)
    options: dict[str, Any] = {"max_new_tokens": new, "min_new_tokens": new, "eos_token_id": EOS, "pad_token_id": EOS}
    return (
        lambda: reasoner.generate(ids, mask, **options),
        lambda: backbone.generate(ids, attention_mask=mask, do_sample=False, **options),
    )


def main() -> None:
    """Measure everything and write the result."""
    parser = argparse.ArgumentParser(prog="python -m latent_lab.bench", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--pairs", type=int, default=7, help="how often each pair is timed (default 7)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    parser.add_argument("--out", type=Path, default=Path("outputs/bench"), help="folder for result.json")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    torch.set_num_threads(given.threads)
    mini = model(4, 256, 8192)
    rows = []
    for size in (8, 32):
        ids, labels = batch(size, 80, 6, 29, 8192)
        name = f"training step, 4 layers x 256, 6 thoughts, batch {size} / plain step"
        rows.append(compare(name, *training_step(mini, ids, labels), bar=0.85, n=given.pairs))
    rows.append(
        compare("64 new tokens, batch 32 / the backbone's own generate", *generation(mini, 32, 64, 8192), bar=1.1, n=given.pairs)
    )
    result = {"device": "cpu", "threads": given.threads, "torch": torch.__version__, "rows": rows}
    given.out.mkdir(parents=True, exist_ok=True)
    write_json(given.out / "result.json", result)
    log.info("%s", given.out / "result.json")


if __name__ == "__main__":
    main()
