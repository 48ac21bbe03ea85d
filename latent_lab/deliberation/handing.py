"""What is handed on from one attempt to the next: the strategies, as functions of a trace."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

from latent_lab.deliberation.plan import Plan
from latent_lab.deliberation.settings import ASKING, UNENDING
from latent_lab.deliberation.texts import GAP, Spans, after, chunks, first, last, scattered, trace
from latent_lab.problems import Problem

Ask = Callable[[str, int], Generator[Any, Any, Any]]
"""Has a prompt answered; the number counts the calls of one note."""


@dataclass
class Note:
    """What is handed on."""

    text: str
    tokens: int | None = None
    """Tokens written for it by a model; None where no model wrote it."""
    is_cut: bool = False
    is_budget: bool = False
    """Whether a budget had no room for it."""
    error: str | None = None
    is_dropped: bool = False
    """Whether nothing is handed on, because thinking did not end."""
    draft_tokens: int = 0
    """Tokens of further drafts that it sums up."""
    prompt_sha256: str | None = None
    """Of the prompt that a model wrote it for."""

    @property
    def is_asked(self) -> bool:
        """Whether a model wrote it."""
        return self.tokens is not None

    @property
    def columns(self) -> dict[str, Any]:
        """Its columns in the row of the attempt."""
        drafts = {"draft_tokens": self.draft_tokens} if self.draft_tokens else {}
        if self.is_dropped:
            return {"summary": None, "summary_tokens": None, "summary_cut": None, **drafts}
        made = {"summary_tokens": self.tokens, "summary_cut": self.is_cut, "summary_prompt_sha256": self.prompt_sha256}
        return {"summary": self.text, **made, **drafts}


def unended(plan: Plan, method: str, text: str) -> Note | None:
    """What stands for the note of a method on a reply in which thinking does not end; None where one is made of all of it."""
    if plan.settings.no_end == "whole" or method in UNENDING or plan.think_end in text:
        return None
    if plan.settings.no_end == "drop":
        return Note("", is_dropped=True)
    return Note("", error=f"{plan.think_end!r} does not stand in the reply, and task.no_end=error")


def noted(
    plan: Plan, spans: Spans, method: str, problem: Problem, text: str, answer: str | None, known: str, seed: str, ask: Ask
) -> Generator[Any, Any, Note]:
    """Make the note of a method on a reply; ``known`` is the running memory so far, ``seed`` what chance depends on."""
    thinking = trace(text, plan.think_end)
    if method in ASKING:
        size, overlap = plan.settings.chunk, plan.settings.overlap
        parts = chunks(thinking, size, overlap, spans) if method in ("chunked", "running") else [thinking]
        return (yield from asked(plan, method, problem, parts, known, ask))
    if method == "answer_only":
        return Note("No answer was found." if answer is None else f"The answer found was {answer}.")
    if method == "post_think" and (said := after(text, plan.think_end)):
        return Note(said)
    gap = "" if plan.hand_on == "reply" else GAP  # what begins a reply must read on
    k = plan.kept(thinking, spans)
    whole = len(spans(thinking)) <= k
    if method == "first_k":
        return Note(first(thinking, k, spans) + ("" if whole else gap))
    if method == "random_k":
        return Note(scattered(thinking, k, spans, seed))
    return Note(("" if whole else gap) + last(thinking, k, spans))


def joined(plan: Plan, texts: Sequence[str]) -> str:
    """The traces of several drafts as one text."""
    return "\n\n".join(f"DRAFT {n}:\n{trace(text, plan.think_end).strip()}" for n, text in enumerate(texts, start=1))


def asked(plan: Plan, method: str, problem: Problem, parts: list[str], known: str, ask: Ask) -> Generator[Any, Any, Note]:
    """Have a model write the note: part by part, each alone or carrying the notes on."""
    is_running = method == "running" or bool(known)
    written: list[str] = []
    tokens, notes = 0, known
    for number, part in enumerate(parts):
        slots = {"question": problem.question, "reasoning": part.strip(), "memory": notes or "(none yet)"}
        own = {"chunked": plan.summarise_chunk, "drafts": plan.summarise_drafts}
        prompt = plan.running if is_running else own.get(method, plan.summarise)
        done = yield from ask(prompt.filled(slots), number)
        text = (trace_free(done.text, plan.think_end)).strip()
        tokens += done.spent.completion
        if done.error or not done.calls:
            return Note(
                "\n".join([*written, text]), tokens, is_budget=not done.calls, error=done.error, prompt_sha256=prompt.sha256
            )
        notes = text
        written.append(text)
    return Note(
        notes if is_running else "\n".join(written), tokens, is_cut=done.finish_reason == "length", prompt_sha256=prompt.sha256
    )


def trace_free(text: str, mark: str) -> str:
    """A summary without the thinking that went before it."""
    return after(text, mark) or text
