"""What an architecture is worth: the estimate that a search of many trials asks for."""

import dataclasses
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from lightning_nas.spaces.base import Architecture, Space
from lightning_nas.specs import Configurable

if TYPE_CHECKING:  # data modules need Lightning, which a search on a table does without
    from lightning_nas.data import DataModule


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What was measured of one architecture.

    Attributes:
        score: what decides between architectures, higher is better. A score that is not finite means that training
            diverged.
        metrics: figures by name, each name saying how it was measured; of an infinite one just that it is no number
            is kept.
        cost: seconds that it took, or would have taken; 0 or more. Anything else, as of a score or a metric that is no
            number, makes a failed trial.
    """

    score: float
    metrics: dict[str, float] = dataclasses.field(default_factory=dict)
    cost: float = 0.0


class Evaluator(Configurable, ABC):
    """Evaluates architectures of one space. A subclass takes its settings in ``__init__``, where nothing heavy happens,
    so that a worker process builds its own from the spec."""

    def open(self, space: Space, data: "DataModule | None", seed: int = 0) -> None:
        """Gets ready, once per process.

        Args:
            space: whose architectures will be asked for.
            data: the data module; None where there is none.
            seed: the seed of everything random in evaluations, together with the number of the trial.

        Raises:
            SettingError: if the evaluator cannot serve this space, or needs data.
        """

    @abstractmethod
    def __call__(self, architecture: Architecture, number: int) -> Evaluation:
        """The evaluation of one architecture, in the trial of this number. Whatever it raises makes a failed trial,
        ``SystemExit`` too."""
        raise NotImplementedError
