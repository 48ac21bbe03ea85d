"""Which model of this process is asked, with which sampling; imported without torch."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from latent_lab.backbone import DTYPES

if TYPE_CHECKING:
    import torch

    from latent_lab.calls.local import Chat


@dataclass
class LocalModel:
    """A Hugging Face causal language model in this process."""

    prefix: ClassVar[str] = ""
    """What stands before the names of these settings on a command line, for messages."""

    path: str = ""
    """A folder, or a name on the hub."""
    revision: str | None = None
    """Branch, tag or commit on the hub."""
    dtype: str = "float32"
    """Type of the weights."""
    batch_size: int = 8
    """Requests answered at once."""
    max_tokens: int = 512
    """Longest answer in tokens."""
    temperature: float = 0.0
    """0: greedy; else the temperature that is sampled with."""
    seed: int = 0
    """Seed of the first sample; the n-th has ``seed + n``."""

    def __post_init__(self) -> None:
        if not self.path:
            raise ValueError(f"path=: give a folder or a name on the hub, such as {self.prefix}path=Qwen/Qwen3-4B-Instruct-2507")
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype={self.dtype}: allowed are {', '.join(DTYPES)}")
        check_least(self, {"batch_size": 1, "max_tokens": 1, "temperature": 0, "seed": 0})

    @property
    def sampling(self) -> dict[str, Any]:
        """What decides an answer besides the request and the weights."""
        return {"max_tokens": self.max_tokens, "temperature": self.temperature, "seed": self.seed}

    def check_found(self) -> None:
        """Raise ModelError where there is no such model."""
        from transformers import AutoConfig

        from latent_lab.calls.local import found

        with found(self.path, f"{self.prefix}path"):
            AutoConfig.from_pretrained(self.path, revision=self.revision)

    def loaded(self, device: "torch.device | str") -> "Chat":
        """The model itself, on a device."""
        from latent_lab.calls.local import Chat

        return Chat.load(self.path, self.revision, self.dtype, device, f"{self.prefix}path")


def check_drawn(settings: Any) -> None:
    """Raise ValueError where ``top_p`` or ``top_k`` is none, or nothing is drawn from what they leave."""
    check_least(settings, {"top_k": 1})
    if settings.top_p is not None and not 0 < settings.top_p <= 1:
        raise ValueError(f"top_p={settings.top_p}: allowed are shares above 0, up to 1")
    for name, value in drawn_from(settings).items():
        if settings.temperature == 0:
            raise ValueError(f"{name}={value}: with temperature=0 nothing is drawn; allowed: with a temperature above 0")


def drawn_from(settings: Any) -> dict[str, Any]:
    """``top_p`` and ``top_k``, if given."""
    return {name: value for name in ("top_p", "top_k") if (value := getattr(settings, name)) is not None}


def check_least(settings: Any, least: dict[str, int]) -> None:
    """Raise ValueError for the first of these settings that is given and less than it may be."""
    for name, bound in least.items():
        value = getattr(settings, name)
        if value is not None and not value >= bound:
            raise ValueError(f"{name}={value}: allowed are {bound} and more")
