"""The network of a user as a search space."""

import contextlib
import copy
import dataclasses
import functools
import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_nas.errors import SettingError
from lightning_nas.operations.sliced import FUSED, SLICED, Unfused, cut, parts_of
from lightning_nas.spaces.base import Architecture, Choice, Gates, Network, Space
from lightning_nas.spaces.graphs import Graph
from lightning_nas.spaces.own.choices import OwnChoice
from lightning_nas.spaces.own.followed import IN_TRIALS, PART_OF_ATTENTION, check_followed
from lightning_nas.spaces.own.running import Running
from lightning_nas.spaces.own.values import Build, bound, settled, values_in
from lightning_nas.specs import class_path, find_class

Condition = tuple[tuple[str, tuple[str, ...]], ...]
"""Names of choices with the options of each, all of which have to be taken."""

RuleState = tuple[bool, tuple[tuple[str, tuple[Condition, ...]], ...]]


class OwnSpace(Space):
    """The choices in a network of your own: ``LayerChoice``, ``InputChoice``, ``RepeatChoice``, ``ValueChoice``.

    Every method and strategy searches it. A choice inside a candidate matters where that candidate is taken, and is
    otherwise its first option, so that every network is one architecture.

    Args:
        network: the class of the network, or in files its import path, ``my_package.Net``, which has to be imported.
            Then networks have new weights. Arguments of its constructor called ``channels``, ``image_size``,
            ``num_classes`` or ``vocabulary`` are what the data say, unless ``arguments`` has them. Or a network: then
            all networks begin with the weights that it has, and a file cannot bring it back.
        arguments: arguments of the constructor by name; None: none. Of a network that is there, none.

    Raises:
        SettingError: if there is no such class, or no choice in it, or choices with one label differ.
    """

    def __init__(self, network: str | type[nn.Module] | nn.Module, arguments: dict[str, Any] | None = None) -> None:
        self.arguments = dict(arguments or {})
        self.template, self.network_class = _found(network)
        if self.template is not None and self.arguments:
            raise SettingError("arguments: those of the constructor, and the network is built already; leave them out")
        path = class_path(self.network_class)
        self._init_args["network"] = path if self.template is None else _remembered(path, self.template)
        self.usual_inputs = self._usual_inputs()
        found = self._surveyed()
        self.conditions = found.conditions
        super().__init__(found.choices)
        self.start = (False, tuple((name, tuple(found.conditions[name])) for name in found.conditional))  # a RuleState

    @property
    def name(self) -> str:
        """The name of the network's class."""
        return self.network_class.__name__

    def _surveyed(self) -> "Survey":
        """The choices of the network."""
        with torch.random.fork_rng(devices=[]):
            build = Build({})
            try:
                return Survey(self._new(self.usual_inputs, build), build.seen)
            except SettingError:  # of a constructor that needs the numbers themselves: trials can search it
                if not build.seen:
                    raise
            build = Build({}, plain=True)
            return Survey(self._new(self.usual_inputs, build), build.seen)

    # -- the rule ----------------------------------------------------------------------------------------------------

    @functools.cached_property
    def has_rule(self) -> bool:
        return any(choice.group or self.conditions[choice.name] != [()] for choice in self.choices)

    def step(self, rule_state: RuleState, choice: Choice, option: str) -> RuleState | None:
        """What does not run has its first option, and of a set of inputs at least one is taken.

        It remembers whether an input of the set is taken, and of later choices the conditions that may still hold.
        """
        taken, conditions = rule_state
        waiting = dict(conditions)
        matters = () in waiting.pop(choice.name, ((),))
        taken = bool(choice.group) and (taken or option == "on")
        if not matters and option != choice.options[0]:
            return None
        if matters and choice.group and choice.last_of_node and not taken:
            return None
        later = tuple((name, _after(conditions, choice.name, option)) for name, conditions in waiting.items())
        return taken and not choice.last_of_node, later

    def matters(self, name: str, taken: Mapping[str, str]) -> bool:
        """Whether a choice has an effect where the choices before are taken so.

        Args:
            name: the name of the choice.
            taken: the options of the choices that it may be inside of, by name.
        """
        return any(all(taken[other] in options for other, options in condition) for condition in self.conditions[name])

    def derive(self, scores: Sequence[Sequence[float]]) -> Architecture:
        """The option of the highest score for every choice that matters. The scores of others mean nothing.

        Args:
            scores: for each choice a score for each option. Ties go to the first option. Of a set of inputs that may be
                any, those are taken whose score is higher than without them, or the best one.
        """
        super().derive(scores)  # checks them
        architecture: Architecture = ()
        while len(architecture) < len(self.choices):
            position = len(architecture)
            choice, row = self.choices[position], scores[position]
            before = zip(self.choices, architecture, strict=False)
            if choice.group and self.matters(choice.name, {c.name: c.options[option] for c, option in before}):
                architecture += self._set(position, scores)
            else:
                architecture += (max(self.allowed(architecture), key=lambda option: (row[option], -option)),)
        return architecture

    def _set(self, position: int, scores: Sequence[Sequence[float]]) -> Architecture:
        """The best set of inputs, for the choices from ``position`` on that belong to it."""
        group = [k for k, choice in enumerate(self.choices) if choice.group == self.choices[position].group]
        gains = {}
        for k in group:
            score = dict(zip(self.choices[k].options, scores[k], strict=True))
            gains[k] = score.get("on", -math.inf) - score.get("off", -math.inf)
        on = {k for k in group if gains[k] > 0} or {max(group, key=lambda k: gains[k])}
        return tuple(self.choices[k].options.index("on" if k in on else "off") for k in group)

    # -- networks ----------------------------------------------------------------------------------------------------

    @property
    def modality(self) -> str:
        return "text" if "vocabulary" in self.usual_inputs else "images"

    def network(self, inputs: dict[str, int], form: str = "search") -> "OwnNetwork":  # type: ignore[override]
        """The network with the choices that the space has; of one architecture, without any.

        Args:
            inputs: what is known of the data; the constructor's arguments of these names are filled in.
            form: ``search`` or ``final``, which are the same network.
        """
        left = {choice.name: choice.values for choice in self.choices if choice.values and not choice.relaxable}
        net = self._new(inputs, Build(left))
        if self.template is None:
            check_followed(net, left, lambda numbers: without_weights(lambda: self._new(inputs, Build(numbers))))
        choices = {choice.name: choice for choice in self.choices}
        for part in Survey.names(net):
            part.restrict(choices)
        fixed = {name: values[0] for name, values in left.items() if len(values) == 1}
        done: dict[tuple[Tensor, Any], Tensor] = {}
        for path, module in net.named_modules():
            self._settle(path or self.name, module, fixed, done)
        for module in net.modules():
            ours: tuple[Any, ...] = (OwnChoice, *SLICED.values())
            if isinstance(module, FUSED) and any(isinstance(inner, ours) for inner in module.modules()):
                Unfused(module)
        return OwnNetwork(self, inputs, net)

    def _settle(
        self, path: str, module: nn.Module, fixed: Mapping[str, float], done: dict[tuple[Tensor, Any], Tensor]
    ) -> None:
        """Gives a module plain sizes where they are known, and slices of its weights where they are not."""
        open_values = []
        for attribute, held in list(vars(module).items()):
            values = values_in(held)
            if values and all(label in fixed for value in values for label in value.options):
                module.__dict__[attribute] = settled(held, fixed)
            elif values:
                module.__dict__[attribute] = bound(held)
                open_values.append(attribute)
        if not open_values:
            cut(module, done)
        elif type(module) in SLICED:
            module.__class__ = SLICED[type(module)]
        elif not isinstance(module, PART_OF_ATTENTION):
            self._check_own(path, module, open_values[0])

    def _check_own(self, path: str, module: nn.Module, attribute: str) -> None:
        """Refuses what is chosen of a layer that has no slices, or of a module that will not be built again."""
        torch_s = [cls.__name__ for cls in type(module).__mro__ if cls.__module__.startswith("torch.nn.")]
        if torch_s[0] not in ("Module", "Sequential", "ModuleList", "ModuleDict"):
            known = ", ".join(cls.__name__ for cls in SLICED)
            raise SettingError(
                f"space: {attribute} of {path}, a {type(module).__name__}, cannot be chosen in a network that all "
                f"architectures share; that can {known}. {IN_TRIALS}"
            )
        if self.template is not None:
            raise SettingError(
                f"space: {attribute} of {path} is chosen, and {self.name} is built already; hand over its class, so "
                "that a found network is built with the number"
            )

    def _new(self, inputs: Mapping[str, int], build: Build) -> nn.Module:
        """A network with all choices; of values with those that ``build`` leaves."""
        if self.template is not None:
            return copy.deepcopy(self.template)
        filled = {name: inputs[name] for name in self._parameters() if name in inputs and name not in self.arguments}
        with build.active():
            try:
                return self.network_class(**filled, **self.arguments)
            except TypeError as error:
                chosen = build.plain or all(len(build.left_of(*item)) == 1 for item in build.seen.items())
                how = f"{self.arguments}: {error}" if chosen else f"numbers that are open: {error}. {IN_TRIALS}"
                raise SettingError(f"arguments: {self.name} cannot be built with {how}") from error

    def _parameters(self) -> Iterable[str]:
        return inspect.signature(self.network_class).parameters

    def _usual_inputs(self) -> dict[str, int]:
        usual = {"vocabulary": 10_000} if "vocabulary" in self._parameters() else dict(Space.usual_inputs)
        return usual | {name: self.arguments[name] for name in usual if name in self.arguments}

    # -- for people --------------------------------------------------------------------------------------------------

    def describe(self, architecture: Architecture) -> str:
        """The choices that matter, with what is chosen."""
        names = self.to_names(architecture)
        return ", ".join(f"{name}: {option}" for name, option in names.items() if self.matters(name, names))

    def graph(self, architecture: Architecture) -> dict[str, Graph]:
        """The choices that matter in a row, as they stand in the network."""
        names = self.to_names(architecture)
        chosen = [(name, option) for name, option in names.items() if self.matters(name, names)]
        nodes = ["input", *(name for name, _ in chosen)]
        edges = [(nodes[k], name, option) for k, (name, option) in enumerate(chosen)]
        return {"network": Graph.of([*edges, (nodes[-1], "output", "")])}


class OwnNetwork(Network):
    """A user's network, called with gates.

    Args:
        space: whose choices were built.
        inputs: what the network was told of the data.
        net: the module as the user wrote it.

    Attributes:
        net: the module of the user. By itself it is called without gates, where nothing is left to choose.
    """

    def __init__(self, space: OwnSpace, inputs: dict[str, int], net: nn.Module) -> None:
        super().__init__()
        self.space: OwnSpace = space
        self.inputs = dict(inputs)
        self.net = net
        self.chooses = any(len(choice.options) > 1 for choice in space.choices)

    def forward(self, x: Any, gates: Gates | None = None, **others: Any) -> Any:  # type: ignore[override]
        """What the user's network puts out under the gates.

        Args:
            x: its first argument, usually the batch.
            gates: how each choice is taken; None where the space has one architecture.
            others: its other arguments, by name.
        """
        if not self.chooses:
            return self.net(x, **others)
        with self.active(gates):
            return self.net(x, **others)

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
                    own |= {f"{path}.{name}": part for name, part in parts.items() if part is not None}
        return {
            name: own[name][tuple(map(slice, value.shape))] if isinstance(value, Tensor) and value.dim() else own[name]
            for name, value in small.items()
        }


class Survey:
    """What there is to choose in a network.

    Args:
        net: the module of the user, whose choices are given their names.
        values: all values of each value choice of which the constructor told; those of others are looked for.

    Attributes:
        choices: in an order in which those come first in whose options others are.
        conditions: for each choice, by name, when it has an effect: under any of these conditions.
        conditional: the names of the choices that have an effect under conditions only.
    """

    def __init__(self, net: nn.Module, values: Mapping[str, tuple[float, ...]]) -> None:
        self._found: dict[str, Choice] = {}
        self._holders: dict[str, nn.Module | None] = {}
        self.conditions: dict[str, list[Condition]] = {}
        self._number = 0
        self.names(net)
        self._look(net, ())
        for label, numbers in values.items():
            if label not in self._found:  # held by no module
                self._add([_of_value(label, numbers, self._node())], ())
        if not self._found:
            raise SettingError(f"network: there is no choice in {type(net).__name__}; put a LayerChoice into it")
        self.choices = self._ordered()
        self.conditional = [choice.name for choice in self.choices if self.conditions[choice.name] != [()]]

    @staticmethod
    def names(net: nn.Module) -> list[OwnChoice]:
        """The choices in a network, which are given their names: label or place."""
        found = []
        for path, module in net.named_modules():
            if isinstance(module, OwnChoice):
                module.name = module.label or path.replace(".", "/") or "choice"
                found.append(module)
        return found

    def _look(self, module: nn.Module, condition: Condition) -> None:
        for held in vars(module).values():
            for value in values_in(held):
                for label, numbers in value.options.items():
                    self._add([_of_value(label, numbers, self._node())], condition)
        if isinstance(module, OwnChoice):
            self._add(module.choices(self._node()), condition, None if module.label else module)
            for _, inner, options in module.inside():
                self._look(inner, (*condition, (module.name, options)) if options else condition)
            return
        for child in module.children():
            self._look(child, condition)

    def _node(self) -> str:
        self._number += 1
        return str(self._number)

    def _add(self, choices: Sequence[Choice], condition: Condition, holder: nn.Module | None = None) -> None:
        """Adds what is chosen by ``holder`` under a condition; None: by all that have its label."""
        for choice in choices:
            known = self._found.setdefault(choice.name, choice)
            if self._holders.setdefault(choice.name, holder) is not holder:
                raise SettingError(f"{choice.name}: a choice has this label, and another without one stands there")
            if (known.options, known.kind, known.values) != (choice.options, choice.kind, choice.values):
                one, other = ", ".join(known.options), ", ".join(choice.options)
                raise SettingError(
                    f"{choice.name}: one decision has the same options everywhere, got {one} and {other}"
                )
            if known.relaxable and not choice.relaxable:  # a depth and a number that is read
                self._found[choice.name] = dataclasses.replace(known, relaxable=False)
            self.conditions.setdefault(choice.name, [])
            if condition not in self.conditions[choice.name]:
                self.conditions[choice.name].append(condition)

    def _ordered(self) -> list[Choice]:
        for name, conditions in self.conditions.items():
            if () in conditions:  # it matters anyway
                self.conditions[name] = [()]
        placed: dict[str, Choice] = {}
        waiting = dict(self._found)
        while waiting:
            ready = next((n for n in waiting if all(o in placed for c in self.conditions[n] for o, _ in c)), None)
            if ready is None:
                raise SettingError(f"{next(iter(waiting))}: a choice cannot be inside of itself; give it another label")
            node = waiting[ready].node  # what belongs together stays together
            for name in [name for name, choice in waiting.items() if choice.node == node]:
                placed[name] = waiting.pop(name)
        return list(placed.values())


_TEMPLATES: dict[str, nn.Module] = {}
"""Networks that were handed over as they are, by what specs call them. In this process a spec brings them back."""


def _remembered(path: str, net: nn.Module) -> str:
    name = next((name for name, known in _TEMPLATES.items() if known is net), None)
    if name is None:
        name = f"{path}#{len(_TEMPLATES)}"
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
    found = find_class(network, nn.Module)
    if found is None:
        package = network.partition(".")[0][:80]
        raise SettingError(f"network: {network[:200]} is no nn.Module that is imported; --import {package}")
    return None, found


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


def _of_value(label: str, numbers: tuple[float, ...], node: str) -> Choice:
    return Choice(label, tuple(map(str, numbers)), node, "value", values=numbers, relaxable=False)


def _after(conditions: tuple[Condition, ...], name: str, option: str) -> tuple[Condition, ...]:
    """What is left of conditions of which any has to hold, where a choice is taken."""
    possible = [c for c in conditions if all(option in options for other, options in c if other == name)]
    left = [tuple((other, options) for other, options in condition if other != name) for condition in possible]
    return ((),) if () in left else tuple(dict.fromkeys(left))
