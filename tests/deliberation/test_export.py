"""What was thought, as other tools read it: files of lm-evaluation-harness for chains, logs of Inspect for methods."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from faultserver import FaultServer, answer

from latent_lab.deliberation.export import Source, export
from latent_lab.deliberation.prompts import load_prompt
from latent_lab.job import job
from latent_lab.problems import Problem

pytest.importorskip("openai", reason="the extra api is not installed")

STARTED = "2026-01-31T09:30:00+00:00"
SOURCE = Source(
    "tiny", "test split, problems 1234", STARTED, load_prompt("reason", "plain_v1"),
    [Problem("p0", "3+0?", (), "3"), Problem("p1", "3+1?", (), "4")],
)  # fmt: skip


def row(name: str, iteration: int, said: str | None, gold: str, **more: Any) -> dict[str, Any]:
    """A row of a chain that writes 7 tokens an attempt, and 5 for what it hands on."""
    text = "" if said is None else f"so \\boxed{{{said}}}"
    cumulated = 12 * min(iteration, 1) + 7
    usual = {"method": "whole", "id": name, "chain": 0, "iteration": iteration, "answer": said, "correct": said == gold,
             "reason": "no_answer" if said is None else None, "extractor": None if said is None else "boxed",
             "reasoning": text, "summary": None, "finish_reason": "stop", "prompt_tokens": 10, "cum_tokens": cumulated,
             "stop_reason": None, "error": None, "is_carried": False}  # fmt: skip
    return usual | more


CARRIED: dict[str, Any] = {"reasoning": None, "prompt_tokens": 0, "is_carried": True}
ROWS = [
    row("p0", 0, "5", "3", summary="notes"),
    row("p0", 1, "3", "3", finish_reason="length", stop_reason="fixed"),
    row("p1", 0, None, "4", stop_reason="error", error="500: oops"),
    row("p1", 1, None, "4", stop_reason="error", error="500: oops", cum_tokens=7, **CARRIED),
]


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_a_chain_is_a_samples_file_of_the_harness(tmp_path: Path) -> None:
    (path,) = export(["lm_eval"], ROWS, SOURCE, tmp_path)
    assert path == tmp_path / "lm_eval" / "samples_whole_chain0_2026-01-31T09-30-00+00-00.jsonl"
    first, second, third, fourth = map(json.loads, path.read_text().splitlines())
    assert first == {
        "doc_id": 0,
        "doc": {"id": "p0", "question": "3+0?", "answer": "3"},
        "target": "3",
        "arguments": {"gen_args_0": {"arg_0": "3+0?", "arg_1": {}}},
        "resps": [["so \\boxed{5}"]],
        "filtered_resps": ["5"],
        "filter": "iteration_0",
        "metrics": ["exact_match"],
        "doc_hash": sha256('{\n  "id": "p0",\n  "question": "3+0?",\n  "answer": "3"\n}'),
        "prompt_hash": sha256("3+0?"),
        "target_hash": sha256("3"),
        "exact_match": 0.0,
    }
    assert (second["doc_id"], second["filter"], second["exact_match"]) == (0, "iteration_1", 1.0)
    assert [(each["doc_id"], each["resps"], each["filtered_resps"]) for each in (third, fourth)] == [
        (1, [[""]], ["[invalid]"])
    ] * 2


def test_a_method_is_a_log_of_inspect(tmp_path: Path) -> None:
    (path,) = export(["inspect"], ROWS, SOURCE, tmp_path)
    assert path.name.startswith("2026-01-31T09-30-00+00-00_whole_")
    log = read(path)
    assert (log["version"], log["status"], log["eval"]["task"], log["eval"]["model"]) == (2, "success", "whole", "tiny")
    assert log["eval"]["dataset"] == {"name": SOURCE.dataset, "samples": 2, "sample_ids": ["p0", "p1"], "shuffled": False}
    assert [(each["name"], each["metrics"]["accuracy"]["value"]) for each in log["results"]["scores"]] == [
        ("iteration_0", 0.0),
        ("iteration_1", 0.5),
    ]
    first, second = log["samples"]
    assert [(each["role"], each["content"]) for each in first["messages"]] == [
        ("user", "3+0?"),
        ("assistant", "so \\boxed{5}"),
        ("user", "notes"),
        ("assistant", "so \\boxed{3}"),
    ]
    assert first["output"]["choices"][0]["stop_reason"] == "max_tokens"
    assert first["scores"] == {
        "iteration_0": {"value": "I", "answer": "5", "explanation": "read by boxed"},
        "iteration_1": {"value": "C", "answer": "3", "explanation": "read by boxed"},
    }
    assert first["model_usage"] == {"tiny": {"input_tokens": 20, "output_tokens": 19, "total_tokens": 39}}
    assert log["stats"]["model_usage"]["tiny"] == {"input_tokens": 30, "output_tokens": 26, "total_tokens": 56}
    assert (second["error"]["message"], len(second["messages"])) == ("500: oops", 2)


READER = """
import sys
from inspect_ai.log import list_eval_logs, read_eval_log
log = read_eval_log(sys.argv[1])
print([(each.id, each.epoch, each.scores["iteration_1"].value) for each in log.samples])
print(log.results.scores[1].metrics["accuracy"].value)
print([each.name.rpartition("/")[2] for each in list_eval_logs(sys.argv[2])])
"""


def test_inspect_reads_what_is_written_for_it(tmp_path: Path) -> None:
    inspect = Path(sys.prefix, "inspect", "bin", "python")  # of its own: its dependencies do not go with the project's
    if not inspect.exists():
        pytest.skip("no Inspect: python -m venv .venv/inspect; .venv/inspect/bin/pip install inspect_ai")
    (path,) = export(["inspect"], ROWS, SOURCE, tmp_path)
    ended = subprocess.run([inspect, "-c", READER, path, path.parent], capture_output=True, text=True, timeout=120, check=True)
    assert ended.stdout == f"[('p0', 1, 'C'), ('p1', 1, 'I')]\n0.5\n['{path.name}']\n"


def test_a_form_that_there_is_not_is_named() -> None:
    with pytest.raises(ValueError, match=r"^task\.export: given helm; allowed: lm_eval, inspect, each once$"):
        job("eval", ["task=summarize", "backend=vllm", "backend.model=m", "dataset=gsm8k", "task.export=[helm]"])


def test_a_complete_evaluation_is_exported_without_a_call(tmp_path: Path) -> None:
    problems = tmp_path / "p.jsonl"
    problems.write_text("".join(json.dumps({"id": f"p{n}", "question": f"3+{n}?", "answer": str(3 + n)}) + "\n" for n in (0, 1)))
    small = ["task.methods=[first_k]", "task.iterations=1", "task.chains=2", "task.samples=2", "backend.api_key_env=null"]
    with FaultServer(say=lambda body: answer(f"a b</think>\\boxed{{{3 + body['seed'] % 2}}}")).running() as faults:
        asked = ["task=summarize", "backend=openai", "backend.model=tiny", f"backend.base_url={faults.base_url}", *small]
        words = [*asked, "dataset=file", f"dataset.path={problems}", f"out={tmp_path / 'o'}"]
        for overrides in ([], ["task.export=[lm_eval,inspect]"]):
            made = job("eval", [*words, *overrides])
            made.config.task.run(made)
            num_asked = len(faults.seen)
            assert (tmp_path / "o" / "export").exists() is bool(overrides)
        assert num_asked == 8  # two problems, two chains, two attempts
    names = sorted(path.name.rpartition("_")[0] for path in (tmp_path / "o" / "export" / "lm_eval").iterdir())
    assert names == ["samples_first_k_chain0", "samples_first_k_chain1", "samples_samples_chain0", "samples_samples_chain1"]
    first, votes = sorted((tmp_path / "o" / "export" / "inspect").iterdir())
    assert (read(first)["eval"]["config"], read(votes)["eval"]["config"]) == ({"epochs": 2}, {"epochs": 2})
    # Chain 0 draws with the seeds 0 and 1, chain 1 with 1000 and 1001: the first says 3, the second 4, of 3 and 4.
    assert [each["metrics"]["accuracy"]["value"] for each in read(first)["results"]["scores"]] == [0.5, 0.5]
