"""A page that follows ``task=summarize`` while it goes on, on this machine alone.

The page asks its server again and again for what has changed. What models write is escaped here, before it is sent; the only
script is the page's own, named by its hash, and may ask this server alone. Requests under another name than this machine's are
refused.
"""

import base64
import hashlib
import json
import logging
import shlex
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from latent_lab.config import ConfigError
from latent_lab.deliberation.board import Board
from latent_lab.deliberation.plan import Plan
from latent_lab.problems import Problem
from latent_lab.report.cards import KINDS, MOST_CARDS, by_iteration, card, cards, counts
from latent_lab.report.page import templates

log = logging.getLogger(__name__)

HOST = "127.0.0.1"
SCRIPT = Path(__file__).with_name("live.js").read_text(encoding="utf-8")
LATE_S = 60.0
"""What counts for the rate."""
PATIENCE_S = 1.0
"""How long a request waits for something new."""
HASH = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
HEADERS = {
    "Content-Security-Policy": f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{HASH}'; connect-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


@dataclass
class View:
    """What the page shows of a board."""

    board: Board
    plan: Plan
    problems: Sequence[Problem]
    command: Sequence[str]
    report: Path
    """Where the page stands in the end."""
    marks: deque[tuple[float, int]] = field(default_factory=lambda: deque([(time.monotonic(), 0)]))
    """When one looked, and how many attempts there were; what the ledger knew at the start says nothing of the rest."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    pages: Any = field(default_factory=templates)

    def page(self) -> str:
        """The whole page, as things stand."""
        shown: dict[str, Any] = {"now": self.now(), "command": shlex.join(self.command), "report": self.report, "script": SCRIPT}
        shown |= {"cards": cards(self.board, self.problems), "kinds": KINDS, "total": len(self.problems)}
        return str(self.pages.get_template("live.html.j2").render(shown))

    def news(self, since: int, wait_s: float = 0.0) -> dict[str, Any]:
        """What has changed since a version, in pieces of the page; where nothing has, it waits a while for something."""
        version, changed = self.board.changed_since(since if since <= self.board.version else 0, wait_s)
        now = self.now()
        draw = self.pages.get_template("cards.html.j2").module.card
        drawn = {
            f"card-{number}": str(draw(card(number, problem, self.board.chains(problem.id))))
            for number, problem in enumerate(self.problems[:MOST_CARDS])
            if problem.id in changed
        }
        head = str(self.pages.get_template("live_head.html.j2").module.head(now))
        return {"version": version, "head": head, "cards": drawn, "counts": now["counts"], "state": now["state"]}

    def rate(self, done: int) -> float:
        """Attempts a second, of late."""
        with self.lock:  # several may look
            now = time.monotonic()
            self.marks.append((now, done))
            while len(self.marks) > 2 and now - self.marks[1][0] > LATE_S:
                self.marks.popleft()
            since, had = self.marks[0]
        return (done - had) / max(now - since, 1e-9)

    def now(self) -> dict[str, Any]:
        """The numbers of the moment."""
        version, _ = self.board.changed_since(0)
        done, total = self.board.num_settled, len(self.problems) * self.plan.num_attempts
        right, chains = self.board.right()
        rate = self.rate(done)
        return {
            "version": version,
            "done": done,
            "total": total,
            "rate": rate,
            "left": str(timedelta(seconds=round((total - done) / rate))) if rate else "unknown",
            "right": right,
            "chains": chains,
            "spent": self.board.spent(),
            "iterations": self.plan.settings.iterations,
            "by_iteration": by_iteration(self.board, self.problems),
            "counts": counts(self.board, self.problems),
            "state": "Thinking." if done < total else "All attempts are made; the report is being written.",
        }


@contextmanager
def serving(view: View, port: int) -> Iterator[str]:
    """Show the page at the address this yields; ConfigError where the port cannot be had."""
    try:
        server = ThreadingHTTPServer((HOST, port), handler(view))
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise ConfigError("task.port", port, f"{why}; allowed: a port that is free, or 0 for any") from error
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    thread.start()
    try:
        yield f"http://{HOST}:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def handler(view: View) -> type[BaseHTTPRequestHandler]:
    """What answers requests."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            """The page at ``/``, what has changed at ``/news?since=VERSION``."""
            asked = urlsplit(self.path)
            # A page elsewhere that lets its own name point to this machine comes under that name.
            if self.headers.get("Host", "").partition(":")[0] not in (HOST, "localhost"):
                self.reply(403, "text/plain", "allowed: requests from this machine, by its own name\n")
            elif asked.path == "/":
                self.reply(200, "text/html", view.page())
            elif asked.path == "/news":
                since = parse_qs(asked.query).get("since", ["0"])[-1]
                if since.isdecimal() and len(since) < 16:
                    self.reply(200, "application/json", json.dumps(view.news(int(since), PATIENCE_S)))
                else:
                    self.reply(400, "text/plain", "since: allowed are versions, from 0\n")
            else:
                self.reply(404, "text/plain", "there are / and /news alone\n")

        def reply(self, status: int, kind: str, text: str) -> None:
            """Send a whole answer."""
            body = text.encode("utf-8", "replace")
            with suppress(ConnectionError):  # the reader has gone
                self.send_response(status)
                named = {"Content-Type": f"{kind}; charset=utf-8", "Content-Length": str(len(body)), **HEADERS}
                for name, value in named.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            """Say nothing: a line a second is no log."""

    return Handler
