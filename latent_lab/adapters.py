"""Parameter-efficient training: LoRA, the rows of markers and other new tokens, virtual tokens. All that knows PEFT.

A checkpoint is the merged model, a normal Hugging Face folder; the adapter lies in it as ``adapter/``. Virtual tokens cannot be
merged: they are put before the model again when the checkpoint is loaded.
"""

import copy
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latent_lab.backbone import Backbone, ModelError, no_bars
from latent_lab.files import write_json

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

ADAPTER = "adapter"
PRESETS = ("attention", "mlp", "all-linear")
ATTENTION = ("attn", "attention")
"""What the names of attention modules hold; every other matrix of a block belongs to its feed-forward part."""


@dataclass
class LoRA:
    """Low-rank adapters (arXiv 2106.09685): the model stays as it is, beside each chosen matrix two thin ones are trained."""

    rank: int = 16
    """Width of the thin matrices."""
    alpha: float = 32.0
    """Their product is scaled by ``alpha / rank``."""
    dropout: float = 0.0
    """Dropout before them."""
    targets: Any = "all-linear"
    """Which matrices: ``attention``, ``mlp``, ``all-linear`` (both), or names of modules, as in ``[q_proj,v_proj]``."""
    rows: bool = True
    """Train the rows of new tokens (markers, planning tokens) beside them; false: these stay as they begin."""

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"rank={self.rank}: allowed are 1 and more")
        if not self.alpha > 0:
            raise ValueError(f"alpha={self.alpha}: allowed are numbers above 0")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout={self.dropout}: allowed are 0 to below 1")
        names = self.targets.split(",") if isinstance(self.targets, str) else self.targets
        if not isinstance(names, list) or not names or not all(isinstance(name, str) and name.strip() for name in names):
            raise ValueError(f"targets={self.targets}: allowed are {', '.join(PRESETS)}, or names as in [q_proj,v_proj]")


@dataclass
class Rows:
    """The rows of new tokens alone, in both tables: what such tokens can say to a model that stays as it is."""


@dataclass
class Prompt:
    """Prompt tuning (arXiv 2104.08691): the embeddings of virtual tokens before every sequence; the model stays as it is."""

    num_tokens: int = 16
    """Virtual tokens."""
    text: str = "Solve the problem step by step."
    """What they begin as: this text, over and over until it is long enough."""

    def __post_init__(self) -> None:
        if self.num_tokens < 1:
            raise ValueError(f"num_tokens={self.num_tokens}: allowed are 1 and more")
        if not self.text.strip():
            raise ValueError("text='': give a text that the virtual tokens can begin as")


@dataclass
class Prefix(Prompt):
    """Prefix tuning (arXiv 2101.00190): the keys and values of virtual tokens in every layer, beginning as those of the text.

    Differs from paper: what is trained are keys and values themselves, without a network that makes them.
    """


@dataclass
class Adapted(Backbone):
    """A backbone with adapters; ``model`` is PEFT's."""

    def save(self, folder: Path) -> None:
        """Write the merged model and the tokenizer as a normal Hugging Face folder, and the adapter below it."""
        model: Any = self.model
        with no_bars():
            merged(model.get_base_model()).save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)
            model.save_pretrained(folder / ADAPTER, save_embedding_layers=False)
        file = folder / ADAPTER / "adapter_config.json"  # PEFT writes sets, in the order this process happens to have
        settings = json.loads(file.read_text(encoding="utf-8"))
        if "target_modules" in settings:
            settings["target_modules"] = sorted(settings["target_modules"] or [])
        if Path(settings["base_model_name_or_path"] or ".").exists():  # a folder of this machine means nothing elsewhere
            settings["base_model_name_or_path"] = None
        write_json(file, settings)
        (folder / ADAPTER / "README.md").unlink()  # PEFT's form to fill in; the model's own card lies above


@contextmanager
def quietly() -> Iterator[None]:
    """Leave out what PEFT is warned of: it asks transformers for a property by its old name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def wrap(backbone: Backbone, peft: Any, start: Path | None = None) -> Backbone:
    """Give a backbone the adapters that ``peft`` asks for, and make new tokens' rows, in every table, trainable beside them.

    Anything but the classes above returns the backbone as it is. Virtual tokens learned in the checkpoint ``start`` are learned
    further. Raises :class:`ModelError` for targets that the model does not have, and where virtual tokens would be lost.
    """
    if isinstance(peft, Prompt) or (start is not None and virtual_in(start)):
        return with_virtual(backbone, peft, start)
    if not isinstance(peft, LoRA | Rows):
        return backbone
    from peft import LoraConfig, TrainableTokensConfig, get_peft_model
    from transformers.pytorch_utils import Conv1D

    model = backbone.model
    if getattr(model.get_output_embeddings(), "bias", None) is not None and getattr(peft, "rows", True):
        kind, given = type(model).__name__, type(peft).__name__.lower()
        raise ModelError(f"peft: given {given}; the output table of {kind} has a bias, which PEFT would drop; allowed: none")
    rows = sorted({*astuple(backbone.tokens), *backbone.more})
    tables = {id(table): table for table in (model.get_input_embeddings(), model.get_output_embeddings())}
    if model.config.tie_word_embeddings:  # PEFT then trains one set of rows for both
        tables.pop(id(model.get_output_embeddings()))
    names = [name for name, module in model.named_modules() if id(module) in tables]
    config: Any
    if isinstance(peft, Rows):
        config = TrainableTokensConfig(task_type="CAUSAL_LM", token_indices=rows, target_modules=names)
    else:
        config = LoraConfig(
            task_type="CAUSAL_LM",
            r=peft.rank,
            lora_alpha=peft.alpha,
            lora_dropout=peft.dropout,
            target_modules=targets(model, peft.targets),
            fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
            trainable_token_indices=dict.fromkeys(names, rows) if peft.rows else None,
        )
    with quietly():
        return Adapted(get_peft_model(model, config), backbone.tokenizer, backbone.tokens, backbone.more)


VIRTUAL: dict[str, type[Prompt]] = {"PROMPT_TUNING": Prompt, "PREFIX_TUNING": Prefix}
"""Kinds of virtual tokens by PEFT's names for them."""


def virtual_in(folder: Path) -> tuple[type[Prompt], int] | None:
    """The kind and number of the virtual tokens that a checkpoint holds; None where it holds none."""
    file = folder / ADAPTER / "adapter_config.json"
    settings = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    kind = VIRTUAL.get(settings.get("peft_type", ""))
    return (kind, settings["num_virtual_tokens"]) if kind else None


def attached(backbone: Backbone, folder: Path) -> Backbone:
    """A backbone read from a checkpoint with the virtual tokens that lie there; itself where there are none."""
    if not virtual_in(folder):
        return backbone
    from peft import PeftModel

    with no_bars(), quietly():
        model = PeftModel.from_pretrained(backbone.model, str(folder / ADAPTER))
    return Adapted(model, backbone.tokenizer, backbone.tokens, backbone.more)


def with_virtual(backbone: Backbone, peft: Any, start: Path | None) -> Backbone:
    """A backbone with virtual tokens to be trained, which begin as a text or, where ``start`` holds some, as those."""
    held = virtual_in(start) if start else None
    if held and (type(peft), getattr(peft, "num_tokens", 0)) != held:
        kind, count = held
        given = type(peft).__name__.lower() if isinstance(peft, LoRA | Rows | Prompt) else "none"
        raise ModelError(
            f"peft: given {given}; {start} has {count} virtual tokens that would be lost; allowed: "
            f"peft={kind.__name__.lower()} peft.num_tokens={count}"
        )
    import torch
    from peft import PrefixTuningConfig, PromptTuningConfig, get_peft_model, initialize_kv_prefix_from_text
    from safetensors.torch import load_file

    is_prefix = isinstance(peft, Prefix)
    config = (PrefixTuningConfig if is_prefix else PromptTuningConfig)(task_type="CAUSAL_LM", num_virtual_tokens=peft.num_tokens)
    with quietly():
        model: Any = get_peft_model(backbone.model.eval(), config)
    weight = model.prompt_encoder[model.active_adapter].embedding.weight
    read = backbone.tokenizer([peft.text], add_special_tokens=False, split_special_tokens=True)["input_ids"][0]
    ids = torch.tensor([(read * peft.num_tokens)[: peft.num_tokens]])
    with torch.no_grad():
        if start and held:
            weight.copy_(load_file(start / ADAPTER / "adapter_model.safetensors")["prompt_embeddings"])
        elif is_prefix:
            initialize_kv_prefix_from_text(model, lambda *_, **__: {"input_ids": ids}, text=peft.text, use_chat_template=False)
        else:
            weight.copy_(backbone.model.get_input_embeddings()(ids[0].to(backbone.model.device)))
    return Adapted(model, backbone.tokenizer, backbone.tokens, backbone.more)


def row_gradients(backbone: Backbone) -> dict[str, dict[int, float]]:
    """For each table that learns rows, the length of the gradient that has reached each of them; tied tables are one."""
    model: Any = backbone.model
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    found: dict[int, tuple[str, dict[int, float]]] = {}
    for name, table in (("input", base.get_input_embeddings()), ("output", base.get_output_embeddings())):
        adapter = getattr(table, "token_adapter", table)
        if hasattr(adapter, "trainable_tokens_delta"):
            ((key, learned),) = adapter.trainable_tokens_delta.items()
            ids = adapter.token_indices[key]
        else:
            learned, ids = table.weight, range(len(table.weight))
        if learned.requires_grad:
            norms = learned.grad.norm(dim=1).tolist() if learned.grad is not None else [0.0] * len(learned)
            found.setdefault(id(learned), (name, dict(zip(ids, norms, strict=True))))
    return dict(found.values())


def targets(model: "PreTrainedModel", asked: str | list[str]) -> str | list[str]:
    """What ``LoRA.targets`` stands for in a model: PEFT's own ``all-linear``, or ends of names such as ``attn.c_proj``."""
    matrices = block_matrices(model)
    names = [name.strip() for name in (asked.split(",") if isinstance(asked, str) else asked)]
    if names == ["all-linear"]:
        return "all-linear"
    of = {
        "attention": {name for name in matrices if any(part in name.partition(".")[0] for part in ATTENTION)},
        "all-linear": matrices,
    }
    of["mlp"] = matrices - of["attention"]
    found: set[str] = set()
    for name in names:
        chosen = of.get(name, {matrix for matrix in matrices if f".{matrix}".endswith(f".{name}")})
        if not chosen:
            known = sorted({matrix.rpartition(".")[2] for matrix in matrices})
            raise ModelError(
                f"peft.targets: given {name}; {type(model).__name__} has no such matrix; allowed: {', '.join(PRESETS)}, or names "
                f"among {', '.join(known)}"
            )
        found |= chosen
    return sorted(found)


def block_matrices(model: "PreTrainedModel") -> set[str]:
    """Names, within a block of the model, of the linear maps that blocks consist of."""
    from torch import nn
    from transformers.modeling_layers import GradientCheckpointingLayer
    from transformers.pytorch_utils import Conv1D

    blocks = (module for module in model.modules() if isinstance(module, GradientCheckpointingLayer))
    return {name for block in blocks for name, part in block.named_modules() if isinstance(part, nn.Linear | Conv1D)}


def merged(model: "PreTrainedModel") -> "PreTrainedModel":
    """A plain model of the same class with the adapters added to its weights, for saving; the model itself is not touched.

    Quantised matrices are dequantised, so what is saved computes what was trained.
    """
    import torch
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    config = copy.deepcopy(model.config)
    dtype = model.get_input_embeddings().weight.dtype
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    with torch.device("meta"):  # shapes and names alone
        plain: Any = type(model)(config).to(dtype)
    state = {}
    for key in plain.state_dict():
        path, _, name = key.rpartition(".")
        module = model.get_submodule(path)
        tensor = plain_tensor(module, name).to(dtype)
        is_turned = isinstance(plain.get_submodule(path), Conv1D) and isinstance(getattr(module, "base_layer", module), nn.Linear)
        state[key] = tensor.T.contiguous() if is_turned and name == "weight" else tensor  # quantising GPT-2 turns its matrices
    plain.load_state_dict(state, assign=True)
    plain.tie_weights()
    plain.generation_config = model.generation_config
    return plain


def plain_tensor(module: Any, name: str) -> "Tensor":
    """A tensor of a module as it would be without adapters and quantisation."""
    from peft.tuners.lora import LoraLayer
    from peft.tuners.trainable_tokens import TrainableTokensLayer
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.integrations import dequantize_module_weight
    from peft.utils.other import TrainableTokensWrapper

    if name == "weight" and isinstance(module, TrainableTokensWrapper | TrainableTokensLayer):
        adapter = getattr(module, "token_adapter", module)
        return adapter.get_merged_weights(adapter.active_adapters).detach()
    base = module.get_base_layer() if isinstance(module, BaseTunerLayer) else module
    if name != "weight":
        return getattr(base, name).detach()  # the very parameter would be made trainable by the plain model that takes it
    held = base.weight
    weight = dequantize_module_weight(base).detach()
    base.weight = held  # on a CPU, PEFT puts a copy there that has lost its scales
    if isinstance(module, LoraLayer):
        weight = weight + sum(module.get_delta_weight(adapter).detach() for adapter in module.active_adapters)
    return weight
