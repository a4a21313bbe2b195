"""Numbers that are chosen: widths, kernel sizes, depths, heads in the constructor of a user's network."""

import itertools
import math
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from lightning_nas.errors import SettingError
from lightning_nas.spaces.own.running import numbers_now


class Value:
    """A number that depends on value choices. It stands wherever a whole number does: in the arguments of layers,
    sizes of tensors, ranges and slices, and in arithmetic with other numbers, which gives a ``Value`` again.

    In a forward pass it is the number of the architecture that runs. Outside it is the largest that it can be, so that
    layers are built as wide as they will ever run.

    Args:
        operation: computes the number from those of the operands.
        operands: numbers and other values.
    """

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
        return self.operation(*(o.under(chosen) if isinstance(o, Value) else o for o in self.operands))

    @property
    def largest(self) -> Any:
        """The largest number that it can be."""
        every = itertools.product(*self.options.values())
        return max(self.under(dict(zip(self.options, chosen, strict=True))) for chosen in every)

    @property
    def number(self) -> Any:
        """The number of the architecture that runs; outside of a forward pass the largest."""
        now = numbers_now()
        return self.under(now) if all(label in now for label in self.options) else self.largest

    def __index__(self) -> int:
        return operator.index(self.number)

    def __float__(self) -> float:
        return float(self.number)

    def __int__(self) -> int:
        if not numbers_now():
            raise SettingError(
                f"{self}: int() would forget that it is chosen; whole numbers are enough, as in width * 3 // 2"
            )
        return int(self.number)

    def __bool__(self) -> bool:
        return bool(self.number)

    def __hash__(self) -> int:
        return hash(self.number)

    def __repr__(self) -> str:
        return str(self.number)

    def __reduce__(self) -> Any:  # pickle goes by __class__
        return Value, (self.operation, *self.operands)

    @property  # type: ignore[misc]
    def __class__(self) -> type:  # nn.LSTM takes sizes that are an int, and nn.LayerNorm one that is Integral
        return int


def _arithmetic(name: str, function: Callable[..., Any]) -> None:
    def forward(self: Value, *others: Any) -> Any:
        if all(isinstance(other, (int, float, Value)) for other in others):
            return Value(function, self, *others)
        return function(self.number, *others)  # a tensor, which has to be computed with now

    def reflected(self: Value, other: Any) -> Any:
        if isinstance(other, (int, float, Value)):
            return Value(function, other, self)
        return function(other, self.number)

    setattr(Value, f"__{name}__", forward)
    setattr(Value, f"__r{name}__", reflected)


def _comparison(name: str, function: Callable[..., Any]) -> None:
    def compare(self: Value, other: Any) -> Any:
        return function(self.number, other.number if isinstance(other, Value) else other)

    setattr(Value, f"__{name}__", compare)


for _name in ("add", "sub", "mul", "floordiv", "truediv", "mod", "pow"):
    _arithmetic(_name, getattr(operator, _name))
for _name in ("neg", "abs"):
    _arithmetic(_name, getattr(operator, _name))
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
        return Chosen, (self.label, self.options[self.label])

    def under(self, chosen: Mapping[str, float]) -> Any:
        return chosen[self.label]


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
    if build is None:
        return Chosen(label, values)
    if build.seen.setdefault(label, values) != values:
        raise SettingError(
            f"{label}: one decision has the same values everywhere, got {build.seen[label]} and {values}"
        )
    left = build.left.get(label, values)
    return left[0] if len(left) == 1 else Chosen(label, left)


def check_label(label: Any) -> None:
    if not isinstance(label, str) or not label or "." in label:
        raise SettingError(f"label: a name without a dot, got {label!r}")


class Build:
    """The construction of a network.

    Args:
        left: the values that are left to choose from, by label; of others there are all.

    Attributes:
        seen: all values of each value choice that the constructor made, by label.
    """

    def __init__(self, left: Mapping[str, tuple[float, ...]]) -> None:
        self.left = left
        self.seen: dict[str, tuple[float, ...]] = {}

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
    """The values in an attribute of a module: itself, or in a tuple or list."""
    if isinstance(held, Value):
        return [held]
    return [value for item in held for value in values_in(item)] if isinstance(held, (list, tuple)) else []


def settled(held: Any, chosen: Mapping[str, float]) -> Any:
    """An attribute of a module with plain numbers in the place of values."""
    if isinstance(held, Value):
        return held.under(chosen)
    return type(held)(settled(item, chosen) for item in held) if values_in(held) else held
