"""The device that work is measured on: what its rows must keep to, when it is done, what it holds, how fast it multiplies."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from latent_lab.bench.timing import Work, median_of, timed

GPT2_VOCABULARY = 50_257


@dataclass(frozen=True)
class Machine:
    """A device, what is measured there, and how many plain steps a step may cost."""

    device: torch.device
    types: tuple[torch.dtype, ...] = (torch.float32,)
    """Number formats; all but float32 by autocast, as in training."""
    late_bar: float = 0.85
    """With six thoughts."""
    early_bar: float = 0.95
    """In an early stage."""
    own_bar: float = 1.2
    """With a vocabulary so small that the head costs nothing: leaving it out where nothing is learned saves nothing either. The
    same tokens pass the same blocks, and the one-token passes come on top."""
    compiled_bar: float | None = None
    """With one-token passes that are compiled, where there is a bar for them."""
    backend: str = "inductor"
    """What compiles them."""
    matrix: int = 2048
    """Rows of the matrices that show how fast the device multiplies."""
    mini: tuple[int, int] = (4, 256)
    """Layers and width."""
    small: tuple[int, int] = (12, 768)
    vocabulary: int = GPT2_VOCABULARY

    @classmethod
    def named(cls, device: str) -> "Machine":
        """``cpu`` or ``cuda``. On a GPU a step waits for the launches of its one-token passes, hence other bars."""
        if device == "cpu":
            return cls(torch.device("cpu"))
        types = (torch.float32, torch.bfloat16) if torch.cuda.is_bf16_supported(including_emulation=False) else (torch.float32,)
        return cls(torch.device(device), types, late_bar=1.4, early_bar=1.4, own_bar=1.4, compiled_bar=1.15, matrix=8192)

    def size(self, what: str) -> tuple[int, int]:
        """Layers and width of what a row's name begins with."""
        return self.mini if what.startswith("mini") else self.small

    @property
    def name(self) -> str:
        """For the result: ``cpu``, or which GPU."""
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type


def best_device() -> str:
    """A GPU if there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def name_of(dtype: torch.dtype) -> str:
    """What a row's name says of its number format: nothing of float32."""
    return "" if dtype == torch.float32 else f", {str(dtype).removeprefix('torch.')}"


def done(device: torch.device) -> None:
    """Wait until the device has done what it was asked for; a CPU has."""
    torch.get_device_module(device).synchronize()


def precision(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """What a forward pass in ``dtype`` is to run in."""
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


def product_rate(machine: Machine, dtype: torch.dtype, n: int) -> float:
    """GFLOP/s of a product of two large matrices: the machine's own measure."""
    matrix = torch.randn(machine.matrix, machine.matrix, device=machine.device, dtype=dtype)

    def product() -> None:
        matrix @ matrix
        done(machine.device)

    product()
    return 2 * machine.matrix**3 / median_of(lambda: timed(product), n) / 1e9


def peak(work: Work, device: torch.device) -> int:
    """Bytes that ``work`` holds at most above what there was before, as PyTorch's allocator counts them."""
    work()  # gradients exist from here on
    return _peak_of_gpu(work, device) if device.type == "cuda" else _peak_of_cpu(work)


def _peak_of_gpu(work: Work, device: torch.device) -> int:
    done(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    work()
    done(device)
    return torch.cuda.max_memory_allocated(device) - before


def _peak_of_cpu(work: Work) -> int:
    from torch.profiler import ProfilerActivity, profile

    with quiet(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        work()
    results: Any = profiled.profiler
    held = most = 0
    for event in sorted(results.kineto_results.events(), key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what the profiler's C++ writes about itself off the terminal."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
