"""What each lens says of states: scores of all tokens of the vocabulary, and the ranks of those that are asked about."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from latent_lab.reasoner import LatentReasoner, final_norm
from latent_lab.thoughts.grammar import Grammar
from latent_lab.thoughts.injection import Places, injected

ROWS = 256
"""States that are looked at together."""

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


def patchscope(reasoner: LatentReasoner, tokenizer: Tokenizer, words: Sequence[str], target: int = 0) -> Scores:
    """What the model writes after a word of a prompt that copies, whose state in layer ``target`` is another's.

    ``words`` are the examples, ``w=w`` on a line each. Target 0 is the word's input embedding, n its state after block n.
    InjectionError for a target that the model does not have.
    """
    before = tokenizer("".join(f"{word}={word}\n" for word in words), add_special_tokens=True)["input_ids"]
    after = tokenizer("=", add_special_tokens=False)["input_ids"]
    prompt = torch.tensor([*before, reasoner.tokens.latent, *after], device=reasoner.device)

    def scores(states: Tensor) -> Tensor:
        rows = torch.arange(len(states), device=states.device)
        places = Places(rows, torch.full_like(rows, len(before)), states, len(prompt))
        with injected(reasoner.model, [target], places, replace=True):
            said = reasoner.model(input_ids=prompt.repeat(len(states), 1), use_cache=False, logits_to_keep=1)
        return said.logits[:, -1].float()

    return scores


def example_words(grammar: Grammar) -> list[str]:
    """Words for a prompt that copies: two values of the field with the most of them."""
    values = max(grammar.values.values(), key=len, default=())
    return [values[len(values) // 3], values[2 * len(values) // 3]] if len(values) > 1 else ["3", "7"]


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

    def repeated(self, count: int) -> "Seen":
        """The same of ``count`` problems, where it was said of one."""
        ranks = {field: each.expand(count, -1) for field, each in self.ranks.items()}
        return Seen(ranks, self.digits.expand(count), self.entropy.expand(count))


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
