"""Calls of a model in this process: rows of the same ledger, so that what is answered is never computed again, either."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from latent_lab.calls.client import Completion, Request, Told, completion, digest, moment
from latent_lab.calls.ledger import Ledger

Answer = Callable[[Sequence[Request]], list[Completion]]


@dataclass
class Here:
    """A model in this process that writes to a ledger, after every batch."""

    ledger: Ledger
    identity: Mapping[str, Any]
    """All that decides an answer besides the request: the model, its weights, how it samples."""
    answer: Answer
    batch_size: int
    """Requests answered between two writings."""

    def key(self, request: Request) -> str:
        """SHA-256 over all that decides an answer."""
        asked = [list(map(dict, request.messages)), request.prefix, request.max_tokens, request.sample]
        own = [] if request.temperature is None else [{"temperature": request.temperature}]
        return digest([dict(self.identity), *asked, *([asdict(request.memory)] if request.memory else []), *own])

    def complete(
        self,
        requests: Sequence[Request],
        advance: Callable[[int], None] = lambda count: None,
        told: Told = lambda place, done: None,
    ) -> list[Completion]:
        """Answer requests, in their order; equal ones, and those the ledger knows, are not computed again.

        ``told`` is told of every request's answer as soon as it is there.
        """
        keys = [self.key(request) for request in requests]
        missing = {key: each for key, each in zip(keys, requests, strict=True) if self.ledger.answered(key) is None}
        new: dict[str, dict[str, Any]] = {}
        asking: dict[str, list[int]] = {}
        for number, key in enumerate(keys):
            asking.setdefault(key, []).append(number)
            if key not in missing:
                told(number, self._known(key))
        # Alike in length stand together: the longest of a batch decides what it costs. So do equal prompts, to be read once.
        order = sorted(missing, key=lambda key: (missing[key].max_tokens or 0, *place(missing[key]), key))
        for start in range(0, len(order), self.batch_size):
            part = order[start : start + self.batch_size]
            started = moment()
            for key, done in zip(part, self.answer([missing[key] for key in part]), strict=True):
                new[key] = self._row(key, missing[key], done, started)
                self.ledger.add(new[key])
            advance(len(part))
            for key in part:
                for number in asking[key]:
                    told(number, completion(new[key]))
        return [completion(new[key]) if key in new else self._known(key) for key in keys]

    def _known(self, key: str) -> Completion:
        """What the ledger has answered."""
        row = self.ledger.answered(key)
        assert row is not None
        return completion(row, is_cached=True)

    def _row(self, key: str, request: Request, done: Completion, started: str) -> dict[str, Any]:
        return {
            "key_sha256": key,
            "model": self.identity["model"],
            "prompt_sha": digest([*map(dict, request.messages), *([request.prefix] if request.prefix else [])]),
            "sample": request.sample,
            **({"memory": asdict(request.memory)} if request.memory else {}),
            "error": done.error,
            "text": done.text,
            "reasoning": done.reasoning,
            "finish_reason": done.finish_reason,
            "tokens": asdict(done.usage),
            "prefilled": done.prefilled,
            "is_estimate": False,
            "cost_usd": 0.0,
            **request.about,
            "t_start": started,
            "t_end": moment(),
        }


def place(request: Request) -> tuple[int, str]:
    """Where a request stands among others: by the length of all that is given to the model, then by all of it."""
    texts = [*(message["content"] for message in request.messages), request.prefix]
    return sum(map(len, texts)), repr((texts, request.memory))


def numbered(prompts: Sequence[Hashable]) -> tuple[list[int], list[int]]:
    """The places of different prompts, and for each prompt the number of its kind: what is to be read, and how often."""
    first: dict[Hashable, int] = {}
    for prompt in prompts:
        first.setdefault(prompt, len(first))
    kinds = [first[prompt] for prompt in prompts]
    return [kinds.index(kind) for kind in range(len(first))], kinds
