"""What an answer says, whatever a server writes."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latent_lab.calls.reply import LONGEST_ERROR, Usage, error_message, read_reply, read_usage, retry_after

NOW = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("3", 3.0),
        ("0.25", 0.25),
        ("-5", 0.0),
        ("Tue, 24 Nov 2026 12:00:30 GMT", 30.0),
        ("Tuesday, 24-Nov-26 12:00:30 GMT", 30.0),  # the two older forms a client must read
        ("Tue Nov 24 12:00:30 2026", 30.0),
        ("Tue, 24 Nov 2026 13:00:30 +0100", 30.0),
        ("Tue, 24 Nov 2026 11:59:00 GMT", 0.0),
        ("soon", None),
        ("", None),
        ("inf", None),
        ("nan", None),
        ("Tue, 99 Nov 2026 12:00:30 GMT", None),
    ],
)
def test_retry_after_in_seconds_and_as_a_date(header: str | None, seconds: float | None) -> None:
    assert retry_after(header, NOW) == seconds


@pytest.mark.parametrize(
    ("given", "usage"),
    [
        ({"prompt_tokens": 10, "completion_tokens": 5}, Usage(10, 0, 5, 0)),
        ({"prompt_tokens": 3, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 4}}, Usage(3, 3, 5, 0)),
        ({"prompt_tokens": 3, "completion_tokens": 5, "completion_tokens_details": None}, Usage(3, 0, 5, 0)),
        ({"prompt_tokens": 10}, None),
        ({"prompt_tokens": -1, "completion_tokens": 5}, None),
        ({"prompt_tokens": True, "completion_tokens": 5}, None),
        ({"prompt_tokens": "10", "completion_tokens": 5}, None),
        (None, None),
        ("many", None),
    ],
)
def test_usage_is_counts_or_unknown(given: object, usage: Usage | None) -> None:
    assert read_usage(given) == usage


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ('{"error": {"message": "too\\n long"}}', "too long"),
        ('{"error": "no"}', "no"),
        ('{"message": "no"}', "no"),
        ('{"detail": "Not Found"}', "Not Found"),
        ('{"detail": [1]}', '{"detail": [1]}'),
        ("<html>\n busy", "<html> busy"),
        ("", "no message"),
        ("x" * 9999, "x" * LONGEST_ERROR),
    ],
)
def test_an_error_in_one_line(body: str, words: str) -> None:
    assert error_message(body) == words


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("[1]", "no choice in the answer"),
        ('{"choices": []}', "no choice in the answer"),
        ('{"choices": [{"message": "hi"}]}', "no choice in the answer"),
        ('{"error": {"message": "upstream is busy"}}', "no choice in the answer: upstream is busy"),
        ('{"choices": [{"me', "malformed JSON"),
    ],
)
def test_a_good_status_without_an_answer_may_pass(body: str, words: str) -> None:
    reply = read_reply(200, {"retry-after": "2"}, body, NOW)
    assert (reply.error, reply.is_transient, reply.may_be_billed, reply.retry_after) == (words, True, True, 2.0)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["choices", "message", "content", "usage", "prompt_tokens", "error"]), inner, max_size=4
    ),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([200, 400, 429, 500]), JSON.map(json.dumps) | st.text(max_size=20) | st.just("[" * 100_000))
def test_no_body_is_more_than_an_answer_or_an_error(status: int, body: str) -> None:
    reply = read_reply(status, {}, body, NOW)
    assert (reply.text is None) == (reply.error is not None)
    assert status == 200 or reply.error is not None
    json.dumps([reply.text, reply.error]).encode("utf-8")
