"""Whether two formulas in LaTeX are the same, by math-verify, in a process of its own that can be stopped.

Sympy may take for ever over what a model writes (``9^{9^{9}}``), and math-verify's own time limits are alarms, which do nothing
outside the main thread nor in the middle of one long multiplication. So a child compares, with limits on time and memory, and is
replaced when it exceeds them. Of math-verify only the LaTeX reader is used: the one for plain expressions ends in ``eval``.

The child runs this file as a script: it imports nothing of the package.
"""

import contextlib
import json
import os
import subprocess
import sys
from threading import Lock, Timer
from typing import IO, Any

LONGEST_FORMULA = 1_000
"""Characters that either formula may have."""
SECONDS = 5.0
"""Longest time for one comparison."""
SECONDS_TO_START = 120.0
MEMORY = 4 * 2**30
"""Bytes of address space the child may take, where the system can limit it."""


def check_installed() -> None:
    """Raise ValueError where math-verify lacks."""
    try:
        import math_verify  # noqa: F401
    except ImportError as error:
        raise ValueError("rule=math: it needs math-verify, which is not installed: pip install 'latent_lab[math]'") from error


class FormulaComparer:
    """Compares formulas in one child process, which starts at the first comparison; for any number of threads."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self.seconds = seconds
        self._child: subprocess.Popen[str] | None = None
        self._lock = Lock()

    def same(self, given: str, gold: str) -> bool | None:
        """Whether two formulas are equal; None where the gold one cannot be read, or either is too long or takes too long."""
        if max(len(given), len(gold)) > LONGEST_FORMULA:
            return None
        with self._lock:
            if self._child is None or self._child.poll() is not None:
                self._start()
            answer = self._ask(json.dumps([given, gold]), self.seconds)
            if not answer:
                self.close()
        same = json.loads(answer) if answer else None
        return same if isinstance(same, bool) else None

    def close(self) -> None:
        """Stop the child, if there is one."""
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None

    def _start(self) -> None:
        self.close()
        # -P: the folder of this file holds modules named like those of the standard library.
        command = [sys.executable, "-P", __file__]
        options: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self._child = subprocess.Popen(command, text=True, encoding="utf-8", **options)
        if not self._ask("", SECONDS_TO_START):
            raise ValueError("rule=math: its process does not start; try: python -c 'import math_verify'")

    def _ask(self, line: str, seconds: float) -> str:
        """The child's answer to a line; empty if it dies, or must be stopped."""
        child = self._child
        assert child is not None
        assert child.stdin is not None
        assert child.stdout is not None
        timer = Timer(seconds, child.kill)
        timer.start()
        try:
            child.stdin.write(line + "\n")
            child.stdin.flush()
            return child.stdout.readline()
        except BrokenPipeError:
            return ""
        finally:
            timer.cancel()


COMPARER = FormulaComparer()
"""The one that grading uses."""


def _limit_memory() -> None:
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def _serve(questions: IO[str], answers: IO[str]) -> None:
    """Answer each line, ``[given, gold]``, with ``true``, ``false`` or ``null``; an empty line asks whether one is ready."""
    from math_verify import LatexExtractionConfig, parse, verify

    def read(formula: str) -> list[Any]:
        is_marked = "$" in formula or r"\boxed" in formula or r"\(" in formula or r"\[" in formula
        text = formula if is_marked else f"${formula}$"
        # No alarms: the parent keeps the time.
        return parse(text, [LatexExtractionConfig()], fallback_mode="no_fallback", parsing_timeout=None)

    for line in questions:
        same: bool | None = None
        with contextlib.suppress(Exception):
            if line.strip():
                given, gold = map(read, json.loads(line))
                # The gold answer first: what counts as equal is not the same both ways.
                same = (bool(given) and verify(gold, given, timeout_seconds=None)) if gold else None
        answers.write(json.dumps(same if line.strip() else "ready") + "\n")
        answers.flush()


def _main() -> None:
    """Keep the pipe to the parent for answers alone, whatever the libraries print."""
    pipe = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    _limit_memory()
    _serve(sys.stdin, pipe)


if __name__ == "__main__":
    _main()
