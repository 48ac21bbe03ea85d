"""What an annotator is asked, and how its replies are read and checked: pure functions.

Four questions for a problem: an outline that says which facts are needed; the facts, asked for without the problem; the chain,
written from the facts; and, where the writer knew the answer, what answer the chain leads to by itself.

Differs from paper (arXiv 2411.13504, published code): there a chain is written first and facts are pasted into it afterwards, and
no chain is held against its answer.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from latent_lab.grading.judge_prompt import LONGEST_REPLY, objects

KINDS = ("rag", "reason")
Messages = tuple[dict[str, str], ...]

OUTLINE = """\
You plan how to answer questions. A plan is a list of steps of two kinds:
- "rag": a fact has to be looked up. Give the lookup as a question that can be understood without the problem.
- "reason": something is concluded or computed from facts and earlier steps. Say in a few words what.
Use at least one step of each kind{order}. Do not answer the question itself.
Reply with one JSON object and nothing else:
{"steps": [{"kind": "rag", "text": "..."}, {"kind": "reason", "text": "..."}]}"""
MEMORY_FIRST = ", and put all steps of the kind rag before all of the kind reason"

RECALL = """\
You are asked for facts. Answer each question by one complete sentence that states the fact and can stand alone.
Reply with one JSON object and nothing else, with as many facts as there are questions, in their order:
{"facts": ["...", "..."]}"""

WRITE = """\
You carry a plan out. Its steps of the kind rag are done: the facts stand in their places. Write each step of the kind reason as
one or two sentences that follow from the facts and steps before it; use these facts, even where you would have said otherwise.
Then give the answer that follows, as short as possible.
Reply with one JSON object and nothing else, with as many texts as there are steps of the kind reason, in their order:
{"reasons": ["...", "..."], "answer": "..."}"""

CHECK = """\
You are given a problem and a chain of thought. Say which answer the chain leads to, whether or not you agree, as short as
possible; "unclear", where it leads to none or contradicts itself.
Reply with one JSON object and nothing else: {"answer": "..."}"""

PROMPTS = (OUTLINE, MEMORY_FIRST, RECALL, WRITE, CHECK)


class Unfit(Exception):
    """A reply that cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class Step:
    """A step of an outline or a chain."""

    kind: str
    """One of ``KINDS``."""
    text: str


def prompts_hash() -> str:
    """Of all that is asked apart from the problems."""
    return hashlib.sha256("\n".join(PROMPTS).encode()).hexdigest()


# What is asked


def chat(system: str, *paragraphs: str) -> Messages:
    """A conversation; empty paragraphs are left out."""
    user = "\n\n".join(part for part in paragraphs if part)
    return ({"role": "system", "content": system}, {"role": "user", "content": user})


def ask_outline(question: str, gold: str | None, choices: Sequence[str], order: str) -> Messages:
    """Which steps are needed; ``gold`` is None where the writer does not see it."""
    system = OUTLINE.replace("{order}", MEMORY_FIRST if order == "memory_first" else "")
    return chat(system, f"Problem:\n{question}", one_of(choices), f"Correct answer: {gold}" if gold is not None else "")


def ask_facts(outline: Sequence[Step]) -> Messages:
    """What the outline wants looked up; nothing of the problem, whose answer would colour the facts."""
    return chat(RECALL, listed(step.text for step in outline if step.kind == "rag"))


def ask_chain(question: str, known: Sequence[Step], gold: str | None, choices: Sequence[str]) -> Messages:
    """The conclusions; ``known`` is the outline with facts in place of lookups."""
    right = f"Correct answer: {gold}" if gold is not None else ""
    return chat(WRITE, f"Problem:\n{question}", one_of(choices), f"Plan:\n{listed(map(tagged, known))}", right)


def ask_answer(question: str, chain: Sequence[Step], choices: Sequence[str]) -> Messages:
    """Where the chain leads, asked of somebody who does not know the answer."""
    return chat(CHECK, f"Problem:\n{question}", one_of(choices), f"Chain:\n{listed(step.text for step in chain)}")


def one_of(choices: Sequence[str]) -> str:
    """A sentence that names the choices, if there are any."""
    return f"The answer is one of: {', '.join(choices)}." if choices else ""


def listed(texts: Any) -> str:
    """Texts line by line, numbered from 1."""
    return "\n".join(f"{number}. {text}" for number, text in enumerate(texts, start=1))


def tagged(step: Step) -> str:
    """A step as ``plan=memory_reason`` reads it."""
    return f"[{step.kind}]: {step.text}"


# What is replied


def read_outline(text: str, order: str) -> tuple[Step, ...]:
    """The steps of an outline, at least one of each kind, in the order asked for; :class:`Unfit` otherwise."""
    steps = []
    for each in field_of(text, "steps"):
        kind = each.get("kind") if isinstance(each, Mapping) else None
        if kind not in KINDS:
            raise Unfit("a step has no kind")
        steps.append(Step(kind, line(each.get("text"))))
    kinds = [step.kind for step in steps]
    if missing := [kind for kind in KINDS if kind not in kinds]:
        raise Unfit(f"no step of the kind {missing[0]}")
    if order == "memory_first" and kinds != sorted(kinds):
        raise Unfit("a step of the kind rag after one of the kind reason")
    return tuple(steps)


def read_facts(text: str, outline: Sequence[Step]) -> tuple[Step, ...]:
    """The outline with facts in place of its lookups."""
    return filled(outline, "rag", field_of(text, "facts"))


def read_chain(text: str, known: Sequence[Step]) -> tuple[tuple[Step, ...], str]:
    """The whole chain, its facts those of ``known`` word for word, and the answer given with it."""
    found = replied(text, "reasons")
    return filled(known, "reason", field_of(text, "reasons")), line(found.get("answer"))


def read_answer(text: str) -> str:
    """The answer that somebody sees a chain lead to."""
    return line(replied(text, "answer")["answer"])


def filled(steps: Sequence[Step], kind: str, texts: Sequence[Any]) -> tuple[Step, ...]:
    """Steps with the texts of one kind exchanged for others, in order."""
    wanted = sum(step.kind == kind for step in steps)
    if len(texts) != wanted:
        raise Unfit(f"{len(texts)} texts for {wanted} steps of the kind {kind}")
    given = iter(texts)
    return tuple(Step(kind, line(next(given))) if step.kind == kind else step for step in steps)


def replied(text: str, name: str) -> dict[str, Any]:
    """The last JSON object of a reply that has a field of that name."""
    for found in objects(text[-LONGEST_REPLY:]):
        if name in found:
            return found
    raise Unfit(f"no JSON object with {name}")


def field_of(text: str, name: str) -> list[Any]:
    """A list that a reply holds."""
    found = replied(text, name)[name]
    if not isinstance(found, list):
        raise Unfit(f"{name} is no list")
    return found


def line(given: Any) -> str:
    """A text in one line, without a tag of its own; :class:`Unfit` where there is none."""
    text = " ".join(str(given).split()) if isinstance(given, str | int | float) else ""
    for kind in KINDS:
        text = text.removeprefix(f"[{kind}]:").strip()
    if not text:
        raise Unfit("an empty text")
    return text
