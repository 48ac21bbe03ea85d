"""Chat with a Hugging Face causal language model in this process: conversations in; text, usage and finish reason out."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from latent_lab.backbone import ModelError, no_bars
from latent_lab.calls.beginnings import Group, beginnings, pieces, spared, uncut
from latent_lab.calls.client import Completion, Message, Request
from latent_lab.calls.here import numbered
from latent_lab.calls.reply import Usage
from latent_lab.calls.wire import paragraphs
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
            return paragraphs(messages)
        given = [dict(message) for message in messages]
        return str(self.tokenizer.apply_chat_template(given, tokenize=False, add_generation_prompt=True))

    def complete(
        self, conversations: Sequence[Sequence[Message]], *, batch_size: int, max_tokens: int, temperature: float, seed: int
    ) -> list[Completion]:
        """Continue conversations, ``batch_size`` at once; the completions are in their order, and greedy at temperature 0.

        A prompt that leaves no room for ``max_tokens`` is a completion with an error. What is sampled depends on the seed and the
        conversation alone.
        """
        requests = [Request(tuple(messages)) for messages in conversations]
        with progress("replying", len(requests), unit="replies") as advance:
            sizes = {"batch_size": batch_size, "max_tokens": max_tokens}
            return self.answer(requests, **sizes, temperature=temperature, seed=seed, advance=advance)

    def answer(
        self,
        requests: Sequence[Request],
        *,
        batch_size: int,
        max_tokens: int,
        temperature: float,
        seed: int,
        top_p: float | None = None,
        top_k: int | None = None,
        advance: Callable[[int], None] = lambda count: None,
    ) -> list[Completion]:
        """The same for requests, each with its own limit and temperature, if it names any, and with ``seed + sample``.

        What ``top_p`` and ``top_k`` leave to be drawn from, :class:`latent_lab.calls.sampling.Drawn` says.
        """
        from latent_lab.calls.sampling import sampled
        from latent_lab.decoding import reads_in_pieces, reads_once

        has_template = self.tokenizer.chat_template is not None  # which writes the special tokens itself
        texts = [self.prompt(request.messages) + request.prefix for request in requests]
        ids = [self.tokenizer(text, add_special_tokens=not has_template)["input_ids"] for text in texts]
        limits = [request.max_tokens or max_tokens for request in requests]
        room = getattr(self.model.config, "max_position_embeddings", None) or 10**9
        done = {i: no_room(len(row), room - limits[i]) for i, row in enumerate(ids) if len(row) + limits[i] > room}
        fitting = sorted((i for i in range(len(ids)) if i not in done), key=lambda i: (limits[i], len(ids[i]), i))
        for part in parts(fitting, ids, limits, batch_size, room):
            seeds = [seed_of(seed + requests[i].sample, ids[i]) for i in part]
            places, kinds = numbered([tuple(ids[i]) for i in part] if reads_once(self.model) else part)
            prompts = [ids[part[place]] for place in places]
            groups = beginnings(prompts) if reads_in_pieces(self.model) else uncut(len(prompts))
            heat = [requests[i].heat(temperature) for i in part]
            drawn = sampled(seeds, heat, top_p, top_k)
            written = self._continue(prompts, groups, kinds, max(limits[i] for i in part), drawn)
            read = dict(zip(places, (len(p) - n for p, n in zip(prompts, spared(groups), strict=True)), strict=True))
            for place, (i, new) in enumerate(zip(part, written, strict=True)):
                done[i] = self._completion(ids[i], new[: limits[i]], read.get(place, 0))
            advance(len(part))
        return [done[i] for i in range(len(ids))]

    def _continue(
        self,
        prompts: Sequence[list[int]],
        groups: Sequence[Group],
        rows: Sequence[int],
        max_tokens: int,
        drawn: dict[str, Any],
    ) -> list[list[int]]:
        """Continue the prompts whose numbers are ``rows``; each is read once, and so is what a group begins with. The new ids."""
        from latent_lab.decoding import continued

        eos = self.tokenizer.eos_token_id
        greedy: dict[str, Any] = {"do_sample": False, "temperature": None, "top_k": None, "top_p": None}
        new: list[list[int]] = continued(
            self.model,
            pieces(prompts, groups, rows, eos, self.model.device),
            span=max_tokens,  # only one: what a model's own settings say of the beginning of a text must hold there alone
            max_new_tokens=max_tokens,
            eos_token_id=sorted(self._ends),
            pad_token_id=eos,
            **greedy,
            **drawn,
        ).tolist()
        return new

    @property
    def _ends(self) -> set[int]:
        """The tokens that end a text."""
        stops = self.model.generation_config.eos_token_id
        return {self.tokenizer.eos_token_id, *(stops if isinstance(stops, list) else [] if stops is None else [stops])}

    def _completion(self, prompt: Sequence[int], new: Sequence[int], read: int) -> Completion:
        """What new ids say, up to the first that ends the text; so many tokens were read for it."""
        end = next((place for place, token in enumerate(new) if token in self._ends), None)
        text = self.tokenizer.decode(new[:end], skip_special_tokens=True)
        usage = Usage(len(prompt), 0, len(new) if end is None else end + 1, 0)
        reason = "length" if end is None else "stop"
        return Completion(text, None, reason, usage, prefilled=read)


def parts(order: Sequence[int], ids: Sequence[Sequence[int]], limits: Sequence[int], size: int, room: int) -> Iterator[list[int]]:
    """Cut an order of rows into batches of at most ``size`` in which every row has positions for the longest answer allowed."""
    part: list[int] = []
    for i in order:
        longest = max(limits[j] for j in (*part, i))
        if part and (len(part) == size or any(len(ids[j]) + longest > room for j in (*part, i))):
            yield part
            part = []
        part.append(i)
    if part:
        yield part


def seed_of(seed: int, ids: Sequence[int]) -> int:
    """A seed for each prompt, whatever stands beside it."""
    raw = " ".join(map(str, [seed, *ids])).encode()
    return int.from_bytes(hashlib.blake2b(raw, digest_size=7).digest(), "big")


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
