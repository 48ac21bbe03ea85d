"""The loop: think, hand something on, think again. One chain is one generator that asks and is answered.

A chain reads from top to bottom as if it were alone. It yields the requests it waits for;
:func:`latent_lab.deliberation.driving.driven` takes those of all chains together.
"""

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from latent_lab.calls.client import AROUND_A_MESSAGE, Completion, LatentMemory, Request, TraceMemory, num_bytes
from latent_lab.deliberation.backends import Backend
from latent_lab.deliberation.board import Row, Watch
from latent_lab.deliberation.handing import Ask, Note, asked, joined, noted, unended
from latent_lab.deliberation.plan import Plan
from latent_lab.deliberation.probes import COLUMNS, probed
from latent_lab.deliberation.samples import handed_on_tokens
from latent_lab.deliberation.settings import ANOTHER, BEGINNING, CONDENSING, LATENT, SAMPLES, WAYS, ZEROED
from latent_lab.deliberation.texts import Spans, last, trace
from latent_lab.problems import Problem, fingerprint

STRIDE, DRAFTS = 1000, 10_000_000
"""Numbers of samples between two chains, and between two drafts of an attempt; iterations take those between."""
LENGTH, STOP = "length", "stop"

Talk = Generator[list[Request], list[Completion], Any]
"""Something that asks and is answered."""
DEAF = Watch()


@dataclass
class Spent:
    """Tokens and US dollars of some calls."""

    prompt: int = 0
    completion: int = 0
    usd: float = 0.0

    def add(self, done: Completion, backend: Backend) -> None:
        """Count a call."""
        usage = done.usage
        self.prompt, self.completion = self.prompt + usage.prompt, self.completion + usage.completion
        self.usd += backend.cost(usage.prompt, usage.cached, usage.completion) or 0.0


@dataclass
class Written:
    """One attempt, or one text that is handed on, as it came out of one or more calls."""

    text: str = ""
    """All of it, with what it was begun with."""
    finish_reason: str | None = None
    """Of the last call; ``budget`` where there was no room for one."""
    spent: Spent = field(default_factory=Spent)
    calls: int = 0
    error: str | None = None


@dataclass
class ChainState:
    """One chain on its way: where it is, what it has spent, what was handed on."""

    plan: Plan
    spans: Spans
    method: str
    problem: Problem
    number: int
    spent: Spent = field(default_factory=Spent)
    notes: list[str] = field(default_factory=list)
    iteration: int = 0
    draft: int = 0
    """Which further draft of the attempt is written; 0: the attempt itself."""

    def about(self, role: str, part: int) -> dict[str, Any]:
        """What a call of this chain is for; first attempts belong to all methods."""
        method = self.method if self.iteration or self.draft or role != "reason" else SAMPLES
        where = {"sample_id": self.problem.id, "method": method, "chain": self.number, "iteration": self.iteration}
        return {**where, "role": role, "part": part, **({"draft": self.draft} if self.draft else {})}

    @property
    def sample(self) -> int:
        """Number of the sample: another one for each chain, iteration and draft."""
        return DRAFTS * self.draft + STRIDE * self.number + self.iteration

    @property
    def memory(self) -> LatentMemory | TraceMemory | None:
        """The vectors that the attempt under way is handed, by name, so that a chain can go on anywhere."""
        if self.method not in LATENT or not self.notes:
            return None
        return self.trace_memory(self.notes[-1]) if self.method in CONDENSING else self.thoughts()

    @property
    def lender(self) -> Problem:
        """Whose vectors are handed on."""
        return self.plan.donors[self.problem.id] if self.method.endswith(ANOTHER) else self.problem

    def thoughts(self) -> LatentMemory:
        """The thoughts of all attempts before; they depend on no text."""
        asked = self.plan.reason.filled({"question": self.lender.question})
        return LatentMemory(asked, self.iteration, self.plan.num_vectors, self.method.endswith(ZEROED))

    def trace_memory(self, text: str) -> TraceMemory:
        """The vectors made of a trace."""
        asked = self.plan.reason.filled({"question": self.lender.question})
        way = self.method.partition("_")[0]
        return TraceMemory(asked, text, self.plan.num_vectors, way, self.method.endswith(ZEROED))

    def room(self, backend: Backend, step: Spent, step_tokens: int, step_usd: float | None, asked: Request) -> int:
        """Tokens that the next call may write within all budgets; below 1: none."""
        settings = self.plan.settings
        rooms: list[float] = [backend.max_tokens, step_tokens - step.completion]
        if settings.chain_tokens is not None:
            rooms.append(settings.chain_tokens - self.spent.completion)
        dollars = [most - spent.usd for most, spent in ((step_usd, step), (settings.chain_usd, self.spent)) if most is not None]
        if dollars:
            prompt = num_bytes(asked) + AROUND_A_MESSAGE * len(asked.messages)  # no prompt has more tokens than that
            left, price = min(dollars) - (backend.cost(prompt, 0, 0) or 0.0), backend.cost(0, 0, 1) or 0.0
            rooms.append(left / price if price else math.inf if left >= 0 else 0)
        return int(min(rooms))


def asking(
    state: ChainState, backend: Backend, role: str, prompt: str, begun: str, tokens: int, usd: float | None, part: int = 0
) -> Talk:
    """Ask until the text ends by itself or a budget ends it; where it is cut off, it is continued if it can be."""
    written = Written(begun)
    while True:
        heat = state.plan.settings.summary_temperature if role == "summary" else None
        bare = Request(({"role": "user", "content": prompt},), state.sample, written.text, None, heat, state.memory)
        room = state.room(backend, written.spent, tokens, usd, bare)
        if room < 1:
            written.finish_reason = LENGTH if written.calls and written.spent.completion >= tokens else "budget"
            return written
        (done,) = yield [replace(bare, max_tokens=room, about=state.about(role, part + written.calls))]
        written.calls += 1
        if done.error:
            written.error = done.error
            return written
        for counted in (written.spent, state.spent):
            counted.add(done, backend)
        is_ended = bool(done.text) or done.finish_reason != LENGTH  # else it was cut off while it thought
        thought = f"{done.reasoning}\n{state.plan.think_end}\n" if done.reasoning and is_ended else done.reasoning or ""
        written.text += thought + (done.text or "")
        written.finish_reason = done.finish_reason
        is_full = done.usage.completion < room  # cut off before its limit: there are no positions left
        if done.finish_reason != LENGTH or not backend.can_begin or thought or is_full:
            return written


def chain(plan: Plan, spans: Spans, method: str, problem: Problem, number: int, watch: Watch = DEAF) -> Talk:
    """Think about a problem again and again; returns a row for each iteration, carried on where the chain ended before."""
    state, settings = ChainState(plan, spans, method, problem, number), plan.settings
    past = plan.past.of(method, problem.id, number)
    rows: list[Row] = []
    prompt, begun = plan.reason.filled({"question": problem.question}), ""
    for k in range(1 if method == SAMPLES else settings.iterations + 1):
        state.iteration = k
        tokens = settings.step_tokens or plan.backend.max_tokens
        if k in past:
            written = recalled(state, past[k])
        else:
            written = yield from asking(state, plan.backend, "reason", prompt, begun, tokens, settings.step_usd)
        if written.error or not written.calls:
            rows = rows or [missing(state, written)]
            rows[-1] |= {"error": written.error, "stop_reason": "error" if written.error else "budget"}
            break
        watch.settled(rows[-1:])
        rows.append(graded(state, written) | {"is_replayed": k in past})
        watch.seen(rows[-1])
        if k == settings.iterations or method == SAMPLES or (why := ended(state, rows, written)):
            rows[-1]["stop_reason"] = "fixed" if k == settings.iterations or method == SAMPLES else why
            break
        before = state.spent.usd
        if k < plan.past.upto and past.get(k, {}).get("summary") is not None:
            note = recalled_note(state, past[k])
        else:
            note = yield from handed_on(state, rows, written, prompt, begun)
        rows[-1] |= note.columns | {"summary_usd": state.spent.usd - before}
        rows[-1] |= probed(None if method in LATENT or note.is_dropped else note.text, problem.answer, plan.grading)
        rows[-1] |= {"cum_tokens": state.spent.completion, "cum_usd": state.spent.usd}
        watch.seen(rows[-1])
        if why := stuck(state, note):
            rows[-1] |= {"stop_reason": why, "error": note.error}
            break
        if not note.is_dropped:
            state.notes = [note.text] if settings.memory == "running" and note.is_asked else [*state.notes, note.text]
            prompt, begun = following(state, note)
    ends = [] if method == SAMPLES else carried(rows[-1], settings.iterations)
    watch.settled([rows[-1], *ends])
    return [*rows, *ends]


def recalled(state: ChainState, row: Mapping[str, Any]) -> Written:
    """An attempt as another evaluation has it; it counts as the chain's own."""
    spent = Spent(row["prompt_tokens"], row["reasoning_tokens"], row["reasoning_usd"])
    state.spent.completion += spent.completion
    state.spent.usd += spent.usd
    return Written(row["reasoning"], row["finish_reason"], spent, row["calls"])


def recalled_note(state: ChainState, row: Mapping[str, Any]) -> Note:
    """What that evaluation handed on after it."""
    state.spent.completion += handed_on_tokens(row)
    state.spent.usd += row["summary_usd"] or 0.0
    drafts, prompt = row.get("draft_tokens") or 0, row.get("summary_prompt_sha256")
    return Note(row["summary"], row["summary_tokens"], bool(row["summary_cut"]), draft_tokens=drafts, prompt_sha256=prompt)


def handed_on(state: ChainState, rows: Sequence[Row], written: Written, prompt: str, begun: str) -> Talk:
    """What the next iteration is given after an attempt, which was asked for by a prompt and perhaps begun."""
    plan, method = state.plan, state.method
    if method in CONDENSING:
        return (yield from condensed(state, written))
    if method != "drafts" and (note := unended(plan, method, written.text)):
        return note
    if method in LATENT:
        return Note("")
    if method == "longer":
        return Note(written.text)
    if method == "wait":
        thinking = written.text.rpartition(plan.think_end)[0] if plan.think_end in written.text else written.text
        return Note(thinking.rstrip() + plan.settings.wait)
    thinking = trace(written.text, plan.think_end)
    if method == "tail":
        return Note(last(thinking, plan.kept(thinking, state.spans), state.spans))
    seed = f"{state.problem.id} {state.number} {state.iteration}"

    def ask(asked: str, part: int) -> Talk:
        return (yield from asking(state, plan.summariser, "summary", asked, "", plan.settings.summary_tokens, None, part))

    known = state.notes[-1] if plan.settings.memory == "running" and state.notes else ""
    if method == "drafts":
        return (yield from drafted(state, written, prompt, begun, known, ask))
    return (yield from noted(plan, state.spans, method, state.problem, written.text, rows[-1]["answer"], known, seed, ask))


def drafted(state: ChainState, written: Written, prompt: str, begun: str, known: str, ask: Ask) -> Talk:
    """Have further drafts written from what the attempt was given, all at once, and one summary of all of them.

    What the budgets of a chain leave is shared out among them.
    """
    plan, settings, count = state.plan, state.plan.settings, state.plan.settings.drafts - 1
    tokens, usd, before = settings.step_tokens or plan.backend.max_tokens, settings.step_usd, state.spent.completion
    if settings.chain_tokens is not None:
        tokens = min(tokens, (settings.chain_tokens - before) // count)
    if settings.chain_usd is not None:
        usd = min(math.inf if usd is None else usd, (settings.chain_usd - state.spent.usd) / count)
    states = [replace(state, draft=number) for number in range(1, count + 1)]
    further = yield from together([asking(each, plan.backend, "reason", prompt, begun, tokens, usd) for each in states])
    spent = state.spent.completion - before
    if failed := next((each for each in further if each.error or not each.calls), None):
        return Note("", None, is_budget=not failed.error, error=failed.error, draft_tokens=spent)
    texts = [each.text for each in (written, *further)]
    ends = [unended(plan, state.method, text) for text in texts]
    if failed_end := next((end for end in ends if end and end.error), None):
        return replace(failed_end, draft_tokens=spent)
    if not (kept := [text for text, end in zip(texts, ends, strict=True) if end is None]):
        return Note("", is_dropped=True, draft_tokens=spent)
    note = yield from asked(plan, state.method, state.problem, [joined(plan, kept)], known, ask)
    return replace(note, draft_tokens=spent)


def together(talks: Sequence[Talk]) -> Talk:
    """Let several talk at once: what all of them wait for is asked together; returns what each returns."""
    ends: dict[int, Any] = {}
    answers: dict[int, list[Completion]] = {}
    while len(ends) < len(talks):
        waiting: dict[int, list[Request]] = {}
        for i, talk in enumerate(talks):
            if i not in ends:
                try:
                    waiting[i] = talk.send(answers[i]) if i in answers else next(talk)
                except StopIteration as ended:
                    ends[i] = ended.value
        if waiting:
            done = iter((yield [request for requests in waiting.values() for request in requests]))
            answers = {i: [next(done) for _ in requests] for i, requests in waiting.items()}
    return [ends[i] for i in range(len(talks))]


def condensed(state: ChainState, written: Written) -> Talk:
    """Have vectors made of a trace. The note names the text that they stand for, which the next attempt does not see.

    A control takes the other problem's first attempt, which is that problem's own to pay for.
    """
    plan = state.plan
    if state.method.endswith(ANOTHER):
        other = ChainState(plan, state.spans, SAMPLES, state.lender, state.number)
        prompt, tokens = plan.reason.filled({"question": other.problem.question}), plan.settings.step_tokens
        written = yield from asking(other, plan.backend, "reason", prompt, "", tokens or plan.backend.max_tokens, None)
        if written.error or not written.calls:
            return Note("", is_budget=not written.calls, error=written.error)
    if note := unended(plan, state.method, written.text):
        return note
    memory = state.trace_memory(trace(written.text, plan.think_end))
    most = plan.settings.chain_tokens
    if most is not None and most - state.spent.completion < memory.keep:
        return Note("", is_budget=True)
    asked = {"role": "user", "content": memory.question}
    (done,) = yield [Request((asked,), max_tokens=memory.keep, memory=memory, about=state.about("condense", 0))]
    state.spent.add(done, plan.backend)
    return Note(memory.text, done.usage.completion, error=done.error)


def following(state: ChainState, note: Note) -> tuple[str, str]:
    """Prompt of the next attempt, and what its reply begins with."""
    plan, settings = state.plan, state.plan.settings
    first = plan.reason.filled({"question": state.problem.question})
    if state.method in BEGINNING or plan.hand_on == "reply":
        return first, "" if state.method in LATENT else note.text
    count = {"all": len(state.notes), "window": settings.window}.get(settings.memory, 1)
    kept = list(enumerate(state.notes, start=1))[-count:]
    attempts = "\n\n".join(f"ATTEMPT {number}:\n{text}" for number, text in kept)
    memory = note.text if settings.memory == "running" else attempts
    return plan.again.filled({"question": state.problem.question, "memory": memory}), ""


def graded(state: ChainState, written: Written) -> Row:
    """The row of an attempt."""
    plan, problem = state.plan, state.problem
    is_cut = written.finish_reason in (LENGTH, "budget")
    is_again = bool(state.notes) and plan.hand_on == "prompt" and state.method not in BEGINNING
    verdict = plan.grading.verdict(written.text, problem.answer, truncated=is_cut)
    return {
        **head(state),
        "answer": verdict.answer,
        "extractor": verdict.extractor,
        "correct": verdict.correct is True,
        "reason": verdict.reason,
        "finish_reason": written.finish_reason,
        "reasoning": written.text,
        "reasoning_tokens": written.spent.completion,
        "reasoning_usd": written.spent.usd,
        "prompt_tokens": written.spent.prompt,
        "calls": written.calls,
        "summary": None,
        "summary_tokens": None,
        "summary_cut": None,
        "summary_usd": None,
        "summary_prompt_sha256": None,
        **dict.fromkeys(COLUMNS),
        "prompt_sha256": (plan.again if is_again else plan.reason).sha256,
        "cum_tokens": state.spent.completion,
        "cum_usd": state.spent.usd,
        "stop_reason": None,
        "error": None,
        "is_carried": False,
        "is_replayed": False,
    }


def head(state: ChainState) -> Row:
    """Whose row it is."""
    year = state.problem.meta.get("year")
    return {
        "method": state.method,
        "id": state.problem.id,
        "chain": state.number,
        "iteration": state.iteration,
        "problem_hash": fingerprint([state.problem]),
        "gold": state.problem.answer,
        "year": None if year is None else str(year),
    }


def missing(state: ChainState, written: Written) -> Row:
    """The row of a first attempt that never came."""
    return graded(state, replace(written, text="", finish_reason=None)) | {"reason": "no_answer"}


def ended(state: ChainState, rows: Sequence[Row], written: Written) -> str | None:
    """Why a chain ends after an attempt; None: it goes on."""
    settings = state.plan.settings
    answers = [row["answer"] for row in rows[-settings.agree :]]
    same = state.plan.grading.equivalence.same
    if settings.stop == "oracle_stop" and rows[-1]["correct"]:
        return "oracle_stop"
    is_agreed = len(answers) == settings.agree and None not in answers and all(same(each, answers[0]) for each in answers)
    if settings.stop == "agreement" and is_agreed:
        return "agreement"
    if state.method in ("longer", "segment") and written.finish_reason == STOP:
        return "finished"
    if written.finish_reason == "budget":
        return "budget"
    return None


def stuck(state: ChainState, note: Note) -> str | None:
    """Why a chain ends over what would be handed on."""
    if note.error:
        return "error"
    if note.is_budget:
        return "budget"
    says_all = not note.is_dropped and (state.method not in LATENT or state.method in WAYS)  # equal texts make equal vectors
    if state.plan.settings.stop == "no_change" and says_all and state.notes and note.text == state.notes[-1]:
        return "no_change"
    return None


def carried(row: Row, iterations: int) -> list[Row]:
    """The last row again for every iteration that a chain did not need: its answer stands, and nothing is spent."""
    nothing = dict.fromkeys(
        ("reasoning", "summary", "summary_tokens", "summary_cut", "summary_usd", "summary_prompt_sha256", *COLUMNS)
    )
    nothing |= {"reasoning_tokens": 0, "reasoning_usd": 0.0, "prompt_tokens": 0, "calls": 0, "is_carried": True}
    nothing |= {"draft_tokens": 0} if "draft_tokens" in row else {}
    return [row | nothing | {"iteration": k} for k in range(row["iteration"] + 1, iterations + 1)]
