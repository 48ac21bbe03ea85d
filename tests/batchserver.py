"""The server of the tests with files and batches, which ends a batch as soon as it has been asked for it often enough."""

import json
import re
from http.server import BaseHTTPRequestHandler
from threading import Event
from time import monotonic
from typing import Any

from faultserver import FaultServer, Seen

BATCH = {"object": "batch", "completion_window": "24h", "endpoint": "", "created_at": 1_769_851_800}


class BatchServer(FaultServer):
    """Answers what a batch asks when the batch begins: that is when it costs money."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.batches: dict[str, dict[str, Any]] = {}
        self.files: dict[str, bytes] = {}
        self.has_batches = True
        self.polls = 0
        """Times that a batch was asked for."""
        self.polls_until_done = 1
        self.is_slow_to_say = False
        """Whether a batch begins long before its number is told."""
        self.refusals: list[int] = []
        """Statuses in place of the next batches, which begin nevertheless."""
        self.ends_as: list[dict[str, Any]] = []
        """What the next batches are like in the end, if not completed."""
        self.over = Event()

    def _begin(self, asked: dict[str, Any]) -> dict[str, Any]:
        lines, errors = [], []
        end = self.ends_as.pop(0) if self.ends_as else {}
        for line in self.files[asked["input_file_id"]].splitlines():
            call = json.loads(line)
            assert (call["method"], call["url"]) == ("POST", asked["endpoint"])
            if "errors" in end:
                continue
            if call["custom_id"] in end.get("late", ()) or end.get("late") == "all":
                told = {"code": "batch_expired", "message": "no time left"}
                errors.append({"custom_id": call["custom_id"], "response": None, "error": told})
                continue
            act = self._next(Seen(monotonic(), call["url"], None, call["body"]))
            kept = lines if act.status == 200 else errors
            kept.append(
                {"custom_id": call["custom_id"], "response": {"status_code": act.status, "body": act.body}, "error": None}
            )
        name = f"batch-{len(self.batches)}"
        batch = (
            BATCH | asked | {"id": name, "status": end.get("status", "completed")} | {k: end[k] for k in ("errors",) if k in end}
        )
        for kind, rows in (("output_file_id", lines), ("error_file_id", errors)):
            if rows:
                self.files[f"{kind}-{name}"] = "".join(json.dumps(row) + "\n" for row in reversed(rows)).encode()
                batch[kind] = f"{kind}-{name}"
        self.batches[name] = batch
        return batch

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server, parent = self, super()._handler()

        class Handler(parent):  # type: ignore[valid-type,misc]
            def do_POST(self) -> None:
                if not self.path.endswith(("/files", "/batches")):
                    super().do_POST()
                    return
                raw = self.rfile.read(int(self.headers["Content-Length"]))
                if not server.has_batches:
                    self._tell({"detail": "Not Found"}, 404)
                    return
                if self.path.endswith("/files"):
                    (found,) = re.findall(rb'name="file".*?\r\n\r\n(.*?)\r\n--', raw, flags=re.DOTALL)
                    name = f"file-{len(server.files)}"
                    server.files[name] = found
                    self._tell({"id": name, "object": "file", "bytes": len(found), "created_at": 0, "filename": "x",
                                "purpose": "batch", "status": "processed"})  # fmt: skip
                    return
                batch = server._begin(json.loads(raw))
                if server.is_slow_to_say:
                    server.over.wait(60)
                if server.refusals:
                    self._tell({"error": {"message": "oops"}}, server.refusals.pop(0))
                else:
                    self._tell(batch | {"status": "validating"})

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                if path.endswith("/content"):
                    self._tell(server.files[path.split("/")[-2]])
                elif path.endswith("/batches"):
                    self._tell({"object": "list", "data": list(server.batches.values()), "has_more": False})
                else:
                    server.polls += 1
                    batch = server.batches[path.split("/")[-1]]
                    self._tell(batch if server.polls >= server.polls_until_done else batch | {"status": "in_progress"})

            def _tell(self, value: Any, status: int = 200) -> None:
                body = value if isinstance(value, bytes) else json.dumps(value).encode()
                try:
                    self.send_response(status)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True

        return Handler
