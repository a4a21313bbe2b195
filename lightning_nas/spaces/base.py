"""``Choice``, ``Space``, ``Architecture`` and ``Gate``: what there is to choose, and how a choice is taken.

A space is an ordered tuple of choices and one local rule, :meth:`Space.step`. From the rule the library compiles, once,
the number of legal completions of every prefix. Everything else follows from these counts: which options are allowed,
the size of the space, exactly uniform sampling, the nearest legal architecture, the best architecture for given scores.
"""

import copy
import dataclasses
import functools
import inspect
import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from random import Random
from types import MappingProxyType
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from lightning_nas.errors import SettingError
from lightning_nas.lazy import root
from lightning_nas.spaces.graphs import Graph
from lightning_nas.spaces.tables import Cost, Tables
from lightning_nas.specs import Configurable

Architecture = tuple[int, ...]
"""One option index per choice. In files and messages an architecture is always written with names."""

Gate = int | Tensor
"""How a choice is taken in one forward pass: an option's index, or a weight for each option, shape ``(n_options,)``."""

Gates = Mapping[str, Gate]
"""A gate for each choice, by the choice's name."""

DropPath = float | Callable[[float], float]
"""A probability, or a function of the relative depth, from just above 0 to 1 at the last cell."""

Resolved = dict[str, list[tuple[str, Tensor | None]]]
"""For each choice the options that run, by name, with their weights (None: the option alone, unweighted)."""


@dataclasses.dataclass(frozen=True)
class Choice:
    """One named decision.

    Attributes:
        name: unique in the space, without a dot, since modules are named by it.
        options: the options' names, unique.
        node: the node the decision belongs to, ``[cell/]number``; choices of one node follow each other. The number is
            that of the state which the node computes in its cell.
        kind: what the options are. Choices of a kind share a controller's head.
        group: choices of one group are sampled in one controller step; None: a step of its own.
        sources: for an ``input`` choice of a cell the state that each option reads, for an ``operation`` on an edge and
            for a ``skip`` the one state that it leaves; else empty.
        last_of_node: whether no later choice belongs to the same node. The space sets it.
        values: the number behind each option, such as a kernel size, a width or a depth, all different; empty where the
            options are names only.
        relaxable: whether a network can mix the options by weights. Where it cannot, as with the widths of one sliced
            weight, a gate has to choose one.
    """

    name: str
    options: tuple[str, ...]
    node: str
    kind: Literal["operation", "input", "skip", "value"] = "operation"
    group: str | None = None
    sources: tuple[int, ...] = ()
    last_of_node: bool = False
    values: tuple[float, ...] = ()
    relaxable: bool = True

    def __post_init__(self) -> None:
        if self.values and len(self.values) != len(self.options):
            raise ValueError(f"values of {self.name}: one for each of {len(self.options)} options, got {self.values}")
        if len(set(self.values)) < len(self.values) or not all(map(math.isfinite, self.values)):
            raise ValueError(f"values of {self.name}: finite and all different, got {self.values}")

    @property
    def cell(self) -> str:
        """The cell of the node; empty where there is just one."""
        return self.node.rpartition("/")[0]

    @property
    def output(self) -> int:
        """The number of the state that the node computes in its cell."""
        return int(self.node.rpartition("/")[2])


class Network(nn.Module):
    """A network in which architectures live. It never stores which one is active: gates are an argument.

    Attributes:
        space: whose choices were built.
        inputs: what the data are like, as the network was built for them.
        settings: the other settings that :meth:`Space.network` built it with; the space notes them.
    """

    space: "Space"
    inputs: dict[str, int]
    settings: Mapping[str, Any] = MappingProxyType({})

    def forward(self, x: Tensor, gates: Gates | None = None, drop_path: DropPath = 0.0) -> Any:
        """Runs what the gates say; without gates, the one architecture of the space.

        ``drop_path`` is the probability to drop an operation's output for a sample, in training.
        """
        raise NotImplementedError

    def example(self, batch_size: int = 1) -> Tensor:
        """An input of the right shape, on the network's device."""
        raise NotImplementedError

    def try_out(self) -> Any:
        """What it puts out for two examples, to see before a training that it does; None where that is known."""
        return None

    def child_state(self, architecture: Architecture) -> dict[str, Tensor]:
        """The ``state_dict`` of an architecture's own network, taken out of this network's.

        The child is ``space.restrict(architecture).network(inputs, **settings)``. A tensor of it is the one of the same
        name here; where it is smaller, the first entries of each dimension. A network whose weights are shared in
        another way overrides this.

        Args:
            architecture: one of the network's space.

        Returns:
            views of this network's weights and buffers, which ``load_state_dict`` copies.
        """
        with torch.device("meta"):  # only names and shapes count
            child = self.space.restrict(architecture).network(self.inputs, **self.settings)
        own = self.state_dict()
        return {name: own[name][tuple(map(slice, value.shape))] for name, value in child.state_dict().items()}


class Space(Configurable):
    """A search space: ordered choices and a rule that says which architectures are legal.

    A subclass passes its choices to ``__init__`` and may override :attr:`start` and :meth:`step`; without a rule all
    combinations are legal. A subclass whose architectures can be trained overrides :meth:`network`.
    """

    start: Hashable = 0

    usual_inputs: Mapping[str, int] = {"channels": 3, "image_size": 32, "num_classes": 10}
    """What a network is built for where nothing is known of the data: CIFAR-10."""

    prior: Literal["architecture", "choice"] = "architecture"
    """What :meth:`random` draws by where it is not told. A space whose architectures differ in the number of choices
    that matter (a chain that may stop early, an elastic depth) says ``choice``: by architecture nearly all draws have
    the full length, since these are the most."""

    @property
    def no_relaxation(self) -> str:
        """Why the choices cannot be relaxed to weights over their options, as DARTS does; empty where they can.

        A space that can be computed under weights but in which these would mean nothing overrides it with its reason.
        """
        hard = [choice.name for choice in self.choices if not choice.relaxable and len(choice.options) > 1]
        if not hard:
            return ""
        return f"just one option of {', '.join(hard)} can run at a time, so there is nothing that weights could mix"

    rebuilds: bool = True
    """Whether its spec makes the same space again in another process."""

    def __init_subclass__(cls, **settings: Any) -> None:
        super().__init_subclass__(**settings)
        if "network" in vars(cls):
            cls.network = _noting_settings(cls.network)  # type: ignore[method-assign]

    def __init__(self, choices: Iterable[Choice]) -> None:
        choices = tuple(choices)
        _unique("choices", [choice.name for choice in choices])
        for choice in choices:
            numbers = bool(choice.values) and not choice.relaxable  # which name no modules: they may have a dot
            _unique(f"options of {choice.name}", choice.options, dots=numbers)
        nodes = [choice.node for choice in choices]
        self.choices: tuple[Choice, ...] = tuple(
            dataclasses.replace(choice, last_of_node=nodes[k + 1 : k + 2] != [choice.node])
            for k, choice in enumerate(choices)
        )

    @staticmethod
    def of(network: "type[nn.Module] | nn.Module", **arguments: Any) -> "Space":
        """The space of the choices in a network of your own, see :class:`~lightning_nas.OwnSpace`.

        Args:
            network: the class of the network, whose networks have new weights; or a network, with whose weights all
                begin.
            arguments: arguments of the class's constructor.
        """
        space: Space = root().OwnSpace(network, arguments)
        return space

    def step(self, rule_state: Any, choice: Choice, option: str) -> Any:
        """The rule.

        Args:
            rule_state: what the rule remembers of the choices before, anything hashable; ``start`` at first.
            choice: the choice that is taken.
            option: the name of the option that is taken.

        Returns:
            what the rule remembers from now on, or None where the option is illegal.
        """
        return rule_state

    @property
    def modality(self) -> str:
        """What its networks read: ``text``, or ``images``."""
        return "text" if "vocabulary" in self.usual_inputs else "images"

    def network(self, inputs: dict[str, int], **settings: Any) -> Network:
        """The network in which this space's architectures live, ``forward(x, gates)``.

        It is built with the options that the space has: a space restricted to one architecture gives the child.
        """
        raise SettingError(f"{type(self).__name__} describes architectures only; it has no network to train")

    def graph(self, architecture: Architecture) -> dict[str, Graph]:
        """A graph for each cell, by its name; a space without cells has one graph. Drawings show these."""
        raise SettingError(f"{type(self).__name__} does not say how its architectures are drawn")

    # -- what is compiled from the rule ------------------------------------------------------------------------------

    @functools.cached_property
    def tables(self) -> Tables:
        """The rule, compiled."""

        def step(state: Hashable, k: int, option: int) -> Hashable | None:
            return self.step(state, self.choices[k], self.choices[k].options[option])

        return Tables.compile(self.start, [len(choice.options) for choice in self.choices], step)

    @property
    def size(self) -> int:
        """The number of legal architectures, exactly."""
        return self.tables.size

    @functools.cached_property
    def has_rule(self) -> bool:
        return type(self).step is not Space.step

    def allowed(self, prefix: Sequence[int] = ()) -> tuple[int, ...]:
        """The options of the next choice after ``prefix`` that at least one legal architecture continues with.

        Raises:
            ValueError: if the prefix is illegal or there is no next choice.
        """
        if len(prefix) >= len(self.choices):
            raise ValueError(f"the prefix has {len(prefix)} options; there are {len(self.choices)} choices")
        counts: list[int] = []
        for k, counts in enumerate(self.tables.walk([*prefix, 0])):
            if k < len(prefix) and not (0 <= prefix[k] < len(counts) and counts[prefix[k]]):
                raise ValueError(f"the prefix is illegal at {self.choices[k].name}")
        return tuple(option for option, count in enumerate(counts) if count)

    def legal(self, architecture: Sequence[int]) -> bool:
        """Whether this is an architecture of the space."""
        if len(architecture) != len(self.choices):
            return False
        in_range = all(0 <= option < len(c.options) for option, c in zip(architecture, self.choices, strict=True))
        return in_range and all(
            counts[option] > 0 for counts, option in zip(self.tables.walk(architecture), architecture, strict=True)
        )

    @property
    def only(self) -> Architecture:
        """The architecture of a space that has just one.

        Raises:
            ValueError: if it has several.
        """
        if self.size != 1:
            raise ValueError(f"the space has {self.size:,} architectures; restrict it to one first")
        return self.tables.unrank(0)

    # -- sampling ----------------------------------------------------------------------------------------------------

    def random(self, rng: Random, by: Literal["architecture", "choice"] | None = None) -> Architecture:
        """Draws an architecture.

        Args:
            rng: the source of randomness.
            by: ``architecture``: every legal architecture is equally likely. ``choice``: every allowed option of each
                choice is, one after the other (in a chain that may stop early, this gives short ones a fair share).
                None: the space's :attr:`prior`.
        """
        if (by or self.prior) == "architecture":
            return self.tables.unrank(rng.randrange(self.size))
        drawn: Architecture = ()
        for _ in self.choices:
            drawn += (rng.choice(self.allowed(drawn)),)
        return drawn

    def __iter__(self) -> Iterator[Architecture]:
        """All architectures in lexicographic order. Mind the size."""
        return map(self.tables.unrank, range(self.size))

    def mutate(self, architecture: Architecture, rng: Random, choice: int | None = None) -> Architecture:
        """Forces another option at one choice and returns the nearest legal architecture, the rest changed least.

        Args:
            architecture: the architecture that is changed.
            rng: draws the choice, its new option, and among equally near architectures.
            choice: the index of the choice to change; None: uniformly among those that have an alternative.

        Raises:
            ValueError: if the parent is illegal, or there is no alternative.
        """
        if not self.legal(architecture):
            raise ValueError(f"not an architecture of this space: {architecture}")
        if choice is not None and not 0 <= choice < len(self.choices):
            raise ValueError(f"there is no choice {choice}; the space has {len(self.choices)}")
        candidates = range(len(self.choices)) if choice is None else [choice]
        alternatives = {k: [o for o in self.tables.possible[k] if o != architecture[k]] for k in candidates}
        changeable = [k for k in candidates if alternatives[k]]
        if not changeable:
            where = "the space" if choice is None else self.choices[choice].name
            raise ValueError(f"there is no alternative to choose from in {where}")
        changed = rng.choice(changeable)
        option = rng.choice(alternatives[changed])
        if not self.has_rule:
            return (*architecture[:changed], option, *architecture[changed + 1 :])

        def cost(k: int, o: int) -> float:
            if k == changed:
                return 0.0 if o == option else float("inf")
            return float(o != architecture[k])

        return self.tables.cheapest(cost, rng)

    def crossover(self, one: Architecture, other: Architecture, rng: Random) -> Architecture:
        """Mixes two architectures: each choice is taken from either parent with probability 1/2.

        Where the rule forbids the mix, the nearest legal architecture is returned: one that takes every choice from one
        of the parents, as few as possible from the one that was not drawn.

        Args:
            one: a parent, an architecture of the space.
            other: the other parent, an architecture of the space too.
            rng: draws whose option is taken at each choice, and among equally near architectures.

        Raises:
            ValueError: if a parent is illegal.
        """
        for parent in (one, other):
            if not self.legal(parent):
                raise ValueError(f"not an architecture of this space: {parent}")
        wanted = tuple(rng.choice(pair) for pair in zip(one, other, strict=True))
        if not self.has_rule or self.legal(wanted):
            return wanted

        def cost(k: int, option: int) -> float:
            if option in (one[k], other[k]):
                return float(option != wanted[k])
            return float("inf")

        return self.tables.cheapest(cost, rng)

    # -- scores and gates --------------------------------------------------------------------------------------------

    def derive(
        self, scores: Sequence[Sequence[float]], cheapest: Callable[[Cost], Architecture] | None = None
    ) -> Architecture:
        """The legal architecture of the highest total score.

        Args:
            scores: for each choice a score for each option. Ties go to the first option.
            cheapest: finds the architecture of the smallest total cost, such as that under limits
                (``Limits.cheapest``); None: of all legal ones.

        Raises:
            ValueError: if a score is not finite.
        """
        for choice, row in zip(self.choices, scores, strict=True):
            if len(row) != len(choice.options):
                raise ValueError(f"{choice.name} has {len(choice.options)} options, but {len(row)} scores")
            if not all(math.isfinite(score) for score in row):
                raise ValueError(f"the scores of {choice.name} are not finite: {[float(score) for score in row]}")
        return (cheapest or self.tables.cheapest)(lambda k, option: -float(scores[k][option]))

    def gates(self, architecture: Architecture) -> dict[str, Gate]:
        """The hard gates of one architecture: just its options run."""
        return {choice.name: option for choice, option in zip(self.choices, architecture, strict=True)}

    def one_hot(self, architecture: Architecture, **factory: Any) -> dict[str, Gate]:
        """The same as weights, one at the chosen option and zero elsewhere; ``factory`` goes to ``torch.zeros``."""
        gates: dict[str, Gate] = {}
        for choice, option in zip(self.choices, architecture, strict=True):
            gates[choice.name] = torch.zeros(len(choice.options), **factory)
            gates[choice.name][option] = 1.0  # type: ignore[index]
        return gates

    def resolve(self, gates: Gates | None) -> Resolved:
        """What runs under ``gates``: names instead of indices, and nothing where the weight is zero.

        Weights on an accelerator cost one transfer, for all choices together. Without gates the space must have just
        one architecture.

        Raises:
            ValueError: if a gate is missing, or its weights do not fit the options, or mix those of a choice that is
                not relaxable.
        """
        if gates is None:
            gates = self.gates(self.only)
        missing = [choice.name for choice in self.choices if choice.name not in gates]
        if missing:
            raise ValueError(f"no gate for {', '.join(missing)}")
        weights = []
        for choice in self.choices:
            gate, number = gates[choice.name], len(choice.options)
            if isinstance(gate, Tensor):
                if gate.shape != (number,):
                    raise ValueError(f"{choice.name} has {number} options, its gate the shape {tuple(gate.shape)}")
                weights.append(gate)
            elif not 0 <= gate < number:
                raise ValueError(f"{choice.name} has {number} options, its gate is {gate}")
        values = iter(torch.cat(weights).detach().tolist() if weights else ())
        resolved: Resolved = {}
        for choice in self.choices:
            gate = gates[choice.name]
            if isinstance(gate, Tensor):
                rows = [(option, weight, next(values)) for option, weight in zip(choice.options, gate, strict=True)]
                resolved[choice.name] = [(option, weight) for option, weight, value in rows if value]
                if not choice.relaxable:
                    resolved[choice.name] = _hard(choice, [(option, value) for option, _, value in rows if value])
            else:
                resolved[choice.name] = [(choice.options[gate], None)]
        return resolved

    # -- parts of a space --------------------------------------------------------------------------------------------

    def restrict(self, options: "Architecture | Mapping[str, str | Sequence[str]]") -> Self:
        """The space with fewer options: those of one architecture, or those named for some of the choices.

        Raises:
            ValueError: for an unknown choice or option, and if no legal architecture is left.
        """
        if isinstance(options, tuple):
            options = self.to_names(options)
        unknown = set(options) - {choice.name for choice in self.choices}
        if unknown:
            raise ValueError(f"unknown choice {sorted(unknown)[0]!r}")
        choices = []
        for choice in self.choices:
            wanted = options.get(choice.name, choice.options)
            wanted = (wanted,) if isinstance(wanted, str) else wanted
            for option in wanted:
                if option not in choice.options:
                    raise ValueError(f"{choice.name}: no option {option!r}; it has {', '.join(choice.options)}")
            kept = tuple(option for option in choice.options if option in wanted)
            keep = [choice.options.index(option) for option in kept]
            of_options = choice.kind == "input" and choice.sources
            sources = tuple(choice.sources[i] for i in keep) if of_options else choice.sources
            values = tuple(choice.values[i] for i in keep) if choice.values else ()
            choices.append(dataclasses.replace(choice, options=kept, sources=sources, values=values))
        part = copy.copy(self)
        for name in list(vars(part)):
            if isinstance(getattr(type(part), name, None), functools.cached_property):
                del part.__dict__[name]
        part.choices = tuple(choices)
        if not all(choice.options for choice in choices) or part.size == 0:
            raise ValueError("the restriction contradicts the space's rule: no legal architecture is left")
        part._full = getattr(self, "_full", self)  # type: ignore[attr-defined]
        return part

    @property
    def spec(self) -> dict[str, Any]:
        spec = super().spec
        full = getattr(self, "_full", self)
        fewer = {c.name: list(c.options) for c, f in zip(self.choices, full.choices, strict=True) if c != f}
        return {**spec, "restrict": fewer} if fewer else spec

    def _restore(self, spec: dict[str, Any]) -> None:
        if spec.get("restrict"):
            self.__dict__.update(copy.copy(self).restrict(spec["restrict"]).__dict__)

    # -- names -------------------------------------------------------------------------------------------------------

    def to_names(self, architecture: Architecture) -> dict[str, str]:
        """``{choice: option}`` by names, as files and messages have it.

        Raises:
            ValueError: if it is not an architecture of this space.
        """
        if not self.legal(architecture):
            raise ValueError(f"not an architecture of this space: {architecture}")
        return {c.name: c.options[option] for c, option in zip(self.choices, architecture, strict=True)}

    def from_names(self, names: Mapping[str, str]) -> Architecture:
        """The inverse of :meth:`to_names`.

        Raises:
            ValueError: naming the choice that is missing, unknown, or has an unknown or illegal option.
        """
        unknown = [str(name) for name in names if name not in {choice.name for choice in self.choices}]
        if unknown:
            raise SettingError(f"choices.{unknown[0][:80]}: {type(self).__name__} has no such choice")
        architecture: Architecture = ()
        for choice in self.choices:
            if choice.name not in names:
                raise SettingError(f"choices.{choice.name}: missing")
            name = names[choice.name]
            if name not in choice.options:
                shown = repr(name)[:80]
                raise SettingError(f"choices.{choice.name}: no option {shown}; it has {', '.join(choice.options)}")
            option = choice.options.index(name)
            if option not in self.allowed(architecture):
                raise SettingError(f"choices.{choice.name}: {name} is illegal after the choices before it")
            architecture += (option,)
        return architecture

    def encode(self, architecture: Architecture) -> Tensor:
        """An architecture as a vector for predictors, different for different architectures.

        A choice whose options have :attr:`Choice.values` is one number, its option's value, scaled so that the least is
        0 and the largest 1. Any other is one-hot. A restricted space encodes as the full one does.

        Args:
            architecture: one of the space.

        Returns:
            the features of the choices one after the other, float32, of the same length for all architectures.

        Raises:
            ValueError: if it is not an architecture of this space.
        """
        names = self.to_names(architecture)
        features: list[float] = []
        for choice in getattr(self, "_full", self).choices:
            option = choice.options.index(names[choice.name])
            if choice.values:
                least, largest = min(choice.values), max(choice.values)
                features.append((choice.values[option] - least) / (largest - least or 1.0))
            else:
                features += [float(k == option) for k in range(len(choice.options))]
        return torch.tensor(features)

    def describe(self, architecture: Architecture) -> str:
        """An architecture in a line or a few, for people."""
        return ", ".join(f"{name}: {option}" for name, option in self.to_names(architecture).items())


def _noting_settings(network: Callable[..., Network]) -> Callable[..., Network]:
    @functools.wraps(network)
    def noting(space: Space, inputs: dict[str, int], *args: Any, **settings: Any) -> Network:
        built = network(space, inputs, *args, **settings)
        positional = list(inspect.signature(network).parameters)[2:]
        built.settings = {**dict(zip(positional, args, strict=False)), **settings}
        return built

    return noting


def _hard(choice: Choice, running: list[tuple[str, float]]) -> list[tuple[str, Tensor | None]]:
    if [weight for _, weight in running] != [1.0]:
        raise ValueError(f"{choice.name} is not relaxable: its gate has to be one-hot, got {dict(running)}")
    return [(running[0][0], None)]


def _unique(what: str, names: Sequence[str], dots: bool = False) -> None:
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{what}: {name!r} occurs more than once")
        if not name or ("." in name and not dots):
            raise ValueError(f"{what}: {name!r} cannot name a module (empty, or has a dot)")
