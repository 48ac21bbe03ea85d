"""Who judges wrong answers, ``judge=rules``, ``openai`` or ``local``: settings, and how each comes by its verdicts."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from latent_lab.calls.model import LocalModel
from latent_lab.calls.server import Server
from latent_lab.grading.judge_prompt import Case, Verdict, load_prompt, read_verdict

if TYPE_CHECKING:
    import torch

    from latent_lab.calls.client import Completion, Message

Talk = Callable[[Sequence[tuple["Message", ...]], int], list["Completion"]]
"""Continues conversations, each as the sample of that number: completions in their order."""
Ask = Callable[[Sequence[Case]], list[list[Verdict]]]
"""Asks the judges about cases: for each case, a verdict of each judge."""


@dataclass
class Rules:
    """The arithmetic tool alone: right once repaired is an execution error, right steps to a wrong answer a planning error."""

    @property
    def names(self) -> list[str]:
        """One judge."""
        return ["rules"]


@dataclass
class Asking(ABC):
    """Language models that are asked; the settings that ``judge=openai`` and ``judge=local`` share."""

    prompt: str = "v1"
    """Version of the prompt, or a file of your own with the slots ``{question}``, ``{output}``, ``{answer}`` and ``{gold}``."""
    show_gold: bool = True
    """Whether the judge sees the correct answer."""
    votes: int = 1
    """Samples of each model, each a judge of its own with a seed of its own."""
    calibration: int = 50
    """So many of the answers about which the rules are certain are judged first, and compared with the rules; 0: none."""
    calibration_seed: int = 0
    """Which ones are drawn."""
    calibration_floor: float = 0.0
    """Share of these on which judge and rules must agree for the rest to be judged."""
    max_errors: float = 0.1
    """Share of questions that may end without a reply; above it there is no result, and the same command asks again."""

    def __post_init__(self) -> None:
        load_prompt(self.prompt)
        if self.votes < 1:
            raise ValueError(f"votes={self.votes}: allowed are 1 and more")
        if self.calibration < 0:
            raise ValueError(f"calibration={self.calibration}: allowed are 0 and more")
        for name in ("calibration_floor", "max_errors"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)}: allowed are 0 to 1")

    @property
    @abstractmethod
    def names(self) -> list[str]:
        """The judges, in the order of their verdicts."""

    @abstractmethod
    def check_ready(self) -> None:
        """Raise a ValueError of this package where something is missing on this machine without which nobody can be asked."""

    @abstractmethod
    def opened(self, folder: Path, device: "torch.device | str") -> AbstractContextManager[Ask]:
        """Make ready to ask. What is paid for is kept in ``folder``; a model in this process runs on ``device``."""

    @abstractmethod
    def talking(self, folder: Path, device: "torch.device | str") -> AbstractContextManager[Talk]:
        """Be ready for conversations of any kind with the first model; where calls are paid, they are kept in ``folder``."""

    def _check_votes(self, temperature: float | None) -> None:
        if self.votes > 1 and temperature == 0:
            raise ValueError(
                f"votes={self.votes}: with temperature=0 all votes are the same; allowed are 1, or a temperature above 0"
            )

    def _voters(self, model: str) -> list[str]:
        return [model] if self.votes == 1 else [f"{model} #{n}" for n in range(1, self.votes + 1)]


@dataclass
class OpenAIJudge(Asking, Server):
    """Models behind an OpenAI-compatible server."""

    prefix: ClassVar[str] = "judge."

    more_models: list[str] = field(default_factory=list)
    """Further models of the server, each another judge; where prices differ, give the highest."""

    def __post_init__(self) -> None:
        Server.__post_init__(self)
        Asking.__post_init__(self)
        self._check_votes(self.temperature)
        if len({self.model, *self.more_models}) <= len(self.more_models):
            raise ValueError(f"more_models={self.more_models}: allowed are models that are not named before")

    @property
    def names(self) -> list[str]:
        """Every vote of every model."""
        return [name for model in (self.model, *self.more_models) for name in self._voters(model)]

    def check_ready(self) -> None:
        """The libraries, and the key."""
        from latent_lab.calls.client import check_ready

        check_ready(self)

    @contextmanager
    def opened(self, folder: Path, device: "torch.device | str") -> Iterator[Ask]:
        """Open the ledger of ``folder``, and a client for each model."""
        from latent_lab.calls.batches import client_of
        from latent_lab.calls.ledger import open_ledger

        with ExitStack() as stack:
            ledger = stack.enter_context(open_ledger(folder))
            clients = [
                stack.enter_context(client_of(replace(self, model=model, more_models=[]), ledger))
                for model in (self.model, *self.more_models)
            ]
            yield lambda cases: self._ask(clients, cases)

    @contextmanager
    def talking(self, folder: Path, device: "torch.device | str") -> Iterator[Talk]:
        """Open the ledger of ``folder``, and a client for the model."""
        from latent_lab.calls.batches import client_of
        from latent_lab.calls.client import Request
        from latent_lab.calls.ledger import open_ledger
        from latent_lab.progress import progress

        with open_ledger(folder) as ledger, client_of(replace(self, more_models=[]), ledger) as client:

            def talk(conversations: Sequence[tuple["Message", ...]], sample: int) -> list["Completion"]:
                with progress("asking", len(conversations), unit="replies") as advance:
                    return client.complete([Request(messages, sample) for messages in conversations], advance)

            yield talk

    def _ask(self, clients: Sequence[Any], cases: Sequence[Case]) -> list[list[Verdict]]:
        from latent_lab.calls.client import Request
        from latent_lab.progress import progress

        prompt = load_prompt(self.prompt)
        requests = [Request(prompt.messages(c, show_gold=self.show_gold), n) for c in cases for n in range(self.votes)]
        verdicts: list[list[Verdict]] = [[] for _ in cases]
        with progress("judging", len(requests) * len(clients), unit="verdicts") as advance:
            for client in clients:
                for number, done in enumerate(client.complete(requests, advance)):
                    verdicts[number // self.votes].append(verdict(done))
        return verdicts


@dataclass
class LocalJudge(Asking, LocalModel):
    """A Hugging Face causal language model in this process; the n-th vote is its n-th sample."""

    prefix: ClassVar[str] = "judge."

    def __post_init__(self) -> None:
        Asking.__post_init__(self)
        self._check_votes(self.temperature)
        LocalModel.__post_init__(self)

    @property
    def names(self) -> list[str]:
        """Every vote."""
        return self._voters(self.path)

    def check_ready(self) -> None:
        """The model."""
        self.check_found()

    @contextmanager
    def talking(self, folder: Path, device: "torch.device | str") -> Iterator[Talk]:
        """Load the model onto ``device``."""
        chat = self.loaded(device)
        sizes = {"batch_size": self.batch_size, "max_tokens": self.max_tokens}
        yield lambda conversations, sample: chat.complete(
            conversations, **sizes, temperature=self.temperature, seed=self.seed + sample
        )

    @contextmanager
    def opened(self, folder: Path, device: "torch.device | str") -> Iterator[Ask]:
        """Load the model onto ``device``."""
        prompt = load_prompt(self.prompt)
        with self.talking(folder, device) as talk:

            def ask(cases: Sequence[Case]) -> list[list[Verdict]]:
                conversations = [prompt.messages(case, show_gold=self.show_gold) for case in cases]
                votes = [talk(conversations, vote) for vote in range(self.votes)]
                return [list(map(verdict, each)) for each in zip(*votes, strict=True)]

            yield ask


def verdict(done: "Completion") -> Verdict:
    """What a model's reply says, if there is one."""
    if done.error:
        return Verdict("unclear", "no reply", is_readable=False, error=done.error)
    return read_verdict(done.text or "", done.finish_reason)
