"""Runs of two layers and width 32: what tests train and grade when they need the real thing, in seconds on one core."""

import json
from pathlib import Path
from typing import Any

from latent_lab.job import job

TINY = (
    "model.layers=2", "model.width=32", "model.heads=2", "model.positions=128",
    "dataset.digits=[2]", "dataset.probabilities=[1.0]",
    "dataset.train_size=40", "dataset.valid_size=17", "dataset.test_size=11",
    "batch_size=8", "log_every=1", "device=cpu",
)  # fmt: skip
"""Overrides of a tiny run on two-digit sums; five optimiser steps are an epoch."""

MODEL = TINY[:4]


def train(outputs: Path, *overrides: str, base: tuple[str, ...] = TINY) -> Path:
    """Train as the door does and return the run's folder; what is returned is what is stored."""
    asked = job("train", [*base, f"outputs={outputs}", *overrides])
    returned = asked.config.stage.train(asked)
    folder = outputs / asked.slug
    assert returned == result(folder)
    return folder


def evaluate(run: Path, *overrides: str) -> dict[str, Any]:
    """Grade a run as the door does and return the result."""
    asked = job("eval", [f"run={run}", "device=cpu", *overrides])
    returned: dict[str, Any] = asked.config.task.run(asked)
    return returned


def think_again(run: Path | None, folder: Path, *overrides: str) -> None:
    """Ask a run, or where there is none a server that nobody has to be at, to do ``task=summarize``."""
    problem = folder / "p.jsonl"
    problem.write_text(json.dumps({"question": "1 + 1", "answer": "2"}) + "\n")
    server = ["backend=vllm", "backend.model=m", "dataset=file", f"dataset.path={problem}"]
    asked = job("eval", ["task=summarize", *([f"run={run}"] if run else server), *overrides])
    asked.config.task.run(asked)


def result(folder: Path) -> dict[str, Any]:
    """What ``result.json`` holds."""
    stored: dict[str, Any] = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    return stored


def rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSONL file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def timeless(folder: Path) -> dict[str, Any]:
    """All that must be the same bytes whenever a run is repeated; only the key ``seconds`` is left out."""

    def without_seconds(text: str) -> str:
        return json.dumps({key: value for key, value in json.loads(text).items() if key != "seconds"})

    return {
        "result": without_seconds((folder / "result.json").read_text()),
        "metrics": [without_seconds(line) for line in (folder / "metrics.jsonl").read_text().splitlines()],
        "samples": (folder / "samples.jsonl").read_bytes(),
        "weights": (folder / "checkpoint" / "model.safetensors").read_bytes(),
        "latent": (folder / "checkpoint" / "latent.json").read_bytes(),
    }


def save_hub_model(folder: Path, family: str, *, texts: list[str] | None = None, extra_rows: int = 0, eos: bool = True) -> Path:
    """Write a tiny model as a hub would hold it: ``gpt2`` (tied tables) or ``llama`` (untied), with byte-level BPE."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    specials = ["<|end|>", "<|begin|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=specials, initial_alphabet=alphabet, show_progress=False)
    made.train_from_iterator(texts or ["Tom has <<3+4=7>>7 apples and <<7-2=5>> left."] * 3, trainer)
    if family == "llama":  # as Llama's own, it begins every text with a token
        made.post_processor = processors.TemplateProcessing(single="<|begin|> $A", special_tokens=[("<|begin|>", 1)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<|begin|>", eos_token="<|end|>" if eos else None)
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"vocab_size": len(tokenizer) + extra_rows, "bos_token_id": 1, "eos_token_id": 0}
    if family == "gpt2":
        model = GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=2, n_positions=512, **sizes))
    else:
        shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
        shape |= {"num_key_value_heads": 1, "max_position_embeddings": 512}
        model = LlamaForCausalLM(LlamaConfig(**shape, **sizes, tie_word_embeddings=False))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
