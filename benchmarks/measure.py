"""How two implementations of one step are compared: in turns in one process, each one's memory in a process of its own,
and their gradients with those of float64."""

import ctypes
import gc
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

Side = Literal["textbook", "ours"]
SIDES: tuple[Side, Side] = ("textbook", "ours")


class Stopwatch:
    """Wall and CPU seconds of what both sides do, in the order in which it was done.

    The first of each side is apart: it compiles, allocates and starts threads.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.wall: dict[Side, list[float]] = {side: [] for side in SIDES}
        self.cpu: dict[Side, list[float]] = {side: [] for side in SIDES}

    def start(self) -> None:
        self._wait()
        self._begun = time.perf_counter(), time.process_time()

    def stop(self, side: Side) -> None:
        self._wait()
        self.wall[side].append(time.perf_counter() - self._begun[0])
        self.cpu[side].append(time.process_time() - self._begun[1])

    @contextmanager
    def __call__(self, side: Side) -> Iterator[None]:
        self.start()
        yield
        self.stop(side)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def seconds(self, side: Side) -> float:
        """The median step, after the first."""
        return statistics.median(self.wall[side][1:])

    def first(self, side: Side) -> float:
        return self.wall[side][0]

    def ratio(self, cpu: bool = False) -> float:
        """Textbook divided by ours."""
        textbook, ours = ((self.cpu if cpu else self.wall)[side][1:] for side in SIDES)
        return statistics.median(textbook) / statistics.median(ours)

    def spread(self) -> tuple[float, float]:
        """The smallest and the largest ratio of two steps that followed each other."""
        ratios = [a / b for a, b in zip(self.wall["textbook"][1:], self.wall["ours"][1:], strict=True)]
        return min(ratios), max(ratios)


# -- memory ------------------------------------------------------------------------------------------------------------


Measured = Callable[[Callable[[], None]], Any]
"""Does what is to be measured, and calls its argument where that begins."""


def peak_memory(device: torch.device, prepare: Callable[[], Measured]) -> float:
    """MiB that what ``prepare`` returns takes at most, over what is there where it begins, in a fresh process: on a GPU
    of its memory, else of the process's (Linux)."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_peak_memory, device, prepare, torch.get_num_threads()).result()


def _peak_memory(device: torch.device, prepare: Callable[[], Measured], threads: int) -> float:
    torch.set_num_threads(threads)
    before = 0.0

    def begin() -> None:
        nonlocal before
        gc.collect()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            before = torch.cuda.memory_allocated(device) / 2**20
        else:
            ctypes.CDLL(None).malloc_trim(0)  # what was freed goes back to the system, or it would be used unseen
            with open("/proc/self/clear_refs", "w") as file:
                file.write("5")  # the high-water mark begins again
            before = _resident("VmRSS")

    prepare()(begin)
    peak = torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else _resident("VmHWM")
    return peak - before


def _resident(field: str) -> float:
    with open("/proc/self/status") as file:
        (kibibytes,) = (line.split()[1] for line in file if line.startswith(field + ":"))
    return int(kibibytes) / 1024


# -- gradients ---------------------------------------------------------------------------------------------------------


@contextmanager
def recorded(module: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Inside, when an optimiser of torch has taken a step, the gradients of this module's parameters that it used are
    noted, after clipping, by the parameters' names."""
    found: dict[str, Tensor] = {}
    name_of = {id(parameter): name for name, parameter in module.named_parameters()}

    def note(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None and id(parameter) in name_of:
                    found[name_of[id(parameter)]] = parameter.grad.detach().clone()

    handle = register_optimizer_step_post_hook(note)
    try:
        yield found
    finally:
        handle.remove()
