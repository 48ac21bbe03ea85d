"""Step supervision: an auxiliary decoder, present in training only, that must write step k's text from thought k.

The idea of SIM-CoT (arXiv 2509.20317): without it nothing tells a thought which step it stands for. Nothing here takes part in
answering; after training the decoder serves as a reader of thoughts.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from latent_lab.batching import Batch
from latent_lab.reasoner import LatentReasoner, ReasonerOutput
from latent_lab.sequences import IGNORE, Role


class StepDecoder(nn.Module, ABC):
    """Writes a text of at most ``longest`` tokens from one thought; the two kinds below differ in how."""

    longest: int

    @abstractmethod
    def logits(self, thoughts: Tensor, texts: Tensor) -> Tensor:
        """``[n, width]`` and ``[n, length]`` token ids (-100 after their end) to logits ``[n, length, vocabulary]``."""

    @abstractmethod
    def read(self, thoughts: Tensor, end: int) -> Tensor:
        """Write freely from thoughts ``[n, width]``: ids ``[n, longest]``; after the first ``end`` everything is ``end``."""

    def loss_sum(self, thoughts: Tensor, texts: Tensor) -> Tensor:
        """Cross-entropy of the texts, summed over their tokens; 0 (with gradients) where there are none."""
        if not texts.numel():
            return sum((p.sum() * 0.0 for p in self.parameters()), thoughts.sum() * 0.0)
        logits = self.logits(thoughts, texts)
        return nn.functional.cross_entropy(logits.flatten(0, 1).float(), texts.flatten(), ignore_index=IGNORE, reduction="sum")


class LinearDecoder(StepDecoder):
    """Reads every token of the text straight off the thought, each place by a linear map of its own.

    Differs from paper: SIM-CoT's decoder is autoregressive. A linear reader cannot compute: what it writes is in the thought.
    """

    def __init__(self, width: int, vocabulary: int, longest: int) -> None:
        super().__init__()
        self.longest = longest
        self.places = nn.Linear(width, longest * width, bias=False)
        self.head = nn.Linear(width, vocabulary)

    def logits(self, thoughts: Tensor, texts: Tensor) -> Tensor:
        """See :meth:`StepDecoder.logits`; the texts only say how many places are wanted."""
        length, width = texts.shape[1], thoughts.shape[1]
        weight = self.places.weight[: length * width]
        return self.head(nn.functional.linear(thoughts, weight).view(len(thoughts), length, width))

    def read(self, thoughts: Tensor, end: int) -> Tensor:
        """See :meth:`StepDecoder.read`."""
        ids = self.logits(thoughts, thoughts.new_zeros(len(thoughts), self.longest)).argmax(-1)
        return ids.masked_fill((ids == end).cumsum(1) > 0, end)


class AutoregressiveDecoder(StepDecoder):
    """A one-layer GPT-2 of the thought's width; the thought is its first input embedding (SIM-CoT, section 3)."""

    def __init__(self, width: int, vocabulary: int, longest: int) -> None:
        super().__init__()
        self.longest = longest
        heads = next(h for h in range(max(width // 64, 1), 0, -1) if width % h == 0)
        self.lm = GPT2LMHeadModel(
            GPT2Config(
                vocab_size=vocabulary,
                n_positions=longest,
                n_embd=width,
                n_layer=1,
                n_head=heads,
                resid_pdrop=0.0,
                embd_pdrop=0.0,
                attn_pdrop=0.0,
                activation_function="gelu_pytorch_tanh",
                bos_token_id=0,
                eos_token_id=0,
            )
        )

    def logits(self, thoughts: Tensor, texts: Tensor) -> Tensor:
        """See :meth:`StepDecoder.logits`; token t sees the thought and the tokens before t."""
        before = self.lm.get_input_embeddings()(texts[:, :-1].clamp(min=0))
        return self.lm(inputs_embeds=torch.cat([thoughts[:, None].to(before.dtype), before], dim=1), use_cache=False).logits

    @torch.no_grad()
    def read(self, thoughts: Tensor, end: int) -> Tensor:
        """See :meth:`StepDecoder.read`; greedy."""
        ids = self.lm.generate(
            inputs_embeds=thoughts[:, None], max_new_tokens=self.longest, do_sample=False, eos_token_id=end, pad_token_id=end
        )
        return nn.functional.pad(ids, (0, self.longest - ids.shape[1]), value=end)


def step_decoder(kind: str, width: int, vocabulary: int, longest: int) -> StepDecoder:
    """Make a decoder of the given kind (autoregressive or linear), for texts of at most ``longest`` tokens."""
    classes: dict[str, type[LinearDecoder] | type[AutoregressiveDecoder]]
    classes = {"autoregressive": AutoregressiveDecoder, "linear": LinearDecoder}
    return classes[kind](width, vocabulary, longest)


@dataclass(frozen=True)
class Distillation:
    """Weights of the two losses that come from the same model writing the chain out (CODI, arXiv 2502.21074)."""

    teacher: float
    """Of the cross-entropy of the written chain and answer."""
    match: float
    """Of the distance between the states before the answer, with and without the written chain."""


class SupervisedReasoner(nn.Module):
    """What the engine trains: a reasoner, with a step decoder or a teacher if there is one, behind one ``forward``."""

    def __init__(
        self,
        reasoner: LatentReasoner,
        decoder: StepDecoder | None,
        weight: float,
        distillation: Distillation | None = None,
        role_weights: Mapping[Role, float] | None = None,
    ) -> None:
        super().__init__()
        self.reasoner = reasoner
        self.decoder = decoder
        self.weights = {"loss": 1.0} | ({"steps_loss": weight} if decoder else {})
        if distillation:
            self.weights |= {"teacher_loss": distillation.teacher, "match_loss": distillation.match}
        of = [(role_weights or {}).get(role, 1.0) for role in Role]
        self.role_weights = torch.tensor(of) if role_weights else None  # no buffer: settings are no part of what is learned

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Loss sums by name: ``loss`` over the labelled tokens, ``steps_loss`` over the tokens of the slots' texts.

        With a teacher also ``teacher_loss`` over its labelled tokens and ``match_loss`` over the problems.
        """
        out = self._run(batch)
        sums: dict[str, Tensor] = {"loss": present(out.loss_sum)}
        if self.role_weights is not None:
            each = nn.functional.cross_entropy(present(out.logits), present(out.targets), reduction="none")
            sums["loss"] = (each * self._weights(batch).to(each.device)).sum()
        if self.decoder is not None:
            thoughts = out.thoughts[batch.slot_rows, batch.slot_columns]
            sums["steps_loss"] = self.decoder.loss_sum(thoughts, batch.slot_targets)
        if batch.teacher is not None:
            taught = self._run(batch.teacher)
            apart = distance(present(out.anchored), present(taught.anchored).detach())
            sums |= {"teacher_loss": present(taught.loss_sum), "match_loss": apart}
        return sums

    def counts(self, batch: Batch) -> dict[str, float]:
        """How many tokens (problems, for ``match_loss``) each of the sums is over; a token counts by the weight of its role."""
        labelled = batch.num_labels if self.role_weights is None else float(self._weights(batch).sum())
        counts: dict[str, float] = {"loss": labelled, "steps_loss": batch.num_slot_labels}
        return counts | ({"teacher_loss": batch.teacher.num_labels, "match_loss": len(batch.ids)} if batch.teacher else {})

    def _weights(self, batch: Batch) -> Tensor:
        """``[labelled tokens]``: the weight of each by its role."""
        return present(self.role_weights)[present(batch.roles)[batch.labels != IGNORE].cpu()]

    def _run(self, batch: Batch) -> ReasonerOutput:
        return self.reasoner(
            batch.input_ids,
            batch.attention_mask,
            batch.labels,
            batch.position_ids,
            is_closed=batch.is_closed,
            anchors=batch.anchors,
        )


def present(value: Tensor | None) -> Tensor:
    """What a forward with labels (or anchors) always returns."""
    assert value is not None
    return value


def distance(student: Tensor, teacher: Tensor) -> Tensor:
    """How far states are from the teacher's, both ``[layers, problems, width]``: summed over problems, mean over the rest.

    Smooth L1 in units of each layer's standard deviation over the teacher's states (CODI, section 3.2).
    """
    student, teacher = student.float(), teacher.float()
    scale = teacher.flatten(1).std(dim=1).clamp(min=1e-6)[:, None, None]
    return (nn.functional.smooth_l1_loss(student, teacher, reduction="none") / scale).mean(dim=(0, 2)).sum()
