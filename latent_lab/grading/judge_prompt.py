"""What a judge is asked, and how its reply is read: pure functions, and one file for each version of the prompt."""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KINDS = ("planning", "execution", "both", "format", "unclear")
"""What a wrong answer failed by. After "To CoT or not to CoT" (arXiv 2409.12183), which tells planning from execution."""

PROMPTS = Path(__file__).resolve().parent / "prompts"
SLOTS = ("question", "output", "answer", "gold")
NEEDED_SLOTS = ("question", "output", "gold")
SLOT = re.compile(r"\{(" + "|".join(SLOTS) + r")\}")
NO_ANSWER = "(none)"

LONGEST_REPLY, MOST_OBJECTS, LONGEST_REASON = 50_000, 50, 1_000
"""Of a reply: characters read (the last ones), objects tried, and characters kept of a reason."""


@dataclass(frozen=True, slots=True)
class Case:
    """A wrong answer to be judged."""

    id: str
    question: str
    output: str
    """What the model wrote, without the question."""
    answer: str | None
    """The answer read from it."""
    gold: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one judge says about a case."""

    kind: str
    """One of ``KINDS``."""
    reason: str
    is_readable: bool = True
    """Whether the judge's reply could be read; if not, the kind is unclear and the reason says why."""
    error: str | None = None
    """Why there is no reply; the kind is unclear then."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A version of the prompt: a text with a part ``[system]``, a part ``[user]``, and slots."""

    name: str
    system: str
    user: str
    sha256: str
    """Of the file."""

    def messages(self, case: Case, *, show_gold: bool) -> tuple[dict[str, str], ...]:
        """The chat about a case. The paragraphs that speak of the gold answer are left out where it is not shown."""
        slots = {"question": case.question, "output": case.output, "answer": case.answer or NO_ANSWER, "gold": case.gold}

        def filled(text: str) -> str:
            paragraphs = [part for part in text.split("\n\n") if show_gold or "{gold}" not in part]
            # In one pass: what a problem or a model writes is never taken for a slot.
            return SLOT.sub(lambda slot: slots[slot[1]], "\n\n".join(paragraphs))

        return ({"role": "system", "content": filled(self.system)}, {"role": "user", "content": filled(self.user)})


def load_prompt(name: str, asks: str = "judge", needed: Sequence[str] = NEEDED_SLOTS) -> Prompt:
    """Read a version that comes with the package (``v1``) or a file of the same form; ValueError where it cannot be used.

    ``asks`` is what it is a version of, and ``needed`` the slots it must have.
    """
    shipped = {path.stem.removeprefix(f"{asks}_"): path for path in sorted(PROMPTS.glob(f"{asks}_*.txt"))}
    path = shipped.get(name) or Path(name).expanduser()
    if not path.is_file():
        raise ValueError(f"prompt={name}: there is no such file; allowed are {', '.join(shipped)}, or a file of your own")
    raw = path.read_bytes()
    parts = re.fullmatch(r"\[system\]\n(.*?)\n\[user\]\n(.*)", raw.decode("utf-8", "replace").strip(), re.DOTALL)
    if parts is None:
        raise ValueError(f"prompt={name}: allowed are files with a line [system] at the beginning and a line [user] further down")
    if missing := [slot for slot in needed if f"{{{slot}}}" not in parts[0]]:
        *others, last = (f"{{{slot}}}" for slot in needed)
        raise ValueError(f"prompt={name}: it has no {{{missing[0]}}}; allowed are files with {', '.join(others)} and {last}")
    return Prompt(name, parts[1].strip(), parts[2].strip(), hashlib.sha256(raw).hexdigest())


def read_verdict(text: str, finish_reason: str | None = None) -> Verdict:
    """Read a judge's reply: the last JSON object in it that names a kind counts, whatever stands around it.

    What cannot be read is ``unclear``, and says so.
    """
    for found in objects(text[-LONGEST_REPLY:]):
        kind = found.get("kind")
        kind = kind.strip().casefold().removesuffix(" error") if isinstance(kind, str) else None
        if kind in KINDS:
            reason = found.get("reason")
            return Verdict(kind, " ".join(reason.split())[:LONGEST_REASON] if isinstance(reason, str) else "")
    why = "empty reply" if not text.strip() else "no JSON object in the reply names one of the kinds"
    return Verdict("unclear", why + (", which was cut off" if finish_reason == "length" else ""), is_readable=False)


def objects(text: str) -> Iterator[dict[str, Any]]:
    """The JSON objects that begin at any ``{`` of a text, the last first; so many are tried at most."""
    decoder, end = json.JSONDecoder(), len(text)
    for _ in range(MOST_OBJECTS):
        end = text.rfind("{", 0, end)
        if end < 0:
            return
        try:
            found, _ = decoder.raw_decode(text, end)
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict):
            yield found
