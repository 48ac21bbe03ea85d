"""The server that transformers brings, started for a test."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(REPOSITORY)}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def transformers_serve(model: Path, log: Path) -> Iterator[str]:
    """``transformers serve`` with a model of one's own; skips where the extra lacks."""
    pytest.importorskip("fastapi", reason="transformers[serving] is not installed")
    pytest.importorskip("uvicorn", reason="transformers[serving] is not installed")
    port = free_port()
    program = "from transformers.cli.transformers import main; main()"
    asked = ["serve", str(model), "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", program, *asked], stdout=file, stderr=subprocess.STDOUT, env=environment()
        )
    try:
        for _ in range(600):
            assert process.poll() is None, log.read_text()
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1):
                    break
            except OSError:
                time.sleep(0.1)
        else:
            pytest.fail(f"transformers serve is not ready after a minute: {log.read_text()}")
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.kill()
        process.wait()
