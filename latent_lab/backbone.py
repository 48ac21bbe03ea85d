"""Backbones: load or create a causal language model with its tokenizer, and teach both the three latent markers.

``model=nano`` is created from scratch with a digit-level tokenizer; everything else is a Hugging Face model, from the hub
or from a local folder.
"""

import itertools
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latent_lab.problems import Problem
from latent_lab.run import device_at_work
from latent_lab.sequences import ANSWER_NODE, ANSWER_PREFIX, LatentTokens
from latent_lab.symbols import SYMBOLS, symbol_tokenizer
from latent_lab.weights import SUFFIXES, ModelError, take_state

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

END_OF_TEXT = "<|endoftext|>"
MARKERS = ("<|start-latent|>", "<|latent|>", "<|end-latent|>")
ARCHITECTURES = ("gpt2", "llama")
TOKENIZERS = ("digits", "words", "phrases", "halves", "symbols")
DTYPES = ("float32", "bfloat16", "float16")
QUANTIZED = ("none", "8bit", "4bit")

PIECES = {
    "digits": r"\d| ?\p{L}+ ?| ?[^\s\p{L}\d]+ ?|\s",
    "words": r"\d| ?\p{L}+| ?[^\s\p{L}\d]+|\s",
    "phrases": r"\d| ?\p{L}+(?: (?:is|are)(?: not)?(?: an?)?(?= ))?| ?[^\s\p{L}\d]+|\s",
    "halves": r"\d| ?\p{L}+ (?:is|are)(?= )| ?(?:not )?(?:an? )?\p{L}+| ?[^\s\p{L}\d]+|\s",
}
"""What a tokenizer made from problems never joins across: single digits; words and signs with the blanks around them, or with
the one before them alone, so that a name is the same token wherever it stands; a subject with its verb, ``rempus is a``, so
that what is said of it comes next; or the two halves of a sentence, ``rempus is`` and ``not large``, so that it is one token."""

LINE_START = r"(?<![^\n])(?=[\p{L} ])"
"""Where all but ``digits`` have a blank more than the text, so that the first word of a line is the token it is inside one; a
line that begins with a blank has two, hence nothing is lost."""

MOST_PROBLEMS_READ = 20_000
"""Problems the digit-level tokenizer is learned from, at most: more would cost seconds and change little."""

__all__ = ["Backbone", "ModelError", "Pretrained", "Scratch", "continued"]


@dataclass
class Backbone:
    """A causal language model, its tokenizer, and the ids of the markers."""

    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    tokens: LatentTokens
    more: tuple[int, ...] = ()
    """Ids of further tokens that a stage brought along; where only a part of the model is trained, they are like the markers."""

    @property
    def pad(self) -> int:
        """Id to pad with (always under a mask)."""
        pad = self.tokenizer.pad_token_id
        return self.tokenizer.eos_token_id if pad is None else pad

    @property
    def num_virtual(self) -> int:
        """Virtual tokens that stand before every sequence."""
        from latent_lab.virtual import num_virtual

        return num_virtual(self.model)

    @property
    def room(self) -> int:
        """Positions the model has for a sequence."""
        return (getattr(self.model.config, "max_position_embeddings", None) or 10**9) - self.num_virtual

    def save(self, folder: Path) -> None:
        """Write model and tokenizer as a normal Hugging Face folder (safetensors)."""
        with no_bars():
            self.model.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)


@dataclass
class Scratch:
    """A small model created from scratch; its tokenizer is made from the training problems."""

    architecture: str = "gpt2"
    """``gpt2``; or ``llama``: rotary positions, which find the token before wherever it is, and gated feed-forward parts."""
    layers: int = 4
    """Transformer blocks."""
    width: int = 128
    """Hidden size."""
    heads: int = 4
    """Attention heads."""
    positions: int = 1024
    """Longest sequence in tokens."""
    vocabulary: int = 4096
    """Most tokens in the vocabulary; only as many are made as the training problems need."""
    dropout: float = 0.0
    """Dropout everywhere."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass instead of keeping them: less memory, a third more time."""
    tokenizer: str = "digits"
    """``digits``: every digit is a token, frequent words are learned from the training problems, with the blanks around them;
    ``words``: with the blank before them alone, so that a name is one and the same token as subject, object and in the question;
    ``symbols``: the fixed vocabulary of graph problems (:mod:`latent_lab.symbols`)."""

    def __post_init__(self) -> None:
        for name, allowed in (("architecture", ARCHITECTURES), ("tokenizer", TOKENIZERS)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}={getattr(self, name)}: allowed are {', '.join(allowed)}")
        for name in ("layers", "width", "heads", "positions"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: allowed are 1 and more")
        if self.width % self.heads:
            raise ValueError(f"width={self.width}: it must be a multiple of heads={self.heads}")
        if self.vocabulary < 300:
            raise ValueError(f"vocabulary={self.vocabulary}: allowed are 300 and more (256 are the single bytes)")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout={self.dropout}: allowed are 0 to below 1")

    def load(self, problems: Iterable[Problem]) -> Backbone:
        """Make the tokenizer from ``problems`` (the training split) and a model with random weights (torch's current seed)."""
        if self.tokenizer == "symbols":
            tokenizer = symbol_tokenizer()
        else:
            tokenizer = digit_tokenizer(problems, self.vocabulary, self.tokenizer)
        model = self._gpt2(tokenizer) if self.architecture == "gpt2" else self._llama(tokenizer)
        if self.gradient_checkpointing:
            recompute(model)
        return Backbone(model, tokenizer, marker_ids(tokenizer))

    def _gpt2(self, tokenizer: "PreTrainedTokenizerBase") -> "PreTrainedModel":
        from transformers import GPT2Config, GPT2LMHeadModel

        config = GPT2Config(
            vocab_size=len(tokenizer),
            n_positions=self.positions,
            n_layer=self.layers,
            n_embd=self.width,
            n_head=self.heads,
            resid_pdrop=self.dropout,
            embd_pdrop=self.dropout,
            attn_pdrop=self.dropout,
            activation_function="gelu_pytorch_tanh",  # the same function as gelu_new, in one fused kernel
            bos_token_id=tokenizer.eos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.eos_token_id,
        )
        return GPT2LMHeadModel(config)

    def _llama(self, tokenizer: "PreTrainedTokenizerBase") -> "PreTrainedModel":
        from transformers import LlamaConfig, LlamaForCausalLM

        config = LlamaConfig(
            vocab_size=len(tokenizer),
            max_position_embeddings=self.positions,
            num_hidden_layers=self.layers,
            hidden_size=self.width,
            intermediate_size=self.width * 8 // 3,  # three matrices with as many weights as GPT-2's two
            num_attention_heads=self.heads,
            num_key_value_heads=self.heads,
            attention_dropout=self.dropout,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.eos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.eos_token_id,
        )
        return LlamaForCausalLM(config)


@dataclass
class Pretrained:
    """A Hugging Face causal language model, from the hub or from a local folder."""

    path: str = ""
    """A folder, or a name on the hub (``openai-community/gpt2``)."""
    revision: str | None = None
    """Branch, tag or commit on the hub."""
    dtype: str = "float32"
    """Type of the weights; said explicitly, because a checkpoint's own type may not be fit for training."""
    like: str = "<<"
    """New tokens start as copies of this text's embedding (the mean, where it is several tokens)."""
    state: str | None = None
    """Weights to take in place of the model's own: a ``.pt`` or ``.safetensors`` state dict, as published Coconut code writes."""
    quantize: str = "none"
    """Keep the matrices of the blocks in ``8bit`` or ``4bit`` (bitsandbytes); trained with ``peft=lora``. On a CPU this saves
    memory, not time."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass instead of keeping them: less memory, a third more time."""

    def __post_init__(self) -> None:
        if not self.path:
            raise ValueError("path='': give a folder or a name on the hub, for example model=folder model.path=my-model")
        if not self.like:
            raise ValueError("like='': give a text the model knows, such as <<")
        for name, allowed in (("dtype", DTYPES), ("quantize", QUANTIZED)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}={getattr(self, name)}: allowed are {', '.join(allowed)}")
        if self.state is not None and not self.state.endswith(SUFFIXES):
            raise ValueError(f"state={self.state}: allowed are files that end in {', '.join(SUFFIXES)}")
        if self.state is not None and self.quantize != "none":
            raise ValueError(f"quantize={self.quantize}: quantised matrices take no state; allowed with state is none")

    def load(self, problems: Iterable[Problem] = ()) -> Backbone:
        """Load model and tokenizer and add the markers they lack. Raises :class:`ModelError` where there is no such model."""
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        options = {"revision": self.revision, "dtype": getattr(torch, self.dtype), **self._quantization()}
        try:
            with no_bars() if Path(self.path).is_dir() else nullcontext():
                tokenizer = AutoTokenizer.from_pretrained(self.path, revision=self.revision)
                model = AutoModelForCausalLM.from_pretrained(self.path, **options)
        except (OSError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ModelError(
                f"model.path: given {self.path!r}; allowed: a folder with config.json, weights and tokenizer, or a name on "
                f"the hub that can be reached from here ({reason})"
            ) from error
        if tokenizer.eos_token_id is None:
            raise ModelError(f"model.path: the tokenizer of {self.path!r} has no end-of-text token, so answers could not stop")
        from latent_lab.recompute import check_cache

        check_cache(model)
        keep_layout(model)
        if self.state is not None:
            take_state(model, tokenizer, Path(self.state).expanduser())
        add_markers(model, tokenizer, self.like)
        if self.gradient_checkpointing:
            recompute(model)
        return Backbone(model, tokenizer, marker_ids(tokenizer))

    def _quantization(self) -> dict[str, Any]:
        """What ``from_pretrained`` must be told; matrices are dequantised to ``dtype`` where they are multiplied."""
        if self.quantize == "none":
            return {}
        if find_spec("bitsandbytes") is None:
            raise ModelError(
                f"model.quantize: given {self.quantize}; it takes bitsandbytes, which is not installed: "
                "pip install 'latent_lab[quantize]'; allowed here: none"
            )
        import torch
        from transformers import BitsAndBytesConfig

        if self.quantize == "8bit":
            config = BitsAndBytesConfig(load_in_8bit=True)
        else:  # as QLoRA (arXiv 2305.14314) has it
            config = BitsAndBytesConfig(
                load_in_4bit=True,
                bnb_4bit_quant_type="nf4",
                bnb_4bit_use_double_quant=True,
                bnb_4bit_compute_dtype=getattr(torch, self.dtype),
            )
        return {"quantization_config": config, "device_map": {"": device_at_work()}}


def continued(model: Any, folder: Path) -> Backbone:
    """Load a checkpoint's folder with the settings that ``model``, the chosen backbone, has for memory and precision.

    Quantised matrices are rounded again, and with them what was learned beside them.
    """
    names = ("dtype", "quantize", "gradient_checkpointing")
    return Pretrained(path=str(folder), **{name: getattr(model, name) for name in names if hasattr(model, name)}).load()


def keep_layout(model: "PreTrainedModel") -> None:
    """Keep bitsandbytes from packing 4-bit matrices anew for a CPU that multiplies in bfloat16.

    It does so where a batch needs no gradients, and through such a product none come back: after the first validation, training
    would go on with wrong ones.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def recompute(model: "PreTrainedModel") -> None:
    """Switch gradient checkpointing on (see :mod:`latent_lab.recompute`, which needs torch)."""
    from latent_lab.recompute import recompute_in_backward

    recompute_in_backward(model)


@contextmanager
def no_bars() -> Iterator[None]:
    """Keep the library from drawing progress bars over what takes no time: reading and writing local files."""
    from transformers.utils import logging

    was_on = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_on:
            logging.enable_progress_bar()


def marker_ids(tokenizer: "PreTrainedTokenizerBase") -> LatentTokens:
    """Look the three markers up. Where problems are written in symbols, thinking ends with ``[A]``, which asks for the answer."""
    start, latent, end = MARKERS
    is_symbolic = tokenizer.get_vocab().keys() == set(SYMBOLS)
    end = ANSWER_NODE if is_symbolic else end
    return LatentTokens(*(tokenizer.convert_tokens_to_ids(m) for m in (start, latent, end)))


def add_markers(model: Any, tokenizer: Any, like: str) -> None:
    """Add the markers a tokenizer lacks and start their embeddings, input and output alike, as copies of ``like``.

    Coconut's official code copies the row of ``<<``.
    """
    import torch

    pieces = tokenizer(like, add_special_tokens=False)["input_ids"]
    rows = add_rows(model, tokenizer, [m for m in MARKERS if m not in tokenizer.get_vocab()])
    tables = {id(t.weight): t for t in (model.get_input_embeddings(), model.get_output_embeddings())}  # one table when tied
    with torch.no_grad():
        for table in tables.values():
            table.weight[rows] = table.weight[pieces].mean(dim=0)


def add_rows(model: Any, tokenizer: Any, new: list[str]) -> list[int]:
    """Add tokens that a tokenizer lacks, and rows where the tables have none left for them; returns their ids.

    Rows are only ever added: many checkpoints have more rows than their tokenizer has tokens, and those stay.
    """
    if not new:
        return []
    tokenizer.add_special_tokens({"additional_special_tokens": new}, replace_extra_special_tokens=False)
    if len(tokenizer) > model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    ids: list[int] = tokenizer.convert_tokens_to_ids(new)
    return ids


def digit_tokenizer(problems: Iterable[Problem], vocabulary: int, kind: str = "digits") -> "PreTrainedTokenizerBase":
    """Make a tokenizer in which every digit is a token, and frequent words are whole tokens with the blanks around them.

    Byte-pair merges learned from the problems' text inside the pieces of ``kind`` (see ``PIECES``); anything else falls back to
    bytes, so any text survives encoding and decoding unchanged.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    split = pre_tokenizers.Split(Regex(PIECES[kind]), behavior="isolated")
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = split
    parts: list[Any] = [decoders.ByteFallback(), decoders.Fuse()]
    if kind != "digits":
        learner.normalizer = normalizers.Replace(Regex(LINE_START), " ")
        parts += [decoders.Replace("\n ", "\n"), decoders.Strip(" ", 1, 0)]
    special = [END_OF_TEXT, *MARKERS]
    raw_bytes = [f"<0x{b:02X}>" for b in range(256)]
    size = vocabulary - len(special) - len(raw_bytes)
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=[*"0123456789\n"], show_progress=False)
    some = list(itertools.islice(problems, MOST_PROBLEMS_READ))
    texts = (
        {p.question + "\n": 0 for p in some}
        | {s + "\n": 0 for p in some for s in p.steps}
        | {ANSWER_PREFIX + p.answer: 0 for p in some}
    )
    learner.train_from_iterator(texts, trainer)
    learned = json.loads(learner.to_str())["model"]
    tokens = [*special, *raw_bytes, *sorted(learned["vocab"], key=learned["vocab"].__getitem__)]

    vocab = {token: i for i, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab, [tuple(m) for m in learned["merges"]], byte_fallback=True))
    tokenizer.pre_tokenizer = split
    if learner.normalizer is not None:
        tokenizer.normalizer = learner.normalizer
    tokenizer.decoder = decoders.Sequence(parts)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        additional_special_tokens=list(MARKERS),
        clean_up_tokenization_spaces=False,
    )
