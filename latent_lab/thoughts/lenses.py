"""Lenses: what the model's own vocabulary says of a thought, without training a reader (or with one affine map a layer).

- ``logit``: softmax(W_U norm(h)), the output embedding on the state (nostalgebraist 2020). The final norm is applied once: the
  last layer's state and a thought taken after the norm have it already.
- ``embedding``: cosine of the state with the input embeddings of all tokens.
- ``tuned``: the logit lens after an affine map from the layer's states to the last layer's of the same slots (arXiv 2303.08112).
- ``patchscope``: the state stands in for the embedding of a word in a prompt that copies words, ``3=3``, ``7=7``, ``.=``, and the
  model writes what comes next (arXiv 2401.06102; here into the input embeddings, unchanged, for every source layer).

Each is asked for the first token of every field's value, ranked among the whole vocabulary, beside its score for another
problem's step: a lens that says ``1`` to everything finds many ones.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from latent_lab.reasoner import LatentReasoner, final_norm
from latent_lab.thoughts.grammar import Grammar
from latent_lab.thoughts.probe_exam import standard
from latent_lab.thoughts.probe_scores import Resampler, gain, interval, rate
from latent_lab.thoughts.probe_targets import Targets, check_apart, targets
from latent_lab.thoughts.probes import in_order, most_steps
from latent_lab.thoughts.store import ThoughtStore

LENSES = ("logit", "embedding", "tuned", "patchscope")
CUTS = (1, 5, 10)
"""The k of hit@k."""
ROWS = 256
"""States that are looked at together."""
RIDGE = 1e-3
"""Penalty of the tuned lens's map, as a share of the variance of a standardised component."""

Scores = Callable[[Tensor], Tensor]
"""``[n, width]`` to ``[n, vocabulary]``: larger for tokens that the state says more."""


class Tokenizer(Protocol):
    """What is used of a Hugging Face tokenizer."""

    def __call__(self, text: str, *, add_special_tokens: bool) -> dict[str, Any]:
        """Tokenise a text."""
        ...

    def decode(self, token_ids: list[int]) -> str:
        """The text of tokens."""
        ...


def is_normed(reasoner: LatentReasoner, layer: int) -> bool:
    """Whether a stored state has been through the final norm: the last block's has; a thought, unless it was taken before."""
    if layer == 0:
        return reasoner.loop.feedback == "after_norm"
    return layer == reasoner.model.config.num_hidden_layers


def logit_lens(reasoner: LatentReasoner, layer: int) -> Scores:
    """Logits of a layer's states."""
    head: Any = reasoner.model.get_output_embeddings()
    norm: Any = (lambda state: state) if is_normed(reasoner, layer) else final_norm(reasoner.model)
    kind = head.weight.dtype
    return lambda states: head(norm(states.to(kind))).float()


def embedding_lens(reasoner: LatentReasoner) -> Scores:
    """Cosines of states with the input embeddings."""
    table: Any = reasoner.model.get_input_embeddings()
    words = torch.nn.functional.normalize(table.weight.detach().float(), dim=-1)
    return lambda states: torch.nn.functional.normalize(states.float(), dim=-1) @ words.T


def affine_map(states: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Ridge regression of ``wanted [n, width]`` on ``states [n, width]`` in closed form: ``[width, width]`` and ``[width]``."""
    mean, scale = standard(states)
    x = ((states - mean) / scale).double()
    target = wanted.mean(0).double()
    gram = x.T @ x + RIDGE * len(x) * torch.eye(x.shape[1], dtype=torch.float64)
    weight = torch.linalg.solve(gram, x.T @ (wanted.double() - target)) / scale.double()[:, None]
    return weight.float(), (target - mean.double() @ weight).float()


def tuned_lens(reasoner: LatentReasoner, train: ThoughtStore, layer: int) -> Scores:
    """Logits of a layer's states after an affine map, fitted on all slots of a store that holds the last layer, too.

    StoreError where it does not. For the last layer it is the logit lens.
    """
    last = reasoner.model.config.num_hidden_layers
    of_last = logit_lens(reasoner, last)
    if layer == last:
        return of_last
    there = torch.arange(train.layer(layer).shape[1]) < train.num_slots[:, None]
    weight, bias = affine_map(train.layer(layer)[there], train.layer(last)[there])
    weight, bias = weight.to(reasoner.device), bias.to(reasoner.device)
    return lambda states: of_last(states.float() @ weight + bias)


def patchscope(reasoner: LatentReasoner, tokenizer: Tokenizer, words: Sequence[str]) -> Scores:
    """What the model writes after a state in a prompt that copies; ``words`` are the examples, ``w=w`` on a line each."""
    before = tokenizer("".join(f"{word}={word}\n" for word in words), add_special_tokens=True)["input_ids"]
    after = tokenizer("=", add_special_tokens=False)["input_ids"]
    table: Any = reasoner.model.get_input_embeddings()
    prompt = torch.tensor([*before, reasoner.tokens.latent, *after], device=reasoner.device)

    def scores(states: Tensor) -> Tensor:
        embeds = table(prompt).repeat(len(states), 1, 1)
        embeds[:, len(before)] = states.to(embeds.dtype)
        return reasoner.model(inputs_embeds=embeds, use_cache=False, logits_to_keep=1).logits[:, -1].float()

    return scores


def can_spell(tokenizer: Tokenizer, text: str) -> bool:
    """Whether a text comes back from its tokens, blanks aside: symbols for graphs have no ``=``."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return "".join(tokenizer.decode(ids).split()) == "".join(text.split())


def first_tokens(tokenizer: Tokenizer, value: str) -> tuple[int, ...]:
    """The first token of a value, written ``x`` and `` x``; a token that is nothing but a blank is none."""
    ids = (tokenizer(text, add_special_tokens=False)["input_ids"][:1] for text in (value, f" {value}"))
    return tuple(dict.fromkeys(i[0] for i in ids if i and tokenizer.decode([i[0]]).strip()))


def ranks(scores: Tensor, tokens: Sequence[tuple[int, ...]]) -> Tensor:
    """``[n, values]``: for each value the best rank (from 1) among all tokens ``[n, vocabulary]`` of any of its tokens.

    Tokens with equal scores share the middle of their ranks: a lens that says the same of all of them hits nothing.
    """
    found = torch.full((len(scores), len(tokens)), torch.inf)
    known: dict[int, Tensor] = {}
    for column, ids in enumerate(tokens):
        for i in ids:
            if i not in known:
                own = scores[:, i : i + 1]
                above, equal = (scores > own).sum(1), (scores == own).sum(1)
                known[i] = (1 + above + (equal - 1) / 2).cpu()
            found[:, column] = torch.minimum(found[:, column], known[i])
    return found


@dataclass(frozen=True)
class Seen:
    """What a lens says of one slot and layer of ``n`` problems."""

    ranks: dict[str, Tensor]
    """For each field ``[n, values]``."""
    digits: Tensor
    """``[n]``: share of the probability on tokens that are digits."""
    entropy: Tensor
    """``[n]``: in bits."""


@torch.no_grad()
def look(scores: Scores, states: Tensor, tokens: dict[str, list[tuple[int, ...]]], digits: Tensor, device: torch.device) -> Seen:
    """Look at states ``[n, width]`` through a lens; ``digits [vocabulary]`` (bool) are the tokens that are digits."""
    every = [ids for of_field in tokens.values() for ids in of_field]
    found, masses, entropies = [], [], []
    for part in states.split(ROWS):
        said = scores(part.to(device))
        log_p = said.log_softmax(-1)
        p = log_p.exp()
        found.append(ranks(said, every))
        masses.append(p[:, digits[: p.shape[1]].to(device)].sum(1).cpu())
        entropies.append((-(p * log_p).sum(1) / torch.log(torch.tensor(2.0))).cpu())
    whole = torch.cat(found)
    parts = whole.split([len(of_field) for of_field in tokens.values()], dim=1)
    return Seen(dict(zip(tokens, parts, strict=True)), torch.cat(masses), torch.cat(entropies))


def is_digit(tokenizer: Tokenizer, num_tokens: int) -> Tensor:
    """``[vocabulary]``, bool: tokens whose text is digits and blanks."""
    return torch.tensor([tokenizer.decode([i]).strip().isdecimal() for i in range(num_tokens)])


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
) -> dict[str, Any]:
    """Look at test problems through every lens; ready for JSON. Raises StoreError where the stores share a problem.

    Each slot is asked for the fields of the step it stands for. For each lens, ``[slots][layers]`` in all grids:

    - ``layers``, ``n_problems``, ``digit_mass`` and ``entropy`` (bits; None for the embedding lens: it gives no probabilities);
    - ``fields``: for each field ``n`` (by slot), ``hit1``, ``hit5``, ``hit10``, ``mrr`` and, with ``floor_`` before the name, the
      same scored against another problem's step; ``hit1_low`` and ``hit1_high``; and ``by_layer``, for each layer the hit@1 of
      all slots together as a score with ``floors``, ``floor`` and ``gain``.

    A lens that cannot be had says ``why``.
    """
    check_apart(train, test)
    y = targets(test, grammar, most_steps(train))
    own = tuple(slots_to_steps) if slots_to_steps is not None else in_order(test.layer(layers[0]).shape[1], y.num_steps)
    tokens = {field: [first_tokens(tokenizer, value) for value in values] for field, values in grammar.values.items()}
    head: Any = reasoner.model.get_output_embeddings()
    digits = is_digit(tokenizer, head.weight.shape[0])
    was_training = reasoner.training
    reasoner.eval()
    found: dict[str, Any] = {}
    for name in lenses:
        if why := why_not(name, reasoner, tokenizer, train, grammar):
            found[name] = {"why": why}
            continue
        most = patchscope_problems if name == "patchscope" else len(test.rows)
        ask = Asked(test, y, own, min(most, len(test.rows)), seed)
        made = {layer: lens_of(name, reasoner, tokenizer, train, layer, grammar) for layer in layers}
        seen = {layer: ask.look(made[layer], layer, tokens, digits, reasoner.device) for layer in layers}
        found[name] = ask.report(seen, grammar, has_probabilities=name != "embedding")
    reasoner.train(was_training)
    return found


def why_not(name: str, reasoner: LatentReasoner, tokenizer: Tokenizer, train: ThoughtStore, grammar: Grammar) -> str | None:
    """Why a lens cannot be had; None where it can."""
    if name == "tuned" and reasoner.model.config.num_hidden_layers not in train.layers:
        return "the store does not hold the last layer, which the map is fitted to"
    if name == "patchscope" and not can_spell(tokenizer, "=".join(example_words(grammar))):
        return "the tokenizer cannot spell the prompt"
    return None


def lens_of(
    name: str, reasoner: LatentReasoner, tokenizer: Tokenizer, train: ThoughtStore, layer: int, grammar: Grammar
) -> Scores:
    """A lens by its name."""
    if name == "logit":
        return logit_lens(reasoner, layer)
    if name == "embedding":
        return embedding_lens(reasoner)
    if name == "tuned":
        return tuned_lens(reasoner, train, layer)
    if name == "patchscope":
        return patchscope(reasoner, tokenizer, example_words(grammar))
    raise ValueError(f"lens={name}: allowed are {', '.join(LENSES)}")


def example_words(grammar: Grammar) -> list[str]:
    """Words for a prompt that copies: two values of the field with the most of them."""
    values = max(grammar.values.values(), key=len, default=())
    return [values[len(values) // 3], values[2 * len(values) // 3]] if len(values) > 1 else ["3", "7"]


@dataclass(frozen=True)
class Asked:
    """What lenses are asked of a store: of each slot the step it stands for."""

    test: ThoughtStore
    y: Targets
    own: tuple[int | None, ...]
    num_problems: int
    """Only so many of the first problems are looked at."""
    seed: int

    def rows(self, slot: int) -> Tensor:
        """Numbers of the problems that have this slot and labels for its step."""
        step = self.own[slot]
        if step is None:
            return torch.zeros(0, dtype=torch.long)
        labelled = torch.stack([y[:, step] >= 0 for y in self.y.labels.values()]).any(0) & (self.test.num_slots > slot)
        return labelled[: self.num_problems].nonzero()[:, 0]

    def look(
        self, scores: Scores, layer: int, tokens: dict[str, list[tuple[int, ...]]], digits: Tensor, device: torch.device
    ) -> dict[int, Seen]:
        """Look at every slot of a layer; by slot, those with anything to be asked."""
        states = self.test.layer(layer)
        rows = {slot: self.rows(slot) for slot in range(len(self.own))}
        return {slot: look(scores, states[index, slot], tokens, digits, device) for slot, index in rows.items() if len(index)}

    def donors(self, count: int, slot: int) -> Tensor:
        """``[count]``: for each of a slot's rows another one, the next in an order drawn from the seed."""
        order = torch.randperm(count, generator=torch.Generator().manual_seed(self.seed + slot))
        donors = torch.empty(count, dtype=torch.long)
        donors[order] = order.roll(-1)
        return donors

    def report(self, seen: dict[int, dict[int, Seen]], grammar: Grammar, *, has_probabilities: bool) -> dict[str, Any]:
        """The report of one lens."""
        resampler = Resampler(self.num_problems, self.seed)
        slots = range(len(self.own))

        def mean(slot: int, layer: int, name: str) -> float | None:
            return float(getattr(seen[layer][slot], name).mean()) if has_probabilities and slot in seen[layer] else None

        return {
            "layers": list(seen),
            "n_problems": self.num_problems,
            "digit_mass": [[mean(slot, layer, "digits") for layer in seen] for slot in slots],
            "entropy": [[mean(slot, layer, "entropy") for layer in seen] for slot in slots],
            "fields": {field: self.field_report(seen, field, resampler) for field in grammar.values},
        }

    def field_report(self, seen: dict[int, dict[int, Seen]], field: str, resampler: Resampler) -> dict[str, Any]:
        """The grids of one field."""
        names = [f"{floor}{name}" for floor in ("", "floor_") for name in ("hit1", "hit5", "hit10", "mrr")]
        grids: dict[str, list[list[Any]]] = {name: [] for name in (*names, "hit1_low", "hit1_high")}
        counts = {slot: torch.zeros(self.num_problems) for slot in range(len(self.own))}
        hits: dict[int, list[tuple[Tensor, Tensor]]] = {layer: [] for layer in seen}
        for slot in counts:
            for values in grids.values():
                values.append([None] * len(seen))
            for column, (layer, slots) in enumerate(seen.items()):
                if slot not in slots:
                    continue
                index, real, floor = self.ranks_of(slots[slot].ranks[field], field, slot)
                if not len(index):
                    continue
                for start, each in (("", real), ("floor_", floor)):
                    for k in CUTS:
                        grids[f"{start}hit{k}"][-1][column] = float((each <= k).double().mean())
                    grids[f"{start}mrr"][-1][column] = float((1 / each).mean())
                counts[slot][index] = 1
                placed = [torch.zeros(self.num_problems).index_put((index,), (each <= 1).float()) for each in (real, floor)]
                hits[layer].append((placed[0], placed[1]))
                score = rate(resampler.means(placed[0], counts[slot]), counts[slot])
                grids["hit1_low"][-1][column], grids["hit1_high"][-1][column] = score["low"], score["high"]
        asked = torch.stack(list(counts.values())).sum(0)
        return {
            "layers": list(seen),
            "n": [int(each.sum()) for each in counts.values()],
            **grids,
            "by_layer": [whole_layer(resampler, each, asked) for each in hits.values()],
        }

    def ranks_of(self, found: Tensor, field: str, slot: int) -> tuple[Tensor, Tensor, Tensor]:
        """The problems ``[m]`` with a label that has a token, its rank in each ``[m]``, and that of another problem's label."""
        step = self.own[slot]
        index = self.rows(slot)
        labels = self.y.labels[field][index, step]
        known = ((labels >= 0) & found.gather(1, labels.clamp(min=0)[:, None])[:, 0].isfinite()).nonzero()[:, 0]
        donors = known[self.donors(len(known), slot)]
        own, others = (found[known].gather(1, labels[each][:, None])[:, 0].double() for each in (known, donors))
        return index[known], own, others


def whole_layer(resampler: Resampler, hits: Sequence[tuple[Tensor, Tensor]], counts: Tensor) -> dict[str, Any] | None:
    """Hit@1 over all slots as a score beside its floor; None where nothing was asked."""
    if not hits:
        return None
    real, floor = (torch.stack(each).sum(0) for each in zip(*hits, strict=True))
    drawn, below = resampler.means(torch.stack([real, floor]), counts)
    beside = rate(below, counts)
    won = interval(gain(drawn, below[None]))
    return {**rate(drawn, counts), "floors": {"another_problem": beside}, "floor": beside["value"], "gain": won}
