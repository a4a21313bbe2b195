"""An estimate that trains nothing: an architecture's score under the shared weights of a finished search."""

import time
from typing import TYPE_CHECKING, Any

import torch

from lightning_nas.errors import SettingError
from lightning_nas.evaluators.base import Evaluation, Evaluator
from lightning_nas.methods.loading import load_search
from lightning_nas.spaces.base import Architecture, Space
from lightning_nas.supernets.scoring import Scorer

if TYPE_CHECKING:  # data modules need Lightning, which a search on a table does without
    from lightning_nas.data import DataModule


class SharedWeights(Evaluator):
    """Scores each architecture as a path through the supernet of a finished search, by a :class:`Scorer`.

    The metric is ``val/supernet_`` and the task's score: that of shared weights, not of a trained network. BatchNorm is
    treated as the search does. The batches are those of the data given, else of the data in the checkpoint.

    Args:
        checkpoint: the path of a search's checkpoint.
        n_batches: the number of batches, spread over the architecture part and the same for all architectures; None:
            all of it.
        n_calibration: training batches for BatchNorm.
    """

    def __init__(self, checkpoint: str, n_batches: int | None = None, n_calibration: int = 8) -> None:
        if n_batches is not None and n_batches < 1:
            raise SettingError(f"n_batches: at least 1, or null, got {n_batches}")
        if n_calibration < 1:
            raise SettingError(f"n_calibration: at least 1, got {n_calibration}")
        self.checkpoint, self.n_batches, self.n_calibration = checkpoint, n_batches, n_calibration

    def open(self, space: Space, data: "DataModule | None" = None, seed: int = 0) -> None:
        """Loads the supernet, onto the accelerator if there is one.

        Raises:
            SettingError: if it is of another space, or was trained on images that the data hold back for validation.
        """
        method, own = load_search(self.checkpoint)
        if method.space.spec != space.spec:
            there, here = type(method.space).__name__, type(space).__name__
            other = there if there != here else f"{there} with other settings"
            raise SettingError(f"checkpoint: {self.checkpoint} is a supernet of {other}, not of this {here}")
        if data is not None and _division(data) != _division(own):
            raise SettingError(
                f"checkpoint: {self.checkpoint} was trained on other data, or on data divided otherwise; "
                f"its data are {_division(own)}"
            )
        method.to(torch.accelerator.current_accelerator(check_available=True) or "cpu")
        self.scorer = Scorer.of(method, data or own, self.n_batches, self.n_calibration)

    def __call__(self, architecture: Architecture, number: int) -> Evaluation:
        began = time.perf_counter()
        score, task = self.scorer(architecture), self.scorer.task
        return Evaluation(
            task.objective.score(score), {f"val/supernet_{task.score}": score}, time.perf_counter() - began
        )


def _division(data: "DataModule") -> dict[str, Any]:
    """What of the spec says which examples are in which part."""
    elsewhere = {"batch_size", "num_workers", "folder", "download", "verify"}
    return {"class_path": data.spec["class_path"]} | {
        name: value for name, value in data.spec["init_args"].items() if name not in elsewhere
    }
