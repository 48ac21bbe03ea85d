"""Chat with a Hugging Face causal language model in this process: conversations in; text, usage and finish reason out."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from latent_lab.backbone import ModelError, no_bars
from latent_lab.calls.client import Completion, Message
from latent_lab.calls.reply import Usage
from latent_lab.progress import progress
from latent_lab.run import DeviceError

if TYPE_CHECKING:
    import torch


@dataclass
class Chat:
    """A model and its tokenizer, ready to reply."""

    model: Any
    tokenizer: Any

    @classmethod
    def load(cls, path: str, revision: str | None, dtype: str, device: "torch.device | str", key: str = "path") -> "Chat":
        """Load both from a folder or from the hub; ModelError, about the setting ``key``, where there are none.

        The device ``auto`` is a GPU if there is one.
        """
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        with found(path, key):
            tokenizer = AutoTokenizer.from_pretrained(path, revision=revision)
            model = AutoModelForCausalLM.from_pretrained(path, revision=revision, dtype=getattr(torch, dtype))
        if tokenizer.eos_token_id is None:
            raise ModelError(f"{key}: the tokenizer of {path!r} has no end-of-text token, so replies could not stop")
        if device in ("auto", "cuda"):
            has_cuda = torch.cuda.is_available()
            if device == "cuda" and not has_cuda:
                raise DeviceError("device: given cuda; PyTorch finds no GPU on this machine; allowed: auto, cpu")
            device = "cuda" if has_cuda else "cpu"
        return cls(model.to(device).eval(), tokenizer)

    def prompt(self, messages: Sequence[Message]) -> str:
        """The text that is continued: by the tokenizer's chat template, or, without one, the messages in paragraphs."""
        if self.tokenizer.chat_template is None:
            return "\n\n".join([*(message["content"] for message in messages), ""])
        given = [dict(message) for message in messages]
        return str(self.tokenizer.apply_chat_template(given, tokenize=False, add_generation_prompt=True))

    def complete(
        self, conversations: Sequence[Sequence[Message]], *, batch_size: int, max_tokens: int, temperature: float, seed: int
    ) -> list[Completion]:
        """Continue conversations, ``batch_size`` at once; the completions are in their order, and greedy at temperature 0.

        A prompt that leaves no room for ``max_tokens`` is a completion with an error. The same seed, conversations and batch size
        give the same samples; the generators of the process stay as they were.
        """
        import torch

        has_template = self.tokenizer.chat_template is not None  # which writes the special tokens itself
        ids = [self.tokenizer(self.prompt(c), add_special_tokens=not has_template)["input_ids"] for c in conversations]
        room = getattr(self.model.config, "max_position_embeddings", None) or 10**9
        done = {i: no_room(len(row), room - max_tokens) for i, row in enumerate(ids) if len(row) + max_tokens > room}
        fitting = sorted((i for i in range(len(ids)) if i not in done), key=lambda i: (len(ids[i]), i))
        devices = [self.model.device] if self.model.device.type == "cuda" else []
        with progress("replying", len(ids), unit="replies") as advance, torch.random.fork_rng(devices):
            torch.manual_seed(seed)
            for start in range(0, len(fitting), batch_size):
                part = fitting[start : start + batch_size]
                done |= dict(zip(part, self._continue([ids[i] for i in part], max_tokens, temperature), strict=True))
                advance(len(part))
        return [done[i] for i in range(len(ids))]

    def _continue(self, rows: Sequence[list[int]], max_tokens: int, temperature: float) -> list[Completion]:
        """Continue one batch of token ids, padded on the left."""
        import torch

        eos, longest = self.tokenizer.eos_token_id, max(map(len, rows))
        input_ids = torch.tensor([[eos] * (longest - len(row)) + row for row in rows], device=self.model.device)
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=self.model.device)
        sampled: dict[str, Any] = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
        greedy: dict[str, Any] = {"do_sample": False, "temperature": None, "top_k": None, "top_p": None}
        with torch.no_grad():
            out = self.model.generate(
                input_ids=input_ids,
                attention_mask=mask,
                max_new_tokens=max_tokens,
                pad_token_id=eos,
                **(sampled if temperature else greedy),
            )
        stops = self.model.generation_config.eos_token_id
        ends = {eos, *(stops if isinstance(stops, list) else [] if stops is None else [stops])}
        completions = []
        for row, new in zip(rows, out[:, longest:].tolist(), strict=True):
            end = next((place for place, token in enumerate(new) if token in ends), None)
            text = self.tokenizer.decode(new[:end], skip_special_tokens=True)
            usage = Usage(len(row), 0, len(new) if end is None else end + 1, 0)
            completions.append(Completion(text, None, "length" if end is None else "stop", usage))
        return completions


def no_room(length: int, room: int) -> Completion:
    """What becomes of a prompt that is too long."""
    error = f"the prompt has {length} tokens, and the model room for {max(room, 0)}"
    return Completion(None, None, None, Usage(0, 0, 0, 0), error)


@contextmanager
def found(path: str, key: str) -> Iterator[None]:
    """Load something of a model inside; ModelError, about the setting ``key``, where there is none."""
    try:
        with no_bars():
            yield
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        where = "a folder with config.json, weights and tokenizer, or a name on the hub that can be reached from here"
        raise ModelError(f"{key}: given {path!r}; allowed: {where} ({reason})") from error
