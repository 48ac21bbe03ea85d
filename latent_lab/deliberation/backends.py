"""Who thinks and who summarises, ``backend=`` and ``summariser=``: a server, a model in this process, or a run of ours.

All of them answer requests in batches through a ledger, and say what they can: begin a reply, count tokens, cost money.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from latent_lab.calls.model import LocalModel, check_drawn, check_least, drawn_from
from latent_lab.calls.server import Server
from latent_lab.calls.wire import PREFILLS, ChatWire, TextWire, Wire, paragraphs
from latent_lab.config import ConfigError, EvalConfig
from latent_lab.deliberation.texts import Spans, tokens_of, words
from latent_lab.loop import Loop
from latent_lab.problems import fingerprint

if TYPE_CHECKING:
    from latent_lab.calls.client import Completion, Request, Told
    from latent_lab.calls.ledger import Ledger

APIS = ("chat", "completions")


class Caller(Protocol):
    """Answers requests."""

    def complete(
        self,
        requests: "Sequence[Request]",
        advance: Callable[[int], None] = lambda count: None,
        told: "Told" = lambda place, done: None,
    ) -> "list[Completion]":
        """Answer requests, in their order; one that fails for good is a completion with an error; ``told`` hears each."""
        ...


@dataclass(frozen=True)
class Opened:
    """A backend at work."""

    caller: Caller
    spans: Spans
    """Its tokens, or words where it has no tokenizer here."""
    condenser: Caller | None = None
    """What makes vectors of a trace, where it can."""


@dataclass(frozen=True)
class Suits:
    """What suits a backend where a setting is left to it."""

    methods: tuple[str, ...] = ("whole",)
    hand_on: str = "prompt"
    think_end: str = "</think>"
    extractors: tuple[str, ...] = ("boxed", "the_answer_is", "hashes")
    reason: str = "math_v1"
    again: str = "judge_v1"


class Backend(Protocol):
    """What ``backend=`` selects."""

    @property
    def max_tokens(self) -> int:
        """Longest answer to one call, in tokens."""
        ...

    @property
    def temperature(self) -> float | None:
        """What is sampled with; 0: nothing is left to chance."""
        ...

    @property
    def can_begin(self) -> bool:
        """Whether a reply can be begun for the model."""
        ...

    @property
    def num_thoughts(self) -> int:
        """Thoughts of one attempt, which can be handed on; 0: it has none."""
        ...

    @property
    def can_condense(self) -> bool:
        """Whether vectors can be made of a trace, and handed on."""
        ...

    @property
    def suits(self) -> Suits:
        """What suits it."""
        ...

    def check_ready(self, config: EvalConfig) -> None:
        """Raise a ValueError of this package where something is missing without which nothing can be asked."""
        ...

    def identity(self, config: EvalConfig) -> dict[str, str]:
        """What decides its answers though no setting shows it."""
        ...

    def opened(self, ledger: "Ledger", config: EvalConfig) -> AbstractContextManager[Opened]:
        """Make ready to ask."""
        ...

    def cost(self, prompt: int, cached: int, completion: int) -> float | None:
        """US dollars for a call's tokens; None where prices are not known."""
        ...


@dataclass
class Remote(Server):
    """A model of an OpenAI-compatible server."""

    prefix: ClassVar[str] = "backend."

    temperature: float | None = 0.6
    max_tokens: int = 8192
    timeout_s: float = 600.0
    api: str = "chat"
    """``chat`` (``/chat/completions``), or ``completions`` (``/completions``: the text is continued, so replies can be begun)."""
    prefill: str = "none"
    """How a chat server continues a reply that is begun: ``none`` (it cannot), ``message`` (a last message of the assistant says
    it), ``vllm`` (that, and vLLM's two fields)."""
    tokenizer: str | None = None
    """A tokenizer, by its folder or its name on the hub: it counts the tokens that strategies keep, and for ``completions`` its
    chat template makes the text. null: words are counted, and the text is the messages in paragraphs."""

    num_thoughts = 0
    can_condense = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.api not in APIS:
            raise ValueError(f"api={self.api}: allowed are {', '.join(APIS)}")
        if self.prefill not in PREFILLS:
            raise ValueError(f"prefill={self.prefill}: allowed are {', '.join(PREFILLS)}")
        if self.prefill != "none" and self.api == "completions":
            raise ValueError(
                f"prefill={self.prefill}: with api=completions every text is continued; allowed are none, or api=chat"
            )

    @property
    def can_begin(self) -> bool:
        """By either way."""
        return self.api == "completions" or self.prefill != "none"

    @property
    def suits(self) -> Suits:
        """A model that follows instructions."""
        return Suits()

    def check_ready(self, config: EvalConfig) -> None:
        """The libraries, and the key."""
        from latent_lab.calls.client import check_ready

        check_ready(self)

    def identity(self, config: EvalConfig) -> dict[str, str]:
        """Nothing that could be known."""
        return {}

    @contextmanager
    def opened(self, ledger: "Ledger", config: EvalConfig) -> Iterator[Opened]:
        """Open a client."""
        from latent_lab.calls.batches import client_of

        tokenizer = loaded_tokenizer(self.tokenizer, f"{self.prefix}tokenizer") if self.tokenizer else None
        wire: Wire = ChatWire(self.prefill) if self.api == "chat" else TextWire(renderer(tokenizer))
        with client_of(self, ledger, wire) as client:
            yield Opened(client, tokens_of(tokenizer) if tokenizer else words)


@dataclass
class Local(LocalModel):
    """A Hugging Face causal language model in this process."""

    prefix: ClassVar[str] = "backend."

    max_tokens: int = 1024
    temperature: float = 0.6
    top_p: float | None = None
    """Share of the probability that is drawn from, the likeliest tokens first; null: all of it."""
    top_k: int | None = None
    """So many of the likeliest tokens are drawn from; null: all."""

    can_begin = True
    num_thoughts = 0
    can_condense = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_drawn(self)

    @property
    def sampling(self) -> dict[str, Any]:
        """The same, with what is drawn from."""
        return super().sampling | drawn_from(self)

    @property
    def suits(self) -> Suits:
        """A model that follows instructions."""
        return Suits()

    def check_ready(self, config: EvalConfig) -> None:
        """The model."""
        self.check_found()

    def identity(self, config: EvalConfig) -> dict[str, str]:
        """The weights of a folder; what is read from the hub has a revision."""
        files = sorted(Path(self.path).expanduser().glob("*.safetensors"))
        return {f"{self.prefix}weights": " ".join(map(fingerprint, files))} if files else {}

    @contextmanager
    def opened(self, ledger: "Ledger", config: EvalConfig) -> Iterator[Opened]:
        """Load the model."""
        from latent_lab.calls.here import Here

        chat = self.loaded(config.device)
        weights = {"model": self.path, "revision": self.revision, "dtype": self.dtype}
        identity = {**weights, **self.identity(config), **self.sampling}

        def answer(requests: "Sequence[Request]") -> "list[Completion]":
            return chat.answer(requests, batch_size=self.batch_size, **self.sampling)

        yield Opened(Here(ledger, identity, answer, self.batch_size), tokens_of(chat.tokenizer))

    def cost(self, prompt: int, cached: int, completion: int) -> float | None:
        """Nothing."""
        return 0.0


@dataclass
class RemoteSummariser(Remote):
    """The same, to summarise."""

    prefix: ClassVar[str] = "summariser."


@dataclass
class LocalSummariser(Local):
    """The same, to summarise."""

    prefix: ClassVar[str] = "summariser."


@dataclass
class LabRun:
    """The run of this laboratory that ``run=`` names. It knows questions alone: what is handed on begins its reply."""

    max_new_tokens: int | None = None
    """Longest answer in tokens; null takes as many as when the run is graded."""
    temperature: float = 0.8
    """0: greedy; else the temperature that is sampled with."""
    seed: int = 0
    """Seed of the first sample."""
    top_p: float | None = None
    """Share of the probability that is drawn from, the likeliest tokens first; null: all of it."""
    top_k: int | None = None
    """So many of the likeliest tokens are drawn from; null: all."""

    can_begin = True
    num_thoughts = 0  # this and the next until settled() has asked the run
    can_condense = False

    def __post_init__(self) -> None:
        check_least(self, {"max_new_tokens": 1, "temperature": 0, "seed": 0})
        check_drawn(self)

    def settled(self, config: EvalConfig) -> "LabRun":
        """The same with what only the run itself says: its longest answer, and how often it thinks."""
        from latent_lab.checkpoint import INFO, Info
        from latent_lab.grading.session import CHECKPOINT

        info = Info(**json.loads((config.run_folder / CHECKPOINT / INFO).read_text(encoding="utf-8")))
        loop = Loop.stored(info.loop)
        made = replace(self, max_new_tokens=self.max_new_tokens or info.max_new_tokens)
        made.num_thoughts = info.num_slots if loop.feeds == "thoughts" else 0
        made.can_condense = loop.feeds == "thoughts" and not loop.segments
        return made

    @property
    def max_tokens(self) -> int:
        """Longest answer in tokens; a thought counts as one."""
        return (self.max_new_tokens or 0) + self.num_thoughts

    @property
    def suits(self) -> Suits:
        """A model that writes its steps below the question, and the answer after a mark; if it thinks, also before."""
        methods = ("first_k", "thoughts", "thoughts_another") if self.num_thoughts else ("first_k",)
        return Suits(methods, "reply", "###", (), "plain_v1")

    def check_ready(self, config: EvalConfig) -> None:
        """The run."""
        if not config.run:
            raise ConfigError("run", None, "backend=run takes a run of this laboratory; allowed: its folder or its name")

    def identity(self, config: EvalConfig) -> dict[str, str]:
        """Its weights."""
        from latent_lab import checkpoint
        from latent_lab.grading.session import CHECKPOINT

        return {"weights": checkpoint.weights_hash(config.run_folder / CHECKPOINT)}

    @contextmanager
    def opened(self, ledger: "Ledger", config: EvalConfig) -> Iterator[Opened]:
        """Load the run."""
        from latent_lab.calls.here import Here
        from latent_lab.deliberation.lab import load

        lab = load(config, self.temperature, self.seed, self.max_tokens, **drawn_from(self))
        sampling = {"max_tokens": self.max_tokens, "temperature": self.temperature, "seed": self.seed}
        identity = {"model": config.run, **self.identity(config), **sampling, **drawn_from(self)}
        condenser = Here(ledger, {**identity, "writes": "vectors"}, lab.condense, config.batch_size)
        answers = Here(ledger, identity, lab.answer, config.batch_size)
        yield Opened(answers, tokens_of(lab.solver.backbone.tokenizer), condenser)

    def cost(self, prompt: int, cached: int, completion: int) -> float | None:
        """Nothing."""
        return 0.0


def loaded_tokenizer(name: str, key: str) -> Any:
    """A tokenizer from a folder or the hub; ModelError where there is none."""
    from transformers import AutoTokenizer

    from latent_lab.calls.local import found

    with found(name, key):
        return AutoTokenizer.from_pretrained(name)


def renderer(tokenizer: Any) -> Callable[[Any], str]:
    """How messages become the text that ``completions`` continues."""
    if tokenizer is None or tokenizer.chat_template is None:
        return paragraphs
    return lambda messages: str(
        tokenizer.apply_chat_template([dict(m) for m in messages], tokenize=False, add_generation_prompt=True)
    )
