"""The program tells the allocator to keep freed memory: what is asked for again costs no pages of the kernel's."""

import subprocess
import sys
from pathlib import Path

import pytest

FAULTS = """
import resource, sys
from latent_lab.door import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
size = 2**26
def use():
    made = b"x" * size
use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    use()
sys.stdout.write(str(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before))
"""


def faults(how: str) -> int:
    """Page faults of a new process that asks five times for 64 MB it has had before."""
    command = [sys.executable, "-c", FAULTS, how]
    return int(subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1]).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="the setting is that of glibc")
def test_memory_asked_for_again_is_at_hand() -> None:
    assert faults("kept") < 20 < faults("as it is")
