"""A found architecture as an ordinary module."""

from collections.abc import Mapping

import torch
from torch import nn

from lightning_nas.errors import SettingError
from lightning_nas.spaces.base import Architecture
from lightning_nas.spaces.own.choices import OwnChoice
from lightning_nas.spaces.own.fused import fuse
from lightning_nas.spaces.own.space import OwnNetwork, OwnSpace


def freeze(
    network: OwnNetwork | nn.Module, architecture: Architecture | Mapping[str, str] | None = None, weights: bool = True
) -> nn.Module:
    """The user's network of one architecture, as if its author had written it without choices: a copy, in which
    nothing is of this package.

    Under the same mode it puts out what the network of the search puts out for the architecture, bit for bit; but
    where PyTorch has a fused kernel for evaluation (``nn.TransformerEncoderLayer``, ``nn.MultiheadAttention``), that
    rounds in its own way, and ``nn.TransformerEncoder`` may put out zeros at padded places.

    Args:
        network: the network of a search or of a retraining, such as ``search.network``; or a module of your own with
            choices in it, with the weights that it has.
        architecture: what is chosen, as a search returns it, or options by the names of the choices; None where nothing
            is left to choose.
        weights: whether it has a copy of the network's weights and buffers; else they are new.

    Returns:
        a module of the user's class, on the device, in the precision and in the mode of the network, whose
        ``state_dict`` has the names of a network that is written by hand.

    Raises:
        SettingError: if the network has no choices of a user's own, or the architecture is not one of its space.

    Example::

        from torch import nn
        from lightning_nas import LayerChoice, freeze

        net = nn.Sequential(LayerChoice([nn.Linear(4, 4), nn.Identity()], label="first"), nn.Linear(4, 2))
        print(freeze(net, {"first": "1"}))
    """
    if not isinstance(network, OwnNetwork):
        if not weights:
            raise SettingError("weights: a network of your own is copied as it is; build it again for new weights")
        space = OwnSpace(network)
        network = space.network(dict(space.usual_inputs)).train(network.training)
    space = network.space
    if isinstance(architecture, Mapping):
        architecture = space.from_names(architecture)
    elif architecture is None:
        architecture = space.only
    child = space.restrict(architecture).network(network.inputs)
    if weights:
        child.load_state_dict(network.child_state(architecture))
    like = next(network.parameters(), torch.empty(0))
    child.to(like.device, like.dtype)
    for path, module in child.named_modules():
        module.training = network.get_submodule(path).training
    return _without_choices(child.net)


def _without_choices(module: nn.Module) -> nn.Module:
    """The module with what was chosen in the place of every choice."""
    if isinstance(module, OwnChoice):
        return _without_choices(module.plain().train(module.training))
    for name, child in module.named_children():
        setattr(module, name, _without_choices(child))
    fuse(module)
    return module
