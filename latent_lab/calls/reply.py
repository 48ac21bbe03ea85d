"""What a server's answer to one call says: pure functions of status, headers and body."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

RETRIED = (408, 409, 429)
"""Statuses below 500 after which the same call may succeed."""
LONGEST_ERROR = 500
"""Characters of a server's error message that are kept."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one call; ``cached`` is a part of ``prompt``, ``reasoning`` a part of ``completion``."""

    prompt: int
    cached: int
    completion: int
    reasoning: int


@dataclass(frozen=True, slots=True)
class Reply:
    """The outcome of one HTTP call: an answer, or an error in words."""

    status: int | None
    """HTTP status; None where none came (a timeout, a lost connection)."""
    text: str | None = None
    reasoning: str | None = None
    """What a thinking model wrote apart from its answer."""
    finish_reason: str | None = None
    usage: Usage | None = None
    """None where the server does not say."""
    error: str | None = None
    is_transient: bool = False
    """Whether the same call may succeed later."""
    retry_after: float | None = None
    """Seconds the server asks to wait."""
    may_be_billed: bool = True
    """Whether the call can cost anything: not where the server refused it with an error status."""


def read_reply(status: int, headers: Mapping[str, str], body: str, now: datetime | None = None) -> Reply:
    """Read a whole response of ``/chat/completions``, or of ``/completions``, whose choices hold a ``text``.

    An error status, a body that is no JSON object and a body without a choice are errors; all but refusals (4xx other than 408,
    409 and 429, and 429 for a quota that is used up) are transient. A choice without text (``content: null``) is an answer: the
    empty text.
    """
    wait = retry_after(headers.get("retry-after"), now)
    if not 200 <= status < 300:
        is_transient = (status in RETRIED or status >= 500) and "insufficient_quota" not in body
        error = f"{status}: {error_message(body)}"
        return Reply(status, error=error, is_transient=is_transient, retry_after=wait, may_be_billed=False)
    try:
        whole = json.loads(body)
    except (ValueError, RecursionError):
        return Reply(status, error="malformed JSON", is_transient=True, retry_after=wait)
    usage = read_usage(whole.get("usage")) if isinstance(whole, dict) else None
    choices = whole.get("choices") if isinstance(whole, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if isinstance(choice, dict) and message is None and isinstance(choice.get("text"), str):
        message = {"content": choice["text"]}
    if not isinstance(choice, dict) or not isinstance(message, dict):
        said = f": {error_message(body)}" if isinstance(whole, dict) and whole.get("error") else ""
        return Reply(status, usage=usage, error=f"no choice in the answer{said}", is_transient=True, retry_after=wait)
    thinking = message.get("reasoning_content") or message.get("reasoning")
    return Reply(
        status,
        text=clean(message.get("content")) or "",
        reasoning=clean(thinking),
        finish_reason=clean(choice.get("finish_reason")),
        usage=usage,
    )


def clean(text: Any) -> str | None:
    """Text as UTF-8 can hold it (JSON may carry halves of characters); None for anything that is no text."""
    return text.encode("utf-8", "replace").decode() if isinstance(text, str) else None


def read_usage(given: Any) -> Usage | None:
    """The ``usage`` of a response; None where prompt or completion tokens are missing or no counts."""

    def count(table: Any, key: str) -> int | None:
        value = table.get(key) if isinstance(table, dict) else None
        return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None

    prompt, completion = count(given, "prompt_tokens"), count(given, "completion_tokens")
    if prompt is None or completion is None:
        return None
    cached = count(given.get("prompt_tokens_details"), "cached_tokens") or 0
    reasoning = count(given.get("completion_tokens_details"), "reasoning_tokens") or 0
    return Usage(prompt, min(cached, prompt), completion, min(reasoning, completion))


def retry_after(value: str | None, now: datetime | None = None) -> float | None:
    """Seconds that a Retry-After header asks to wait, written as seconds or as an HTTP date (RFC 9110, 10.2.3).

    0.0 for a moment that is past; None where there is no such header or it is unreadable.
    """
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            moment = parsedate_to_datetime(value)
        except ValueError:
            return None
        if moment.tzinfo is None:  # the date of a server that writes -0000, or no zone at all
            moment = moment.replace(tzinfo=UTC)
        seconds = (moment - (now or datetime.now(UTC))).total_seconds()
    return max(seconds, 0.0) if math.isfinite(seconds) else None


def error_message(body: str) -> str:
    """An error body in one line: ``error.message``, ``message`` or ``detail`` of a JSON object, else its text."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    if isinstance(found, dict):
        error = found.get("error")
        found = (error.get("message") if isinstance(error, dict) else error) or found.get("message") or found.get("detail")
    text = " ".join((clean(found) or clean(body) or "").split())
    return text[:LONGEST_ERROR] or "no message"
