"""Where the networks of a user come from: a class that is called, or one network that is copied."""

import copy
import inspect
import itertools
import weakref
from collections.abc import Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

from torch import nn

from lightning_nas.errors import SettingError
from lightning_nas.spaces.base import Space
from lightning_nas.spaces.own.followed import IN_TRIALS
from lightning_nas.spaces.own.trying import LIBRARIES, said_of
from lightning_nas.spaces.own.values import Build
from lightning_nas.specs import check_arguments, class_path, find_class

if TYPE_CHECKING:
    Given = str | type[nn.Module] | nn.Module
else:  # for the command line and files, which would import a class
    Given = str

_PLAIN = (int, float, str, bool)
"""The types of a constructor's arguments that are checked before it is called."""

_TEMPLATES: MutableMapping[str, nn.Module] = weakref.WeakValueDictionary()
"""Networks that were handed over as they are, by what specs call them. In this process a spec brings them back, as long
as somebody else has them."""

_NUMBERS = itertools.count()


class Source:
    """What networks are made of.

    Args:
        network: the class of the network, its import path, or a network.
        arguments: arguments of the class's constructor by name.

    Attributes:
        template: the network that is copied; None: there is a class.
        network_class: the class of the network.
        parameters: what the constructor takes, by name.

    Raises:
        SettingError: if there is no such class, or its constructor does not take the arguments.
    """

    def __init__(self, network: Given, arguments: Mapping[str, Any]) -> None:
        self.arguments = dict(arguments)
        self.template, self.network_class = _found(network)
        self.name = self.network_class.__name__
        self.parameters = dict(inspect.signature(self.network_class).parameters)
        if self.template is None:
            self._check_arguments()
        elif self.arguments:
            raise SettingError("arguments: those of the constructor, and the network is built already; leave them out")

    @property
    def path(self) -> str:
        """By what specs call it."""
        path = class_path(self.network_class)
        return path if self.template is None else _remembered(path, self.template)

    def new(self, inputs: Mapping[str, int], build: Build) -> nn.Module:
        """A network with all choices; of values with those that ``build`` leaves."""
        if self.template is not None:
            return copy.deepcopy(self.template)
        filled = {name: inputs[name] for name in self.parameters if name in inputs and name not in self.arguments}
        with build.active():
            try:
                return self.network_class(**filled, **self.arguments)
            except SettingError:
                raise
            except (RuntimeError, TypeError, ValueError) as error:
                chosen = build.plain or all(len(build.left_of(*item)) == 1 for item in build.seen.items())
                reason = said_of(error)
                how = f"{self.arguments}: {reason}" if chosen else f"numbers that are open: {reason}. {IN_TRIALS}"
                raise SettingError(f"arguments: {self.name} cannot be built with {how}") from error

    def _check_arguments(self) -> None:
        """Refuses arguments that the constructor does not take, and where one is missing."""
        parameters = self.parameters
        takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        names = [name for name, p in parameters.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        for name in self.arguments:
            if name not in names and not takes_all:
                there = ", ".join(names) or "none"
                raise SettingError(f"arguments.{name}: {self.name} has no such argument; there are {there}")
        plain = {n: v for n, v in self.arguments.items() if n in names and parameters[n].annotation in _PLAIN}
        self.arguments |= check_arguments(self.network_class, plain, "arguments")
        for name in names:
            known = name in self.arguments or name in (*Space.usual_inputs, "vocabulary")
            if parameters[name].default is inspect.Parameter.empty and not known:
                raise SettingError(f"arguments.{name}: {self.name} needs it, and no data say it")

    @property
    def usual_inputs(self) -> dict[str, int]:
        """What a network is built for where nothing is known of the data."""
        usual = {"vocabulary": 10_000} if "vocabulary" in self.parameters else dict(Space.usual_inputs)
        return usual | {name: self.arguments[name] for name in usual if name in self.arguments}


def _remembered(path: str, net: nn.Module) -> str:
    name = next((name for name, known in _TEMPLATES.items() if known is net), None)
    if name is None:
        name = f"{path}#{next(_NUMBERS)}"
        _TEMPLATES[name] = net
    return name


def _found(network: Any) -> tuple[nn.Module | None, type[nn.Module]]:
    """The network that is there, if it is, and its class."""
    if isinstance(network, nn.Module):
        return network, type(network)
    if isinstance(network, type) and issubclass(network, nn.Module):
        return None, network
    if not isinstance(network, str):
        raise SettingError(f"network: a class, its import path, or a network, got {network!r}")
    if network in _TEMPLATES:
        return _TEMPLATES[network], type(_TEMPLATES[network])
    path, built, _ = network.partition("#")
    if built:
        raise SettingError(
            f"network: a {path} was handed over that was built already, which no file brings back; hand it over again, "
            "as in load_from_checkpoint(path, space=Space.of(net)), or hand over the class"
        )
    if path.partition(".")[0] in LIBRARIES:  # else a file could have any module of theirs built, with any arguments
        raise SettingError(f"network: a class of your own, got {network[:200]}, which has no choices in it")
    found = find_class(network, nn.Module)
    if found is None:
        module = network.rpartition(".")[0][:80]
        raise SettingError(f"network: {network[:200]} is no network of your own that is imported; --import {module}")
    return None, found
