"""A user's network as the one in which architectures live."""

import contextlib
from typing import Any

import torch
from torch import Tensor, nn

from lightning_nas.operations.sliced import SLICED, parts_of
from lightning_nas.spaces.base import Architecture, Gates, Network, Space
from lightning_nas.spaces.own.language_model import WindowReader
from lightning_nas.spaces.own.running import Running
from lightning_nas.spaces.own.trying import try_out, without_weights


class OwnNetwork(Network):
    """A user's network, called with gates.

    Args:
        space: whose choices were built.
        inputs: what the network was told of the data.
        net: the module as the user wrote it.

    Attributes:
        net: the module of the user. By itself it is called without gates, where nothing is left to choose.
    """

    def __init__(self, space: Space, inputs: dict[str, int], net: nn.Module) -> None:
        super().__init__()
        self.space = space
        self.inputs = dict(inputs)
        self.net = net
        self.chooses = any(len(choice.options) > 1 for choice in space.choices)
        self.reader = WindowReader(net, inputs.get("vocabulary")) if space.modality == "text" else None

    def forward(self, x: Any, gates: Gates | None = None, **others: Any) -> Any:  # type: ignore[override]
        """What the user's network puts out under the gates; of text a ``LanguageOutput``.

        Args:
            x: its first argument, usually the batch.
            gates: how each choice is taken; None where the space has one architecture.
            others: its other arguments, by name; of text ``carry`` and ``first``, see :class:`WindowReader`.
        """
        arguments = others if self.reader is None else self.reader.arguments(**others)
        with self.active(gates) if self.chooses else contextlib.nullcontext():
            out = self.net(x, **arguments)
        return out if self.reader is None else self.reader.output(x, out)

    def active(self, gates: Gates | None) -> contextlib.AbstractContextManager[None]:
        """Inside, the user's module may be called by itself, and runs under the gates.

        Args:
            gates: how each choice is taken; None where the space has one architecture.
        """
        return Running(self.space, gates).active()

    def example(self, batch_size: int = 1) -> Tensor:
        given = getattr(self.net, "example_input_array", None)
        parameter = next(self.parameters(), torch.empty(0))
        if isinstance(given, Tensor):
            return given[:1].expand(batch_size, *given.shape[1:]).to(parameter.device)
        if self.space.modality == "text":
            return torch.zeros(batch_size, 1, dtype=torch.long, device=parameter.device)
        size = self.inputs["image_size"]
        return parameter.new_zeros(batch_size, self.inputs["channels"], size, size)

    def try_out(self) -> Any:
        return try_out(self.space, self.net, self.example(2), self.inputs)

    def child_state(self, architecture: Architecture) -> dict[str, Tensor]:
        """The ``state_dict`` of an architecture's own network, taken out of this network's.

        Of PyTorch's layers it is what runs of them, of a user's own parameters whose sizes are chosen the leading part.

        Args:
            architecture: one of the network's space.
        """
        child = self.space.restrict(architecture)
        small = without_weights(lambda: child.network(self.inputs)).state_dict()
        own = self.state_dict()
        with self.active(self.space.gates(architecture)), torch.no_grad():
            for path, module in self.named_modules(remove_duplicate=False):
                if type(module) in SLICED.values():
                    parts = parts_of(module) or {}
                    own |= {f"{path}.{name}": part.detach() for name, part in parts.items() if part is not None}
        return {
            name: own[name][tuple(map(slice, value.shape))] if isinstance(value, Tensor) and value.dim() else own[name]
            for name, value in small.items()
        }
