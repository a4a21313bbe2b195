"""How long a network takes: what a device of one's own says, where FLOPs only guess."""

from typing import TYPE_CHECKING

from lightning_nas.costs.profile import profile
from lightning_nas.errors import SettingError
from lightning_nas.measures.base import Measure
from lightning_nas.spaces.base import Network

if TYPE_CHECKING:
    from lightning_nas.data import DataModule


class Latency(Measure):
    """The median time of a forward pass in milliseconds, where the network is: here, with PyTorch's threads as they
    are.

    It is measured while no other trial runs, so a search with several workers refuses it.

    Args:
        batch_size: examples of a forward pass.
        runs: forward passes that are timed, after ten that warm up.
    """

    name = "latency"
    mode = "min"
    wants_machine_alone = True

    def __init__(self, batch_size: int = 1, runs: int = 50) -> None:
        for name, value in {"batch_size": batch_size, "runs": runs}.items():
            if value < 1:
                raise SettingError(f"{name}: at least 1, got {value}")
        self.batch_size, self.runs = batch_size, runs

    def __call__(self, network: Network, data: "DataModule | None", seed: int) -> float:
        latency = profile(network, network.example(self.batch_size), self.runs).latency
        assert latency is not None
        return latency
