"""A found architecture as an ordinary module."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from lightning_nas.errors import SettingError
from lightning_nas.spaces.base import Architecture
from lightning_nas.spaces.own.choices import OwnChoice
from lightning_nas.spaces.own.fused import fuse
from lightning_nas.spaces.own.network import OwnNetwork
from lightning_nas.spaces.own.space import OwnSpace


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
        own = OwnSpace(network)
        network = own.network(dict(own.usual_inputs))
    space = network.space
    if isinstance(architecture, Mapping):
        architecture = space.from_names(architecture)
    elif architecture is None:
        architecture = space.only
    child = space.restrict(architecture).network(network.inputs)
    assert isinstance(child, OwnNetwork)  # as of any space of such a network
    _made_alike(child, network)
    if weights:
        child.load_state_dict(network.child_state(architecture))
    return _without_choices(child.net, {})


def _made_alike(child: nn.Module, network: nn.Module) -> None:
    """Gives a child the modes, devices and precisions of the network it is a part of, and what is not trained."""
    like = next(network.parameters(), torch.empty(0))
    child.to(like.device)
    whole_of = dict(network.named_modules(remove_duplicate=False))
    for path, module in child.named_modules():
        whole = whole_of[path]
        module.training = whole.training
        for name, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
            own = getattr(whole, name, None)
            if isinstance(own, Tensor):
                tensor.data = tensor.data.to(own.device, own.dtype)
                if isinstance(own, nn.Parameter):
                    tensor.requires_grad_(own.requires_grad)
                elif name in module._non_persistent_buffers_set and own.shape == tensor.shape:
                    tensor.copy_(own)  # which no state_dict has


def _without_choices(module: nn.Module, done: dict[nn.Module, nn.Module]) -> nn.Module:
    """The module with what was chosen in the place of every choice; ``done`` are those that were gone through."""
    if module not in done:
        done[module] = module
        if isinstance(module, OwnChoice):
            done[module] = _without_choices(module.plain(), done)
            return done[module]
        for name, child in module._modules.items():
            if child is not None:
                module._modules[name] = _without_choices(child, done)
        fuse(module)
        for name, held in vars(module).items():  # lists of modules that stand elsewhere
            if type(held) in (list, tuple):
                module.__dict__[name] = tree_map(lambda leaf: _plain(leaf, done), held)
    return done[module]


def _plain(leaf: Any, done: dict[nn.Module, nn.Module]) -> Any:
    return _without_choices(leaf, done) if isinstance(leaf, OwnChoice) else leaf
