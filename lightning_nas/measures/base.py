"""``Measure``: what can be said of a network without training it."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from lightning_nas.objectives import Mode
from lightning_nas.spaces.base import Network
from lightning_nas.specs import Configurable

if TYPE_CHECKING:  # data modules need Lightning, which a search on a table does without
    from lightning_nas.data import DataModule


class Measure(Configurable, ABC):
    """A figure of a network with new weights.

    Attributes:
        name: what the figure is called among an evaluation's metrics.
        mode: ``max`` if a higher figure is better, ``min`` if a lower one is.
        needs_data: whether it looks at a batch.
        wants_machine_alone: whether other trials that run at the same time would disturb it.
    """

    name: ClassVar[str]
    mode: ClassVar[Mode] = "max"
    needs_data: ClassVar[bool] = False
    wants_machine_alone: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, network: Network, data: "DataModule | None", seed: int) -> float:
        """The figure; not a number where there is none. The network is left as it was.

        Args:
            network: a network of one architecture.
            data: the data from whose weights part a batch is taken; None where none is needed.
            seed: the seed of that batch.
        """
        raise NotImplementedError
