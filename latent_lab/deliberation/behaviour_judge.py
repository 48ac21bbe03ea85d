"""What reasoning is made of, by a language model: the behaviours of :mod:`latent_lab.deliberation.behaviours`, read, not counted.

A text is cut into the sentences that the rules see. The judge gets them with their numbers and says a behaviour for each number.

Differs from paper (Simple, Scalable Reasoning via Iterated Summarization, published code): there the judge writes the text again
with its labels, in parts that overlap. Here no sentence is copied, so none can come back altered, twice or not at all.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latent_lab.calls.ledger import read_ledger, totals
from latent_lab.config import ConfigError, Nothing
from latent_lab.deliberation.behaviours import NAMES, TEXTS, behaviour, sentences
from latent_lab.deliberation.chains import Table
from latent_lab.deliberation.prompts import load_prompt
from latent_lab.files import write_lines
from latent_lab.grading.agreement import cohen_kappa
from latent_lab.grading.judge import check_replies
from latent_lab.grading.judge_prompt import LONGEST_REPLY, objects
from latent_lab.grading.judges import Asking
from latent_lab.grading.statistics import wilson

if TYPE_CHECKING:
    import torch

PROMPT = "v1"
FOLDER, LABELS = "behaviours", "labels.jsonl"
"""Where the judge's calls and labels lie, apart from those of whoever thought."""
PART = 30
"""Sentences of one question."""
LONGEST_SENTENCE = 1_000
"""Characters shown of a sentence; a text may go on without ever ending one."""

Labels = Mapping[str, Sequence[str | None]]
"""For each text a behaviour of every sentence, None where the judge said none."""


@dataclass(frozen=True)
class Judged:
    """What a judge made of all texts."""

    labels: Labels
    about: dict[str, Any]
    """The judge, how far it agrees with the rules, and what it cost."""

    def counted(self, text: str) -> Counter[str]:
        """How many sentences of a text show each behaviour; those without a label are left out."""
        return Counter(label for label in self.labels[text] if label)


def asking(judge: Any) -> Asking | None:
    """The judge, if there is one; :class:`ConfigError` for settings that say nothing here."""
    if isinstance(judge, Nothing | None):
        return None
    found: Asking = judge
    if len(found.names) > 1:
        raise ConfigError("judge", ", ".join(found.names), "one model counts behaviours; allowed: votes=1, and no more_models")
    if found.prompt != PROMPT:
        raise ConfigError("judge.prompt", found.prompt, f"behaviours have a prompt of their own; allowed: {PROMPT}")
    return found


def identity(judge: Asking | None) -> dict[str, str]:
    """What decides the labels though no setting shows it."""
    return {"behaviours_prompt": load_prompt("behaviours", PROMPT).sha256} if judge else {}


def judged(judge: Asking, table: Table, folder: Path, device: "torch.device | str", seed: int) -> Judged:
    """Have every sentence of a table's texts labelled, and write the labels into a folder of their own below ``folder``.

    Raises :class:`latent_lab.grading.judge.JudgeError` where too few replies came, and BudgetSpent where a budget ends it; what
    was answered is kept, and the same call goes on from there.
    """
    place = folder / FOLDER
    told = texts(table)
    cut = {text: sentences(text) for _, text in told}
    parts = list(dict.fromkeys(part for each in cut.values() for part in parts_of(each)))
    prompt = load_prompt("behaviours", PROMPT)
    asked = [({"role": "user", "content": prompt.filled({"sentences": numbered(part)})},) for part in parts]
    with judge.talking(place, device) as talk:
        replies = talk(asked, 0) if asked else []
    check_replies(judge, [reply.error for reply in replies], len(parts))
    read = {
        part: [None] * len(part) if reply.error else read_labels(reply.text or "", len(part))
        for part, reply in zip(parts, replies, strict=True)
    }
    labels = {text: [label for part in parts_of(each) for label in read[part]] for text, each in cut.items()}
    place.mkdir(parents=True, exist_ok=True)
    write_lines(place / LABELS, [{"problem": p, "sentences": cut[text], "labels": labels[text]} for p, text in told])
    calls = read_ledger(place)
    about = {"name": judge.names[0], "prompt": {"name": PROMPT, "sha256": prompt.sha256}, **beside_rules(told, labels, seed)}
    return Judged(labels, {**about, **({"calls": totals(calls)} if calls else {})})


def texts(table: Table) -> list[tuple[str, str]]:
    """Every text of a problem once, with the problem, in an order that no order of rows moves."""
    chains = [chain for each in table.methods.values() for chain in each]
    found = ((c.problem, getattr(each, field)) for c in chains for each in c.iterations for field in TEXTS)
    return list(dict.fromkeys((problem, text) for problem, text in found if text))


def parts_of(cut: Sequence[str]) -> list[tuple[str, ...]]:
    """The sentences of a text as the judge gets them."""
    return [tuple(cut[i : i + PART]) for i in range(0, len(cut), PART)]


def numbered(part: Sequence[str]) -> str:
    """Sentences with their numbers, from 1, a line each."""
    return "\n".join(f"{i}. {' '.join(text.split())[:LONGEST_SENTENCE]}" for i, text in enumerate(part, start=1))


def read_labels(text: str, num_sentences: int) -> list[str | None]:
    """The behaviour of each sentence in a judge's reply; the last JSON object that names one counts."""
    for found in objects(text[-LONGEST_REPLY:]):
        said = [found.get(str(number)) for number in range(1, num_sentences + 1)]
        labels = [name if (name := spelled(label)) in NAMES else None for label in said]
        if any(labels):
            return labels
    return [None] * num_sentences


def spelled(label: object) -> str | None:
    """A label as behaviours are written here."""
    return re.sub(r"[\s-]+", "_", label.strip().casefold()) if isinstance(label, str) else None


def beside_rules(told: Sequence[tuple[str, str]], labels: Labels, seed: int) -> dict[str, Any]:
    """How many sentences have no label, and how far judge and rules agree on the others, resampled by problem."""
    pairs = [
        (problem, label, behaviour(sentence))
        for problem, text in told
        for sentence, label in zip(sentences(text), labels[text], strict=True)
    ]
    read = [pair for pair in pairs if pair[1]]
    problems, first, second = zip(*read, strict=True) if read else ((), (), ())
    return {
        "texts": len(told),
        "unreadable": wilson(len(pairs) - len(read), len(pairs)).as_dict(),
        "kappa_with_rules": cohen_kappa(first, second, seed=seed, clusters=problems).as_dict(),
    }
