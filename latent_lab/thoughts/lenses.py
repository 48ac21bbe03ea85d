"""Lenses: what the model's own vocabulary says of a thought, without training a reader (or with one affine map a layer).

- ``logit``: softmax(W_U norm(h)), the output embedding on the state (nostalgebraist 2020). The final norm is applied once: the
  last layer's state and a thought taken after the norm have it already.
- ``embedding``: cosine of the state with the input embeddings of all tokens.
- ``tuned``: the logit lens after an affine map, trained to say what the last layer says of the same slots (arXiv 2303.08112);
  see :mod:`latent_lab.thoughts.lens_tuned`.
- ``patchscope``: the state stands in for a word's in a prompt that copies words, ``3=3``, ``7=7``, ``.=``, and the model writes
  what comes next (arXiv 2401.06102); it is put, unchanged, into the target layer that suits the source layer best on training
  problems (:mod:`latent_lab.thoughts.lens_targets`).

Each is asked for the first token of every field's value, ranked among the whole vocabulary, beside its score for another
problem's step: a lens that says ``1`` to everything finds many ones. The same is asked of every source of vectors that cannot
know the step (:mod:`latent_lab.thoughts.lens_sources`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from latent_lab.reasoner import LatentReasoner
from latent_lab.thoughts.grammar import Grammar
from latent_lab.thoughts.lens_asked import Asked, Words
from latent_lab.thoughts.lens_kinds import (
    Scores,
    Seen,
    Tokenizer,
    can_spell,
    embedding_lens,
    example_words,
    logit_lens,
    patchscope,
)
from latent_lab.thoughts.lens_sources import left_out, source_report
from latent_lab.thoughts.lens_targets import num_problems, sweep, target_layers
from latent_lab.thoughts.lens_tuned import tuned_lens
from latent_lab.thoughts.probe_scores import Resampler, rate
from latent_lab.thoughts.probe_targets import Targets, check_apart, targets
from latent_lab.thoughts.probes import in_order, most_steps
from latent_lab.thoughts.sources import Origins
from latent_lab.thoughts.store import ThoughtStore

LENSES = ("logit", "embedding", "tuned", "patchscope")
CUTS = (1, 5, 10)
"""The k of hit@k."""


def lens_report(
    train: ThoughtStore,
    test: ThoughtStore,
    reasoner: LatentReasoner,
    tokenizer: Tokenizer,
    grammar: Grammar,
    layers: Sequence[int],
    *,
    seed: int = 0,
    slots_to_steps: Sequence[int | None] | None = None,
    lenses: Sequence[str] = LENSES,
    patchscope_problems: int = 200,
    start: Tensor | None = None,
    other_seed: ThoughtStore | None = None,
) -> dict[str, Any]:
    """Look at test problems through every lens; ready for JSON. Raises StoreError where the stores share a problem.

    Each slot is asked for the fields of the step it stands for. ``start`` ``[test problems, width]`` (the states at the start
    marker) and ``other_seed`` (the thoughts of a model trained with another seed about the same test problems) are sources beside
    those that the stores give. For each lens, ``[slots][layers]`` in all grids:

    - ``layers``, ``n_problems`` (a patchscope looks at the first ``patchscope_problems`` only), ``digit_mass`` and ``entropy``
      (bits; None for the embedding lens: it gives no probabilities);
    - ``fields``: for each field ``n`` (by slot), ``hit1``, ``hit5``, ``hit10``, ``mrr`` and, with ``floor_`` before the name, the
      same scored against another problem's step; ``hit1_low`` and ``hit1_high``;
    - ``sources``: for each source of vectors (the real ones, too) and each field hit@1 and reciprocal rank by layer, all slots
      together, raw, floor and gain, see
      :func:`latent_lab.thoughts.lens_sources.source_report`; ``sources_left_out`` says why of those that are missing;
    - of the tuned lens ``tuning``, for each layer what :func:`latent_lab.thoughts.lens_tuned.tuned_lens` records; of the
      patchscope ``targets``, what :func:`latent_lab.thoughts.lens_targets.sweep` found on training problems.

    A lens that cannot be had says ``why``.
    """
    check_apart(train, test)
    num_steps = most_steps(train)
    y = targets(test, grammar, num_steps)
    own = tuple(slots_to_steps) if slots_to_steps is not None else in_order(test.layer(layers[0]).shape[1], y.num_steps)
    words, origins = Words.of(reasoner, tokenizer, grammar), Origins(test, y, start, other_seed)

    def asked(store: ThoughtStore, labels: Targets, most: int) -> Asked:
        return Asked(store, labels, own, min(most, len(store.rows)), words, reasoner.device, seed)

    def asked_in_training(most: int) -> Asked:
        return asked(train, targets(train, grammar, num_steps), most)

    bench = Bench(reasoner, tokenizer, grammar, train, tuple(layers), seed, asked_in_training)
    was_training = reasoner.training
    reasoner.eval()
    found: dict[str, Any] = {}
    try:
        for name in lenses:
            if why := why_not(name, reasoner, tokenizer, train, grammar):
                found[name] = {"why": why}
                continue
            made, record = bench.lens(name)
            ask = asked(test, y, patchscope_problems if name == "patchscope" else len(test.rows))
            found[name] = through(made, ask, origins, train, has_probabilities=name != "embedding") | record
    finally:
        reasoner.train(was_training)
    return found


def through(
    made: dict[int, Scores], ask: Asked, origins: Origins, train: ThoughtStore, *, has_probabilities: bool
) -> dict[str, Any]:
    """The report of one lens, by layer, on the thoughts themselves and on every other source of vectors."""
    seen = {layer: ask.look(lens, layer) for layer, lens in made.items()}
    resampler = Resampler(ask.num_problems, ask.seed)
    return {
        **lens_record(ask, seen, resampler, has_probabilities=has_probabilities),
        "sources": source_report(ask, origins, train, made, seen, resampler),
        "sources_left_out": left_out(origins),
    }


def why_not(name: str, reasoner: LatentReasoner, tokenizer: Tokenizer, train: ThoughtStore, grammar: Grammar) -> str | None:
    """Why a lens cannot be had; None where it can."""
    if name == "tuned" and reasoner.model.config.num_hidden_layers not in train.layers:
        return "the store does not hold the last layer, which the map is fitted to"
    if name == "patchscope" and not can_spell(tokenizer, "=".join(example_words(grammar))):
        return "the tokenizer cannot spell the prompt"
    return None


@dataclass(frozen=True)
class Bench:
    """What lenses are made with; no test problem is here."""

    reasoner: LatentReasoner
    tokenizer: Tokenizer
    grammar: Grammar
    train: ThoughtStore
    layers: tuple[int, ...]
    seed: int
    asked: Callable[[int], Asked]
    """What is asked of the first so many training problems."""

    def lens(self, name: str) -> tuple[dict[int, Scores], dict[str, Any]]:
        """A lens by its name: what it says, by layer, and what is to be told of how it was made."""
        if name == "logit":
            return {layer: logit_lens(self.reasoner, layer) for layer in self.layers}, {}
        if name == "embedding":
            return dict.fromkeys(self.layers, embedding_lens(self.reasoner)), {}
        if name == "tuned":
            tuned = {layer: tuned_lens(self.reasoner, self.train, layer, self.seed) for layer in self.layers}
            return {layer: each.scores for layer, each in tuned.items()}, {"tuning": [each.record for each in tuned.values()]}
        if name == "patchscope":
            return self.patchscope()
        raise ValueError(f"lens={name}: allowed are {', '.join(LENSES)}")

    def patchscope(self) -> tuple[dict[int, Scores], dict[str, Any]]:
        """For each layer the target layer that suits it best on training problems."""
        into = target_layers(self.reasoner.model.config.num_hidden_layers)
        words = example_words(self.grammar)
        scopes = {target: patchscope(self.reasoner, self.tokenizer, words, target) for target in into}
        ask = self.asked(num_problems(self.layers, into, self.train.layer(self.layers[0]).shape[1], len(self.train.rows)))
        found = sweep(ask, scopes, self.layers, tuple(self.grammar.values))
        return {layer: scopes[target] for layer, target in zip(self.layers, found["chosen"], strict=True)}, {"targets": found}


def lens_record(ask: Asked, seen: dict[int, dict[int, Seen]], resampler: Resampler, *, has_probabilities: bool) -> dict[str, Any]:
    """The report of one lens on the thoughts themselves."""
    slots = range(len(ask.own))

    def mean(slot: int, layer: int, name: str) -> float | None:
        return float(getattr(seen[layer][slot], name).mean()) if has_probabilities and slot in seen[layer] else None

    return {
        "layers": list(seen),
        "n_problems": ask.num_problems,
        "digit_mass": [[mean(slot, layer, "digits") for layer in seen] for slot in slots],
        "entropy": [[mean(slot, layer, "entropy") for layer in seen] for slot in slots],
        "fields": {field: field_record(ask, seen, field, resampler) for field in ask.words.tokens},
    }


def field_record(ask: Asked, seen: dict[int, dict[int, Seen]], field: str, resampler: Resampler) -> dict[str, Any]:
    """The grids of one field."""
    names = [f"{floor}{name}" for floor in ("", "floor_") for name in ("hit1", "hit5", "hit10", "mrr")]
    grids: dict[str, list[list[Any]]] = {name: [] for name in (*names, "hit1_low", "hit1_high")}
    counts = {slot: torch.zeros(ask.num_problems) for slot in range(len(ask.own))}
    for slot in counts:
        for values in grids.values():
            values.append([None] * len(seen))
        for column, slots in enumerate(seen.values()):
            if slot not in slots:
                continue
            index, real, floor = ask.ranks_of(slots[slot].ranks[field], field, slot)
            if not len(index):
                continue
            for start, each in (("", real), ("floor_", floor)):
                for k in CUTS:
                    grids[f"{start}hit{k}"][-1][column] = float((each <= k).double().mean())
                grids[f"{start}mrr"][-1][column] = float((1 / each).mean())
            counts[slot][index] = 1
            hits = torch.zeros(ask.num_problems).index_put((index,), (real <= 1).float())
            score = rate(resampler.means(hits, counts[slot]), counts[slot])
            grids["hit1_low"][-1][column], grids["hit1_high"][-1][column] = score["low"], score["high"]
    return {
        "layers": list(seen),
        "n": [int(each.sum()) for each in counts.values()],
        **grids,
    }
