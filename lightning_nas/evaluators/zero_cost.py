"""An estimate that trains nothing: a figure of the architecture's network with new weights."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lightning_nas.errors import SettingError
from lightning_nas.evaluators.base import Evaluation, Evaluator
from lightning_nas.evaluators.figures import COSTS, built, check_own_network, costs, measured
from lightning_nas.measures import Measure
from lightning_nas.objectives import Objective
from lightning_nas.seeding import derive_seed
from lightning_nas.spaces.base import Space
from lightning_nas.specs import check_arguments
from lightning_nas.strategies.base import Proposal

if TYPE_CHECKING:  # data modules need Lightning, which a search on a table does without
    from lightning_nas.data import DataModule


class ZeroCost(Evaluator):
    """Measures each architecture by a :class:`~lightning_nas.measures.Measure` of its untrained network.

    Among the metrics are ``n_params`` and ``flops`` beside the measure: in most spaces they rank about as well.

    Args:
        measure: the figure that decides, unless the search is given objectives.
        network: settings of the space's network by name, such as ``channels`` and ``cells``.
        inputs: what the network must know of the data; None: asked of the data, or where there are none, what networks
            of the space usually read.
        report: further measures whose figures are in the metrics.
    """

    def __init__(
        self,
        measure: Measure,
        network: dict[str, Any] | None = None,
        inputs: dict[str, int] | None = None,
        report: list[Measure] | None = None,
    ) -> None:
        self.measure = Measure.build(measure, "measure")
        self.objective = Objective(self.measure.name, self.measure.mode)
        self.network, self.inputs = network or {}, inputs
        self.measures = [self.measure, *built(report)]
        self.wants_machine_alone = any(measure.wants_machine_alone for measure in self.measures)

    def metric_names(self, data: "DataModule | None") -> Sequence[str]:
        return [*(measure.name for measure in self.measures), *COSTS]

    def open(self, space: Space, data: "DataModule | None", seed: int = 0, folder: Path | None = None) -> None:
        for measure in self.measures:
            if data is None and measure.needs_data:
                raise SettingError(f"evaluator: {type(measure).__name__} looks at images, which needs data")
        if type(space).network is Space.network:
            raise SettingError(f"evaluator: {type(space).__name__} has no network to measure")
        if space.modality != "images":
            raise SettingError(f"evaluator: measures are of networks that read images, not {space.modality}")
        check_arguments(space.network, self.network, "network", skip={"inputs", "form"})
        if data is not None:
            data.prepare_data()
        self.space, self.data, self.seed = space, data, seed
        self.given = self.inputs or (dict(space.usual_inputs) if data is None else data.inputs)
        check_own_network(space, self.given)

    def __call__(self, proposal: Proposal, number: int) -> Evaluation:
        began = time.perf_counter()
        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(derive_seed(self.seed, "trial", number))
            network = self.space.restrict(proposal.architecture).network(self.given, form="final", **self.network)
        figures = measured(self.measures, network, self.data, derive_seed(self.seed, "batch"))
        return Evaluation(figures | costs(network), time.perf_counter() - began)
