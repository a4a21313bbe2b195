"""Weights that a training begins with, from a search or from another training."""

from collections.abc import Sequence

from torch import Tensor

from lightning_nas.errors import SettingError
from lightning_nas.spaces.architecture_file import ArchitectureRecord
from lightning_nas.spaces.base import Network
from lightning_nas.training.checkpoints import HoldsNetwork, trained_module


def inherit(network: Network, path: str, found: ArchitectureRecord) -> str:
    """Gives the network of an architecture the weights of a checkpoint, where their names and shapes are the same.

    The weights of a search are those that the architecture has in the search's network. What remains new are layers of
    other widths, cells that the other network does not have, and what its form does not have, such as the scales of
    BatchNorm; a classifier for another number of classes, too.

    Args:
        network: the network that is given weights, of this architecture alone.
        path: the path of the checkpoint of a search in one network, or of a retraining.
        found: the architecture, and the space that it was found in.

    Returns:
        in one line how many were taken over, and which were not.

    Raises:
        SettingError: if the checkpoint is of another space or another architecture, or nothing of it fits.
    """
    state = state_of(path, found)
    own_state = network.state_dict()
    taken = {n: state[n] for n, own in own_state.items() if n in state and state[n].shape == own.shape}
    parameters = [name for name, _ in network.named_parameters()]
    if not any(name in taken for name in parameters):
        raise SettingError(f"initial: no weight of {path} has the name and the shape of one here; train from new ones")
    network.load_state_dict(taken, strict=False)
    new = [name for name in parameters if name not in taken]
    line = f"initial: {len(parameters) - len(new)} of {len(parameters)} weights are those of {path}"
    return f"{line}; new are {listed(new)}" if new else line


def state_of(path: str, found: ArchitectureRecord) -> dict[str, Tensor]:
    """The weights and buffers that a checkpoint has for an architecture.

    Args:
        path: the path of the checkpoint of a search in one network, or of a retraining.
        found: the architecture, and the space that it was found in.

    Raises:
        SettingError: if the checkpoint is of another space or another architecture.
    """
    source = trained_module(path, "initial")
    check_source(source, path, found, "initial")
    return source.network.child_state(found.architecture) if source.job == "search" else source.network.state_dict()


def check_source(source: HoldsNetwork, path: str, found: ArchitectureRecord, field: str) -> None:
    """Refuses a checkpoint that has no weights for an architecture.

    Args:
        source: the module of the checkpoint.
        path: the path of the checkpoint.
        found: the architecture, and the space that it was found in.
        field: what the path is called in an error.

    Raises:
        SettingError: if the checkpoint is of another space or another architecture.
    """
    wanted = found.space if source.job == "search" else found.space.restrict(found.architecture)
    there, here = source.space.spec, wanted.spec
    if there["class_path"] != here["class_path"]:
        searched, own = type(source.space).__name__, type(found.space).__name__
        raise SettingError(f"{field}: {path} is of another space, {searched}, than the architecture's, {own}")
    for name, value in there["init_args"].items():
        if value != here["init_args"].get(name):
            raise SettingError(
                f"{field}: {path} is of another space than the architecture's: {name} is {value}, and here "
                f"{here['init_args'].get(name)}"
            )
    if there != here:
        raise SettingError(f"{field}: {path} is of another architecture")


def listed(names: Sequence[str], most: int = 6) -> str:
    """Names in a line, the first ones where there are many."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
