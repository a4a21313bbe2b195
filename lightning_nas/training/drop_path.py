"""How the probability to drop a path grows in training: the one place of its schedules."""

from typing import Literal

from lightning_nas.spaces.base import DropPath

DropPathSchedule = Literal["linear", "scheduled"]
"""``linear`` grows from zero with the epochs, the same in all cells (DARTS, released code). ``scheduled`` grows with
the steps and with the relative depth of the cell, so that the last cell drops most (Zoph et al. 2018)."""


def drop_path_at(probability: float, schedule: DropPathSchedule, epoch: float, n_epochs: int) -> DropPath:
    """What a network gets as ``drop_path`` at this point of the training.

    Args:
        probability: the probability at the end of training, in the last cell.
        schedule: how it grows until then.
        epoch: the epochs that are done, with the part of the current one that is done.
        n_epochs: the epochs of the whole training.
    """
    if schedule == "linear":
        return probability * int(epoch) / n_epochs
    return lambda depth: probability * (epoch / n_epochs) * depth
