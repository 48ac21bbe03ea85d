"""Which server is called, with which sampling, how fast, and for how much at most; imported without any library."""

import re
from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import urlsplit

LIMIT_NAMES = ("max_tokens", "max_completion_tokens")
OWN_FIELDS = ("model", "messages", "temperature", "seed", "stream", "n", *LIMIT_NAMES)
"""Fields of a request that settings or the client decide; ``extra`` may not say them again."""

VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")
"""Capitals alone, for many a key is made of letters, digits and underscores, too."""
HIDDEN = "***"


@dataclass
class Server:
    """One model of one OpenAI-compatible server (``POST {base_url}/chat/completions``)."""

    prefix: ClassVar[str] = ""
    """What stands before the names of these settings on a command line, for messages."""

    base_url: str = "https://api.openai.com/v1"
    """Where the server listens, without ``/chat/completions``."""
    model: str = ""
    """The model's name, as the server knows it."""
    api_key_env: str | None = "OPENAI_API_KEY"
    """NAME of the environment variable that holds the key, never the key itself; null sends none (a server of your own)."""
    temperature: float | None = 0.0
    """Sampling temperature; null leaves it to the server, for models that allow no choice."""
    max_tokens: int = 512
    """Longest answer in tokens."""
    limit_name: str = "max_tokens"
    """What the request calls ``max_tokens``: that, or ``max_completion_tokens`` (OpenAI's reasoning models)."""
    seed: int | None = 0
    """Seed of the first sample; the n-th is sent ``seed + n``. null sends none."""
    # Any, because Hydra adds no key to what is typed as a dict; __post_init__ lets through nothing else.
    extra: Any = None
    """Further fields of every request, as in ``{top_p: 0.9}``; null: none."""
    timeout_s: float = 120.0
    """Longest time one call may take, in seconds, until its last byte."""
    max_in_flight: int = 8
    """Most calls at the same time."""
    requests_per_minute: float | None = None
    """Most calls begun in a minute, evenly spread."""
    tokens_per_minute: float | None = None
    """Most tokens asked for in a minute, evenly spread: a prompt counts a token for four bytes, an answer ``max_tokens``."""
    max_attempts: int = 8
    """Calls made for one answer before it is given up."""
    max_wait_s: float = 60.0
    """Longest wait between two of them in seconds, whatever Retry-After says."""
    price_input: float | None = None
    """US dollars for a million prompt tokens; null: not known."""
    price_cached: float | None = None
    """The same for prompt tokens the server had cached; null takes ``price_input``."""
    price_output: float | None = None
    """US dollars for a million tokens of answers, thinking included."""
    batch: bool = False
    """Send all that is waited for as a batch (``/files``, ``/batches``), to be answered within a day; no rates are kept then."""
    batch_share: float = 0.5
    """Share of the prices that a call of a batch costs."""
    batch_poll_s: float = 30.0
    """Wait until a batch is asked for again, in seconds."""
    budget_tokens: int | None = None
    """No call is made that could bring all calls of a folder above so many tokens."""
    budget_usd: float | None = None
    """The same in US dollars; it takes prices."""

    def __post_init__(self) -> None:
        if not self.model:
            raise ValueError("model=: give the model's name, as the server knows it")
        self._check_base_url()
        if self.api_key_env is not None and not VARIABLE.fullmatch(self.api_key_env):
            raise ValueError(
                f"api_key_env={HIDDEN}: allowed are the NAME of an environment variable in capitals (not the key itself), or null"
            )
        if self.limit_name not in LIMIT_NAMES:
            raise ValueError(f"limit_name={self.limit_name}: allowed are {', '.join(LIMIT_NAMES)}")
        if self.extra is not None and not isinstance(self.extra, dict):
            raise ValueError(f"extra={self.extra}: allowed are fields and values, as in {{top_p: 0.9}}")
        if twice := [name for name in self.extra or () if name in OWN_FIELDS]:
            raise ValueError(f"extra={self.extra}: {twice[0]} has a setting of its own; allowed are all other fields")
        for name in ("max_tokens", "max_in_flight", "max_attempts"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: allowed are 1 and more")
        for name in ("timeout_s", "requests_per_minute", "tokens_per_minute", "batch_poll_s"):
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)}: allowed are numbers above 0")
        prices = ("price_input", "price_cached", "price_output", "batch_share")
        for name in ("temperature", "max_wait_s", *prices, "budget_tokens", "budget_usd"):
            if getattr(self, name) is not None and not getattr(self, name) >= 0:
                raise ValueError(f"{name}={getattr(self, name)}: allowed are 0 and more")
        if self.budget_usd is not None and (self.price_input is None or self.price_output is None):
            raise ValueError(f"budget_usd={self.budget_usd}: money is counted only with price_input and price_output; give both")

    def _check_base_url(self) -> None:
        # Whatever else it holds may be a secret: it is not repeated.
        parts = urlsplit(self.base_url)
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError(
                f"base_url={HIDDEN}: allowed are addresses without user, password and query; a key goes by api_key_env"
            )
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"base_url={self.base_url}: allowed are addresses such as https://api.openai.com/v1")

    def params(self, sample: int = 0) -> dict[str, Any]:
        """The sampling fields of a request for the n-th sample (from 0) of an answer."""
        params: dict[str, Any] = {self.limit_name: self.max_tokens}
        if self.temperature is not None:
            params["temperature"] = self.temperature
        if self.seed is not None:
            params["seed"] = self.seed + sample
        return params | (self.extra or {})

    def cost(self, prompt: int, cached: int, completion: int) -> float | None:
        """US dollars for a call's tokens (``cached`` is a part of ``prompt``); None where prices are not known."""
        if self.price_input is None or self.price_output is None:
            return None
        price_cached = self.price_input if self.price_cached is None else self.price_cached
        whole = ((prompt - cached) * self.price_input + cached * price_cached + completion * self.price_output) / 1e6
        return whole * self.batch_share if self.batch else whole
