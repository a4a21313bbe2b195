"""What there is to choose in a user's network, and when it has an effect."""

import dataclasses
from collections.abc import Mapping, Sequence

from torch import nn

from lightning_nas.errors import SettingError
from lightning_nas.spaces.base import Choice
from lightning_nas.spaces.own.choices import OwnChoice
from lightning_nas.spaces.own.values import values_in

Condition = tuple[tuple[str, tuple[str, ...]], ...]
"""Names of choices with the options of each, all of which have to be taken."""


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


def _of_value(label: str, numbers: tuple[float, ...], node: str) -> Choice:
    return Choice(label, tuple(map(str, numbers)), node, "value", values=numbers, relaxable=False)
