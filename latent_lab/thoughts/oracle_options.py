"""What ``oracle=`` can be told: which model answers, how vectors are put into it, and what it is asked in training.

Imports no torch.
"""

from dataclasses import dataclass, field
from typing import Any

KINDS = ("self", "lora", "separate", "head")
ADAPTERS = ("raw", "centred", "whitened", "learned")
GIVEN = ("one", "all")
HEADS = ("autoregressive", "linear")
TASKS = ("step", "field", "answer", "problem", "yes_no", "foretell")


@dataclass
class OracleOptions:
    """An oracle: a model that answers questions about vectors injected into it."""

    kind: str = "self"
    """``self`` (a full fine-tune of a copy of the run's own backbone), ``lora`` (adapters on that copy), ``separate`` (another
    model, given by ``model=``) or ``head`` (a small decoder on the vector, no language model)."""
    inject_at: list[int] = field(default_factory=lambda: [0])
    """Where vectors are added: 0 at the input embeddings, n after block n."""
    read_layers: list[Any] = field(default_factory=lambda: [0])
    """Layers that are read, as in a thought store: 0 the thought itself, n after block n, fractions of the depth."""
    thoughts: str = "one"
    """What questions about a step are given: its ``one`` thought, or ``all`` thoughts of the problem and the step's number."""
    scale: float = 4.0
    """``h' = h + scale * |h| * v / |v|`` at a placeholder; no gradient flows through ``|h|``."""
    adapter: str = "raw"
    """What a vector passes through first: nothing (``raw``), less the mean training thought (``centred``), that and decorrelated
    (``whitened``), or a ``learned`` affine map, which starts as the identity where the widths agree."""
    decoder: str = "autoregressive"
    """Of a ``head``: ``autoregressive`` or ``linear``."""
    rank: int = 16
    """Of ``lora``: width of the thin matrices."""
    alpha: float = 32.0
    """Of ``lora``: their product is scaled by ``alpha / rank``."""
    tasks: dict[str, float] = field(
        default_factory=lambda: {"step": 6.0, "field": 2.0, "answer": 0.5, "problem": 0.5, "yes_no": 1.0, "foretell": 0.0}
    )
    """How often each kind of question is asked, relative to each other. ``foretell`` asks all thoughts about the run's own answer
    before it is written: whether it is wrong, and whether a digit stands at a place of it."""
    none_share: float = 0.1
    """Share of questions asked without a vector, so that the oracle knows how often each answer is right by itself."""
    text_only_share: float = 0.05
    """Share of questions asked without a vector but with the problem's text: what re-deriving could reach."""
    text_share: float = 0.05
    """Share of plain training text of the run (question, chain, answer), against forgetting."""
    train_problems: int = 4000
    """Training problems whose thoughts are collected, at most."""
    valid_problems: int = 512
    """Validation problems that are read, at most."""

    def __post_init__(self) -> None:
        for name, allowed in (("kind", KINDS), ("adapter", ADAPTERS), ("thoughts", GIVEN), ("decoder", HEADS)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}={getattr(self, name)}: allowed are {', '.join(allowed)}")
        if odd := sorted(set(self.tasks) - set(TASKS)):
            raise ValueError(f"tasks={self.tasks}: there is no task {odd[0]}; allowed are {', '.join(TASKS)}")
        if any(weight < 0 for weight in self.tasks.values()) or not self.tasks.get("step"):
            raise ValueError(f"tasks={self.tasks}: allowed are weights of 0 and more, and more than 0 for step")
        for name in ("none_share", "text_only_share", "text_share"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: allowed are 0 to below 1")
        if self.none_share + self.text_only_share + self.text_share >= 1:
            raise ValueError(f"text_share={self.text_share}: with none_share and text_only_share it must stay below 1")
        if not self.scale > 0:
            raise ValueError(f"scale={self.scale}: allowed are numbers above 0")
        for name in ("rank", "train_problems", "valid_problems"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: allowed are 1 and more")
        if not self.read_layers or not self.inject_at or min(self.inject_at) < 0:
            raise ValueError(f"inject_at={self.inject_at}: give one layer or more, 0 and up; the same for read_layers")
