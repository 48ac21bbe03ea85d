"""An oracle: a language model trained to answer questions about vectors that are injected into it.

After activation oracles (arXiv 2512.15674) and cocoracle's self-oracle. A vector is added at a placeholder, an ordinary token, in
the pass over the prompt alone; the answer is decoded as ever.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from latent_lab.backbone import Backbone, ModelError, Pretrained
from latent_lab.files import write_json
from latent_lab.grading.evaluate import evenly
from latent_lab.sequences import IGNORE
from latent_lab.supervision import StepDecoder, step_decoder
from latent_lab.thoughts.injection import Adapter, Places, injected
from latent_lab.thoughts.oracle_options import OracleOptions
from latent_lab.thoughts.oracle_scoring import log_probabilities
from latent_lab.thoughts.questions import Ids, Question, Writer

INFO, WEIGHTS = "oracle.json", "oracle.safetensors"


@dataclass(frozen=True)
class Reading:
    """What an oracle said."""

    text: str
    confidence: float
    """Probability that it gave to this answer, token by token to its end."""
    stopped: bool
    """Whether it ended by itself."""


@dataclass(frozen=True)
class Asked:
    """One row: a prompt, the vectors its placeholders stand for (none: nothing is injected), and what is to follow."""

    prompt: Ids
    columns: Sequence[int]
    vectors: Tensor | None
    target: Ids = ()
    labels: Ids | None = None
    """Default: the whole target and nothing else. Plain text says for itself what is learned."""
    question: Question | str = ""


@dataclass
class OracleBatch:
    """Rows as tensors, padded on the left."""

    input_ids: Tensor
    attention_mask: Tensor
    position_ids: Tensor
    labels: Tensor
    """``[batch, length]``, unshifted, -100 where nothing is to be predicted."""
    rows: Tensor
    columns: Tensor
    vectors: Tensor
    """``[m, width]``: vectors for ``(rows, columns)``."""
    asked: list[Asked]
    rest: "OracleBatch | None" = None
    """Much longer rows of the same optimiser step, which would only pad the others."""

    def to(self, device: torch.device) -> "OracleBatch":
        """The same batch on a device."""
        moved: dict[str, Any] = {
            f.name: value.to(device) if isinstance(value := getattr(self, f.name), Tensor | OracleBatch) else value
            for f in fields(self)
        }
        return OracleBatch(**moved)

    @property
    def num_labels(self) -> int:
        """Labelled tokens."""
        return int((self.labels != IGNORE).sum()) + (self.rest.num_labels if self.rest else 0)


def lay_apart(asked: Sequence[Asked], pad: int, width: int) -> OracleBatch:
    """Lay rows out as :func:`lay` does, those more than half as long again as the median row in a batch of their own."""
    lengths = [len(row.prompt) + len(row.target) for row in asked]
    most = 1.5 * sorted(lengths)[len(lengths) // 2]
    short, long = ([row for row, n in zip(asked, lengths, strict=True) if (n > most) is is_long] for is_long in (False, True))
    return replace(lay(short, pad, width), rest=lay(long, pad, width) if long else None)


def lay(asked: Sequence[Asked], pad: int, width: int) -> OracleBatch:
    """Lay rows out as a batch; ``width`` is that of the vectors."""
    whole = [(*row.prompt, *row.target) for row in asked]
    length = max(map(len, whole))
    ids, mask, labels = [], [], []
    rows, columns, vectors = [], [], []
    for i, (row, tokens) in enumerate(zip(asked, whole, strict=True)):
        shift = length - len(tokens)
        ids.append([pad] * shift + list(tokens))
        mask.append([0] * shift + [1] * len(tokens))
        labels.append([IGNORE] * shift + list(row.labels or ((IGNORE,) * len(row.prompt) + row.target)))
        if row.vectors is not None:
            rows += [i] * len(row.columns)
            columns += [shift + column for column in row.columns]
            vectors.append(row.vectors)
    given = torch.cat(vectors) if vectors else torch.zeros(0, width)
    attention = torch.tensor(mask)
    positions = (attention.cumsum(1) - 1).clamp(min=0)
    at_rows, at_columns = (torch.tensor(each, dtype=torch.long) for each in (rows, columns))
    return OracleBatch(torch.tensor(ids), attention, positions, torch.tensor(labels), at_rows, at_columns, given, list(asked))


def different(asked: Sequence[Asked]) -> tuple[list[Asked], list[int]]:
    """The rows that differ, and for each row given the number of its like among them."""
    keys = [
        (row.prompt, kind_of(row.question), b"" if row.vectors is None else row.vectors.cpu().numpy().tobytes()) for row in asked
    ]
    place = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    first = dict(zip(reversed([place[key] for key in keys]), reversed(asked), strict=True))
    return [first[i] for i in range(len(place))], [place[key] for key in keys]


class Oracle(nn.Module):
    """A language model with an adapter for vectors; also the learner that the engine trains."""

    def __init__(self, backbone: Backbone, options: OracleOptions, width: int, num_slots: int, latents_per_step: int = 1) -> None:
        """``width`` and ``num_slots`` are those of the thoughts that are read."""
        super().__init__()
        self.weights = {"loss": 1.0}
        self.backbone, self.options = backbone, options
        self.width, self.num_slots, self.latents_per_step = width, num_slots, latents_per_step
        self.lm: Any = backbone.model
        self.adapter = Adapter(options.adapter, width, self.model.config.hidden_size)
        self.writer = Writer(backbone.tokenizer)
        self.batch_size = 512

    @property
    def model(self) -> Any:
        """The Hugging Face model, inside a PEFT wrapper if there is one."""
        return self.lm.get_base_model() if hasattr(self.lm, "get_base_model") else self.lm

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    # Training

    def forward(self, batch: OracleBatch) -> dict[str, Tensor]:
        """Cross-entropy summed over the labelled tokens."""
        return {"loss": sum((self._loss(part) for part in (batch, batch.rest) if part), torch.zeros((), device=self.device))}

    def _loss(self, batch: OracleBatch) -> Tensor:
        hidden = self._hidden(batch)
        targets = batch.labels[:, 1:]
        is_asked = targets != IGNORE
        logits = self.model.get_output_embeddings()(hidden[:, :-1][is_asked]).float()
        return nn.functional.cross_entropy(logits, targets[is_asked], reduction="sum")

    def counts(self, batch: OracleBatch) -> dict[str, int]:
        """Tokens the loss is over."""
        return {"loss": batch.num_labels}

    def _places(self, batch: OracleBatch) -> Places | None:
        if not len(batch.rows):
            return None
        return Places(batch.rows, batch.columns, self.adapter(batch.vectors), batch.input_ids.shape[1])

    def _hidden(self, batch: OracleBatch) -> Tensor:
        """``[batch, length, width]`` after the final norm."""
        with injected(self.model, self.options.inject_at, self._places(batch), self.options.scale):
            out = self.model.base_model(
                input_ids=batch.input_ids,
                attention_mask=batch.attention_mask,
                position_ids=batch.position_ids,
                use_cache=False,
            )
        hidden: Tensor = out.last_hidden_state
        return hidden

    # Asking

    def rows(
        self, vectors: Tensor | Sequence[Tensor | None] | None, questions: Sequence[Question | str], text: Sequence[str] | None
    ) -> list[Asked]:
        """One row a question. Without vectors there are as many placeholders as the vectors asked about would have taken."""
        found = []
        for i, question in enumerate(questions):
            given = None if vectors is None else vectors[i]
            words, task = (question, "") if isinstance(question, str) else (question.text, question.task)
            asks_all = self.options.thoughts == "all" or task == "foretell"
            k = len(self.options.read_layers) * (self.num_slots if asks_all else 1)
            prompt, columns = self.writer.prompt(words, k if given is None else len(given), text[i] if text else None)
            found.append(Asked(prompt, columns, given, question=question))
        return found

    @torch.no_grad()
    def ask(
        self,
        vectors: Tensor | Sequence[Tensor | None] | None,
        questions: Sequence[Question | str],
        max_new_tokens: int = 32,
        text: Sequence[str] | None = None,
    ) -> list[Reading]:
        """Let the oracle answer, greedily; equal rows are asked once.

        ``vectors`` are ``[n, k, width]`` or n tensors ``[k, width]``; None injects nothing. ``text`` stands before the question.
        """
        self.eval()
        asked, places = different(self.rows(vectors, questions, text))
        order = sorted(range(len(asked)), key=lambda i: len(asked[i].prompt))
        readings: dict[int, Reading] = {}
        for part in evenly(order, self.batch_size):
            readings |= zip(part, self._answer([asked[i] for i in part], max_new_tokens), strict=True)
        return [readings[place] for place in places]

    def _answer(self, asked: Sequence[Asked], max_new_tokens: int) -> list[Reading]:
        batch = lay(asked, self.backbone.pad, self.width).to(self.device)
        logs: list[Tensor] = []

        def record(ids: Tensor, scores: Tensor) -> Tensor:
            logs.append(scores.float().log_softmax(-1).max(-1).values.cpu())
            return scores

        with injected(self.model, self.options.inject_at, self._places(batch), self.options.scale):
            new = self.lm.generate(
                input_ids=batch.input_ids,
                attention_mask=batch.attention_mask,
                max_new_tokens=max_new_tokens,
                do_sample=False,
                eos_token_id=self.writer.end,
                pad_token_id=self.backbone.pad,
                logits_processor=[record],
            )[:, batch.input_ids.shape[1] :]
        return self._readings(new.cpu(), torch.stack(logs, dim=1))

    def _readings(self, new: Tensor, logs: Tensor) -> list[Reading]:
        """Readings of new ids ``[n, length]`` with the log-probability of each."""
        found = []
        for ids, each in zip(new.tolist(), logs, strict=True):
            stopped = self.writer.end in ids
            length = ids.index(self.writer.end) + 1 if stopped else len(ids)
            found.append(Reading(self.writer.text(ids), math.exp(float(each[:length].sum())), stopped))
        return found

    @torch.no_grad()
    def score(
        self,
        vectors: Tensor | Sequence[Tensor | None] | None,
        questions: Sequence[Question | str],
        candidates: Sequence[str],
        text: Sequence[str] | None = None,
    ) -> Tensor:
        """``[n, candidates]``: log-probability of each candidate answer, renormalised over the candidates (float64).

        Equal rows are scored once. See :mod:`latent_lab.thoughts.oracle_scoring` for what is left out.
        """
        self.eval()
        asked, places = different(self.rows(vectors, questions, text))
        targets = [self.writer.target(candidate) for candidate in candidates]

        def predict(rows: Sequence[int], continuations: Sequence[Ids], count: int) -> Tensor:
            return self._predict([replace(asked[r], target=ids) for r, ids in zip(rows, continuations, strict=True)], count)

        scores = log_probabilities(len(asked), targets, predict, self.model.config.vocab_size)
        return scores[places]

    def _predict(self, asked: Sequence[Asked], count: int) -> Tensor:
        batch = lay(asked, self.backbone.pad, self.width).to(self.device)
        hidden = self._hidden(batch)[:, -count:]
        logs: Tensor = self.model.get_output_embeddings()(hidden).float().log_softmax(-1)
        return logs

    # On disk

    def save(self, folder: Path) -> None:
        """Write a normal Hugging Face folder, with the adapter and ``oracle.json`` in it."""
        from safetensors.torch import save_model

        self.backbone.save(folder)
        save_model(self._own(), str(folder / WEIGHTS))
        known = {"width": self.width, "num_slots": self.num_slots, "latents_per_step": self.latents_per_step}
        write_json(folder / INFO, {"options": asdict(self.options), **known, **self._info()})

    def _own(self) -> nn.Module:
        """What the oracle has besides its language model."""
        return self.adapter

    def _info(self) -> dict[str, Any]:
        return {}

    @staticmethod
    def load(folder: Path) -> "Oracle":
        """Read what :meth:`save` wrote, or raise :class:`latent_lab.backbone.ModelError`."""
        from safetensors.torch import load_model

        if not (folder / INFO).is_file():
            raise ModelError(f"{folder}: holds no {INFO}, so it is no oracle; give the checkpoint/ of a run of stage=oracle")
        info = json.loads((folder / INFO).read_text(encoding="utf-8"))
        options = OracleOptions(**info.pop("options"))
        backbone = Pretrained(path=str(folder)).load()
        oracle = (HeadOracle if options.kind == "head" else Oracle)(backbone, options, **info)
        load_model(oracle._own(), str(folder / WEIGHTS))
        return oracle.eval()


class HeadOracle(Oracle):
    """The reader without a language model: a small decoder on the vector (the mean of several) and the kind of question."""

    def __init__(
        self,
        backbone: Backbone,
        options: OracleOptions,
        width: int,
        num_slots: int,
        latents_per_step: int = 1,
        longest: int = 32,
        kinds: Sequence[str] = (),
    ) -> None:
        super().__init__(backbone, options, width, num_slots, latents_per_step)
        self.kinds, self.longest = ("", *sorted(set(kinds) - {""})), longest
        self.lm.requires_grad_(False)
        size = self.model.config.hidden_size
        self.decoder: StepDecoder = step_decoder(options.decoder, size, self.model.config.vocab_size, longest)
        self.kind = nn.Embedding(len(self.kinds), size)
        nn.init.zeros_(self.kind.weight)

    def forward(self, batch: OracleBatch) -> dict[str, Tensor]:
        """See :class:`Oracle`."""
        asked = questions_of(batch)
        texts = [torch.tensor(row.target) for row in asked]
        wanted = nn.utils.rnn.pad_sequence(texts, batch_first=True, padding_value=IGNORE).to(self.device)
        return {"loss": self.decoder.loss_sum(self._inputs(asked), wanted)}

    def counts(self, batch: OracleBatch) -> dict[str, int]:
        """See :class:`Oracle`."""
        return {"loss": sum(len(row.target) for row in questions_of(batch))}

    def _inputs(self, asked: Sequence[Asked]) -> Tensor:
        """``[n, width]``."""
        nothing = torch.zeros(1, self.width)
        means = torch.stack([(row.vectors if row.vectors is not None else nothing).float().mean(0) for row in asked])
        kinds = torch.tensor([self._kind(row.question) for row in asked], device=self.device)
        return self.adapter(means.to(self.device)) + self.kind(kinds)

    def _kind(self, question: Question | str) -> int:
        name = kind_of(question)
        return self.kinds.index(name) if name in self.kinds else 0

    def _answer(self, asked: Sequence[Asked], max_new_tokens: int) -> list[Reading]:
        inputs = self._inputs(asked)
        new = self.decoder.read(inputs, self.writer.end)
        logs = self.decoder.logits(inputs, new).float().log_softmax(-1).gather(-1, new[..., None])[..., 0]
        return self._readings(new.cpu(), logs.cpu())

    def _predict(self, asked: Sequence[Asked], count: int) -> Tensor:
        most = max(len(row.target) for row in asked) + 1
        texts = torch.tensor([[*row.target, *[0] * (most - len(row.target))] for row in asked], device=self.device)
        padded = self.longest + 1 - most  # a place past the longest text predicts nothing
        logs = self.decoder.logits(self._inputs(asked), texts[:, : self.longest]).float().log_softmax(-1)
        logs = nn.functional.pad(logs, (0, 0, 0, max(1 - padded, 0)))
        ends = [len(row.target) for row in asked]
        places = [torch.arange(end - count + 1, end + 1).clamp(0, logs.shape[1] - 1).to(logs.device) for end in ends]
        return torch.stack([each.index_select(0, at) for each, at in zip(logs, places, strict=True)])

    def _own(self) -> nn.Module:
        return nn.ModuleDict({"adapter": self.adapter, "decoder": self.decoder, "kind": self.kind})

    def _info(self) -> dict[str, Any]:
        return {"longest": self.longest, "kinds": list(self.kinds)}


def questions_of(batch: OracleBatch) -> list[Asked]:
    """The rows of a batch that ask something."""
    rows = [*batch.asked, *(batch.rest.asked if batch.rest else ())]
    return [row for row in rows if row.labels is None]


def kind_of(question: Question | str) -> str:
    """Name of a kind of question, none of bare words; what is asked about one problem's text counts as one kind."""
    if isinstance(question, str):
        return ""
    about = question.about if not question.about.startswith("of ") else "of"
    return f"{question.task}:{about}"
