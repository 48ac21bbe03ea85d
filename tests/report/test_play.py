"""Playing with a run: what is typed is thought through, read, and edited, in a terminal and on a page of this machine."""

import io
import json
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import pytest
import torch

from latent_lab.job import job
from latent_lab.report.play import Edit, PlayError, Saying, as_question, expected, player
from latent_lab.report.play import as_problem as problem
from latent_lab.report.play_task import PlayTask
from latent_lab.report.play_terminal import clean, talk
from tests.test_page_outline import Outline
from tests.tiny import train


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = ("stage=coconut", "stage.stages=[0,3]", "stage.epochs=[1]", "oracle=steps")
    return train(tmp_path_factory.mktemp("outputs"), *options)


@pytest.fixture(scope="module")
def at(run):
    norms = Saying("norm", lambda thoughts: [(f"{float(v.norm()):.3f}", 0.5) for v in thoughts])
    with player(job("eval", [f"run={run}", "device=cpu", "task=play"]), [norms]) as opened:
        yield opened


def norms(scene):
    """What the reader of norms said of each thought."""
    return [thought.readings[scene.readers.index("norm")][0] for thought in scene.thoughts]
