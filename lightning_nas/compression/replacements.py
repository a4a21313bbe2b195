"""What a network can have in the place of what it has: each option of each choice alone, the rest as it was."""

import itertools
from collections.abc import Iterator, Mapping

from lightning_nas.errors import SettingError
from lightning_nas.spaces.base import Architecture, Space
from lightning_nas.spaces.own.space import OwnSpace
from lightning_nas.spaces.own.survey import Condition

Changes = frozenset[tuple[int, int]]
"""What an architecture has in the place of the reference's options: numbers of choices and options."""


class Replacements:
    """The options of a space as replacements in one of its architectures, the reference.

    A choice inside an option that the reference does not take is at its first option. With an option of such a
    choice goes what it is inside of.

    Args:
        space: a space without a rule, or one whose rule is that what does not run has its first option.
        reference: the architecture in which options are replaced, or its options by name; None: of each choice the
            largest number, or the first option.

    Raises:
        SettingError: if the space has another rule.
    """

    def __init__(self, space: Space, reference: Architecture | Mapping[str, str] | None = None) -> None:
        if space.has_rule and not isinstance(space, OwnSpace):
            raise SettingError(f"space: {type(space).__name__} has a rule under which options depend on each other")
        self.space = space
        conditions = space.conditions if isinstance(space, OwnSpace) else {}
        self.conditions: dict[str, list[Condition]] = {c.name: conditions.get(c.name, [()]) for c in space.choices}
        if reference is None:
            wanted = tuple(c.values.index(max(c.values)) if c.values else 0 for c in space.choices)
            reference = space.tables.cheapest(lambda k, option: float(option != wanted[k]))
        self.reference = reference if isinstance(reference, tuple) else space.from_names(reference)
        self.reference = space.from_names(space.to_names(self.reference))  # is it one of the space?

    def matters(self, k: int, architecture: Architecture) -> bool:
        """Whether the choice number ``k`` has an effect in an architecture."""
        choices = zip(self.space.choices, architecture, strict=True)
        taken = {choice.name: choice.options[option] for choice, option in choices}
        conditions = self.conditions[self.space.choices[k].name]
        return any(all(taken[other] in options for other, options in condition) for condition in conditions)

    def changes(self, architecture: Architecture) -> Changes:
        """What an architecture has in the place of the reference's options, of choices that have an effect."""
        pairs = enumerate(zip(architecture, self.reference, strict=True))
        return frozenset((k, o) for k, (o, own) in pairs if o != own and self.matters(k, architecture))

    def at(self, wanted: Changes) -> Architecture | None:
        """The architecture nearest to the reference that has these options, all of them with an effect; None: there
        is none."""
        choices = self.space.choices
        found = []
        for conditions in itertools.product(*(self.conditions[choices[k].name] for k, _ in wanted)):
            needed = [requirement for condition in conditions for requirement in condition]

            def cost(k: int, option: int, needed: list[tuple[str, tuple[str, ...]]] = needed) -> float:
                choice = choices[k]
                lacks = any(name == choice.name and choice.options[option] not in o for name, o in needed)
                if lacks or any(k == other and option != wish for other, wish in wanted):
                    return float("inf")
                return float(option != self.reference[k])

            nearest = self.space.tables.cheapest(cost)
            if all(nearest[k] == option and self.matters(k, nearest) for k, option in wanted):
                found.append(nearest)
        return min(found, key=lambda a: (len(self.changes(a)), a), default=None)

    def alone(self) -> Iterator[Changes]:
        """Every option that can replace one of the reference, alone, in the order of the choices."""
        for k, choice in enumerate(self.space.choices):
            for option in range(len(choice.options)):
                if option != self.reference[k] and self.at(frozenset([(k, option)])) is not None:
                    yield frozenset([(k, option)])

    def pairs(self) -> Iterator[Changes]:
        """Every two of these replacements, of different choices."""
        for one, other in itertools.combinations(self.alone(), 2):
            both = one | other
            if len(dict(both)) == 2:
                yield both

    def architectures(self) -> list[Architecture]:
        """The reference, and the architectures of every replacement alone, each once."""
        each = (self.at(wanted) for wanted in (frozenset[tuple[int, int]](), *self.alone()))
        return list(dict.fromkeys(architecture for architecture in each if architecture is not None))
