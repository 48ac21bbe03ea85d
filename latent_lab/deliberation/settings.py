"""What ``task=summarize`` can be told of its loop; checked before anything is asked."""

from dataclasses import dataclass, field

from latent_lab.deliberation.prompts import load_prompt
from latent_lab.deliberation.selection import Selection
from latent_lab.deliberation.weights import check_weights
from latent_lab.grading.answers import Equivalence
from latent_lab.grading.extraction import check_extractors

METHODS = {
    "whole": "a summary of the whole trace",
    "chunked": "summaries of its parts, joined",
    "running": "notes, brought up to date part by part",
    "drafts": "one summary of several drafts, each written from what was handed on last",
    "segment": "as whole, but only while the trace is cut off: it is thought in segments with a summary between",
    "first_k": "its first k tokens",
    "last_k": "its last k tokens",
    "random_k": "any k of its tokens, in their order",
    "post_think": "what was written after thinking, else its last k tokens",
    "answer_only": "its answer, in a sentence",
    "tail": "the next reply begins with the last k tokens of the trace",
    "wait": "the trace goes on after a word such as Wait, in the same context",
    "longer": "a trace that was cut off goes on, in the same context",
    "thoughts": "the last thoughts of a latent run fill the first slots of its next attempt, which thinks on from them",
    "thoughts_zeroed": "a control of thoughts: zeros in their place",
    "thoughts_another": "a control of thoughts: another problem's in their place",
    "condensed": "a run thinks over its trace, and these thoughts fill the first slots of its next attempt; the text is gone",
    "condensed_zeroed": "a control of condensed: zeros in their place",
    "condensed_another": "a control of condensed: those over an attempt at another problem in their place",
    "averaged": "as condensed, with the states that the run has while it reads its trace, averaged over equal parts",
    "averaged_zeroed": "a control of averaged: zeros in their place",
    "averaged_another": "a control of averaged: those of an attempt at another problem in their place",
}
"""Ways to think again, and what is handed on from one iteration to the next."""
ASKING = frozenset({"whole", "chunked", "running", "drafts", "segment"})
"""Those for which a model writes what is handed on."""
WAYS = ("condensed", "averaged")
"""Those that hand on vectors made of a trace."""
CONDENSING = frozenset(method for method in METHODS if method.startswith(WAYS))
"""These and their controls."""
LATENT = frozenset({"thoughts", "thoughts_zeroed", "thoughts_another"}) | CONDENSING
"""Those that hand on no text."""
ZEROED, ANOTHER = "_zeroed", "_another"
"""How the controls of these end."""
NUM_VECTORS = 4
"""Vectors made of a trace by a run that has no slots of its own."""
BEGINNING = frozenset({"tail", "wait", "longer"})
"""Those that begin the next reply for the model."""
MEMORIES = ("all", "last", "window", "running")
PLACES = ("auto", "prompt", "reply")
NO_ENDS = {
    "whole": "all of it is the trace",
    "drop": "nothing of it is handed on; the next attempt is given what this one was",
    "error": "the chain ends there",
}
"""What becomes of a reply in which thinking does not end."""
UNENDING = frozenset({"segment", "wait", "longer", "answer_only", "thoughts", "thoughts_zeroed", "thoughts_another"})
"""Methods that look for no end of thinking, or go on until there is one."""
STOPS = {
    "fixed": "after all iterations",
    "agreement": "as soon as an answer is given so many times running (agree=)",
    "no_change": "as soon as what is handed on is what was handed on before",
    "oracle_stop": "as soon as the answer is right: this knows the gold answer",
}
SAMPLES = "samples"
"""The method whose chains are first attempts alone, for votes."""


@dataclass
class Settings(Selection):
    """Problems, methods, memory, budgets, stopping, prompts, grading."""

    methods: list[str] = field(default_factory=list)
    """Ways to think again, compared on the same first attempts: whole, chunked, running, drafts, segment, first_k, last_k,
    random_k, post_think, answer_only, tail, wait, longer; for a run of this laboratory also condensed and averaged, for one that
    thinks in slots also thoughts, and their controls with _zeroed and _another behind the name (the next problem of the split
    lends its own). Empty: what suits the backend."""
    iterations: int = 4
    """Times that is thought again after the first attempt."""
    chains: int = 4
    """Chains for each problem and method, each with its own seed; they vote in the end."""
    samples: int | None = None
    """First attempts for each problem, for votes; null: as many as all chains think in all."""
    replay: str | None = None
    """Another ``task=summarize`` (its folder, or its name below outputs) whose chains go on here; null: chains begin here."""
    from_iteration: int = 0
    """The last attempt that is taken from there, with the notes before it; the note on it is the first that is new."""
    changed: list[str] = field(default_factory=list)
    """Settings that made those attempts and may be others here, such as backend.model; any other difference is refused."""
    weights: list[str] = field(default_factory=list)
    """Weighted votes beside the plain ones: by ``agreement`` inside a chain, by ``brevity``."""
    memory: str = "all"
    """What an iteration sees of those before it: what ``all`` or the ``last`` handed on, a ``window`` of the last ones, or one
    ``running`` text that each summary carries on. Where it begins the reply, it is what was handed on last."""
    window: int = 2
    """How many a window holds."""
    hand_on: str = "auto"
    """Where that stands: in the ``prompt``, or at the beginning of the ``reply``; ``auto``: where it suits the backend."""
    k: int = 404
    """Tokens kept by first_k, last_k, random_k, post_think and tail (words where the backend has no tokenizer here)."""
    share: float | None = None
    """The same as a share of the trace, in place of ``k``; null: ``k`` holds, and for a run of this laboratory a half."""
    thoughts: int | None = None
    """Thoughts handed on by ``thoughts`` and its controls, the last of all slots, and vectors made of a trace; null: as many as
    an attempt thinks anew, or 4 where it thinks none."""
    chunk: int = 1000
    """Tokens of a part for chunked and running."""
    overlap: int = 0
    """Tokens that a part has in common with the one before."""
    drafts: int = 4
    """Drafts that ``drafts`` sums up; one of them is the attempt itself, and the last attempt of a chain has no others."""
    reason: str = "auto"
    """Prompt of the first attempt: a version that comes along, or a file with the slot ``{question}``."""
    again: str = "auto"
    """Prompt of further attempts: ``{question}`` and ``{memory}``; a reply that is begun follows the first prompt again."""
    summarise: str = "base_v1"
    """Prompt of a summary: ``{question}`` and ``{reasoning}``."""
    summarise_chunk: str = "chunk_v1"
    """The same for a part of a trace."""
    summarise_drafts: str = "drafts_v1"
    """The same for all drafts together."""
    running: str = "notes_v1"
    """Prompt that carries notes on: ``{question}``, ``{memory}`` and ``{reasoning}``."""
    step_tokens: int | None = None
    """Most tokens of one attempt, over several calls where one is cut off; null: one call."""
    step_usd: float | None = None
    """Most US dollars of one attempt."""
    chain_tokens: int | None = None
    """Most tokens written for one chain on one problem, summaries included."""
    chain_usd: float | None = None
    """Most US dollars of the same."""
    summary_tokens: int = 512
    """Most tokens of one summary."""
    summary_temperature: float | None = None
    """What a summary is sampled with where whoever thinks writes it (a ``summariser=`` has its own); null: as a thought is."""
    stop: str = "fixed"
    """When a chain ends: ``fixed``, ``agreement``, ``no_change``, or ``oracle_stop``, which knows the gold answer."""
    agree: int = 2
    """Equal answers running that end a chain."""
    think_end: str = "auto"
    """What ends thinking in a reply; a trace is what stands before it, and without it the whole reply."""
    no_end: str = "whole"
    """What becomes of a reply without it: the ``whole`` is the trace, ``drop`` hands none of it on, ``error`` ends the chain."""
    wait: str = "\n\nWait"
    """What ``wait`` writes behind a trace."""
    extractors: list[str] = field(default_factory=list)
    """Rules that find the answer, in the order they are tried; empty: what suits the backend."""
    equivalence: str = "exact"
    """What equals the gold answer: ``exact``, ``integer``, ``numeric`` or ``math``."""
    accept_truncated: bool = False
    """Also look for an answer in a reply that was cut off."""
    max_errors: float = 0.1
    """Share of chains that may end in an error; above it there is no result, and the same command asks failed calls again."""

    @property
    def num_samples(self) -> int:
        """First attempts for each problem."""
        return self.samples or self.chains * (self.iterations + 1)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, given, allowed in (
            *(("methods", method, METHODS) for method in self.methods),
            ("memory", self.memory, MEMORIES),
            ("hand_on", self.hand_on, PLACES),
            ("no_end", self.no_end, NO_ENDS),
            ("stop", self.stop, STOPS),
        ):
            if given not in allowed:
                raise ValueError(f"{name}={given}: allowed are {', '.join(allowed)}")
        if len(set(self.methods)) < len(self.methods):
            raise ValueError(f"methods={self.methods}: allowed is each method once")
        if not self.think_end:
            raise ValueError("think_end=: allowed are a text that ends thinking, such as </think>, or auto")
        self._check_numbers()
        self._check_prompts()
        check_extractors(self.extractors)
        check_weights(self.weights)
        Equivalence(self.equivalence)

    def _check_numbers(self) -> None:
        least = {
            "problems": 1,
            "iterations": 1,
            "chains": 1,
            "samples": 1,
            "window": 1,
            "k": 1,
            "thoughts": 1,
            "chunk": 1,
            "overlap": 0,
            "drafts": 2,
            "agree": 2,
        }
        least |= {"from_iteration": 0, "step_tokens": 1, "chain_tokens": 1, "summary_tokens": 1, "summary_temperature": 0}
        for name, smallest in least.items():
            if (value := getattr(self, name)) is not None and value < smallest:
                raise ValueError(f"{name}={value}: allowed are {smallest} and more")
        for name in ("step_usd", "chain_usd"):
            if (value := getattr(self, name)) is not None and not value > 0:
                raise ValueError(f"{name}={value}: allowed are numbers above 0")
        if self.iterations > 999:
            raise ValueError(f"iterations={self.iterations}: allowed are 1 to 999")
        if not self.replay and (self.from_iteration or self.changed):
            name = "from_iteration" if self.from_iteration else "changed"
            raise ValueError(f"{name}={getattr(self, name)}: nothing is replayed; allowed: with task.replay=FOLDER")
        if self.from_iteration >= self.iterations:
            raise ValueError(f"from_iteration={self.from_iteration}: allowed are 0 to below iterations={self.iterations}")
        if self.overlap >= self.chunk:
            raise ValueError(f"overlap={self.overlap}: allowed are 0 to below chunk={self.chunk}")
        if self.share is not None and not 0 < self.share <= 1:
            raise ValueError(f"share={self.share}: allowed are numbers above 0, up to 1")
        if not 0 <= self.max_errors <= 1:
            raise ValueError(f"max_errors={self.max_errors}: allowed are 0 to 1")
        if self.samples is not None and self.samples < self.chains:
            raise ValueError(f"samples={self.samples}: allowed are chains={self.chains} and more, whose first attempts they are")

    def _check_prompts(self) -> None:
        if self.reason != "auto":
            load_prompt("reason", self.reason)
        if self.again != "auto":
            load_prompt("again", self.again)
        load_prompt("summarise", self.summarise)
        load_prompt("summarise", self.summarise_chunk)
        load_prompt("summarise", self.summarise_drafts)
        load_prompt("running", self.running)
        if self.memory == "running" and self.methods and set(self.methods) - BEGINNING - ASKING:
            raise ValueError(
                f"memory=running: a model must carry the text on; allowed are the methods {', '.join(sorted(ASKING))}"
            )
