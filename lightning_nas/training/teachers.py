"""Trained networks that a task asks for their outputs."""

import hashlib
from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import nn

from lightning_nas.errors import SettingError
from lightning_nas.training.checkpoints import trained_module


class Teachers(nn.ModuleDict):
    """Networks of retrainings by name: always in evaluation mode, without gradients, and not in any ``state_dict``."""

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
            module = trained_module(path, field)
            if module.job != "retrain":
                raise SettingError(f"{field}: the checkpoint of a retraining, got that of a search, {path}")
            for what, value in inputs.items():
                if what in module.network.inputs and module.network.inputs[what] != value:
                    has = module.network.inputs[what]
                    raise SettingError(f"{field}: {path} was trained for {what} {has}, and here it is {value}")
            self[name] = module.network.requires_grad_(False).eval()

    def fingerprints(self) -> dict[str, str]:
        """For each a hash of its weights and buffers, which tells whether another file holds the same."""
        return {name: fingerprint(network) for name, network in self.items()}

    def check_same(self, fingerprints: Mapping[str, str]) -> None:
        """Refuses teachers with other weights than those that a run began with.

        Raises:
            SettingError: naming the teacher.
        """
        for name, now in self.fingerprints().items():
            if fingerprints.get(name, now) != now:
                raise SettingError(
                    f"task.{name}: its weights are others than those that the run began with; a run continues with the "
                    "teacher that it had, wherever its file lies"
                )

    def train(self, mode: bool = True) -> Self:
        return super().train(mode and not len(self))

    def state_dict(self, *args: Any, destination: Any = None, prefix: str = "", keep_vars: bool = False) -> Any:
        return {} if destination is None else destination

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # what no state_dict holds is not missing in one that is loaded
        state_dict |= super().state_dict(prefix=prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)


def fingerprint(network: nn.Module) -> str:
    """A hash of the names, shapes and values of a network's weights and buffers."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in network.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
