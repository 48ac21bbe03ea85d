"""A chat with a Hugging Face causal language model in this process: batches of conversations in, replies out."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from latent_lab.backbone import ModelError, no_bars
from latent_lab.grading.judge_prompt import Verdict, read_verdict
from latent_lab.progress import progress

Conversation = Sequence[Mapping[str, str]]


@dataclass
class Chat:
    """A model ready to reply."""

    model: Any
    tokenizer: Any

    @classmethod
    def load(cls, path: str, revision: str | None, dtype: str, device: torch.device | str) -> "Chat":
        """Load model and tokenizer; ModelError where there are none."""
        from transformers import AutoModelForCausalLM, AutoTokenizer

        with found(path):
            tokenizer = AutoTokenizer.from_pretrained(path, revision=revision, padding_side="left")
            model = AutoModelForCausalLM.from_pretrained(path, revision=revision, dtype=getattr(torch, dtype))
        if tokenizer.eos_token_id is None:
            raise ModelError(f"judge.path: the tokenizer of {path!r} has no end-of-text token, so replies could not stop")
        return cls(model.to(device).eval(), tokenizer)

    def prompt(self, conversation: Conversation) -> str:
        """The text that is continued: by the tokenizer's chat template, or, without one, the messages in paragraphs."""
        if self.tokenizer.chat_template is None:
            return "\n\n".join([*(message["content"] for message in conversation), ""])
        messages = [dict(message) for message in conversation]
        return str(self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))

    def replies(
        self, conversations: Sequence[Conversation], *, batch_size: int, max_tokens: int, temperature: float, seed: int
    ) -> list[Verdict]:
        """A verdict for each conversation, in their order; greedy where ``temperature`` is 0.

        A prompt that leaves no room for a reply is an error, and nobody else's.
        """
        has_template = self.tokenizer.chat_template is not None  # which writes the special tokens itself
        ids = [self.tokenizer(self.prompt(c), add_special_tokens=not has_template)["input_ids"] for c in conversations]
        room = getattr(self.model.config, "max_position_embeddings", None) or 10**9
        verdicts: dict[int, Verdict] = {
            i: Verdict(
                "unclear", "no reply", False, f"the prompt has {len(row)} tokens, and the model room for {room - max_tokens}"
            )
            for i, row in enumerate(ids)
            if len(row) + max_tokens > room
        }
        fitting = sorted((i for i in range(len(ids)) if i not in verdicts), key=lambda i: (len(ids[i]), i))
        with progress("judging", len(ids), unit="verdicts") as advance, torch.random.fork_rng(self._devices):
            torch.manual_seed(seed)
            for start in range(0, len(fitting), batch_size):
                part = fitting[start : start + batch_size]
                written = self._generate([ids[i] for i in part], max_tokens, temperature)
                verdicts |= dict(zip(part, written, strict=True))
                advance(len(part))
        return [verdicts[i] for i in range(len(ids))]

    @property
    def _devices(self) -> list[torch.device]:
        return [self.model.device] if self.model.device.type == "cuda" else []

    @torch.no_grad()
    def _generate(self, rows: Sequence[list[int]], max_tokens: int, temperature: float) -> list[Verdict]:
        eos = self.tokenizer.eos_token_id
        pad = eos if self.tokenizer.pad_token_id is None else self.tokenizer.pad_token_id
        longest = max(map(len, rows))
        input_ids = torch.tensor([[pad] * (longest - len(row)) + row for row in rows], device=self.model.device)
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=self.model.device)
        sampling: dict[str, Any] = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
        greedy: dict[str, Any] = {"do_sample": False, "temperature": None, "top_k": None, "top_p": None}
        out = self.model.generate(
            input_ids=input_ids,
            attention_mask=mask,
            max_new_tokens=max_tokens,
            pad_token_id=pad,
            **(sampling if temperature else greedy),
        )
        ends = self.model.generation_config.eos_token_id
        ends = {eos, *(ends if isinstance(ends, list) else [] if ends is None else [ends])}
        verdicts = []
        for new in out[:, longest:].tolist():
            end = next((place for place, token in enumerate(new) if token in ends), None)
            text = self.tokenizer.decode(new[:end], skip_special_tokens=True)
            verdicts.append(read_verdict(text, "length" if end is None else "stop"))
        return verdicts


@contextmanager
def found(path: str) -> Iterator[None]:
    """Load something of a model inside; ModelError where there is none."""
    try:
        with no_bars():
            yield
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        where = "a folder with config.json, weights and tokenizer, or a name on the hub that can be reached from here"
        raise ModelError(f"judge.path: given {path!r}; allowed: {where} ({reason})") from error
