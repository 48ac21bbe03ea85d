"""What was thought, in the forms of other tools: a samples file of lm-evaluation-harness, a log of Inspect.

For lm-evaluation-harness each chain is a file, ``samples_METHOD_chainN_TIME.jsonl``: a row for each problem and iteration, where
the iteration is its ``filter``. For Inspect each method is a log, ``TIME_METHOD_ID.json``, in which a chain is an epoch and an
iteration a score. ``TIME`` is when the evaluation began, so that the same rows give the same files. Accuracies are means over
samples, without an interval: the forms have no place for one over problems.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from latent_lab.deliberation.prompts import Prompt
from latent_lab.files import write_json, write_lines
from latent_lab.problems import Problem

Row = Mapping[str, Any]
Chains = Mapping[str, Mapping[int, Sequence[Row]]]
"""The rows of a method's chains, by problem and number, each in the order of its iterations."""
INVALID = "[invalid]"
"""How lm-evaluation-harness writes that no answer was found."""
STOPS = {"stop": "stop", "length": "max_tokens", "budget": "max_tokens"}
"""Inspect's words for how a text ended; any other is ``unknown``."""


@dataclass(frozen=True)
class Source:
    """What the forms say of an evaluation besides its rows."""

    model: str
    dataset: str
    started: str
    """As in ``2026-01-31T09:30:00+00:00``."""
    prompt: Prompt
    """Of the first attempt."""
    problems: Sequence[Problem]


def check_forms(names: Sequence[str]) -> None:
    """ValueError for a form there is not."""
    allowed = ", ".join(FORMS)
    for name in names:
        if name not in FORMS or list(names).count(name) > 1:
            raise ValueError(f"export={name}: allowed are {allowed}, each once")


def export(names: Sequence[str], rows: Sequence[Row], source: Source, folder: Path) -> list[Path]:
    """Write rows of samples in these forms, each into a folder of its name, and return the files."""
    methods: dict[str, dict[str, dict[int, list[Row]]]] = {}
    for row in sorted(rows, key=lambda row: row["iteration"]):
        methods.setdefault(row["method"], {}).setdefault(str(row["id"]), {}).setdefault(row["chain"], []).append(row)
    made: list[Path] = []
    for name in names:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for method, chains in methods.items():
            made += FORMS[name](method, chains, source, folder / name)
    return made


def lm_eval(method: str, chains: Chains, source: Source, folder: Path) -> Iterator[Path]:
    """A samples file for each chain."""
    for number in sorted({number for each in chains.values() for number in each}):
        path = folder / f"samples_{method}_chain{number}_{source.started.replace(':', '-')}.jsonl"
        each = [documents(place, problem, chains[problem.id][number], source) for place, problem in enumerate(source.problems)]
        write_lines(path, [row for rows in each for row in rows])
        yield path


def documents(place: int, problem: Problem, chain: Sequence[Row], source: Source) -> Iterator[dict[str, Any]]:
    """The rows of one problem, an iteration each."""
    doc = {"id": problem.id, "question": problem.question, "answer": problem.answer}
    asked = source.prompt.filled({"question": problem.question})
    for row, text in zip(chain, texts(chain), strict=True):
        yield {
            "doc_id": place,
            "doc": doc,
            "target": problem.answer,
            "arguments": {"gen_args_0": {"arg_0": asked, "arg_1": {}}},
            "resps": [[text]],
            "filtered_resps": [INVALID if row["answer"] is None else row["answer"]],
            "filter": f"iteration_{row['iteration']}",
            "metrics": ["exact_match"],
            "doc_hash": sha256(json.dumps(doc, indent=2, ensure_ascii=False)),
            "prompt_hash": sha256(asked),
            "target_hash": sha256(problem.answer),
            "exact_match": float(row["correct"]),
        }


def inspect_log(method: str, chains: Chains, source: Source, folder: Path) -> Iterator[Path]:
    """The log of a method."""
    in_order = [(problem, *each) for problem in source.problems for each in sorted(chains[problem.id].items())]
    samples = [sample(problem, chain, number, source) for problem, number, chain in in_order]
    ids = [problem.id for problem in source.problems]
    spent = {name: sum(each["model_usage"][source.model][name] for each in samples) for name in usage(0, 0)}
    name = sha256(f"{source.started} {source.model} {method}")[:22]
    path = folder / f"{source.started.replace(':', '-')}_{method.replace('_', '-')}_{name}.json"
    about = {
        "eval_id": name,
        "run_id": name,
        "created": source.started,
        "task": method,
        "task_id": name,
        "dataset": {"name": source.dataset, "samples": len(ids), "sample_ids": ids, "shuffled": False},
        "model": source.model,
        "config": {"epochs": len(samples) // len(ids)},
        "packages": {},
    }
    log = {
        "version": 2,
        "status": "success",
        "eval": about,
        "plan": {"name": method, "steps": [], "config": {}},
        "results": {"total_samples": len(samples), "completed_samples": len(samples), "scores": [*scores(samples)]},
        "stats": {"started_at": source.started, "completed_at": source.started, "model_usage": {source.model: spent}},
        "samples": samples,
    }
    write_json(path, log)
    yield path


def sample(problem: Problem, chain: Sequence[Row], number: int, source: Source) -> dict[str, Any]:
    """A chain as a conversation: every attempt, and between two of them what was handed on as text."""
    asked = source.prompt.filled({"question": problem.question})
    messages: list[dict[str, Any]] = [{"role": "user", "content": asked}]
    for row in chain:
        if not row["is_carried"]:
            messages.append(said(source.model, row["reasoning"]))
        if row["summary"]:
            messages.append({"role": "user", "content": row["summary"], "metadata": {"handed_on": True}})
    attempts = [row for row in chain if not row["is_carried"]]
    stop, last = STOPS.get(attempts[-1]["finish_reason"], "unknown"), said(source.model, attempts[-1]["reasoning"])
    used = usage(sum(row["prompt_tokens"] for row in chain), chain[-1]["cum_tokens"])
    error = next((row["error"] for row in chain if row["error"]), None)
    broke = {"message": error, "traceback": error, "traceback_ansi": error}
    return {
        "id": problem.id,
        "epoch": number + 1,
        "input": problem.question,
        "target": problem.answer,
        "messages": messages,
        "output": {"model": source.model, "choices": [{"message": last, "stop_reason": stop}]},
        "scores": {f"iteration_{row['iteration']}": score(row) for row in chain},
        "metadata": {"stop_reasons": [row["stop_reason"] for row in attempts]},
        "model_usage": {source.model: used},
        **({"error": broke} if error else {}),
    }


def said(model: str, text: str) -> dict[str, Any]:
    """A message that a model wrote."""
    return {"role": "assistant", "content": text, "source": "generate", "model": model}


def score(row: Row) -> dict[str, Any]:
    """What an iteration is worth: C or I, as Inspect writes right and wrong."""
    why = f"read by {row['extractor']}" if row["extractor"] else row["reason"]
    return {"value": "C" if row["correct"] else "I", "answer": row["answer"], "explanation": why}


def scores(samples: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """The accuracy of each iteration."""
    for name in samples[0]["scores"]:
        right = fmean(each["scores"][name]["value"] == "C" for each in samples)
        accuracy = {"name": "accuracy", "value": right, "params": {}}
        yield {"name": name, "scorer": name, "params": {}, "metrics": {"accuracy": accuracy}}


def usage(prompt: int, completion: int) -> dict[str, int]:
    """Tokens as Inspect counts them: those that attempts read, those that attempts and notes wrote; money is the ledger's."""
    return {"input_tokens": prompt, "output_tokens": completion, "total_tokens": prompt + completion}


def texts(chain: Sequence[Row]) -> Iterator[str]:
    """The text that each iteration's answer was read from: where nothing was written any more, the last that was."""
    text = ""
    for row in chain:
        text = text if row["is_carried"] else row["reasoning"]
        yield text


def sha256(text: str) -> str:
    """Of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


FORMS: dict[str, Callable[[str, Chains, Source, Path], Iterator[Path]]] = {"lm_eval": lm_eval, "inspect": inspect_log}
"""What writes each form."""
