"""Everything a table of chains tells, as one result: the schema of ``task=iterations``.

``result.json`` holds, besides ``task``, ``path``, ``seconds`` and ``interval`` (what all intervals are)::

    num_iterations, num_problems, num_chains, errors, has_answers
    shared_first     whether all methods begin with the same first iteration, run by run and problem by problem
    floors           where golds are told: majority, what always giving the commonest gold answer would score
    flags_disagree   the same: flags that our comparison of answer and gold decides otherwise
    classes, choices, ties   the six outcomes of a chain, rules to choose an answer of it, rules for a tied vote: defined
    probes           what is asked of a note: defined
    methods          by name:
        runs, num_problems, num_chains, errors (chains that broke off; they count as wrong)
        iterations   for each k: iteration, accuracy, per_run {run: share}, sem_over_runs, per_year {year: accuracy},
                     missing (no answer); where told: truncated, reasoning_tokens, summary_tokens, compression,
                     behaviours {reasoning, summary: {texts, sentences_per_text, shares {name: {count, ...}}}};
                     notes {notes, and shares of PROBES}, of what was handed on as text;
                     behaviours_judged, the same by a judge, of the sentences to which it gave a label;
            behaviours_kept {texts, covered, in_order}, what summaries keep of their reasoning's behaviours, by rules
        gain         last minus first: n, difference, table [both, first alone, last alone, neither], fixed, broken,
                     mcnemar_p, sign_flip_p, mcnemar_holm_p, sign_flip_holm_p (Holm over methods)
        transitions  for each step: from, to, kept_right, broken, fixed, kept_wrong; where answers are told: changed,
                     disappeared, persistence, persistence_right, persistence_wrong
        classes      {name: {count, ...}}
        choices      {rule: {value, n, low, high, iterations}}: which answer of a chain to take, and how many iterations
                     that needs on average
        votes        for each iteration, over the runs (two or more): rule, accuracy, over_one_chain, rules {rule: share},
                     ties, silent
    ranking          order, pairs [{better, worse, and as in gain}] with Holm over pairs, verdict
    gains            verdict on the gains
    behaviours_judge where there is a judge: name, prompt, texts, unreadable (share of sentences without a label),
                     kappa_with_rules, calls

Every accuracy, share and difference is ``{value, n, low, high}``; ``n`` counts problems, which are what is resampled.
"""

from collections import Counter
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import Any

from latent_lab.deliberation.behaviour_judge import Judged
from latent_lab.deliberation.behaviours import TEXTS, behaviours, kept
from latent_lab.deliberation.chains import Chain, Table
from latent_lab.deliberation.choices import CHOICES, choices
from latent_lab.deliberation.compared import ALPHA, corrected, gain, ranking
from latent_lab.deliberation.outcomes import CLASSES, classes, lengths, outcome, rate, transitions
from latent_lab.deliberation.probes import PROBES, probes
from latent_lab.deliberation.vote import TIES, votes
from latent_lab.grading.answers import normalise
from latent_lab.grading.statistics import wilson

INTERVAL = "95%, percentile bootstrap over problems: a problem comes with all its chains"


def analysis(table: Table, seed: int, judged: Judged | None = None) -> dict[str, Any]:
    """Everything of all methods; see the head of this file. ``judged`` is what a judge said of the texts."""
    methods = table.methods
    gains = corrected({name: gain(chains, seed) for name, chains in methods.items()})
    return {
        "interval": INTERVAL,
        "num_iterations": table.num_iterations,
        "num_problems": len(table.problems),
        "num_chains": len(table.chains),
        "errors": sum(chain.is_error for chain in table.chains),
        "has_answers": table.has_answers,
        "shared_first": is_first_shared(table.chains),
        **(against_golds(table.chains) if table.has_golds else {}),
        "classes": CLASSES,
        "choices": CHOICES,
        "ties": TIES,
        "probes": PROBES,
        "methods": {name: {**method(chains, table, seed, judged), "gain": gains[name]} for name, chains in methods.items()},
        "ranking": ranking(methods, seed),
        "gains": verdict_on(gains),
        **({"behaviours_judge": judged.about} if judged else {}),
    }


def method(chains: Sequence[Chain], table: Table, seed: int, judged: Judged | None = None) -> dict[str, Any]:
    """All of one method but its comparisons."""
    runs = sorted({chain.run for chain in chains})
    return {
        "runs": runs,
        "num_problems": len({chain.problem for chain in chains}),
        "num_chains": len(chains),
        "errors": sum(chain.is_error for chain in chains),
        "iterations": [iteration(chains, k, runs, table.has_answers, seed, judged) for k in range(table.num_iterations)],
        "transitions": transitions(chains, table.has_answers, seed),
        "classes": classes(chains, seed),
        "choices": choices(chains, table.has_answers, seed),
        **({"votes": votes(chains, table.has_golds, seed)} if len(runs) > 1 else {}),
    }


def iteration(
    chains: Sequence[Chain], k: int, runs: Sequence[str], has_answers: bool, seed: int, judged: Judged | None
) -> dict[str, Any]:
    """One iteration of a method."""
    per_run = {run: fmean(chain.right[k] for chain in chains if chain.run == run) for run in runs}
    years = sorted({chain.year for chain in chains if chain.year is not None})
    by_year = {year: [chain for chain in chains if chain.year == year] for year in years}
    found: dict[str, Any] = {
        "iteration": k,
        "accuracy": rate(chains, [chain.right[k] for chain in chains], seed),
        "per_run": per_run,
        "sem_over_runs": stdev(per_run.values()) / len(runs) ** 0.5 if len(runs) > 1 else None,
    }
    if years:
        found["per_year"] = {year: rate(part, [chain.right[k] for chain in part], seed) for year, part in by_year.items()}
    if has_answers:
        found["missing"] = sum(chain.answers[k] is None for chain in chains)
    found |= lengths(chains, k, seed)
    if noted := probes(chains, k, seed):
        found["notes"] = noted
    if shown := {field: each for field in TEXTS if (each := behaviours(chains, field, k, seed))}:
        found["behaviours"] = shown
    if held := kept(chains, k, seed):
        found["behaviours_kept"] = held
    if judged and (shown := {field: each for field in TEXTS if (each := behaviours(chains, field, k, seed, judged.counted))}):
        found["behaviours_judged"] = shown
    return found


def is_first_shared(chains: Sequence[Chain]) -> bool:
    """Whether chains of different methods agree on the first iteration wherever they have run and problem in common."""
    first: dict[tuple[str, str], tuple[bool, str | None]] = {}
    return all(
        first.setdefault((chain.run, chain.problem), (chain.right[0], chain.answers[0])) == (chain.right[0], chain.answers[0])
        for chain in chains
    )


def against_golds(chains: Sequence[Chain]) -> dict[str, Any]:
    """The majority floor, and how many flags say otherwise than the answer does, be it ``045`` for 45."""
    golds = {chain.problem: normalise(chain.gold or "") for chain in chains}
    commonest = max(Counter(golds.values()).values())
    otherwise = sum(
        each.is_right != (answer == golds[chain.problem])
        for chain in chains
        for each, answer in zip(chain.iterations, chain.answers, strict=True)
    )
    return {"floors": {"majority": wilson(commonest, len(golds)).as_dict()}, "flags_disagree": otherwise}


def verdict_on(gains: dict[str, dict[str, Any]]) -> str:
    """Which methods end better or worse than they began, in a sentence."""
    changed = {name: each["difference"]["value"] > 0 for name, each in gains.items() if each["sign_flip_holm_p"] <= ALPHA}
    better = [name for name, is_better in changed.items() if is_better]
    worse = [name for name in changed if name not in better]
    parts = [f"{what} from first to last: {', '.join(each)}" for what, each in (("better", better), ("worse", worse)) if each]
    return f"{'; '.join(parts) or 'no method changes from first to last'} (sign-flip test after Holm over {len(gains)})"


def sample(chain: Chain) -> dict[str, Any]:
    """The row of ``samples.jsonl``."""
    return {
        **{key: getattr(chain, key) for key in ("method", "run", "problem", "year", "gold")},
        "answers": [each.answer for each in chain.iterations],
        "right": list(chain.right),
        "outcome": outcome(chain.right),
        "error": chain.is_error,
    }
