"""Figures of a network that evaluations report beside what was trained."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from lightning_nas.costs.profile import profile
from lightning_nas.errors import SettingError
from lightning_nas.measures import Measure
from lightning_nas.spaces.base import Network, Space
from lightning_nas.spaces.own.space import OwnSpace

if TYPE_CHECKING:  # data modules need Lightning, which a search on a table does without
    from lightning_nas.data import DataModule
    from lightning_nas.tasks import Task

COSTS = ("n_params", "flops")
"""The figures of a network that need neither data nor time."""


def costs(network: Network) -> dict[str, float]:
    """The parameters of a network without an auxiliary head, and the FLOPs of one example."""
    figures = profile(network, network.example())
    return {"n_params": float(figures.n_params), "flops": float(figures.flops)}


def check_own_network(space: Space, inputs: dict[str, int], task: "Task | None" = None) -> None:
    """Refuses a network of a user's own that cannot run, or whose outputs the task cannot read, before the first trial.

    Args:
        space: the space of the search; others than ``OwnSpace`` are passed over.
        inputs: what networks are built for.
        task: what reads their outputs; None: nothing does.

    Raises:
        SettingError: saying why.
    """
    if not isinstance(space, OwnSpace):
        return
    from lightning_nas.training.checks import check_network

    first = space.restrict(space.tables.unrank(0))
    with torch.random.fork_rng(devices=[]):
        network = first.network(inputs if task is None else task.network_inputs(inputs))
    check_network(network, task)


def built(report: Sequence[Measure] | None) -> list[Measure]:
    """The measures of a setting called ``report``.

    Raises:
        SettingError: if two have one name.
    """
    measures = [Measure.build(measure, "report") for measure in report or ()]
    names = [measure.name for measure in measures]
    if len(set(names)) < len(names):
        raise SettingError(f"report: each measure once, got {', '.join(names)}")
    return measures


def measured(measures: Sequence[Measure], network: Network, data: "DataModule | None", seed: int) -> dict[str, float]:
    """What measures say of a network, by their names."""
    return {measure.name: measure(network, data, seed) for measure in measures}
