"""A trained model on disk: a normal Hugging Face folder, plus what is needed to let it think as it was trained to."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latent_lab.adapters import ADAPTER, attached, virtual_in
from latent_lab.backbone import Backbone, ModelError, Pretrained
from latent_lab.files import write_json
from latent_lab.problems import fingerprint

if TYPE_CHECKING:
    from torch import nn

    from latent_lab.reasoner import LatentReasoner
    from latent_lab.supervision import StepDecoder

INFO, DECODER, FEEDBACK = "latent.json", "step_decoder.safetensors", "feedback.safetensors"


@dataclass(frozen=True)
class Info:
    """How the model was trained to think."""

    stage: int
    """Stage of its last phase."""
    num_slots: int
    """Latent slots of a prompt."""
    max_new_tokens: int
    """Longest training target in tokens, and some room: where decoding is cut off."""
    majority: str | None
    """Most frequent answer of the training split."""
    decoder: str | None
    """Kind of the step decoder, None without one."""
    longest: int
    """Longest text of the step decoder in tokens."""
    loop: dict[str, Any] = field(default_factory=dict)
    """How slots are filled: the fields of :class:`latent_lab.loop.Loop`."""


def save(
    folder: Path, backbone: Backbone, info: Info, decoder: "StepDecoder | None", feedback: "nn.Module | None" = None
) -> None:
    """Write everything into a folder; ``feedback`` is what thoughts pass through, kept only if it has weights."""
    from safetensors.torch import save_model

    backbone.save(folder)
    if feedback is not None and any(True for _ in feedback.parameters()):
        save_model(feedback, str(folder / FEEDBACK))
    if decoder is not None:
        save_model(decoder, str(folder / DECODER))
    write_json(folder / INFO, asdict(info))


def load(folder: Path, dtype: str = "float32") -> tuple[Backbone, Info, "StepDecoder | None"]:
    """Read what :func:`save` wrote, or raise :class:`ModelError`."""
    if not (folder / INFO).exists():
        raise ModelError(f"{folder}: holds no {INFO}, so it is no checkpoint of a run; train it to its end first")
    backbone = attached(Pretrained(path=str(folder), dtype=dtype).load(), folder)
    info = Info(**json.loads((folder / INFO).read_text(encoding="utf-8")))
    if info.decoder is None:
        return backbone, info, None
    from safetensors.torch import load_model

    from latent_lab.supervision import step_decoder

    config = backbone.model.config
    decoder = step_decoder(info.decoder, config.hidden_size, config.vocab_size, info.longest)
    load_model(decoder, str(folder / DECODER))
    return backbone, info, decoder


def weights_hash(folder: Path) -> str:
    """A short hash of the weights that a checkpoint answers with, virtual tokens among them."""
    files = [folder / "model.safetensors", *([folder / ADAPTER / "adapter_model.safetensors"] if virtual_in(folder) else [])]
    return "-".join(map(fingerprint, files))


def thinking(folder: Path, backbone: Backbone, info: Info) -> "LatentReasoner":
    """The reasoner over a loaded backbone, its slots filled as they were in training."""
    from latent_lab.loop import Loop
    from latent_lab.reasoner import LatentReasoner

    reasoner = LatentReasoner(backbone.model, backbone.tokens, Loop.stored(info.loop))
    if reasoner.loop.projection != "none":
        load_feedback(folder, reasoner)
    return reasoner


def load_feedback(folder: Path, reasoner: "LatentReasoner") -> None:
    """Give a reasoner the projection of its thoughts that lies in a folder, or raise :class:`ModelError`."""
    from safetensors.torch import load_model

    try:
        load_model(reasoner.feedback, str(folder / FEEDBACK))
    except (RuntimeError, FileNotFoundError) as error:
        given = f"stage.projection={reasoner.loop.projection}"
        raise ModelError(f"{folder / FEEDBACK} does not fit {given}: start from a run with the same projection") from error


def most_frequent(answers: Sequence[str]) -> str | None:
    """The most frequent answer, of equals the first; None of none."""
    return Counter(answers).most_common(1)[0][0] if answers else None
