"""Trained networks that a task asks for their outputs."""

import hashlib
from collections.abc import Mapping

import torch
from torch import nn

from lightning_nas.errors import SettingError
from lightning_nas.training.checkpoints import trained_network


class Teachers(dict[str, nn.Module]):
    """Networks of retrainings by name, in evaluation mode and without gradients.

    They are no part of the module that asks them: nothing trains, averages or saves them.

    Attributes:
        fingerprints: the hashes of their weights by name, as their files hold them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.fingerprints: dict[str, str] = {}

    def load(self, paths: Mapping[str, str], inputs: Mapping[str, int]) -> None:
        """Loads them from their checkpoints.

        Args:
            paths: the checkpoints' paths, by the names that the task has for its teachers.
            inputs: what the network that learns from them was built for.

        Raises:
            SettingError: if a file is no checkpoint of a retraining, or of one for other data.
        """
        for name, path in paths.items():
            field = f"task.{name}"
            network = trained_network(path, field)
            for what, value in inputs.items():
                if what in network.inputs and network.inputs[what] != value:
                    has = network.inputs[what]
                    raise SettingError(f"{field}: {path} was trained for {what} {has}, and here it is {value}")
            self[name] = network.requires_grad_(False).eval()
            self.fingerprints[name] = fingerprint(network)

    def move_to(self, network: nn.Module) -> None:
        """Moves them to the device of another network, and to its type of numbers."""
        parameter = next(network.parameters())
        for teacher in self.values():
            teacher.to(parameter.device, parameter.dtype)

    def check_same(self, fingerprints: Mapping[str, str]) -> None:
        """Refuses teachers with other weights than those that a run began with.

        Args:
            fingerprints: the hashes that the run began with, by name.

        Raises:
            SettingError: naming the teacher.
        """
        for name, now in self.fingerprints.items():
            if fingerprints.get(name) != now:
                raise SettingError(
                    f"task.{name}: its weights are others than those that the run began with; a run continues with the "
                    "teacher that it had, wherever its file lies"
                )


def fingerprint(network: nn.Module) -> str:
    """A hash of the names, shapes and values of a network's weights and buffers."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in network.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
