"""Problem -> token ids, labels, roles and slots, for every method: the only file that knows a layout.

A problem is tokenised once, piece by piece; a stage slices and joins ids. Labels come from the joined ids, never from tokenising
a joined string again. Layout and strings follow Coconut (arXiv 2412.06769): ``question\\n``, each step ``step\\n``, and
``### answer`` followed by the end-of-text token. A question may also be put in the form of Alpaca or of a chat (:class:`Frame`).
"""

from collections.abc import Sequence as Seq
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any, Protocol

from latent_lab.problems import Problem
from latent_lab.weights import ModelError

IGNORE = -100
ANSWER_PREFIX = "### "
ANSWER_NODE = "[A]"
"""Stands before the answer to a problem written in symbols (arXiv 2505.12514)."""


class Role(IntEnum):
    """What a token is for."""

    QUESTION = 0
    START = 1
    LATENT = 2
    END = 3
    PLAN = 4
    STEP = 5
    ANSWER = 6


@dataclass(frozen=True, slots=True)
class LatentTokens:
    """Ids of the three markers: ``<|start-latent|>``, ``<|latent|>`` and ``<|end-latent|>``."""

    start: int
    latent: int
    end: int


@dataclass(frozen=True, slots=True)
class Encoded:
    """A problem as token ids, piece by piece; ``answer`` ends with the end-of-text token."""

    id: str
    question: tuple[int, ...]
    steps: tuple[tuple[int, ...], ...]
    answer: tuple[int, ...]
    prefix: int = 0
    """How many tokens of ``answer`` are no answer yet, only its mark; counted where a method asks for it."""
    targets: tuple[tuple[int, ...], ...] = ()
    """Graphs only: the nodes, one of which is to be named after i thoughts."""
    plans: tuple[tuple[int, ...], ...] = ()
    """Planning only: the tokens before each step and, last, those before the answer."""
    overview: tuple[int, ...] = ()
    """Planning only: the plan of the whole chain, where it is written before everything else."""

    @property
    def lengths(self) -> tuple[tuple[int, ...], ...]:
        """Tokens of every piece."""
        pieces = (self.question, self.answer, self.overview)
        return tuple(map(len, pieces)), tuple(map(len, self.steps)), tuple(map(len, self.targets)), tuple(map(len, self.plans))


@dataclass(frozen=True, slots=True)
class Sequence:
    """One laid-out problem; the lists ``ids``, ``labels`` and ``roles`` are equally long.

    ``labels`` holds the id itself where the token is to be predicted and ``-100`` elsewhere (the shift by one happens in the
    reasoner). ``step_of_slot[i]`` is the number of the step that slot ``i`` stands for, or None past the end of the chain.
    """

    problem: Encoded
    ids: tuple[int, ...]
    labels: tuple[int, ...]
    roles: tuple[Role, ...]
    step_of_slot: tuple[int | None, ...] = ()
    is_closed: bool = False
    """Whether what follows the slots may see them only, not the question."""
    gap: int = 0
    """Positions left free before the last token of the question."""

    @property
    def positions(self) -> tuple[int, ...]:
        """Position of every token."""
        first = len(self.problem.question) - 1
        return tuple(place + self.gap * (place >= first) for place in range(len(self.ids)))

    @property
    def anchor(self) -> int:
        """Place of the token before the answer proper: where answers written with and without a chain can be compared."""
        return len(self.ids) - len(self.problem.answer) + self.problem.prefix - 1

    @property
    def num_slots(self) -> int:
        """Number of latent slots."""
        return len(self.step_of_slot)

    @property
    def slot_texts(self) -> tuple[tuple[int, ...], ...]:
        """For each slot the tokens that step supervision wants read from its thought.

        That is its step, at the last of the step's slots (the others get none); past the end of the chain it is the
        end-of-text token.
        """
        following = (*self.step_of_slot[1:], None)[: self.num_slots]
        end = self.problem.answer[-1:]
        return tuple(
            end if step is None else self.problem.steps[step] if step != after else ()
            for step, after in zip(self.step_of_slot, following, strict=True)
        )


class Tokenizer(Protocol):
    """The two members of a Hugging Face tokenizer that every layout uses."""

    eos_token_id: int

    def __call__(
        self, text: list[str], *, add_special_tokens: bool, split_special_tokens: bool, return_offsets_mapping: bool = False
    ) -> dict[str, Any]:
        """Tokenise a list of texts."""
        ...


TEMPLATES = ("plain", "alpaca", "chat")
HERE = "[[the question]]"
"""Stands for the question while a chat template is rendered."""


@dataclass(frozen=True, slots=True)
class Frame:
    """What stands around every question."""

    before: str = ""
    after: str = "\n"
    is_chat: bool = False
    """Whether it is the tokenizer's own, special tokens and all."""

    def ids(self, questions: Seq[str], tokenizer: Any) -> list[list[int]]:
        """Tokenise framed questions. In a chat the frame's special tokens are such; what a question spells out is text."""
        texts = [self.before + question + self.after for question in questions]
        if not self.is_chat:
            plain: list[list[int]] = tokenizer(texts, add_special_tokens=True, split_special_tokens=True)["input_ids"]
            return plain
        ids: list[list[int]] = tokenizer(texts, add_special_tokens=False, split_special_tokens=False)["input_ids"]
        for i, question in enumerate(questions):
            if any(name in question for name in tokenizer.all_special_tokens):
                pieces = ((self.before, False), (question, True), (self.after, False))
                read = (tokenizer([t], add_special_tokens=False, split_special_tokens=split) for t, split in pieces)
                ids[i] = [token for piece in read for token in piece["input_ids"][0]]
        return ids


def frame(template: str, instruction: str, tokenizer: Any) -> Frame:
    """What a template puts around a question; a chat that the tokenizer cannot lay out raises :class:`ModelError`."""
    if template == "alpaca":
        asked = f"### Instruction:\n{instruction}\n\n### Input:\n" if instruction else "### Instruction:\n"
        return Frame(asked, "\n\n### Response:\n")
    if template == "plain":
        return Frame()
    if not getattr(tokenizer, "chat_template", None):
        raise ModelError("stage.template: given chat; this model's tokenizer has no chat template; allowed: plain, alpaca")
    turns = [{"role": "system", "content": instruction}] if instruction else []
    try:
        text = tokenizer.apply_chat_template(
            [*turns, {"role": "user", "content": HERE}], add_generation_prompt=True, tokenize=False
        )
    except Exception as error:  # a template is a program of its own, and complains in its own way
        reason, rest = " ".join(str(error).split()), "plain, alpaca" + ", or no stage.instruction" * bool(instruction)
        raise ModelError(
            f"stage.template: given chat; the tokenizer's template refuses it ({reason}); allowed: {rest}"
        ) from error
    before, found, after = text.partition(HERE)
    if not found or HERE in after:
        reason = "the tokenizer's template does not write a question once"
        raise ModelError(f"stage.template: given chat; {reason}; allowed: plain, alpaca")
    return Frame(before, after, is_chat=True)


def encode(
    problems: Seq[Problem], tokenizer: Tokenizer, *, with_prefix: bool = False, around: Frame | None = None
) -> list[Encoded]:
    """Tokenise every problem once. Texts that occur more than once (steps, mostly) are tokenised once.

    A problem's text is text: a ``<|latent|>`` that stands in a question is spelled out and never becomes a slot. ``with_prefix``
    counts the tokens of each answer that begin inside its mark; ``around`` is what stands around questions (default: a line
    break after them).
    """
    if not problems:
        return []
    questions = (around or Frame()).ids([p.question for p in problems], tokenizer)
    texts = sorted({s + "\n" for p in problems for s in p.steps} | {ANSWER_PREFIX + p.answer for p in problems})
    ids = tokenizer(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    of = {text: tuple(i) for text, i in zip(texts, ids, strict=True)}
    marks: dict[str, int] = {}
    if with_prefix:
        answers = sorted({ANSWER_PREFIX + p.answer for p in problems})
        options = {"add_special_tokens": False, "split_special_tokens": True, "return_offsets_mapping": True}
        offsets = tokenizer(answers, **options)["offset_mapping"]
        mark = len(ANSWER_PREFIX.rstrip())
        marks = {text: sum(a < mark for a, _ in spans) for text, spans in zip(answers, offsets, strict=True)}
    return [
        Encoded(
            id=p.id,
            question=tuple(q),
            steps=tuple(of[s + "\n"] for s in p.steps),
            answer=(*of[ANSWER_PREFIX + p.answer], tokenizer.eos_token_id),
            prefix=marks.get(ANSWER_PREFIX + p.answer, 0),
        )
        for p, q in zip(problems, questions, strict=True)
    ]


def join(
    problem: Encoded,
    tokens: LatentTokens | None,
    *,
    before: Seq[int] = (),
    slots: Seq[int | None] = (),
    steps: Seq[int] = (),
    is_start_predicted: bool = False,
    is_stop_predicted: bool = False,
    is_closed: bool = False,
    with_target: bool = True,
) -> Sequence:
    """Lay a problem out: question, steps written ``before`` thinking, markers with their slots, ``steps`` written after, answer.

    Steps are given by number; ``slots`` names the step each latent slot stands for. ``tokens=None`` leaves the markers out (plain
    chain of thought). Without target the sequence ends after the end marker (or the question): the prompt of an evaluation.
    Labels stand on written steps and the answer: the end marker is never predicted, latent positions are never supervised
    (Coconut, section 3). ``is_start_predicted`` puts one on the start marker, for layouts in which the model itself says when
    it begins to think; ``is_stop_predicted`` on slots and end marker, so that it says when it has thought enough.
    """
    parts: list[Part] = [(Role.QUESTION, problem.question, False)]
    parts += [(Role.STEP, problem.steps[i], True) for i in before]
    if tokens is not None:
        parts.append((Role.START, (tokens.start,), is_start_predicted))
        parts.append((Role.LATENT, (tokens.latent,) * len(slots), is_stop_predicted))
        parts.append((Role.END, (tokens.end,), is_stop_predicted))
    if with_target:
        parts += [(Role.STEP, problem.steps[i], True) for i in steps]
        parts.append((Role.ANSWER, problem.answer, True))
    return lay(problem, parts, slots if tokens is not None else (), is_closed=is_closed)


def join_planned(
    problem: Encoded, *, with_steps: bool = True, latent: int = 0, slots: tuple[int, ...] = (), line: tuple[int, ...] = ()
) -> Sequence:
    """Lay a problem out with its planning tokens: question, overview, each step after its block, answer after its own.

    All but the question is to be predicted. ``with_steps=False`` leaves the steps' text out. Of the first ``latent`` steps each
    is thought in ``slots`` instead, a ``line`` break after them: the model says by the first slot's token that it thinks now.
    """
    parts: list[Part] = [(Role.QUESTION, problem.question, False), (Role.PLAN, problem.overview, True)]
    *blocks, last = problem.plans
    held: list[int] = []
    for number, (block, step) in enumerate(zip(blocks, problem.steps, strict=True)):
        parts.append((Role.PLAN, block, True))
        if number < latent:
            parts += [(Role.LATENT, slots[:1], True), (Role.LATENT, slots[1:], False), (Role.STEP, line, True)]
            held += [number] * len(slots)
        else:
            parts.append((Role.STEP, step if with_steps else (), True))
    return lay(problem, [*parts, (Role.PLAN, last, True), (Role.ANSWER, problem.answer, True)], held)


def followed(prompt: Sequence, parts: "Seq[Part]", slots: Seq[int | None] = ()) -> Sequence:
    """A prompt with more parts behind it; ``slots`` as in :func:`lay`, for the latent tokens among these."""
    more = lay(prompt.problem, parts, slots)
    ids, labels, roles = prompt.ids + more.ids, prompt.labels + more.labels, prompt.roles + more.roles
    return replace(prompt, ids=ids, labels=labels, roles=roles, step_of_slot=prompt.step_of_slot + more.step_of_slot)


Part = tuple[Role, tuple[int, ...], bool]
"""Tokens in one role, and whether they are to be predicted."""


def lay(problem: Encoded, parts: Seq[Part], slots: Seq[int | None] = (), *, is_closed: bool = False) -> Sequence:
    """Put parts side by side; ``slots`` names the step each latent token among them stands for."""
    ids = tuple(i for _, piece, _ in parts for i in piece)
    roles = tuple(role for role, piece, _ in parts for _ in piece)
    labels = tuple(i if is_target else IGNORE for _, piece, is_target in parts for i in piece)
    return Sequence(problem, ids, labels, roles, tuple(slots), is_closed)
