"""What an architecture is worth: the estimate that a search of many trials asks for."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_nas.objectives import Objective
from lightning_nas.spaces.base import Space
from lightning_nas.specs import Configurable
from lightning_nas.strategies.base import Proposal

if TYPE_CHECKING:  # data modules need Lightning, which a search on a table does without
    from lightning_nas.data import DataModule


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What was measured of one architecture.

    Attributes:
        metrics: figures by name, each name saying how it was measured. Where one that the search wants is not finite,
            the training counts as diverged; of an infinite one just that it is no number is kept.
        cost: seconds that it took, or would have taken; 0 or more. Anything else, as of a metric that is no number,
            makes a failed trial.
    """

    metrics: dict[str, float]
    cost: float = 0.0


class Evaluator(Configurable, ABC):
    """Evaluates architectures of one space. A subclass takes its settings in ``__init__``, where nothing heavy happens,
    so that a worker process builds its own from the spec.

    Attributes:
        objective: what a search pursues that is given no objectives; known before :meth:`open`.
        fidelities: the fidelities that it can evaluate with, rising, the last being its usual one; None: there is one
            kind of evaluation. One that has some also continues trials of a lower fidelity.
        wants_machine_alone: whether what it measures would be disturbed by other trials that run at the same time.
    """

    objective: Objective
    fidelities: Sequence[int] | None = None
    wants_machine_alone: bool = False

    def open(self, space: Space, data: "DataModule | None", seed: int = 0, folder: Path | None = None) -> None:
        """Gets ready, once per process.

        Args:
            space: whose architectures will be asked for.
            data: the data module; None where there is none.
            seed: the seed of everything random in evaluations, together with the number of the trial.
            folder: where trials leave the states from which they are continued, ``<number>.ckpt``; None: nowhere. It
                need not be there.

        Raises:
            SettingError: if the evaluator cannot serve this space, or needs data.
        """

    def metric_names(self, data: "DataModule | None") -> Sequence[str] | None:
        """The metrics that every evaluation has, known before :meth:`open`; None: they are not known before one is
        made."""
        return None

    @abstractmethod
    def __call__(self, proposal: Proposal, number: int) -> Evaluation | float:
        """The evaluation of what is proposed, in the trial of this number. Whatever it raises makes a failed trial,
        ``SystemExit`` too. A number alone is the metric of :attr:`objective`, and its cost the seconds that it took.

        Its fidelity is None, or one of :attr:`fidelities`. A proposal that continues a trial has the same result as if
        it had been evaluated in one go from the beginning, at the cost of what is added.
        """
        raise NotImplementedError
