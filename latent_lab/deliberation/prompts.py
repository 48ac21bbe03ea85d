"""Prompts of iterated summarisation: files with a version in their name, checked for their slots before anything is paid."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PROMPTS = Path(__file__).resolve().parent / "prompts"
SLOTS: dict[str, tuple[str, ...]] = {
    "reason": ("question",),
    "again": ("question", "memory"),
    "summarise": ("question", "reasoning"),
    "running": ("question", "reasoning", "memory"),
    "behaviours": ("sentences",),
}
"""What each kind of prompt must hold: the first attempt; every further one; a summary; a summary that carries one on; labels."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A version of a prompt."""

    name: str
    text: str
    sha256: str
    """Of the file."""

    def filled(self, slots: Mapping[str, str]) -> str:
        """The text with its slots filled, in one pass: what a problem or a model writes is never taken for a slot."""
        return re.sub(r"\{(\w+)\}", lambda slot: slots.get(slot[1], slot[0]), self.text)


def load_prompt(kind: str, name: str) -> Prompt:
    """Read a version that comes with the package or a file of the same form; ValueError where it cannot be used."""
    shipped = {path.stem.removeprefix(f"{kind}_"): path for path in sorted(PROMPTS.glob(f"{kind}_*.txt"))}
    path = shipped.get(name) or Path(name).expanduser()
    if not path.is_file():
        raise ValueError(f"{kind}={name}: there is no such prompt; allowed are {', '.join(shipped)}, or a file of your own")
    raw = path.read_bytes()
    text = raw.decode("utf-8", "replace").strip()
    if missing := [slot for slot in SLOTS[kind] if f"{{{slot}}}" not in text]:
        needed = " and ".join(f"{{{slot}}}" for slot in SLOTS[kind])
        raise ValueError(f"{kind}={name}: it has no {{{missing[0]}}}; allowed are files with {needed}")
    return Prompt(name, text, hashlib.sha256(raw).hexdigest())
