"""What a search in one network has found, beside random architectures under the same shared weights."""

import contextlib
import math
import statistics
from random import Random
from typing import Any

from lightning_nas.costs.profile import profile
from lightning_nas.data import DataModule
from lightning_nas.errors import SettingError
from lightning_nas.runs.folder import RunFolder
from lightning_nas.runs.outcome import SearchOutcome, finite, shared_weights_figure
from lightning_nas.seeding import derive_seed
from lightning_nas.spaces.architecture_file import ArchitectureRecord
from lightning_nas.spaces.base import Architecture
from lightning_nas.supernets.limits import Limits
from lightning_nas.supernets.scoring import Scorer


def conclusion(method: Any, data: DataModule, run: RunFolder, n_random: int, limits: Limits) -> SearchOutcome:
    """Takes the best architecture of a search and compares it with random ones, all of which keep the limits.

    Args:
        method: the search, a ``OneShotMethod``.
        data: the data module that it was trained on.
        run: the folder where the outcome will write.
        n_random: how many random architectures it is compared with; fewer are found where hardly any keep the limits.
        limits: what the final network may cost.
    """
    space, objective = method.space, method.task.objective
    architecture, candidates = method.choose(data, limits=limits)
    drawn = random_ones(method.seed, n_random, limits)
    scores = Scorer.of(method, data).rank([architecture, *drawn], "Random ones") if n_random else {}
    score, figure = scores.get(architecture, math.nan), shared_weights_figure(objective)
    usable = [scores[a] for a in drawn if math.isfinite(scores[a])]  # the others diverge under the shared weights
    child = space.restrict(architecture).network(method.network.inputs, form="final", **method.network_settings)
    costs = profile(child, child.example())
    metrics: dict[str, float] = {"n_params_at_search_size": costs.n_params, "flops_at_search_size": costs.flops}
    metrics |= finite({figure: score, f"{figure}_random_mean": statistics.fmean(usable) if usable else math.nan})
    best_random = None
    if drawn:
        best = method.best_of(data, drawn, scores)
        best_random = ArchitectureRecord(space, best, finite({figure: scores[best]}), "random", method.seed)
    return SearchOutcome(
        ArchitectureRecord(space, architecture, metrics, method.name, method.seed),
        run,
        costs=costs,
        objective=objective,
        score=score,
        drawn=[(a, scores[a]) for a in drawn],
        best_random=best_random,
        candidates=candidates,
        weights=method.choice_weights(),
        limits=limits.objectives,
    )


def random_ones(seed: int, number: int, limits: Limits) -> list[Architecture]:
    """Random architectures, drawn by the space's prior, that keep limits; fewer where no more are found.

    Args:
        seed: the seed of the search.
        number: how many architectures are drawn.
        limits: the limits that they keep.
    """
    rng = Random(derive_seed(seed, "random architectures"))
    drawn: list[Architecture] = []
    with contextlib.suppress(SettingError):
        drawn += (limits.random(rng) for _ in range(number))
    return drawn
