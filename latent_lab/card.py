"""A checkpoint's model card: what it is, how it was made, what it scored, how to load it. The same run gives the same bytes."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from latent_lab.config import NOT_RESULT
from latent_lab.run import NOTHING

ON_THE_HUB = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")

WITH_TRANSFORMERS = """\
```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
```
"""

WITH_VIRTUAL = """\
What was learned are virtual tokens, which PEFT puts before every sequence:

```python
from peft import PeftModel

model = PeftModel.from_pretrained(model, f"{folder}/adapter")
```
"""

WITH_LATENT_LAB = """\
```python
from pathlib import Path

import torch
from latent_lab import checkpoint

backbone, info, _ = checkpoint.load(Path(folder))
reasoner = checkpoint.thinking(Path(folder), backbone, info).eval()
tokenizer, tokens = backbone.tokenizer, backbone.tokens
ids = tokenizer(question + "\\n")["input_ids"]{markers}
new = reasoner.generate(
    torch.tensor([ids]),
    max_new_tokens=info.max_new_tokens,
    eos_token_id=tokenizer.eos_token_id,
    pad_token_id=backbone.pad,
)
answer = tokenizer.decode(new[0], skip_special_tokens=True)
```
"""

THINKING = """\
The question is followed by {num_slots} latent slots between two markers. Each slot is filled with the state of the position
before it, which plain `generate` does not do; latent_lab does:

""" + WITH_LATENT_LAB.replace("{markers}", " + [tokens.start, *[tokens.latent] * info.num_slots, tokens.end]")

SEEING_PLANS = """\
It has no latent slots: the prompt is the question and a line break. What it writes attends to planning tokens and its own segment
alone, which plain `generate` does not do; latent_lab does:

""" + WITH_LATENT_LAB.replace("{markers}", "")

KEEPING = """\
It has no latent slots. It keeps the positions of the tokens of its chain that it no longer writes, `info.stage` of them: the last
token of the question stands so much further on, and what is written follows it. Plain `generate` does not do so; latent_lab does:

""" + WITH_LATENT_LAB.replace("{markers}", "\nplaces = [*range(len(ids) - 1), len(ids) - 1 + info.stage]").replace(
    "    torch.tensor([ids]),\n", "    torch.tensor([ids]),\n    position_ids=torch.tensor([places]),\n"
)

WRITING = """\
It has no latent slots: the prompt is the question and a line break.

```python
prompt = tokenizer(question + "\\n", return_tensors="pt")
new = model.generate(**prompt, max_new_tokens=256, do_sample=False)
answer = tokenizer.decode(new[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True)
```
"""


def model_card(name: str, plain: Mapping[str, Any], num_slots: int | None, result: Mapping[str, Any] | None = None) -> str:
    """The text of a checkpoint's ``README.md``.

    Args:
        name: the run's name.
        plain: its configuration as plain values (:attr:`latent_lab.job.Job.plain`).
        num_slots: latent slots of a prompt; None where prompts have neither slots nor markers.
        result: what ``result.json`` holds, as far as it is known.
    """
    model, dataset, stage = plain["model"], plain["dataset"], plain["stage"]
    header: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": "text-generation"}
    header["tags"] = ["latent-reasoning", "latent_lab", *(["coconut"] if num_slots else [])]
    if hub_name(model.get("path")):
        header["base_model"] = model["path"]
    if hub_name(dataset.get("name")):
        header["datasets"] = [dataset["name"]]
    facts = {
        "base model": f"{model['path']}" if model.get("path") else "none: trained from random weights",
        "dataset": title(dataset),
        "method": title(stage),
        "adapters": title(plain["peft"]) if (plain.get("peft") or NOTHING) != NOTHING else "none: every weight was trained",
        "seed": plain["seed"],
        **scores(result or {}),
    }
    settings = {key: value for key, value in plain.items() if key not in NOT_RESULT and key != "_target_"}
    written = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
    parts = [
        f"---\n{yaml.safe_dump(header, sort_keys=False, allow_unicode=True)}---\n",
        f"# {name}\n",
        "A language model trained with latent_lab, a laboratory for latent reasoning.\n",
        "| | |\n|---|---|\n" + "".join(f"| {fact} | {in_a_cell(value)} |\n" for fact, value in facts.items()),
        "## How to use it\n",
        "It is a normal Hugging Face folder:\n",
        WITH_TRANSFORMERS,
        *([WITH_VIRTUAL] if "num_tokens" in (plain.get("peft") or {}) else []),
        usage(num_slots, stage),
        *framing(stage),
        "## Settings\n",
        f"```yaml\n{written}```\n",
    ]
    return "\n".join(parts)


def usage(num_slots: int | None, stage: Mapping[str, Any]) -> str:
    """How it is asked: by whatever computes what it was trained to do."""
    if num_slots is not None:
        return THINKING.format(num_slots=num_slots)
    if stage.get("keep_positions"):
        return KEEPING
    return WRITING if stage.get("text_sees", "all") == "all" else SEEING_PLANS


def framing(stage: Mapping[str, Any]) -> list[str]:
    """What is put around a question, where that is more than a line break."""
    if (template := stage.get("template", "plain")) == "plain":
        return []
    instruction = f" with the instruction {stage['instruction']!r}" if stage.get("instruction") else ""
    form = "Alpaca's headings" if template == "alpaca" else "the tokenizer's own chat template"
    return [f'Its questions were put in {form}{instruction}: put them so in place of `question + "\\n"`.\n']


def scores(result: Mapping[str, Any]) -> dict[str, str]:
    """What the model scored, each figure beside its floors; nothing where nothing is known."""
    if "accuracy" not in result:
        return {}
    split = result.get("split", "valid")
    floors = {f"{name.replace('_', ' ')} ({split})": rate for name, rate in result.get("floors", {}).items()}
    rates = {f"accuracy ({split})": result["accuracy"], **{f"floor: {name}": rate for name, rate in floors.items()}}
    return {name: in_words(rate) for name, rate in rates.items()}


def in_words(rate: Mapping[str, Any]) -> str:
    """A rate with its interval and n."""
    if rate["value"] is None:
        return "unknown (n = 0)"
    return f"{rate['value']:.1%} [{100 * rate['low']:.1f}, {100 * rate['high']:.1f}], n = {rate['n']}"


def hub_name(text: str | None) -> bool:
    """Whether a text names something on the hub rather than a folder here."""
    return text is not None and ON_THE_HUB.fullmatch(text) is not None and not Path(text).exists()


def title(component: Mapping[str, Any]) -> str:
    """A component's class and the few settings that a reader asks for first."""
    first = ("kind", "name", "path", "stages", "rank", "targets", "num_tokens")
    said = [f"{key}={component[key]}" for key in first if component.get(key) not in (None, "")]
    return " ".join([component["_target_"].rpartition(".")[2], *said])


def in_a_cell(value: Any) -> str:
    """Text that cannot end a table's cell."""
    return str(value).replace("|", "\\|").replace("\n", " ")
