"""Which of several trials are best where there are several objectives, and limits."""

from collections.abc import Sequence

import numpy as np

from lightning_nas.errors import SettingError
from lightning_nas.strategies.base import Trial


def front(trials: Sequence[Trial]) -> list[Trial]:
    """The trials that no other dominates, among those of the highest fidelity that keep all limits.

    One trial dominates another if it is as good in all values and better in one. Of trials with equal values all are
    in, in the order given.
    """
    import moocore  # with its compiled part it takes a tenth of a second

    feasible = [trial for trial in trials if trial.feasible]
    highest = max((trial.rank[1] for trial in feasible), default=0.0)
    compared = [trial for trial in feasible if trial.rank[1] == highest]
    if not compared:
        return []
    kept = moocore.is_nondominated([trial.values for trial in compared], maximise=True, keep_weakly=True)
    return [trial for trial, keep in zip(compared, kept, strict=True) if keep]


def constrained_ranks(trials: Sequence[Trial]) -> list[int]:
    """For each trial the front in which it stands, from 0, by constrained domination (Deb et al. 2002).

    Those that keep all limits stand in the order of their fronts: front 0 is what no other dominates, front 1 what none
    of the rest does, and so on. Behind them stand those that do not, the less they violate the farther in front, and
    last those that are not done. Fidelities are not looked at.
    """
    import moocore

    places = [k for k, trial in enumerate(trials) if trial.feasible]
    ranks = [0] * len(trials)
    n_fronts = 0
    if places:
        found = moocore.pareto_rank([trials[k].values for k in places], maximise=True)
        for k, rank in zip(places, found.tolist(), strict=True):
            ranks[k] = rank
        n_fronts = 1 + max(found.tolist())
    steps = sorted({trial.violation for trial in trials if trial.done and trial.violation})
    behind = {violation: n_fronts + step for step, violation in enumerate(steps)}
    for k, trial in enumerate(trials):
        if not trial.feasible:
            ranks[k] = behind[trial.violation] if trial.done else n_fronts + len(steps)
    return ranks


def crowding_distances(trials: Sequence[Trial], ranks: Sequence[int]) -> list[float]:
    """For each trial how far its neighbours in its front are from each other, summed over the objectives, for each as a
    share of the front's extent (Deb et al. 2002).

    The ends of a front are infinitely far from the others. Trials that are not done have no values, and the distance 0.

    Args:
        trials: the trials of all fronts.
        ranks: for each trial the front in which it stands.
    """
    distances = np.zeros(len(trials))
    places = np.array([k for k, trial in enumerate(trials) if trial.done], dtype=int)
    if not places.size:
        return distances.tolist()
    fronts = np.asarray(ranks)[places]
    for values in np.array([trials[k].values for k in places]).T:
        order = np.lexsort((values, fronts))
        front_of, value = fronts[order], values[order]
        is_first = np.append(True, front_of[1:] != front_of[:-1])
        is_last = np.append(is_first[1:], True)
        members = np.cumsum(is_first) - 1
        extent = (value[is_last] - value[is_first])[members]
        apart = np.append(value[1:], 0.0) - np.append(0.0, value[:-1])
        shares = np.divide(apart, extent, out=np.zeros_like(apart), where=extent > 0)
        distances[places[order]] += np.where(is_first | is_last, np.inf, shares)
    return distances.tolist()


def hypervolume(trials: Sequence[Trial], reference: Sequence[float]) -> float:
    """The volume that the :func:`front` of trials dominates, down to a reference point.

    Args:
        trials: the trials whose front is measured.
        reference: a value for each objective, oriented as the trials' values are; what is worse counts nothing.

    Raises:
        SettingError: if the reference has not one number for each objective.
    """
    import moocore

    best = front(trials)
    if not best:
        return 0.0
    if len(reference) != len(best[0].values):
        raise SettingError(f"reference: a number for each of {len(best[0].values)} objectives, got {len(reference)}")
    return float(moocore.hypervolume([trial.values for trial in best], ref=list(reference), maximise=True))


def growth(trials: Sequence[Trial], reference: Sequence[float]) -> list[float]:
    """The :func:`hypervolume` of the first trial, of the first two, and so on; it never falls within one fidelity."""
    best: list[Trial] = []
    volumes: list[float] = []
    for trial in trials:
        if trial.feasible:
            best = front([*best, trial])
        changed = best and best[-1] is trial
        volumes.append(hypervolume(best, reference) if changed or not volumes else volumes[-1])
    return volumes
