"""A server on 127.0.0.1 that speaks as OpenAI's does, and fails as servers do, on demand; it remembers every request."""

import json
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

USAGE = {
    "prompt_tokens": 10,
    "completion_tokens": 5,
    "total_tokens": 15,
    "prompt_tokens_details": {"cached_tokens": 4},
    "completion_tokens_details": {"reasoning_tokens": 2},
}


@dataclass
class Act:
    """What the server does with one request."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: Any = None
    """A JSON value or raw text."""
    wait: float = 0.0
    """Seconds before it answers."""
    pause: float = 0.0
    """Seconds between two bytes of the body."""
    is_cut: bool = False
    """Close the connection in place of an answer."""


def answer(text: str | None, usage: Any = USAGE, finish_reason: str = "stop", **message: Any) -> dict[str, Any]:
    """A body that answers."""
    choice = {"index": 0, "finish_reason": finish_reason, "message": {"role": "assistant", "content": text, **message}}
    return {"id": "x", "object": "chat.completion", "choices": [choice], **({} if usage is None else {"usage": usage})}


def error(status: int, message: str, code: str = "", **headers: str) -> Act:
    """An error as OpenAI words it."""
    return Act(status, {name.replace("_", "-"): value for name, value in headers.items()},
               {"error": {"message": message, "type": "error", "code": code}})  # fmt: skip


@dataclass
class Seen:
    """A request that came."""

    at: float
    path: str
    authorization: str | None
    body: dict[str, Any]

    @property
    def prompt(self) -> str:
        """The last message, or the text to be continued."""
        return str(self.body["messages"][-1]["content"] if "messages" in self.body else self.body["prompt"])


class FaultServer:
    """Does the acts of ``plan`` for a prompt one after another, then answers by ``say``."""

    def __init__(self, plan: dict[str, list[Act]] | None = None, say: Callable[[dict[str, Any]], Any] | None = None) -> None:
        self.plan = plan or {}
        self.say = say or (lambda body: answer(f"echo {body['messages'][-1]['content']}"))
        self.seen: list[Seen] = []
        self.wait = 0.0
        """Seconds before each answer, besides what an act says."""
        self.in_flight = self.most_in_flight = 0
        self._done: dict[str, int] = defaultdict(int)
        self._lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = True

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}/v1"

    @property
    def prompts(self) -> list[str]:
        return [seen.prompt for seen in self.seen]

    def _next(self, seen: Seen) -> Act:
        with self._lock:
            self.seen.append(seen)
            self.in_flight += 1
            self.most_in_flight = max(self.in_flight, self.most_in_flight)
            number = self._done[seen.prompt]
            self._done[seen.prompt] += 1
        acts = self.plan.get(seen.prompt, [])
        return acts[number] if number < len(acts) else Act(body=self.say(seen.body))

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers["Content-Length"]))
                seen = Seen(time.monotonic(), self.path, self.headers.get("Authorization"), json.loads(raw))
                act = server._next(seen)
                try:
                    time.sleep(act.wait + server.wait)
                    self._do(act)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True
                finally:
                    with server._lock:
                        server.in_flight -= 1

            def _do(self, act: Act) -> None:
                if act.is_cut:
                    self.close_connection = True
                    return
                body = (act.body if isinstance(act.body, str) else json.dumps(act.body)).encode()
                self.send_response(act.status)
                for name, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **act.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                if not act.pause:
                    self.wfile.write(body)
                    return
                for byte in body:
                    self.wfile.write(bytes([byte]))
                    self.wfile.flush()
                    time.sleep(act.pause)

            def log_message(self, *args: Any) -> None:
                pass

        return Handler

    @contextmanager
    def running(self) -> Iterator["FaultServer"]:
        thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._http.shutdown()
            self._http.server_close()
            thread.join()
