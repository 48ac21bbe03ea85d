"""A trained model on disk: a normal Hugging Face folder, plus what is needed to let it think as it was trained to."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from latent_lab.backbone import Backbone, ModelError, Pretrained
from latent_lab.files import write_json

if TYPE_CHECKING:
    from latent_lab.supervision import StepDecoder

INFO, DECODER = "latent.json", "step_decoder.safetensors"


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


def save(folder: Path, backbone: Backbone, info: Info, decoder: "StepDecoder | None") -> None:
    """Write everything into a folder."""
    from safetensors.torch import save_model

    backbone.save(folder)
    if decoder is not None:
        save_model(decoder, str(folder / DECODER))
    write_json(folder / INFO, asdict(info))


def load(folder: Path, dtype: str = "float32") -> tuple[Backbone, Info, "StepDecoder | None"]:
    """Read what :func:`save` wrote, or raise :class:`ModelError`."""
    if not (folder / INFO).exists():
        raise ModelError(f"{folder}: holds no {INFO}, so it is no checkpoint of a run; train it to its end first")
    backbone = Pretrained(path=str(folder), dtype=dtype).load()
    info = Info(**json.loads((folder / INFO).read_text(encoding="utf-8")))
    if info.decoder is None:
        return backbone, info, None
    from safetensors.torch import load_model

    from latent_lab.supervision import step_decoder

    config = backbone.model.config
    decoder = step_decoder(info.decoder, config.hidden_size, config.vocab_size, info.longest)
    load_model(decoder, str(folder / DECODER))
    return backbone, info, decoder


def most_frequent(answers: Sequence[str]) -> str | None:
    """The most frequent answer, of equals the first; None of none."""
    return Counter(answers).most_common(1)[0][0] if answers else None
