"""A file and the network that it was made of, on the same inputs."""

import statistics
import time
from collections.abc import Callable

from lightning_nas.errors import SettingError
from lightning_nas.export.formats import Loaded
from lightning_nas.export.interface import Interface, Tensors

BATCHES = {1: 35, 2: 1, 7: 9}
"""The sizes of the batches on which both are run, with the number of words where columns of text are examples."""

TOLERANCE = 1e-4
"""The largest difference of an output, as a part of the largest one, with which a file is kept."""

_WARM_UP = 3


def differences(interface: Interface, loaded: Loaded) -> tuple[float, float]:
    """The largest difference between an output of the file and the network's, and the same as a part of the largest
    value of that output, over random batches.

    Raises:
        SettingError: if an output has another shape, or differs by more than the tolerance or in not being finite.
    """
    largest, largest_part = 0.0, 0.0
    for size, n_words in BATCHES.items():
        given = interface.drawn(batch=size, time=n_words)
        found = loaded.run(given)
        for name, wanted in interface.run(given).items():
            if found[name].shape != wanted.shape:
                shapes = f"{tuple(found[name].shape)} in the file, {tuple(wanted.shape)} in the network"
                raise SettingError(f"network: {name} of a batch of {size} is {shapes}, so there is no file")
            wanted, read = wanted.double(), found[name].double()
            difference = float((read - wanted).abs().max())
            part = difference / (float(wanted.abs().max()) or 1.0)
            if not part <= TOLERANCE:  # what is not finite is refused too
                raise SettingError(
                    f"network: {name} of a batch of {size} differs in the file by {part:.1e} of its largest value; "
                    f"up to {TOLERANCE:.0e} is accepted, so there is no file"
                )
            largest, largest_part = max(largest, difference), max(largest_part, part)
    return largest, largest_part


def latencies(interface: Interface, loaded: Loaded, batch_size: int, runs: int) -> tuple[float, float]:
    """Median milliseconds of a batch in the file and in the network, which run in turns."""
    given = interface.drawn(batch=batch_size)
    turns: tuple[Callable[[Tensors], Tensors], ...] = (loaded.run, interface.run)
    times: tuple[list[float], ...] = ([], [])
    for _ in range(_WARM_UP + runs):
        for run, taken in zip(turns, times, strict=True):
            start = time.perf_counter()
            run(given)
            taken.append(1000 * (time.perf_counter() - start))
    of_file, of_network = (statistics.median(taken[_WARM_UP:]) for taken in times)
    return of_file, of_network
