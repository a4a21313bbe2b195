"""What searches share whose weights are trained on drawn architectures: where these come from, and which is best."""

from collections.abc import Sequence
from typing import Any

from lightning_nas.data import AnyData, DataModule
from lightning_nas.methods.base import OneShotMethod
from lightning_nas.objectives import Objective
from lightning_nas.operations.normalization import batch_statistics
from lightning_nas.spaces.base import Architecture, Gates
from lightning_nas.supernets.limits import Limits


class SamplingMethod(OneShotMethod):
    """A search whose weights are trained on the paths of single architectures that it draws.

    In the end it compares ``n_candidates`` of them.
    """

    n_candidates: int

    def draw(self, *purpose: int | str) -> Architecture:
        """An architecture as the search draws them now, a function of the purpose and the same on all ranks."""
        raise NotImplementedError

    def training_gates(self, batch_idx: int) -> Gates | Sequence[Gates]:
        """The path of an architecture that the search draws."""
        return self.space.gates(self.draw("training", self.current_epoch, batch_idx))

    def choose(
        self,
        data: AnyData,
        *,
        candidates: Sequence[Architecture] | None = None,
        limits: Sequence[str | Objective] | Limits = (),
    ) -> tuple[Architecture, dict[Architecture, float]]:
        """Chooses among candidates that it draws and that keep the limits, or in the same way among those given. The
        scores are of all."""
        raise NotImplementedError

    def best_of(
        self, data: DataModule, drawn: Sequence[Architecture], scores: dict[Architecture, float]
    ) -> Architecture:
        """The best of random architectures by the comparison that the search makes, and of no more than it compares."""
        best, _ = self.choose(data, candidates=drawn[: self.n_candidates])
        return best

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """An architecture per batch. The running averages belong to none of them, so the batch's own are taken."""
        architecture = self.draw("validation", self.current_epoch, batch_idx)
        with batch_statistics(self.network):
            self.validate_under(self.space.gates(architecture), batch)
