"""Playing with a run: one problem, its thoughts, what readers say of them, and the answer after thoughts were edited.

Edits happen while the model thinks (:meth:`latent_lab.reasoner.LatentReasoner.generate`): a thought is replaced before it is fed
in, and later thoughts follow from it. A thought that is removed takes its slot along; thoughts after it keep the vectors they
had, for the model would only think the removed one again.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from latent_lab.batching import collate
from latent_lab.grading.session import Session, session
from latent_lab.grading.task import Answers
from latent_lab.job import Job
from latent_lab.problems import Problem
from latent_lab.problems.arithmetic import addition, sum_asked
from latent_lab.run import RESULT
from latent_lab.sequences import IGNORE, Encoded
from latent_lab.thoughts.pairs import Columns, NoSum

if TYPE_CHECKING:
    from latent_lab.report.play_task import PlayTask

LONGEST = 2000
"""Characters of a question."""
MOST_EDITS = 20
SUM = re.compile(r"\s*([0-9]{1,20})\s*\+\s*([0-9]{1,20})\s*=?\s*")


class PlayError(ValueError):
    """Something typed that cannot be done; the message says what can."""


class Reader(Protocol):
    """What reads thoughts."""

    @property
    def name(self) -> str:
        """What it is called."""
        ...

    def read(self, thoughts: Tensor) -> list[tuple[str, float | None]]:
        """For each of ``[slots, width]`` what it says, and how sure it is from 0 to 1 (None: it does not say)."""
        ...


@dataclass(frozen=True)
class Saying:
    """A reader made of a function, such as a probe's ``say``."""

    name: str
    say: Callable[[Tensor], Sequence[tuple[str, float | None]]]

    def read(self, thoughts: Tensor) -> list[tuple[str, float | None]]:
        """See :class:`Reader`."""
        return list(self.say(thoughts))


@dataclass(frozen=True)
class StepReader:
    """What was trained to write steps from thoughts; it is as sure as its whole text is likely."""

    at: Session
    name: str = "step decoder"

    @torch.no_grad()
    def read(self, thoughts: Tensor) -> list[tuple[str, float | None]]:
        """See :class:`Reader`."""
        decoder, solver = self.at.decoder, self.at.solver
        assert decoder is not None
        if not len(thoughts):
            return []
        end = solver.backbone.tokenizer.eos_token_id
        ids = decoder.read(thoughts, end)
        is_text = ((ids == end).cumsum(1) - (ids == end).int()) == 0  # up to the first end, itself included
        log_p = decoder.logits(thoughts, ids.masked_fill(~is_text, IGNORE)).float().log_softmax(-1)
        sure = (log_p.gather(-1, ids[..., None])[..., 0] * is_text).sum(1).exp()
        return [(solver.text(row), p) for row, p in zip(ids.tolist(), sure.tolist(), strict=True)]


@dataclass(frozen=True)
class Edit:
    """What is done to a thought: ``kind`` is ``swap``, ``zero`` or ``remove``; ``slot`` counts from 1."""

    kind: str
    slot: int
    donor: str = ""
    """For ``swap``: the question that the other thought comes from."""

    def __str__(self) -> str:
        return f"{self.kind} {self.slot}" + (f" from {self.donor}" if self.donor else "")

    @classmethod
    def parse(cls, text: str) -> "Edit | None":
        """Read ``swap 2 from 111 + 222``, ``zero 1`` or ``remove 3``; None for what begins with none of these words.

        Raises :class:`PlayError` for what does but goes on wrongly.
        """
        word = text.split(maxsplit=1)[0] if text.strip() else ""
        if word not in ("swap", "zero", "remove"):
            return None
        found = re.fullmatch(r"(swap|zero|remove)\s+([0-9]{1,4})(?:\s+from\s+(\S.*))?\s*", text.strip(), re.DOTALL)
        if found is None or (found[1] == "swap") != (found[3] is not None):
            raise PlayError(f"{text.strip()[:80]}: allowed are 'swap K from PROBLEM', 'zero K' and 'remove K'")
        return cls(found[1], int(found[2]), as_question(found[3]) if found[3] else "")


@dataclass(frozen=True)
class Shown:
    """A thought as it was fed in: its number from 1, its step if that is known, and what each reader says of it."""

    slot: int
    gold: str | None
    """The step; empty past the last one; None where it is not known."""
    readings: tuple[tuple[str, float | None], ...]
    edited: str = ""
    """What was done to it, if anything."""


@dataclass(frozen=True)
class Scene:
    """A problem as the model thinks and answers it, after edits."""

    question: str
    answer: str
    gold: str | None
    """The right answer, where it is known."""
    before: str
    """The answer without edits."""
    expected: str | None
    """For swapped columns of sums: what the answer becomes if each thought holds its column's digit and carry, and is used."""
    readers: tuple[str, ...]
    thoughts: tuple[Shown, ...]
    edits: tuple[Edit, ...]


class Player:
    """Answers questions and applies edits; it remembers nothing between calls."""

    def __init__(self, at: Session, readers: Sequence[Reader]) -> None:
        if at.solver.layout.slots_when_said(at.solver.stage):
            raise PlayError(
                f"run: {at.config.run} writes between its thoughts; allowed: runs whose thoughts stand in their prompts"
            )
        self.at = at
        self.readers = tuple(readers)

    def scene(self, question: str, edits: Sequence[Edit] = ()) -> Scene:
        """Let the model think and answer, with ``edits`` made. Raises :class:`PlayError` where that cannot be."""
        problem = as_problem(question)
        encoded = self.encode(problem)
        count = self.at.solver.slots_of([encoded])[0]
        self.check(edits, count)
        before, thoughts = self.answer(encoded, count)
        answer, kept = before, list(range(1, count + 1))
        if edits:
            answer, thoughts, kept = self.edited(encoded, count, edits)
        said = [reader.read(thoughts) for reader in self.readers]
        done = {edit.slot: str(edit) for edit in edits}
        shown = [
            Shown(slot, step_of(problem, slot), tuple(each[place] for each in said), done.get(slot, ""))
            for place, slot in enumerate(kept)
        ]
        gold = problem.answer or None
        names = tuple(reader.name for reader in self.readers)
        return Scene(problem.question, answer, gold, before, expected(problem, edits), names, tuple(shown), tuple(edits))

    def encode(self, problem: Problem) -> Encoded:
        """A question as ids; :class:`PlayError` where the model has no words or no positions for it."""
        solver = self.at.solver
        tokenizer = solver.backbone.tokenizer
        (encoded,) = self.at.trained.stage.encode([problem], tokenizer)
        unknown = tokenizer.unk_token_id
        if unknown is not None and unknown in encoded.question:
            raise PlayError(
                f"{problem.question[:80]}: this model's vocabulary does not know all of that; it knows {self.example()}"
            )
        if not solver.fits(encoded):
            raise PlayError(
                f"the question has {len(encoded.question)} tokens, too many for the {solver.room} positions of the model"
            )
        return encoded

    def example(self) -> str:
        """A question of the run's own dataset, on one line."""
        return self.at.problems[0].question.replace("\n", "\\n")

    def check(self, edits: Sequence[Edit], count: int) -> None:
        """Raise :class:`PlayError` for an edit of a thought that is not there."""
        if len(edits) > MOST_EDITS:
            raise PlayError(f"{len(edits)} edits: allowed are at most {MOST_EDITS}; undo some")
        gone: set[int] = set()
        for edit in edits:
            if not 1 <= edit.slot <= count:
                raise PlayError(
                    f"{edit}: this problem has the thoughts 1 to {count}" if count else f"{edit}: there is no thought here"
                )
            if edit.slot in gone:
                raise PlayError(f"{edit}: thought {edit.slot} was removed; undo that first")
            if edit.kind == "remove":
                gone.add(edit.slot)
            elif self.at.solver.reasoner.loop.feeds == "tokens":
                raise PlayError(f"{edit}: pause tokens feed no thought in; allowed is 'remove K'")

    def edited(self, encoded: Encoded, count: int, edits: Sequence[Edit]) -> tuple[str, Tensor, list[int]]:
        """Answer, thoughts ``[kept, width]`` as they were fed in, and their numbers; later edits of a thought replace earlier."""
        put: dict[int, Tensor] = {}
        for edit in edits:
            if edit.kind == "zero":
                put[edit.slot] = torch.zeros(())
            elif edit.kind == "swap":
                donor = self.encode(as_problem(edit.donor))
                put[edit.slot] = self.answer(donor, count)[1][edit.slot - 1]
        answer, thoughts = self.answer(encoded, count, put)
        gone = {edit.slot for edit in edits if edit.kind == "remove"}
        kept = [slot for slot in range(1, count + 1) if slot not in gone]
        if not gone:
            return answer, thoughts, kept
        if self.at.solver.reasoner.loop.feeds == "tokens":
            return (*self.answer(encoded, len(kept)), kept)
        held = {place: thoughts[slot - 1] for place, slot in enumerate(kept, 1)}
        return (*self.answer(encoded, len(kept), held), kept)

    @torch.no_grad()
    def answer(self, problem: Encoded, count: int, put: dict[int, Tensor] | None = None) -> tuple[str, Tensor]:
        """The answer, or that there is none and what was written, after ``count`` thoughts, and these ``[count, width]``.

        ``put`` maps numbers of thoughts, from 1, to the vectors that are fed in instead.
        """
        solver = replace(self.at.solver, num_slots=count, thoughts_by="fixed")
        fed: dict[int, Tensor] = {}

        def edit(slot: int, thoughts: Tensor, active: Tensor) -> Tensor:
            given = (put or {}).get(slot + 1)
            fed[slot] = thoughts if given is None else given.to(thoughts).expand_as(thoughts)
            return fed[slot]

        is_fed = solver.reasoner.loop.feeds != "tokens"
        batch = collate(solver.prompts([problem]), solver.backbone.pad).to(solver.reasoner.device)
        end = solver.backbone.tokenizer.eos_token_id
        (row,) = solver.generate(batch, [end], edit if is_fed else None).tolist()
        stopped = end in row
        text = str(solver.backbone.tokenizer.decode(row[: row.index(end)] if stopped else row))
        width = solver.reasoner.model.config.hidden_size
        if is_fed:
            rows = [fed[slot][0] for slot in sorted(fed)]
            thoughts = torch.stack(rows) if rows else torch.zeros(0, width)
        else:
            thoughts = solver.thoughts([problem])[0] if count else torch.zeros(0, width)
        answer = solver.rules.verdict(text, "0", truncated=not stopped).answer
        return answer or ("no answer" if stopped else "no end") + (f" ({text.strip()})" if text.strip() else ""), thoughts


def as_question(text: str) -> str:
    """What was typed as the dataset writes it: sums get their spaces and ``=``, and ``\\n`` begins a new line."""
    text = text.strip().replace("\\n", "\n")
    if not text or len(text) > LONGEST:
        raise PlayError(f"{len(text)} characters: give a problem of 1 to {LONGEST}, such as 347 + 285")
    asked = SUM.fullmatch(text)
    return f"{int(asked[1])} + {int(asked[2])} =" if asked else text


def as_problem(text: str) -> Problem:
    """A question with its steps and answer where they are known, for sums; else both are empty."""
    question = as_question(text)
    if known := sum_asked(question):
        return addition("typed", known["a"], known["b"])
    asked = SUM.fullmatch(question)
    return Problem("typed", question, (), str(int(asked[1]) + int(asked[2])) if asked else "")


def step_of(problem: Problem, slot: int) -> str | None:
    """The step a thought stands for, one a thought in their order; empty past the last, None where steps are not known."""
    if not problem.steps:
        return None
    return problem.steps[slot - 1] if slot <= len(problem.steps) else ""


def expected(problem: Problem, edits: Sequence[Edit]) -> str | None:
    """The sum in which each swapped column has the donor's digit and carry; None where an edit has no such meaning."""
    if not edits or any(edit.kind != "swap" for edit in edits):
        return None
    try:
        own, said = Columns.of(problem), {}
        for edit in edits:
            there = Columns.of(as_problem(edit.donor)).added()
            if edit.slot > min(len(own.a), len(there)):
                return None
            said[edit.slot - 1] = there[edit.slot - 1]
    except NoSum:
        return None
    return own.answer(said)


@contextmanager
def player(job: Job, readers: Sequence[Reader] = ()) -> Iterator[Player]:
    """Open a run to play with; its own step decoder comes before ``readers``. Nothing is left on disk."""
    with TemporaryDirectory(prefix="latent_lab-play-") as folder:
        config = replace(job.config, out=str(Path(folder) / "play"), limit=1)
        with session(replace(job, config=config), Answers()) as at:
            own: list[Reader] = [StepReader(at)] if at.decoder is not None else []
            yield Player(at, [*own, *readers])


def play(task: "PlayTask", job: Job, readers: Sequence[Reader] = ()) -> dict[str, Any]:
    """Do ``task=play``; without ``readers`` given there are a linear probe and the run's oracle, if it has one."""
    with player(job, readers) as at:
        if not readers and task.fitted_on:
            at.readers = tuple(own_readers(task, at.at))
        if task.web:
            from latent_lab.report.play_web import serve

            return serve(at, task.port)
        from latent_lab.report.play_terminal import talk

        return talk(at)


def own_readers(task: "PlayTask", at: Session) -> list[Reader]:
    """The step decoder if there is one, the oracle that ``task=thoughts`` has trained if there is one, and a linear probe."""
    from latent_lab.report.thoughts_parts import readers  # only now: that module imports this one
    from latent_lab.report.thoughts_reading import Reading
    from latent_lab.report.thoughts_task import ThoughtsTask

    folder = at.config.run_folder
    oracles = [path.parent for path in sorted(folder.parent.glob(f"{folder.name}-oracle-*/{RESULT}"))]
    return readers(Reading(ThoughtsTask(layers=["0"], train_size=task.fitted_on), at, oracles[-1] if oracles else None))
