"""A user's network, tried once before it is trained: does it run, and is every choice in it ever asked?"""

import traceback
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from lightning_nas.errors import SettingError, within
from lightning_nas.operations.normalization import evaluating
from lightning_nas.spaces.base import Gate, Space
from lightning_nas.spaces.own.running import Running


def try_out(space: Space, net: nn.Module, example: Any, inputs: dict[str, int]) -> Any:
    """What a network puts out for an example, all options that can be mixed running side by side.

    Args:
        space: the choices in the network.
        net: the module as the user wrote it; its weights and buffers stay as they are.
        example: what is put in.
        inputs: what the network was told of the data.

    Raises:
        SettingError: if it cannot be computed, or a choice has no part in it, or with the smallest numbers something
            runs that a network which is built with them does not have.
    """
    running = Running(space, _all_gates(space))
    asked = _Asked(running.resolved), _Asked(running.numbers)
    running.resolved, running.numbers = asked
    with torch.no_grad(), torch.random.fork_rng(devices=[]), running.active():
        with evaluating(net):
            out = _run(net, example)
        if _never_asked(space, *asked):  # some have their part in training alone
            buffers = [buffer.clone() for buffer in net.buffers()]
            with evaluating(net):  # which puts the modes back
                _run(net.train(), example)
            for buffer, before in zip(net.buffers(), buffers, strict=True):
                buffer.copy_(before)
    never = _never_asked(space, *asked)
    if never:
        raise SettingError(
            f"space: {', '.join(never)} has no part in the forward pass of {type(net).__name__}, and there is nothing "
            "to choose; call it there, or take it out"
        )
    _check_smallest(space, net, example, inputs)
    return out


def _check_smallest(space: Space, net: nn.Module, example: Any, inputs: dict[str, int]) -> None:
    """Refuses a network of which more runs with the smallest numbers than one has that is built with them, such as all
    blocks where the depth is chosen."""
    chosen = [choice for choice in space.choices if choice.values and not choice.relaxable and len(choice.options) > 1]
    if not chosen or not space.rebuilds:
        return

    def cost(k: int, option: int) -> float:
        values = space.choices[k].values
        return values[option] / (max(map(abs, values)) or 1.0) if space.choices[k] in chosen else 0.0

    smallest = space.tables.cheapest(cost)
    child: Any = without_weights(lambda: space.restrict(smallest).network(inputs))
    there = {path for path, _ in child.net.named_modules()}
    ran: list[str] = []

    def noting(path: str) -> Callable[..., None]:
        return lambda module, given: ran.append(path)

    hooks = [module.register_forward_pre_hook(noting(path)) for path, module in net.named_modules()]
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]), evaluating(net):
            with Running(space, space.gates(smallest)).active():
                _run(net, example)
    finally:
        for hook in hooks:
            hook.remove()
    further = [path for path in ran if path not in there]
    if further:
        names = space.to_names(smallest)
        numbers = ", ".join(f"{choice.name} is {names[choice.name]}" for choice in chosen)
        raise SettingError(
            f"space: {further[0]} of {type(net).__name__} runs where {numbers}, and a network that is built so has no "
            "such module; use the number in forward too, as in self.blocks[: self.depth]"
        )


def without_weights(build: Callable[[], nn.Module]) -> nn.Module:
    """A network of which only names and shapes count.

    Args:
        build: builds the network, on any device.
    """
    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"):
                return build()
        except (NotImplementedError, RuntimeError):  # a constructor that looks at values
            return build()


class _Asked(dict[str, Any]):
    """Notes by which names it is asked."""

    def __init__(self, held: Mapping[str, Any]) -> None:
        super().__init__(held)
        self.asked: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        self.asked.add(name)
        return super().__getitem__(name)


def _never_asked(space: Space, *dictionaries: _Asked) -> list[str]:
    asked = set().union(*(each.asked for each in dictionaries))
    return [choice.name for choice in space.choices if len(choice.options) > 1 and choice.name not in asked]


def _all_gates(space: Space) -> dict[str, Gate]:
    """Equal weights where they can be mixed, so that all options run; else the largest value, or the first option."""
    gates: dict[str, Gate] = {}
    for choice in space.choices:
        number = len(choice.options)
        largest = choice.values.index(max(choice.values)) if choice.values else 0
        gates[choice.name] = torch.full((number,), 1 / number) if choice.relaxable and number > 1 else largest
    return gates


def _run(net: nn.Module, example: Any) -> Any:
    try:
        with within("space"):
            return net(example)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:  # shapes that do not fit, mostly
        what = f"{type(net).__name__} cannot run on an example of shape {tuple(getattr(example, 'shape', ()))}"
        raise SettingError(f"space: {what}: {said_of(error)}") from error


LIBRARIES = ("lightning", "lightning_nas", "torch", "torchmetrics", "torchvision")
"""Packages that are imported anyway, of which no class is a network of a user's own."""


def said_of(error: Exception) -> str:
    """What an error says, in a line, and where in the user's files it was raised."""
    place = ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        if str(frame.f_globals.get("__name__")).partition(".")[0] not in LIBRARIES:
            place = f" ({frame.f_code.co_filename}, line {line})"
    return f"{str(error).partition(chr(10))[0]}{place}"
