"""``task=play task.web=true``: the same as a page, on this machine alone.

The address says everything (the problem and the edits), so the server remembers nothing and a view can be kept as a bookmark. No
script runs; what is typed and what a model writes is escaped. Requests under another name than this machine's are refused.
"""

import logging
import signal
import socket
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import urlencode

from latent_lab.report.page import templates
from latent_lab.report.play import Edit, Player, PlayError, Scene

try:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.requests import Request
    from starlette.responses import HTMLResponse
    from starlette.routing import Route
except ImportError as error:
    raise PlayError(f"web=true: it needs {error.name}, which is not installed: pip install 'latent_lab[web]'") from error

log = logging.getLogger(__name__)

HOST = "127.0.0.1"
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


def app(player: Player) -> Starlette:
    """The page as an application: ``GET /?problem=347 + 285&edit=swap 2 from 111 + 222&edit=zero 1``.

    ``new`` is one more edit that was typed. Status 400 where something typed cannot be done; the page says why.
    """
    lock = threading.Lock()  # requests come on several threads; the model is asked by one at a time

    def played(problem: str, texts: Sequence[str]) -> Scene | None:
        with lock:
            return player.scene(problem, [parsed(text) for text in texts]) if problem.strip() else None

    def page(request: Request) -> HTMLResponse:
        given = request.query_params
        problem, new, wrong = given.get("problem", ""), given.get("new", "").strip(), ""
        kept = [text for text in given.getlist("edit") if text.strip()]
        try:
            scene = played(problem, [*kept, new] if new else kept)
            kept, new = ([*kept, new] if new else kept), ""
        except ValueError as error:
            wrong = readable(error)
            try:
                scene = played(problem, kept) if new else None
            except ValueError as error:
                wrong, scene = readable(error), None
        undo = urlencode([("problem", problem), *(("edit", text) for text in kept[:-1])])
        shown = {"scene": scene, "wrong": wrong, "problem": problem, "edits": kept, "new": new, "undo": f"?{undo}"}
        text = templates().get_template("play_page.html.j2").render(example=player.example(), **shown)
        return HTMLResponse(text, status_code=400 if wrong else 200, headers=HEADERS)

    # A page elsewhere that lets its own name point to this machine is refused: it comes under that name.
    hosts = Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])
    return Starlette(routes=[Route("/", page)], middleware=[hosts])


def readable(error: ValueError) -> str:
    """The message of an error of ours; any other is raised again."""
    if not type(error).__module__.startswith("latent_lab."):
        raise error
    return str(error)


def parsed(text: str) -> Edit:
    """An edit, or :class:`PlayError`."""
    edit = Edit.parse(text)
    if edit is None:
        raise PlayError(f"{text[:80]}: allowed are 'swap K from PROBLEM', 'zero K' and 'remove K'")
    return edit


def bound(player: Player, port: int) -> tuple[uvicorn.Server, socket.socket]:
    """A server that is ready to run, and the socket it shall run on, which only this machine reaches."""
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port))
    except OSError as error:
        listening.close()
        raise PlayError(f"port={port}: {error.strerror or error}; take another one, or 0 for one that is free") from error
    return uvicorn.Server(uvicorn.Config(app(player), log_level="warning", access_log=False)), listening


def serve(player: Player, port: int) -> dict[str, Any]:
    """Show the page until an interrupt; return where it was."""
    server, listening = bound(player, port)
    with listening:
        at = f"http://{HOST}:{listening.getsockname()[1]}/"
        log.info("playing on %s (only this machine reaches it); Ctrl-C ends it", at)
        # uvicorn ends on either signal and then sends it once more; it shall end the session, not the process within it.
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            with suppress(KeyboardInterrupt):
                server.run(sockets=[listening])
        finally:
            signal.signal(signal.SIGTERM, before)
    return {"url": at}
