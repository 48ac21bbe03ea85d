"""A run whose answers see its thoughts alone, opened to be looked into."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from latent_lab.grading.session import Session, session
from latent_lab.grading.task import Answers
from latent_lab.job import job
from tests.tiny import train


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    folder = tmp_path_factory.mktemp("outputs")
    run: Path = train(folder, "stage=coconut", "stage.stages=[0,3]", "stage.epochs=[1]", "stage.answer_sees=thoughts",
                      "stage.max_stage=3")  # fmt: skip
    asked = job("eval", [f"run={run}", "device=cpu", "batch_size=8", f"out={folder}/e"])
    with session(asked, Answers(max_new_tokens=5)) as opened:
        yield opened
