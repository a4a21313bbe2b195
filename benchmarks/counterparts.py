"""Which parameter of ours is which of the textbook's."""

import dataclasses
from collections.abc import Iterable

import torch
from torch import Tensor, nn


@dataclasses.dataclass
class Counterparts:
    """The same weights in two modules.

    Attributes:
        ours, textbook: the modules.
        names: of the textbook's parameters, by ours; where one of ours is several of the textbook's, one after the
            other.
    """

    ours: nn.Module
    textbook: nn.Module
    names: dict[str, tuple[str, ...]]

    def copy_weights(self) -> None:
        """Gives the textbook the weights that ours has now."""
        parameters = dict(self.textbook.named_parameters())
        with torch.no_grad():
            for name, value in self.in_textbook_names(dict(self.ours.named_parameters())).items():
                parameters[name].copy_(value)

    def in_textbook_names(self, ours: dict[str, Tensor]) -> dict[str, Tensor]:
        """Tensors by our names, in the textbook's shapes and by its names."""
        shapes = {name: parameter.shape for name, parameter in self.textbook.named_parameters()}
        renamed: dict[str, Tensor] = {}
        for name, value in ours.items():
            parts = value.reshape(-1).split([shapes[part].numel() for part in self.names[name]])
            renamed |= {part: x.view(shapes[part]) for part, x in zip(self.names[name], parts, strict=True)}
        return renamed


def matched(ours: nn.Module, textbook: nn.Module, prefixes: Iterable[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    """The parameters of modules that are each other's counterparts, in order.

    One parameter of ours may be several of the textbook's.

    Raises:
        ValueError: if they have not as many weights, or a parameter of either side is in no module that is named.
    """
    sizes = [{name: p.numel() for name, p in side.named_parameters()} for side in (ours, textbook)]
    names: dict[str, tuple[str, ...]] = {}
    for pair in prefixes:
        a, b = (
            [name for name in side if name == prefix or name.startswith(f"{prefix}.")]
            for side, prefix in zip(sizes, pair, strict=True)
        )
        numbers = [sizes[0][name] for name in a], [sizes[1][name] for name in b]
        if numbers[0] != numbers[1] and not (len(a) == 1 and numbers[0][0] == sum(numbers[1])):
            raise ValueError(f"{pair[0]} and {pair[1]} have not the same parameters: {a}, {b}")
        names |= {a[0]: tuple(b)} if len(a) == 1 else {name: (other,) for name, other in zip(a, b, strict=True)}
    left = [set(sizes[0]) - set(names), set(sizes[1]) - {name for parts in names.values() for name in parts}]
    if any(left):
        raise ValueError(f"parameters without a counterpart: {left}")
    return names
