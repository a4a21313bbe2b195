"""Numbers that are chosen: widths, kernel sizes, depths, heads in the constructor of a user's network."""

import copy
import itertools
import math
import operator
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from numbers import Real
from typing import Any

from torch.utils._pytree import tree_leaves, tree_map

from lightning_nas.errors import SettingError
from lightning_nas.spaces.own.running import not_running, numbers_now


class Value:
    """A number that depends on value choices. It stands wherever a whole number does: in the arguments of layers,
    sizes of tensors, ranges and slices, and in arithmetic with other numbers, which gives a ``Value`` again.

    In a forward pass it is the number of the architecture that runs. Outside it is the largest that it can be, so that
    layers are built as wide as they will ever run.

    Args:
        operation: computes the number from those of the operands.
        operands: numbers and other values.
    """

    bound = False
    """Whether it belongs to the network of a search, where it stands for a number in a forward pass only."""

    def __init__(self, operation: Callable[..., Any], *operands: Any) -> None:
        self.operation, self.operands = operation, operands
        self.options: dict[str, tuple[float, ...]] = {}
        """The values of each value choice that the number depends on, by label."""
        for operand in operands:
            self.options |= operand.options if isinstance(operand, Value) else {}

    def under(self, chosen: Mapping[str, float]) -> Any:
        """The number where the value choices are taken so.

        Args:
            chosen: the value that each value choice has, by label.
        """
        return self.operation(*[o.under(chosen) if isinstance(o, Value) else o for o in self.operands])

    def possible(self, chosen: Mapping[str, float]) -> set[Any]:
        """All numbers that it can be.

        Args:
            chosen: the value that each value choice has, by label; those of others are open.
        """
        inner = [operand.options for operand in self.operands if isinstance(operand, Value)]
        common = [label for label in self.options if sum(label in options for options in inner) > 1]
        found: set[Any] = set()
        for values in itertools.product(*(_left(label, self.options[label], chosen) for label in common)):
            known = {**chosen, **dict(zip(common, values, strict=True))}
            each = [o.possible(known) if isinstance(o, Value) else [o] for o in self.operands]
            found |= {self.operation(*numbers) for numbers in itertools.product(*each)}
        return found

    @property
    def number(self) -> Any:
        """The number of the architecture that runs; outside of a forward pass the largest."""
        now = numbers_now()
        return self.under(now) if now and now.keys() >= self.options.keys() else max(self.possible({}))

    def used(self) -> Any:
        """The number, for a computation.

        Raises:
            SettingError: if it belongs to the network of a search, and no architecture runs.
        """
        now = numbers_now()
        if now and now.keys() >= self.options.keys():
            return self.under(now)
        if self.bound:
            raise not_running(", ".join(self.options))
        return max(self.possible({}))

    def alone(self, what: str) -> Any:
        """The number, for something that would keep no more than that.

        Args:
            what: what would be kept, for the error.

        Raises:
            SettingError: if it can be another one, and no architecture runs.
        """
        possible = set() if numbers_now() or _asked_by_torch(3) else self.possible({})
        if len(possible) > 1:
            raise SettingError(
                f"{', '.join(self.options)}: {what} would forget that it is chosen; whole numbers are enough, as in "
                "width * 3 // 2, and math.ceil, round and ** -0.5 keep it too. In a forward pass it is a number"
            )
        return self.used()

    def decides(self, function: Callable[..., Any], *others: Any) -> Any:
        """What a function of it gives that decides what a program does.

        Raises:
            SettingError: if a constructor asks, and the answer is not the same for all architectures.
        """
        if _BUILD.get() is not None and not numbers_now():
            answers = Value(function, self, *others).possible({})
            if len(answers) > 1 and not _asked_by_torch(3):
                raise SettingError(
                    f"{', '.join(self.options)}: a constructor decides by it, with another answer for each number, but "
                    "builds one network for all of them. Decide in forward, or let a LayerChoice choose"
                )
        return function(self.number, *(o.number if isinstance(o, Value) else o for o in others))

    def __index__(self) -> int:
        number = self.used()
        if isinstance(number, float):
            raise TypeError(f"{number} is no whole number; compute with //, round or math.ceil")
        return operator.index(number)

    def __float__(self) -> float:
        return float(self.alone("float(), or a function of math,"))

    def __int__(self) -> int:
        return int(self.alone("int()"))

    def __bool__(self) -> bool:
        return self.decides(bool)

    def __hash__(self) -> int:
        return self.decides(hash)

    def __repr__(self) -> str:
        return str(self.number)

    def __reduce__(self) -> Any:  # pickle goes by __class__
        return Value, (self.operation, *self.operands), vars(self)

    @property  # type: ignore[misc]
    def __class__(self) -> type:  # nn.LSTM takes sizes that are an int, and nn.LayerNorm one that is Integral
        # but a compiler, which would take it for a constant, sees what it is
        return type(self) if sys._getframe(1).f_globals.get("__name__", "").startswith("torch._dynamo") else int

    def __format__(self, form: str) -> str:
        return format(self.number, form)

    def __divmod__(self, other: Any) -> tuple[Any, Any]:
        return self // other, self % other


def _asked_by_torch(depth: int) -> bool:
    """Whether the caller so many frames up is PyTorch, whose layers check their arguments and draw weights by them."""
    asks: str = sys._getframe(depth).f_globals.get("__name__", "")
    return asks.startswith("torch.")


def _arithmetic(name: str, function: Callable[..., Any]) -> None:
    def forward(self: Value, *others: Any) -> Any:
        if all(isinstance(other, Real) for other in others):
            return _of(function, self, *others)
        return function(self.used(), *others)  # a tensor, which has to be computed with now

    def reflected(self: Value, other: Any) -> Any:
        return _of(function, other, self) if isinstance(other, Real) else function(other, self.used())

    setattr(Value, f"__{name}__", forward)
    setattr(Value, f"__r{name}__", reflected)


def _of(function: Callable[..., Any], *operands: Any) -> Value:
    value = Value(function, *operands)
    value.bound = any(isinstance(operand, Value) and operand.bound for operand in operands)
    return value


def _comparison(name: str, function: Callable[..., Any]) -> None:
    def compare(self: Value, other: Any) -> Any:
        return self.decides(function, other)

    setattr(Value, f"__{name}__", compare)


for _name in ("add", "sub", "mul", "floordiv", "truediv", "mod", "pow", "lshift", "rshift", "and", "or", "xor"):
    _arithmetic(_name, getattr(operator, f"__{_name}__"))
for _name in ("neg", "pos", "abs", "invert"):
    _arithmetic(_name, getattr(operator, _name))
for _name in ("ceil", "floor", "trunc"):
    _arithmetic(_name, getattr(math, _name))
_arithmetic("round", round)
for _name in ("eq", "ne", "lt", "le", "gt", "ge"):
    _comparison(_name, getattr(operator, _name))


class Chosen(Value):
    """The number of a value choice itself.

    Args:
        label: what the choice is called.
        values: the numbers to choose from.
    """

    def __init__(self, label: str, values: Sequence[float]) -> None:
        super().__init__(operator.pos)
        self.label, self.options = label, {label: tuple(values)}

    def __reduce__(self) -> Any:
        return Chosen, (self.label, self.options[self.label]), vars(self)

    def under(self, chosen: Mapping[str, float]) -> Any:
        return chosen[self.label]

    def possible(self, chosen: Mapping[str, float]) -> set[Any]:
        return set(_left(self.label, self.options[self.label], chosen))


def _left(label: str, values: tuple[float, ...], chosen: Mapping[str, float]) -> tuple[float, ...]:
    """The values of a value choice that are open still; a network that is being built notes that it asked."""
    build = _BUILD.get()
    return (chosen[label],) if label in chosen else values if build is None else build.left_of(label, values)


def ValueChoice(values: Sequence[float], label: str) -> Any:  # it stands beside LayerChoice
    """A number to choose, for an argument in the constructor of a network: the width or the kernel size of a layer, a
    number of heads, a depth.

    A found network is built with the number itself. The network of a search has the layers of the largest number, of
    which narrower ones run the leading part: ``nn.Linear``, ``nn.Conv1d`` and ``nn.Conv2d``, ``nn.BatchNorm1d`` and
    ``nn.BatchNorm2d``, ``nn.LayerNorm``, ``nn.Embedding``, ``nn.MultiheadAttention``, ``nn.RNN``, ``nn.GRU`` and
    ``nn.LSTM``, and PyTorch's transformers, of whose layers the first run. A search refuses others by name. A module of
    your own may keep the number as an attribute: in a forward pass it is the one that is chosen, as in ``for block in
    self.blocks[: self.depth]``, and of its own parameters ``self.scales[: self.width]`` is the found network's.

    Args:
        values: the numbers to choose from, all different.
        label: what the choice is called. Where it is used again, it is the same decision.

    Returns:
        something that stands for the number, see :class:`Value`; where a found network is built, the number.

    Raises:
        SettingError: if there are no values, or some are alike, or the label cannot be a name.

    Example::

        from torch import nn
        from lightning_nas import ValueChoice

        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                width = ValueChoice([8, 16, 32], "width")
                self.conv = nn.Conv2d(3, width, 3, padding=1)
                self.classify = nn.Linear(width, 10)

            def forward(self, x):
                return self.classify(self.conv(x).mean((2, 3)))
    """
    check_label(label)
    values = tuple(values)
    wrong = not values or len(set(values)) < len(values)
    if wrong or not all(isinstance(v, (int, float)) and not isinstance(v, bool) and math.isfinite(v) for v in values):
        raise SettingError(f"{label}: numbers to choose from, all different, got {list(values)}")
    build = _BUILD.get()
    left = values if build is None else build.left_of(label, values)
    if build is not None and build.plain:
        return max(left)
    return Chosen(label, values) if len(left) > 1 or build is None else left[0]


def check_label(label: Any) -> None:
    if not isinstance(label, str) or not label or "." in label:
        raise SettingError(f"label: a name without a dot, got {label!r}")


class Build:
    """The construction of a network.

    Args:
        left: the values that are left to choose from, by label; of others there are all.
        plain: whether value choices are plain numbers, the largest that are left, for a constructor that needs these.

    Attributes:
        seen: all values of each value choice that the constructor made or read, by label.
    """

    def __init__(self, left: Mapping[str, tuple[float, ...]], plain: bool = False) -> None:
        self.left, self.plain = left, plain
        self.seen: dict[str, tuple[float, ...]] = {}

    def left_of(self, label: str, values: tuple[float, ...]) -> tuple[float, ...]:
        """The values of a value choice that are left.

        Args:
            label: what the choice is called.
            values: all that it has.

        Raises:
            SettingError: if a choice of this name had others before.
        """
        if self.seen.setdefault(label, values) != values:
            one = self.seen[label]
            raise SettingError(f"{label}: one decision has the same values everywhere, got {one} and {values}")
        return self.left.get(label, values)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Inside, value choices are recorded here, and have the values that are left."""
        token = _BUILD.set(self)
        try:
            yield
        finally:
            _BUILD.reset(token)


_BUILD: ContextVar[Build | None] = ContextVar("build", default=None)


def values_in(held: Any) -> list[Value]:
    """The values in an attribute of a module: itself, or in tuples, lists and dictionaries."""
    return [leaf for leaf in tree_leaves(held) if isinstance(leaf, Value)]


def settled(held: Any, chosen: Mapping[str, float]) -> Any:
    """An attribute of a module with plain numbers in the place of values."""
    return tree_map(lambda leaf: leaf.under(chosen) if isinstance(leaf, Value) else leaf, held)


def bound(held: Any) -> Any:
    """An attribute of a module with values that stand for a number in a forward pass only."""

    def bind(leaf: Any) -> Any:
        if not isinstance(leaf, Value):
            return leaf
        leaf = copy.copy(leaf)
        leaf.bound = True
        return leaf

    return tree_map(bind, held)
