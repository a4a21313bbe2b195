"""An estimate that trains nothing: a figure of the architecture's network with new weights."""

import time
from typing import TYPE_CHECKING, Any

import torch

from lightning_nas.costs.profile import profile
from lightning_nas.errors import SettingError
from lightning_nas.evaluators.base import Evaluation, Evaluator
from lightning_nas.measures import Measure
from lightning_nas.seeding import derive_seed
from lightning_nas.spaces.base import Architecture, Space
from lightning_nas.specs import check_arguments

if TYPE_CHECKING:  # data modules need Lightning, which a search on a table does without
    from lightning_nas.data import DataModule


class ZeroCost(Evaluator):
    """Scores each architecture by a :class:`~lightning_nas.measures.Measure` of its untrained network.

    Among the metrics are ``n_params`` and ``flops`` beside the measure: in most spaces they rank about as well.

    Args:
        measure: the figure that decides, higher is better.
        network: settings of the space's network by name, such as ``channels`` and ``cells``.
        inputs: what the network must know of the data; None: asked of the data, or where there are none, what networks
            of the space usually read.
    """

    def __init__(
        self, measure: Measure, network: dict[str, Any] | None = None, inputs: dict[str, int] | None = None
    ) -> None:
        self.measure = Measure.build(measure, "measure")
        self.network, self.inputs = network or {}, inputs

    def open(self, space: Space, data: "DataModule | None", seed: int = 0) -> None:
        if data is None and self.measure.needs_data:
            raise SettingError(f"evaluator: {type(self.measure).__name__} looks at images, which needs data")
        if type(space).network is Space.network:
            raise SettingError(f"evaluator: {type(space).__name__} has no network to measure")
        if space.modality != "images":
            raise SettingError(f"evaluator: measures are of networks that read images, not {space.modality}")
        check_arguments(space.network, self.network, "network", skip={"inputs", "form"})
        if data is not None:
            data.prepare_data()
        self.space, self.data, self.seed = space, data, seed
        self.given = self.inputs or (dict(space.usual_inputs) if data is None else data.inputs)

    def __call__(self, architecture: Architecture, number: int) -> Evaluation:
        began = time.perf_counter()
        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(derive_seed(self.seed, "trial", number))
            network = self.space.restrict(architecture).network(self.given, form="final", **self.network)
        value = self.measure(network, self.data, derive_seed(self.seed, "batch"))
        costs = profile(network, network.example())
        figures = {self.measure.name: value, "n_params": float(costs.n_params), "flops": float(costs.flops)}
        return Evaluation(value, figures, time.perf_counter() - began)
