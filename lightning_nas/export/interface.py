"""What a network reads and puts out, by name, and which sizes stay open in its file."""

import copy
import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_nas.errors import SettingError
from lightning_nas.seeding import derive_seed
from lightning_nas.spaces.base import Network
from lightning_nas.spaces.image_networks import ImageNetwork
from lightning_nas.spaces.recurrent.language_model import RecurrentNetwork

Example = Tensor | Sequence[Tensor] | Mapping[str, Tensor]
"""What a network is called with: a tensor, several in their order, or by the names of the arguments of ``forward``."""

Tensors = dict[str, Tensor]
"""Tensors by the names that they have in the file."""

WINDOW = 35
"""Words of an example of text: the window of the papers on Penn Treebank."""


@dataclasses.dataclass(frozen=True)
class Input:
    """A tensor that a network reads.

    Attributes:
        name: what it is called in the file.
        example: a tensor of its shape and type.
        open: the names of the dimensions whose sizes stay open, by their numbers.
        below: the number that integers stay below; None: the largest of the example's plus 1.
    """

    name: str
    example: Tensor
    open: Mapping[int, str]
    below: int | None = None

    def drawn(self, sizes: Mapping[str, int]) -> Tensor:
        """Random values, the same for the same sizes: normal ones, or integers from the example's least on.

        Args:
            sizes: how large the open dimensions are, by their names.
        """
        shape = [sizes[self.open[d]] if d in self.open else size for d, size in enumerate(self.example.shape)]
        generator = torch.Generator().manual_seed(derive_seed(0, "export", self.name, *shape))
        dtype = self.example.dtype
        if dtype.is_floating_point:
            return torch.randn(shape, generator=generator).to(dtype)
        if dtype == torch.bool:
            return torch.rand(shape, generator=generator) < 0.5
        below = int(self.example.max()) + 1 if self.below is None else self.below
        return torch.randint(int(self.example.min()), below, shape, generator=generator).to(dtype)


@dataclasses.dataclass(frozen=True)
class Interface:
    """A module to be traced, with names for what it reads and puts out.

    Attributes:
        module: what is traced, on the CPU.
        inputs: the tensors that it is called with, in order.
        by_name: whether it is called with keywords.
        outputs: the names of what it returns, in order; None: those that its dictionary or named tuple has.
    """

    module: nn.Module
    inputs: tuple[Input, ...]
    by_name: bool = False
    outputs: tuple[str, ...] | None = None

    def call(self, module: Callable[..., Any], given: Tensors) -> Tensors:
        """The outputs by name of a module that is called as the traced one is."""
        returned = module(**given) if self.by_name else module(*given.values())
        outputs = named(returned, self.outputs)
        return {f"{name}_out" if name in given else name: tensor for name, tensor in outputs.items()}

    def run(self, given: Tensors) -> Tensors:
        """The network's outputs by name, from its inputs by name."""
        return self.call(self.module, given)

    def drawn(self, **sizes: int) -> Tensors:
        """Random inputs; an open size that is not given is the example's."""
        usual = {name: each.example.shape[d] for each in self.inputs for d, name in each.open.items()}
        return {each.name: each.drawn(usual | sizes) for each in self.inputs}


class Images(nn.Module):
    """A network of images as it is called in a file, without the auxiliary head, which only training needs."""

    def __init__(self, network: ImageNetwork) -> None:
        super().__init__()
        self.network = copy.copy(network)
        self.network._modules = {**network._modules, "auxiliary": None}

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)


class Words(nn.Module):
    """A network of text as it is called in a file: the carry goes in and comes out."""

    def __init__(self, network: RecurrentNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, tokens: Tensor, carry: Tensor) -> tuple[Tensor, Tensor]:
        output = self.network(tokens, carry=carry)
        return output.logits, output.carry


class Renamed(nn.Module):
    """A module whose outputs, where they are several, are a dictionary: programs cannot have a named tuple."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

        def forward(*args: Tensor, **kwargs: Tensor) -> Tensor | Tensors:
            returned = network(*args, **kwargs)
            return returned if isinstance(returned, Tensor) else named(returned)

        forward.__signature__ = inspect.signature(network.forward)  # type: ignore[attr-defined]
        self.forward = forward


def interface_of(network: nn.Module, example: Example | None) -> Interface:
    """How a network is called, and what its inputs and outputs are called.

    Args:
        network: one of this package's, or any module, on the CPU.
        example: what it is called with, on any device; None: what a network of this package says itself.

    Raises:
        SettingError: if there is no example, or it is no tensors with one first dimension.
    """
    if example is None:
        if not isinstance(network, Network):
            raise SettingError(f"example: a tensor that {type(network).__name__} reads, or several; got None")
        text = isinstance(network, RecurrentNetwork)
        example = torch.zeros(WINDOW, 1, dtype=torch.long) if text else network.example()
    tensors = _by_name(network, example)
    if isinstance(network, RecurrentNetwork):
        (tokens,) = tensors.values()
        if tokens.dim() != 2 or tokens.is_floating_point():
            raise SettingError(f"example: numbers of words (T, N), got {tuple(tokens.shape)} of {tokens.dtype}")
        carry = network.embedding.new_zeros(tokens.shape[1], network.cell.hidden)
        words = Input("tokens", torch.zeros_like(tokens), {0: "time", 1: "batch"}, network.inputs["vocabulary"])
        before = Input("carry", carry, {0: "batch"})
        return Interface(Words(network), (words, before), outputs=("logits", "next_carry"))
    if isinstance(network, ImageNetwork):
        (images,) = tensors.values()
        output = "logits" if network.inputs["num_classes"] else "features"
        return Interface(Images(network), (Input("images", images, {0: "batch"}),), outputs=(output,))
    inputs = tuple(Input(name, tensor, {0: "batch"}) for name, tensor in tensors.items())
    return Interface(Renamed(network), inputs, isinstance(example, Mapping))


def _by_name(network: nn.Module, example: Example) -> Tensors:
    """The tensors of an example on the CPU, by the names of the arguments of ``forward``."""
    if isinstance(example, Mapping):
        tensors = dict(example)
    else:
        given = [example] if isinstance(example, Tensor) else list(example)
        parameters = inspect.signature(network.forward).parameters.values()
        names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        if len(given) > len(names):
            there = f"forward of {type(network).__name__} has {len(names)} arguments with names of their own"
            raise SettingError(f"example: {there}, got {len(given)} tensors")
        tensors = dict(zip(names, given, strict=False))
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor) or not tensor.dim() or not len(tensor):
            said = tuple(tensor.shape) if isinstance(tensor, Tensor) else repr(tensor)[:80]
            raise SettingError(f"example: tensors whose first dimension is the batch, got {said} for {name}")
    if len({len(tensor) for tensor in tensors.values()}) != 1:
        sizes = ", ".join(f"{len(tensor)} of {name}" for name, tensor in tensors.items()) or "no tensor"
        raise SettingError(f"example: the same number of examples in every tensor, got {sizes}")
    return {name: tensor.detach().cpu() for name, tensor in tensors.items()}


def named(returned: Any, names: Sequence[str] | None = None) -> Tensors:
    """What a module returns, by name; None is left out."""
    values: Sequence[Any] = [returned]
    if isinstance(returned, Mapping):
        names, values = names or [str(name) for name in returned], list(returned.values())
    elif isinstance(returned, (tuple, list)):
        values = returned
        names = names or getattr(returned, "_fields", None) or [f"output_{k}" for k in range(1, len(values) + 1)]
    outputs = dict(zip(names or ["output"], values, strict=True))
    for name, value in outputs.items():
        if not isinstance(value, Tensor) and value is not None:
            raise SettingError(f"network: it returns a {type(value).__name__} as {name}; a file has tensors alone")
    return {name: value for name, value in outputs.items() if value is not None}
