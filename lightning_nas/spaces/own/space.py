"""The network of a user as a search space."""

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_nas.errors import SettingError
from lightning_nas.operations.sliced import SLICED, cut
from lightning_nas.spaces.base import Architecture, Choice, Space
from lightning_nas.spaces.graphs import Graph
from lightning_nas.spaces.own.followed import IN_TRIALS, PART_OF_ATTENTION, check_followed
from lightning_nas.spaces.own.fused import fuse, unfuse
from lightning_nas.spaces.own.network import OwnNetwork
from lightning_nas.spaces.own.source import Given, Source
from lightning_nas.spaces.own.survey import Condition, Survey
from lightning_nas.spaces.own.trying import without_weights
from lightning_nas.spaces.own.values import Build, bound, settled, values_in
from lightning_nas.spaces.tables import Cost

RuleState = tuple[bool, tuple[tuple[str, tuple[Condition, ...]], ...]]


class OwnSpace(Space):
    """What there is to choose in a network of your own, of which no more than the class is named: my_package.Net.

    The choices are those that stand in it: ``LayerChoice``, ``InputChoice``, ``RepeatChoice``, ``ValueChoice``.

    Every method and strategy searches it. A choice inside a candidate matters where that candidate is taken, and is
    otherwise its first option, so that every network is one architecture.

    Args:
        network: the class of the network, or in files its import path, ``my_package.Net``, which has to be imported.
            Then networks have new weights. Arguments of its constructor called ``channels``, ``image_size``,
            ``num_classes`` or ``vocabulary`` are what the data say, unless ``arguments`` has them; what takes a
            ``vocabulary`` is a language model. Or a network: then all networks begin with the weights that it has, and
            a file cannot bring it back.
        arguments: arguments of the constructor by name; None: none. Of a network that is there, none.

    Raises:
        SettingError: if there is no such class, or no choice in it, or choices with one label differ.
    """

    def __init__(self, network: Given, arguments: dict[str, Any] | None = None) -> None:
        self.source = Source(network, arguments or {})
        self._init_args["network"] = self.source.path
        self.usual_inputs = self.source.usual_inputs
        found = self._surveyed()
        self.conditions = found.conditions
        super().__init__(found.choices)
        self.start = (False, tuple((name, tuple(found.conditions[name])) for name in found.conditional))  # a RuleState

    @property
    def rebuilds(self) -> bool:  # type: ignore[override]
        return self.template is None

    @property
    def template(self) -> nn.Module | None:
        """The network that was handed over; None: it was a class."""
        return self.source.template

    @property
    def name(self) -> str:
        """The name of the network's class."""
        return self.source.name

    def _surveyed(self) -> Survey:
        """The choices of the network."""
        with torch.random.fork_rng(devices=[]):
            build = Build({})
            if self.template is not None:
                return Survey(self.template, {})
            try:
                return Survey(self.source.new(self.usual_inputs, build), build.seen)
            except SettingError:  # of a constructor that needs the numbers themselves: trials can search it
                if not build.seen:
                    raise
            build = Build({}, plain=True)
            return Survey(self.source.new(self.usual_inputs, build), build.seen)

    @property
    def all_choices(self) -> list[list[Any]]:
        """Names and options of the choices of the network, those that the space is restricted from too."""
        return [[choice.name, list(choice.options)] for choice in getattr(self, "_full", self).choices]

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

    def derive(
        self, scores: Sequence[Sequence[float]], cheapest: Callable[[Cost], Architecture] | None = None
    ) -> Architecture:
        """The option of the highest score for every choice that matters. The scores of others mean nothing.

        Args:
            scores: for each choice a score for each option. Ties go to the first option. Of a set of inputs that may be
                any, those are taken whose score is higher than without them, or the best one.
            cheapest: finds the architecture of the smallest total cost, such as that under limits: here the one that
                loses least of the scores that this one has. None: there is no limit.
        """
        super().derive(scores)  # checks them
        best = self._best(scores)
        if cheapest is None:
            return best
        return cheapest(lambda k, option: 0.0 if option == best[k] else max(scores[k]) - float(scores[k][option]))

    def _best(self, scores: Sequence[Sequence[float]]) -> Architecture:
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

    def network(self, inputs: dict[str, int], form: str = "search") -> OwnNetwork:  # type: ignore[override]
        """The network with the choices that the space has; of one architecture, without any.

        Args:
            inputs: what is known of the data; the constructor's arguments of these names are filled in.
            form: ``search`` or ``final``, which are the same network.
        """
        left = {choice.name: choice.values for choice in self.choices if choice.values and not choice.relaxable}
        net = self.source.new(inputs, Build(left))
        if self.template is None:
            check_followed(net, left, lambda numbers: without_weights(lambda: self.source.new(inputs, Build(numbers))))
        choices = {choice.name: choice for choice in self.choices}
        for part in Survey.names(net):
            part.restrict(choices)
        fixed = {name: values[0] for name, values in left.items() if len(values) == 1}
        done: dict[tuple[Tensor, Any], Tensor] = {}
        for path, module in net.named_modules():
            self._settle(path or self.name, module, fixed, done)
        unfuse(net)
        return OwnNetwork(self, inputs, net)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[OwnNetwork]:
        """The very network that was handed over, without a copy, as the one in which all architectures live.

        Inside, its layers run what the gates say; afterwards they are what they were, with the weights that they have
        by then.

        Raises:
            SettingError: if the space is that of a class, or a value is chosen of a layer that has no slices.
        """
        if self.template is None:
            raise SettingError("network: a network, to be searched where it stands, and not its class")
        Survey.names(self.template)  # another space of it, or of a part of it, may have called them otherwise
        before = [(m, type(m), {n: h for n, h in vars(m).items() if values_in(h)}) for m in self.template.modules()]
        try:
            for path, module in self.template.named_modules():
                self._settle(path or self.name, module, {}, {})
            unfuse(self.template)
            yield OwnNetwork(self, dict(self.usual_inputs), self.template)
        finally:
            for module, cls, held in before:
                fuse(module)
                module.__class__ = cls
                module.__dict__.update(held)

    def _settle(
        self, path: str, module: nn.Module, fixed: Mapping[str, float], done: dict[tuple[Tensor, Any], Tensor]
    ) -> None:
        """Gives a module plain sizes where they are known, and slices of its weights where they are not."""
        open_values, known = [], False
        for attribute, held in list(vars(module).items()):
            values = values_in(held)
            if values and all(label in fixed for value in values for label in value.options):
                module.__dict__[attribute], known = settled(held, fixed), True
            elif values:
                module.__dict__[attribute] = bound(held)
                open_values.append(attribute)
        if not open_values:
            # a constructor may have made a trained layer smaller by its attributes; what has no slices stays as it is
            with contextlib.nullcontext() if known else contextlib.suppress(SettingError):
                cut(module, done)
            module.__class__ = next((plain for plain, own in SLICED.items() if type(module) is own), type(module))
        elif type(module) in SLICED:
            module.__class__ = SLICED[type(module)]
        elif not isinstance(module, PART_OF_ATTENTION):
            self._check_own(path, module, open_values[0])

    def _check_own(self, path: str, module: nn.Module, attribute: str) -> None:
        """Refuses what is chosen of a layer that has no slices, or of a module that will not be built again."""
        torch_s = [cls.__name__ for cls in type(module).__mro__ if cls.__module__.startswith("torch.nn.")]
        if torch_s[0] not in ("Module", "Sequential", "ModuleList", "ModuleDict", "Transformer"):  # which slice nothing
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


def _after(conditions: tuple[Condition, ...], name: str, option: str) -> tuple[Condition, ...]:
    """What is left of conditions of which any has to hold, where a choice is taken."""
    possible = [c for c in conditions if all(option in options for other, options in c if other == name)]
    left = [tuple((other, options) for other, options in condition if other != name) for condition in possible]
    return ((),) if () in left else tuple(dict.fromkeys(left))
