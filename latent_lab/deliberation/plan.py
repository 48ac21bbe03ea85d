"""A plan: the settings of a loop with all that was left to the backend filled in, and checked against what it can do."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from latent_lab.config import ConfigError
from latent_lab.deliberation.backends import Backend
from latent_lab.deliberation.prompts import Prompt, load_prompt
from latent_lab.deliberation.replay import Past
from latent_lab.deliberation.settings import ASKING, BEGINNING, CONDENSING, LATENT, NUM_VECTORS, SAMPLES, UNENDING, Settings
from latent_lab.deliberation.texts import Spans
from latent_lab.grading.answers import Equivalence, Grading
from latent_lab.problems import Problem


@dataclass(frozen=True)
class Plan:
    """Everything that a chain needs besides its problem."""

    settings: Settings
    backend: Backend
    summariser: Backend
    methods: tuple[str, ...]
    hand_on: str
    think_end: str
    share: float | None
    grading: Grading
    reason: Prompt
    again: Prompt
    summarise: Prompt
    summarise_chunk: Prompt
    summarise_drafts: Prompt
    running: Prompt
    past: Past
    donors: Mapping[str, Problem] = field(default_factory=dict)
    """Whose thoughts a control hands on: for each problem of a split the next one, whichever are chosen."""

    @property
    def prompts(self) -> dict[str, dict[str, str]]:
        """Name and hash of every prompt."""
        kinds = ["reason", "again", "summarise", "summarise_chunk", "running", *["summarise_drafts"] * ("drafts" in self.methods)]
        return {kind: {"name": getattr(self, kind).name, "sha256": getattr(self, kind).sha256} for kind in kinds}

    @property
    def chains(self) -> list[tuple[str, int]]:
        """Method and number of every chain of a problem, first attempts that only vote last."""
        again = [(method, number) for method in self.methods for number in range(self.settings.chains)]
        return again + [(SAMPLES, number) for number in range(self.settings.num_samples)]

    @property
    def num_attempts(self) -> int:
        """How many rows a problem has in the end."""
        return len(self.methods) * self.settings.chains * (self.settings.iterations + 1) + self.settings.num_samples

    @property
    def num_vectors(self) -> int:
        """How many thoughts, or vectors made of a trace, are handed on."""
        return self.settings.thoughts or self.backend.num_thoughts or NUM_VECTORS

    def kept(self, text: str, spans: Spans) -> int:
        """How many tokens of a trace are kept."""
        return self.settings.k if self.share is None else max(round(self.share * len(spans(text))), 1)


def planned(
    settings: Settings, backend: Backend, summariser: Backend, extractors: Sequence[str] = (), past: Past | None = None
) -> Plan:
    """Fill in what is ``auto`` or empty; :class:`ConfigError` for what the backend cannot do. ``extractors`` are a run's own."""
    suits = backend.suits
    methods = tuple(settings.methods) or suits.methods
    hand_on = suits.hand_on if settings.hand_on == "auto" else settings.hand_on
    begins = [m for m in methods if m in BEGINNING] + ["hand_on=reply"] * (hand_on == "reply")
    if begins and not backend.can_begin:
        advice = "a backend that can: backend.api=completions, backend.prefill=vllm, or backend=local"
        raise ConfigError("task.methods", begins[0], f"the backend cannot continue a reply that is begun; allowed: {advice}")
    if (settings.step_tokens or 0) > backend.max_tokens and not backend.can_begin:
        rest = f"the backend cannot continue a reply that is cut off; allowed: up to backend.max_tokens={backend.max_tokens}"
        raise ConfigError("task.step_tokens", settings.step_tokens, rest)
    if hand_on == "reply" and settings.memory not in ("all", "last"):
        rest = "a reply begins with what was handed on last; allowed: last (which all means there), or hand_on=prompt"
        raise ConfigError("task.memory", settings.memory, rest)
    if backend.temperature == 0 and settings.num_samples > 1:
        raise ConfigError(
            "task.chains", settings.chains, "with temperature=0 all chains are the same; allowed: 1, with samples=1"
        )
    if suits.hand_on == "reply" and hand_on == "prompt":
        raise ConfigError("task.hand_on", hand_on, "a run of this laboratory knows questions alone; allowed: reply")
    if suits.hand_on == "reply" and summariser is backend and (asks := ASKING & set(methods)):
        rest = (
            "a run of this laboratory writes no summaries; allowed: with a summariser=, or first_k, last_k, random_k, tail, wait"
        )
        raise ConfigError("task.methods", sorted(asks)[0], rest)
    check_vectors(methods, backend)
    check_notes(settings, methods, summariser is backend)
    for name in ("step_usd", "chain_usd"):
        if getattr(settings, name) is not None and None in (backend.cost(1, 0, 1), summariser.cost(1, 0, 1)):
            rest = "money is counted only with prices; allowed: with price_input and price_output of backend and summariser"
            raise ConfigError(f"task.{name}", getattr(settings, name), rest)
    if hand_on == "reply" and settings.again != "auto":
        raise ConfigError(
            "task.again", settings.again, "a reply that is begun follows the first prompt; allowed: auto, or hand_on=prompt"
        )
    equivalence = Equivalence(settings.equivalence)
    return Plan(
        settings,
        backend,
        summariser,
        methods,
        hand_on,
        suits.think_end if settings.think_end == "auto" else settings.think_end,
        0.5 if settings.share is None and suits.hand_on == "reply" else settings.share,
        Grading(tuple(settings.extractors or suits.extractors or extractors), equivalence, settings.accept_truncated),
        load_prompt("reason", suits.reason if settings.reason == "auto" else settings.reason),
        load_prompt("again", suits.again if settings.again == "auto" else settings.again),
        load_prompt("summarise", settings.summarise),
        load_prompt("summarise", settings.summarise_chunk),
        load_prompt("summarise", settings.summarise_drafts),
        load_prompt("running", settings.running),
        past or Past(),
    )


def check_notes(settings: Settings, methods: Sequence[str], is_own: bool) -> None:
    """:class:`ConfigError` for settings of a note that none of these methods goes by; ``is_own``: who thinks also summarises."""
    if settings.summary_temperature is not None and not (is_own and ASKING & set(methods)):
        rest = f"whoever thinks writes no summary; allowed: with {', '.join(sorted(ASKING))}, and without a summariser="
        raise ConfigError("task.summary_temperature", settings.summary_temperature, rest)
    if settings.no_end != "whole" and set(methods) <= UNENDING:
        rest = "none of the methods looks for an end of thinking; allowed: whole, or a method such as whole, last_k or condensed"
        raise ConfigError("task.no_end", settings.no_end, rest)


def check_vectors(methods: Sequence[str], backend: Backend) -> None:
    """:class:`ConfigError` for methods that hand on vectors which the backend does not have or cannot make."""
    if (traced := [m for m in methods if m in CONDENSING]) and not backend.can_condense:
        rest = "the backend cannot think over what is written; allowed: run=RUN of a run that feeds thoughts into its slots, or"
        raise ConfigError("task.methods", traced[0], f"{rest} has none, or other methods")
    if (latent := [m for m in methods if m in LATENT - CONDENSING]) and not backend.num_thoughts:
        rest = (
            "the backend has no thoughts to hand on; allowed: run=RUN of a run that feeds thoughts into slots, or other methods"
        )
        raise ConfigError("task.methods", latent[0], rest)
