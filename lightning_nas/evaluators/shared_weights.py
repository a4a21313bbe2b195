"""An estimate that trains nothing: an architecture's score under the shared weights of a finished search."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lightning_nas.errors import SettingError
from lightning_nas.evaluators.base import Evaluation, Evaluator
from lightning_nas.evaluators.figures import COSTS, built, costs, measured
from lightning_nas.measures import Measure
from lightning_nas.methods.base import OneShotMethod
from lightning_nas.methods.loading import load_search
from lightning_nas.objectives import Objective
from lightning_nas.seeding import derive_seed
from lightning_nas.spaces.base import Space
from lightning_nas.strategies.base import Proposal
from lightning_nas.supernets.scoring import Scorer
from lightning_nas.tasks import Task
from lightning_nas.training.checkpoints import checkpoint_settings

if TYPE_CHECKING:  # data modules need Lightning, which a search on a table does without
    from lightning_nas.data import DataModule


class SharedWeights(Evaluator):
    """Scores each architecture as a path through the supernet of a search, by a :class:`Scorer`.

    The metrics are ``val/supernet_`` and the task's score: that of shared weights, not of a trained network; and
    ``n_params`` and ``flops`` of the architecture's own network, at the search's width and depth. BatchNorm is treated
    as the search does. The batches are those of the data given, else of the data in the checkpoint.

    Args:
        checkpoint: the path of a search's checkpoint.
        n_batches: the number of batches, spread over the architecture part and the same for all architectures; None:
            all of it.
        n_calibration: training batches for BatchNorm.
        report: further measures of the architecture's own network with its shared weights, whose figures are in the
            metrics.
    """

    def __init__(
        self,
        checkpoint: str,
        n_batches: int | None = None,
        n_calibration: int = 8,
        report: list[Measure] | None = None,
    ) -> None:
        if n_batches is not None and n_batches < 1:
            raise SettingError(f"n_batches: at least 1, or null, got {n_batches}")
        if n_calibration < 1:
            raise SettingError(f"n_calibration: at least 1, got {n_calibration}")
        self.checkpoint, self.n_batches, self.n_calibration = checkpoint, n_batches, n_calibration
        self.measures = built(report)
        self.wants_machine_alone = any(measure.wants_machine_alone for measure in self.measures)
        self._live: OneShotMethod | None = None

    @classmethod
    def of(
        cls,
        method: OneShotMethod,
        n_batches: int | None = None,
        n_calibration: int = 8,
        report: list[Measure] | None = None,
    ) -> "SharedWeights":
        """The evaluator of a method as it is now, whose weights are in no file: for a search inside its ``choose``.

        It works in this process alone, with the executor ``Serial``.

        Args:
            method: the method whose supernet is used; its network is left as it was.
            n_batches: as for a checkpoint.
            n_calibration: as for a checkpoint.
            report: as for a checkpoint.
        """
        evaluator = cls("", n_batches, n_calibration, report)
        evaluator._live = method
        evaluator._init_args["checkpoint"] = object()  # so that there is no spec, from which no worker could build it
        return evaluator

    @property
    def objective(self) -> Objective:  # type: ignore[override]
        """The task's score under shared weights; of a checkpoint just its settings are read for it."""
        if self._live is None:
            settings = checkpoint_settings(self.checkpoint)["model"]["init_args"]
            task = Task.build(settings["task"], "task")
        else:
            task = self._live.task
        return Objective(f"val/supernet_{task.score}", task.mode)

    def metric_names(self, data: "DataModule | None") -> Sequence[str]:
        return [self.objective.metric, *COSTS, *(measure.name for measure in self.measures)]

    def open(self, space: Space, data: "DataModule | None" = None, seed: int = 0, folder: Path | None = None) -> None:
        """Loads the supernet, onto the accelerator if there is one.

        Raises:
            SettingError: if it is of another space, or was trained on images that the data hold back for validation.
        """
        self.seed = seed
        if self._live is not None:
            _check_space(self._live, space, "the method")
            if data is None:
                raise SettingError("evaluator: a method that is no checkpoint has no data of its own; pass them")
            self._take(self._live, data)
            return
        method, own = load_search(self.checkpoint, None if data is None or data.rebuilds else data)
        _check_space(method, space, f"checkpoint: {self.checkpoint}")
        if data is not None and _division(data) != _division(own):
            raise SettingError(
                f"checkpoint: {self.checkpoint} was trained on other data, or on data divided otherwise; "
                f"its data are {_division(own)}"
            )
        method.to(torch.accelerator.current_accelerator(check_available=True) or "cpu")
        self._take(method, data or own)

    def _take(self, method: OneShotMethod, data: "DataModule") -> None:
        self.method, self.data = method, data
        self.scorer = Scorer.of(method, data, self.n_batches, self.n_calibration)

    def __call__(self, proposal: Proposal, number: int) -> Evaluation:
        began = time.perf_counter()
        score = self.scorer(proposal.architecture)
        figures = {f"val/supernet_{self.scorer.task.score}": score, **self._figures(proposal)}
        return Evaluation(figures, time.perf_counter() - began)

    def _figures(self, proposal: Proposal) -> dict[str, float]:
        """Those of the architecture's own network: what it costs when it is retrained, and what measures say of it with
        the shared weights."""
        settings = self.method.network_settings
        space = self.method.space.restrict(proposal.architecture)
        with torch.device("meta"):
            child = space.network(self.method.network.inputs, form="final", **settings)
        figures = costs(child)
        if self.measures:
            with torch.random.fork_rng(devices=[]):  # of weights that are replaced
                child = space.network(self.method.network.inputs, form=self.method.form, **settings)
            child = child.to(self.scorer.device)
            child.load_state_dict(self.method.network.child_state(proposal.architecture))
            figures |= measured(self.measures, child, self.data, derive_seed(self.seed, "batch"))
        return figures


def _check_space(method: OneShotMethod, space: Space, what: str) -> None:
    if method.space.spec != space.spec:
        there, here = type(method.space).__name__, type(space).__name__
        other = there if there != here else f"{there} with other settings"
        raise SettingError(f"{what} is a supernet of {other}, not of this {here}")


def _division(data: "DataModule") -> dict[str, Any]:
    """What of the spec says which examples are in which part."""
    elsewhere = {"batch_size", "num_workers", "folder", "download", "verify"}
    return {"class_path": data.spec["class_path"]} | {
        name: value for name, value in data.spec["init_args"].items() if name not in elsewhere
    }
