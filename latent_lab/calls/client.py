"""The client: a batch of requests goes out concurrently, within rates and budgets; one owner retries; every call is a ledger row.

What is counted. Tokens and money are those the server reports. Where it reports none although the call may be billed (no
``usage``, a timeout, a lost connection), a call counts as the most it can have used: a prompt token for every byte and 64 for
every message around it, and ``max_tokens`` for the answer; such rows say ``is_estimate``. The same bound is what a call is
reserved for before it is made, so a budget is never exceeded.
"""

import asyncio
import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.util import find_spec
from types import TracebackType
from typing import TYPE_CHECKING, Any

from latent_lab.calls.ledger import Ledger
from latent_lab.calls.reply import Reply, Usage, error_message, read_reply
from latent_lab.calls.server import HIDDEN, Server
from latent_lab.calls.wire import ChatWire, Wire
from latent_lab.provenance import redact

if TYPE_CHECKING:
    from aiolimiter import AsyncLimiter
    from tenacity import RetryCallState

Message = Mapping[str, str]
"""``{"role": ..., "content": ...}``."""

AROUND_A_MESSAGE = 64
"""Most tokens a chat template puts around a message."""
BYTES_PER_TOKEN = 4
"""What rates are reckoned with, as OpenAI does; budgets are reckoned with one."""
FIRST_WAIT_S = 0.5
"""Wait after the first failed attempt, doubled after each further one, where the server asks for no other."""


SAID_EVERY_S = 10.0
"""Least time between two lines of log about calls that failed and are made again."""

log = logging.getLogger(__name__)


class CallError(ValueError):
    """Calls that cannot be made on this machine; the message says what to do."""


class BudgetSpent(ValueError):
    """The next call could exceed a budget; what is answered is in the ledger, and the same command goes on from there."""


@dataclass(frozen=True, slots=True)
class LatentMemory:
    """Thoughts that a run of this laboratory is to think on from: named, not held, as the same question makes the same ones."""

    question: str
    """Whose thoughts they are."""
    attempts: int
    """How many attempts, each thinking on from the one before, had been made of it."""
    keep: int
    """The last so many, or all where there are fewer."""
    is_zeroed: bool = False
    """Whether zeros stand in their place."""


@dataclass(frozen=True, slots=True)
class TraceMemory:
    """Vectors that a run of this laboratory makes of a text it has written; named as well, by all that they are made of."""

    question: str
    text: str
    """What was written about it."""
    keep: int
    """How many vectors."""
    by: str
    """How: ``condensed`` or ``averaged``."""
    is_zeroed: bool = False
    """Whether zeros stand in their place."""


@dataclass(frozen=True, slots=True)
class Request:
    """A conversation to be continued, and the number of the sample: the same request with another number is asked anew."""

    messages: tuple[Message, ...]
    sample: int = 0
    prefix: str = ""
    """What the reply begins with; the model goes on from there, and the completion holds only what it added."""
    max_tokens: int | None = None
    """Longest answer in tokens; None takes the server's setting."""
    temperature: float | None = None
    """What is sampled with; None takes the server's setting, or the model's in this process."""
    memory: LatentMemory | TraceMemory | None = None
    """Vectors that fill the first slots; no server can be given any."""
    about: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """What the call is for, as columns of its row; no part of what is asked."""

    def heat(self, usual: float) -> float:
        """The temperature that is sampled with."""
        return usual if self.temperature is None else self.temperature


@dataclass(frozen=True, slots=True)
class Completion:
    """What became of a request."""

    text: str | None
    """What the model answered; None after an error."""
    reasoning: str | None
    """What a thinking model wrote apart from its answer, where the server shows it."""
    finish_reason: str | None
    """``stop``, ``length``, or another word of the server's."""
    usage: Usage
    """Tokens as counted (see the module)."""
    error: str | None = None
    """Why there is no answer."""
    is_cached: bool = False
    """Whether it was answered by the ledger, without a call."""
    prefilled: int | None = field(default=None, compare=False)
    """Tokens of its prompt that a model in this process read for it: none where another of its batch has the same prompt."""


Told = Callable[[int, Completion], None]
"""Is told an answer with the place of its request."""


class Client:
    """Calls one model of one server, and writes to one ledger.

    A context manager. The key is read from the environment and kept in memory alone: it is cut out of all that a server says.
    """

    def __init__(self, server: Server, ledger: Ledger, wire: Wire | None = None) -> None:
        self.server, self.ledger, self.wire = server, ledger, wire or ChatWire()
        self._key = check_ready(server)
        from openai import AsyncOpenAI

        for name in ("openai", "httpx", "httpx2"):  # a line of log for every call says nothing that the ledger does not
            logging.getLogger(name).setLevel(logging.WARNING)
        self._runner = asyncio.Runner()  # one loop for all batches, since connections and rates belong to a loop
        self._api = AsyncOpenAI(base_url=server.base_url, api_key=self._key or "none", max_retries=0, timeout=server.timeout_s)
        self._slots = asyncio.Semaphore(server.max_in_flight)
        self._settled = asyncio.Condition()
        self._reserved: list[tuple[int, float]] = []
        self._is_spent = False
        self._said_at: float | None = None
        self._rates = [
            (limiter(server.requests_per_minute), lambda request: 1.0),
            (limiter(server.tokens_per_minute), lambda request: num_bytes(request) / BYTES_PER_TOKEN + self._limit(request)),
        ]

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._runner.run(self._api.close())
        self._runner.close()

    def complete(
        self,
        requests: Sequence[Request],
        advance: Callable[[int], None] = lambda count: None,
        told: Told = lambda place, done: None,
    ) -> list[Completion]:
        """Answer requests, in their order; equal ones are asked once. ``advance`` counts calls that are done.

        ``told`` is told of every request's answer as soon as it is there, in whatever order they come.

        A call that fails for good is a completion with an ``error``. Raises :class:`BudgetSpent` where a budget ends the batch:
        calls under way are waited for and kept, no further one is made.
        """
        keys = [self.key(request) for request in requests]
        unique = dict(zip(keys, requests, strict=True))
        self._is_spent = False
        places: dict[str, list[int]] = {}
        for place, key in enumerate(keys):
            places.setdefault(key, []).append(place)

        def came(key: str, completion: Completion) -> None:
            advance(1)
            for place in places[key]:
                told(place, completion)

        done = self._runner.run(self._all(unique, came))
        if self._is_spent:
            raise BudgetSpent(self._spent_message(sum(key in done for key in keys), len(keys)))
        return [done[key] for key in keys]

    def key(self, request: Request) -> str:
        """SHA-256 over all that decides an answer: server, model, messages, sampling, and the number of the sample."""
        asked = self.wire.asked(request)
        shown = asked["messages"] if asked.keys() == {"messages"} else asked
        return digest([self.server.base_url, self.server.model, shown, self._params(request), request.sample])

    def _limit(self, request: Request) -> int:
        """Most tokens the answer may have."""
        return request.max_tokens or self.server.max_tokens

    def _bound(self, request: Request) -> tuple[int, int]:
        """Most tokens that a call can read and write."""
        return num_bytes(request) + AROUND_A_MESSAGE * len(request.messages), self._limit(request)

    def _params(self, request: Request) -> dict[str, Any]:
        own = {} if request.temperature is None else {"temperature": request.temperature}
        return self.server.params(request.sample) | {self.server.limit_name: self._limit(request)} | own

    async def _all(self, unique: Mapping[str, Request], came: Callable[[str, Completion], None]) -> dict[str, Completion]:
        done: dict[str, Completion] = {}

        async def one(key: str, request: Request) -> None:
            try:
                done[key] = await self._one(key, request)
            except BudgetSpent:
                self._is_spent = True
            else:
                came(key, done[key])

        async with asyncio.TaskGroup() as tasks:
            for key, request in unique.items():
                tasks.create_task(one(key, request))
        return done

    async def _one(self, key: str, request: Request) -> Completion:
        """The ledger's answer, or the last of as many attempts as it takes."""
        from tenacity import AsyncRetrying, retry_if_result, stop_after_attempt

        if row := self.ledger.answered(key):
            return completion(row, is_cached=True)
        attempts = 0

        async def attempt() -> tuple[Reply, dict[str, Any]]:
            nonlocal attempts
            attempts += 1
            return await self._attempt(key, request, attempts)

        retrying = AsyncRetrying(
            stop=stop_after_attempt(self.server.max_attempts),
            retry=retry_if_result(lambda outcome: outcome[0].is_transient),
            wait=self._wait,
            sleep=asyncio.sleep,
            before_sleep=self._say,
            retry_error_callback=lambda state: state.outcome and state.outcome.result(),
        )
        _, row = await retrying(attempt)
        return completion(row)

    def _wait(self, state: "RetryCallState") -> float:
        """Seconds until the next attempt: what the server asks for, else longer each time; never above ``max_wait_s``."""
        from tenacity import wait_exponential, wait_random

        asked = state.outcome.result()[0].retry_after if state.outcome else None
        most = self.server.max_wait_s
        if asked is None:
            asked = (wait_exponential(FIRST_WAIT_S) + wait_random(0, FIRST_WAIT_S))(state)
        return min(asked, most)

    def _say(self, state: "RetryCallState") -> None:
        """Say now and then that a call failed and is made again, or a server that is not there is silence for a minute."""
        now = time.monotonic()
        if (
            state.outcome is None
            or state.next_action is None
            or (self._said_at is not None and now - self._said_at < SAID_EVERY_S)
        ):
            return
        self._said_at = now
        error = self._hidden(state.outcome.result()[0].error)
        told = (self.server.base_url, error, state.attempt_number, self.server.max_attempts, state.next_action.sleep)
        log.warning("%s: %s; call %d of at most %d for a reply, the next in %.1f s", *told)

    async def _attempt(self, key: str, request: Request, number: int) -> tuple[Reply, dict[str, Any]]:
        """One HTTP call, begun when rates, a free slot and the budgets allow it, and its row."""
        async with self._slots:
            bound = self._bound(request)
            reserved = sum(bound), self.server.cost(bound[0], 0, bound[1]) or 0.0
            await self._reserve(reserved)
            try:
                for rate, amount in self._rates:  # last of all, so that calls do not gather behind a busy slot
                    await take(rate, amount(request))
                started = moment()
                reply = await self._call(request)
                row = self._row(key, request, reply, bound) | {"attempt": number, "t_start": started, "t_end": moment()}
                self.ledger.add(row)
            finally:
                async with self._settled:
                    self._reserved.remove(reserved)
                    self._settled.notify_all()
        return reply, row

    async def _reserve(self, wanted: tuple[int, float]) -> None:
        """Wait until the calls under way leave room for one more within the budgets; BudgetSpent where there can be none."""
        server = self.server
        if server.budget_tokens is None and server.budget_usd is None:
            self._reserved.append(wanted)
            return
        async with self._settled:
            while True:
                if self._is_spent:
                    raise BudgetSpent
                held = [self.ledger.spent(), *self._reserved, wanted]
                fits_tokens = server.budget_tokens is None or sum(tokens for tokens, _ in held) <= server.budget_tokens
                if fits_tokens and (server.budget_usd is None or sum(usd for _, usd in held) <= server.budget_usd):
                    self._reserved.append(wanted)
                    return
                if not self._reserved:
                    self._is_spent = True
                    self._settled.notify_all()
                    raise BudgetSpent
                await self._settled.wait()

    async def _call(self, request: Request) -> Reply:
        """Send one request; whatever happens becomes a reply."""
        import openai

        server = self.server
        try:
            async with asyncio.timeout(server.timeout_s):  # the library's own limit starts anew with every byte
                raw = await self.wire.send(self._api, server.model, self.wire.asked(request), self._params(request))
                status, headers, body = raw.status_code, raw.headers, raw.text
        except openai.APIStatusError as error:
            status, headers, body = error.status_code, error.response.headers, error.response.text
        except (TimeoutError, openai.APITimeoutError):
            return Reply(None, error=f"no answer within {server.timeout_s:g} s", is_transient=True)
        except openai.APIConnectionError as error:
            words = f"no connection: {error_message(str(error.__cause__ or error))}"
            was_heard = type(error.__cause__).__name__ != "ConnectError"
            return Reply(None, error=words, is_transient=True, may_be_billed=was_heard)
        return read_reply(status, headers, body)

    def _row(self, key: str, request: Request, reply: Reply, bound: tuple[int, int]) -> dict[str, Any]:
        is_estimate = reply.usage is None and reply.may_be_billed
        tokens = reply.usage or (Usage(bound[0], 0, bound[1], 0) if is_estimate else Usage(0, 0, 0, 0))
        row = {
            "key_sha256": key,
            "model": self.server.model,
            "base_url": self.server.base_url,
            "params": redact(self._params(request)),
            "prompt_sha": digest([*map(dict, request.messages), *([request.prefix] if request.prefix else [])]),
            "sample": request.sample,
            "http_status": reply.status,
            "error": reply.error,
            "text": reply.text,
            "reasoning": reply.reasoning,
            "finish_reason": reply.finish_reason,
            "usage": asdict(reply.usage) if reply.usage else None,
            "tokens": asdict(tokens),
            "is_estimate": is_estimate,
            "cost_usd": self.server.cost(tokens.prompt, tokens.cached, tokens.completion),
            **request.about,
        }
        return {name: self._hidden(value) for name, value in row.items()}

    def _hidden(self, value: Any) -> Any:
        """Text without the key, should a server repeat it."""
        return value.replace(self._key, HIDDEN) if self._key and isinstance(value, str) else value

    def _spent_message(self, done: int, asked: int) -> str:
        server, (tokens, usd) = self.server, self.ledger.spent()
        caps = {
            "budget_tokens": (server.budget_tokens, f"{tokens} tokens"),
            "budget_usd": (server.budget_usd, f"{usd:.4f} US dollars"),
        }
        said = "; ".join(
            f"{server.prefix}{name}: given {cap}, spent {spent}" for name, (cap, spent) in caps.items() if cap is not None
        )
        return (
            f"{said}: the next call could exceed it. {done} of {asked} requests are answered and kept; a larger one goes on there"
        )


def check_ready(server: Server) -> str | None:
    """Return the key from the environment (None: the server wants none) if calls can be made from here.

    CallError where a library is not installed, the variable is not set, or it holds what no header can.
    """
    for library in ("openai", "tenacity", "aiolimiter"):
        if find_spec(library) is None:
            raise CallError(f"calling a server takes {library}, which is not installed: pip install 'latent_lab[api]'")
    if server.api_key_env is None:
        return None
    key = os.environ.get(server.api_key_env, "").strip()
    if not key:
        raise CallError(
            f"{server.prefix}api_key_env: the environment has no variable {server.api_key_env}; allowed: the name of one that "
            "holds the key for the server, or null for a server that wants none"
        )
    if not key.isascii() or not key.isprintable():
        raise CallError(f"{server.prefix}api_key_env: {server.api_key_env} holds no key: it must be one line of plain characters")
    return key


def completion(row: Mapping[str, Any], *, is_cached: bool = False) -> Completion:
    """What a row of the ledger says."""
    said = (row["text"], row["reasoning"], row["finish_reason"])
    return Completion(*said, usage=Usage(**row["tokens"]), error=row["error"], is_cached=is_cached)


def num_bytes(request: Request) -> int:
    """Bytes of the text that is sent: no tokenizer over bytes makes more tokens of it."""
    texts = [text for message in request.messages for text in message.values()]
    return sum(len(text.encode("utf-8", "replace")) for text in (*texts, request.prefix))


def limiter(per_minute: float | None) -> "AsyncLimiter | None":
    """A limit that lets through a second's worth at once, and so in any minute at most a second's worth too much."""
    from aiolimiter import AsyncLimiter

    if per_minute is None:
        return None
    at_once = max(per_minute / 60, 1.0)
    return AsyncLimiter(at_once, 60 * at_once / per_minute)


async def take(rate: "AsyncLimiter | None", amount: float) -> None:
    """Wait until a rate has let ``amount`` through."""
    while rate is not None and amount > 0:
        part = min(amount, rate.max_rate)
        await rate.acquire(part)
        amount -= part


def digest(value: Any) -> str:
    """SHA-256 of a value's canonical JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=True).encode()).hexdigest()


def moment() -> str:
    """The time in UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
