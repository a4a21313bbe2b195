"""Figures of a network that evaluations report beside what was trained."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lightning_nas.costs.profile import profile
from lightning_nas.errors import SettingError
from lightning_nas.measures import Measure
from lightning_nas.spaces.base import Network

if TYPE_CHECKING:  # data modules need Lightning, which a search on a table does without
    from lightning_nas.data import DataModule

COSTS = ("n_params", "flops")
"""The figures of a network that need neither data nor time."""


def costs(network: Network) -> dict[str, float]:
    """The parameters of a network without an auxiliary head, and the FLOPs of one example."""
    figures = profile(network, network.example())
    return {"n_params": float(figures.n_params), "flops": float(figures.flops)}


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
