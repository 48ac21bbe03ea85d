"""Calls in batches: all that is waited for goes to the server as one file, which it answers within a day for less money.

The keys of a batch are on disk before it is sent, and its number before it is waited for. So a killed command, given again,
waits for the batch that is under way; one whose number had not come yet is found by its name, which the server keeps. Ledger,
keys and budgets are those of single calls, and so is a second try for what failed; a batch is sent whole or, where a budget has
no room for all of it, not at all.
"""

import asyncio
import json
import logging
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from latent_lab.calls.client import FIRST_WAIT_S, CallError, Client, Completion, Request, completion, moment
from latent_lab.calls.ledger import Ledger
from latent_lab.calls.reply import RETRIED, Reply, error_message, read_reply
from latent_lab.calls.server import Server
from latent_lab.calls.wire import Wire
from latent_lab.files import write_json

BATCHES = "batches.json"
MOST_CALLS, MOST_BYTES = 50_000, 100_000_000
"""Of one batch, within what OpenAI takes."""
ENDED = ("completed", "failed", "expired", "cancelled")
UNKNOWN = (404, 405, 501)
"""Statuses of a server that has no batches."""
EXPIRED = "batch_expired"
"""What a server says of a call for which a batch had no time left."""
NAME = "latent_lab"
"""Under which word of its metadata a batch has its name."""

log = logging.getLogger(__name__)


def client_of(server: Server, ledger: Ledger, wire: Wire | None = None) -> Client:
    """A client that calls as the server's settings say: one by one, or in batches."""
    return (BatchClient if server.batch else Client)(server, ledger, wire)


class BatchClient(Client):
    """A client whose calls go out in batches; rates are left to the server."""

    @property
    def path(self) -> Path:
        """Where the batches of a ledger are written down."""
        return self.ledger.path.with_name(BATCHES)

    async def _all(self, unique: Mapping[str, Request], came: Callable[[str, Completion], None]) -> dict[str, Completion]:
        done: dict[str, Completion] = {}
        tries: Counter[str] = Counter()

        def take(key: str, finished: Completion) -> None:
            done[key] = finished
            came(key, finished)

        for key in unique:
            if row := self.ledger.answered(key):
                take(key, completion(row, is_cached=True))
        while missing := {key: request for key, request in unique.items() if key not in done}:
            kept = self._kept()
            batches = [each for each in kept if not each["is_settled"] and missing.keys() & set(each["keys"])]
            if not batches:
                if not self._has_room(list(missing.values())):
                    self._is_spent = True
                    return done
                batches = [{"name": secrets.token_hex(16), "id": None, "keys": keys, "is_settled": False}
                           for keys in self._parts(missing)]  # fmt: skip
                write_json(self.path, [*kept, *batches])
                for batch in batches:
                    await self._send(batch, missing, is_new=True)
            for batch in batches:
                if batch["id"] is None:
                    await self._send(batch, missing, is_new=False)
                for key, (row, is_transient) in (await self._answered(batch, missing)).items():
                    tries[key] += 1
                    if not is_transient or tries[key] >= self.server.max_attempts:
                        take(key, completion(row))
        return done

    def _kept(self) -> list[dict[str, Any]]:
        """The batches so far."""
        found: list[dict[str, Any]] = json.loads(self.path.read_text(encoding="utf-8")) if self.path.exists() else []
        return found

    def _keep(self, batch: Mapping[str, Any]) -> None:
        """Write down what has become of a batch."""
        write_json(self.path, [batch if each["name"] == batch["name"] else each for each in self._kept()])

    def _has_room(self, requests: Sequence[Request]) -> bool:
        """Whether the budgets allow all of these calls, each at the most it can use."""
        server, (tokens, usd) = self.server, self.ledger.spent()
        bounds = [self._bound(request) for request in requests]
        tokens += sum(map(sum, bounds))
        usd += sum(server.cost(read, 0, written) or 0.0 for read, written in bounds)
        has_tokens = server.budget_tokens is None or tokens <= server.budget_tokens
        return has_tokens and (server.budget_usd is None or usd <= server.budget_usd)

    def _parts(self, requests: Mapping[str, Request]) -> list[list[str]]:
        """Keys, as many together as a batch may have."""
        parts: list[list[str]] = []
        size = 0
        for key, request in requests.items():
            length = len(self._line(key, request))
            if not parts or len(parts[-1]) == MOST_CALLS or size + length > MOST_BYTES:
                parts.append([])
                size = 0
            parts[-1].append(key)
            size += length
        return parts

    def _line(self, key: str, request: Request) -> bytes:
        """A call as a line of the file that is sent."""
        body = {"model": self.server.model, **self.wire.asked(request), **self._params(request)}
        line = {"custom_id": key, "method": "POST", "url": self.wire.path, "body": body}
        return json.dumps(line, ensure_ascii=False).encode("utf-8", "replace") + b"\n"

    async def _send(self, batch: dict[str, Any], requests: Mapping[str, Request], *, is_new: bool) -> None:
        """Have the server begin a batch, unless it has begun it already, and write down its number."""
        text = b"".join(self._line(key, requests[key]) for key in batch["keys"] if key in requests)
        is_doubtful = not is_new

        async def begun() -> str:
            nonlocal is_doubtful
            if is_doubtful and (found := await self._by_name(batch["name"])):
                return found
            is_doubtful = True  # once it was asked for, it may be there, even if the answer was lost
            file = await self._api.files.create(file=(f"{batch['name']}.jsonl", text), purpose="batch")
            made: Any = {"endpoint": self.wire.path, "completion_window": "24h", "metadata": {NAME: batch["name"]}}
            return (await self._api.batches.create(input_file_id=file.id, **made)).id

        batch["id"] = await self._got(begun)
        self._keep(batch)
        said = (self.server.base_url, batch["id"], len(batch["keys"]))
        log.info("%s: batch %s of %d calls is under way, for a day at most; the same command goes on waiting for it", *said)

    async def _by_name(self, name: str) -> str | None:
        """The number of a batch that the server has begun."""
        async for each in self._api.batches.list(limit=100):
            if (each.metadata or {}).get(NAME) == name:
                return each.id
        return None

    async def _answered(self, batch: dict[str, Any], requests: Mapping[str, Request]) -> dict[str, tuple[dict[str, Any], bool]]:
        """Wait for a batch, and make a row of each call; the rows, with whether the same call may succeed later."""
        while (ended := await self._got(lambda: self._api.batches.retrieve(batch["id"]))).status not in ENDED:
            await asyncio.sleep(self.server.batch_poll_s)
        replies: dict[str, Reply] = {}
        for name in filter(None, (ended.output_file_id, ended.error_file_id)):
            file = await self._got(partial(self._api.files.content, name))
            replies |= replied(file.content.decode("utf-8", "replace"))
        told = (ended.errors.data or []) if ended.errors else []
        why = ": ".join([f"the batch {ended.status}", *(each.message for each in told[:1])])
        none = Reply(None, error=f"{why}; it holds no answer", may_be_billed=ended.status != "failed")
        begun = datetime.fromtimestamp(ended.created_at, UTC).isoformat(timespec="milliseconds")
        found: dict[str, tuple[dict[str, Any], bool]] = {}
        for key in batch["keys"]:
            if key in requests:
                reply, request = replies.get(key, none), requests[key]
                row = self._row(key, request, reply, self._bound(request)) | {
                    "batch": batch["id"],
                    "t_start": begun,
                    "t_end": moment(),
                }
                self.ledger.add(row)
                found[key] = row, reply.is_transient
        self._keep(batch | {"is_settled": True})
        return found

    async def _got(self, ask: Callable[[], Awaitable[Any]]) -> Any:
        """What a call for a file or a batch brings, tried again where that may help; CallError where it does not."""
        import openai

        number = 0
        while True:
            number += 1
            try:
                return await ask()
            except openai.APIStatusError as error:
                status, said = error.status_code, f"{error.status_code}: {error_message(error.response.text)}"
            except openai.APIConnectionError as error:
                status, said = None, f"no connection: {error_message(str(error.__cause__ or error))}"
            said = self._hidden(said)
            if status in UNKNOWN:
                rest = f"the server at {self.server.base_url} does not know such a batch, or batches at all ({said})"
                raise CallError(f"{self.server.prefix}batch: given true; {rest}; allowed: false")
            if (status and status < 500 and status not in RETRIED) or number >= self.server.max_attempts:
                raise CallError(
                    f"{self.server.base_url}: a batch can neither be sent nor fetched: {said}; the same command goes on"
                )
            await asyncio.sleep(min(FIRST_WAIT_S * 2 ** (number - 1), self.server.max_wait_s))


def replied(text: str) -> dict[str, Reply]:
    """The replies in a file of a batch, by key; a line that is no such thing is none."""
    found: dict[str, Reply] = {}
    for line in text.split("\n"):
        try:
            row = json.loads(line)
            key, response, error = row["custom_id"], row.get("response"), row.get("error") or {}
            if response:
                found[key] = read_reply(response["status_code"], {}, json.dumps(response["body"]))
            else:
                is_late = error.get("code") == EXPIRED
                found[key] = Reply(None, error=error_message(json.dumps(error)), is_transient=is_late, may_be_billed=False)
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
    return found
