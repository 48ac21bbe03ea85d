"""Virtual tokens: what PEFT learns to put before every sequence, embeddings (prompt tuning) or keys and values (prefix tuning).

They fill the first columns of a run's first pass, in every row. Shape suffixes: B batch, W columns of one pass, D width.
"""

from typing import Any

import torch
from torch import Tensor, nn


def num_virtual(model: Any) -> int:
    """How many stand before every sequence of a model; 0 without PEFT, and with adapters of other kinds."""
    config: Any = getattr(model, "active_peft_config", None)
    return int(config.num_virtual_tokens) if getattr(config, "is_prompt_learning", False) else 0


def begun(model: Any, embeds_BWD: Tensor, cache: Any) -> Tensor:
    """A first pass with its virtual tokens put in.

    Learned embeddings take the place of its first columns. Learned keys and values go into the empty ``cache``, and these columns
    are left out: nothing is to be run there.
    """
    given, count = model.get_prompt(len(embeds_BWD)), num_virtual(model)
    if isinstance(given, Tensor):
        return torch.cat([given.to(embeds_BWD.dtype), embeds_BWD[:, count:]], dim=1)
    for number, layer in enumerate(given.layers):
        cache.update(layer.keys, layer.values, number)
    return embeds_BWD[:, count:]


def widened(states_BWD: Tensor, count: int) -> Tensor:
    """The same with ``count`` columns of zeros before them, where nothing was run."""
    return nn.functional.pad(states_BWD, (0, 0, count, 0)) if count else states_BWD
